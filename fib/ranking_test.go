package fib_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// What the ways of a group do, and how many prefixes hang on one source, in every state
// that a way can be in.
func TestRankings(t *testing.T) {
	const n = 10
	tests := []struct {
		name   string
		paths  map[fib.Source]path
		event  func(s *sim)
		want   []string // source, use, why
		single int
	}{
		{"ECMP", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}}, nil, []string{"0 in-use", "1 in-use"}, 0},
		{"active and standby", map[fib.Source]path{0: {a4, 1}, 1: {b4, 0}}, nil, []string{"1 in-use", "0 standby"}, 0},
		{"one source", map[fib.Source]path{0: {a4, 0}}, nil, []string{"0 in-use"}, n},
		{"two sources, one next hop (S16)", map[fib.Source]path{0: {a4, 0}, 1: {a4, 0}}, nil, []string{"0 in-use", "1 in-use"}, 0},
		{"a peer is lost, and its ways with it", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			func(s *sim) { s.source(0, fib.SourceDown) }, []string{"1 in-use"}, n},
		{"the only peer is lost", map[fib.Source]path{0: {a4, 0}},
			func(s *sim) { s.source(0, fib.SourceDown) }, []string{"0 dead peer-down"}, 0},
		{"a stale one beside a live one (S17)", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			func(s *sim) { s.source(0, fib.SourceStale) }, []string{"0 standby", "1 in-use"}, 0},
		{"the link to one is down", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			func(s *sim) { s.link(1, false); s.resolve() }, []string{"0 in-use", "1 dead next-hop-unreachable"}, n},
		{"a neighbour does not answer", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			func(s *sim) {
				l, _ := s.leg(b4)
				s.tab.Avoid(l, true)
			}, []string{"0 in-use", "1 dead neighbor-failed"}, n},
		{"the kernel refuses one", map[fib.Source]path{0: {a4, 0}, 1: {b4, 0}},
			func(s *sim) {
				s.link(1, false)
				s.resolve()
				s.run()
				s.bad[b4] = true
				s.link(1, true)
				s.resolve()
			}, []string{"0 in-use", "1 dead kernel-refused"}, n},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, false)
			many(s, n, tt.paths)
			s.run()
			if tt.event != nil {
				tt.event(s)
				s.run()
			}
			var got []string
			prefixes := 0
			all, rest := s.tab.Rankings(10)
			if rest != (fib.Rest{}) {
				t.Errorf("Rankings leaves out %+v", rest)
			}
			for _, r := range all {
				prefixes += r.Prefixes
				for _, w := range r.Ways {
					text := fmt.Sprint(w.Source, " ", map[fib.Use]string{fib.InUse: "in-use", fib.Standby: "standby", fib.Dead: "dead"}[w.Use])
					if w.Why != "" {
						text += " " + w.Why
					}
					got = append(got, text)
				}
			}
			if !slices.Equal(got, tt.want) || prefixes != n {
				t.Errorf("Rankings() = %q with %d prefixes, want %q with %d", got, prefixes, tt.want, n)
			}
			if got := s.tab.Single(); got != tt.single {
				t.Errorf("Single() = %d, want %d", got, tt.single)
			}
		})
	}
}

// Routes of an earlier run that no peer confirmed are a group without ways.
func TestRankingsOfAnEarlierRun(t *testing.T) {
	s := newSim(t, false)
	many(s, 3, map[fib.Source]path{0: {a4, 0}})
	s.run()
	s.start(true)
	got, _ := s.tab.Rankings(10)
	if len(got) != 1 || len(got[0].Ways) != 0 || got[0].Prefixes != 0 || got[0].Present != 3 {
		t.Errorf("Rankings() = %+v, want one of three routes, with no ways", got)
	}
	if n := s.tab.Single(); n != 0 {
		t.Errorf("Single() = %d, want 0", n)
	}
}

// What does not work comes first, then the most prefixes; the rest is summed up.
func TestRankingsAreBounded(t *testing.T) {
	s := newSim(t, false)
	many(s, 3, map[fib.Source]path{0: {a4, 0}})
	for i := range 5 {
		s.announce(pfx(fmt.Sprintf("10.50.%d.0/24", i)), 0, c4, 0)
	}
	for i := range 2 {
		s.announce(pfx(fmt.Sprintf("10.60.%d.0/24", i)), 1, addr("203.0.113.1"), 0) // no way there
	}
	s.run()
	all, rest := s.tab.Rankings(2)
	if len(all) != 2 || all[0].Prefixes != 2 || all[0].Present != 0 || all[1].Prefixes != 5 || all[1].Present != 5 {
		t.Errorf("Rankings(2) = %+v, want the two prefixes without a way, then the five", all)
	}
	if want := (fib.Rest{Groups: 1, Prefixes: 3, Present: 3}); rest != want {
		t.Errorf("the rest is %+v, want %+v", rest, want)
	}
}
