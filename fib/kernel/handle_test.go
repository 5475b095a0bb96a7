package kernel

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/internal/netnstest"
	"golang.org/x/sys/unix"
)

var testOwner = fib.Owner{
	Table: unix.RT_TABLE_MAIN, Metric: 20, Protocol: 165,
	FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID,
}

const first = fib.DefaultFirstID

func setCompatMode(tb testing.TB, v string) {
	tb.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte(v), 0); err != nil {
		tb.Fatal(err)
	}
}

func TestOpenChecksOwner(t *testing.T) {
	for name, change := range map[string]func(*fib.Owner){
		"no table":          func(o *fib.Owner) { o.Table = 0 },
		"no metric":         func(o *fib.Owner) { o.Metric = 0 }, // IPv6 would make it 1024
		"kernel's protocol": func(o *fib.Owner) { o.Protocol = unix.RTPROT_KERNEL },
		"id 0":              func(o *fib.Owner) { o.FirstID = 0 },
		"empty range":       func(o *fib.Owner) { o.LastID = o.FirstID - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOwner
			change(&o)
			if h, err := Open(Options{Owner: o}); err == nil {
				h.Close()
				t.Errorf("Open(%+v) succeeded", o)
			}
		})
	}
}

func TestOpenWithoutNetAdmin(t *testing.T) {
	netnstest.New(t) // and locks the thread, whose capabilities are taken
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, fewer [2]unix.CapUserData
	if err := unix.Capget(&hdr, &all[0]); err != nil {
		t.Fatal(err)
	}
	fewer = all
	fewer[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&hdr, &fewer[0]); err != nil {
		t.Fatal(err)
	}
	h, err := Open(Options{Owner: testOwner})
	if err := unix.Capset(&hdr, &all[0]); err != nil {
		t.Fatal(err)
	}
	if h != nil {
		h.Close()
	}
	if !errors.Is(err, ErrNoNetAdmin) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Open without CAP_NET_ADMIN: %v, want one line of %v", err, ErrNoNetAdmin)
	}
}

// The answer is for the namespace the Handle was opened in, whoever asks.
func TestCompatMode(t *testing.T) {
	netnstest.New(t)
	h := openTest(t, testOwner, false)
	for _, want := range []bool{true, false, true} {
		v := "0"
		if want {
			v = "1"
		}
		setCompatMode(t, v)
		type answer struct {
			on  bool
			err error
		}
		c := make(chan answer)
		go func() {
			on, err := h.CompatMode()
			c <- answer{on, err}
		}()
		if got := <-c; got.err != nil || got.on != want {
			t.Errorf("CompatMode with sysctl %s = %v, %v", v, got.on, got.err)
		}
	}
}

// hop returns the ith next hop on a link whose subnet is 10.0.0.0/24.
func hop(i, index int) fib.Leg {
	return fib.Leg{Gateway: netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), IfIndex: index}
}

func mustApply(tb testing.TB, h *Handle, ops ...fib.Op) {
	tb.Helper()
	refused, err := h.Apply(ops)
	if err != nil || len(refused) > 0 {
		tb.Fatalf("Apply: refused %+v, err %v", refused, err)
	}
}

// prefixes returns n /24s.
func prefixes(n int) []netip.Prefix {
	ps := make([]netip.Prefix, n)
	for i := range ps {
		ps[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
	}
	return ps
}

func routeOps(kind fib.OpKind, ps []netip.Prefix, group uint32) []fib.Op {
	ops := make([]fib.Op, len(ps))
	for i, p := range ps {
		ops[i] = fib.Op{Kind: kind, Prefix: p, ID: group}
	}
	return ops
}

// A receive buffer that overruns makes the outcome unknown, and nothing else: the next
// call is not confused by what the last one left behind.
func TestApplyOverrun(t *testing.T) {
	netnstest.New(t)
	h := openTest(t, testOwner, false)
	if err := unix.SetsockoptInt(h.w.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the kernel's minimum, 2304
		t.Fatal(err)
	}
	bad := routeOps(fib.RouteAdd, prefixes(100), first+1)
	if _, err := h.Apply(bad); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("Apply of %d failing operations into a tiny buffer: %v, want ENOBUFS", len(bad), err)
	}
	if _, err := h.Dump(nil); err != nil {
		t.Errorf("Dump after the overrun: %v", err)
	}
	refused, err := h.Apply(bad[:1])
	if err != nil || len(refused) != 1 || refused[0].Index != 0 {
		t.Errorf("Apply after the overrun: refused %+v, err %v", refused, err)
	}
}

// A dump that is given up is in nobody's way: not in that of writes, nor of the next dump.
func TestDumpGivenUp(t *testing.T) {
	host := newHost(t)
	v0 := host.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	h := openTest(t, testOwner, false)
	const n = 20_000
	mustApply(t, h, fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: hop(0, v0)}, fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1}})
	mustApply(t, h, routeOps(fib.RouteAdd, prefixes(n), first+10)...)
	for _, after := range []int{0, 1, 5, 20} {
		asked := 0
		urgent := func() bool { asked++; return asked > after }
		if _, err := h.Dump(urgent); !errors.Is(err, fib.ErrUrgent) {
			t.Fatalf("after %d reads: %v", after, err)
		}
		mustApply(t, h, fib.Op{Kind: fib.GroupReplace, ID: first + 10, Members: []uint32{first + 1}})
	}
	for range 2 {
		s, err := h.Dump(func() bool { return false })
		if err != nil || len(s.Routes) != n || len(s.Groups) != 1 {
			t.Errorf("%d routes and %d groups, err %v", len(s.Routes), len(s.Groups), err)
		}
	}
}

// Where buffers may not be forced, batches are as small as the buffer wants them.
func TestBatchFitsBuffer(t *testing.T) {
	netnstest.New(t)
	h := openTest(t, testOwner, false)
	if err := unix.SetsockoptInt(h.w.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 10000); err != nil {
		t.Fatal(err)
	}
	h.maxBatch = h.w.receiveBuffer() / replySize
	bad := routeOps(fib.RouteAdd, prefixes(1000), first+1)
	if refused, err := h.Apply(bad); err != nil || len(refused) != len(bad) {
		t.Errorf("%d of %d refused, err %v", len(refused), len(bad), err)
	}
}

// A reply that never comes ends in an error, not in a wait.
func TestLostReply(t *testing.T) {
	netnstest.New(t)
	h := openTest(t, testOwner, false)
	h.w.timeout = 10 * time.Millisecond
	h.enc.reset(h.w.nextSeq())
	h.enc.routeDel(netip.MustParsePrefix("10.9.0.0/24")) // ESRCH, whose number is not the last
	h.w.nextSeq()
	err := h.exchange(2, func(i int, errno unix.Errno, _ string) {
		if i != 0 || errno != unix.ESRCH {
			t.Errorf("operation %d: %v", i, errno)
		}
	})
	if !errors.Is(err, errTimeout) {
		t.Errorf("exchange = %v, want %v", err, errTimeout)
	}
}

// Objects of ours that are not as we make them equal nothing that is wanted.
func TestDumpOddObjects(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64"))
	k := openTest(t, testOwner, false)
	mustApply(t, k,
		fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: hop(0, v0)},
		fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1}},
		fib.Op{Kind: fib.NextHopAdd, ID: first + 9, Leg: fib.Leg{Gateway: netip.MustParseAddr("2001:db8::2"), IfIndex: v0}},
		fib.Op{Kind: fib.GroupAdd, ID: first + 12, Members: []uint32{first + 9}},
	)
	h.ip("nexthop add id %d via 10.0.0.3 dev v0 proto 165", first+2) // no onlink
	h.ip("nexthop add id %d blackhole proto 165", first+3)
	h.ip("nexthop add id %d group %d,7 proto 165", first+11, first+1)
	h.ip("nexthop add id %d group %d type resilient buckets 8 proto 165", first+13, first+1)
	h.ip("nexthop add id %d dev v0 proto 165", first+4) // IPv4, useless for IPv6
	const ours = "metric 20 proto 165 nhid"
	h.ip("route add 10.1.0.0/16 %s %d", ours, first+10)
	h.ip("route add 10.2.0.0/16 %s %d src 10.0.0.1", ours, first+10)
	h.ip("route add 10.3.0.0/16 %s %d mtu 1400", ours, first+10)
	h.ip("route add 10.4.0.0/16 tos 4 %s %d", ours, first+10) // another key
	h.ip("-6 route add 2001:db8:1::/48 %s %d", ours, first+12)
	h.ip("-6 route add 2001:db8:2::/48 %s %d mtu 1400", ours, first+12)

	s, err := k.Dump(nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uint32]fib.Leg{first + 1: hop(0, v0), first + 2: {}, first + 3: {}, first + 4: {}} {
		if got, ok := s.NextHops[id]; !ok || got != want {
			t.Errorf("next hop %d = %v, %v, want %v", id-first, got, ok, want)
		}
	}
	for id, want := range map[uint32]int{first + 10: 1, first + 11: 0, first + 12: 1, first + 13: 0} {
		if got, ok := s.Groups[id]; !ok || len(got) != want {
			t.Errorf("group %d = %v, %v, want %d members", id-first, got, ok, want)
		}
	}
	for p, want := range map[string]uint32{
		"10.1.0.0/16": first + 10, "10.2.0.0/16": 0, "10.3.0.0/16": first + 10, "2001:db8:1::/48": first + 12, "2001:db8:2::/48": 0,
	} {
		if got, ok := s.Routes[netip.MustParsePrefix(p)]; !ok || got.GroupID != want {
			t.Errorf("route %s = %+v, %v, want group %d", p, got, ok, want)
		}
	}
	if len(s.Routes) != 5 {
		t.Errorf("%d routes, want 5: %v", len(s.Routes), s.Routes)
	}

	// Replaced by ours, they are as wanted again.
	mustApply(t, k,
		fib.Op{Kind: fib.RouteReplace, Prefix: netip.MustParsePrefix("10.2.0.0/16"), ID: first + 10},
		fib.Op{Kind: fib.RouteReplace, Prefix: netip.MustParsePrefix("2001:db8:2::/48"), ID: first + 12},
		fib.Op{Kind: fib.GroupReplace, ID: first + 11, Members: []uint32{first + 1}},
	)
	if s, err = k.Dump(nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"10.2.0.0/16", "2001:db8:2::/48"} {
		if s.Routes[netip.MustParsePrefix(p)].GroupID == 0 {
			t.Errorf("route %s is odd after its replace", p)
		}
	}
	if len(s.Groups[first+11]) != 1 {
		t.Errorf("group with weights after its replace: %v", s.Groups[first+11])
	}
}

// Objects that others add and delete while we dump never cost us a stable one: the
// kernel says that a dump was interrupted, and it is repeated.
func TestDumpWhileOthersWrite(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/16"))
	k, other := openTest(t, testOwner, false), openTest(t, testOwner, false)
	const stable = 3000 // several reads' worth
	var ops []fib.Op
	for i := range stable {
		ops = append(ops, fib.Op{Kind: fib.NextHopAdd, ID: first + uint32(2*i+2), Leg: fib.Leg{
			Gateway: netip.AddrFrom4([4]byte{10, 0, byte(1 + i/250), byte(i % 250)}), IfIndex: v0}})
	}
	mustApply(t, k, ops...)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i = (i + 7) % stable {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			id := first + uint32(2*i+1)
			if _, err := other.Apply([]fib.Op{{Kind: fib.NextHopAdd, ID: id, Leg: hop(0, v0)}, {Kind: fib.NextHopDel, ID: id}}); err != nil {
				done <- err
				return
			}
		}
	}()
	interrupted := 0
	for range 30 {
		s, err := k.Dump(nil)
		if errors.Is(err, errInterrupted) {
			interrupted++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range stable {
			if _, ok := s.NextHops[first+uint32(2*i+2)]; !ok {
				t.Fatalf("next hop %d is missing in a dump without error", i)
			}
		}
	}
	t.Logf("%d of 30 dumps given up after %d tries", interrupted, dumpTries)
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := k.Dump(nil); err != nil {
		t.Errorf("Dump in peace: %v", err)
	}
}

func TestRetryInterruptedIsBounded(t *testing.T) {
	calls := 0
	err := retryInterrupted("routes", func() error { calls++; return errInterrupted })
	if calls != dumpTries || !errors.Is(err, errInterrupted) {
		t.Errorf("%d calls, err %v, want %d and %v", calls, err, dumpTries, errInterrupted)
	}
	calls = 0
	err = retryInterrupted("routes", func() error {
		if calls++; calls < 3 {
			return errInterrupted
		}
		return nil
	})
	if calls != 3 || err != nil {
		t.Errorf("%d calls, err %v, want 3 and success", calls, err)
	}
}

// Many legs, in a classic route and in a group.
func TestManyLegs(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	const n = 200
	var legs []fib.Leg
	var ids []uint32
	objects := openTest(t, testOwner, false)
	for i := range n {
		legs = append(legs, hop(i, v0))
		ids = append(ids, first+1+uint32(i))
		mustApply(t, objects, fib.Op{Kind: fib.NextHopAdd, ID: ids[i], Leg: legs[i]})
	}
	mustApply(t, objects, fib.Op{Kind: fib.GroupAdd, ID: first + 1000, Members: ids})
	p, q := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("10.9.1.0/24")
	mustApply(t, objects, fib.Op{Kind: fib.RouteAdd, Prefix: p, ID: first + 1000})
	classic := openTest(t, testOwner, true)
	mustApply(t, classic, fib.Op{Kind: fib.RouteAdd, Prefix: q, Legs: legs})
	s, err := classic.Dump(nil)
	if err != nil || len(s.Groups[first+1000]) != n || len(s.Routes[q].Legs) != n || s.Routes[p].GroupID != first+1000 {
		t.Errorf("Dump: group of %d, route of %d legs, err %v, want %d", len(s.Groups[first+1000]), len(s.Routes[q].Legs), err, n)
	}
	refused, err := objects.Apply([]fib.Op{{Kind: fib.GroupAdd, ID: first + 1001, Members: make([]uint32, maxLegs+1)}})
	if err != nil || len(refused) != 1 || refused[0].Errno != unix.EINVAL {
		t.Errorf("a group that fits no attribute: refused %+v, err %v", refused, err)
	}
}

// What cannot be told by legs must not look as if it could.
func TestHostOddRoutes(t *testing.T) {
	h := newHost(t)
	h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64"))
	h.ip("nexthop add id 5 blackhole")
	h.ip("route add 10.1.0.0/16 nhid 5")
	h.ip("route add 10.2.0.0/16 tos 4 via 10.0.0.2")
	h.ip("route add throw 10.3.0.0/16")
	h.ip("route add unreachable 10.4.0.0/16")
	h.ip("route add 10.5.0.0/16 nexthop via 10.0.0.2 weight 3 nexthop via inet6 2001:db8::2 dev v0")
	h.ip("-6 route add 2001:db8:1::/48 encap seg6 mode encap segs 2001:db8::9 dev v0")
	h.ip("-6 route add 2001:db8:2::/48 from 2001:db8:3::/48 via 2001:db8::2")
	h.ip("-6 route add blackhole 2001:db8:4::/48")
	host, err := openTest(t, testOwner, false).Host()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]fib.HostRoute)
	for _, r := range host.Routes {
		got[r.Prefix.String()] = r
	}
	for p, legs := range map[string]int{
		"10.1.0.0/16": 0, "10.4.0.0/16": 0, "10.5.0.0/16": 2, "2001:db8:1::/48": 0, "2001:db8:4::/48": 0, "10.0.0.0/24": 1,
	} {
		if r, ok := got[p]; !ok || len(r.Legs) != legs {
			t.Errorf("%s = %+v, %v, want %d legs", p, r, ok, legs)
		}
	}
	for _, p := range []string{"10.2.0.0/16", "10.3.0.0/16", "2001:db8:2::/48"} {
		if r, ok := got[p]; ok {
			t.Errorf("%s is no route for everybody: %+v", p, r)
		}
	}
	if r := got["2001:db8:4::/48"]; r.Type != unix.RTN_BLACKHOLE {
		t.Errorf("IPv6 blackhole = %+v", r)
	}
}
