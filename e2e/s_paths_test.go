package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// both runs a test for a prefix of each family, with the appliances' next hops.
func both(t *testing.T, name, p4, p6 string, f func(t *testing.T, p netip.Prefix, gw func(i int) netip.Addr)) {
	t.Helper()
	t.Run(name+"/IPv4", func(t *testing.T) { f(t, prefix(p4), lab.SeedNVA) })
	t.Run(name+"/IPv6", func(t *testing.T) { f(t, prefix(p6), lab.SeedNVA6) })
}

// attrs is an AS path of these ASNs and a next hop.
func attrs(nextHop netip.Addr, asns ...uint32) nva.Attrs {
	return nva.Attrs{NextHop: nextHop, ASPath: nva.Seq(asns...)}
}

// S10: the default is to accept, and a default route is a prefix like any other.
func TestS10_DefaultRoute(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	s := b.nvas(t, 2)
	both(t, "S10", "0.0.0.0/0", "::/0", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		announce(t, s[0], nva.Attrs{NextHop: gw(0)}, p)
		b.route(t, p, gw(0))
		announce(t, s[1], nva.Attrs{NextHop: gw(1)}, p)
		b.route(t, p, gw(0), gw(1))
		b.learned(t, "nva1", p, reason(""))
		if x, text := b.explain(t, p.String()); len(x.Paths) != 2 || len(x.InKernel) != 1 {
			t.Errorf("explain %s:\n%s", p, text)
		}
		if x, text := b.explain(t, "203.0.113.1"); p.Addr().Is4() && x.Prefix != "0.0.0.0/0" {
			t.Errorf("explain 203.0.113.1 does not lead to the default route:\n%s", text)
		}
		if out := list[status.Route](t, b, "routes"); !containsRoute(out, p.String(), gw(0).String()) {
			t.Errorf("nexthopctl routes does not show %s: %+v", p, out)
		}
		must(t, s[0].Withdraw(p))
		b.route(t, p, gw(1))
		must(t, s[1].Withdraw(p))
		b.route(t, p)
	})
}

func containsRoute(rows []status.Route, prefix, nextHop string) bool {
	for _, r := range rows {
		if r.Prefix == prefix && r.NextHopIP == nextHop {
			return true
		}
	}
	return false
}

// S11: a third-party next hop is installed as announced, and traffic goes there.
func TestS11_ThirdPartyNextHop(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	must(t, b.NVAVNet[0].AddAddr("10.1.0.77/16"))
	must(t, b.NVAVNet[0].AddAddr("2001:db8:1::77/64"))
	s := b.nvas(t, 2)
	for _, tt := range []struct {
		branch netip.Prefix
		server netip.Addr
		lb     string
	}{{lab.SeedBranch, lab.SeedServer, "10.1.0.77"}, {lab.SeedBranch6, lab.SeedServer6, "2001:db8:1::77"}} {
		t.Run("S11/"+tt.lb, func(t *testing.T) {
			announce(t, s[1], nva.Attrs{NextHop: addr(tt.lb)}, tt.branch)
			b.route(t, tt.branch, addr(tt.lb))
			b.learned(t, "nva2", tt.branch, func(p status.Path) error {
				if p.NextHop != tt.lb {
					return fmt.Errorf("next hop %s", p.NextHop)
				}
				return nil
			})
			tr := b.flows(t, lab.TrafficConfig{Dst: tt.server})
			if via := b.steady(t, tr, 200).Via(); via["nva1"] == 0 || len(via) != 1 {
				t.Errorf("traffic passes %v, want nva1, which has the next hop's address", via)
			}
		})
	}
}

// S13: the longest prefix wins; then the shortest AS path, ORIGIN, MED, in that order.
func TestS13_BestPath(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2, "guards: {as-set: false}"))
	s := b.nvas(t, 2)
	med := func(a nva.Attrs, med uint32) nva.Attrs { a.MED = &med; return a }
	origin := func(a nva.Attrs, o nva.Origin) nva.Attrs { a.Origin = o; return a }
	both(t, "S13/longest prefix", "172.16.0.0/16", "2001:db8:7100::/40", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		longer := netip.PrefixFrom(p.Addr(), p.Bits()+8)
		announce(t, s[0], attrs(gw(0), lab.SeedASN), p)
		announce(t, s[1], attrs(gw(1), lab.SeedASN, 65001, 65002, 65003), longer)
		b.route(t, p, gw(0))
		b.route(t, longer, gw(1))
		for to, via := range map[netip.Addr]netip.Addr{longer.Addr().Next(): gw(1), lastOf(p): gw(0)} {
			out := value(b.Host.Run(within(t), "ip", "route", "get", to.String()))(t)
			if !strings.Contains(out, "via "+via.String()+" ") {
				t.Errorf("ip route get %s: %s, want via %s", to, out, via)
			}
			if x, text := b.explain(t, to.String()); to == lastOf(p) && x.Prefix != p.String() {
				t.Errorf("explain %s:\n%s", to, text)
			}
		}
	})
	for _, tt := range []struct {
		name string
		lose func(gw netip.Addr) nva.Attrs // of nva2
		win  func(gw netip.Addr) nva.Attrs // of nva1
		step string
	}{
		{"AS path before ORIGIN and MED",
			func(gw netip.Addr) nva.Attrs { return attrs(gw, lab.SeedASN, 65001) },
			func(gw netip.Addr) nva.Attrs { return med(origin(attrs(gw, lab.SeedASN), nva.Incomplete), 900) }, "as-path-longer"},
		{"an AS_SET counts as one",
			func(gw netip.Addr) nva.Attrs { return attrs(gw, lab.SeedASN, 65001, 65002) },
			func(gw netip.Addr) nva.Attrs {
				a := attrs(gw, lab.SeedASN)
				a.ASPath = append(a.ASPath, nva.Segment{Type: nva.ASSet, ASNs: []uint32{65001, 65002, 65003}})
				return a
			}, "as-path-longer"},
		{"ORIGIN before MED",
			func(gw netip.Addr) nva.Attrs { return med(origin(attrs(gw, lab.SeedASN), nva.EGP), 1) },
			func(gw netip.Addr) nva.Attrs { return med(attrs(gw, lab.SeedASN), 900) }, "origin-worse"},
		{"MED",
			func(gw netip.Addr) nva.Attrs { return med(attrs(gw, lab.SeedASN), 20) },
			func(gw netip.Addr) nva.Attrs { return med(attrs(gw, lab.SeedASN), 10) }, "med-higher"},
		{"no MED is the lowest",
			func(gw netip.Addr) nva.Attrs { return med(attrs(gw, lab.SeedASN), 1) },
			func(gw netip.Addr) nva.Attrs { return attrs(gw, lab.SeedASN) }, "med-higher"},
	} {
		both(t, "S13/"+tt.name, "172.20.1.0/24", "2001:db8:7201::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
			// The loser comes first, and again as the last: the order means nothing.
			announce(t, s[1], tt.lose(gw(1)), p)
			b.route(t, p, gw(1))
			announce(t, s[0], tt.win(gw(0)), p)
			b.route(t, p, gw(0))
			b.learned(t, "nva2", p, reason(tt.step))
			must(t, s[1].Withdraw(p))
			b.gone(t, "nva2", p)
			announce(t, s[1], tt.lose(gw(1)), p)
			b.learned(t, "nva2", p, reason(tt.step))
			b.learned(t, "nva1", p, reason(""))
			b.route(t, p, gw(0))
			must(t, s[0].Withdraw(p))
			b.route(t, p, gw(1))
			must(t, s[1].Withdraw(p))
			b.route(t, p)
		})
	}
}

// lastOf is the last address of a prefix but one.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for i := range bytes {
		for bit := range 8 {
			if i*8+bit >= p.Bits() {
				bytes[i] |= 0x80 >> bit
			}
		}
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a.Prev()
}

// S14: equal-cost paths of many peers share the traffic, whatever their AS paths hold,
// up to max-paths, 64 by default.
func TestS14_ECMP(t *testing.T) {
	const peers = 66
	b := newSeed(t, 1)
	own := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 3, byte(1 + i)}) }
	own6 := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::3:%x", 1+i)) }
	config := func(n int) string {
		text := hostConfig + "peers:\n"
		for i := range n {
			text += peer(fmt.Sprintf("nva%d", i+1), own(i), 64600+uint32(i), "passive: true")
		}
		return text
	}
	for i := range peers {
		must(t, b.NVAVNet[0].AddAddr(own(i).String()+"/16"))
		must(t, b.NVAVNet[0].AddAddr(own6(i).String()+"/64"))
	}
	b.start(t, config(peers))
	p4, p6 := prefix("172.16.0.0/24"), prefix("2001:db8:7100::/64")
	// The same length, and not two the same.
	path := func(i int) []uint32 { return []uint32{64600 + uint32(i), 100 + uint32(i), 4200000000} }
	connect := func(t *testing.T, n int) {
		t.Helper()
		for i := range n {
			o := options(own(i), lab.SeedHost)
			o.ASN = 64600 + uint32(i)
			s := b.dial(t, b.NVAs[0], o)
			must(t, s.Announce(attrs(own(i), path(i)...), p4))
			must(t, s.Announce(attrs(own6(i), path(i)...), p6))
			must(t, s.EndOfRIB(nva.IPv4))
			must(t, s.EndOfRIB(nva.IPv6))
		}
	}
	// gateways waits until a prefix has n next hops, and the paths beyond are explained.
	gateways := func(t *testing.T, n, of int) {
		t.Helper()
		for _, p := range []netip.Prefix{p4, p6} {
			poll(t, fmt.Sprintf("%d next hops of %s", n, p), func() error {
				gws, err := b.Host.Gateways(within(t), p)
				if err == nil && len(gws) != n {
					err = fmt.Errorf("%d: %v", len(gws), gws)
				}
				return err
			})
			x, text := b.explain(t, p.String())
			left := 0
			for _, path := range x.Paths {
				if path.Reason == "max-paths" {
					left++
				}
			}
			if len(x.Paths) != of || len(x.Desired) != n || left != of-n {
				t.Errorf("explain %s: %d paths, %d desired, %d left out by max-paths:\n%s", p, len(x.Paths), len(x.Desired), left, text)
			}
		}
	}
	t.Run("S14/default 64", func(t *testing.T) {
		connect(t, peers)
		gateways(t, 64, peers)
	})
	t.Run("S14/max-paths 3", func(t *testing.T) {
		must(t, b.d.SetConfig("fib: {max-paths: 3}\n"+config(5)))
		must(t, b.d.Stop())
		must(t, b.d.Launch(within(t)))
		connect(t, 5)
		gateways(t, 3, 5)
	})
}

// S16: the same next hop from two peers is one next hop, and stays while one of them
// announces it.
func TestS16_SameNextHop(t *testing.T) {
	b := newBed(t, 3, hostConfig+nvaPeers(3))
	s := b.nvas(t, 2)
	both(t, "S16", "172.16.0.0/24", "2001:db8:7100::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		shared := attrs(gw(2), lab.SeedASN)
		announce(t, s[0], shared, p)
		b.route(t, p, gw(2))
		announce(t, s[1], shared, p)
		b.learned(t, "nva2", p, reason(""))
		b.route(t, p, gw(2))
		if x, text := b.explain(t, p.String()); len(x.Paths) != 2 || len(x.Desired) != 1 {
			t.Errorf("explain %s:\n%s", p, text)
		}
		must(t, s[0].Withdraw(p))
		b.gone(t, "nva1", p)
		b.route(t, p, gw(2))
		announce(t, s[0], shared, p)
		b.learned(t, "nva1", p, reason(""))
	})
	t.Run("S16/session lost", func(t *testing.T) {
		s[0].Reset()
		poll(t, "the loss of nva1", func() error {
			if p := b.peerStatus(t, "nva1"); p.State == "Established" || p.Received != 0 {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		b.route(t, prefix("172.16.0.0/24"), lab.SeedNVA(2))
		b.route(t, prefix("2001:db8:7100::/64"), lab.SeedNVA6(2))
	})
}

// S17: over a graceful restart a path stays usable, and shares no traffic with a fresh
// one.
func TestS17_StalePath(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	p4, p6, alone := prefix("172.16.0.0/24"), prefix("2001:db8:7100::/64"), prefix("172.17.0.0/24")
	restartable := nva4(0)
	restartable.GR = &nva.GracefulRestart{Time: 60, Forwarding: true, Families: []nva.Family{nva.IPv4, nva.IPv6}}
	send := func(s *nva.Session, i int) {
		t.Helper()
		announce(t, s, nva.Attrs{}, p4)
		announce(t, s, attrs(lab.SeedNVA6(i), lab.SeedASN), p6)
		if i == 0 {
			announce(t, s, nva.Attrs{}, alone)
		}
		must(t, s.EndOfRIB(nva.IPv4))
		must(t, s.EndOfRIB(nva.IPv6))
	}
	s0, s1 := b.dial(t, b.NVAs[0], restartable), b.dial(t, b.NVAs[1], nva4(1))
	send(s0, 0)
	send(s1, 1)
	together := func() {
		t.Helper()
		b.route(t, p4, lab.SeedNVA(0), lab.SeedNVA(1))
		b.route(t, p6, lab.SeedNVA6(0), lab.SeedNVA6(1))
		b.route(t, alone, lab.SeedNVA(0))
	}
	together()

	s0.Close() // without a word, as a process that was killed
	t.Run("S17/left out beside a fresh path", func(t *testing.T) {
		b.route(t, p4, lab.SeedNVA(1))
		b.route(t, p6, lab.SeedNVA6(1))
		b.learned(t, "nva1", p4, reason("stale"))
		if out := b.cli(t, "learned", "nva1", "-o", "wide"); !strings.Contains(out, "stale") {
			t.Errorf("nexthopctl learned -o wide does not say stale:\n%s", out)
		}
	})
	t.Run("S17/usable alone", func(t *testing.T) {
		b.route(t, alone, lab.SeedNVA(0))
		b.learned(t, "nva1", alone, func(p status.Path) error {
			if !p.Stale || !p.Installed {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		must(t, s1.Withdraw(p4))
		b.route(t, p4, lab.SeedNVA(0))
		announce(t, s1, nva.Attrs{}, p4)
		b.route(t, p4, lab.SeedNVA(1))
	})
	t.Run("S17/fresh again", func(t *testing.T) {
		restartable.GR.Restarting = true
		s0 = b.dial(t, b.NVAs[0], restartable)
		send(s0, 0)
		together()
	})
	t.Run("S17/not announced again", func(t *testing.T) {
		s0.Close()
		b.route(t, p4, lab.SeedNVA(1))
		s0 = b.dial(t, b.NVAs[0], restartable)
		announce(t, s0, nva.Attrs{}, p4)
		must(t, s0.EndOfRIB(nva.IPv4))
		b.route(t, alone)
		b.gone(t, "nva1", alone)
		must(t, s0.EndOfRIB(nva.IPv6))
		b.gone(t, "nva1", p6)
		b.route(t, p6, lab.SeedNVA6(1))
		b.route(t, p4, lab.SeedNVA(0), lab.SeedNVA(1))
	})
	t.Run("S17/restart time over", func(t *testing.T) {
		o := nva4(0)
		o.GR = &nva.GracefulRestart{Time: 20, Forwarding: true, Families: []nva.Family{nva.IPv4, nva.IPv6}}
		s0.Notify(6, 9, nil) // Hard Reset: no graceful restart
		b.route(t, p4, lab.SeedNVA(1))
		s0 = b.dial(t, b.NVAs[0], o)
		send(s0, 0)
		together()
		closed := time.Now()
		s0.Close()
		b.learned(t, "nva1", alone, func(p status.Path) error {
			if !p.Stale {
				return fmt.Errorf("not stale: %+v", p)
			}
			return nil
		})
		b.route(t, alone)
		if after := time.Since(closed); after < 15*time.Second {
			t.Errorf("gone %s after the session, with a restart time of 20 s", after)
		}
	})
}
