package fib

import (
	"encoding/binary"
	"slices"
	"time"
)

// group is one ranking of ways to forward and the kernel object that stands for it.
// Two groups may carry the same key, after a source was stripped (see SetSource) or
// when an earlier run left two: they forward alike, so routes stay where they are.
type group struct {
	key  string // of vias; "" for a group found in the kernel that no route claimed yet
	vias []Via
	pick

	inKernel bool   // in classic mode: routes may carry legs
	id       uint32 // of the kernel object, or of the one that is about to be; 0: none
	legs     []Leg  // what the kernel has; never changed in place
	members  []*hop // the next hops behind legs, as far as they are known

	users  int // routes that want it
	routes int // routes in the kernel that name it

	queued  bool     // in Table.changed
	gone    bool     // discarded
	failure *Failure // of its last write
	// Marks for one walk over all routes: those that want a flipped group are looked at
	// again, those that a vacated one has move to its heir (nil: out of the kernel).
	flipped bool
	vacated bool
	heir    *group
}

// pick is what a ranking comes down to at present.
type pick struct {
	want []Leg // the legs in use; empty: no route can use the group
	used []Via // the vias behind them
	// refused are the vias that would be used, were it not for the kernel.
	refused []RefusedVia
}

// blocked tells that want is empty only because the kernel refuses every leg that could
// be used. Routes that are there stay as they are until it takes one.
func (p *pick) blocked() *Failure {
	if len(p.want) > 0 || len(p.refused) == 0 {
		return nil
	}
	return p.refused[0].Failure
}

// hop is a kernel next-hop object.
type hop struct {
	leg      Leg
	id       uint32
	inKernel bool     // or else it is about to be
	refs     int      // groups in the kernel that have it as a member
	failure  *Failure // of its deletion
}

// Failure is a write that the kernel refused.
type Failure struct {
	Op       OpKind
	Err      OpError
	At       time.Time
	Attempts int
	Retry    time.Time // when it is tried again at the latest
}

// RefusedVia is a way to forward whose next hop the kernel does not take.
type RefusedVia struct {
	Via
	Failure *Failure
}

// Foreign tells whether the refusal means that somebody else's route has our key.
func (f *Failure) Foreign() bool { return f.Op == RouteAdd && f.Err.Errno == eexist }

// waits tells whether the operation should not be tried yet.
func (f *Failure) waits(now time.Time) bool { return f != nil && f.Retry.After(now) }

// appendKey writes the canonical form of a ranking. Vias must be sorted.
func appendKey(b []byte, vias []Via) []byte {
	for _, v := range vias {
		a := v.NextHop.As16() // families are told apart by the tag
		tag := byte(4)
		if v.NextHop.Is6() {
			tag = 6
		}
		if v.NextHop == Discard {
			tag = 0 // the same address without its zone is another's
		}
		b = append(b, v.Tier, tag)
		b = append(b, a[:]...)
		b = binary.BigEndian.AppendUint16(b, uint16(v.Source))
	}
	return b
}

// choose picks the legs in use: of the first tier that has any, those of live sources,
// or else those of stale ones. Legs that the kernel refuses do not count, nor do those to
// be avoided, unless there are no others at all. Where one of the legs in use would be
// Blackhole, it is the only one. Legs come sorted, at most maxPaths.
func (t *Table) choose(vias []Via) pick {
	if len(t.avoid) > 0 {
		if p := t.chooseFrom(vias, t.avoid); len(p.want) > 0 {
			return p
		}
	}
	return t.chooseFrom(vias, nil)
}

func (t *Table) chooseFrom(vias []Via, avoid map[Leg]bool) pick {
	var p pick
	for start := 0; start < len(vias); {
		end := start
		for end < len(vias) && vias[end].Tier == vias[start].Tier {
			end++
		}
		for _, pass := range [...]SourceState{SourceUp, SourceStale} {
			for _, v := range vias[start:end] {
				if t.State(v.Source) != pass {
					continue
				}
				var refused *Failure
				use := false
				for _, l := range t.resolve(v.NextHop).Legs {
					if f := t.bad[l]; f != nil {
						refused = f
						continue
					}
					if avoid[l] {
						continue
					}
					use = true
					if !slices.Contains(p.want, l) {
						p.want = append(p.want, l)
					}
				}
				switch {
				case use:
					p.used = append(p.used, v)
				case refused != nil:
					p.refused = append(p.refused, RefusedVia{v, refused})
				}
			}
			if len(p.want) > 0 {
				if slices.Contains(p.want, Blackhole) {
					p.want = []Leg{Blackhole}
					p.used = slices.DeleteFunc(p.used, func(v Via) bool { return v.NextHop != Discard })
				}
				slices.SortFunc(p.want, compareLegs)
				t.cut(&p)
				return p
			}
		}
		start = end
	}
	return p
}

// cut leaves maxPaths legs, and the vias that still have one (S14).
func (t *Table) cut(p *pick) {
	if len(p.want) <= t.maxPaths {
		return
	}
	p.want = p.want[:t.maxPaths:t.maxPaths]
	p.used = slices.DeleteFunc(p.used, func(v Via) bool {
		return !slices.ContainsFunc(t.resolve(v.NextHop).Legs, func(l Leg) bool { return slices.Contains(p.want, l) })
	})
}

// without returns vias less those of src, with their tiers closed up.
func without(vias []Via, src Source) []Via {
	out := make([]Via, 0, len(vias))
	for _, v := range vias {
		if v.Source != src {
			out = append(out, v)
		}
	}
	closeTiers(out)
	return out
}

// closeTiers numbers the tiers of sorted vias from 0 without gaps, so that rankings
// that mean the same have the same key.
func closeTiers(vias []Via) {
	next, last := -1, -1
	for i := range vias {
		if int(vias[i].Tier) != last {
			last = int(vias[i].Tier)
			next++
		}
		vias[i].Tier = uint8(next)
	}
}
