package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// story is what happens in the fault tests: both NVAs announce, one prepends, one dies
// and comes back, the link flaps, a foreign route comes and goes.
func (l *lab) story() {
	prefixes := many(50)
	foreign := static(prefixes[3], owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0})
	l.up(quagga, bird)
	l.announce(quagga, prefixes...)
	l.announce(bird, prefixes[:40]...)
	time.Sleep(10 * time.Millisecond)
	l.announceWith(bird, attrs(bird, 3), prefixes[:20]...)
	l.m.ReplaceRoute(foreign)
	l.down(quagga)
	l.withdraw(quagga, prefixes...)
	l.idle(quagga)
	time.Sleep(10 * time.Millisecond)
	l.m.SetLink(l.eth0, false)
	synctest.Wait()
	l.up(quagga)
	l.m.SetLink(l.eth0, true)
	l.announce(quagga, prefixes[10:]...)
	l.m.FlushProtocol(254, owner.Protocol)
	l.m.DelRoute(foreign)
	synctest.Wait()
	l.eor(quagga)
	l.eor(bird)
}

// scratch is what the kernel should have, made from nothing but what the peers announce
// and the host.
func (l *lab) scratch(paths *rib.Table, state func(fib.Source) fib.SourceState) map[netip.Prefix][]string {
	host, err := l.k.Kernel.Host()
	if err != nil {
		l.t.Fatal(err)
	}
	resolver := fib.NewResolver(host)
	l.a.mu.Lock() // paths may be the agent's own
	defer l.a.mu.Unlock()
	protected := slices.Collect(maps.Keys(paths.NextHops()))
	for p := range l.a.peers.byAddr {
		protected = append(protected, p)
	}
	policy := rib.Policy{
		LocalASN: l.cfg.ASN, VNet: l.cfg.VNet.Prefixes, AllowInside: l.cfg.VNet.AllowInside,
		Captures: rib.NewCaptures(protected, l.cfg.FIB.Metric, resolver.Resolve),
	}
	table := fib.NewTable(fib.Options{Owner: owner, MaxPaths: l.cfg.FIB.MaxPaths})
	for _, p := range l.a.peers.bySource {
		table.SetSource(p.source, state(p.source))
	}
	table.SetResolver(resolver.Resolve)
	want := make(map[netip.Prefix][]string)
	for _, p := range paths.Prefixes() {
		vias, _ := policy.Rank(nil, p, paths.Paths(p))
		table.Set(p, vias)
		e, _ := table.Entry(p)
		if len(e.Legs) == 0 || l.taken(p) {
			continue
		}
		for _, leg := range e.Legs {
			want[p] = append(want[p], leg.Gateway.String())
		}
	}
	return want
}

// taken tells whether a foreign route has the key of ours.
func (l *lab) taken(p netip.Prefix) bool {
	return slices.ContainsFunc(l.m.Routes(p, 254), func(r fib.Route) bool { return r.Metric == owner.Metric && r.Protocol != owner.Protocol })
}

// asFromScratch compares the kernel's routes with what follows from the learned paths.
func (l *lab) asFromScratch() {
	l.t.Helper()
	l.as(l.a.rib, l.a.table.State)
}

// as compares the kernel's routes with what follows from the paths.
func (l *lab) as(paths *rib.Table, state func(fib.Source) fib.SourceState) {
	l.t.Helper()
	want := l.scratch(paths, state)
	snap, err := l.k.Kernel.Dump(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for p := range snap.Routes {
		if want[p] == nil {
			l.t.Errorf("route %s should not be there", p)
		}
	}
	for p, hops := range want {
		if got := l.nextHops(p); !slices.Equal(got, hops) {
			l.t.Errorf("route %s has next hops %q, want %q", p, got, hops)
		}
	}
	l.consistent()
}

// Every call of the kernel fails once, at every place of a story; whatever is broken
// then, the end is the same, and the agent comes to rest.
func TestEveryCallFailsOnce(t *testing.T) {
	for _, classic := range []bool{false, true} {
		start := func(t *testing.T) *lab {
			return newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.NextHopObjects = !classic })
		}
		name := map[bool]string{false: "groups", true: "classic"}[classic]
		calls := make(map[string]int)
		ops := 0
		bubble(t, name+"/nothing fails", func(t *testing.T) {
			l := start(t)
			applies, dumps, hosts := l.k.counts()
			l.story()
			time.Sleep(5 * time.Second)
			l.asFromScratch()
			a, d, h := l.k.counts()
			calls["apply"], calls["dump"], calls["host"] = a-applies, d-dumps, h-hosts
			ops = len(l.k.TakeOps())
			l.atRest()
		})
		for call, n := range calls {
			for i := range n {
				bubble(t, fmt.Sprintf("%s/%s %d of %d", name, call, i, n), func(t *testing.T) {
					l := start(t)
					l.k.failing(failNth(call, i))
					l.story()
					time.Sleep(5 * time.Second)
					l.asFromScratch()
					l.atRest()
				})
			}
		}
		// A single refused operation is retried within 30 s.
		for i := 0; i < ops; i += 1 + i/20 {
			bubble(t, fmt.Sprintf("%s/operation %d of %d", name, i, ops), func(t *testing.T) {
				l := start(t)
				l.k.FailOp(i, syscall.ENOMEM, "out of memory")
				l.story()
				time.Sleep(45 * time.Second)
				l.asFromScratch()
				l.atRest()
			})
		}
	}
}

// An outcome that stays unknown is looked into at a bounded rate, and nothing is written
// on beliefs that may be wrong.
func TestOutcomeStaysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, many(10)...)
		l.k.failing(func(call string) error {
			if call == "apply" {
				return syscall.ENOBUFS
			}
			return nil
		})
		l.announce(bird, many(10)...)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		applies, dumps, _ := l.k.counts()
		if applies > 600 || dumps > 600 || dumps < 10 {
			t.Errorf("%d writes and %d dumps in 10 s", applies, dumps)
		}
		l.k.failing(nil)
		time.Sleep(time.Second)
		l.asFromScratch()
		l.atRest()
	})
}

// Dumps that fail are tried again once a second, also where nothing else happens.
func TestDumpStaysBroken(t *testing.T) {
	for _, call := range []string{"dump", "host"} {
		bubble(t, call, func(t *testing.T) {
			l := newLab(t, nil)
			l.up(quagga)
			l.announce(quagga, many(10)...)
			l.k.failing(func(c string) error {
				if c == call {
					return syscall.ENOMEM
				}
				return nil
			})
			l.m.Emit(fib.Event{Kind: fib.Overflow})
			_, d1, h1 := l.k.counts()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			_, d2, h2 := l.k.counts()
			if n := (d2 - d1) + (h2 - h1); n < 8 || n > 14 {
				t.Errorf("%d readings in 10 s, want about one a second", n)
			}
			// What is learned meanwhile is written all the same.
			l.announce(quagga, seed)
			l.settle()
			l.expect("while reading fails", seed, "10.1.0.4")
			l.k.failing(nil)
			time.Sleep(2 * time.Second)
			l.asFromScratch()
			l.atRest()
		})
	}
}

// A refused route waits with growing pauses, tells the operator once, and costs the
// others nothing.
func TestRefusedRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		tried := 0
		l.k.FailOps(func(_ int, op fib.Op) *fib.OpError {
			if op.Prefix != seed || op.Kind == fib.RouteDel {
				return nil
			}
			tried++
			return &fib.OpError{Errno: syscall.EINVAL, Text: "no, thanks"}
		})
		l.up(quagga)
		l.announce(quagga, append(many(10), seed)...)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if tried < 10 || tried > 40 {
			t.Errorf("tried %d times in 10 minutes, want growing pauses of up to 30 s", tried)
		}
		l.expect("not refused", many(1)[0], "10.1.0.4")
		l.expectReason("refused", quagga, seed, "kernel-refused")
		l.consistent()
		if got := l.log.lines("event=fib-refused", "prefix=192.168.255.0/24", "no, thanks"); len(got) != 1 {
			t.Errorf("%d records, want 1: %q", len(got), got)
		}
		x, err := l.a.explain(t.Context(), seed.String())
		if err != nil || x.Reason != "kernel-refused" || x.LastError == "" || x.Attempts != tried || x.NextRetry == nil || x.LastErrorAt == nil {
			t.Errorf("explain: %s, %v", text(x), err)
		}
		l.k.FailOps(nil)
		time.Sleep(31 * time.Second)
		l.settle()
		l.expect("not refused any more", seed, "10.1.0.4")
		l.atRest()
	})
}

// One peer's next hop that the kernel does not take must not take the prefix from the
// others.
func TestRefusedNextHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.k.FailOps(func(_ int, op fib.Op) *fib.OpError {
			if op.Kind == fib.NextHopAdd && op.Leg.Gateway == bird {
				return &fib.OpError{Errno: syscall.EINVAL, Text: "Nexthop has invalid gateway"}
			}
			return nil
		})
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		l.settle()
		l.expect("one is refused", seed, "10.1.0.4")
		l.expectReason("refused", bird, seed, "kernel-refused")
		l.expectReason("taken", quagga, seed, "installed")
	})
}
