package e2e_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// S31: a path whose next hop cannot be reached, or whose route the kernel does not take,
// is not announced to the other NVAs. The next best path is, and the path itself again
// when it forwards.
func TestS31_AnnounceWhatForwards(t *testing.T) {
	b := newBed(t, 3, hostConfig+"peers:\n"+peer("a", lab.SeedNVA(0), 65101, "passive: true")+
		peer("b", lab.SeedNVA(1), 65102)+peer("c", lab.SeedNVA(2), 65103, "passive: true"))
	r := b.router4(1)
	r.asn = 65102
	f := r.startFRR(t)
	oa, oc := nva4(0), nva4(2)
	oa.ASN, oc.ASN = 65101, 65103
	sa, sc := b.dial(t, b.NVAs[0], oa), b.dial(t, b.NVAs[2], oc)
	b.up(t, "a", "b", "c")
	established, _ := frrNeighbor(t, f, lab.SeedHost)
	none := func(paths []lab.FRRPath) error {
		if len(paths) > 0 {
			return fmt.Errorf("heard of %+v", paths)
		}
		return nil
	}
	both(t, "S31", "172.16.1.0/24", "2001:db8:7101::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		far, behind := addr("10.66.0.9"), "10.66.0.0/24"
		if p.Addr().Is6() {
			far, behind = addr("2001:db8:66::9"), "2001:db8:66::/64"
		}
		way := behind + " via " + gw(0).String()
		as, cs := frrPath("65515 65101", far.String()), frrPath("65515 65103 65103", gw(2).String())

		t.Run("next hop", func(t *testing.T) {
			must(t, b.Host.AddRoute(way))
			announce(t, sa, attrs(far, 65101), p)
			frrPaths(t, f, p, as)
			must(t, b.Host.IP("route del "+behind))
			frrPaths(t, f, p, none)
			must(t, b.Host.AddRoute(way))
			frrPaths(t, f, p, as)
		})
		t.Run("the next best", func(t *testing.T) {
			announce(t, sc, attrs(gw(2), 65103, 65103), p)
			b.learned(t, "c", p, reason("as-path-longer"))
			must(t, b.Host.IP("route del "+behind))
			frrPaths(t, f, p, cs)
			must(t, b.Host.AddRoute(way))
			frrPaths(t, f, p, as)
		})
		t.Run("foreign route", func(t *testing.T) {
			foreign := fmt.Sprintf("%s via %s metric 20 proto static", p, gw(1))
			must(t, b.Host.IP("route replace "+foreign))
			frrPaths(t, f, p, none)
			b.learned(t, "a", p, reason("foreign-route"))
			must(t, b.Host.IP("route del "+foreign))
			frrPaths(t, f, p, as)
		})
		must(t, sa.Withdraw(p))
		frrPaths(t, f, p, cs)
		must(t, sc.Withdraw(p))
		frrPaths(t, f, p, none)
	})
	if now, text := frrNeighbor(t, f, lab.SeedHost); now.Established != established.Established {
		t.Errorf("the session was reset:\n%s", text)
	}
}
