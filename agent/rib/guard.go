package rib

import (
	"fmt"
	"net/netip"
)

// The reasons of the guards, which can be switched off for a peer.
const (
	MartianPrefix  Reason = "martian-prefix"
	OwnAddress     Reason = "own-address"
	PrefixLength   Reason = "prefix-length"
	MartianNextHop Reason = "martian-next-hop"
	EmptyASPath    Reason = "as-path-empty"
	FirstAS        Reason = "first-as"
	ConfedInPath   Reason = "confederation-in-path"
	ASSetInPath    Reason = "as-set-in-path" // RFC 9774
	ASPathTooLong  Reason = "as-path-too-long"
	PrivateAS      Reason = "private-as"
	RouteLeak      Reason = "route-leak" // RFC 9234
)

// Role is what a peer is to us (RFC 9234 section 4). The zero value is none.
type Role uint8

// The roles of a peer.
const (
	RoleProvider Role = iota + 1
	RoleCustomer
	RolePeer
	RoleServer // a route server
	RoleClient // of a route server, that is: of ours
)

// Lengths are the prefix lengths that a peer may announce, both ends included.
type Lengths struct{ Min, Max uint8 }

// Guards say which paths of a peer are refused for what they are, and which count as
// blackholes. The zero value refuses none.
type Guards struct {
	ASN           uint32 // of the peer
	Martian       bool   // martian-prefix, martian-next-hop
	OwnAddress    bool
	EmptyASPath   bool
	FirstAS       bool
	Confederation bool
	ASSet         bool
	PrivateAS     bool    // of others than the peer
	MaxASPath     int     // ASNs in a path; 0: any number
	IPv4, IPv6    Lengths // zero: any
	Role          Role
	Blackhole     bool // the peer may ask for the traffic to a host to be dropped (RFC 7999)
}

// martianPrefixes hold what is never routed by announcement: this host on this network,
// loopback, link-local, multicast, reserved and unspecified addresses (RFC 6890), and
// IPv4 addresses in IPv6 clothing. The default routes are none of it (S10), nor are other
// prefixes around these.
var martianPrefixes = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/96"), // ::, ::1 and the IPv4-compatible ones
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Martians returns the prefixes of which nothing may be announced.
func Martians() []netip.Prefix { return martianPrefixes[:] }

// martian returns the range that p lies in, if p is none that may be announced.
func martian(p netip.Prefix) (netip.Prefix, bool) {
	for _, m := range martianPrefixes {
		if p.Bits() >= m.Bits() && m.Contains(p.Addr()) {
			return m, true
		}
	}
	return netip.Prefix{}, false
}

// guardsOf are the guards that a peer's paths have to pass.
func (p *Policy) guardsOf(x Path) Guards {
	if int(x.Source) < len(p.Guards) {
		return p.Guards[x.Source]
	}
	return Guards{}
}

// guard tells which guard refuses a path.
func (p *Policy) guard(pfx netip.Prefix, x Path) Reason {
	g := p.guardsOf(x)
	if g == (Guards{}) {
		return ""
	}
	if g.Martian {
		if _, bad := martian(pfx); bad {
			return MartianPrefix
		}
		if nh := x.Attrs.NextHop; nh.IsValid() {
			if _, bad := martian(netip.PrefixFrom(nh, nh.BitLen())); bad {
				return MartianNextHop
			}
		}
	}
	if g.OwnAddress && pfx.IsSingleIP() && p.IsSelf != nil && p.IsSelf(pfx.Addr()) {
		return OwnAddress
	}
	if l := g.lengths(pfx); l != (Lengths{}) && (pfx.Bits() < int(l.Min) || pfx.Bits() > int(l.Max)) {
		return PrefixLength
	}
	return g.path(x.Attrs)
}

func (g *Guards) lengths(pfx netip.Prefix) Lengths {
	if pfx.Addr().Is4() {
		return g.IPv4
	}
	return g.IPv6
}

// path tells which guard refuses the attributes of a path.
func (g *Guards) path(a *Attrs) Reason {
	n := 0
	for _, s := range a.ASPath {
		n += len(s.ASNs)
		switch {
		case g.Confederation && (s.Type == ASConfedSeq || s.Type == ASConfedSet):
			return ConfedInPath // RFC 5065 section 5: from a peer that is in none of ours
		case g.ASSet && s.Type == ASSet:
			return ASSetInPath
		}
	}
	switch {
	case g.EmptyASPath && n == 0:
		return EmptyASPath
	case g.FirstAS && n > 0 && a.ASPath.first() != g.ASN: // RFC 4271 section 6.3
		return FirstAS
	case g.MaxASPath > 0 && n > g.MaxASPath:
		return ASPathTooLong
	case g.PrivateAS && a.ASPath.hasPrivate(g.ASN):
		return PrivateAS
	case g.leaks(a):
		return RouteLeak
	}
	return ""
}

// leaks tells whether a route was passed on by somebody who should have kept it (RFC 9234
// section 5).
func (g *Guards) leaks(a *Attrs) bool {
	switch g.Role {
	case RoleCustomer, RoleClient:
		return a.HasOTC
	case RolePeer:
		return a.HasOTC && a.OTC != g.ASN
	}
	return false
}

// first is the leftmost ASN of a path that has one.
func (p ASPath) first() uint32 {
	for _, s := range p {
		if len(s.ASNs) > 0 {
			return s.ASNs[0]
		}
	}
	return 0
}

// hasPrivate tells whether a private ASN (RFC 6996) other than one occurs in the path.
func (p ASPath) hasPrivate(but uint32) bool {
	for _, s := range p {
		for _, a := range s.ASNs {
			if a != but && (a >= 64512 && a <= 65534 || a >= 4200000000 && a <= 4294967294) {
				return true
			}
		}
	}
	return false
}

// guardDetail puts the word of a guard into a sentence.
func (p *Policy) guardDetail(why Reason, pfx netip.Prefix, x Path) string {
	g, a := p.guardsOf(x), x.Attrs
	switch why {
	case MartianPrefix:
		m, _ := martian(pfx)
		return fmt.Sprintf("nothing in %s is ever routed by an announcement", m)
	case MartianNextHop:
		m, _ := martian(netip.PrefixFrom(a.NextHop, a.NextHop.BitLen()))
		return fmt.Sprintf("next hop %s is in %s, where no router can be", a.NextHop, m)
	case OwnAddress:
		return fmt.Sprintf("%s is an address of this host", pfx.Addr())
	case PrefixLength:
		l := g.lengths(pfx)
		return fmt.Sprintf("the peer may announce lengths from %d to %d", l.Min, l.Max)
	case EmptyASPath:
		return "the AS path is empty, but the peer must have put its own AS into it"
	case FirstAS:
		return fmt.Sprintf("the AS path %q begins with another AS than the peer's, %d", a.ASPath, g.ASN)
	case ConfedInPath:
		return fmt.Sprintf("the AS path %q holds a confederation's segment, and the peer is in no confederation of ours", a.ASPath)
	case ASSetInPath:
		return fmt.Sprintf("the AS path %q holds an AS_SET (RFC 9774)", a.ASPath)
	case ASPathTooLong:
		return fmt.Sprintf("the AS path has more than %d ASNs", g.MaxASPath)
	case PrivateAS:
		return fmt.Sprintf("the AS path %q holds a private ASN that is not the peer's", a.ASPath)
	case RouteLeak:
		return fmt.Sprintf("it was meant for customers only, by AS %d, and the peer passed it on (RFC 9234)", a.OTC)
	}
	return ""
}
