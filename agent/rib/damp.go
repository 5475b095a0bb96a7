package rib

import (
	"math"
	"net/netip"

	"github.com/nexthopd/nexthopd/fib"
)

// Damping is how a peer's flapping paths are held back (RFC 2439). A withdrawal adds a
// penalty, which halves every HalfLife. A path whose penalty has reached Suppress is not
// used when it is announced again, until the penalty is below Reuse. Announcing another
// path in place of one adds none, and takes effect at once: an implicit replace is how a
// healthy peer converges. HalfLife is in seconds.
type Damping struct {
	HalfLife int64
	Suppress int
	Reuse    int
	Most     int // the largest penalty: bounds how long a path is held back
}

const (
	flapPenalty = 1000
	// mostFlaps bounds the history of one peer, which chooses the prefixes: beyond it,
	// further ones are not damped.
	mostFlaps = 100_000
)

// flap is the history of one path.
type flap struct {
	penalty    float64 // at the time at
	at         int64
	suppressed bool
}

func (f *flap) now(d *Damping, now int64) float64 {
	return f.penalty * math.Exp2(-float64(max(now-f.at, 0))/float64(d.HalfLife))
}

// damper is what is remembered of a source.
type damper struct {
	Damping
	flaps map[netip.Prefix]*flap
}

// SetDamping switches the damping of a source on, changes or ends it (nil). The paths
// that it held back count again where it ends.
func (t *Table) SetDamping(src fib.Source, d *Damping) {
	old := t.dampers[src]
	switch {
	case d == nil && old == nil || d != nil && old != nil && old.Damping == *d:
	case d == nil:
		for p := range old.flaps {
			t.setDamped(src, p, false)
		}
		delete(t.dampers, src)
	case old == nil:
		if t.dampers == nil {
			t.dampers = make(map[fib.Source]*damper)
		}
		t.dampers[src] = &damper{Damping: *d, flaps: make(map[netip.Prefix]*flap)}
	default:
		old.Damping = *d // Reuse looks at all of them by the new measure
	}
}

// Flapped notes the withdrawals among the changes, which Update is to apply next. What a
// source withdraws because its session ended is no flap, and not to be handed in.
func (t *Table) Flapped(src fib.Source, changes []Change, now int64) {
	d := t.dampers[src]
	if d == nil {
		return
	}
	for _, c := range changes {
		if c.Attrs != nil || !t.has(src, c.Prefix) {
			continue
		}
		f := d.flaps[c.Prefix]
		if f == nil {
			if len(d.flaps) >= mostFlaps {
				continue
			}
			f = &flap{}
			d.flaps[c.Prefix] = f
		}
		f.penalty, f.at = min(f.now(&d.Damping, now)+flapPenalty, float64(d.Most)), now
		f.suppressed = f.suppressed || f.penalty >= float64(d.Suppress)
	}
}

func (t *Table) has(src fib.Source, p netip.Prefix) bool {
	for _, x := range t.Paths(p) {
		if x.Source == src {
			return true
		}
	}
	return false
}

// damped tells whether a path that is announced anew is held back.
func (t *Table) damped(src fib.Source, p netip.Prefix) bool {
	d := t.dampers[src]
	if d == nil {
		return false
	}
	f := d.flaps[p]
	return f != nil && f.suppressed
}

// Reuse lets the paths count again whose penalty has fallen far enough, and forgets what
// is long ago. more tells whether there is anything left to be looked at later.
func (t *Table) Reuse(now int64) (more bool) {
	n := 0
	for src, d := range t.dampers {
		for p, f := range d.flaps {
			penalty := f.now(&d.Damping, now)
			if f.suppressed && penalty < float64(d.Reuse) {
				f.suppressed = false
				t.setDamped(src, p, false)
			}
			if !f.suppressed && penalty < float64(d.Reuse)/2 {
				delete(d.flaps, p)
			}
			n = t.pause(n)
		}
		more = more || len(d.flaps) > 0
	}
	return more
}

// Flapping tells whether any path's flaps are remembered.
func (t *Table) Flapping() bool {
	for _, d := range t.dampers {
		if len(d.flaps) > 0 {
			return true
		}
	}
	return false
}

// DampedFor is the penalty of a path at present, and in how many seconds it counts again;
// 0: it is not held back.
func (t *Table) DampedFor(src fib.Source, p netip.Prefix, now int64) (penalty int, left int64) {
	d := t.dampers[src]
	if d == nil || d.flaps[p] == nil {
		return 0, 0
	}
	f := d.flaps[p]
	x := f.now(&d.Damping, now)
	if f.suppressed {
		left = max(int64(math.Ceil(float64(d.HalfLife)*math.Log2(x/float64(d.Reuse)))), 1)
	}
	return int(x), left
}

func (t *Table) setDamped(src fib.Source, p netip.Prefix, damped bool) {
	dest := t.dests[p]
	if dest == nil {
		return
	}
	for i := range dest.paths {
		if x := &dest.paths[i]; x.Source == src && x.Damped != damped {
			x.Damped = damped
			t.mark(p, dest)
		}
	}
}
