package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// Roles (RFC 9234) with daemons that know them: what a provider announces reaches the
// customer with the mark and the lateral peer not at all, and a router that takes itself
// for something else gets no session.
func TestRoles(t *testing.T) {
	config := func(up string) string {
		return hostConfig + "peers:\n" + peer("up", lab.SeedNVA(0), 65101, "role: "+up) +
			peer("down", lab.SeedNVA(1), 65102, "role: customer", "role-strict: true") +
			peer("side", lab.SeedNVA(2), 65103, "role: peer")
	}
	b := newBed(t, 3, config("provider"))
	pfx4, pfx6 := prefix("172.20.1.0/24"), prefix("2001:db8:7201::/64")
	side4, down4 := prefix("172.20.3.0/24"), prefix("172.20.2.0/24")
	router := func(i int, role string, list ...netip.Prefix) router {
		r := b.router4(i, list...)
		r.asn, r.session = uint32(65101+i), []string{role}
		return r
	}
	up := router(0, "local role provider", pfx4, pfx6).startBIRD(t)
	down := router(1, "local role customer", down4).startBIRD(t)
	side := router(2, "local-role peer", side4).startFRR(t)
	b.up(t, "up", "down", "side")

	has := func(r *lab.BIRD, p netip.Prefix, otc int) {
		t.Helper()
		poll(t, fmt.Sprintf("%s in BIRD", p), func() error {
			out, err := r.Birdc(within(t), "show route all "+p.String())
			if err != nil {
				return err
			}
			if !strings.Contains(out, "BGP.as_path: 65515") || strings.Contains(out, "otc") != (otc > 0) ||
				otc > 0 && !strings.Contains(out, fmt.Sprintf("BGP.otc: %d", otc)) {
				return fmt.Errorf("want the mark of AS %d (0: none): %s", otc, out)
			}
			return nil
		})
	}
	has(down, prefix("10.1.0.0/16"), 65515)
	has(down, pfx4, 65101)
	has(down, pfx6, 65101)
	has(down, side4, 65103)
	has(up, prefix("10.1.0.0/16"), 0)
	has(up, down4, 0)
	frrPaths(t, side, down4, frrPath("65515 65102", lab.SeedNVA(1).String()))
	// What is for customers only came before, and is not there.
	for _, p := range []netip.Prefix{pfx4, pfx6} {
		frrPaths(t, side, p, func(paths []lab.FRRPath) error {
			if len(paths) > 0 {
				return fmt.Errorf("the lateral peer heard of %s: %+v", p, paths)
			}
			return nil
		})
	}
	if out := b.cli(t, "advertised", "side"); strings.Contains(out, pfx4.String()) || !strings.Contains(out, down4.String()) {
		t.Errorf("advertised to the lateral peer:\n%s", out)
	}
	poll(t, "the count of what is withheld", func() error {
		if out := b.cli(t, "peer", "side"); !strings.Contains(out, "2 that are for customers only") || !strings.Contains(out, "peer (it says so itself)") {
			return fmt.Errorf("nexthopctl peer side:\n%s", out)
		}
		return nil
	})
	if _, out := b.explain(t, pfx4.String()); !strings.Contains(out, "only to customers says AS 65101") {
		t.Errorf("explain does not name the mark:\n%s", out)
	}

	// The other side says provider still.
	must(t, b.d.SetConfig(config("customer")))
	must(t, b.d.Reload())
	const why = "the peer says that it is our provider, and is configured here as our customer (RFC 9234)"
	poll(t, "the reason", func() error {
		if p := b.peerStatus(t, "up"); p.LastDown != why || !strings.Contains(p.Warning, "the next attempt is at") {
			return fmt.Errorf("last down %q, warning %q", p.LastDown, p.Warning)
		}
		return nil
	})
	b.logged(t, "session-down", `"role-mismatch"`, why)
	b.gone(t, "up", pfx4)
	poll(t, "BIRD's word for it", func() error {
		out, err := up.Birdc(within(t), "show protocols all server")
		if err == nil && !strings.Contains(out, "Role mismatch") {
			err = fmt.Errorf("want Role mismatch in\n%s", out)
		}
		return err
	})
	must(t, b.d.SetConfig(config("provider")))
	must(t, b.d.Reload())
	b.up(t, "up", "down", "side")
	has(down, pfx4, 65101)
}
