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
	// ASNs are those that they may have. If it is one only, Like has it too.
	ASNs []ASNRange
	// Like is what they have in common. Its name is the beginning of theirs.
	Like Peer
}

// ASNRange are the AS numbers from First to Last.
type ASNRange struct{ First, Last uint32 }

func (r ASNRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Has tells whether the range holds an AS number.
func (r ASNRange) Has(asn uint32) bool { return r.First <= asn && asn <= r.Last }

// ASN returns the AS number of a peer of the range that says it has the one told, and
// false where it may not have that. Where only one is allowed, what a peer says is not
// asked for here.
func (d *DynamicPeers) ASN(told uint32) (uint32, bool) {
	if d.Like.ASN != 0 {
		return d.Like.ASN, true
	}
	return told, slices.ContainsFunc(d.ASNs, func(r ASNRange) bool { return r.Has(told) })
}

// Arrival is somebody of a range who connected.
type Arrival struct {
	Address netip.Addr
	ASN     uint32 // as told in the OPEN; 0 where the range has one only
}

var asNumbers = scalar[ASNRange]{
	"1 to 4294967294, except 23456 and 65535, or FIRST-LAST of such", func(text string) (ASNRange, error) {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		var r ASNRange
		var err error
		if r.First, err = parseASN(first); err == nil {
			r.Last, err = parseASN(last)
		}
		switch {
		case err != nil:
			return ASNRange{}, err
		case r.First > r.Last:
			return ASNRange{}, fmt.Errorf("%s ends before it begins", text)
		}
		return r, nil
	},
}

// asnList is the key of the ASNs: numbers, or texts for ranges of them.
func asnList() key[DynamicPeers] {
	k := list("asn", live, func(d *DynamicPeers) *[]ASNRange { return &d.ASNs }, asNumbers)
	k.shape = func() Key { return Key{Type: "integer", Named: true, List: true} }
	return k
}

var dynamicKeys = append([]key[DynamicPeers]{
	required(value("range", live, func(d *DynamicPeers) *netip.Prefix { return &d.Range }, vnetPrefix)),
	value("limit", live, func(d *DynamicPeers) *int { return &d.Limit }, number(1, 1000)),
	required(asnList()),
}, within(func(d *DynamicPeers) *Peer { return &d.Like }, slices.DeleteFunc(slices.Clone(peerKeys), func(k key[Peer]) bool {
	switch k.name {
	case "address", "local-address", "shutdown": // of one peer
		return true
	case "asn": // see asnList
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
		if len(r.ASNs) == 1 && r.ASNs[0].First == r.ASNs[0].Last {
			r.Like.ASN = r.ASNs[0].First
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
	sum := func(d DynamicPeers) string { return fmt.Sprintf("AS %s, limit %d", showAll(d.ASNs), d.Limit) }
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
	if n, given := d.at(path("asn")); given && len(r.ASNs) == 0 && d.good(path("asn")) {
		d.fail(n, "is empty, and nobody could become a peer, allowed: at least one AS number")
	}
	for j, asns := range r.ASNs {
		if r.Like.ASN == 0 && asns.Has(c.ASN) && d.good("asn") {
			n, _ := d.at(fmt.Sprintf("dynamic-peers[%d].asn[%d]", i, j))
			d.fail(n, "%s has the local AS %d (%s), and only eBGP is spoken, allowed: other ASes", asns, c.ASN, d.line("asn"))
		}
	}
	for j, p := range c.Peers {
		if r.Like.PasswordFile != "" && p.PasswordFile == "" && r.Range.IsValid() && r.Range.Contains(p.Address) {
			d.fail(at("range"), "the peer in %s is in it and has no password, and the kernel would drop what it sends unsigned, allowed: a password for that peer too, or another range",
				d.line(fmt.Sprintf("peers[%d].address", j)))
		}
	}
	d.exclusive(path("password-file"), path("password-credential"))
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

// With is the configuration with those who came as peers too whose ASN their range allows,
// and has room for. Dynamic peers that it had stay only if they are among them; a peer of
// the file comes first.
func (c *Config) With(came []Arrival) *Config {
	now := *c
	now.Peers = slices.DeleteFunc(slices.Clone(c.Peers), func(p Peer) bool { return p.Dynamic })
	for _, a := range came {
		addr := a.Address
		r := now.RangeOf(addr)
		if r == nil || now.Has(addr) || now.Count(r) >= r.Limit {
			continue
		}
		asn, ok := r.ASN(a.ASN)
		if !ok {
			continue
		}
		p := r.Like
		p.Dynamic, p.Address, p.ASN = true, addr, asn
		p.Name += "-" + strings.ReplaceAll(addr.String(), ":", "-")
		now.Peers = append(now.Peers, p)
	}
	return &now
}

// Dynamic lists the dynamic peers.
func (c *Config) Dynamic() (came []Arrival) {
	for _, p := range c.Peers {
		if p.Dynamic {
			came = append(came, Arrival{p.Address, p.ASN})
		}
	}
	return came
}
