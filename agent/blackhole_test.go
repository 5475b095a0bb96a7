package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// blackholeAttrs are those of a path of the peer that asks for the traffic to be dropped.
func blackholeAttrs(peer netip.Addr) *rib.Attrs {
	at := attrs(peer, 1)
	at.Communities = []uint32{65535<<16 | 666}
	return at
}

// RFC 7999: a blackhole path of a peer that may drops the traffic to a host, here only, and
// only for as long as the peer asks for it. Guards apply to it as to any other.
func TestBlackhole(t *testing.T) {
	host, inside := prefix("192.168.255.9/32"), prefix("10.1.9.9/32")
	mayBlackhole := func(c *config.Config, _ *fibtest.Machine) { c.Peers[0].Blackhole = true }
	for _, classic := range []bool{false, true} {
		bubble(t, map[bool]string{false: "groups", true: "classic"}[classic], func(t *testing.T) {
			l := newLab(t, func(c *config.Config, m *fibtest.Machine) { c.FIB.NextHopObjects = !classic })
			dropped := func(when string, want bool) {
				t.Helper()
				l.settle()
				r := l.m.Routes(host, owner.Table)
				if got := len(r) == 1 && r[0].Type == rtnBlackhole; got != want {
					t.Errorf("%s: route %+v, dropped %t, want %t", when, r, got, want)
				}
				l.consistent()
			}
			l.up(quagga, bird)
			l.announce(bird, host, seed)
			l.announceWith(quagga, blackholeAttrs(quagga), host, seed, inside)
			dropped("not allowed", false)
			l.expect("not allowed", host, "10.1.0.4", "10.1.0.5")
			l.reload(func(c *config.Config) { mayBlackhole(c, nil) })
			dropped("allowed", true)
			l.expect("a wider prefix", seed, "10.1.0.4", "10.1.0.5")
			l.expectReason("allowed", quagga, host, "installed")
			l.expectReason("as good", bird, host, "blackholed")
			l.expectReason("inside the VNet", quagga, inside, "inside-vnet")
			l.expectHeld("allowed", "10.1.0.4 10.1.9.9/32, 10.1.0.4 192.168.255.9/32")

			x, err := l.a.explain(t.Context(), host.String())
			if err != nil || !strings.Contains(x.Verdict, "blackhole") || len(x.Desired) != 1 || x.Desired[0] != "blackhole" ||
				len(x.InKernel) != 1 || !strings.Contains(x.InKernel[0], "192.168.255.9/32 blackhole") {
				t.Errorf("explain: %s, %v", text(x), err)
			}
			for _, r := range collect(t, func(row func(status.Route) error) error { return l.a.routes(t.Context(), row) }) {
				if r.Prefix == host.String() && (r.NextHopType != "None" || r.Peer != l.cfg.Peers[0].Name || r.NextHopIP != "" || r.Interface != "") {
					t.Errorf("routes: %s", text(r))
				}
			}

			if !slices.ContainsFunc(l.a.Overview().Groups, func(g status.Group) bool {
				return slices.ContainsFunc(g.Ways, func(w status.Way) bool { return w.To() == "blackhole" })
			}) {
				t.Errorf("the overview has no blackhole: %s", text(l.a.Overview().Groups))
			}

			l.m.DelRoute(fib.Route{Prefix: host, Table: owner.Table, Metric: owner.Metric})
			dropped("deleted by another", true)
			l.down(quagga)
			dropped("the peer is lost", false)
			l.expect("the peer is lost", host, "10.1.0.5")
			l.up(quagga)
			l.announceWith(quagga, blackholeAttrs(quagga), host)
			dropped("it is back", true)
			l.announce(quagga, host)
			dropped("without the community", false)
			l.expect("without the community", host, "10.1.0.4", "10.1.0.5")
			l.expectHeld("without the community", "10.1.0.4 10.1.9.9/32")
		})
	}
}

// S25: the next process adopts a blackhole without a write.
func TestBlackholeAdopted(t *testing.T) {
	host := prefix("192.168.255.9/32")
	bubble(t, "", func(t *testing.T) {
		cfg := testConfig()
		cfg.Peers[0].Blackhole = true
		m, eth0 := newHost()
		run := func() *lab {
			l := startLab(t, cfg, m, eth0)
			l.up(quagga, bird)
			l.announceWith(quagga, blackholeAttrs(quagga), host)
			l.eor(quagga)
			l.eor(bird)
			l.settle()
			return l
		}
		if err := run().stop(); err != nil {
			t.Fatal(err)
		}
		l := run()
		if n := l.ops(); n[fib.RouteAdd]+n[fib.RouteReplace]+n[fib.RouteDel]+n[fib.GroupAdd]+n[fib.GroupReplace]+n[fib.NextHopAdd] > 0 {
			t.Errorf("adoption wrote %v", n)
		}
		l.expectReason("adopted", quagga, host, "installed")
		l.consistent()
		l.atRest()
	})
}
