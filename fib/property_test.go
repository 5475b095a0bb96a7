package fib_test

import (
	"fmt"
	"maps"
	"math/rand"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

const sources = 4

// storm is a random run: everything that can happen to a table, in any order.
type storm struct {
	*sim
	r        *rand.Rand
	prefixes []netip.Prefix
	leaving  map[fib.Source][]netip.Prefix // withdrawals that a lost source still owes
	stale    bool                          // the kernel is to be read again
	host     bool                          // the host, too
}

func newStorm(t testing.TB, classic bool, seed int64) *storm {
	w := &storm{sim: newSim(t, classic), r: rand.New(rand.NewSource(seed)), leaving: map[fib.Source][]netip.Prefix{}}
	w.compat = seed%2 == 0
	w.start(false)
	for i := range 8 {
		w.prefixes = append(w.prefixes, pfx(fmt.Sprintf("192.168.%d.0/24", i)))
	}
	for i := range 4 {
		w.prefixes = append(w.prefixes, pfx(fmt.Sprintf("2001:db8:%d::/48", i)))
	}
	// Ids of our range that others took: the first ones, so that we run into them.
	for i := range uint32(3) {
		w.m.AddNextHop(owner.FirstID+1+2*i, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: w.links[0]}, 4)
	}
	return w
}

func (w *storm) prefix() netip.Prefix { return w.prefixes[w.r.Intn(len(w.prefixes))] }
func (w *storm) src() fib.Source      { return fib.Source(w.r.Intn(sources)) }

func (w *storm) step() {
	switch w.r.Intn(17) {
	case 16:
		leg, _ := w.leg(nhs(w.prefix(), w.r.Intn(sources)))
		w.tab.Avoid(leg, !w.avoid[leg])
		w.avoid[leg] = w.tab.Avoids(leg) // not of one that nothing uses
		w.logf("avoid %v: %t", leg, w.avoid[leg])
	case 0, 1, 2:
		p, src := w.prefix(), w.src()
		nh := int(src)
		if chance(w.r, 3) {
			nh = w.r.Intn(sources) // a third-party next hop, perhaps another's (S16)
		}
		to := nhs(p, nh)
		if chance(w.r, 8) {
			to = fib.Discard
		}
		w.logf("announce %s by %d: next hop %s", p, src, to)
		w.announce(p, src, to, w.r.Intn(2))
	case 3:
		p, src := w.prefix(), w.src()
		w.logf("withdraw %s by %d", p, src)
		w.withdraw(p, src)
	case 4, 5:
		w.sourceNews()
	case 6:
		i := w.r.Intn(2)
		up := w.down[i]
		w.logf("link %d up %t", i, up)
		w.link(i, up)
		w.stale, w.host = true, true
		if chance(w.r, 2) {
			w.lookAround()
		}
	case 7:
		p := w.prefix()
		if _, ok := w.foreign[p]; ok {
			w.logf("foreign %s goes", p)
			w.delForeign(p)
		} else if chance(w.r, 2) {
			w.logf("foreign %s comes", p)
			w.addForeign(p)
		}
	case 8:
		w.outside()
	case 9:
		w.now = w.now.Add(time.Duration(w.r.Intn(1000)) * time.Millisecond)
		w.logf("time passes")
		w.tab.RetryDue(w.now)
	case 10:
		w.lookAround()
	case 11:
		if w.classic {
			break // the kernel does not say which leg it refuses
		}
		gw := nhs(w.prefix(), w.r.Intn(sources))
		w.bad[gw] = !w.bad[gw]
		w.logf("gateway %s refused: %t", gw, w.bad[gw])
		for id, leg := range w.dump().NextHops {
			if leg.Gateway == gw {
				w.m.DelNextHop(id)
				w.stale = true
			}
		}
	case 12:
		if chance(w.r, 4) {
			w.logf("restart")
			w.start(true)
			clear(w.leaving)
			w.stale, w.host = false, false
		} else {
			w.logf("release")
			w.tab.Release(nil)
		}
	default:
		w.someCycle()
	}
}

// sourceNews changes the state of a source, as the agent does: one that goes down has
// its paths withdrawn at leisure, and once it is up again, all it still has is Set anew.
func (w *storm) sourceNews() {
	src := w.src()
	switch w.states[src] {
	case fib.SourceDown:
		if n := len(w.leaving[src]); n > 0 && chance(w.r, 2) {
			for _, p := range w.leaving[src][n/2:] {
				w.logf("withdraw %s by %d, which is down", p, src)
				w.withdraw(p, src)
			}
			w.leaving[src] = w.leaving[src][:n/2]
			return
		}
		w.logf("source %d up", src)
		delete(w.leaving, src)
		w.source(src, fib.SourceUp)
		for p, paths := range w.paths {
			if _, ok := paths[src]; ok {
				w.push(p)
			}
		}
	default:
		state := fib.SourceState(w.r.Intn(3))
		w.logf("source %d state %d", src, state)
		w.source(src, state)
		if state == fib.SourceDown {
			for p, paths := range w.paths {
				if _, ok := paths[src]; ok {
					w.leaving[src] = append(w.leaving[src], p)
				}
			}
		}
	}
}

// outside does what other programs do to our objects.
func (w *storm) outside() {
	snap := w.dump()
	switch w.r.Intn(3) {
	case 0:
		for p := range snap.Routes {
			w.logf("somebody deletes route %s", p)
			w.m.DelRoute(fib.Route{Prefix: p, Table: table, Metric: metric})
			w.tab.Lost(p)
			break
		}
	case 1:
		for id := range snap.Groups {
			w.logf("somebody deletes group %x", id)
			w.m.DelNextHop(id)
			w.stale = true
			break
		}
	case 2:
		for id := range snap.NextHops {
			w.logf("somebody deletes next hop %x", id)
			w.m.DelNextHop(id)
			w.stale = true
			break
		}
	}
}

// lookAround reads what should be read again.
func (w *storm) lookAround() {
	if w.host {
		w.logf("read the host")
		w.resolve()
		w.host = false
	}
	if w.stale || w.tab.Suspect() {
		w.logf("load")
		w.load()
		w.stale = false
	}
}

func (w *storm) someCycle() {
	w.logf("cycle")
	w.refuse, w.stop = nil, nil
	switch w.r.Intn(4) {
	case 0:
		kind := fib.OpKind(1 + w.r.Intn(int(fib.NextHopDel)))
		errno := []syscall.Errno{syscall.ENOMEM, syscall.EINVAL, syscall.EBUSY}[w.r.Intn(3)]
		if kind <= fib.GroupAdd && chance(w.r, 2) {
			errno = syscall.EEXIST
		}
		w.refuse = func(op fib.Op) syscall.Errno {
			if op.Kind == kind && chance(w.r, 2) {
				return errno
			}
			return 0
		}
	case 1:
		w.stop = func(int) bool { return chance(w.r, 4) }
	}
	if _, ok := w.cycle([]int{0, 1, 3, 100}[w.r.Intn(4)]); !ok {
		w.stale = true
	}
}

// TestAnyInterleaving is the promise of the package: whatever happens in whatever order,
// once it is over the kernel holds exactly what the present state implies (S19, S20, S22,
// S23, S25), and on the way no usable prefix is absent and no foreign route touched.
func TestAnyInterleaving(t *testing.T) {
	runs, steps := 1000, 80
	if testing.Short() {
		runs = 200
	}
	for seed := range int64(runs) {
		classic := seed%3 == 0
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			w := newStorm(t, classic, seed)
			for range steps {
				w.step()
			}
			if chance(w.r, 2) {
				clear(w.bad)
			}
			w.logf("settle")
			w.refuse, w.stop = nil, nil
			w.tab.Release(nil)
			w.host, w.stale = true, true
			w.lookAround()
			w.settle()
			w.check()
			w.restartsWithoutAWrite()
			w.empties()
		})
		if !ok {
			return
		}
	}
}

// restartsWithoutAWrite starts anew with the same state (S25).
func (w *storm) restartsWithoutAWrite() {
	for p, paths := range w.paths {
		for src := range paths {
			if w.states[src] == fib.SourceDown {
				w.withdraw(p, src)
			}
		}
	}
	w.settle()
	w.check()
	states := maps.Clone(w.states)
	sets := map[netip.Prefix][]fib.Via{}
	for p, vias := range w.set {
		sets[p] = slices.Clone(vias)
	}
	if slices.Contains(slices.Collect(maps.Values(w.bad)), true) || len(w.foreign) > 0 {
		return // refusals are writes
	}
	for leg := range w.avoid {
		w.tab.Avoid(leg, false) // the next run knows of no silent neighbour
		delete(w.avoid, leg)
	}
	w.settle()
	w.logf("restart with the same state")
	before := w.dump()
	w.start(true)
	for src, state := range states {
		w.source(src, state)
	}
	for p, vias := range sets {
		w.set[p] = vias
		w.tab.Set(p, vias)
	}
	if n := w.run(); n != 0 {
		w.fatalf("%d writes during the hold, want none", n)
	}
	if n := w.tab.Release(nil); n != 0 {
		w.fatalf("Release would delete %d routes, want none", n)
	}
	if n := w.run(); n != 0 {
		w.fatalf("%d writes after the restart, want none", n)
	}
	if after := w.dump(); len(before.Routes) != len(after.Routes) {
		w.fatalf("%d routes after the restart, want %d", len(after.Routes), len(before.Routes))
	}
}

// empties wants nothing any more, and leaves nothing.
func (w *storm) empties() {
	w.logf("clear")
	w.tab.Clear()
	clear(w.set)
	w.settle()
	if s := w.dump(); len(s.Routes)+len(s.Groups)+len(s.NextHops) > 0 {
		w.fatalf("left behind: %+v", s)
	}
	if c := w.tab.Counts(); c != (fib.Counts{}) {
		w.fatalf("Counts() = %+v, want all zero", c)
	}
}
