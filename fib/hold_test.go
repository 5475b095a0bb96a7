package fib_test

import (
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// What Release is told to keep stays as it was found, whatever is read again, until its
// prefix is wanted or it is released too; the rest is deleted.
func TestReleaseKeeps(t *testing.T) {
	for name, classic := range map[string]bool{"groups": false, "classic": true} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, classic)
			all := many(s, 10, map[fib.Source]path{0: {a4, 0}})
			s.run()
			s.start(true)
			for _, p := range all {
				s.withdraw(p, 0)
			}
			s.run()
			n := 0
			for p, legs := range s.tab.Excess() {
				if n++; len(legs) != 1 || legs[0].Gateway != a4 {
					t.Errorf("Excess: %s has %v", p, legs)
				}
			}
			if n != 10 {
				t.Errorf("Excess yields %d routes, want 10", n)
			}
			kept := map[netip.Prefix]bool{all[0]: true, all[1]: true, all[2]: true}
			if n := s.tab.Release(func(p netip.Prefix) bool { return kept[p] }); n != 7 {
				t.Errorf("Release = %d, want 7", n)
			}
			s.run()
			s.load()
			s.run()
			if n := len(s.dump().Routes); n != 3 || s.tab.Adopted() != 3 || s.tab.Held() {
				t.Errorf("%d routes, %d adopted, held %t, want 3 and the hold over", n, s.tab.Adopted(), s.tab.Held())
			}
			s.announce(all[0], 0, b4, 0) // other legs
			s.announce(all[1], 0, a4, 0) // the same
			s.run()
			if e, _ := s.tab.Entry(all[0]); e.Adopted || !e.InSync || e.Kernel[0].Gateway != b4 {
				t.Errorf("Entry of a kept route that is wanted: %+v", e)
			}
			s.withdraw(all[0], 0)
			s.withdraw(all[1], 0)
			s.run()
			if n := len(s.dump().Routes); n != 1 || s.tab.Adopted() != 1 {
				t.Errorf("%d routes, %d adopted, want 1", n, s.tab.Adopted())
			}
			if n := s.tab.Release(nil); n != 1 {
				t.Errorf("Release = %d, want 1", n)
			}
			s.run()
			s.check()
		})
	}
}

// Strangers foretells what a Load would have deleted, and a hold around the Load keeps it.
func TestStrangersHeld(t *testing.T) {
	s := newSim(t, false)
	known := many(s, 5, map[fib.Source]path{0: {a4, 0}})
	s.run()
	snap := s.dump()
	for _, text := range []string{"172.16.1.0/24", "172.16.2.0/24"} {
		s.m.AddRoute(fib.Route{Prefix: pfx(text), Table: table, Metric: metric, Protocol: protocol, GroupID: snap.Routes[known[0]].GroupID})
	}
	if n := s.tab.Strangers(s.dump()); n != 2 {
		t.Errorf("Strangers = %d, want 2", n)
	}
	s.tab.Hold()
	s.load()
	s.tab.Release(func(netip.Prefix) bool { return true })
	if n := s.run(); n != 0 || s.tab.Adopted() != 2 || s.tab.Strangers(s.dump()) != 0 {
		t.Errorf("%d writes, %d adopted, want none and 2", n, s.tab.Adopted())
	}
	s.tab.Release(nil)
	s.run()
	s.check()
}
