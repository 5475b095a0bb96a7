package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// S18, S21 and the guards: what a hostile appliance announces moves no traffic that is
// not its own, neither that of the host nor, through what is announced to them, that of
// other appliances; and explain says why, for each.
func TestHostileAnnouncements(t *testing.T) {
	b := newBed(t, 3, hostConfig+"peers:\n"+peer("hostile", lab.SeedNVA(0), 65101, "passive: true")+
		peer("good", lab.SeedNVA(1), 65102, "passive: true")+peer("witness", lab.SeedNVA(2), 65103, "passive: true"))
	// An address of the host and a way to an appliance's loopback, both outside the VNet.
	must(t, b.Host.IP("addr add 198.51.100.7/32 dev lo"))
	must(t, b.Host.IP("addr add 2001:db8:c6::7/128 dev lo"))
	must(t, b.Host.AddRoute("198.51.100.64/26 via "+lab.SeedNVA(1).String()))
	must(t, b.Host.AddRoute("2001:db8:c6:64::/64 via "+lab.SeedNVA6(1).String()))
	var s []*nva.Session
	for i := range 3 {
		o := nva4(i)
		o.ASN = 65101 + uint32(i)
		s = append(s, b.dial(t, b.NVAs[i], o))
	}
	hostile, good, witness := s[0], s[1], s[2]
	// The good appliance serves the branch, with its loopback as the next hop.
	announce(t, good, attrs(addr("198.51.100.65"), 65102), lab.SeedBranch)
	announce(t, good, attrs(addr("2001:db8:c6:64::65"), 65102), lab.SeedBranch6)
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	b.route(t, lab.SeedBranch6, lab.SeedNVA6(1))

	bait := func(p netip.Prefix, asPath ...uint32) {
		t.Helper()
		gw := lab.SeedNVA(0)
		if p.Addr().Is6() {
			gw = lab.SeedNVA6(0)
		}
		must(t, hostile.Announce(attrs(gw, asPath...), p))
	}
	// Where the host sends packets to the addresses that are to be stolen.
	targets := []string{
		"10.1.0.5", "10.1.2.4", "10.1.9.9", "198.51.100.7", "198.51.100.65", "192.168.255.9", "169.254.169.254",
		"2001:db8:1::5", "2001:db8:1::2:4", "2001:db8:1::9", "2001:db8:c6::7", "2001:db8:c6:64::65", lab.SeedServer6.String(),
	}
	ways := func() string {
		var all string
		for _, to := range targets {
			out, err := b.Host.Run(within(t), "ip", "route", "get", to)
			all += fmt.Sprintln(to, strings.Fields(out+" cache"), err)
		}
		return all
	}
	before := ways()

	for _, tt := range []struct {
		name, prefix, reason string
		asPath               []uint32
	}{
		{"the VNet prefix", "10.1.0.0/16", "inside-vnet", nil},
		{"the VNet prefix", "2001:db8:1::/64", "inside-vnet", nil},
		{"a more-specific of the VNet", "10.1.9.0/24", "inside-vnet", nil},
		{"a more-specific of the VNet", "2001:db8:1::/65", "inside-vnet", nil},
		{"an appliance's address", "10.1.0.5/32", "inside-vnet", nil},
		{"an appliance's address", "2001:db8:1::5/128", "inside-vnet", nil},
		{"an appliance's loopback", "198.51.100.65/32", "covers-next-hop", nil},
		{"an appliance's loopback", "2001:db8:c6:64::65/128", "covers-next-hop", nil},
		{"a more-specific of the way there", "198.51.100.64/27", "covers-next-hop", nil},
		{"the host's address in the VNet", "10.1.2.4/32", "own-address", nil},
		{"the host's address in the VNet", "2001:db8:1::2:4/128", "own-address", nil},
		{"another address of the host", "198.51.100.7/32", "own-address", nil},
		{"another address of the host", "2001:db8:c6::7/128", "own-address", nil},
		{"the metadata service", "169.254.169.254/32", "martian-prefix", nil},
		{"loopback", "127.0.0.0/8", "martian-prefix", nil},
		{"the branch of another, without an AS", lab.SeedBranch.String(), "as-path-empty", []uint32{}},
		{"the branch of another, in its name", lab.SeedBranch6.String(), "first-as", []uint32{65102}},
	} {
		t.Run(tt.name+" "+tt.prefix, func(t *testing.T) {
			p := prefix(tt.prefix)
			if tt.asPath == nil {
				tt.asPath = []uint32{65101}
			}
			bait(p, tt.asPath...)
			b.learned(t, "hostile", p, reason(tt.reason))
			x, text := b.explain(t, p.String())
			if !strings.Contains(text, tt.reason) || !explains(x, "hostile", tt.reason) {
				t.Errorf("explain %s does not say %s:\n%s", p, tt.reason, text)
			}
			if got := ways(); got != before {
				t.Errorf("with %s announced, the host sends\n%s\nbefore\n%s", p, got, before)
			}
		})
	}
	t.Run("not announced to others", func(t *testing.T) {
		poll(t, "nothing of it in what the witness has", func() error {
			for _, path := range witness.Received().Paths() {
				if strings.Contains(nva.PathString(path.Attrs.ASPath), "65101") {
					return fmt.Errorf("has %s", path)
				}
			}
			return nil
		})
		for _, p := range []netip.Prefix{lab.SeedBranch, lab.SeedBranch6, lab.SeedVNet, lab.SeedVNet6} {
			value(witness.Received().WaitPath(within(t), p, nil))(t)
		}
	})
	// S10: a default route is ordinary. It draws what nobody else has a way to, and no more.
	t.Run("a default route", func(t *testing.T) {
		for _, p := range []string{"0.0.0.0/0", "::/0"} {
			bait(prefix(p), 65101)
			b.learned(t, "hostile", prefix(p), reason(""))
		}
		rest := strings.Split(before, "\n")
		for i, now := range strings.Split(ways(), "\n") {
			if now != rest[i] && !strings.Contains(rest[i], "unreachable") {
				t.Errorf("with a default route, the host sends\n%s\nbefore\n%s", now, rest[i])
			}
		}
		if out := value(b.Host.Run(within(t), "ip", "route", "get", "203.0.113.1"))(t); !strings.Contains(out, "via 10.1.0.4 ") {
			t.Errorf("the default route is not used: %s", out)
		}
	})
	counts := b.peerStatus(t, "hostile").Refused
	if counts["martian-prefix"] != 2 || counts["own-address"] != 4 || counts["first-as"] != 1 || counts["as-path-empty"] != 1 {
		t.Errorf("refused by reason: %v", counts)
	}
	b.up(t, "hostile", "good", "witness")
}

// explains tells whether the reason is given for the prefix, or for the peer's path.
func explains(x status.Explanation, peer, reason string) bool {
	for _, p := range x.Paths {
		if p.Peer == peer && (p.Reason == reason || p.Reason == "" && x.Reason == reason) && !p.Installed {
			return true
		}
	}
	return false
}
