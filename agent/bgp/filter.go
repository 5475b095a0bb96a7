package bgp

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
)

// This file says the peers' filters in GoBGP's words. What is imported is decided by the
// agent for the kernel and here for the other peers: the same rules, and a test compares
// the two over random rules and paths (docs/adr/0011).
//
// GoBGP's policy has no "first match wins, then go on": a statement that accepts ends
// everything. So a rule that accepts is written once for each of the endings that an
// announcement to the peer may have.

// ending is how a path that a filter accepts goes on.
type ending struct {
	family    policy.Family // "": both
	routeType api.Conditions_RouteType
	nextHop   *api.NexthopAction
	reject    bool // no next hop that the peer could use
}

// exportEndings are what the general statements of exports come to for one peer.
func (s *Speaker) exportEndings(p *peer) []ending {
	var list []ending
	for _, g := range s.otherFamily() {
		for _, addr := range g.peers {
			if addr == p.info.Address {
				e := ending{family: policy.IPv6, routeType: g.routeType(), reject: true}
				if addr.Is6() {
					e.family = policy.IPv4
				}
				if g.nextHop.IsValid() {
					e.nextHop, e.reject = &api.NexthopAction{Address: g.nextHop.String()}, false
				}
				list = append(list, e)
			}
		}
	}
	if p.cfg.NextHop == config.NextHopSelf {
		list = append(list, ending{routeType: api.Conditions_ROUTE_TYPE_EXTERNAL})
	}
	return append(list, ending{nextHop: &api.NexthopAction{Unchanged: true}})
}

// filters says the filters of all peers in one direction.
func (s *Speaker) filters(b *policyBuilder, direction string, of func(config.Peer) *policy.Filter, endings func(*peer) []ending) []*api.Statement {
	var list []*api.Statement
	for _, addr := range s.sortedPeers() {
		p := s.peers[addr]
		f := of(p.cfg)
		if f == nil {
			continue
		}
		w := filterWriter{b: b, name: direction + "-" + addr.String(), neighbors: b.neighbors([]netip.Addr{addr}), mark: s.mark, drained: s.drained && direction == exportPolicy}
		for i := range f.Rules {
			w.rule(&f.Rules[i], endings(p))
		}
		if f.Default == policy.Reject {
			w.add(&api.Conditions{NeighborSet: w.peer()}, reject())
		}
		list = append(list, w.list...)
	}
	return list
}

// filterWriter writes the statements of one peer's filter.
type filterWriter struct {
	b         *policyBuilder
	name      string
	neighbors string
	mark      [3]uint32
	drained   bool
	marks     uint32
	list      []*api.Statement
}

func (w *filterWriter) peer() *api.MatchSet {
	return &api.MatchSet{Name: w.neighbors, Type: api.MatchSet_TYPE_ANY}
}

func (w *filterWriter) add(c *api.Conditions, a *api.Actions) {
	w.list = append(w.list, &api.Statement{Name: fmt.Sprintf("%s-%d", w.name, len(w.list)), Conditions: c, Actions: a})
}

// rule writes one rule: a statement for each family where prefixes or a next hop make a
// difference, each alternative for the AS path, and each ending.
func (w *filterWriter) rule(r *policy.Rule, endings []ending) {
	families := []policy.Family{r.Match.Family}
	if r.Match.Family == "" && (len(r.Match.Prefixes.List()) > 0 || r.Set.NextHop.IsValid()) {
		families = []policy.Family{policy.IPv4, policy.IPv6}
	}
	paths := w.asPaths(r.Match.ASPaths)
	for _, f := range families {
		base, some := w.conditions(r, f)
		if !some {
			continue
		}
		for _, p := range paths {
			c := proto.Clone(base).(*api.Conditions)
			c.AsPathSet, c.AsPathLength = p.set, p.length
			if r.Action == policy.Reject {
				w.add(c, reject())
				continue
			}
			for _, e := range endings {
				w.accept(c, f, r, e)
			}
		}
	}
}

// conditions are those of a rule for a family, but for the AS path; some is false where
// no prefix of the family matches.
func (w *filterWriter) conditions(r *policy.Rule, f policy.Family) (c *api.Conditions, some bool) {
	c = &api.Conditions{NeighborSet: w.peer(), AfiSafiIn: families(f)}
	if ranges := r.Match.Prefixes.List(); len(ranges) > 0 {
		var list []*api.Prefix
		for _, x := range ranges {
			if f.Has(x.Prefix) {
				list = append(list, &api.Prefix{IpPrefix: x.Prefix.String(), MaskLengthMin: uint32(x.Min), MaskLengthMax: uint32(x.Max)})
			}
		}
		if len(list) == 0 {
			return nil, false
		}
		c.PrefixSet = w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Prefixes: list})
	}
	var texts []string
	for _, x := range r.Match.Communities {
		texts = append(texts, x.Regexp())
	}
	if len(texts) > 0 {
		c.CommunitySet = w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, List: texts})
	}
	texts = nil
	for _, x := range r.Match.Large {
		texts = append(texts, x.Regexp())
	}
	if len(texts) > 0 {
		c.LargeCommunitySet = w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, List: texts})
	}
	for _, n := range r.Match.NextHops {
		c.NextHopInList = append(c.NextHopInList, n.String())
	}
	return c, true
}

// set adds a set, of which any member is to match.
func (w *filterWriter) set(s *api.DefinedSet) *api.MatchSet {
	s.Name = fmt.Sprintf("%s-set-%d", w.name, len(w.b.sets))
	w.b.sets = append(w.b.sets, s)
	return &api.MatchSet{Name: s.Name, Type: api.MatchSet_TYPE_ANY}
}

func families(f policy.Family) []*api.Family {
	switch f {
	case policy.IPv4:
		return []*api.Family{apiIPv4}
	case policy.IPv6:
		return []*api.Family{apiIPv6}
	}
	return nil
}

// pathConditions are those that an AS path must meet together.
type pathConditions struct {
	set    *api.MatchSet
	length *api.AsPathLength
}

// asPaths are the alternatives. Plain expressions share a set.
func (w *filterWriter) asPaths(patterns []policy.Pattern) []pathConditions {
	if len(patterns) == 0 {
		return []pathConditions{{}}
	}
	var list []pathConditions
	var plain []string
	for _, p := range patterns {
		expressions := p.Expressions()
		if len(expressions) == 1 && p.Length.Op == "" {
			plain = append(plain, expressions[0])
			continue
		}
		var c pathConditions
		if len(expressions) > 0 {
			c.set = w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_AS_PATH, List: expressions})
			c.set.Type = api.MatchSet_TYPE_ALL
		}
		if p.Length.Op != "" {
			c.length = &api.AsPathLength{Length: uint32(p.Length.N), Type: map[string]api.Comparison{
				"eq": api.Comparison_COMPARISON_EQ, "ge": api.Comparison_COMPARISON_GE, "le": api.Comparison_COMPARISON_LE,
			}[p.Length.Op]}
		}
		list = append(list, c)
	}
	if len(plain) > 0 {
		list = append(list, pathConditions{set: w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_AS_PATH, List: plain})})
	}
	return list
}

// accept writes a rule that accepts, with one of the endings.
func (w *filterWriter) accept(base *api.Conditions, f policy.Family, r *policy.Rule, e ending) {
	if f != "" && e.family != "" && f != e.family {
		return
	}
	c := proto.Clone(base).(*api.Conditions)
	if e.family != "" {
		c.AfiSafiIn = families(e.family)
	}
	c.RouteType = e.routeType
	a := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT, Nexthop: e.nextHop}
	if h := r.Set.NextHop; h.IsValid() && (f == policy.IPv4) == h.Is4() {
		a.Nexthop = &api.NexthopAction{Address: h.String()}
	} else if e.reject {
		w.add(c, reject())
		return
	}
	if r.Set.LocalPref != 0 {
		a.LocalPref = &api.LocalPrefAction{Value: r.Set.LocalPref}
	}
	if r.Set.HasMED {
		a.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(r.Set.MED)}
	}
	if r.Set.Prepend > 0 {
		a.AsPrepend = &api.AsPrependAction{UseLeftMost: true, Repeat: uint32(r.Set.Prepend)}
	}
	var add, remove, addLarge, removeLarge []string
	for _, x := range r.Set.Add {
		add = append(add, x.String())
	}
	for _, x := range r.Set.Remove {
		remove = append(remove, x.Regexp())
	}
	for _, x := range r.Set.AddLarge {
		addLarge = append(addLarge, x.String())
	}
	for _, x := range r.Set.RemoveLarge {
		removeLarge = append(removeLarge, x.RegexpBut(w.mark[1]))
	}
	if w.drained {
		add = append(add, gracefulShutdown)
	}
	both := len(add) > 0 && len(remove) > 0 || len(addLarge) > 0 && len(removeLarge) > 0
	if !both {
		a.Community, a.LargeCommunity = communities(add, remove), communities(addLarge, removeLarge)
		w.add(c, a)
		return
	}
	w.marked(c, a, add, remove, addLarge, removeLarge)
}

// communities is the action of one list; the other must be empty.
func communities(add, remove []string) *api.CommunityAction {
	switch {
	case len(add) > 0:
		return &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: add}
	case len(remove) > 0:
		return &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: remove}
	}
	return nil
}

// marked removes communities and then adds some. A statement can do one of the two, and
// the conditions may not hold any more after the first: so the first only marks the path,
// with a large community that the last takes away. Nobody else has it: a peer that could
// put it on its paths would pass the filter.
func (w *filterWriter) marked(c *api.Conditions, a *api.Actions, add, remove, addLarge, removeLarge []string) {
	w.marks++
	mark := fmt.Sprintf("%d:%d:%d", w.mark[0], w.mark[1], w.mark[2]+w.marks)
	one := []string{"^" + mark + "$"}
	w.add(c, &api.Actions{LargeCommunity: communities([]string{mark}, nil)})
	marked := &api.Conditions{
		NeighborSet:       w.peer(),
		LargeCommunitySet: w.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, List: one}),
	}
	w.add(marked, &api.Actions{Community: communities(nil, remove), LargeCommunity: communities(nil, removeLarge)})
	w.add(marked, &api.Actions{Community: communities(add, nil), LargeCommunity: communities(addLarge, nil)})
	a.LargeCommunity = communities(nil, one)
	w.add(marked, a)
}

// newMark makes the large community that marked uses; its middle has ten digits.
func newMark() [3]uint32 {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	const least = 4_000_000_000
	return [3]uint32{
		math.MaxUint32,
		least + binary.BigEndian.Uint32(random[:])%(math.MaxUint32-least),
		binary.BigEndian.Uint32(random[4:]) / 2,
	}
}

// comingUp is how long a filter waits for sessions that come up, see missed.
const comingUp = time.Second

// refilter applies the import filter of a peer to what it announced before. No session is
// reset and no message goes to the peer itself.
func (s *Speaker) refilter(p *peer) error {
	addr := p.info.Address
	for deadline := time.Now().Add(comingUp); len(s.mayMiss(p)) > 0 && time.Now().Before(deadline) && s.ctx.Err() == nil; {
		time.Sleep(storeAfter / 10)
	}
	s.mu.Lock()
	for _, q := range s.mayMissLocked(p) {
		q.missed.overflow = true
	}
	p.lastUpdate = time.Now()
	s.mu.Unlock()
	err := s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{
		Address:   addr.String(),
		Soft:      true,
		Direction: api.ResetPeerRequest_DIRECTION_IN,
	})
	if err != nil {
		return fmt.Errorf("apply the import filter of %s: %w", addr, err)
	}
	return nil
}

// mayMiss are the peers that would not hear now of what another withdraws.
func (s *Speaker) mayMiss(p *peer) []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mayMissLocked(p)
}

func (s *Speaker) mayMissLocked(p *peer) (list []*peer) {
	for _, q := range s.peers {
		if q != p && q.missed != nil && (q.info.State != Established || time.Since(q.info.EstablishedAt) < storeAfter) {
			list = append(list, q)
		}
	}
	return list
}
