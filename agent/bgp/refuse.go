package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// What is refused whatever else is known is refused before any other peer can hear of it,
// for a moment is enough to steal: what is inside the VNet, and martian prefixes. What is
// withheld for other reasons (withhold.go) is announced until the agent has said so.

// RefuseInside says of which prefixes nothing may be announced by a peer, nor anything
// inside them (S18), but for those that are allowed, each exactly.
func (s *Speaker) RefuseInside(prefixes, allow []netip.Prefix) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	s.closed, s.open = slices.Clone(prefixes), slices.Clone(allow)
	peers := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		peers = append(peers, p)
	}
	s.mu.Unlock()
	changed, err := s.applyPolicy()
	if err != nil || !changed {
		return err
	}
	for _, p := range peers {
		if err := s.refilter(p); err != nil {
			return fmt.Errorf("look at the paths of %s again: %w", p.info.Address, err)
		}
	}
	return nil
}

// insideStatements refuse what RefuseInside and the martian guard are about. With mu held.
func (s *Speaker) insideStatements(b *policyBuilder) []*api.Statement {
	var list []*api.Statement
	add := func(name string, entries []*api.Prefix, peers *api.MatchSet, from api.Conditions_RouteType) {
		for _, f := range []Family{IPv4, IPv6} {
			set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: fmt.Sprintf("%s-ipv%d", name, f)}
			for _, e := range entries {
				if familyOf(netip.MustParsePrefix(e.IpPrefix)) == f {
					set.Prefixes = append(set.Prefixes, e)
				}
			}
			if len(set.Prefixes) == 0 {
				continue
			}
			b.sets = append(b.sets, set)
			list = append(list, &api.Statement{
				Name: set.Name,
				Conditions: &api.Conditions{
					PrefixSet:   &api.MatchSet{Name: set.Name, Type: api.MatchSet_TYPE_ANY},
					NeighborSet: peers,
					RouteType:   from,
				},
				Actions: reject(),
			})
		}
	}
	var inside []*api.Prefix
	for _, v := range s.closed {
		inside = append(inside, rangesIn(v, s.open)...)
	}
	// The VNet's own announcements pass the same policy.
	add("inside-vnet", inside, nil, api.Conditions_ROUTE_TYPE_EXTERNAL)

	var guarded []netip.Addr
	for addr, p := range s.peers {
		if p.cfg.Guards.Martian {
			guarded = append(guarded, addr)
		}
	}
	if len(guarded) > 0 {
		var martians []*api.Prefix
		for _, m := range rib.Martians() {
			martians = append(martians, rangesIn(m, nil)...)
		}
		peers := &api.MatchSet{Name: b.neighbors(guarded), Type: api.MatchSet_TYPE_ANY}
		add("martians", martians, peers, api.Conditions_ROUTE_TYPE_EXTERNAL)
	}
	return list
}

// rangesIn describes a prefix and all inside it, but for the prefixes in allow. GoBGP's sets
// know no exceptions, so at the length of one that is allowed the others are listed, by
// the halves that it is not in: one a bit.
func rangesIn(v netip.Prefix, allow []netip.Prefix) []*api.Prefix {
	var list []*api.Prefix
	from := v.Bits()
	upTo := func(last int) {
		if from <= last {
			list = append(list, &api.Prefix{IpPrefix: v.String(), MaskLengthMin: uint32(from), MaskLengthMax: uint32(last)})
		}
	}
	byLength := map[int][]netip.Prefix{}
	for _, a := range allow {
		if a.Bits() >= v.Bits() && v.Contains(a.Addr()) {
			byLength[a.Bits()] = append(byLength[a.Bits()], a)
		}
	}
	for bits := v.Bits(); bits <= v.Addr().BitLen(); bits++ {
		if allowed := byLength[bits]; len(allowed) > 0 {
			upTo(bits - 1)
			from = bits + 1
			list = append(list, others(v, allowed)...)
		}
	}
	upTo(v.Addr().BitLen())
	return list
}

// others describes what is inside v and as long as the allowed prefixes, and none of them.
func others(v netip.Prefix, allowed []netip.Prefix) []*api.Prefix {
	bits := allowed[0].Bits()
	switch {
	case !slices.ContainsFunc(allowed, v.Overlaps):
		return []*api.Prefix{{IpPrefix: v.String(), MaskLengthMin: uint32(bits), MaskLengthMax: uint32(bits)}}
	case v.Bits() == bits:
		return nil
	}
	low := netip.PrefixFrom(v.Addr(), v.Bits()+1)
	b := v.Addr().AsSlice()
	b[v.Bits()/8] |= 0x80 >> (v.Bits() % 8)
	high, _ := netip.AddrFromSlice(b) // as long as it was
	return append(others(low, allowed), others(netip.PrefixFrom(high, v.Bits()+1), allowed)...)
}
