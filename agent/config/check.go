package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// check looks at what concerns more than one value. A value that already has a mistake
// of its own takes no part: its zero would make up mistakes that are none.
func (d *decoder) check(c *Config) {
	d.checkListen(c.Listen)
	d.checkVNet(&c.VNet)
	for i := range c.Peers {
		d.checkPeer(c, i)
	}
	for i := range c.DynamicPeers {
		d.checkDynamic(c, i)
	}
	d.checkBFDNextHops(c)
}

// checkBFDNextHops keeps one session per address: a peer's is the peer's own.
func (d *decoder) checkBFDNextHops(c *Config) {
	b := &c.FIB.BFDNextHops
	d.checkMinTTL("fib.bfd-next-hops", b.BFDSession)
	for i, addr := range b.Addresses {
		at, _ := d.at(fmt.Sprintf("fib.bfd-next-hops.addresses[%d]", i))
		for j, other := range b.Addresses[:i] {
			if addr.IsValid() && addr == other {
				d.fail(at, "%s is listed twice, first in %s", addr, d.line(fmt.Sprintf("fib.bfd-next-hops.addresses[%d]", j)))
				break
			}
		}
		for j, p := range c.Peers {
			if addr.IsValid() && addr == p.Address {
				d.fail(at, "%s is peer %s in %s, allowed: next hops that are no peers; the peer has a key bfd of its own", addr, p.Name, d.line(fmt.Sprintf("peers[%d].address", j)))
			}
		}
	}
}

func (d *decoder) checkMinTTL(path string, b BFDSession) {
	if n, given := d.at(path + ".min-ttl"); given && b.Mode == BFDSingleHop && d.good(path+".mode") {
		d.fail(n, "has no use with mode single-hop, where the TTL is 255 always (RFC 5881 section 5), allowed: min-ttl with mode multihop or auto")
	}
}

func (d *decoder) checkListen(listen []netip.AddrPort) {
	n, given := d.at("listen")
	if !given {
		return
	}
	if seq, ok := n.Node.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
		d.fail(n, "is empty; to listen on all addresses, leave the key out")
	}
	for i, ap := range listen {
		at, ok := d.at(fmt.Sprintf("listen[%d]", i))
		if !ok || !ap.IsValid() {
			continue
		}
		for j, other := range listen[:i] {
			if !other.IsValid() {
				continue
			}
			where := d.line(fmt.Sprintf("listen[%d]", j))
			a, b := ap.Addr(), other.Addr()
			switch {
			case ap == other:
				d.fail(at, "%s is listed twice, first in %s", ap, where)
			case ap.Port() != other.Port():
				// GoBGP has a list of addresses and one port (Global.ListenPort).
				d.fail(at, "port %d differs from port %d in %s, allowed: one port for all addresses", ap.Port(), other.Port(), where)
			case a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified()):
				// bind(2) of the second would fail with EADDRINUSE.
				d.fail(at, "%s and %s (%s) overlap, allowed: either all addresses of a family or single ones", ap, other, where)
			default:
				continue
			}
			break
		}
	}
}

func (d *decoder) checkVNet(v *VNet) {
	for i, p := range v.Prefixes {
		for j, other := range v.Prefixes[:i] {
			if p.IsValid() && other.IsValid() && p.Overlaps(other) {
				at, _ := d.at(fmt.Sprintf("vnet.prefixes[%d]", i))
				d.fail(at, "%s overlaps %s in %s, allowed: prefixes that do not overlap", p, other, d.line(fmt.Sprintf("vnet.prefixes[%d]", j)))
				break
			}
		}
	}
	for i, p := range v.AllowInside {
		if !p.IsValid() {
			continue
		}
		at, _ := d.at(fmt.Sprintf("vnet.allow-inside-vnet[%d]", i))
		inside, unsure := false, !d.good("vnet.prefixes")
		for _, vnet := range v.Prefixes {
			// A prefix with a mistake may have been meant to hold this one.
			unsure = unsure || !vnet.IsValid()
			inside = inside || vnet.IsValid() && vnet.Bits() <= p.Bits() && vnet.Contains(p.Addr())
		}
		if !inside && !unsure {
			d.fail(at, "%s is not inside any of vnet.prefixes, allowed: a prefix inside one of them (outside them nothing needs a permission)", p)
			continue
		}
		for j, other := range v.AllowInside[:i] {
			if p == other {
				d.fail(at, "%s is listed twice, first in %s", p, d.line(fmt.Sprintf("vnet.allow-inside-vnet[%d]", j)))
				break
			}
		}
	}
}

func (d *decoder) checkPeer(c *Config, i int) {
	p := &c.Peers[i]
	path := func(key string) string { return fmt.Sprintf("peers[%d].%s", i, key) }
	at := func(key string) node { n, _ := d.at(path(key)); return n }

	for j, other := range c.Peers[:i] {
		if p.Name != "" && p.Name == other.Name {
			d.fail(at("name"), "%q is the name of the peer in %s too, allowed: a name of its own", p.Name, d.line(fmt.Sprintf("peers[%d].name", j)))
			break
		}
	}
	for j, other := range c.Peers[:i] {
		if p.Address.IsValid() && p.Address == other.Address {
			d.fail(at("address"), "%s is the address of peer %s in %s too, allowed: one session per address", p.Address, other.Name, d.line(fmt.Sprintf("peers[%d].address", j)))
			break
		}
	}
	for j, l := range c.Listen {
		if p.Address.IsValid() && p.Address == l.Addr() {
			d.fail(at("address"), "%s is the local address in %s, a peer cannot be ourselves, allowed: the address of another router", p.Address, d.line(fmt.Sprintf("listen[%d]", j)))
			break
		}
	}
	if p.Address.IsValid() && p.LocalAddress.IsValid() {
		switch {
		case p.LocalAddress.Is4() != p.Address.Is4():
			d.fail(at("local-address"), "%s and the peer's address %s are of different families, allowed: the same family", p.LocalAddress, p.Address)
		case p.LocalAddress == p.Address:
			d.fail(at("local-address"), "%s is the peer's address, allowed: an address of this host", p.LocalAddress)
		}
	}
	if p.Passive && p.Address.IsValid() && d.good("listen") && !d.listensFor(c, p.Address) {
		d.fail(at("passive"), "the peer could never connect: listen has no address of its family, allowed: passive with such an address")
	}
	d.exclusive(path("password-file"), path("password-credential"))
	d.checkSession(c, p, path)
}

// checkSession looks at what a peer and a range of peers have in common.
func (d *decoder) checkSession(c *Config, p *Peer, path func(key string) string) {
	if p.ASN != 0 && p.ASN == c.ASN && d.good("asn") {
		n, _ := d.at(path("asn"))
		d.fail(n, "%d is the local AS (%s), and only eBGP is spoken, allowed: another AS", p.ASN, d.line("asn"))
	}
	d.exclusive(path("multihop-ttl"), path("gtsm"))
	if n, given := d.at(path("role-strict")); given && p.RoleStrict && p.Role == RoleNone && d.good(path("role")) {
		d.fail(n, "has no use without a role, allowed: role-strict together with role")
	}
	d.checkMinTTL(path("bfd"), p.BFD.BFDSession)
	d.checkTimers(p, path("hold-time"), path("keepalive"))
	d.checkDamping(&p.Damping, path("damping"))
	if g := &p.GracefulRestart; g.LongLived > 0 && !g.Enabled && d.good(path("graceful-restart.enabled")) {
		n, _ := d.at(path("graceful-restart.long-lived"))
		d.fail(n, "%s with enabled: false, allowed: 0s, for it comes after a graceful restart (RFC 9494 section 4.1)", show(g.LongLived))
	}
}

// checkDamping relates the thresholds: a path must be able to be held back, and be used
// again.
func (d *decoder) checkDamping(c *Damping, path string) {
	n, given := d.at(path)
	if !given || c.HalfLife == 0 || c.Suppress == 0 || c.Reuse == 0 || c.MaxSuppress == 0 {
		return
	}
	switch {
	case c.Reuse >= c.Suppress:
		d.fail(n, "reuse %d is not below suppress %d, allowed: below it", c.Reuse, c.Suppress)
	case c.Suppress > c.Most():
		d.fail(n, "suppress %d is never reached: with this half-life, reuse and max-suppress no penalty exceeds %d, allowed: up to that, or a longer max-suppress", c.Suppress, c.Most())
	}
}

func (d *decoder) listensFor(c *Config, peer netip.Addr) bool {
	for _, l := range c.Listen {
		if !l.IsValid() || l.Addr().Is4() == peer.Is4() {
			return true
		}
	}
	return false
}

// exclusive reports the later of two keys that cannot both be given.
func (d *decoder) exclusive(one, other string) {
	a, hasA := d.at(one)
	b, hasB := d.at(other)
	if !hasA || !hasB {
		return
	}
	if a.line > b.line || a.line == b.line && a.col > b.col {
		a, b = b, a
	}
	d.fail(b, "cannot go with %s in line %d, allowed: one of the two", a.path, a.line)
}

// checkTimers relates keepalive and hold time, and derives the first from the second
// where only that is given (RFC 4271 section 10 suggests a third).
func (d *decoder) checkTimers(p *Peer, holdPath, keepalivePath string) {
	if !d.good(holdPath) || !d.good(keepalivePath) {
		return
	}
	n, given := d.at(keepalivePath)
	switch {
	case !given:
		p.Keepalive = (p.HoldTime / 3).Truncate(time.Second)
	case p.HoldTime == 0 && p.Keepalive != 0:
		d.fail(n, "%s with hold-time 0s (%s), allowed: 0s, for keepalives are not sent then (RFC 4271 section 4.4)", show(p.Keepalive), d.line(holdPath))
	case p.HoldTime != 0 && p.Keepalive == 0:
		d.fail(n, "0s would let the session end after the hold time, allowed: %s", keepalive.allowed)
	case p.HoldTime != 0 && p.Keepalive >= p.HoldTime:
		d.fail(n, "%s is not less than hold-time %s (%s), allowed: less, best a third", show(p.Keepalive), show(p.HoldTime), d.line(holdPath))
	}
}
