package kernel

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// watch runs a Watch until the test ends and returns its events. The channel has no
// room: the watcher waits for whoever reads.
func watch(t *testing.T, h *Handle) <-chan fib.Event {
	t.Helper()
	events := make(chan fib.Event)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- h.Watch(ctx, func(e fib.Event) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return events
}

func next(t *testing.T, events <-chan fib.Event, what string, match func(fib.Event) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case e := <-events:
			if match(e) {
				return
			}
		case <-deadline:
			t.Fatalf("no event for: %s", what)
		}
	}
}

func kind(k fib.EventKind) func(fib.Event) bool {
	return func(e fib.Event) bool { return e.Kind == k }
}

func TestWatchOverflow(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	k, other := openTest(t, testOwner, false), openTest(t, testOwner, false)
	conn, err := k.monitor.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 20000) })
	if err != nil {
		t.Fatal(err)
	}
	events := watch(t, k)
	next(t, events, "the beginning", kind(fib.Subscribed))
	mustApply(t, other,
		fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: hop(0, v0)},
		fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1}},
	)
	for range 3 { // nobody reads meanwhile
		mustApply(t, other, routeOps(fib.RouteAdd, prefixes(1000), first+10)...)
		mustApply(t, other, routeOps(fib.RouteDel, prefixes(1000), 0)...)
		next(t, events, "an overrun", kind(fib.Overflow))
		// What happens after the Overflow is told again, unless there was another one: the
		// watcher may have emptied its queue while the routes were still going.
		p := netip.MustParsePrefix("10.9.0.0/24")
		for told := false; !told; {
			mustApply(t, other, fib.Op{Kind: fib.RouteAdd, Prefix: p, ID: first + 10})
			next(t, events, "a route after the overrun, or another overrun", func(e fib.Event) bool {
				told = e.Kind == fib.OwnRouteChanged && !e.Deleted && e.Prefix == p && e.PID == other.w.port
				return told || e.Kind == fib.Overflow
			})
			mustApply(t, other, fib.Op{Kind: fib.RouteDel, Prefix: p})
		}
	}
}

// Own writes never reach the socket, so that a load cannot overrun it.
func TestWatchDropsEcho(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	k := openTest(t, testOwner, false)
	events := watch(t, k)
	next(t, events, "the beginning", kind(fib.Subscribed))
	mustApply(t, k,
		fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: hop(0, v0)},
		fib.Op{Kind: fib.NextHopAdd, ID: first + 2, Leg: hop(1, v0)},
		fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1}},
	)
	mustApply(t, k, routeOps(fib.RouteAdd, prefixes(5000), first+10)...)
	// With nexthop_compat_mode on, this tells of every route, in our name.
	mustApply(t, k, fib.Op{Kind: fib.GroupReplace, ID: first + 10, Members: []uint32{first + 1, first + 2}})
	mustApply(t, k, fib.Op{Kind: fib.NextHopDel, ID: first + 1})
	mustApply(t, k, fib.Op{Kind: fib.GroupDel, ID: first + 10})
	h.ip("addr add 10.0.9.1/24 dev v0")
	next(t, events, "the new address", func(e fib.Event) bool {
		switch e.Kind {
		case fib.AddrChanged, fib.HostRouteChanged, fib.LinkChanged:
		default:
			t.Errorf("event of our own doing: %+v", e)
		}
		return e.Kind == fib.AddrChanged
	})
}

func TestWatchNeighbors(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64"))
	k := openTest(t, testOwner, false)
	events := watch(t, k)
	next(t, events, "the beginning", kind(fib.Subscribed))
	for _, a := range []string{"10.0.0.2", "2001:db8::2"} {
		is := func(k fib.EventKind) func(fib.Event) bool {
			return func(e fib.Event) bool {
				return e.Kind == k && e.Addr == netip.MustParseAddr(a) && e.IfIndex == v0
			}
		}
		h.ip("neigh add %s lladdr 02:00:00:00:00:01 nud reachable dev v0", a)
		next(t, events, "reachable "+a, is(fib.NeighborReachable))
		h.ip("neigh change %s nud failed dev v0", a)
		next(t, events, "failed "+a, is(fib.NeighborFailed))
	}
}

// A Watch can end and start again; Close ends it, too.
func TestWatchEnds(t *testing.T) {
	newHost(t)
	k := openTest(t, testOwner, false)
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		if err := k.Watch(ctx, func(fib.Event) { cancel() }); err != nil {
			t.Fatalf("Watch: %v", err)
		}
	}
	for range 2 { // closed meanwhile, closed before
		if err := k.Watch(context.Background(), func(fib.Event) { k.Close() }); err != nil {
			t.Errorf("Watch of a closed Handle: %v", err)
		}
	}
}
