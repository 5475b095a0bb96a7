package rib

import (
	"fmt"
	"maps"
	"math/rand"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

var now = time.Unix(1e9, 0)

func announce(p string, a *Attrs) []Change { return []Change{{Prefix: pfx(p), Attrs: a}} }

func next(t *Table) (out []string) {
	for _, c := range t.Next(nil, 100) {
		out = append(out, c.Prefix.String())
	}
	slices.Sort(out)
	return out
}

// An announcement that changes nothing is no change; anything else is, once.
func TestTableDirty(t *testing.T) {
	x, y := &Attrs{NextHop: addr("10.1.0.4")}, &Attrs{NextHop: addr("10.1.0.5")}
	tab := NewTable()
	for _, tt := range []struct {
		name string
		do   func()
		want string
	}{
		{"announced", func() { tab.Update(0, announce("10.0.0.0/8", x), 1) }, "[10.0.0.0/8]"},
		{"announced again (S9: a ROUTE-REFRESH)", func() { tab.Update(0, announce("10.0.0.0/8", x), 2) }, "[]"},
		{"other attributes, and back", func() {
			tab.Update(0, announce("10.0.0.0/8", y), 3)
			tab.Update(0, announce("10.0.0.0/8", x), 4)
		}, "[10.0.0.0/8]"},
		{"by another", func() { tab.Update(1, announce("10.0.0.0/8", x), 5) }, "[10.0.0.0/8]"},
		{"withdrawn by one who never announced it", func() { tab.Update(2, announce("10.0.0.0/8", nil), 6) }, "[]"},
		{"unknown withdrawn", func() { tab.Update(0, announce("11.0.0.0/8", nil), 6) }, "[]"},
		{"marked, known and unknown", func() { tab.Mark(pfx("10.0.0.0/8")); tab.Mark(pfx("11.0.0.0/8")) }, "[10.0.0.0/8]"},
		{"all marked, twice", func() { tab.MarkAll(); tab.MarkAll() }, "[10.0.0.0/8]"},
		{"withdrawn by both", func() {
			tab.Update(0, announce("10.0.0.0/8", nil), 7)
			tab.Update(1, announce("10.0.0.0/8", nil), 7)
		}, "[10.0.0.0/8]"},
		{"nothing is left", func() { tab.MarkAll() }, "[]"},
		{"announced and withdrawn before anybody looked", func() {
			tab.Update(0, announce("12.0.0.0/8", x), 8)
			tab.Update(0, announce("12.0.0.0/8", nil), 8)
		}, "[12.0.0.0/8]"},
	} {
		tt.do()
		if got := fmt.Sprint(next(tab)); got != tt.want {
			t.Errorf("%s: dirty %s, want %s", tt.name, got, tt.want)
		}
	}
	if tab.Len() != 0 || len(tab.Prefixes()) != 0 || len(tab.NextHops()) != 0 || len(tab.dests) != 0 {
		t.Errorf("something is left: %+v", tab)
	}
}

// Since is when a path last changed: neither a refresh nor a restart of the peer that
// brings the same path back counts.
func TestTableSince(t *testing.T) {
	x, y := &Attrs{NextHop: addr("10.1.0.4")}, &Attrs{NextHop: addr("10.1.0.5")}
	tab := NewTable()
	tab.Update(0, announce("10.0.0.0/8", x), 1)
	tab.Update(0, announce("10.0.0.0/8", x), 2)
	tab.MarkStale(0)
	tab.Update(0, announce("10.0.0.0/8", x), 3)
	if p := tab.Paths(pfx("10.0.0.0/8"))[0]; p.Since != 1 || p.Stale {
		t.Errorf("path = %+v, want since 1, fresh", p)
	}
	tab.Update(0, announce("10.0.0.0/8", y), 4)
	if p := tab.Paths(pfx("10.0.0.0/8"))[0]; p.Since != 4 {
		t.Errorf("path = %+v, want since 4", p)
	}
}

// RFC 4724 section 4.2: what was not announced again by End-of-RIB goes, by family.
func TestTableGracefulRestart(t *testing.T) {
	x := &Attrs{NextHop: addr("10.1.0.4")}
	tab := NewTable()
	for _, p := range []string{"10.0.0.0/8", "11.0.0.0/8", "2001:db8::/32"} {
		tab.Update(0, announce(p, x), 1)
		tab.Update(1, announce(p, x), 1)
	}
	next(tab)
	tab.MarkStale(0)
	if got := next(tab); len(got) != 0 {
		t.Errorf("stale paths make %v dirty: the FIB is told of the peer instead", got)
	}
	if tab.Stale(0) != 3 || tab.Stale(1) != 0 || tab.Stale(7) != 0 {
		t.Errorf("Stale = %d, %d, want 3, 0", tab.Stale(0), tab.Stale(1))
	}
	tab.Update(0, announce("10.0.0.0/8", x), 2)
	tab.DropStale(0, true)
	if got := fmt.Sprint(next(tab)); got != "[11.0.0.0/8]" {
		t.Errorf("End-of-RIB of IPv4: dirty %s, want [11.0.0.0/8]", got)
	}
	if got := tab.Received(0); got != (Count{1, 1}) {
		t.Errorf("Received = %+v, want 1 and 1", got)
	}
	tab.DropStale(0, false)
	if got := fmt.Sprint(next(tab)); got != "[2001:db8::/32]" || tab.Received(0) != (Count{1, 0}) || tab.Received(1) != (Count{2, 1}) {
		t.Errorf("End-of-RIB of IPv6: dirty %s, received %+v", got, tab.Received(0))
	}
}

// RFC 9494 section 4.2: what is stale becomes the last choice, or goes where it must not be
// kept for so long, and is fresh again once it is announced again, though unchanged.
func TestTableLongLived(t *testing.T) {
	x, not := &Attrs{NextHop: addr("10.1.0.4")}, &Attrs{NextHop: addr("10.1.0.4"), Communities: []uint32{65535<<16 | 7}}
	tab := NewTable()
	for _, p := range []string{"10.0.0.0/8", "11.0.0.0/8", "2001:db8::/32"} {
		tab.Update(0, announce(p, x), 1)
		tab.Update(1, announce(p, x), 1)
	}
	tab.Update(0, announce("12.0.0.0/8", not), 1)
	tab.MarkStale(0)
	tab.Update(0, announce("11.0.0.0/8", x), 2)
	next(tab)
	tab.MarkLongLived(0)
	if got := fmt.Sprint(next(tab)); got != "[10.0.0.0/8 12.0.0.0/8 2001:db8::/32]" {
		t.Errorf("dirty %s", got)
	}
	if tab.LongLived(0) != 2 || tab.Stale(0) != 2 || tab.LongLived(1) != 0 || tab.LongLived(7) != 0 || tab.Paths(pfx("12.0.0.0/8")) != nil {
		t.Errorf("%d long-lived, %d stale, %v", tab.LongLived(0), tab.Stale(0), tab.Paths(pfx("12.0.0.0/8")))
	}
	tab.MarkLongLived(0)
	if got := next(tab); len(got) != 0 {
		t.Errorf("marked again: dirty %v", got)
	}
	tab.Update(0, announce("10.0.0.0/8", x), 3)
	if p := tab.Paths(pfx("10.0.0.0/8"))[0]; p.Since != 1 || p.Stale || p.LongLived {
		t.Errorf("announced again: %+v", p)
	}
	if got := fmt.Sprint(next(tab)); got != "[10.0.0.0/8]" {
		t.Errorf("announced again: dirty %s", got)
	}
	tab.DropStale(0, false)
	if tab.LongLived(0) != 0 || tab.Stale(0) != 0 || tab.Received(0) != (Count{2, 0}) {
		t.Errorf("End-of-RIB: %d long-lived, %d stale, %v", tab.LongLived(0), tab.Stale(0), tab.Received(0))
	}
}

// S23: a lost peer takes its own paths along and nothing else.
func TestTableDrop(t *testing.T) {
	x := &Attrs{NextHop: addr("10.1.0.4")}
	tab := NewTable()
	tab.Update(0, announce("10.0.0.0/8", x), 1)
	tab.Update(1, announce("10.0.0.0/8", x), 1)
	tab.Update(1, announce("11.0.0.0/8", x), 1)
	next(tab)
	tab.Drop(0)
	if got := fmt.Sprint(next(tab)); got != "[10.0.0.0/8]" || tab.Received(0).Total() != 0 || tab.Received(1).Total() != 2 || tab.NextHops()[addr("10.1.0.4")] != 2 {
		t.Errorf("dirty %s, received %v %v", got, tab.Received(0), tab.Received(1))
	}
}

// model is what a table should hold, kept in the simplest way.
type model struct {
	paths map[netip.Prefix]map[fib.Source]Path
}

func (m model) check(t *testing.T, tab *Table) {
	t.Helper()
	counts, nextHops, stale, known := map[fib.Source]Count{}, map[netip.Addr]int{}, map[fib.Source]int{}, 0
	long := map[fib.Source]int{}
	for p, paths := range m.paths {
		got := tab.Paths(p)
		if len(got) != len(paths) || !slices.IsSortedFunc(got, func(a, b Path) int { return int(a.Source) - int(b.Source) }) {
			t.Fatalf("Paths(%s) = %v, want %v by source", p, got, paths)
		}
		if len(paths) > 0 {
			known++
		}
		for _, x := range got {
			want, ok := paths[x.Source]
			if !ok || want.Attrs != x.Attrs || want.Stale != x.Stale || want.LongLived != x.LongLived {
				t.Fatalf("Paths(%s) has %+v, want %+v", p, x, want)
			}
			c := counts[x.Source]
			if p.Addr().Is4() {
				c.IPv4++
			} else {
				c.IPv6++
			}
			counts[x.Source] = c
			nextHops[x.Attrs.NextHop]++
			if x.Stale {
				stale[x.Source]++
			}
			if x.LongLived {
				long[x.Source]++
			}
		}
	}
	for src := range fib.Source(5) {
		if got := tab.Received(src); got != counts[src] {
			t.Fatalf("Received(%d) = %+v, want %+v", src, got, counts[src])
		}
		if got := tab.Stale(src); got != stale[src] {
			t.Fatalf("Stale(%d) = %d, want %d", src, got, stale[src])
		}
		if got := tab.LongLived(src); got != long[src] {
			t.Fatalf("LongLived(%d) = %d, want %d", src, got, long[src])
		}
	}
	if !maps.Equal(tab.NextHops(), nextHops) {
		t.Fatalf("NextHops() = %v, want %v", tab.NextHops(), nextHops)
	}
	if tab.Len() != known || len(tab.Prefixes()) != known {
		t.Fatalf("Len() = %d, %d prefixes, want %d", tab.Len(), len(tab.Prefixes()), known)
	}
}

// TestAnyOrder: any order of announcements, withdrawals and session losses ends in the
// state that the final set of paths implies, Next hands out each changed prefix once, and
// the ranking that was last Set is the one a fresh table gives.
func TestAnyOrder(t *testing.T) {
	policy := Policy{LocalASN: localASN}
	for seed := range int64(300) {
		r := rand.New(rand.NewSource(seed))
		var attrs []*Attrs
		for i := range 6 {
			attrs = append(attrs, &Attrs{NextHop: addr(fmt.Sprintf("10.1.0.%d", 4+i%4)), ASPath: seq(slices.Repeat([]uint32{uint32(i)}, 1+i/3)...)})
		}
		attrs[5].Communities = []uint32{noLLGR}
		var prefixes []netip.Prefix
		for i := range 6 {
			prefixes = append(prefixes, pfx(fmt.Sprintf("192.168.%d.0/24", i)), pfx(fmt.Sprintf("2001:db8:%d::/48", i)))
		}
		m := model{make(map[netip.Prefix]map[fib.Source]Path)}
		for _, p := range prefixes {
			m.paths[p] = make(map[fib.Source]Path)
		}
		tab := NewTable()
		dirty := map[netip.Prefix]bool{}
		set := map[netip.Prefix]string{} // what the FIB was told
		rank := func(p netip.Prefix, paths []Path) string {
			vias, why := policy.Rank(nil, p, paths)
			return show(vias) + string(why)
		}
		drain := func(max int) {
			for _, c := range tab.Next(nil, max) {
				p := c.Prefix
				if !dirty[p] {
					t.Fatalf("seed %d: Next returned %s, which did not change", seed, p)
				}
				delete(dirty, p)
				set[p] = rank(p, c.Paths)
			}
		}
		forget := func(src fib.Source, which func(netip.Prefix, Path) bool) {
			for p, paths := range m.paths {
				if x, ok := paths[src]; ok && which(p, x) {
					delete(paths, src)
					dirty[p] = true
				}
			}
		}
		for range 120 {
			src, p := fib.Source(r.Intn(4)), prefixes[r.Intn(len(prefixes))]
			switch r.Intn(11) {
			case 0, 1, 2, 3:
				a := attrs[r.Intn(len(attrs))]
				if old, ok := m.paths[p][src]; !ok || old.Attrs != a || old.LongLived {
					dirty[p] = true
				}
				m.paths[p][src] = Path{Source: src, Attrs: a}
				tab.Update(src, []Change{{p, a}}, 1)
			case 4, 5:
				if _, ok := m.paths[p][src]; ok {
					dirty[p] = true
				}
				delete(m.paths[p], src)
				tab.Update(src, []Change{{p, nil}}, 1)
			case 6:
				tab.MarkStale(src)
				for _, paths := range m.paths {
					if x, ok := paths[src]; ok {
						x.Stale = true
						paths[src] = x
					}
				}
			case 7:
				v4 := r.Intn(2) == 0
				tab.DropStale(src, v4)
				forget(src, func(p netip.Prefix, x Path) bool { return x.Stale && p.Addr().Is4() == v4 })
			case 8:
				if r.Intn(3) == 0 {
					tab.Drop(src)
					forget(src, func(netip.Prefix, Path) bool { return true })
				}
			case 9:
				drain(r.Intn(5))
			case 10:
				tab.MarkLongLived(src)
				forget(src, func(_ netip.Prefix, x Path) bool { return x.Stale && x.Attrs == attrs[5] })
				for p, paths := range m.paths {
					if x, ok := paths[src]; ok && x.Stale && !x.LongLived {
						x.LongLived = true
						paths[src] = x
						dirty[p] = true
					}
				}
			}
			if tab.Dirty() != len(dirty) {
				t.Fatalf("seed %d: Dirty() = %d, want %d", seed, tab.Dirty(), len(dirty))
			}
			m.check(t, tab)
		}
		drain(1000)
		if len(dirty) != 0 {
			t.Fatalf("seed %d: %v changed and were never handed out", seed, dirty)
		}
		if len(tab.dests) != tab.Len() {
			t.Fatalf("seed %d: %d destinations for %d prefixes", seed, len(tab.dests), tab.Len())
		}
		fresh := NewTable()
		for p, paths := range m.paths {
			for src, x := range paths {
				fresh.Update(src, []Change{{p, x.Attrs}}, 1)
			}
			for i := range fresh.Paths(p) {
				x := &fresh.Paths(p)[i]
				x.LongLived = paths[x.Source].LongLived
			}
		}
		for _, p := range prefixes {
			if want := rank(p, fresh.Paths(p)); set[p] != want {
				t.Fatalf("seed %d: %s was set to %q, a fresh table says %q", seed, p, set[p], want)
			}
		}
	}
}

// Judge has a reason for every path that carries no traffic, and says "used" of exactly
// those that the FIB uses.
func TestJudgeAgreesWithFIB(t *testing.T) {
	prefix := pfx("192.168.255.0/24")
	hops := []string{"10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.1", "10.8.0.4", "10.9.0.4"}
	for seed := range int64(3000) {
		r := rand.New(rand.NewSource(seed))
		var paths []Path
		states := map[fib.Source]fib.SourceState{}
		for src := range fib.Source(r.Intn(7)) {
			asns := slices.Repeat([]uint32{65000}, 1+r.Intn(2))
			if r.Intn(8) == 0 {
				asns[0] = localASN
			}
			paths = append(paths, from(src, hops[r.Intn(len(hops))], seq(asns...), med(uint32(r.Intn(2)))))
			states[src] = fib.SourceState(r.Intn(3))
			paths[src].LongLived = states[src] == fib.SourceStale && r.Intn(2) == 0
		}
		maxPaths := 1 + r.Intn(3)
		p := Policy{LocalASN: localASN}
		f := fib.NewTable(fib.Options{MaxPaths: maxPaths})
		f.SetResolver(host().Resolve)
		for src, state := range states {
			f.SetSource(src, state)
		}
		vias, _ := p.Rank(nil, prefix, paths)
		f.Set(prefix, vias)
		e, _ := f.Entry(prefix)
		used := 0
		for _, v := range p.Judge(prefix, paths, e, f.State, host().Resolve) {
			if v.Used != (v.Reason == "") || v.Used && !v.Best {
				t.Fatalf("seed %d: %+v: neither used nor a reason", seed, v)
			}
			if v.Used {
				used++
			}
		}
		if used != len(e.Used) || (used > 0) != (len(e.Legs) > 0) {
			t.Fatalf("seed %d: Judge says %d paths are used, the FIB uses %v", seed, used, e.Used)
		}
	}
}

// While nobody drains, memory is bounded by the number of prefixes, not of changes; and
// under a churn that never lets the queue run empty, too.
func TestTableBounded(t *testing.T) {
	x, y := &Attrs{NextHop: addr("10.1.0.4")}, &Attrs{NextHop: addr("10.1.0.5")}
	tab := NewTable()
	const prefixes = 10_000
	p := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24)
	}
	for i := range 20 * prefixes {
		tab.Update(0, []Change{{p(i % prefixes), x}}, 1)
		tab.Update(0, []Change{{p(i % prefixes), nil}}, 1)
	}
	if tab.Dirty() != prefixes || len(tab.dests) != prefixes || cap(tab.dirty) > 4*prefixes {
		t.Errorf("flapping without a reader: %d dirty, %d destinations, queue for %d", tab.Dirty(), len(tab.dests), cap(tab.dirty))
	}
	var buf []Changed
	for i := range 50 * prefixes {
		tab.Update(0, []Change{{p(i % prefixes), []*Attrs{x, y}[i/prefixes%2]}}, 1)
		if i%100 == 0 {
			buf = tab.Next(buf[:0], 100)
		}
		if tab.Dirty() == 0 {
			t.Fatal("the test needs a queue that never empties")
		}
	}
	if cap(tab.dirty) > 8*prefixes {
		t.Errorf("churn: queue for %d entries, with %d dirty", cap(tab.dirty), tab.Dirty())
	}
	for tab.Dirty() > 0 {
		buf = tab.Next(buf[:0], 1000)
	}
	for i := range prefixes {
		tab.Update(0, []Change{{p(i), nil}}, 1)
	}
	for tab.Dirty() > 0 {
		buf = tab.Next(buf[:0], 1000)
	}
	if len(tab.dests) != 0 || len(tab.nextHops) != 0 {
		t.Errorf("after the withdrawal of all: %d destinations, %d next hops", len(tab.dests), len(tab.nextHops))
	}
}

// A walk lets others at the table, which may change it.
func TestTableYield(t *testing.T) {
	x := &Attrs{NextHop: addr("10.1.0.4")}
	tab := NewTable()
	p := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24)
	}
	for i := range 5000 {
		tab.Update(0, []Change{{p(i), x}}, 1)
		tab.Update(1, []Change{{p(i), x}}, 1)
	}
	tab.Next(nil, 10000)
	n := 0
	tab.Yield = func() {
		tab.Update(1, []Change{{p(n), nil}}, 2)
		tab.Update(1, []Change{{p(5000 + n), x}}, 2)
		tab.Next(nil, 100)
		n++
	}
	tab.MarkStale(0)
	tab.DropStale(0, true)
	if n == 0 || tab.Received(0).Total() != 0 || tab.Received(1).Total() != 5000 || tab.Stale(0) != 0 {
		t.Errorf("after %d yields: received %v and %v", n, tab.Received(0), tab.Received(1))
	}
}
