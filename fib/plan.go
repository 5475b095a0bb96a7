package fib

import (
	"net/netip"
	"slices"
	"time"
)

// step remembers what an Op of the present cycle was for.
type step struct {
	group   *group
	hop     *hop
	prefix  netip.Prefix // of routes; for groups and next hops whoever needs them, if known
	route   *route
	legs    []Leg
	members []*hop
}

// Plan returns the next writes, at most about max routes' worth: changed groups first
// (a failover is nothing else), then routes, and once those are in order the groups and
// next hops that nothing uses. Where it returns none and nothing is Pending, the kernel
// is as it should be, but for what was refused. The slice is valid until the next Plan.
//
// Nothing names an id that is created in the same batch: creation fails if the id is a
// stranger's, and what names it would then succeed and follow the stranger's object.
//
// While the outcome of an earlier Plan is unknown (no Done came), there is nothing to
// plan on: the table is Suspect and waits for Load.
func (t *Table) Plan(now time.Time, max int) []Op {
	if len(t.ops) > 0 {
		t.suspect = true
		return nil
	}
	for _, l := range t.probes {
		if t.bad[l] != nil {
			t.addHop(l, netip.Prefix{})
		}
	}
	t.probes = t.probes[:0]
	t.planChanged(now)
	end := min(len(t.pending), t.head+max) // routes that have to wait are queued anew behind it
	for t.head < end {
		p := t.pending[t.head]
		t.head++
		t.planRoute(now, p)
	}
	t.trim()
	if len(t.ops) == 0 && len(t.pending) == 0 && len(t.changed) == 0 && t.sweep && !t.hold {
		t.planSweep(now)
	}
	return t.ops
}

// Pending tells whether Plan has something to do now.
func (t *Table) Pending() bool {
	return len(t.ops) == 0 &&
		(t.head < len(t.pending) || len(t.changed) > 0 || len(t.probes) > 0 || t.sweep && !t.hold)
}

// trim gives back what the queue does not need: under a churn that never lets it run
// empty it would grow for good, and a burst of a million must not cost memory for good.
func (t *Table) trim() {
	switch {
	case t.head == len(t.pending):
		t.pending, t.head = t.pending[:0], 0
		if cap(t.pending) > 1<<16 {
			t.pending = nil
		}
	case t.head >= 1<<12 && t.head >= len(t.pending)/2:
		t.pending = t.pending[:copy(t.pending, t.pending[t.head:])]
		t.head = 0
	}
}

// planChanged writes the groups in the kernel whose legs changed.
func (t *Table) planChanged(now time.Time) {
	shrinking := t.planShrink()
	waiting := t.changed[:0]
	for _, g := range t.changed {
		g.queued = false
		if !g.inKernel || len(g.want) == 0 || slices.Equal(g.want, g.legs) {
			continue
		}
		if shrinking[g] {
			g.queued = true
			waiting = append(waiting, g) // looked at again once the next hops are gone
			continue
		}
		if t.classic {
			// Without kernel object the routes move one by one.
			g.vacated, g.heir = true, &group{inKernel: true, legs: g.legs}
			t.groups = append(t.groups, g.heir)
			t.vacated = true
			g.legs = g.want
			continue
		}
		if f := g.failure; f.waits(now) && f.Op != GroupDel {
			continue // RetryDue queues it
		}
		if hops, ids, ok := t.hopsOf(g, netip.Prefix{}); ok {
			t.emit(Op{Kind: GroupReplace, ID: g.id, Members: ids}, step{group: g, legs: g.want, members: hops})
		} else {
			g.queued = true
			waiting = append(waiting, g)
		}
	}
	t.changed = waiting
	t.rehouse()
}

// planShrink deletes, in compat mode, the next hops that no group wants any more and that
// leave every group with at least one other: the kernel takes a deleted next hop out of
// all groups in a fraction of a millisecond, and does not tell each of their routes. It
// returns the groups that this changes. An emptied group would take its routes with it.
func (t *Table) planShrink() map[*group]bool {
	if !t.compat || t.classic || len(t.changed) == 0 {
		return nil
	}
	wanted := make(map[Leg]bool)
	for _, g := range t.groups {
		for _, l := range g.want {
			wanted[l] = true
		}
	}
	stays := func(l Leg) bool { return wanted[l] }
	keep := make(map[Leg]bool) // not wanted, but the last of a group
	for _, g := range t.groups {
		if g.inKernel && !slices.ContainsFunc(g.legs, stays) {
			for _, l := range g.legs {
				keep[l] = true
			}
		}
	}
	shrinking := make(map[*group]bool)
	doomed := make(map[*hop]bool)
	for _, g := range t.changed {
		for _, h := range g.members {
			if !wanted[h.leg] && !keep[h.leg] && h.inKernel && t.hops[h.leg] == h {
				shrinking[g], doomed[h] = true, true
			}
		}
	}
	for id, h := range t.hopIDs {
		if doomed[h] {
			t.emit(Op{Kind: NextHopDel, ID: id}, step{hop: h})
		}
	}
	return shrinking
}

// shrink takes a next hop that was deleted out of the groups that had it.
func (t *Table) shrink(h *hop) {
	if h.refs == 0 {
		return
	}
	for _, g := range t.groups {
		if slices.Contains(g.members, h) {
			g.members = slices.DeleteFunc(slices.Clone(g.members), func(m *hop) bool { return m == h })
			g.legs = slices.DeleteFunc(slices.Clone(g.legs), func(l Leg) bool { return l == h.leg })
			t.queueGroup(g)
		}
	}
	h.refs = 0
}

// Moves tells what the present Plan moves without touching a route: how many groups it
// rewrites, and how many routes name them.
func (t *Table) Moves() (groups, routes int) {
	seen := make(map[*group]bool)
	count := func(g *group) {
		if !seen[g] {
			seen[g] = true
			groups++
			routes += g.routes
		}
	}
	for i := range t.ops {
		switch s := &t.steps[i]; t.ops[i].Kind {
		case GroupReplace:
			count(s.group)
		case NextHopDel:
			for _, g := range t.groups {
				if s.hop.refs > 0 && slices.Contains(g.members, s.hop) {
					count(g)
				}
			}
		}
	}
	return groups, routes
}

// rehouse moves the routes of vacated groups to their heirs, in one walk over all.
func (t *Table) rehouse() {
	if !t.vacated {
		return
	}
	t.vacated = false
	for p, r := range t.routes {
		if g := r.have; g != nil && g.vacated {
			t.setHave(r, g.heir)
			t.touch(p, r)
		}
	}
	for _, g := range t.groups {
		g.vacated, g.heir = false, nil
	}
}

func (t *Table) planRoute(now time.Time, p netip.Prefix) {
	r := t.routes[p]
	if r == nil {
		return
	}
	r.queued = false
	if t.inSync(r) {
		t.touch(p, r)
		return
	}
	if r.blocked() != nil {
		delete(t.failures, p)
		return // neither written nor deleted until the kernel takes a leg of its group
	}
	if f := t.failures[p]; f.waits(now) && f.Op >= RouteAdd {
		return // RetryDue queues it
	}
	g := r.target()
	if g == nil {
		t.emit(Op{Kind: RouteDel, Prefix: p}, step{prefix: p, route: r})
		return
	}
	if !g.inKernel {
		if c := t.byKey[g.key]; c != nil && c.inKernel {
			g = c // forwards alike
		}
	}
	if !g.inKernel {
		if g.failure.waits(now) {
			t.failures[p] = g.failure
			t.refuse(p, r, true)
			t.retry(g.failure)
			return
		}
		if !t.addGroup(g, p) {
			r.queued = true
			t.pending = append(t.pending, p)
			return
		}
	}
	kind := RouteReplace
	if r.have == nil {
		kind = RouteAdd
	}
	op := Op{Kind: kind, Prefix: p, ID: g.id}
	if t.classic {
		op.Legs = g.legs
	}
	t.emit(op, step{prefix: p, route: r, group: g})
}

// addGroup emits what brings a group into the kernel, and tells whether it is there.
func (t *Table) addGroup(g *group, p netip.Prefix) bool {
	if t.classic {
		g.inKernel, g.legs = true, g.want
		return true
	}
	if g.id != 0 {
		return false // under way
	}
	if hops, ids, ok := t.hopsOf(g, p); ok {
		g.id = t.newID()
		t.byID[g.id] = g
		t.emit(Op{Kind: GroupAdd, ID: g.id, Members: ids}, step{group: g, prefix: p, legs: g.want, members: hops})
	}
	return false
}

// hopsOf returns the next hops of a group's wanted legs and their ids, ascending. It is
// not ok when some are not in the kernel yet, and emits those.
func (t *Table) hopsOf(g *group, p netip.Prefix) (hops []*hop, ids []uint32, ok bool) {
	ok = true
	hops = make([]*hop, len(g.want))
	ids = make([]uint32, len(g.want))
	for i, l := range g.want {
		h := t.hops[l]
		if h == nil {
			h = t.addHop(l, p)
		}
		ok = ok && h.inKernel
		hops[i], ids[i] = h, h.id
	}
	slices.Sort(ids)
	return hops, ids, ok
}

func (t *Table) addHop(l Leg, p netip.Prefix) *hop {
	h := &hop{leg: l, id: t.newID()}
	t.hops[l], t.hopIDs[h.id] = h, h
	t.emit(Op{Kind: NextHopAdd, ID: h.id, Leg: l}, step{hop: h, prefix: p})
	return h
}

// planSweep emits the deletion of the groups and next hops that nothing uses. A next hop
// outlives its groups by a cycle, since the deletion of a group may be refused.
func (t *Table) planSweep(now time.Time) {
	t.sweep = false
	for _, g := range t.groups {
		switch {
		case g.routes > 0 || g.users > 0 && len(g.want) > 0:
		case g.id == 0 && g.users == 0:
			t.discard(g)
		case g.id == 0: // unreachable
		case g.failure == nil || g.failure.Op != GroupDel || !g.failure.waits(now):
			t.emit(Op{Kind: GroupDel, ID: g.id}, step{group: g})
		}
	}
	t.compact()
	for id, h := range t.hopIDs {
		if h.refs == 0 && !h.failure.waits(now) {
			t.emit(Op{Kind: NextHopDel, ID: id}, step{hop: h})
		}
	}
}

// discard forgets a group that is not, or no more, in the kernel; compact must follow.
func (t *Table) discard(g *group) {
	t.forget(g)
	if g.users > 0 {
		return // it is wanted again once a next hop of it can be used
	}
	if t.byKey[g.key] == g {
		delete(t.byKey, g.key)
	}
	g.key, g.vias, g.gone, t.gone = "", nil, true, true
}

// compact drops discarded groups from the list of all.
func (t *Table) compact() {
	if !t.gone {
		return
	}
	t.gone = false
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool { return g.gone })
	for _, g := range t.groups {
		if g.key != "" && t.byKey[g.key] == nil {
			t.byKey[g.key] = g // it had a twin
		}
	}
}

func (t *Table) emit(op Op, s step) {
	t.ops = append(t.ops, op)
	t.steps = append(t.steps, s)
}

func (t *Table) newID() uint32 {
	for {
		t.lastID++
		if !t.owner.OwnsID(t.lastID) {
			t.lastID = t.owner.FirstID
		}
		id := t.lastID
		if t.byID[id] == nil && t.hopIDs[id] == nil && !t.taken[id] {
			return id
		}
	}
}
