package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/bgp/wire"
	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
)

// Roles (RFC 9234), of which GoBGP v4.8.0 knows nothing: the capability is looked at
// when a session comes up, and the attribute Only to Customer is added and acted upon
// on the way between GoBGP and the socket (wire.Session).

// wireRoles are the roles as a peer says them.
var wireRoles = map[config.Role]wire.Role{
	config.RoleProvider: wire.Provider, config.RoleCustomer: wire.Customer, config.RolePeer: wire.Peer,
	config.RoleServer: wire.RouteServer, config.RoleClient: wire.RouteServerClient,
}

// relation is what a peer's role means for the attribute.
func (s *Speaker) relation(c config.Peer) wire.Relation {
	r, ok := wireRoles[c.Role]
	if !ok {
		return wire.Relation{}
	}
	return r.Relation(s.opts.ASN, c.ASN)
}

// capRole is the code of the capability.
const capRole = 9

// roleValues are the values of the role capabilities in a peer's OPEN.
func roleValues(open *bgp.BGPOpen) [][]byte {
	var values [][]byte
	for _, c := range capabilities(open) {
		if u, ok := c.(*bgp.CapUnknown); ok && u.CapCode == capRole {
			values = append(values, u.CapValue)
		}
	}
	return values
}

// roleMismatch says why a peer's OPEN does not go with its role; "" where it does.
func roleMismatch(c config.Peer, open *bgp.BGPOpen) string {
	r, ok := wireRoles[c.Role]
	if !ok {
		return ""
	}
	return wire.CheckRoles(r, roleValues(open), c.RoleStrict)
}

// roleCapability begins the name of the capability.
const roleCapability = "role "

// roleName writes it for a person.
func roleName(value []byte) string {
	if len(value) != 1 {
		return fmt.Sprintf(roleCapability+"of %d octets", len(value))
	}
	return roleCapability + wire.Role(value[0]).String()
}

// rolePause is how long a peer is left alone whose role did not match.
const rolePause = time.Minute

// refuseRole has GoBGP end the session that comes up, of which nothing but the
// NOTIFICATION reaches the peer, and keeps the peer down for a while: GoBGP would try
// again every few seconds. It runs where judge does.
func (s *Speaker) refuseRole(addr netip.Addr, notification chan<- *bgp.BGPMessage, text string) {
	why := DownReason{Cause: "role-mismatch", Text: text}
	s.mu.Lock()
	p := s.peers[addr]
	if p != nil {
		p.expect = why
		s.spawn(func() {
			s.op.Lock()
			defer s.op.Unlock()
			if s.find(addr) != p || s.ctx.Err() != nil {
				return
			}
			if err := s.keepDown(p, rolePause, text, why); err != nil && s.ctx.Err() == nil {
				s.log.Error("could not keep a peer down whose role does not match", "peer", addr, "err", err)
			}
		})
	}
	s.mu.Unlock()
	select {
	case notification <- bgp.NewBGPNotificationMessage(wire.CodeOpen, wire.RoleMismatch, nil):
	default: // there is one already
	}
}

// told turns what GoBGP announces into what reaches the peer. withheld: it has the mark
// already, and the peer gets a withdrawal.
func told(r wire.Relation, a *rib.Attrs) (_ *rib.Attrs, withheld bool) {
	switch {
	case a.HasOTC:
		return a, r.Above
	case r.Below:
		marked := *a
		marked.HasOTC, marked.OTC = true, r.LocalASN
		return &marked, false
	}
	return a, false
}
