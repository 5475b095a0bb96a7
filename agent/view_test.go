package agent

import (
	"context"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// learnedOf lists what a peer announced, as nexthopctl shows it.
func (l *lab) learnedOf(peer netip.Addr) []status.Path {
	l.t.Helper()
	return collect(l.t, func(row func(status.Path) error) error {
		return l.a.learned(context.Background(), l.a.peers.byAddr[peer], row)
	})
}

func collect[T any](t *testing.T, list func(func(T) error) error) []T {
	t.Helper()
	var out []T
	if err := list(func(x T) error { out = append(out, x); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// S32: the columns of Azure, and ours beside them.
func TestLearnedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		start := time.Now()
		l.up(quagga, bird)
		at := attrs(bird, 3)
		at.HasMED, at.MED = true, 7
		at.Communities = []uint32{65147<<16 | 100}
		at.LargeCommunities = [][3]uint32{{65147, 1, 2}}
		l.announceWith(bird, at, seed, prefix("192.168.0.0/16"))
		time.Sleep(time.Minute)
		l.announce(quagga, seed, prefix("9.0.0.0/8"), prefix("2001:db8::/32"), prefix("192.168.255.0/25"))
		l.settle()

		rows := collect(t, func(row func(status.Path) error) error { return l.a.learned(t.Context(), nil, row) })
		var order []string
		for _, r := range rows {
			order = append(order, r.Network+" "+r.Peer)
		}
		want := []string{"9.0.0.0/8 quagga", "192.168.0.0/16 bird", "192.168.255.0/24 bird", "192.168.255.0/24 quagga", "192.168.255.0/25 quagga", "2001:db8::/32 quagga"}
		if !reflect.DeepEqual(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
		med := uint32(7)
		wantRow := status.Path{
			LocalAddress: "10.1.2.4", Network: "192.168.255.0/24", NextHop: "10.1.0.5", SourcePeer: "10.1.0.5",
			Origin: "EBgp", AsPath: "65147-65147-65147", Weight: 32768,
			Peer: "bird", Reason: "as-path-longer", Since: time.Unix(start.Unix(), 0), BGPOrigin: "igp", MED: &med,
			Communities: []string{"65147:100", "65147:1:2"},
		}
		if !reflect.DeepEqual(rows[2], wantRow) {
			t.Errorf("got  %s\nwant %s", text(rows[2]), text(wantRow))
		}
		if r := rows[3]; !r.Best || !r.Installed || r.Reason != "" || !r.Since.Equal(start.Add(time.Minute)) {
			t.Errorf("the winner: %s", text(r))
		}
		if got := l.learnedOf(bird); len(got) != 2 {
			t.Errorf("%d rows of bird, want 2", len(got))
		}
	})
}

// S33, and the order of the lists: by prefix, then by peer.
func TestAdvertisedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		vnet := session.Advertised{Prefix: prefix("10.1.0.0/16"), Attrs: &rib.Attrs{
			NextHop: addr("10.1.2.4"), ASPath: rib.ASPath{{Type: rib.ASSequence, ASNs: []uint32{65515}}}}}
		other := session.Advertised{Prefix: seed, From: quagga, Attrs: &rib.Attrs{
			NextHop: quagga, ASPath: rib.ASPath{{Type: rib.ASSequence, ASNs: []uint32{65515, nvaASN}}}}}
		l.sp.advertised = map[netip.Addr][]session.Advertised{quagga: {vnet}, bird: {other, vnet}}
		rows := collect(t, func(row func(status.Path) error) error { return l.a.advertised(t.Context(), nil, row) })
		want := []status.Path{
			{LocalAddress: "10.1.2.4", Network: "10.1.0.0/16", NextHop: "10.1.2.4", SourcePeer: "10.1.2.4", Origin: "Igp", AsPath: "65515", Peer: "bird", BGPOrigin: "igp"},
			{LocalAddress: "10.1.2.4", Network: "10.1.0.0/16", NextHop: "10.1.2.4", SourcePeer: "10.1.2.4", Origin: "Igp", AsPath: "65515", Peer: "quagga", BGPOrigin: "igp"},
			{LocalAddress: "10.1.2.4", Network: "192.168.255.0/24", NextHop: "10.1.0.4", SourcePeer: "10.1.0.4", Origin: "Igp", AsPath: "65515-65147", Peer: "bird", BGPOrigin: "igp"},
		}
		if !reflect.DeepEqual(rows, want) {
			t.Errorf("got  %s\nwant %s", text(rows), text(want))
		}
		rows = collect(t, func(row func(status.Path) error) error {
			return l.a.advertised(t.Context(), l.a.peers.find("quagga"), row)
		})
		if !reflect.DeepEqual(rows, want[1:2]) {
			t.Errorf("of quagga: %s", text(rows))
		}
	})
}

// S35: what the kernel has, one row per next hop; a better metric makes a route invalid,
// in the same table.
func TestEffectiveRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		hop := func(gw string) fib.Leg { return fib.Leg{Gateway: addr(gw), IfIndex: l.eth0} }
		l.m.AddRoute(fib.Route{Prefix: prefix("0.0.0.0/0"), Table: 254, Metric: 100, Protocol: 16, Type: rtnUnicast, Legs: []fib.Leg{hop("10.1.0.1")}})
		l.m.AddRoute(static(seed, 100, hop("10.1.0.1")))
		l.m.AddRoute(static(prefix("192.168.1.0/24"), 0, hop("10.1.0.1")))
		l.m.AddRoute(fib.Route{Prefix: prefix("192.168.9.0/24"), Table: 254, Protocol: protoStatic, Type: 6})
		l.up(quagga, bird)
		l.announce(quagga, seed, prefix("192.168.1.0/24"), prefix("0.0.0.0/0"))
		l.announce(bird, seed)
		l.settle()
		rows := collect(t, func(row func(status.Route) error) error { return l.a.routes(t.Context(), row) })
		ours := func(p, hop, peer, state string) status.Route {
			return status.Route{Source: "VirtualNetworkGateway", State: state, Prefix: p, NextHopType: "VirtualAppliance", NextHopIP: hop,
				Interface: "eth0", Metric: 20, Protocol: "nexthopd", Table: 254, Peer: peer}
		}
		want := []status.Route{
			ours("0.0.0.0/0", "10.1.0.4", "quagga", "Active"),
			{Source: "Default", State: "Invalid", Prefix: "0.0.0.0/0", NextHopType: "Internet", NextHopIP: "10.1.0.1", Interface: "eth0", Metric: 100, Protocol: "dhcp", Table: 254},
			{Source: "VNet", State: "Active", Prefix: "10.1.0.0/16", NextHopType: "VnetLocal", Interface: "eth0", Protocol: "kernel", Table: 254},
			{Source: "Default", State: "Active", Prefix: "192.168.1.0/24", NextHopType: "VirtualAppliance", NextHopIP: "10.1.0.1", Interface: "eth0", Protocol: "static", Table: 254},
			ours("192.168.1.0/24", "10.1.0.4", "quagga", "Invalid"),
			{Source: "Default", State: "Active", Prefix: "192.168.9.0/24", NextHopType: "None", Protocol: "static", Table: 254},
			ours("192.168.255.0/24", "10.1.0.4", "quagga", "Active"),
			ours("192.168.255.0/24", "10.1.0.5", "bird", "Active"),
			{Source: "Default", State: "Invalid", Prefix: "192.168.255.0/24", NextHopType: "VirtualAppliance", NextHopIP: "10.1.0.1", Interface: "eth0", Metric: 100, Protocol: "static", Table: 254},
			{Source: "VNet", State: "Active", Prefix: "fd00:1::/64", NextHopType: "VnetLocal", Interface: "eth0", Metric: 256, Protocol: "kernel", Table: 254},
		}
		for i := range max(len(rows), len(want)) {
			if i >= len(rows) || i >= len(want) || rows[i] != want[i] {
				t.Errorf("row %d differs:\n got  %s\n want %s", i, text(rows[min(i, len(rows)):]), text(want[min(i, len(want)):]))
				break
			}
		}
	})
}

// S36: what is said of a prefix, case by case.
func TestExplain(t *testing.T) {
	covering := prefix("10.1.0.0/24")
	tests := []struct {
		name    string
		act     func(l *lab)
		query   string
		prefix  string
		verdict string
		reason  string
		paths   string // peer, step or reason, one word each
		desired string
		kernel  string
		foreign string
	}{
		{"ECMP", func(l *lab) { l.announce(quagga, seed); l.announce(bird, seed) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is installed with 2 next hops, from 2 of 2 paths", "", "bird:shares quagga:shares",
			"via 10.1.0.4 dev eth0|via 10.1.0.5 dev eth0", "192.168.255.0/24 via 10.1.0.4 dev eth0, via 10.1.0.5 dev eth0 proto nexthopd metric 20", ""},
		{"an address", func(l *lab) { l.announce(quagga, seed, prefix("192.168.0.0/16")) }, "192.168.255.10", "192.168.255.0/24",
			"192.168.255.0/24 is installed with 1 next hop, from 1 of 1 paths", "", "quagga:used",
			"via 10.1.0.4 dev eth0", "192.168.255.0/24 via 10.1.0.4 dev eth0 proto nexthopd metric 20", ""},
		{"host bits, as asked", func(l *lab) { l.announce(quagga, seed) }, "192.168.255.7/24", "192.168.255.0/24",
			"192.168.255.0/24 is installed with 1 next hop, from 1 of 1 paths", "", "quagga:used",
			"via 10.1.0.4 dev eth0", "192.168.255.0/24 via 10.1.0.4 dev eth0 proto nexthopd metric 20", ""},
		{"an address that nobody announces", func(*lab) {}, "10.1.0.77", "",
			"no peer announces a prefix that contains 10.1.0.77", "", "", "", "10.1.0.0/16 via 10.1.0.77 dev eth0 (the host's own)", ""},
		{"a prefix that nobody announces", func(*lab) {}, "172.16.0.0/12", "172.16.0.0/12", "172.16.0.0/12 is announced by no peer", "", "", "", "", ""},
		{"as-path-longer", func(l *lab) { l.announce(quagga, seed); l.announceWith(bird, attrs(bird, 3), seed) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is installed with 1 next hop, from 1 of 2 paths", "", "bird:as-path-longer quagga:used",
			"via 10.1.0.4 dev eth0", "192.168.255.0/24 via 10.1.0.4 dev eth0 proto nexthopd metric 20", ""},
		{"inside-vnet", func(l *lab) { l.announce(quagga, covering); l.announceWith(bird, attrs(bird, 2), covering) }, "10.1.0.0/24", "10.1.0.0/24",
			"10.1.0.0/24 is not installed (inside-vnet): it is a VNet prefix or inside one, and vnet.allow-inside-vnet does not list it", "inside-vnet",
			"bird:as-path-longer quagga:chosen", "", "", ""},
		{"next-hop-unreachable", func(l *lab) { l.announceWith(quagga, attrs(addr("172.16.0.1"), 1), seed) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is not installed (next-hop-unreachable): the host has no route of its own to next hop 172.16.0.1", "next-hop-unreachable",
			"quagga:next-hop-unreachable", "", "", ""},
		{"next-hop-is-self", func(l *lab) { l.announceWith(quagga, attrs(addr("10.1.2.4"), 1), seed) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is not installed (next-hop-is-self): next hop 10.1.2.4 is an address of this host", "next-hop-is-self",
			"quagga:next-hop-is-self", "", "", ""},
		{"peer-down", func(l *lab) { l.announce(quagga, seed); l.down(quagga) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is not installed (peer-down): its peer's session is down", "peer-down", "quagga:peer-down", "", "", ""},
		{"stale", func(l *lab) { l.announce(quagga, seed); l.announce(bird, seed); l.restarting(quagga) }, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is installed with 1 next hop, from 1 of 2 paths", "", "bird:used quagga:stale",
			"via 10.1.0.5 dev eth0", "192.168.255.0/24 via 10.1.0.5 dev eth0 proto nexthopd metric 20", ""},
		{"foreign-route", func(l *lab) {
			l.m.AddRoute(static(seed, 20, fib.Leg{Gateway: addr("10.1.0.1"), IfIndex: l.eth0}))
			l.announce(quagga, seed)
		}, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is not installed (foreign-route): a route of another program has the same table, prefix and metric", "foreign-route",
			"quagga:chosen", "via 10.1.0.4 dev eth0", "", "192.168.255.0/24 via 10.1.0.1 dev eth0 proto static metric 20"},
		{"a better metric", func(l *lab) {
			l.m.AddRoute(static(seed, 0, fib.Leg{Gateway: addr("10.1.0.1"), IfIndex: l.eth0}))
			l.announce(quagga, seed)
		}, "192.168.255.0/24", "192.168.255.0/24",
			"192.168.255.0/24 is installed, but a static route with the better metric 0 wins", "",
			"quagga:used", "via 10.1.0.4 dev eth0", "192.168.255.0/24 via 10.1.0.4 dev eth0 proto nexthopd metric 20",
			"192.168.255.0/24 via 10.1.0.1 dev eth0 proto static metric 0"},
		{"IPv6", func(l *lab) { l.announceWith(quagga, attrs(addr("fd00:1::a"), 1), prefix("2001:db8::/32")) }, "2001:db8::1", "2001:db8::/32",
			"2001:db8::/32 is installed with 1 next hop, from 1 of 1 paths", "", "quagga:used",
			"via fd00:1::a dev eth0", "2001:db8::/32 via fd00:1::a dev eth0 proto nexthopd metric 20", ""},
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.up(quagga, bird)
			tt.act(l)
			l.settle()
			x, err := l.a.explain(t.Context(), tt.query)
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, p := range x.Paths {
				fate := "chosen"
				switch { // as nexthopctl prints it
				case p.Step != "":
					fate = p.Step
				case p.Reason != "":
					fate = p.Reason
				case p.ECMP:
					fate = "shares"
				case p.Installed:
					fate = "used"
				}
				paths = append(paths, p.Peer+":"+fate)
				if p.Resolution == "" || (p.Reason != "") != (p.Detail != "") || p.Installed && p.Reason != "" {
					t.Errorf("path of %s: resolution %q, reason %q, detail %q", p.Peer, p.Resolution, p.Reason, p.Detail)
				}
			}
			got := []string{x.Query, x.Prefix, x.Verdict, x.Reason, strings.Join(paths, " "), strings.Join(x.Desired, "|"), strings.Join(x.InKernel, "|"), strings.Join(x.Foreign, "|")}
			want := []string{tt.query, tt.prefix, tt.verdict, tt.reason, tt.paths, tt.desired, tt.kernel, tt.foreign}
			for i, what := range []string{"query", "prefix", "verdict", "reason", "paths", "desired", "kernel", "foreign"} {
				if got[i] != want[i] {
					t.Errorf("%s %q, want %q", what, got[i], want[i])
				}
			}
		})
	}
}

// What was learned and not ranked yet is pending, not refused.
func TestExplainBeforeTheDecision(t *testing.T) {
	m, _ := newHost()
	a := newAgent(testConfig(), &kernel{Kernel: m.Open(owner, false)})
	if _, err := a.Adopt(); err != nil {
		t.Fatal(err)
	}
	a.Learned(quagga, []rib.Change{{Prefix: seed, Attrs: attrs(quagga, 1)}})
	var x status.Explanation
	if err := a.explainNow(&x, seed, netip.Addr{}); err != nil || x.Reason != "pending" || x.Paths[0].Reason != "" || x.Paths[0].Installed {
		t.Errorf("got %s, %v", text(x), err)
	}
}

// Status names every problem with what to do next.
func TestStatus(t *testing.T) {
	problems := func(l *lab) []string {
		l.t.Helper()
		s, err := l.a.Status(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		out := []string{}
		for _, p := range s.Degraded {
			out = append(out, p.What)
			if p.Next == "" {
				l.t.Errorf("no next command for %q", p.What)
			}
		}
		return out
	}
	expect := func(l *lab, when string, want ...string) {
		l.t.Helper()
		if got := problems(l); !reflect.DeepEqual(got, append([]string{}, want...)) {
			l.t.Errorf("%s: problems %q, want %q", when, got, want)
		}
	}
	bubble(t, "peers", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			c.Peers = append(c.Peers, config.Peer{Name: "old", Address: addr("10.1.0.6"), ASN: 65000, Shutdown: true})
		})
		l.sp.info[bird] = session.PeerInfo{Address: bird, LastDown: session.DownReason{Text: "hold timer expired"}}
		l.sp.info[quagga] = session.PeerInfo{Address: quagga, Warning: "two peers have BGP identifier 10.1.0.4",
			HoldTime: 9 * time.Second, Keepalive: 3 * time.Second, Flaps: 2, Advertised: map[session.Family]int{session.IPv4: 3, session.IPv6: 1}}
		l.up(quagga)
		expect(l, "one is up", "peer quagga (10.1.0.4): two peers have BGP identifier 10.1.0.4", "peer bird (10.1.0.5) is Idle: hold timer expired")
		s, _ := l.a.Status(t.Context())
		if s.Peers != (status.PeerCount{Configured: 3, Established: 1, Shutdown: 1}) || !s.Ready || s.NotReady != "" || s.Version != "1.0.0" ||
			s.Config != "/etc/nexthopd/nexthopd.yaml" || !reflect.DeepEqual(s.Listen, []string{"10.1.2.4:179"}) || s.ASN != 65515 || s.RouterID != addr("10.1.2.4") {
			t.Errorf("status: %s", text(s))
		}
		p := l.a.Peers()
		if p[0].HoldTime != 9 || p[0].Keepalive != 3 || p[0].Flaps != 2 || p[0].Advertised != 4 || *p[0].LocalAddress != addr("10.1.2.4") {
			t.Errorf("quagga: %s", text(p[0]))
		}
		if p[1].HoldTime != 180 || p[1].Keepalive != 60 || p[1].LocalAddress != nil {
			t.Errorf("bird: %s", text(p[1]))
		}
		delete(l.sp.info, quagga)
		l.announce(quagga, seed)
		l.restarting(quagga)
		expect(l, "it restarts", "peer quagga (10.1.0.4) is restarting: its routes are kept as stale", "peer bird (10.1.0.5) is Idle: hold timer expired")
		if got, want := l.a.Summary(), "0 of 3 peers established, 1 prefixes known"; got != want {
			t.Errorf("summary %q, want %q", got, want)
		}
	})
	bubble(t, "prefixes", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(static(seed, 20, fib.Leg{Gateway: addr("10.1.0.1"), IfIndex: l.eth0}))
		l.up(quagga, bird)
		expect(l, "before")
		l.announce(quagga, seed, prefix("10.1.0.0/16"))
		l.announceWith(bird, attrs(addr("172.16.0.1"), 1), many(2)...)
		l.settle()
		expect(l, "after", "1 prefix is not installed: foreign-route", "2 prefixes are not installed: next-hop-unreachable")
	})
	bubble(t, "no peers", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.Peers = nil })
		expect(l, "at start", "no peers are configured: nothing is learned and nothing installed")
		if got, want := l.a.Summary(), "no peers are configured"; got != want {
			t.Errorf("summary %q, want %q", got, want)
		}
	})
}

// A hang of the loop is what the watchdog asks for.
func TestHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		time.Sleep(time.Hour)
		if err := l.a.Healthy(); err != nil {
			t.Errorf("an idle hour: %v", err)
		}
		release := make(chan struct{})
		go func() { _ = l.a.do(context.Background(), func() { <-release }) }()
		time.Sleep(time.Minute)
		if err := l.a.Healthy(); err == nil || !strings.Contains(err.Error(), "has not gone round") {
			t.Errorf("the loop hangs: %v", err)
		}
		before := l.a.fibSeen.Load()
		if f := l.a.FIB(); f.Mode != "install" || !reflect.DeepEqual(f, *before) {
			t.Errorf("metrics of a hanging loop: %s", text(f))
		}
		close(release)
	})
}

// Who asks after the end is told so at once.
func TestAskedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		_ = l.stop()
		start := time.Now()
		if _, err := l.a.Status(context.Background()); err != errEnded {
			t.Errorf("Status: %v, want %v", err, errEnded)
		}
		if f := l.a.FIB(); f.Table != 254 || time.Since(start) != 0 {
			t.Errorf("FIB after %s: %s", time.Since(start), text(f))
		}
	})
}
