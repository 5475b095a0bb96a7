package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// vnet is what is announced of our own. Speaker.op guards prefixes, mu missing.
type vnet struct {
	prefixes map[netip.Prefix]netip.Addr // with the next hop announced
	missing  [2]bool                     // needs, IPv4 and IPv6
}

// needs tells whether prefixes of the family are announced without a next hop of their
// own, so that each session must bring one.
func (v *vnet) needs(f Family) bool { return v.missing[familyIndex(f)] }

func familyIndex(f Family) int {
	if f == IPv6 {
		return 1
	}
	return 0
}

// SetVNet announces the prefixes to every peer and withdraws those announced before
// and not in the list; the others are not touched (S28). An invalid next hop means the
// session's local address.
func (s *Speaker) SetVNet(prefixes []netip.Prefix, nextHop4, nextHop6 netip.Addr) error {
	s.op.Lock()
	defer s.op.Unlock()
	defer s.recount()

	want := make(map[netip.Prefix]netip.Addr, len(prefixes))
	var missing [2]bool
	for _, p := range prefixes {
		nh, unspecified, family := nextHop4, netip.IPv4Unspecified(), IPv4
		if p.Addr().Is6() {
			nh, unspecified, family = nextHop6, netip.IPv6Unspecified(), IPv6
		}
		if !nh.IsValid() {
			nh = unspecified
			missing[familyIndex(family)] = true
		}
		want[p.Masked()] = nh
	}
	s.mu.Lock()
	s.vnet.missing = missing
	s.vnetChanged = time.Now()
	s.mu.Unlock()
	if _, err := s.applyPolicy(); err != nil {
		return fmt.Errorf("announce the VNet: %w", err)
	}

	for p := range s.vnet.prefixes {
		if _, ok := want[p]; ok {
			continue
		}
		if err := s.server.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{localPath(p, netip.Addr{})}}); err != nil {
			return fmt.Errorf("withdraw VNet prefix %s: %w", p, err)
		}
		delete(s.vnet.prefixes, p)
	}
	for p, nh := range want {
		if s.vnet.prefixes[p] == nh {
			continue
		}
		if _, err := s.server.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{localPath(p, nh)}}); err != nil {
			return fmt.Errorf("announce VNet prefix %s: %w", p, err)
		}
		if s.vnet.prefixes == nil {
			s.vnet.prefixes = map[netip.Prefix]netip.Addr{}
		}
		s.vnet.prefixes[p] = nh
	}
	return nil
}

// localPath is a path of ours: GoBGP adds our ASN, and the session's local address where
// the next hop is unspecified. An invalid next hop makes it a withdrawal.
func localPath(p netip.Prefix, nextHop netip.Addr, more ...bgp.PathAttributeInterface) *apiutil.Path {
	nlri := mustNLRI(p)
	path := &apiutil.Path{
		Family:     bgp.RF_IPv4_UC,
		Nlri:       nlri,
		Age:        time.Now().Unix(),
		Withdrawal: !nextHop.IsValid(),
		Attrs:      append([]bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}, more...),
	}
	if p.Addr().Is6() {
		path.Family = bgp.RF_IPv6_UC
	}
	if nextHop.IsValid() {
		// GoBGP makes it a NEXT_HOP where the family is IPv4 (apiutil2Path).
		reach, err := bgp.NewPathAttributeMpReachNLRI(path.Family, []bgp.PathNLRI{{NLRI: nlri}}, nextHop)
		if err != nil {
			panic(fmt.Sprintf("bug: MP_REACH_NLRI of %s via %s: %v", p, nextHop, err))
		}
		path.Attrs = append(path.Attrs, reach)
	}
	return path
}

func mustNLRI(p netip.Prefix) bgp.NLRI {
	nlri, err := bgp.NewIPAddrPrefix(p)
	if err != nil {
		panic(fmt.Sprintf("bug: NLRI of %s: %v", p, err))
	}
	return nlri
}
