package config

import (
	"errors"
	"fmt"
	"strings"
)

// Guards say which paths of a peer are refused for what they are. docs/guards.md has what
// each one is against.
type Guards struct {
	Martian       bool
	OwnAddress    bool
	EmptyASPath   bool
	FirstAS       bool
	Confederation bool
	ASSet         bool
	PrivateAS     PrivateAS
	MaxASPath     int // ASNs in an AS path; 0: any number
	IPv4, IPv6    Lengths
}

// PrivateAS says what becomes of a path with a private ASN other than the peer's.
type PrivateAS string

// The values of a peer's guards.private-as.
const (
	PrivateASAccept PrivateAS = "accept"
	PrivateASRefuse PrivateAS = "refuse"
)

// Lengths are the prefix lengths that a peer may announce, both ends included.
type Lengths struct{ Min, Max uint8 }

func (l Lengths) String() string { return fmt.Sprintf("%d-%d", l.Min, l.Max) }

// Role is what a peer is to us (RFC 9234).
type Role string

// The values of a peer's role.
const (
	RoleNone     Role = "none"
	RoleProvider Role = "provider"
	RoleCustomer Role = "customer"
	RolePeer     Role = "peer"
	RoleServer   Role = "rs"
	RoleClient   Role = "rs-client"
)

var guardKeys = []key[Guards]{
	value("martian", live, func(g *Guards) *bool { return &g.Martian }, boolean),
	value("own-address", live, func(g *Guards) *bool { return &g.OwnAddress }, boolean),
	value("first-as", live, func(g *Guards) *bool { return &g.FirstAS }, boolean),
	value("empty-as-path", live, func(g *Guards) *bool { return &g.EmptyASPath }, boolean),
	value("as-set", live, func(g *Guards) *bool { return &g.ASSet }, boolean),
	value("confederation", live, func(g *Guards) *bool { return &g.Confederation }, boolean),
	value("private-as", live, func(g *Guards) *PrivateAS { return &g.PrivateAS }, oneOf(PrivateASAccept, PrivateASRefuse)),
	value("max-as-path", live, func(g *Guards) *int { return &g.MaxASPath }, number(0, 1000)),
	value("ipv4-lengths", live, func(g *Guards) *Lengths { return &g.IPv4 }, lengths(32)),
	value("ipv6-lengths", live, func(g *Guards) *Lengths { return &g.IPv6 }, lengths(128)),
}

// defaultGuards refuse what no appliance that works announces. Any length is accepted: a
// host route is as common here as a default route, and who may announce that can draw as
// much with two halves of it.
func defaultGuards() Guards {
	return Guards{
		Martian: true, OwnAddress: true, EmptyASPath: true, FirstAS: true, Confederation: true, ASSet: true,
		PrivateAS: PrivateASAccept, MaxASPath: 100, IPv4: Lengths{0, 32}, IPv6: Lengths{0, 128},
	}
}

// lengths are a lowest and a highest prefix length.
func lengths(most uint8) scalar[Lengths] {
	return scalar[Lengths]{fmt.Sprintf("the least and the greatest prefix length, as in 0-%d", most), func(text string) (Lengths, error) {
		from, to, ok := strings.Cut(text, "-")
		if !ok {
			to = from
		}
		low, err := parseUint(strings.TrimSpace(from))
		high, err2 := parseUint(strings.TrimSpace(to))
		switch {
		case err != nil || err2 != nil:
			return Lengths{}, fmt.Errorf("%q is no range of lengths", text)
		case high > uint64(most):
			return Lengths{}, fmt.Errorf("%d is out of range", high)
		case low > high:
			return Lengths{}, errors.New("the first is greater than the second")
		}
		return Lengths{uint8(low), uint8(high)}, nil
	}}
}
