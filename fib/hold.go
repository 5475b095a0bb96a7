package fib

import (
	"iter"
	"net/netip"
)

// Hold begins the hold again, for a Load that may adopt more. Release must follow before
// the next Plan.
func (t *Table) Hold() { t.hold = true }

// Release ends the hold: what no peer has confirmed is changed or deleted now. It
// returns how many routes are going to be deleted. Those that keep names (nil: none) are
// not: they stay adopted, until they are wanted or released.
func (t *Table) Release(keep func(netip.Prefix) bool) (deletes int) {
	if !t.hold && t.adopted == 0 {
		return 0
	}
	t.hold = false
	t.sweep = true
	for p, r := range t.routes {
		switch {
		case !r.adopted:
			continue
		case !r.excess():
		case keep != nil && keep(p):
			continue
		default:
			deletes++
		}
		t.adopt(r, false)
		t.touch(p, r)
	}
	return deletes
}

// Excess yields the adopted routes that a Release would delete, and their legs.
func (t *Table) Excess() iter.Seq2[netip.Prefix, []Leg] {
	return func(yield func(netip.Prefix, []Leg) bool) {
		for p, r := range t.routes {
			if r.adopted && r.excess() && !yield(p, r.have.legs) {
				return
			}
		}
	}
}

// Strangers counts the routes of ours in a Snapshot that nothing here knows of: a Load
// would have them deleted.
func (t *Table) Strangers(s Snapshot) (n int) {
	for p := range s.Routes {
		if r := t.routes[p]; r == nil || r.want == nil && r.have == nil {
			n++
		}
	}
	return n
}

// excess tells whether the kernel has the route and should not.
func (r *route) excess() bool { return r.have != nil && r.target() == nil && r.blocked() == nil }

// Unconfirmed returns how many routes a Release would delete, of how many there are.
func (t *Table) Unconfirmed() (n, of int) {
	for _, r := range t.routes {
		if r.excess() {
			n++
		}
	}
	return n, t.present
}

// Adopted is the number of routes that are kept as they were found, by the hold or after it.
func (t *Table) Adopted() int { return t.adopted }

// Held tells whether the hold is on.
func (t *Table) Held() bool { return t.hold }
