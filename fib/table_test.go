package fib_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

var (
	a4 = addr("10.1.0.4")
	b4 = addr("10.2.0.5")
	c4 = addr("10.1.0.6")
)

// many announces n prefixes, each by the same paths.
func many(s *sim, n int, paths map[fib.Source]path) (prefixes []netip.Prefix) {
	for i := range n {
		p := pfx(fmt.Sprintf("192.168.%d.0/24", i))
		prefixes = append(prefixes, p)
		for src, x := range paths {
			s.announce(p, src, x.nh, x.class)
		}
	}
	return prefixes
}

// writes runs what is pending and returns the writes by kind.
func (s *sim) writes() map[fib.OpKind]int {
	clear(s.counts)
	s.run()
	return s.counts
}

func wantWrites(t *testing.T, what string, got, want map[fib.OpKind]int) {
	t.Helper()
	for k := fib.NextHopAdd; k <= fib.NextHopDel; k++ {
		if got[k] != want[k] {
			t.Errorf("%s: %d %s, want %d", what, got[k], k, want[k])
		}
	}
}

// A source that goes down costs as many writes as there are groups, and the withdrawals
// that follow cost none (S23, S24). So it is for equal-cost and for active/passive paths.
func TestSourceDown(t *testing.T) {
	const n = 100
	for _, tt := range []struct {
		name      string
		paths     map[fib.Source]path
		down      fib.Source
		want      map[fib.OpKind]int // when the source goes down
		wantAfter []netip.Addr
	}{
		{
			name:  "ECMP (S24)",
			paths: map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			want:  map[fib.OpKind]int{fib.GroupReplace: 1, fib.NextHopDel: 1}, wantAfter: []netip.Addr{b4},
		},
		{
			name:  "active/passive, the active fails (S24)",
			paths: map[fib.Source]path{0: {a4, 0}, 1: {b4, 1}},
			want:  map[fib.OpKind]int{fib.NextHopAdd: 1, fib.GroupReplace: 1, fib.NextHopDel: 1}, wantAfter: []netip.Addr{b4},
		},
		{
			name:  "active/passive, the passive fails",
			paths: map[fib.Source]path{0: {a4, 1}, 1: {b4, 0}},
			want:  nil, wantAfter: []netip.Addr{b4},
		},
		{
			name:  "three in ECMP",
			paths: map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}, 2: {c4, 0}},
			want:  map[fib.OpKind]int{fib.GroupReplace: 1, fib.NextHopDel: 1}, wantAfter: []netip.Addr{c4, b4},
		},
		{
			name:  "two sources with one next hop (S16)",
			paths: map[fib.Source]path{0: {a4, 0}, 1: {a4, 0}},
			want:  nil, wantAfter: []netip.Addr{a4},
		},
		{
			name:  "the only one",
			paths: map[fib.Source]path{0: {a4, 0}},
			want:  map[fib.OpKind]int{fib.RouteDel: n, fib.GroupDel: 1, fib.NextHopDel: 1}, wantAfter: nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, false)
			prefixes := many(s, n, tt.paths)
			s.run()
			s.source(tt.down, fib.SourceDown)
			wantWrites(t, "source down", s.writes(), tt.want)
			e, _ := s.tab.Entry(prefixes[0])
			var got []netip.Addr
			for _, l := range e.Kernel {
				got = append(got, l.Gateway)
			}
			if !slices.Equal(got, tt.wantAfter) {
				t.Errorf("legs %v, want %v", got, tt.wantAfter)
			}
			for _, p := range prefixes {
				s.withdraw(p, tt.down)
			}
			wantWrites(t, "withdrawals", s.writes(), nil)
			s.check()
			s.source(tt.down, fib.SourceUp)
			wantWrites(t, "up again, with nothing announced", s.writes(), nil)
			many(s, n, tt.paths)
			s.run()
			s.check()
		})
	}
}

// A blackhole ranks like any way, never shares the traffic, and gives it back with its
// source (RFC 7999).
func TestBlackhole(t *testing.T) {
	for _, classic := range []bool{false, true} {
		for _, host := range []string{"192.168.255.9/32", "2001:db8::9/128"} {
			p := pfx(host)
			forward, other := nhs(p, 0), nhs(p, 1)
			s := newSim(t, classic)
			expect := func(when string, want ...netip.Addr) {
				t.Helper()
				s.run()
				s.check()
				var got []netip.Addr
				e, _ := s.tab.Entry(p)
				for _, v := range e.Used {
					got = append(got, v.NextHop)
				}
				drops := slices.Equal(e.Kernel, []fib.Leg{fib.Blackhole})
				if !slices.Equal(got, want) || drops != slices.Contains(want, fib.Discard) || !e.InSync {
					t.Errorf("classic %t, %s, %s: %+v, want those to %v used", classic, p, when, e, want)
				}
			}
			s.announce(p, 0, forward, 0)
			s.announce(p, 1, fib.Discard, 1)
			expect("in a worse tier", forward)
			s.announce(p, 1, fib.Discard, 0)
			expect("as good as another", fib.Discard)
			s.source(1, fib.SourceStale)
			expect("of a peer that restarts", forward)
			s.source(1, fib.SourceUp)
			expect("that is back", fib.Discard)
			s.start(true)
			s.announce(p, 0, forward, 0)
			s.announce(p, 1, fib.Discard, 0)
			wantWrites(t, "adopted", s.writes(), nil)
			s.tab.Release(nil)
			expect("after a restart", fib.Discard)
			s.source(1, fib.SourceDown)
			expect("its peer lost", forward)
			s.source(1, fib.SourceUp)
			s.announce(p, 1, fib.Discard, 0)
			s.announce(p, 0, addr("100::"), 0) // the same address, without the zone
			expect("beside its double", fib.Discard)
			s.announce(p, 1, other, 0)
			expect("no more", other)
		}
	}
}

// Failover is the first thing in a cycle, whatever else waits.
func TestFailoverBeforeRoutes(t *testing.T) {
	s := newSim(t, false)
	many(s, 100, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.run()
	for i := range 100 {
		s.announce(pfx(fmt.Sprintf("172.16.%d.0/24", i)), 1, b4, 0)
	}
	s.source(0, fib.SourceDown)
	ops := s.tab.Plan(s.now, 0)
	if len(ops) != 1 || ops[0].Kind != fib.GroupReplace {
		t.Fatalf("Plan(0) = %v, want one group replace", ops)
	}
	refused, _ := s.apply(ops)
	s.tab.Done(s.now, refused)
	s.run()
	s.check()
}

// S17: a stale path stays in use where its tier has no fresh one, and shares with none.
func TestStaleSource(t *testing.T) {
	s := newSim(t, false)
	p := many(s, 10, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})[0]
	q := pfx("172.16.0.0/16")
	s.announce(q, 0, a4, 0)
	s.announce(q, 1, b4, 1)
	s.run()
	legs := func(p netip.Prefix) (out []string) {
		e, _ := s.tab.Entry(p)
		for _, l := range e.Kernel {
			out = append(out, l.Gateway.String())
		}
		return out
	}
	s.source(0, fib.SourceStale)
	wantWrites(t, "stale", s.writes(), map[fib.OpKind]int{fib.GroupReplace: 1})
	if got := legs(p); !slices.Equal(got, []string{"10.2.0.5"}) {
		t.Errorf("beside a fresh path of the same tier: %v, want the fresh one", got)
	}
	if got := legs(q); !slices.Equal(got, []string{"10.1.0.4"}) {
		t.Errorf("alone in the better tier: %v, want it kept", got)
	}
	s.check()
	s.source(0, fib.SourceUp)
	wantWrites(t, "fresh again", s.writes(), map[fib.OpKind]int{fib.GroupReplace: 1})
	s.check()
}

// S15, the seed case: ECMP, one of the two prepends, stops, and dies.
func TestSeedCase(t *testing.T) {
	for _, classic := range []bool{false, true} {
		s := newSim(t, classic)
		p := pfx("192.168.255.0/24")
		for _, step := range []struct {
			name string
			do   func()
			want int
		}{
			{"both announce", func() { s.announce(p, 0, a4, 0); s.announce(p, 1, b4, 0) }, 2},
			{"one prepends", func() { s.announce(p, 1, b4, 1) }, 1},
			{"it stops", func() { s.announce(p, 1, b4, 0) }, 2},
			{"the other dies", func() { s.source(0, fib.SourceDown); s.withdraw(p, 0) }, 1},
		} {
			step.do()
			s.run()
			s.check()
			if e, _ := s.tab.Entry(p); len(e.Kernel) != step.want || !e.InSync {
				t.Errorf("%s: %v, want %d legs (classic: %t)", step.name, e, step.want, classic)
			}
		}
	}
}

// S20: what cannot be reached is left out, and comes in when it can.
func TestReachability(t *testing.T) {
	for _, classic := range []bool{false, true} {
		s := newSim(t, classic)
		p := many(s, 5, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})[0]
		only := pfx("172.16.0.0/16")
		s.announce(only, 1, b4, 0)
		s.run()
		s.link(1, false)
		s.resolve()
		s.load()
		s.run()
		s.check()
		if c := s.tab.Counts(); c.Desired != 5 || c.Unreachable != 1 || c.Present != 5 {
			t.Errorf("Counts() = %+v, want 5 desired and present, 1 unreachable", c)
		}
		e, _ := s.tab.Entry(only)
		if !e.InSync || len(e.Legs) != 0 || len(e.Vias) != 1 {
			t.Errorf("Entry(%s) = %+v, want no legs", only, e)
		}
		s.link(1, true)
		s.resolve()
		s.run()
		s.check()
		if e, _ = s.tab.Entry(p); len(e.Kernel) != 2 {
			t.Errorf("Entry(%s) = %+v, want both legs back", p, e)
		}
	}
}

// The kernel empties and deletes groups in silence when a link goes down. The group
// replace that comes too late (ENOENT) makes them anew, with their routes.
func TestGroupVanished(t *testing.T) {
	s := newSim(t, false)
	many(s, 5, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.run()
	for id := range s.dump().Groups {
		s.m.DelNextHop(id)
	}
	s.source(1, fib.SourceDown)
	wantWrites(t, "source down", s.writes(), map[fib.OpKind]int{fib.GroupReplace: 1, fib.GroupAdd: 1, fib.RouteAdd: 5, fib.NextHopDel: 1})
	s.check()
}

// A group that was made for a ranking which became another's in the meantime goes again.
func TestTwinGroup(t *testing.T) {
	s := newSim(t, false)
	p := pfx("192.168.0.0/24")
	s.announce(p, 0, a4, 0)
	s.run()
	s.announce(p, 1, b4, 1)
	s.cycle(1) // the new group, and not the route yet
	if n := len(s.dump().Groups); n != 2 {
		t.Fatalf("%d groups, the test needs 2", n)
	}
	s.source(1, fib.SourceDown)
	s.withdraw(p, 1)
	s.run()
	s.check()
}

// S19: a foreign route with our key is left alone, and ours comes when it is gone.
func TestForeignRoute(t *testing.T) {
	s := newSim(t, false)
	p := pfx("192.168.0.0/24")
	s.addForeign(p)
	s.announce(p, 0, a4, 0)
	ops := 0
	for range 5 {
		ops += s.run()
	}
	e, _ := s.tab.Entry(p)
	if e.Failure == nil || !e.Failure.Foreign() || e.InSync || s.tab.Counts().Foreign != 1 {
		t.Fatalf("Entry = %+v, want a foreign conflict", e)
	}
	if s.counts[fib.RouteAdd] != 1 {
		t.Errorf("%d attempts without news, want 1", s.counts[fib.RouteAdd])
	}
	if next := s.tab.RetryDue(s.now); !next.Equal(s.now.Add(30 * time.Second)) {
		t.Errorf("next retry %v, want in 30 s", next)
	}
	s.delForeign(p)
	s.run()
	s.check()
	s.addForeign(p) // takes ours over
	s.run()
	if s.check(); s.tab.Counts().Present != 0 {
		t.Errorf("Counts() = %+v, want ours gone", s.tab.Counts())
	}
	s.source(0, fib.SourceDown)
	if s.run(); len(s.dump().Groups) != 0 {
		t.Error("the group stays, though its route cannot be there and its legs cannot be used")
	}
	s.withdraw(p, 0)
	s.settle()
	if c := s.tab.Counts(); c != (fib.Counts{}) {
		t.Errorf("Counts() = %+v after the withdrawal, want all zero", c)
	}
}

// A route of ours that somebody rewrote, protocol and all, is ours still: the conflict
// that Lost meets is cleared up by a Load.
func TestLostAndRewritten(t *testing.T) {
	s := newSim(t, false)
	p := many(s, 1, map[fib.Source]path{0: {a4, 0}})[0]
	q := pfx("172.16.0.0/16")
	s.announce(q, 1, b4, 0)
	s.run()
	other := s.dump().Routes[q].GroupID
	s.m.ReplaceRoute(fib.Route{Prefix: p, Table: table, Metric: metric, Protocol: protocol, Type: 1, GroupID: other})
	s.tab.Lost(p)
	s.run()
	if !s.tab.Suspect() {
		t.Fatal("not suspect after EEXIST for a route that was ours")
	}
	s.load()
	s.run()
	s.check()
}

// S14: at most max-paths legs, and Used says which paths they are.
func TestMaxPaths(t *testing.T) {
	s := newSim(t, false)
	p := pfx("192.168.0.0/24")
	for i := range 6 {
		s.announce(p, fib.Source(i), addr(fmt.Sprintf("10.1.0.%d", 10+i)), 0)
	}
	s.run()
	s.check()
	e, _ := s.tab.Entry(p)
	if len(e.Vias) != 6 || len(e.Used) != maxPaths || len(e.Kernel) != maxPaths {
		t.Errorf("Entry = %+v, want %d of 6 used", e, maxPaths)
	}
	s.source(1, fib.SourceDown)
	wantWrites(t, "one of them goes", s.writes(), map[fib.OpKind]int{fib.NextHopAdd: 1, fib.GroupReplace: 1, fib.NextHopDel: 1})
	s.check()
}

// Under a churn that never lets the queue run empty, the queue does not grow for good.
func TestQueueBounded(t *testing.T) {
	s := newSim(t, true)
	const prefixes = 40000
	set := func(n int) {
		m := n % prefixes
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(m >> 8), byte(m), 0}), 24)
		if m == n%(2*prefixes) {
			s.tab.Set(p, []fib.Via{{NextHop: a4}})
		} else {
			s.tab.Set(p, nil)
		}
	}
	for i := range prefixes / 2 {
		set(i)
	}
	for i := prefixes / 2; i < 300_000; i++ {
		set(i)
		if i%1000 != 0 {
			continue
		}
		s.tab.Plan(s.now, 1000)
		s.tab.Done(s.now, nil)
		if !s.tab.Pending() {
			t.Fatal("the test needs a queue that never empties")
		}
	}
	if got := fib.QueueCap(s.tab); got > 1<<16 {
		t.Errorf("queue for %d entries after 300,000 changes", got)
	}
}

// A peer that flaps leaves no groups behind, however often.
func TestFlapping(t *testing.T) {
	s := newSim(t, false)
	paths := map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}}
	for range 20 {
		prefixes := many(s, 30, paths)
		s.run()
		s.check()
		s.source(0, fib.SourceDown)
		s.run()
		for _, p := range prefixes {
			s.withdraw(p, 0)
		}
		s.run()
		s.check()
		s.source(0, fib.SourceUp)
	}
	if n := len(s.dump().Groups); n != 1 {
		t.Errorf("%d groups, want 1", n)
	}
}

// What a lost source offered does not come back with it, but by Set.
func TestSourceBack(t *testing.T) {
	s := newSim(t, false)
	prefixes := many(s, 5, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.run()
	s.source(0, fib.SourceDown)
	s.run()
	s.source(0, fib.SourceUp) // a false alarm: nothing was withdrawn
	s.run()
	if e, _ := s.tab.Entry(prefixes[0]); len(e.Kernel) != 1 {
		t.Errorf("Entry = %+v, want one leg until Set", e)
	}
	for _, p := range prefixes {
		s.push(p)
	}
	s.run()
	s.check()
}
