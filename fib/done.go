package fib

import (
	"net/netip"
	"time"
)

// Done takes the outcome of the last Plan. refused is what Kernel.Apply returned, in
// order. It returns the prefixes that could not be written, for whoever reports it; of
// those that wait for the same group or next hop, one.
func (t *Table) Done(now time.Time, refused []OpError) (failed []netip.Prefix) {
	for i := range t.ops {
		var err *OpError
		if len(refused) > 0 && refused[0].Index == i {
			err = &refused[0]
			refused = refused[1:]
		}
		op, s := &t.ops[i], &t.steps[i]
		ok := true
		switch op.Kind {
		case NextHopAdd:
			ok = t.doneHop(now, s.hop, err)
		case GroupAdd, GroupReplace:
			ok = t.doneGroup(now, op, s, err)
		case RouteAdd, RouteReplace:
			ok = t.doneRoute(now, op, s, err)
		case RouteDel:
			if ok = err == nil || err.Errno == esrch; ok { // ESRCH: it was gone already
				t.setHave(s.route, nil)
				t.touch(s.prefix, s.route)
			} else {
				t.fail(now, s.prefix, op.Kind, *err)
			}
		case GroupDel:
			if err == nil || err.Errno == enoent {
				t.discard(s.group)
			} else {
				s.group.failure = t.again(s.group.failure, now, op.Kind, *err)
			}
		case NextHopDel:
			if err == nil || err.Errno == enoent {
				t.shrink(s.hop)
				t.forgetHop(s.hop)
			} else {
				s.hop.failure = t.again(s.hop.failure, now, op.Kind, *err)
			}
		}
		if !ok && s.prefix.IsValid() {
			failed = append(failed, s.prefix)
		}
	}
	t.compact()
	t.rehouse()
	if t.legsNews {
		t.legsNews = false
		t.recompute(nil)
	}
	clear(t.steps) // they must not keep groups alive
	t.ops, t.steps = t.ops[:0], t.steps[:0]
	if cap(t.ops) > 1<<16 {
		t.ops, t.steps = nil, nil
	}
	return failed
}

// manyIDs taken in a row are no coincidence: from then on there is a back-off.
const manyIDs = 16

func (t *Table) doneHop(now time.Time, h *hop, err *OpError) (ok bool) {
	f := t.bad[h.leg]
	if err == nil {
		h.inKernel = true
		t.clashes = 0
		t.sweep = true // in case its group is refused
		if f != nil {
			t.takes(h.leg)
			t.legsNews = true
		}
		return true
	}
	t.forgetHop(h)
	if err.Errno == eexist {
		t.taken[h.id] = true
		if t.clashes++; t.clashes < manyIDs {
			if f != nil {
				t.probe(h.leg)
			}
			return true // with another id, at once
		}
	}
	// Only this leg is left out, or else one peer's impossible next hop would take the
	// prefix from the others, too.
	t.bad[h.leg] = t.again(f, now, NextHopAdd, *err)
	t.refusalGen++
	t.legsNews = true
	return false
}

func (t *Table) forgetHop(h *hop) {
	delete(t.hopIDs, h.id)
	if t.hops[h.leg] == h {
		delete(t.hops, h.leg)
	}
}

func (t *Table) doneGroup(now time.Time, op *Op, s *step, err *OpError) (ok bool) {
	g := s.group
	if err == nil {
		g.inKernel, g.failure = true, nil
		t.clashes = 0
		for _, h := range s.members {
			h.refs++
		}
		t.unref(g)
		g.legs, g.members = s.legs, s.members
		return true
	}
	t.sweep = true // next hops made for it may be of no use
	if op.Kind == GroupAdd {
		t.forget(g)
	}
	switch {
	case op.Kind == GroupAdd && err.Errno == eexist:
		t.taken[op.ID] = true
		if t.clashes++; t.clashes < manyIDs {
			return true // with another id, at once
		}
	case op.Kind == GroupReplace && err.Errno == enoent:
		// The kernel deletes an emptied group without a word when a link goes down, and
		// the routes that named it. (A missing member would be EINVAL: net/ipv4/nexthop.c,
		// nh_check_attr_group.)
		t.forget(g)
		g.failure = nil
		g.vacated, g.heir, t.vacated = true, nil, true
		return true
	case err.Errno == einval:
		t.suspect = true // a member is not there
	}
	g.failure = t.again(g.failure, now, op.Kind, *err)
	return false
}

// forget notes that the group is not in the kernel.
func (t *Table) forget(g *group) {
	t.unref(g)
	if t.byID[g.id] == g {
		delete(t.byID, g.id)
	}
	g.inKernel, g.id, g.legs, g.members = false, 0, nil, nil
}

func (t *Table) unref(g *group) {
	for _, h := range g.members {
		h.refs--
		t.sweep = t.sweep || h.refs == 0
	}
	g.members = nil
}

func (t *Table) doneRoute(now time.Time, op *Op, s *step, err *OpError) (ok bool) {
	r := s.route
	if err == nil {
		delete(t.failures, s.prefix)
		t.adopt(r, false)
		r.lost = false
		t.setHave(r, s.group)
		t.touch(s.prefix, r)
		return true
	}
	switch {
	case op.Kind == RouteReplace && (err.Errno == enoent || err.Errno == esrch):
		// Ours vanished behind our back: make it anew.
		t.setHave(r, nil)
		t.touch(s.prefix, r)
		return true
	case op.Kind == RouteAdd && err.Errno == eexist:
		t.suspect = t.suspect || r.lost
		r.lost = false
	case err.Errno == einval && op.ID != 0:
		// Its group may not be there. Once: a Load has told by the second time.
		f := t.failures[s.prefix]
		t.suspect = t.suspect || f == nil || f.Op != op.Kind
	}
	t.refuse(s.prefix, r, true)
	t.fail(now, s.prefix, op.Kind, *err)
	return false
}

func (t *Table) fail(now time.Time, p netip.Prefix, kind OpKind, err OpError) {
	t.failures[p] = t.again(t.failures[p], now, kind, err)
}

// again counts a failure on, with exponential back-off.
func (t *Table) again(f *Failure, now time.Time, kind OpKind, err OpError) *Failure {
	n := 1
	if f != nil && f.Op == kind {
		n = f.Attempts + 1
	}
	wait := retryMost
	if n < 9 && !(kind == RouteAdd && err.Errno == eexist) {
		wait = min(retryFirst<<(n-1), retryMost)
	}
	next := &Failure{Op: kind, Err: err, At: now, Attempts: n, Retry: now.Add(wait)}
	t.retry(next)
	return next
}
