package bgp

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
)

// familyIPv4 and familyIPv6 are IPv4 and IPv6 unicast in GoBGP's global configuration
// (oc.AfiSafiTypeToIntMap).
const (
	familyIPv4 = 0
	familyIPv6 = 1
)

var (
	apiIPv4 = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	apiIPv6 = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

// Names in GoBGP's policy.
const (
	globalRIB    = "global"
	importPolicy = "import"
	exportPolicy = "export"
	setOwnASN    = "own-asn"
	setOddASN    = "as-0-or-own-asn-in-as-set"
	setStay      = "no-advertise-or-no-export"
)

// gracefulShutdown is the well-known community of RFC 8326.
const gracefulShutdown = "65535:0"

// startPolicy installs the policies and assigns them to the global table, which all our
// peers share. GoBGP keeps the assignment when applyPolicy replaces them.
func (s *Speaker) startPolicy() error {
	if _, err := s.applyPolicy(); err != nil {
		return err
	}
	for direction, name := range map[api.PolicyDirection]string{
		api.PolicyDirection_POLICY_DIRECTION_IMPORT: importPolicy,
		api.PolicyDirection_POLICY_DIRECTION_EXPORT: exportPolicy,
	} {
		err := s.server.AddPolicyAssignment(s.ctx, &api.AddPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Name:          globalRIB,
			Direction:     direction,
			Policies:      []*api.Policy{{Name: name}},
			DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		}})
		if err != nil {
			return fmt.Errorf("assign the %s policy: %w", name, err)
		}
	}
	return nil
}

// applyPolicy brings GoBGP's policy in line with the peers, the VNet and branchToBranch.
// What was announced before stays as it is until resend. It is called with op held.
func (s *Speaker) applyPolicy() (changed bool, err error) {
	s.mu.Lock()
	want := s.policies()
	s.mu.Unlock()
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		return false, fmt.Errorf("encode the policy: %w", err)
	}
	if s.policy == string(text) {
		return false, nil
	}
	s.fillWithheld(want)
	if err := s.server.SetPolicies(s.ctx, want); err != nil {
		return false, fmt.Errorf("set the policy: %w", err)
	}
	s.policy = string(text)
	s.recount()
	return true, nil
}

// policies is the complete policy but for the prefixes that are withheld, with op and mu
// held.
func (s *Speaker) policies() *api.SetPoliciesRequest {
	p := &policyBuilder{}
	own := strconv.FormatUint(uint64(s.opts.ASN), 10)
	p.set(api.DefinedType_DEFINED_TYPE_AS_PATH, setOwnASN, "_"+own+"_")
	// The set above is compared as a number with the AS_SEQUENCEs, in which GoBGP puts a 0
	// for every AS_SET (getAsListOfSpecificType). So a path with a 0 is looked at again, with
	// its AS_SETs, by regular expression; "all" spares the other paths that cost.
	p.set(api.DefinedType_DEFINED_TYPE_AS_PATH, setOddASN, "_0_", "_("+own+"|0)_")
	p.set(api.DefinedType_DEFINED_TYPE_COMMUNITY, setStay, "65535:65281", "65535:65282", "65535:65283")

	// S8: our ASN (RFC 4271 section 9.1.2) or AS 0 (RFC 7607) in the path.
	imports := []*api.Statement{{
		Name:       setOwnASN,
		Conditions: &api.Conditions{AsPathSet: &api.MatchSet{Name: setOwnASN, Type: api.MatchSet_TYPE_ANY}},
		Actions:    reject(),
	}, {
		Name:       setOddASN,
		Conditions: &api.Conditions{AsPathSet: &api.MatchSet{Name: setOddASN, Type: api.MatchSet_TYPE_ALL}},
		Actions:    reject(),
	}}
	// First what is never announced: a filter that accepts a path ends the policy.
	imports = append(imports, s.insideStatements(p)...)
	imports = append(imports, s.withheldStatements(p)...)
	imports = append(imports, s.filters(p, importPolicy, func(c config.Peer) *policy.Filter { return c.Import },
		func(*peer) []ending { return []ending{{}} })...)
	return p.request(imports, s.exports(p))
}

func reject() *api.Actions {
	return &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT}
}

// exports says what is announced; the first statement that decides wins.
func (s *Speaker) exports(p *policyBuilder) []*api.Statement {
	accept := func(nh *api.NexthopAction) *api.Actions {
		a := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT, Nexthop: nh}
		if s.drained {
			a.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: []string{gracefulShutdown}}
		}
		return a
	}
	var list []*api.Statement
	if !s.branchToBranch {
		list = append(list, &api.Statement{
			Name:       "branch-to-branch",
			Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_EXTERNAL},
			Actions:    reject(),
		})
	}
	// S30. GoBGP gives the well-known communities of RFC 1997 no meaning. All our peers
	// are external, so that NO_EXPORT and NO_EXPORT_SUBCONFED come to the same here.
	list = append(list, &api.Statement{
		Name:       "no-advertise",
		Conditions: &api.Conditions{CommunitySet: &api.MatchSet{Name: setStay, Type: api.MatchSet_TYPE_ANY}},
		Actions:    reject(),
	})
	list = append(list, s.filters(p, exportPolicy, func(c config.Peer) *policy.Filter { return c.Export }, s.exportEndings)...)
	// The next hop "self" of a prefix of the family that the session does not run over:
	// GoBGP would write the session's address, as ::ffff:10.1.2.4 or by RFC 8950, which
	// few peers can use.
	for _, g := range s.otherFamily() {
		set := p.neighbors(g.peers)
		conditions := &api.Conditions{
			NeighborSet: &api.MatchSet{Name: set, Type: api.MatchSet_TYPE_ANY},
			AfiSafiIn:   []*api.Family{g.family},
			RouteType:   g.routeType(),
		}
		actions := reject() // nothing that the peer could forward to
		if g.nextHop.IsValid() {
			actions = accept(&api.NexthopAction{Address: g.nextHop.String()})
		}
		list = append(list, &api.Statement{Name: "other-family-" + set, Conditions: conditions, Actions: actions})
	}
	// S29. GoBGP has set the next hop to the session's local address already.
	if self := s.selfPeers(); len(self) > 0 {
		list = append(list, &api.Statement{
			Name: "next-hop-self",
			Conditions: &api.Conditions{
				NeighborSet: &api.MatchSet{Name: p.neighbors(self), Type: api.MatchSet_TYPE_ANY},
				RouteType:   api.Conditions_ROUTE_TYPE_EXTERNAL,
			},
			Actions: accept(nil),
		})
	}
	return append(list, &api.Statement{
		Name:       "next-hop-unchanged",
		Conditions: &api.Conditions{},
		Actions:    accept(&api.NexthopAction{Unchanged: true}),
	})
}

func (s *Speaker) selfPeers() []netip.Addr {
	var list []netip.Addr
	for addr, p := range s.peers {
		if p.cfg.NextHop == config.NextHopSelf {
			list = append(list, addr)
		}
	}
	return list
}

// otherGroup is peers that get the same next hop for prefixes of the other family.
type otherGroup struct {
	family         *api.Family
	nextHop        netip.Addr // invalid: there is none
	local, learned bool       // VNet prefixes, what other peers announced
	peers          []netip.Addr
}

func (g *otherGroup) routeType() api.Conditions_RouteType {
	switch {
	case !g.learned:
		return api.Conditions_ROUTE_TYPE_LOCAL
	case !g.local:
		return api.Conditions_ROUTE_TYPE_EXTERNAL
	}
	return api.Conditions_ROUTE_TYPE_UNSPECIFIED
}

// otherFamily groups the peers so that the usual case, all on one interface, costs one
// statement: every statement is tried for every path and peer.
func (s *Speaker) otherFamily() []otherGroup {
	var groups []otherGroup
	for addr, p := range s.peers {
		g := otherGroup{
			family:  apiIPv6,
			nextHop: p.otherAddress,
			local:   s.vnet.needs(IPv6),
			learned: p.cfg.NextHop == config.NextHopSelf,
		}
		if addr.Is6() {
			g.family, g.local = apiIPv4, s.vnet.needs(IPv4)
		}
		if !g.local && !g.learned {
			continue
		}
		same := func(o otherGroup) bool {
			return o.family == g.family && o.nextHop == g.nextHop && o.local == g.local && o.learned == g.learned
		}
		i := slices.IndexFunc(groups, same)
		if i < 0 {
			i, groups = len(groups), append(groups, g)
		}
		groups[i].peers = append(groups[i].peers, addr)
	}
	for _, g := range groups {
		slices.SortFunc(g.peers, netip.Addr.Compare)
	}
	slices.SortFunc(groups, func(a, b otherGroup) int { return a.peers[0].Compare(b.peers[0]) })
	return groups
}

// sortedPeers are the peers' addresses, in an order that stays.
func (s *Speaker) sortedPeers() []netip.Addr {
	return slices.SortedFunc(maps.Keys(s.peers), netip.Addr.Compare)
}

// policyBuilder collects the sets that statements refer to.
type policyBuilder struct{ sets []*api.DefinedSet }

func (b *policyBuilder) set(kind api.DefinedType, name string, list ...string) {
	b.sets = append(b.sets, &api.DefinedSet{DefinedType: kind, Name: name, List: list})
}

// neighbors makes a set of peers and returns its name.
func (b *policyBuilder) neighbors(peers []netip.Addr) string {
	slices.SortFunc(peers, netip.Addr.Compare)
	list := make([]string, len(peers))
	for i, a := range peers {
		list[i] = netip.PrefixFrom(a.WithZone(""), a.BitLen()).String()
	}
	name := "peers-" + strconv.Itoa(len(b.sets))
	b.set(api.DefinedType_DEFINED_TYPE_NEIGHBOR, name, list...)
	return name
}

func (b *policyBuilder) request(imports, exports []*api.Statement) *api.SetPoliciesRequest {
	return &api.SetPoliciesRequest{
		DefinedSets: b.sets,
		Policies: []*api.Policy{
			{Name: importPolicy, Statements: imports},
			{Name: exportPolicy, Statements: exports},
		},
	}
}

// SetDrain says whether all that is announced carries the community GRACEFUL_SHUTDOWN,
// which asks the peers to use any other path they have (RFC 8326 section 4.1). No
// session is reset.
func (s *Speaker) SetDrain(on bool) error { return s.announceBy("drain", &s.drained, on) }

// SetBranchToBranch says whether peers hear what other peers announced. No session is
// reset: what changes is announced or withdrawn.
func (s *Speaker) SetBranchToBranch(on bool) error {
	return s.announceBy("branch-to-branch", &s.branchToBranch, on)
}

// announceBy changes one of the switches of what is announced, which mu guards. Where that
// fails, the switch stays as it was, so that it can be tried again.
func (s *Speaker) announceBy(name string, is *bool, on bool) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	was := *is
	*is = on
	s.mu.Unlock()
	if was == on {
		return nil
	}
	_, err := s.applyPolicy()
	if err == nil {
		err = s.resend("")
	}
	if err != nil {
		s.mu.Lock()
		*is = was
		s.mu.Unlock()
		return fmt.Errorf("set %s to %v: %w", name, on, err)
	}
	return nil
}

// otherAddress finds our address in the family that the session with c does not run
// over: the lowest global one on the interface of the session's local address. Where
// that is not known yet, it is the one that the host's routes choose.
func otherAddress(c config.Peer, local netip.Addr) netip.Addr {
	if !local.IsValid() {
		local = localAddress(c)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone in the meantime
		}
		var other netip.Addr
		here := false
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, _ := netip.AddrFromSlice(n.IP)
			addr = addr.Unmap()
			switch {
			case addr == local.WithZone(""):
				here = true
			case addr.Is4() != local.Is4() && addr.IsGlobalUnicast() && (!other.IsValid() || addr.Less(other)):
				other = addr
			}
		}
		if here {
			return other
		}
	}
	return netip.Addr{}
}

// localAddress is the address that a connection to the peer starts from. No packet is sent.
func localAddress(c config.Peer) netip.Addr {
	if c.LocalAddress.IsValid() {
		return c.LocalAddress
	}
	conn, err := net.Dial("udp", netip.AddrPortFrom(c.Address, c.Port).String())
	if err != nil {
		return netip.Addr{} // no route to it yet
	}
	defer conn.Close()
	if udp, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return udp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
