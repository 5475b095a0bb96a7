package fib_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

// One peer's impossible next hop takes no prefix from the others (S12, S23), and no
// route away that is there (S22).
func TestRefusedNextHop(t *testing.T) {
	bad := addr("10.1.255.255") // a broadcast address: "Nexthop has invalid gateway"
	s := newSim(t, false)
	s.bad[bad] = true
	both, only, moved, tiers := pfx("192.168.0.0/24"), pfx("192.168.1.0/24"), pfx("192.168.2.0/24"), pfx("192.168.3.0/24")
	s.announce(both, 0, a4, 0)
	s.announce(moved, 0, a4, 0)
	s.run()
	s.announce(both, 1, bad, 0)
	s.announce(only, 1, bad, 0)
	s.announce(moved, 0, bad, 0)
	s.announce(tiers, 1, bad, 0)
	s.announce(tiers, 0, a4, 1)
	s.run()
	for _, tt := range []struct {
		p           netip.Prefix
		want        []fib.Leg
		wantRefused int
		wantFailure bool
	}{
		{both, s.legsOf(a4), 1, false},
		{only, nil, 1, true},
		{moved, s.legsOf(a4), 1, true}, // as it was
		{tiers, s.legsOf(a4), 1, false},
	} {
		e, _ := s.tab.Entry(tt.p)
		if !slices.Equal(e.Kernel, tt.want) || len(e.Refused) != tt.wantRefused || (e.Failure != nil) != tt.wantFailure {
			t.Errorf("%s: %+v, want legs %v, %d refused, failure %t", tt.p, e, tt.want, tt.wantRefused, tt.wantFailure)
		}
	}
	if c := s.tab.Counts(); c.Failed != 2 || c.Unreachable != 0 {
		t.Errorf("Counts() = %+v, want 2 failed", c)
	}
	if s.tab.Suspect() {
		t.Error("suspect: the kernel said what it does not like")
	}
	clear(s.counts)
	s.settle()
	for k, n := range s.counts {
		if k != fib.NextHopAdd || n > 25 {
			t.Errorf("waiting cost %d %s in 20 minutes", n, k)
		}
	}
	s.bad[bad] = false
	s.settle()
	s.check()
}

func (s *sim) legsOf(nhs ...netip.Addr) (legs []fib.Leg) {
	for _, nh := range nhs {
		l, _ := s.leg(nh)
		legs = append(legs, l)
	}
	return legs
}

// An id of ours that a stranger's object has is never used: neither as member nor by a
// route, which the kernel would both allow.
func TestIDTaken(t *testing.T) {
	s := newSim(t, false)
	leg := fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: s.links[0]}
	s.m.AddNextHop(owner.FirstID+1, leg, 4)
	s.m.AddNextHop(owner.FirstID+2, leg, 4)
	s.m.AddNextHop(owner.FirstID+4, leg, 4)
	s.m.SetGroup(owner.FirstID+5, []uint32{owner.FirstID + 4}, 4)
	many(s, 3, map[fib.Source]path{0: {a4, 0}})
	s.run()
	s.check()
	if now := s.tab.RetryDue(s.now); !now.IsZero() {
		t.Errorf("something waits until %v, want no back-off", now)
	}
}

// Every kind of operation is refused for a while: the others go on, nothing loops, and
// all is well once the kernel relents.
func TestRefusals(t *testing.T) {
	for kind := fib.NextHopAdd; kind <= fib.NextHopDel; kind++ {
		for _, errno := range []syscall.Errno{syscall.ENOMEM, syscall.EINVAL, syscall.EEXIST, syscall.EPERM} {
			t.Run(fmt.Sprintf("%s %s", kind, errno), func(t *testing.T) {
				s := newSim(t, false)
				many(s, 4, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
				s.announce(pfx("192.168.5.0/24"), 0, a4, 0)
				s.run()
				s.refuse = func(op fib.Op) syscall.Errno {
					if op.Kind == kind {
						return errno
					}
					return 0
				}
				clear(s.counts)
				s.announce(pfx("192.168.0.0/24"), 2, c4, 0)
				s.withdraw(pfx("192.168.1.0/24"), 0)
				s.withdraw(pfx("192.168.1.0/24"), 1)
				s.withdraw(pfx("192.168.5.0/24"), 0)
				s.announce(pfx("192.168.4.0/24"), 2, c4, 0)
				s.source(1, fib.SourceDown)
				s.run()
				for range 100 { // 10 s
					s.now = s.now.Add(100 * time.Millisecond)
					s.tab.RetryDue(s.now)
					s.run()
					if s.tab.Suspect() {
						s.load()
					}
				}
				most := 30 // seven times for a few objects
				if errno == syscall.EEXIST && kind <= fib.GroupAdd {
					most = 150 // with some ids each time
				}
				if n := s.counts[kind]; n == 0 || n > most {
					t.Errorf("%d attempts in 10 s, want 1 to %d", n, most)
				}
				s.settle()
				s.check()
			})
		}
	}
}

// TestBackoff checks the times of the attempts.
func TestBackoff(t *testing.T) {
	s := newSim(t, false)
	s.refuse = func(op fib.Op) syscall.Errno {
		if op.Kind == fib.RouteAdd {
			return syscall.ENOMEM
		}
		return 0
	}
	p := many(s, 1, map[fib.Source]path{0: {a4, 0}})[0]
	s.run()
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 30000, 30000} {
		next := s.tab.RetryDue(s.now)
		if got := next.Sub(s.now); got != want*time.Millisecond {
			t.Fatalf("after attempt %d: next in %v, want %v ms", i+1, got, int64(want))
		}
		if e, _ := s.tab.Entry(p); e.Failure == nil || e.Failure.Attempts != i+1 || e.Failure.Op != fib.RouteAdd {
			t.Fatalf("Entry = %+v, want attempt %d", e.Failure, i+1)
		}
		s.now = next
		s.tab.RetryDue(s.now)
		s.run()
	}
	clear(s.counts)
	s.announce(p, 1, b4, 0) // a new ranking starts at once
	if s.run(); s.counts[fib.RouteAdd] != 1 {
		t.Errorf("writes for a new ranking: %v, want the route tried", s.counts)
	}
}

// After an Apply of unknown outcome nothing is planned until a Load.
func TestUnknownOutcome(t *testing.T) {
	for n := range 10 { // operations done before it breaks
		s := newSim(t, false)
		many(s, 3, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
		left := n
		s.stop = func(int) bool { left--; return left < 0 }
		for s.tab.Pending() {
			if _, ok := s.cycle(100); !ok {
				if s.tab.Pending() || s.tab.Plan(s.now, 100) != nil || !s.tab.Suspect() {
					t.Errorf("after %d operations: something is planned on an unknown outcome", n)
				}
			}
		}
		s.stop = nil
		s.source(0, fib.SourceDown)
		s.load()
		s.run()
		if n := s.tab.RetryDue(s.now); !n.IsZero() {
			t.Errorf("something waits until %v", n)
		}
		s.check()
	}
}

// S25: routes of an earlier run stay as they are until Release, while what peers confirm
// is ours again without a write.
func TestRestart(t *testing.T) {
	for _, classic := range []bool{false, true} {
		t.Run(fmt.Sprintf("classic %t", classic), func(t *testing.T) {
			s := newSim(t, classic)
			same := many(s, 10, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
			fewer, gone, other := pfx("172.16.0.0/16"), pfx("172.17.0.0/16"), pfx("172.18.0.0/16")
			for _, p := range []netip.Prefix{fewer, gone} {
				s.announce(p, 0, a4, 0)
				s.announce(p, 1, b4, 0)
			}
			s.announce(other, 0, a4, 0)
			s.announce(other, 1, b4, 1) // the same legs as a single path, by another ranking
			alone := pfx("172.19.0.0/16")
			s.announce(alone, 0, a4, 0)
			s.run()
			before := s.dump()

			s.start(true)
			if got := s.writes(); len(got) != 0 {
				t.Errorf("writes at the start: %v", got)
			}
			fresh := pfx("172.20.0.0/16")
			s.announce(fresh, 0, a4, 0) // by a ranking that has its group in the kernel, not known yet
			many(s, 10, map[fib.Source]path{0: {a4, 0}})
			s.announce(fewer, 0, a4, 0)
			s.announce(other, 0, a4, 0)
			s.announce(alone, 0, a4, 0)
			clear(s.counts)
			s.run()
			if n := s.counts[fib.RouteReplace] + s.counts[fib.RouteDel] + s.counts[fib.GroupReplace] + s.counts[fib.GroupDel] + s.counts[fib.NextHopDel] + s.counts[fib.GroupAdd]; n != 0 || s.counts[fib.RouteAdd] != 1 {
				t.Errorf("during the hold: %v, want one route added and nothing else changed", s.counts)
			}
			if e, _ := s.tab.Entry(fewer); !e.Adopted || len(e.Kernel) != 2 {
				t.Errorf("Entry(%s) = %+v, want adopted with both legs", fewer, e)
			}
			if e, _ := s.tab.Entry(alone); e.Adopted || !e.InSync {
				t.Errorf("Entry(%s) = %+v, want confirmed", alone, e)
			}
			many(s, 10, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
			s.announce(other, 1, b4, 1)
			s.run()
			if n, of := s.tab.Unconfirmed(); n != 1 || of != 15 {
				t.Errorf("Unconfirmed() = %d of %d, want 1 of 15", n, of)
			}
			clear(s.counts)
			if n := s.tab.Release(nil); n != 1 {
				t.Errorf("Release() = %d, want 1", n)
			}
			s.run()
			if s.counts[fib.RouteDel] != 1 || s.counts[fib.RouteReplace] > 2 {
				t.Errorf("after Release: %v, want one deletion and at most the changed routes replaced", s.counts)
			}
			s.check()
			after := s.dump()
			for _, p := range same {
				if before.Routes[p].GroupID != after.Routes[p].GroupID {
					t.Errorf("%s moved from group %x to %x", p, before.Routes[p].GroupID, after.Routes[p].GroupID)
				}
			}
		})
	}
}

// A route that an earlier run left and somebody deletes is put back even during the hold.
func TestHeldAndLost(t *testing.T) {
	s := newSim(t, false)
	p := many(s, 1, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})[0]
	s.run()
	s.start(true)
	s.announce(p, 0, a4, 0)
	if n := s.run(); n != 0 {
		t.Errorf("%d writes, want the route held", n)
	}
	s.m.DelRoute(fib.Route{Prefix: p, Table: table, Metric: metric})
	s.tab.Lost(p)
	if s.run(); len(s.dump().Routes) != 1 {
		t.Error("not put back")
	}
}

// A kernel object of an earlier run that ours cannot become is left for a new one.
func TestOddGroup(t *testing.T) {
	s := newSim(t, false)
	many(s, 3, map[fib.Source]path{0: {a4, 0}})
	s.run()
	snap := s.dump()
	for id := range snap.Groups {
		snap.Groups[id] = nil // as Dump shows one with weights
	}
	s.tab.Load(snap)
	wantWrites(t, "Load", s.writes(), map[fib.OpKind]int{fib.GroupAdd: 1, fib.RouteReplace: 3, fib.GroupDel: 1})
	s.settle()
	s.check()
}

// A dump that comes after the first Set adopts as well.
func TestLateLoad(t *testing.T) {
	s := newSim(t, false)
	p := many(s, 1, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})[0]
	s.run()
	s.tab = fib.NewTable(fib.Options{Owner: owner, MaxPaths: maxPaths, Hold: true})
	s.resolve()
	s.withdraw(p, 1)
	s.load()
	if n := s.run(); n != 0 {
		t.Errorf("%d writes, want the route held", n)
	}
	if s.tab.Adopted() != 1 {
		t.Errorf("Adopted() = %d, want 1", s.tab.Adopted())
	}
	s.tab.Release(nil)
	s.run()
	s.check()
}

// A route that waits for a leg which the kernel refuses goes once the leg cannot be
// reached at all.
func TestRefusedThenUnreachable(t *testing.T) {
	s := newSim(t, false)
	p, bad := pfx("192.168.0.0/24"), addr("10.2.255.255")
	s.bad[bad] = true
	s.announce(p, 0, a4, 0)
	s.run()
	s.announce(p, 0, bad, 0)
	s.run()
	if len(s.dump().Routes) != 1 {
		t.Fatal("S22: gone, with a path that may yet be taken")
	}
	s.link(1, false)
	s.resolve()
	s.run()
	s.check()
}

// Two next hops for one leg, as an unknown outcome may leave them: the one in use stays.
func TestTwinNextHops(t *testing.T) {
	s := newSim(t, false)
	p := many(s, 1, map[fib.Source]path{0: {a4, 0}})[0]
	s.run()
	leg, _ := s.leg(a4)
	for i, inUse := range []uint32{1, 0} {
		id := owner.FirstID + 100 + uint32(i)
		s.m.AddNextHop(id, leg, protocol)
		if inUse == 1 {
			s.m.SetGroup(s.dump().Routes[p].GroupID, []uint32{id}, protocol)
		}
		s.load()
		wantWrites(t, "Load", s.writes(), map[fib.OpKind]int{fib.NextHopDel: 1})
		s.check()
	}
}

// Switching to classic mode and back leaves nothing of the other behind. (Routes of the
// one are foreign to the other's Dump only from classic to objects: see fib/kernel.)
func TestClassicTakesOver(t *testing.T) {
	s := newSim(t, false)
	many(s, 5, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.run()
	s.classic = true
	s.k = s.m.Open(owner, true)
	s.start(true)
	many(s, 5, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.tab.Release(nil)
	s.run()
	s.check()
	if snap := s.dump(); len(snap.Groups)+len(snap.NextHops) != 0 {
		t.Errorf("left: %v %v", snap.Groups, snap.NextHops)
	}
}

// A next hop that vanished in silence makes a group's write fail; the Load that this asks
// for lets everything be repaired at once, back-off or not.
func TestSuspectThenRepaired(t *testing.T) {
	s := newSim(t, false)
	many(s, 3, map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}})
	s.announce(pfx("172.16.0.0/16"), 1, b4, 0)
	s.run()
	for id, leg := range s.dump().NextHops {
		if leg.Gateway == b4 {
			s.m.DelNextHop(id)
		}
	}
	p := pfx("172.17.0.0/16")
	s.announce(p, 1, b4, 0)
	s.announce(p, 2, c4, 0)
	s.run()
	if e, _ := s.tab.Entry(p); !s.tab.Suspect() || e.Failure == nil || e.Failure.Op != fib.GroupAdd {
		t.Fatalf("Suspect() = %t, Entry = %+v, want a refused group", s.tab.Suspect(), e)
	}
	if drift := s.load(); drift != 1 {
		t.Errorf("drift %d, want the one route that went with its group", drift)
	}
	s.run()
	s.check()
}

// An audit of what is in order changes nothing, and makes way for what is urgent.
func TestAgrees(t *testing.T) {
	calm := func() bool { return false }
	tab, _ := benchTable(3000)
	snap := written(tab)
	if same, err := tab.Agrees(snap, calm); !same || err != nil || tab.Pending() {
		t.Fatalf("in order: %v, %v", same, err)
	}
	if _, err := tab.Agrees(snap, func() bool { return true }); err != fib.ErrUrgent {
		t.Errorf("something urgent: %v", err)
	}
	group := snap.Routes[nth(0)].GroupID
	members := snap.Groups[group]
	for what, change := range map[string]func(s *fib.Snapshot){
		"a route is missing": func(s *fib.Snapshot) { delete(s.Routes, nth(7)) },
		"one too many":       func(s *fib.Snapshot) { s.Routes[nth(5000)] = fib.SnapshotRoute{GroupID: group} },
		"one for another": func(s *fib.Snapshot) {
			delete(s.Routes, nth(7))
			s.Routes[nth(5000)] = fib.SnapshotRoute{GroupID: group}
		},
		"another group":       func(s *fib.Snapshot) { s.Routes[nth(7)] = fib.SnapshotRoute{GroupID: group + 1} },
		"an odd route":        func(s *fib.Snapshot) { s.Routes[nth(7)] = fib.SnapshotRoute{} },
		"a member is missing": func(s *fib.Snapshot) { s.Groups[group] = members[:1] },
		"another member":      func(s *fib.Snapshot) { s.Groups[group] = []uint32{members[0], 1 << 31} },
		"a group is missing":  func(s *fib.Snapshot) { delete(s.Groups, group) },
		"a next hop is odd":   func(s *fib.Snapshot) { s.NextHops[members[0]] = fib.Leg{} },
		"a next hop too many": func(s *fib.Snapshot) { s.NextHops[1<<31] = fib.Leg{} },
	} {
		s := fib.Snapshot{NextHops: maps.Clone(snap.NextHops), Groups: maps.Clone(snap.Groups), Routes: maps.Clone(snap.Routes)}
		change(&s)
		if same, err := tab.Agrees(s, calm); same || err != nil {
			t.Errorf("%s: Agrees = %v, %v", what, same, err)
		}
	}
	tab.Set(nth(0), nil)
	if same, _ := tab.Agrees(snap, calm); same {
		t.Error("agrees although a route is to go")
	}
}
