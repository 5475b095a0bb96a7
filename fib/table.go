package fib

import (
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

const (
	eexist = syscall.EEXIST
	einval = syscall.EINVAL
	enoent = syscall.ENOENT
	esrch  = syscall.ESRCH
)

// Back-off of refused writes. A foreign route in the way is watched for by events;
// the retry is only the net under them.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
)

// Table holds what the kernel should have and what it has, and plans the writes that
// turn the one into the other. The kernel is the truth: Load replaces every belief.
//
// A cycle is Plan, Kernel.Apply, Done, with no other call in between. It is
// level-triggered: whatever was set since the last Plan costs at most one write per
// route. Where Apply cannot tell the outcome, Load takes the place of Done. Not safe
// for concurrent use.
type Table struct {
	owner    Owner
	classic  bool
	compat   bool
	maxPaths int

	states  []SourceState // by Source; missing: up
	resolve func(netip.Addr) Resolution

	byKey  map[string]*group
	byID   map[uint32]*group // groups in the kernel
	groups []*group          // all
	hops   map[Leg]*hop      // the one to use for a leg
	hopIDs map[uint32]*hop   // next hops in the kernel, by id
	bad    map[Leg]*Failure  // legs that the kernel refuses as next hop
	avoid  map[Leg]bool      // legs not to be used while there are others
	lastID uint32
	taken  map[uint32]bool // ids of ours that the kernel said belong to somebody

	routes   map[netip.Prefix]*route
	failures map[netip.Prefix]*Failure
	pending  []netip.Prefix // queue of routes to look at
	head     int            // of pending
	changed  []*group       // groups whose legs are to be rewritten
	probes   []Leg          // of bad: to be tried again
	present  int            // routes of ours in the kernel
	adopted  int            // of those, found during a hold and not confirmed yet
	hold     bool
	sweep    bool      // unused groups or next hops may exist
	retryAt  time.Time // nothing refused is due before; zero: nothing waits

	ops      []Op // of the cycle under way
	steps    []step
	clashes  int    // ids in a row that were taken
	legsNews bool   // bad changed: the groups are to be computed again
	vacated  bool   // some group is
	gone     bool   // some group was deleted
	key      []byte // scratch

	suspect bool // a refusal says that our beliefs are wrong: Load is due

	news       []netip.Prefix // routes that became refused, or are no more
	refusalGen uint64         // counts the changes of bad
}

type route struct {
	want *group // what it should use; nil: it should not be there
	have *group // what the kernel's route names; nil: it is not there
	// adopted: found in the kernel during a hold, and not confirmed by a peer yet. After it,
	// nothing but a route that Release kept is.
	adopted bool
	queued  bool
	lost    bool // somebody did something to it (Lost), and it is not written since
	refused bool // the kernel refused it, and it is not in order since
}

// Options of a Table.
type Options struct {
	Owner    Owner
	Classic  bool // the kernel has no next-hop objects: routes carry their legs
	MaxPaths int  // legs per route; 1 or more
	// Hold: routes found by Load that no peer has confirmed are neither changed nor
	// deleted until Release (selection deferral, RFC 4724 section 4.1).
	Hold bool
	// Compat: net.ipv4.nexthop_compat_mode is on, and the replacement of a group costs the
	// kernel a notification for each of its routes. Where deleting a next hop does the
	// same to the groups that hold it, that is done instead.
	Compat bool
}

// NewTable returns an empty table. Until SetResolver, nothing resolves.
func NewTable(o Options) *Table {
	return &Table{
		owner:    o.Owner,
		classic:  o.Classic,
		maxPaths: max(o.MaxPaths, 1),
		hold:     o.Hold,
		compat:   o.Compat,
		resolve:  func(netip.Addr) Resolution { return Resolution{Why: Unreachable} },
		byKey:    make(map[string]*group),
		byID:     make(map[uint32]*group),
		hops:     make(map[Leg]*hop),
		hopIDs:   make(map[uint32]*hop),
		bad:      make(map[Leg]*Failure),
		lastID:   o.Owner.FirstID,
		taken:    make(map[uint32]bool),
		routes:   make(map[netip.Prefix]*route),
		failures: make(map[netip.Prefix]*Failure),
	}
}

// Set says how prefix should be forwarded: vias sorted by tier, next hop and source,
// tiers numbered from 0 without gaps. No vias: it should not be in the table.
// The slice is not kept.
func (t *Table) Set(prefix netip.Prefix, vias []Via) {
	r := t.routes[prefix]
	if len(vias) == 0 {
		if r != nil && r.want != nil {
			t.want(prefix, r, nil)
		}
		return
	}
	t.key = appendKey(t.key[:0], vias)
	g := t.byKey[string(t.key)]
	if g == nil {
		g = &group{key: string(t.key), vias: slices.Clone(vias)}
		g.pick = t.choose(g.vias)
		t.byKey[g.key] = g
		t.groups = append(t.groups, g)
	}
	if r == nil {
		r = &route{}
		t.routes[prefix] = r
	}
	if r.want == nil || r.want != g && r.want.key != g.key {
		t.want(prefix, r, g)
	}
}

func (t *Table) want(prefix netip.Prefix, r *route, g *group) {
	t.setWant(r, g)
	delete(t.failures, prefix) // of another write: the new one may start at once
	t.touch(prefix, r)
}

func (t *Table) setWant(r *route, g *group) {
	if r.want != nil {
		r.want.users--
		t.sweep = t.sweep || r.want.users == 0
	}
	if g != nil {
		g.users++
	}
	r.want = g
}

// setHave notes what the kernel has.
func (t *Table) setHave(r *route, g *group) {
	if r.have != nil {
		r.have.routes--
		t.present--
		t.sweep = t.sweep || r.have.routes == 0
	}
	if g != nil {
		g.routes++
		t.present++
	} else {
		t.adopt(r, false) // nothing is left to be held
	}
	r.have = g
}

func (t *Table) adopt(r *route, adopted bool) {
	switch {
	case adopted && !r.adopted:
		t.adopted++
	case !adopted && r.adopted:
		t.adopted--
	}
	r.adopted = adopted
}

// touch queues a route that differs from the kernel's, and lets go of one that is gone.
func (t *Table) touch(prefix netip.Prefix, r *route) {
	t.claim(r)
	if t.inSync(r) {
		t.refuse(prefix, r, false)
		if r.want != nil {
			t.adopt(r, false)
			if r.have != nil && r.have != r.want {
				t.setWant(r, r.have) // its twin is of no use to this route
			}
		}
		delete(t.failures, prefix)
		if r.want == nil && r.have == nil && !r.queued {
			delete(t.routes, prefix)
		}
		return
	}
	if r.adopted && (t.hold || r.excess()) {
		return // Release looks at it again
	}
	t.adopt(r, false) // somebody wants it: what it is now is no concern any more
	if !r.queued {
		r.queued = true
		t.pending = append(t.pending, prefix)
	}
}

// refuse notes whether the kernel refuses the route. What is only waiting to be written
// stays as it was.
func (t *Table) refuse(prefix netip.Prefix, r *route, refused bool) {
	if r.refused != refused {
		r.refused = refused
		t.news = append(t.news, prefix)
	}
}

// Refused tells whether the kernel refused the route for prefix, a foreign one in its way
// included, and has taken none since.
func (t *Table) Refused(prefix netip.Prefix) bool {
	r := t.routes[prefix]
	return r != nil && r.refused
}

// Installed tells whether the kernel has a route of ours for prefix.
func (t *Table) Installed(prefix netip.Prefix) bool {
	r := t.routes[prefix]
	return r != nil && r.have != nil
}

// RefusalNews returns the prefixes whose Refused changed since it was last called.
func (t *Table) RefusalNews() []netip.Prefix {
	news := t.news
	t.news = nil
	return news
}

// RefusesNextHop tells whether the kernel takes none of the legs that a next hop
// resolves to. RefusalGen is another number whenever that may have changed.
func (t *Table) RefusesNextHop(nh netip.Addr) bool {
	if len(t.bad) == 0 {
		return false
	}
	legs := t.resolve(nh).Legs
	return len(legs) > 0 && !slices.ContainsFunc(legs, func(l Leg) bool { return t.bad[l] == nil })
}

// RefusalGen counts the changes of what RefusesNextHop goes by.
func (t *Table) RefusalGen() uint64 { return t.refusalGen }

// claim gives an unclaimed group of the kernel to the ranking that its route wants, where
// that has the very legs: adopted routes then need no write. It goes by the route, not by
// the legs alone, because several rankings may have the same legs at present. In classic
// mode, a route that carries the right legs is right.
func (t *Table) claim(r *route) {
	g, k := r.target(), r.have
	if g == nil || k == nil || g == k || !slices.Equal(k.legs, g.want) {
		return
	}
	if t.classic {
		if !g.inKernel {
			g.inKernel, g.legs = true, g.want
		}
		if k.id == 0 && slices.Equal(g.legs, g.want) {
			t.setHave(r, g)
		}
		return
	}
	if k.key != "" || !k.inKernel || k.id == 0 {
		return
	}
	k.key, k.vias, k.pick = g.key, g.vias, g.pick
	if c := t.byKey[g.key]; c == nil || !c.inKernel {
		t.byKey[g.key] = k
	}
	t.setWant(r, k)
}

// target is the group the kernel's route should name, or nil where there should be none.
func (r *route) target() *group {
	if r.want == nil || len(r.want.want) == 0 {
		return nil
	}
	return r.want
}

// blocked is why the route can be neither written nor deleted.
func (r *route) blocked() *Failure {
	if r.want == nil {
		return nil
	}
	return r.want.blocked()
}

func (t *Table) inSync(r *route) bool {
	g := r.target()
	if g == nil || r.have == nil {
		return g == r.have
	}
	return g == r.have || g.key == r.have.key
}

// State returns the state of a source.
func (t *Table) State(s Source) SourceState {
	if int(s) < len(t.states) {
		return t.states[s]
	}
	return SourceUp
}

// SetSource changes the state of a source and recomputes the groups that hold it;
// the next Plan begins with them.
//
// A source that goes down is also stripped from their rankings: the per-prefix clean-up
// that follows then finds every route in order. So what was Set before has lost that
// source for good; if its offers hold when it comes up again, they must be Set again.
func (t *Table) SetSource(s Source, state SourceState) {
	if t.State(s) == state {
		return
	}
	for int(s) >= len(t.states) {
		t.states = append(t.states, SourceUp)
	}
	t.states[s] = state
	t.recompute(func(g *group) bool {
		if !slices.ContainsFunc(g.vias, func(v Via) bool { return v.Source == s }) {
			return false
		}
		if state == SourceDown {
			t.strip(g, s)
		}
		return true
	})
}

// strip takes a dead source out of a group's ranking. A group of that source alone
// keeps it: its routes are going to be withdrawn.
func (t *Table) strip(g *group, s Source) {
	vias := without(g.vias, s)
	if len(vias) == 0 {
		return
	}
	if t.byKey[g.key] == g {
		delete(t.byKey, g.key)
	}
	t.key = appendKey(t.key[:0], vias)
	g.key, g.vias = string(t.key), vias
	if c := t.byKey[g.key]; c == nil || g.inKernel && !c.inKernel {
		t.byKey[g.key] = g
	}
}

// SetResolver takes a new view of the host's own routes and recomputes every group. A
// next hop that the kernel refused may be right now, so it is tried at once.
func (t *Table) SetResolver(resolve func(netip.Addr) Resolution) {
	t.resolve = resolve
	t.recompute(nil)
	for l := range t.bad {
		if t.needs(l) {
			t.probe(l)
		} else {
			t.takes(l)
		}
	}
}

// takes forgets that the kernel refused a leg.
func (t *Table) takes(l Leg) {
	delete(t.bad, l)
	t.refusalGen++
}

// Avoid says whether a leg should carry no traffic while others can: its neighbour does
// not answer. A leg that nothing uses or wants is no news.
func (t *Table) Avoid(l Leg, avoid bool) {
	if t.avoid[l] == avoid || avoid && !t.needs(l) {
		return
	}
	if avoid {
		if t.avoid == nil {
			t.avoid = make(map[Leg]bool)
		}
		t.avoid[l] = true
	} else {
		delete(t.avoid, l)
	}
	t.recompute(nil)
}

// Legs lists the legs that the rankings lead to, those in reserve too, but for Blackhole.
func (t *Table) Legs() []Leg {
	seen := make(map[Leg]bool)
	for _, g := range t.groups {
		for _, v := range g.vias {
			for _, l := range t.resolve(v.NextHop).Legs {
				seen[l] = true
			}
		}
	}
	delete(seen, Blackhole)
	return slices.SortedFunc(maps.Keys(seen), compareLegs)
}

// Avoids tells whether a leg is being avoided.
func (t *Table) Avoids(l Leg) bool { return t.avoid[l] }

// recompute brings the groups that which selects (nil: all) up to date.
func (t *Table) recompute(which func(*group) bool) {
	flipped := false
	for _, g := range t.groups {
		if g.key == "" || which != nil && !which(g) {
			continue // unclaimed: we do not know what it stands for
		}
		old := g.pick
		g.pick = t.choose(g.vias)
		blocked, was := g.blocked() != nil, old.blocked() != nil
		if slices.Equal(g.want, old.want) && blocked == was {
			continue
		}
		// The routes come or go one by one only where no next hop is left at all, or
		// where they wait together for a group that the kernel refused.
		flip := (len(g.want) == 0) != (len(old.want) == 0) || blocked != was || g.failure != nil && !g.inKernel
		g.failure = nil
		if flip {
			t.sweep = true // it may be of no use in the kernel
			flipped, g.flipped = true, true
		}
		t.queueGroup(g)
	}
	if !flipped {
		return
	}
	for p, r := range t.routes { // once, however many groups flipped
		if r.want != nil && r.want.flipped {
			t.touch(p, r)
		}
	}
	for _, g := range t.groups {
		g.flipped = false
	}
}

func (t *Table) queueGroup(g *group) {
	if g.inKernel && len(g.want) > 0 && !slices.Equal(g.want, g.legs) && !g.queued {
		g.queued = true
		t.changed = append(t.changed, g)
	}
}

// probe queues the trial of a leg that the kernel refused.
func (t *Table) probe(l Leg) {
	if !slices.Contains(t.probes, l) {
		t.probes = append(t.probes, l)
	}
}

// Lost says that somebody deleted or wrote the kernel's route for prefix. The next Plan
// tries to put ours back. Where another route has the key, it is left alone and reported
// as foreign; and because it may yet be ours in another shape, the table is Suspect.
func (t *Table) Lost(prefix netip.Prefix) {
	if r := t.routes[prefix]; r != nil && r.have != nil {
		t.setHave(r, nil)
		r.lost = true
		delete(t.failures, prefix)
		t.touch(prefix, r)
	}
}

// Retry queues a route again whose last write was refused; for a prefix that is in
// order, it does nothing.
func (t *Table) Retry(prefix netip.Prefix) {
	r, f := t.routes[prefix], t.failures[prefix]
	if r == nil || f == nil {
		return
	}
	again := *f // others may share it
	again.Retry = time.Time{}
	t.failures[prefix] = &again
	t.touch(prefix, r)
}

// RetryDue queues everything refused whose time has come, and returns when to call it
// again (zero: nothing waits).
func (t *Table) RetryDue(now time.Time) (next time.Time) {
	if t.retryAt.IsZero() || t.retryAt.After(now) {
		return t.retryAt
	}
	t.retryAt = time.Time{}
	for l, f := range t.bad {
		switch {
		case f.waits(now):
			t.retry(f)
		case t.needs(l):
			t.probe(l)
		default:
			t.takes(l)
		}
	}
	for _, g := range t.groups {
		if f := g.failure; f.waits(now) {
			t.retry(f)
		} else if f != nil {
			t.sweep = true
			t.queueGroup(g)
		}
	}
	for _, h := range t.hopIDs {
		if f := h.failure; f.waits(now) {
			t.retry(f)
		} else if f != nil {
			t.sweep = true
		}
	}
	for p, f := range t.failures {
		if f.waits(now) {
			t.retry(f)
		} else if r := t.routes[p]; r != nil {
			t.touch(p, r)
		}
	}
	return t.retryAt
}

// retry notes when f is due.
func (t *Table) retry(f *Failure) {
	if t.retryAt.IsZero() || f.Retry.Before(t.retryAt) {
		t.retryAt = f.Retry
	}
}

// needs tells whether some ranking leads to the leg.
func (t *Table) needs(l Leg) bool {
	for _, g := range t.groups {
		if slices.ContainsFunc(g.vias, func(v Via) bool { return slices.Contains(t.resolve(v.NextHop).Legs, l) }) {
			return true
		}
	}
	return false
}
