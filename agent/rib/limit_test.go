package rib

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// within lists the prefixes of a source that are used, and those that wait.
func (t *Table) sorted(src fib.Source) (within, waiting []netip.Prefix) {
	for _, p := range t.Prefixes() {
		for _, x := range t.Paths(p) {
			if x.Source != src {
				continue
			}
			if x.Over == Within {
				within = append(within, p)
			} else {
				waiting = append(waiting, p)
			}
		}
	}
	slices.SortFunc(within, netip.Prefix.Compare)
	slices.SortFunc(waiting, netip.Prefix.Compare)
	return within, waiting
}

// S9: the first that were announced are used, whatever happened before: a model that
// knows only the order of arrival says the same after every step.
func TestLimitIsByArrival(t *testing.T) {
	a := &Attrs{NextHop: addr("10.1.0.4")}
	for seed := range int64(100) {
		r := rand.New(rand.NewSource(seed))
		tab := NewTable()
		var order [2][]netip.Prefix // by family
		limits := [2]int{3, 2}
		tab.SetLimit(1, limits[0], limits[1])
		for step := range 200 {
			family := r.Intn(2)
			p := nth(r.Intn(12))
			if family == 1 {
				p = pfx(fmt.Sprintf("2001:db8:%x::/48", r.Intn(12)))
			}
			i := slices.Index(order[family], p)
			switch r.Intn(12) {
			case 0:
				limits = [2]int{r.Intn(6), r.Intn(6)}
				tab.SetLimit(1, limits[0], limits[1])
			case 1:
				tab.MarkStale(1)
				tab.Update(1, []Change{{p, a}}, 1) // keeps its place, or gets one
				if i < 0 {
					order[family] = append(order[family], p)
				}
				tab.DropStale(1, true)
				tab.DropStale(1, false)
				order = [2][]netip.Prefix{}
				order[family] = []netip.Prefix{p}
			case 2, 3, 4, 5:
				tab.Update(1, []Change{{p, nil}}, 1)
				if i >= 0 {
					order[family] = slices.Delete(order[family], i, i+1)
				}
			default:
				tab.Update(1, []Change{{p, &Attrs{NextHop: addr("10.1.0.5")}}}, 1) // a change keeps the place
				tab.Update(0, []Change{{p, a}}, 1)                                 // another source has no limit
				if i < 0 {
					order[family] = append(order[family], p)
				}
			}
			var want, late []netip.Prefix
			for f := range order {
				n := len(order[f])
				if limits[f] > 0 {
					n = min(n, limits[f])
				}
				want, late = append(want, order[f][:n]...), append(late, order[f][n:]...)
			}
			slices.SortFunc(want, netip.Prefix.Compare)
			slices.SortFunc(late, netip.Prefix.Compare)
			got, waiting := tab.sorted(1)
			if !slices.Equal(got, want) || !slices.Equal(waiting, late) || tab.Waiting(1).Total() != len(late) {
				t.Fatalf("seed %d, step %d, limits %v: used %v, waiting %v (%d), want %v and %v", seed, step, limits, got, waiting, tab.Waiting(1).Total(), want, late)
			}
			if _, w := tab.sorted(0); len(w) > 0 {
				t.Fatalf("seed %d, step %d: %v of a source without a limit wait", seed, step, w)
			}
		}
	}
}

// With a total beside the limits: never more than either allows, nothing waits while there
// is room, the counts add up, and what becomes usable or unusable is dirty.
func TestTotalLimit(t *testing.T) {
	a := &Attrs{NextHop: addr("10.1.0.4")}
	for seed := range int64(100) {
		r := rand.New(rand.NewSource(seed))
		tab := NewTable()
		limit, total := [3]int{}, 0
		used := map[string]bool{}
		for step := range 200 {
			src := fib.Source(r.Intn(3))
			switch r.Intn(10) {
			case 0:
				limit[src] = r.Intn(8)
				tab.SetLimit(src, limit[src], limit[src])
			case 1:
				total = r.Intn(12)
				tab.SetTotal(total)
			case 2:
				tab.Drop(src)
			case 3, 4:
				tab.Update(src, []Change{{nth(r.Intn(10)), nil}}, 1)
			default:
				tab.Update(src, []Change{{nth(r.Intn(10)), a}}, 1)
			}
			dirty := map[netip.Prefix]bool{}
			for _, c := range tab.Next(nil, 1000) {
				dirty[c.Prefix] = true
			}
			sum, waits, room := 0, 0, false
			now := map[string]bool{}
			for s := range fib.Source(3) {
				in, out := tab.sorted(s)
				if limit[s] > 0 && len(in) > limit[s] {
					t.Fatalf("seed %d, step %d: source %d uses %d of %d", seed, step, s, len(in), limit[s])
				}
				if tab.Waiting(s).Total() != len(out) || tab.Received(s).Total() != len(in)+len(out) {
					t.Fatalf("seed %d, step %d: source %d: %d used, %d wait, counted %+v of %+v", seed, step, s, len(in), len(out), tab.Waiting(s), tab.Received(s))
				}
				sum, waits = sum+len(in), waits+len(out)
				room = room || len(out) > 0 && (limit[s] == 0 || len(in) < limit[s])
				for _, p := range in {
					now[fmt.Sprint(s, p)] = true
					if !used[fmt.Sprint(s, p)] && !dirty[p] {
						t.Fatalf("seed %d, step %d: %s came in and is not dirty", seed, step, p)
					}
				}
				for _, p := range out {
					if used[fmt.Sprint(s, p)] && !dirty[p] {
						t.Fatalf("seed %d, step %d: %s is out and not dirty", seed, step, p)
					}
				}
			}
			used = now
			if sum != tab.Total() || total > 0 && sum > total {
				t.Fatalf("seed %d, step %d: %d used, counted %d, total %d", seed, step, sum, tab.Total(), total)
			}
			if room && (total == 0 || sum < total) {
				t.Fatalf("seed %d, step %d: %d wait with room for them", seed, step, waits)
			}
		}
	}
}

// What Lower foretells is what SetLimit and SetTotal then do, and it changes nothing.
func TestLowerForetells(t *testing.T) {
	a := &Attrs{NextHop: addr("10.1.0.4")}
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		tab := NewTable()
		for range 60 {
			p := nth(r.Intn(20))
			if r.Intn(3) == 0 {
				p = pfx(fmt.Sprintf("2001:db8:%x::/48", r.Intn(12)))
			}
			c := Change{p, a}
			if r.Intn(4) == 0 {
				c.Attrs = nil
			}
			tab.Update(fib.Source(r.Intn(3)), []Change{c}, 1)
		}
		limits := [3][2]int{{r.Intn(12), r.Intn(6)}, {r.Intn(12), 0}, {NoPlace, NoPlace}}
		total := r.Intn(24)
		cut := tab.Lower(func(s fib.Source, ipv4 bool) int {
			if ipv4 {
				return limits[s][0]
			}
			return limits[s][1]
		}, total)
		type path struct {
			prefix netip.Prefix
			source fib.Source
		}
		taken := map[path]bool{}
		for _, p := range tab.Prefixes() {
			for _, x := range tab.Paths(p) {
				if x.Over != Within {
					t.Fatalf("seed %d: Lower changed %v of %d", seed, p, x.Source)
				}
				taken[path{p, x.Source}] = cut.Takes(p, x)
			}
		}
		tab.Drop(2)
		for s, l := range limits[:2] {
			tab.SetLimit(fib.Source(s), l[0], l[1])
		}
		tab.SetTotal(total)
		for _, p := range tab.Prefixes() {
			for _, x := range tab.Paths(p) {
				if got, want := taken[path{p, x.Source}], x.Over != Within; got != want {
					t.Errorf("seed %d, limits %v, total %d: Takes(%v of %d) = %t, want %t", seed, limits, total, p, x.Source, got, want)
				}
			}
		}
	}
}
