package agent

import (
	"net/netip"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
)

var roles = map[config.Role]rib.Role{
	config.RoleProvider: rib.RoleProvider,
	config.RoleCustomer: rib.RoleCustomer,
	config.RolePeer:     rib.RolePeer,
	config.RoleServer:   rib.RoleServer,
	config.RoleClient:   rib.RoleClient,
}

// guardsOf are a peer's guards as the decision takes them.
func guardsOf(c config.Peer) rib.Guards {
	g := c.Guards
	return rib.Guards{
		ASN: c.ASN, Martian: g.Martian, OwnAddress: g.OwnAddress, EmptyASPath: g.EmptyASPath, FirstAS: g.FirstAS,
		Confederation: g.Confederation, ASSet: g.ASSet, PrivateAS: g.PrivateAS == config.PrivateASRefuse,
		MaxASPath: g.MaxASPath, IPv4: rib.Lengths(g.IPv4), IPv6: rib.Lengths(g.IPv6), Role: roles[c.Role],
		Blackhole: c.Blackhole,
	}
}

// newGuards brings the policy's guards in line with the peers, and has the paths of those
// looked at again whose guards changed. mu is held.
func (a *Agent) newGuards() {
	was := a.policy.Guards
	now := make([]rib.Guards, len(a.peers.bySource))
	changed := false
	for i, p := range a.peers.bySource {
		now[i] = guardsOf(p.cfg)
		changed = changed || i < len(was) && was[i] != now[i]
	}
	a.policy.Guards = now
	if changed {
		a.rib.MarkAll()
	}
}

// newAddresses has the prefixes looked at again that are, or were, addresses of the host.
func (a *Agent) newAddresses(before []netip.Addr) {
	after := a.ownAddresses()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, list := range [][]netip.Addr{before, after} {
		for _, addr := range list {
			a.rib.Mark(netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
}

func (a *Agent) ownAddresses() []netip.Addr {
	if a.host == nil {
		return nil
	}
	list := make([]netip.Addr, 0, len(a.host.Addrs))
	for _, x := range a.host.Addrs {
		list = append(list, x.Prefix.Addr())
	}
	return list
}
