package bgp

import (
	"net/netip"
	"testing"
)

func prefixList(prefixes ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestRangesIn(t *testing.T) {
	for _, v := range []string{"10.1.0.0/28", "fd00:1::/124"} {
		v := netip.MustParsePrefix(v)
		var all []netip.Prefix
		for bits := v.Bits(); bits <= v.Addr().BitLen(); bits++ {
			for a := v.Addr(); v.Contains(a); a = a.Next() {
				if p := netip.PrefixFrom(a, bits); p == p.Masked() {
					all = append(all, p)
				}
			}
		}
		matches := func(p netip.Prefix, allow ...netip.Prefix) int {
			n := 0
			for _, e := range rangesIn(v, allow) {
				x := netip.MustParsePrefix(e.IpPrefix)
				if p.Bits() >= int(e.MaskLengthMin) && p.Bits() <= int(e.MaskLengthMax) && p.Bits() >= x.Bits() && x.Contains(p.Addr()) {
					n++
				}
			}
			return n
		}
		for i, a := range all {
			b := all[(i*7)%len(all)]
			for _, p := range all {
				want := 1
				if p == a || p == b {
					want = 0
				}
				if got := matches(p, a, b); got != want {
					t.Fatalf("within %s but %s and %s: %s matches %d entries, want %d", v, a, b, p, got, want)
				}
			}
		}
	}
}

// S18 and the martian guard: other peers never hear of it, not for a moment; what is
// allowed again is announced, without a reset.
func TestRefuseInside(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	conf := peerConf(4, 65147)
	conf.Guards.Martian = true
	mustAdd(t, s, conf, peerConf(5, 65148))
	vnet := prefixList("10.1.0.0/16", "fd00:1::/64")
	if err := s.RefuseInside(vnet, prefixList("10.1.7.0/24")); err != nil {
		t.Fatal(err)
	}
	mustSetVNet(t, s, "10.1.0.0/16", "fd00:1::/64")
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	bad := []string{"10.1.0.0/16", "10.1.9.0/24", "10.1.7.0/25", "169.254.169.254/32"}
	a.announce(announce{prefixes: append(bad, "10.1.7.0/24", "10.0.0.0/8", "0.0.0.0/0"), asPath: "65147", nextHop: "10.1.0.4"})
	a.announce(announce{prefixes: []string{"fd00:1::/96", "::1/128", "::/0"}, asPath: "65147", nextHop: "fd00:1::4"})
	const theirs = "65515 65147 via 10.1.0.4 [igp] med - []"
	for _, p := range []string{"10.1.7.0/24", "10.0.0.0/8", "0.0.0.0/0"} {
		b.wantRoute(p, theirs)
	}
	b.wantRoute("::/0", "65515 65147 via fd00:1::4 [igp] med - []")
	b.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	if n := b.routes(); n != 6 {
		t.Errorf("the other peer has %d routes, want 6", n)
	}
	if err := s.RefuseInside(vnet, prefixList("10.1.9.0/24")); err != nil {
		t.Fatal(err)
	}
	b.wantRoute("10.1.9.0/24", theirs)
	b.wantRoute("10.1.7.0/24", "")
	conf.Guards.Martian = false
	if err := s.UpdatePeer(conf); err != nil {
		t.Fatal(err)
	}
	b.wantRoute("169.254.169.254/32", theirs)
	if a.isClosed() || b.isClosed() {
		t.Error("a session was reset")
	}
}
