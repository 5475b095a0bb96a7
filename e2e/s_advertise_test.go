package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// S28: each VNet prefix goes to every peer, with AS path 65515, ORIGIN IGP and the
// session's local address or what is configured as next hop.
func TestS28_VNet(t *testing.T) {
	config := func(vnet string) string {
		return "router-id: 10.1.2.4\nvnet: {" + vnet + "}\npeers:\n" +
			peer("frr", lab.SeedNVA(0), lab.SeedASN) + peer("bird", lab.SeedNVA6(1), lab.SeedASN) +
			peer("nva", lab.SeedNVA(2), 65148, "passive: true")
	}
	b := newBed(t, 3, config(`prefixes: [10.1.0.0/16, 10.2.0.0/16, "2001:db8:1::/64"]`))
	f, bird := b.router4(0).startFRR(t), b.router6(1).startBIRD(t)
	o := nva4(2)
	o.ASN = 65148
	s := b.dial(t, b.NVAs[2], o)
	wants := func(t *testing.T, nh4, nh6 string, list ...string) {
		t.Helper()
		for _, p := range list {
			nh := nh4
			if strings.Contains(p, ":") {
				nh = nh6
			}
			frrPaths(t, f, prefix(p), func(paths []lab.FRRPath) error {
				if err := frrPath("65515", nh)(paths); err != nil || paths[0].Origin != "IGP" {
					return fmt.Errorf("%w, origin %+v", err, paths)
				}
				return nil
			})
			birdRoute(t, bird, prefix(p), "BGP.as_path: 65515\n", "BGP.origin: IGP", "BGP.next_hop: "+nh)
			got := value(s.Received().WaitPath(within(t), prefix(p), nil))(t)
			if want := p + " next-hop " + nh + " as-path 65515 origin IGP"; got.String() != want {
				t.Errorf("received %s, want %s", got, want)
			}
		}
	}
	t.Run("S28/local address", func(t *testing.T) {
		wants(t, "10.1.2.4", "2001:db8:1::2:4", "10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/64")
	})
	t.Run("S28/never overridden", func(t *testing.T) {
		short := prefix("10.1.0.0/16")
		announce(t, s, nva.Attrs{ASPath: nva.Seq(65148)}, short)
		b.learned(t, "nva", short, reason("inside-vnet"))
		wants(t, "10.1.2.4", "2001:db8:1::2:4", "10.1.0.0/16")
	})
	t.Run("S28/other prefixes and next hops", func(t *testing.T) {
		must(t, b.d.SetConfig(config(`prefixes: [10.1.0.0/16, 10.4.0.0/16, "2001:db8:1::/64"], next-hop: [10.1.2.99, "2001:db8:1::99"]`)))
		must(t, b.d.Restart(within(t)))
		s = b.dial(t, b.NVAs[2], o)
		wants(t, "10.1.2.99", "2001:db8:1::99", "10.1.0.0/16", "10.4.0.0/16", "2001:db8:1::/64")
		frrPaths(t, f, prefix("10.2.0.0/16"), func(paths []lab.FRRPath) error {
			if len(paths) > 0 {
				return fmt.Errorf("the removed prefix is still there: %+v", paths)
			}
			return nil
		})
	})
}

// crowd are four appliances of an ASN each: a router of either kind that announces,
// and two that tell what they hear.
type crowd struct {
	*bed
	frr  *lab.FRR
	bird *lab.BIRD
	r    [2]router
	s    [2]*nva.Session // plain: next hops as they are; self: ours
}

func newCrowd(t *testing.T, config string) *crowd {
	t.Helper()
	b := newBed(t, 4, hostConfig+config+"peers:\n"+
		peer("frr", lab.SeedNVA(0), 65101)+peer("bird", lab.SeedNVA6(1), 4200000102)+
		peer("plain", lab.SeedNVA(2), 65103, "passive: true")+
		peer("self", lab.SeedNVA6(3), 65104, "passive: true", "next-hop: self"))
	c := &crowd{bed: b}
	c.r[0] = b.router4(0, prefix("172.16.1.0/24"), prefix("2001:db8:7101::/64"))
	c.r[1] = b.router6(1, prefix("172.16.2.0/24"), prefix("2001:db8:7102::/64"))
	c.r[0].asn, c.r[1].asn = 65101, 4200000102
	c.r[0].out = "set community 65101:7 65000:1"
	c.r[1].out = "bgp_path.prepend(65009); bgp_community.add((65102,8));"
	c.frr, c.bird = c.r[0].startFRR(t), c.r[1].startBIRD(t)
	plain, self := nva4(2), nva6(3)
	plain.ASN, self.ASN = 65103, 65104
	c.s[0], c.s[1] = b.dial(t, b.NVAs[2], plain), b.dial(t, b.NVAs[3], self)
	b.up(t, "frr", "bird", "plain", "self")
	return c
}

// S29: what one NVA announces, the others hear, with our ASN in front, communities and
// next hop as they were, and the NVA itself does not.
func TestS29_BranchToBranch(t *testing.T) {
	c := newCrowd(t, "")
	heard := func(t *testing.T, i int, p, want string) {
		t.Helper()
		var got nva.Path
		_, err := c.s[i].Received().WaitPath(within(t), prefix(p), func(path nva.Path) bool {
			// Communities have no order.
			slices.Sort(path.Attrs.Communities)
			got = path
			return strings.Replace(path.String(), " med 0", "", 1) == p+want
		})
		if err != nil {
			t.Errorf("heard %s, want %s%s: %v", got, p, want, err)
		}
	}
	t.Run("S29/next hop unchanged", func(t *testing.T) {
		heard(t, 0, "172.16.1.0/24", " next-hop 10.1.0.4 as-path 65515 65101 origin IGP community 65000:1,65101:7")
		heard(t, 0, "2001:db8:7101::/64", " next-hop 2001:db8:1::4 as-path 65515 65101 origin IGP community 65000:1,65101:7")
		heard(t, 0, "172.16.2.0/24", " next-hop 10.1.0.5 as-path 65515 4200000102 65009 origin IGP community 65102:8")
		heard(t, 0, "2001:db8:7102::/64", " next-hop 2001:db8:1::5 as-path 65515 4200000102 65009 origin IGP community 65102:8")
		frrPaths(t, c.frr, prefix("172.16.2.0/24"), frrPath("65515 4200000102 65009", "10.1.0.5"))
		frrPaths(t, c.frr, prefix("2001:db8:7102::/64"), frrPath("65515 4200000102 65009", "2001:db8:1::5"))
		birdRoute(t, c.bird, prefix("172.16.1.0/24"), "BGP.as_path: 65515 65101\n", "BGP.next_hop: 10.1.0.4", "(65101,7)", "(65000,1)")
		birdRoute(t, c.bird, prefix("2001:db8:7101::/64"), "BGP.as_path: 65515 65101\n", "BGP.next_hop: 2001:db8:1::4", "(65101,7)")
	})
	t.Run("S29/next hop self", func(t *testing.T) {
		heard(t, 1, "172.16.1.0/24", " next-hop 10.1.2.4 as-path 65515 65101 origin IGP community 65000:1,65101:7")
		heard(t, 1, "2001:db8:7102::/64", " next-hop 2001:db8:1::2:4 as-path 65515 4200000102 65009 origin IGP community 65102:8")
	})
	t.Run("S29/not back", func(t *testing.T) {
		for name, own := range map[string][]netip.Prefix{"frr": c.r[0].prefixes, "bird": c.r[1].prefixes} {
			for _, row := range list[status.Path](t, c.bed, "advertised", name) {
				if slices.Contains(own, prefix(row.Network)) {
					t.Errorf("%s hears its own %+v", name, row)
				}
			}
		}
		for _, p := range c.r[0].prefixes {
			frrPaths(t, c.frr, p, func(paths []lab.FRRPath) error {
				if len(paths) != 1 || paths[0].Path != "" { // FRR's own
					return fmt.Errorf("%+v", paths)
				}
				return nil
			})
		}
	})
	t.Run("S29/withdrawal", func(t *testing.T) {
		must(t, c.frr.Kill())
		for _, p := range c.r[0].prefixes {
			for _, s := range c.s {
				must(t, s.Received().WaitGone(within(t), p))
			}
		}
	})
}

// S29: without branch-to-branch, NVAs hear of the VNet and of nobody else.
func TestS29_NoBranchToBranch(t *testing.T) {
	c := newCrowd(t, "branch-to-branch: false\n")
	for i, r := range c.r {
		for _, p := range r.prefixes {
			gw := lab.SeedNVA(i)
			if p.Addr().Is6() {
				gw = lab.SeedNVA6(i)
			}
			c.route(t, p, gw) // so they have arrived
		}
	}
	for i, s := range c.s {
		// The answer to a ROUTE-REFRESH comes after whatever was under way.
		for family, p := range map[nva.Family]netip.Prefix{nva.IPv4: lab.SeedVNet, nva.IPv6: lab.SeedVNet6} {
			first := value(s.Received().WaitPath(within(t), p, nil))(t)
			must(t, s.Write(nva.RefreshRequest(family)))
			value(s.Received().WaitPath(within(t), p, func(again nva.Path) bool { return again.At.After(first.At) }))(t)
		}
		for _, p := range s.Received().Paths() {
			if nva.PathString(p.Attrs.ASPath) != "65515" {
				t.Errorf("appliance %d heard %s", i, p)
			}
		}
	}
	for _, row := range list[status.Path](t, c.bed, "advertised") {
		if row.AsPath != "65515" {
			t.Errorf("advertised: %+v", row)
		}
	}
}

// S30: what carries NO_ADVERTISE or NO_EXPORT is installed, and announced to nobody.
func TestS30_WellKnownCommunities(t *testing.T) {
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("a", lab.SeedNVA(0), 65101, "passive: true")+peer("b", lab.SeedNVA(1), 65102, "passive: true"))
	oa, ob := nva4(0), nva4(1)
	oa.ASN, ob.ASN = 65101, 65102
	sa, sb := b.dial(t, b.NVAs[0], oa), b.dial(t, b.NVAs[1], ob)
	for name, community := range map[string]nva.Community{"NO_ADVERTISE": 0xffffff02, "NO_EXPORT": 0xffffff01} {
		both(t, "S30/"+name, "172.16.1.0/24", "2001:db8:7101::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
			a := attrs(gw(0), 65101)
			must(t, sa.Announce(a, p))
			value(sb.Received().WaitPath(within(t), p, nil))(t)
			a.Communities = []nva.Community{0xfe4d0001, community}
			must(t, sa.Announce(a, p))
			must(t, sb.Received().WaitGone(within(t), p))
			b.route(t, p, gw(0))
			b.learned(t, "a", p, func(row status.Path) error {
				if !row.Installed || !slices.Contains(row.Communities, community.String()) {
					return fmt.Errorf("%+v", row)
				}
				return nil
			})
			for _, row := range list[status.Path](t, b, "advertised") {
				if row.Network == p.String() {
					t.Errorf("advertised: %+v", row)
				}
			}
			a.Communities = nil
			must(t, sa.Announce(a, p))
			value(sb.Received().WaitPath(within(t), p, nil))(t)
			must(t, sa.Withdraw(p))
			must(t, sb.Received().WaitGone(within(t), p))
		})
	}
}
