package fib

import (
	"maps"
	"net/netip"
	"slices"
)

// unknownLeg stands for a member of a group that is not a next hop of ours. It equals
// nothing we want, so the group gets rewritten.
var unknownLeg = Leg{IfIndex: -1}

// Load replaces every belief about the kernel by what was read from it, and queues all
// that differs from what is wanted. It returns how many known routes turned out to be
// other than believed. Anything Plan emitted before is void.
//
// Groups and routes of an earlier run are adopted: while the hold is on they stay,
// afterwards those that nobody wants are deleted, but for those that Release kept. What was refused keeps its back-off,
// unless the refusal was due to beliefs that turn out to be wrong.
func (t *Table) Load(s Snapshot) (drift int) {
	clear(t.steps)
	t.ops, t.steps = t.ops[:0], t.steps[:0]
	t.pending, t.head = t.pending[:0], 0
	t.changed = t.changed[:0]
	t.suspect, t.sweep = false, true

	if t.loadObjects(s) {
		for _, g := range t.groups {
			g.failure = nil
		}
		for p, f := range t.failures {
			if !f.Foreign() {
				delete(t.failures, p)
			}
		}
		for l := range t.bad {
			if t.hops[l] != nil {
				t.takes(l)
			} else {
				t.probe(l)
			}
		}
	}
	for _, g := range t.groups {
		g.queued, g.routes = false, 0
		if g.key != "" {
			g.pick = t.choose(g.vias) // all routes are looked at below
		}
		t.queueGroup(g)
	}
	return t.loadRoutes(s)
}

// Agrees tells whether all is in the kernel as it is believed and wanted, so that a Load
// would change nothing. It changes nothing either, and gives up with ErrUrgent.
func (t *Table) Agrees(s Snapshot, urgent func() bool) (bool, error) {
	if t.suspect || t.present != len(s.Routes) || len(t.hopIDs) != len(s.NextHops) || len(t.byID) != len(s.Groups) {
		return false, nil
	}
	for id, leg := range s.NextHops {
		if h := t.hopIDs[id]; h == nil || !h.inKernel || h.leg != leg {
			return false, nil
		}
	}
	for id, members := range s.Groups {
		g := t.byID[id]
		if g == nil || len(g.members) != len(members) {
			return false, nil
		}
		for _, h := range g.members {
			if _, ok := slices.BinarySearch(members, h.id); !ok {
				return false, nil
			}
		}
	}
	n := 0
	for p, sr := range s.Routes {
		if n++; n%1024 == 0 && urgent() {
			return false, ErrUrgent
		}
		r := t.routes[p]
		if r == nil || r.have == nil || r.lost || !t.inSync(r) && t.failures[p] == nil && r.blocked() == nil {
			return false, nil
		}
		if g := r.have; sr.GroupID != g.id || g.id == 0 && !slices.Equal(g.legs, sr.Legs) {
			return false, nil
		}
	}
	return true, nil
}

// loadObjects takes over next hops and groups, and tells whether they differ from what
// was believed.
func (t *Table) loadObjects(s Snapshot) (differ bool) {
	before := t.hopIDs
	differ = len(before) != len(s.NextHops) || len(t.byID) != len(s.Groups)
	t.hops = make(map[Leg]*hop, len(s.NextHops))
	t.hopIDs = make(map[uint32]*hop, len(s.NextHops))
	for _, id := range slices.Sorted(maps.Keys(s.NextHops)) {
		h := &hop{leg: s.NextHops[id], id: id, inKernel: true}
		if old := before[id]; old != nil && old.leg == h.leg {
			h.failure = old.failure
		} else {
			differ = true
		}
		t.hopIDs[id] = h
		if t.hops[h.leg] == nil {
			t.hops[h.leg] = h
		}
	}
	groups := t.byID
	t.byID = make(map[uint32]*group, len(s.Groups))
	for _, id := range slices.Sorted(maps.Keys(s.Groups)) {
		members := s.Groups[id]
		g := groups[id]
		if g == nil || g.key != "" && len(members) == 0 {
			// Not known, or not of a kind that ours could become by a replace.
			g = &group{}
			t.groups = append(t.groups, g)
			differ = true
		} else {
			delete(groups, id)
		}
		differ = t.loadGroup(g, id, members) || differ
	}
	for _, g := range groups {
		g.inKernel, g.id, g.legs, g.members = false, 0, nil, nil
	}
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool { return g.key == "" && !g.inKernel })
	return differ
}

func (t *Table) loadGroup(g *group, id uint32, members []uint32) (differs bool) {
	old := g.legs
	g.inKernel, g.id, g.legs, g.members = true, id, nil, nil
	for _, m := range members {
		leg := unknownLeg
		if h := t.hopIDs[m]; h != nil {
			h.refs++
			g.members = append(g.members, h)
			leg = h.leg
		}
		g.legs = append(g.legs, leg)
	}
	slices.SortFunc(g.legs, compareLegs)
	t.byID[id] = g
	return !slices.Equal(g.legs, old)
}

func (t *Table) loadRoutes(s Snapshot) (drift int) {
	t.present = 0
	for p, r := range t.routes {
		old := r.have
		r.have, r.queued, r.lost = nil, false, false
		if sr, ok := s.Routes[p]; ok {
			t.setHave(r, t.groupOf(sr, r, old))
			t.adopt(r, r.adopted || t.hold && old == nil)
		} else {
			t.adopt(r, false)
		}
		if r.have != old {
			drift++
			delete(t.failures, p)
		}
	}
	for p, sr := range s.Routes {
		if t.routes[p] == nil {
			r := &route{}
			t.adopt(r, t.hold)
			t.routes[p] = r
			t.setHave(r, t.groupOf(sr, r, nil))
		}
	}
	for p, r := range t.routes {
		t.touch(p, r)
	}
	return drift
}

// groupOf finds the group that a route in the kernel names, or makes one up that
// nothing can want, so that the route is replaced or deleted.
func (t *Table) groupOf(sr SnapshotRoute, r *route, old *group) *group {
	if sr.GroupID != 0 {
		if g := t.byID[sr.GroupID]; g != nil {
			return g
		}
	}
	legs := slices.Clone(sr.Legs)
	slices.SortFunc(legs, compareLegs)
	for _, g := range [...]*group{old, r.want} {
		if g != nil && g.inKernel && g.id == 0 && slices.Equal(g.legs, legs) {
			return g
		}
	}
	made := &group{inKernel: true, legs: legs}
	if t.classic && sr.GroupID == 0 {
		for _, g := range t.groups {
			if g.key == "" && g.id == 0 && slices.Equal(g.legs, legs) {
				return g
			}
		}
		t.groups = append(t.groups, made)
	}
	return made
}

// Suspect tells that the kernel refused something in a way that only wrong beliefs
// explain (a member that is not there, say), or that an outcome is unknown: Load a new
// Dump.
func (t *Table) Suspect() bool { return t.suspect }

// UsesLink tells whether a route in the kernel leads over the link: the kernel drops
// next hops, groups and IPv4 routes without a word when it goes down.
func (t *Table) UsesLink(index int) bool {
	return slices.ContainsFunc(t.groups, func(g *group) bool {
		return g.inKernel && slices.ContainsFunc(g.legs, func(l Leg) bool { return l.IfIndex == index })
	})
}

// Clear wants nothing any more: the cycles that follow delete all that is ours.
func (t *Table) Clear() {
	t.hold, t.sweep = false, true
	for p, r := range t.routes {
		t.adopt(r, false)
		t.want(p, r, nil)
	}
}

// Entry is what the table knows of one prefix.
type Entry struct {
	Vias    []Via        // the ranking; nil: the prefix is not wanted
	Used    []Via        // those that carry traffic
	Refused []RefusedVia // those that would, but for the kernel
	Legs    []Leg        // what they resolve to; empty: no next hop can be used
	Kernel  []Leg        // what our route in the kernel uses; nil: there is none
	InSync  bool         // Kernel is as Legs
	Adopted bool         // left by an earlier run, and waiting for a peer to confirm it
	// Failure is the last refusal that stands between Kernel and Legs, or what keeps Legs
	// empty although a next hop is reachable.
	Failure *Failure
}

// Entry returns what the table knows of prefix. Its slices must not be changed.
func (t *Table) Entry(prefix netip.Prefix) (Entry, bool) {
	r := t.routes[prefix]
	if r == nil {
		return Entry{}, false
	}
	e := Entry{Adopted: r.adopted, Failure: t.failures[prefix]}
	if g := r.want; g != nil {
		e.Vias, e.Used, e.Refused, e.Legs = g.vias, g.used, g.refused, g.want
		if e.Failure == nil {
			e.Failure = g.blocked()
		}
	}
	if g := r.have; g != nil {
		e.Kernel = g.legs
		if f := g.failure; e.Failure == nil && f != nil && f.Op != GroupDel && t.inSync(r) {
			e.Failure = f
		}
	}
	e.InSync = t.inSync(r) && slices.Equal(e.Kernel, e.Legs)
	return e, true
}

// Counts sums the table up.
type Counts struct {
	Desired     int // routes that should be in the kernel
	Unreachable int // wanted, but no next hop of theirs is reachable
	Present     int // routes of ours in the kernel
	Failed      int // refused by the kernel, foreign routes in the way among them
	Foreign     int // of those, foreign routes in the way
	Pending     int // not looked at yet
	Groups      int
	NextHops    int
}

// Counts returns the sums, in a time that grows with groups and failures only.
func (t *Table) Counts() Counts {
	c := Counts{Present: t.present, Failed: len(t.failures), Pending: len(t.pending) - t.head, NextHops: len(t.hopIDs)}
	for _, g := range t.groups {
		switch {
		case len(g.want) > 0:
			c.Desired += g.users
		case g.blocked() != nil:
			c.Desired += g.users
			c.Failed += g.users
		default:
			c.Unreachable += g.users
		}
		if g.inKernel {
			c.Groups++
		}
	}
	for _, f := range t.failures {
		if f.Foreign() {
			c.Foreign++
		}
	}
	return c
}
