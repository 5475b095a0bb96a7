package e2e_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// S15, the seed case, with FRR at 10.1.0.4 and BIRD at 10.1.0.5, for both families and
// both kinds of kernel route, with traffic, and with explain before and after.
func TestS15_SeedCase(t *testing.T) {
	requireFRR(t)
	requireBIRD(t)
	for _, mode := range fibModes {
		t.Run(mode.name, func(t *testing.T) {
			b := newBed(t, 2, hostConfig+mode.config+"peers:\n"+
				peer("frr", lab.SeedNVA(0), lab.SeedASN)+peer("bird", lab.SeedNVA(1), lab.SeedASN))
			r0, r1 := b.router4(0, lab.SeedBranch, lab.SeedBranch6), b.router4(1, lab.SeedBranch, lab.SeedBranch6)
			f, bird := r0.startFRR(t), r1.startBIRD(t)
			families := []struct {
				name   string
				branch netip.Prefix
				server netip.Addr
				gw     [2]netip.Addr
			}{
				{"IPv4", lab.SeedBranch, lab.SeedServer, [2]netip.Addr{lab.SeedNVA(0), lab.SeedNVA(1)}},
				{"IPv6", lab.SeedBranch6, lab.SeedServer6, [2]netip.Addr{lab.SeedNVA6(0), lab.SeedNVA6(1)}},
			}
			traffic := map[string]*lab.Traffic{}
			check := func(t *testing.T, since time.Time, lossless bool, used ...int) {
				t.Helper()
				for _, fam := range families {
					var gws []netip.Addr
					for _, i := range used {
						gws = append(gws, fam.gw[i])
					}
					b.route(t, fam.branch, gws...)
					if traffic[fam.name] == nil {
						continue
					}
					if r := traffic[fam.name].Report(since); lossless && r.Lost() > 0 {
						t.Errorf("%s: %d of %d packets lost", fam.name, r.Lost(), r.Sent())
					}
					r := b.steady(t, traffic[fam.name], 500)
					for i, n := range b.NVAs {
						want := len(used) == 2 || used[0] == i
						if got := r.Via()[n.Name] > 0; got != want {
							t.Errorf("%s: traffic passes %v, with the next hops %v", fam.name, r.Via(), gws)
						}
					}
				}
			}
			// explained checks what explain says of the prefix and of BIRD's path.
			explained := func(t *testing.T, branch netip.Prefix, nextHops int, step, verdict, line string) {
				t.Helper()
				x, text := b.explain(t, branch.String())
				if len(x.Paths) != 2 || len(x.Desired) != nextHops || len(x.InKernel) != 1 {
					t.Errorf("explain %s: %d paths, desired %q, in the kernel %q", branch, len(x.Paths), x.Desired, x.InKernel)
				}
				for _, p := range x.Paths {
					want := ""
					if p.Peer == "bird" {
						want = step
					}
					if p.Step != want || p.Installed != (want == "") || p.ECMP != (nextHops == 2) {
						t.Errorf("explain %s: path of %s: step %q, installed %t, ECMP %t; want step %q", branch, p.Peer, p.Step, p.Installed, p.ECMP, want)
					}
				}
				for _, want := range []string{verdict, line} {
					if !strings.Contains(text, want) {
						t.Errorf("explain %s does not say %q:\n%s", branch, want, text)
					}
				}
			}

			check(t, time.Time{}, false, 0, 1)
			for _, fam := range families {
				traffic[fam.name] = b.flows(t, lab.TrafficConfig{Dst: fam.server, Flows: 16, Rate: 200})
			}
			t.Run("both", func(t *testing.T) {
				check(t, time.Now(), true, 0, 1)
				for _, fam := range families {
					out := b.ip(t, fam.branch)
					if !strings.Contains(out, fam.gw[0].String()) || !strings.Contains(out, fam.gw[1].String()) {
						t.Errorf("ip route show %s does not show both next hops: %s", fam.branch, out)
					}
					explained(t, fam.branch, 2, "", "installed with 2 next hops, from 2 of 2 paths", "used, shares the traffic")
				}
			})
			t.Run("prepend", func(t *testing.T) {
				since := time.Now()
				r1.out = "bgp_path.prepend(65147); bgp_path.prepend(65147);"
				must(t, bird.Configure(within(t), r1.bird()))
				check(t, since, true, 0)
				for _, fam := range families {
					explained(t, fam.branch, 1, "as-path-longer", "installed with 1 next hop, from 1 of 2 paths", "AS path length 3, the best has 1")
				}
			})
			t.Run("unprepend", func(t *testing.T) {
				since := time.Now()
				r1.out = ""
				must(t, bird.Configure(within(t), r1.bird()))
				check(t, since, true, 0, 1)
				for _, fam := range families {
					explained(t, fam.branch, 2, "", "installed with 2 next hops", "used, shares the traffic")
				}
			})
			t.Run("death", func(t *testing.T) {
				since := time.Now()
				must(t, b.NVAs[0].SetForwarding(false))
				must(t, f.Kill())
				check(t, since, false, 1)
				for _, fam := range families {
					r := traffic[fam.name].Report(since)
					t.Logf("%s: %d of %d packets lost, interruption %s", fam.name, r.Lost(), r.Sent(), r.Interruption())
					if gap := r.Interruption(); gap > 30*time.Second {
						t.Errorf("%s: traffic was interrupted for %s", fam.name, gap)
					}
					x, _ := b.explain(t, fam.branch.String())
					if len(x.Paths) != 1 || x.Paths[0].Peer != "bird" || !x.Paths[0].Installed {
						t.Errorf("explain %s after 10.1.0.4 died: %+v", fam.branch, x)
					}
				}
				if p := b.peerStatus(t, "frr"); p.State == "Established" || p.LastDown == "" {
					t.Errorf("nexthopctl peers after 10.1.0.4 died: %+v", p)
				}
			})
		})
	}
}
