package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DynamicPeers are peers that need not be named: who connects from an address of the
// range becomes one.
type DynamicPeers struct {
	Range netip.Prefix
	Limit int // of peers at a time
	// Like is what they have in common. Its name is the beginning of theirs.
	Like Peer
}

var dynamicKeys = append([]key[DynamicPeers]{
	required(value("range", live, func(d *DynamicPeers) *netip.Prefix { return &d.Range }, vnetPrefix)),
	value("limit", live, func(d *DynamicPeers) *int { return &d.Limit }, number(1, 1000)),
}, within(func(d *DynamicPeers) *Peer { return &d.Like }, slices.DeleteFunc(slices.Clone(peerKeys), func(k key[Peer]) bool {
	switch k.name {
	// The kernel drops a segment with an MD5 signature from whom it has no key of, so that
	// nobody would hear of who wants to connect.
	case "password-file", "password-credential":
		return true
	case "address", "local-address", "shutdown": // of one peer
		return true
	}
	return false
}))...)

func dynamicShape() Key { return Key{List: true, Keys: describe(dynamicKeys)} }

// readDynamic reads the list of ranges. The peers of each start as defaultPeer.
func readDynamic(d *decoder, n node, c *Config) {
	for _, element := range d.elements(n, "mapping with keys among "+keyNames(dynamicKeys)) {
		r := DynamicPeers{Limit: 16, Like: defaultPeer()}
		if element.isNull() {
			d.fail(element, "is empty, must be a mapping with keys among: %s", keyNames(dynamicKeys))
		} else {
			readMap(d, element, &r, dynamicKeys)
		}
		c.DynamicPeers = append(c.DynamicPeers, r)
	}
}

// diffDynamic tells what changed of the ranges. What that means for a peer that is there
// is the business of Compare.
func diffDynamic(path string, before, after *Config) []Change {
	find := func(c *Config, r netip.Prefix) *DynamicPeers {
		i := slices.IndexFunc(c.DynamicPeers, func(d DynamicPeers) bool { return d.Range == r })
		if i < 0 {
			return nil
		}
		return &c.DynamicPeers[i]
	}
	var changes []Change
	add := func(r netip.Prefix, c Change) {
		c.Field, c.effect = fmt.Sprintf("%s %s%s", path, r, c.Field), live
		changes = append(changes, c)
	}
	sum := func(d DynamicPeers) string { return fmt.Sprintf("AS %d, limit %d", d.Like.ASN, d.Limit) }
	for _, d := range before.DynamicPeers {
		if find(after, d.Range) == nil {
			add(d.Range, Change{From: sum(d), To: "none"})
		}
	}
	for _, d := range after.DynamicPeers {
		old := find(before, d.Range)
		if old == nil {
			add(d.Range, Change{From: "none", To: sum(d)})
			continue
		}
		for _, c := range diffKeys("", old, &d, dynamicKeys) {
			c.Field = ": " + c.Field
			add(d.Range, c)
		}
	}
	return changes
}

func (d *decoder) checkDynamic(c *Config, i int) {
	r := &c.DynamicPeers[i]
	path := func(key string) string { return fmt.Sprintf("dynamic-peers[%d].%s", i, key) }
	at := func(key string) node { n, _ := d.at(path(key)); return n }
	for j, other := range c.DynamicPeers[:i] {
		if r.Range.IsValid() && other.Range.IsValid() && r.Range.Overlaps(other.Range) {
			d.fail(at("range"), "%s overlaps %s in %s, allowed: ranges that do not overlap", r.Range, other.Range, d.line(fmt.Sprintf("dynamic-peers[%d].range", j)))
			break
		}
	}
	if r.Range.IsValid() && d.good("listen") && !d.listensFor(c, r.Range.Addr()) {
		d.fail(at("range"), "nobody of it could ever connect: listen has no address of its family, allowed: a range of a family that listen has")
	}
	if n := len(r.Like.Name); n > 23 {
		d.fail(at("name"), "has %d characters, and an address comes after it in a peer's name, allowed: at most 23", n)
	}
	for j, p := range c.Peers {
		text, ours := strings.CutPrefix(p.Name, r.Like.Name+"-")
		if addr, err := netip.ParseAddr(text); ours && err == nil && r.Range.IsValid() && r.Range.Contains(addr) && addr != p.Address {
			d.fail(at("name"), "a peer from %s would have the name of the peer in %s, allowed: a name of its own", addr, d.line(fmt.Sprintf("peers[%d].name", j)))
			break
		}
	}
	d.checkSession(c, &r.Like, path)
}

// RangeOf returns the range that an address is in; nil: none.
func (c *Config) RangeOf(addr netip.Addr) *DynamicPeers {
	for i := range c.DynamicPeers {
		if c.DynamicPeers[i].Range.Contains(addr) {
			return &c.DynamicPeers[i]
		}
	}
	return nil
}

// Has tells whether there is a peer with the address.
func (c *Config) Has(addr netip.Addr) bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Address == addr })
}

// Count is how many peers came by the range.
func (c *Config) Count(r *DynamicPeers) (n int) {
	for _, p := range c.Peers {
		if p.Dynamic && r.Range.Contains(p.Address) {
			n++
		}
	}
	return n
}

// With is the configuration with those of the addresses as peers too for whom one of its
// ranges has room. Dynamic peers that it had stay only if they are among them; a peer of
// the file comes first.
func (c *Config) With(addrs []netip.Addr) *Config {
	now := *c
	now.Peers = slices.DeleteFunc(slices.Clone(c.Peers), func(p Peer) bool { return p.Dynamic })
	for _, addr := range addrs {
		r := now.RangeOf(addr)
		if r == nil || now.Has(addr) || now.Count(r) >= r.Limit {
			continue
		}
		p := r.Like
		p.Dynamic, p.Address = true, addr
		p.Name += "-" + strings.ReplaceAll(addr.String(), ":", "-")
		now.Peers = append(now.Peers, p)
	}
	return &now
}

// Dynamic lists the addresses of the dynamic peers.
func (c *Config) Dynamic() (addrs []netip.Addr) {
	for _, p := range c.Peers {
		if p.Dynamic {
			addrs = append(addrs, p.Address)
		}
	}
	return addrs
}
