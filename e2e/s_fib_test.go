package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// S18: what is a VNet prefix, or inside one, is kept and not installed, unless it is
// allowed; a supernet is installed.
func TestS18_InsideVNet(t *testing.T) {
	b := newBed(t, 1, `router-id: 10.1.2.4
vnet:
  prefixes: [10.1.0.0/16, "2001:db8:1::/64"]
  allow-inside-vnet: [10.1.200.0/24, "2001:db8:1:0:c8::/80"]
`+nvaPeers(1))
	s := b.nvas(t, 1)[0]
	for p, why := range map[string]string{
		"10.1.0.0/16":          "inside-vnet", // equal
		"10.1.5.0/24":          "inside-vnet",
		"10.1.200.7/32":        "inside-vnet", // allowed is what is listed, and nothing inside
		"10.1.200.0/24":        "",
		"10.0.0.0/8":           "",
		"2001:db8:1::/64":      "inside-vnet",
		"2001:db8:1:0:5::/80":  "inside-vnet",
		"2001:db8:1:0:c8::/80": "",
		"2001:db8::/32":        "",
	} {
		t.Run("S18/"+p, func(t *testing.T) {
			p := prefix(p)
			gw := lab.SeedNVA(0)
			if p.Addr().Is6() {
				gw = lab.SeedNVA6(0)
			}
			announce(t, s, nva.Attrs{NextHop: gw}, p)
			b.learned(t, "nva1", p, reason(why))
			if why == "" {
				b.route(t, p, gw)
				return
			}
			if out := b.ip(t, p); strings.Contains(out, "165") || strings.Contains(out, "via") {
				t.Errorf("%s is installed: %s", p, out)
			}
			if _, text := b.explain(t, p.String()); !strings.Contains(text, why) {
				t.Errorf("explain %s does not say %s:\n%s", p, why, text)
			}
		})
	}
}

// S19: routes of others, in the way or beside ours, and whatever their protocol says.
func TestS19_ForeignRoutes(t *testing.T) {
	b := newSeed(t, 2)
	strange4, strange6 := prefix("172.30.0.0/24"), prefix("2001:db8:7300::/64")
	foreign := []string{
		// With our protocol number, and what else differs: metric, table, nothing we announce.
		"route add 172.16.0.0/24 via 10.1.0.5 metric 77 proto 165",
		"route add 172.16.0.0/24 via 10.1.0.5 metric 20 proto 165 table 100",
		"route add 172.30.0.0/24 via 10.1.0.5 metric 21 proto 165",
		"route add 2001:db8:7100::/64 via 2001:db8:1::5 metric 77 proto 165",
		"route add 2001:db8:7300::/64 via 2001:db8:1::5 metric 21 proto 165",
		// Next hops: our protocol and an id of others, an id of ours and their protocol.
		"nexthop add id 7 via 10.1.0.5 dev eth0 proto 165",
		"nexthop add id 2768240641 via 10.1.0.5 dev eth0 proto static",
	}
	must(t, b.Host.IP(foreign...))
	present := func(t *testing.T) string {
		t.Helper()
		var all string
		for _, what := range []string{
			"route show 172.16.0.0/24 metric 77", "route show table 100", "route show 172.30.0.0/24",
			"-6 route show 2001:db8:7100::/64 metric 77", "-6 route show 2001:db8:7300::/64",
			"nexthop show id 7", "nexthop show id 2768240641",
		} {
			out, err := b.Host.Run(within(t), "ip", strings.Fields(what)...)
			if err != nil || out == "" {
				t.Errorf("gone: ip %s: %v", what, err)
			}
			all += out
		}
		return all + b.ours(t)
	}
	before := present(t)
	b.start(t, hostConfig+"fib: {on-stop: flush}\n"+nvaPeers(2))
	s := b.nvas(t, 2)
	both(t, "S19", "172.16.0.0/24", "2001:db8:7100::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		static := fmt.Sprintf("%s via %s proto static metric 20", p, gw(1))
		held := func(t *testing.T) {
			t.Helper()
			b.learned(t, "nva1", p, reason("foreign-route"))
			if out := b.at20(t, p); !strings.Contains(out, "proto static") || !strings.Contains(out, gw(1).String()) || strings.Contains(out, gw(0).String()) {
				t.Errorf("the foreign route was changed: %s", out)
			}
			x, text := b.explain(t, p.String())
			if x.Reason != "foreign-route" || len(x.Foreign) == 0 || !strings.Contains(strings.Join(x.Foreign, "\n"), "static") {
				t.Errorf("explain %s does not show the foreign route:\n%s", p, text)
			}
		}
		installed := func(t *testing.T) {
			t.Helper()
			poll(t, "our route", func() error {
				if out := b.at20(t, p); !strings.Contains(out, "165") || !strings.Contains(out, gw(0).String()) || strings.Count(out, "\n") != 1 {
					return errors.New(out)
				}
				return nil
			})
			b.learned(t, "nva1", p, reason(""))
		}
		t.Run("first there", func(t *testing.T) {
			must(t, b.Host.AddRoute(static))
			announce(t, s[0], nva.Attrs{NextHop: gw(0)}, p)
			held(t)
			must(t, b.Host.IP("route del "+static))
			installed(t)
		})
		t.Run("taken over", func(t *testing.T) {
			must(t, b.Host.IP("route replace "+static))
			held(t)
			must(t, s[0].Withdraw(p))
			b.gone(t, "nva1", p)
			if out := b.at20(t, p); !strings.Contains(out, "proto static") {
				t.Errorf("the withdrawal removed the foreign route: %q", out)
			}
			announce(t, s[0], nva.Attrs{NextHop: gw(0)}, p)
			held(t)
			must(t, b.Host.IP("route del "+static))
			installed(t)
		})
		t.Run("better metric", func(t *testing.T) {
			// IPv4 without metric is 0; for IPv6 that means 1024, so it names a better one.
			better := fmt.Sprintf("%s via %s proto static", p, gw(1))
			if p.Addr().Is6() {
				better += " metric 10"
			}
			must(t, b.Host.AddRoute(better))
			installed(t)
			out := value(b.Host.Run(within(t), "ip", "route", "get", p.Addr().Next().String()))(t)
			if !strings.Contains(out, "via "+gw(1).String()) {
				t.Errorf("the static route does not win: %s", out)
			}
			poll(t, "explain", func() error {
				if _, text := b.explain(t, p.String()); !strings.Contains(text, "better metric") {
					return errors.New("explain does not tell of the better metric:\n" + text)
				}
				return nil
			})
			for _, r := range list[status.Route](t, b, "routes") {
				if r.Prefix == p.String() && r.Metric == 20 && r.State != "Invalid" {
					t.Errorf("nexthopctl routes: %+v, want it Invalid", r)
				}
			}
			must(t, b.Host.IP("route del "+better))
		})
		t.Run("our protocol", func(t *testing.T) {
			if out := b.ip(t, p); !strings.Contains(out, "metric 77") {
				t.Errorf("the route of another daemon with our protocol number is gone: %s", out)
			}
		})
	})
	t.Run("S19/not announced by anybody", func(t *testing.T) {
		announce(t, s[1], nva.Attrs{}, strange4)
		announce(t, s[1], attrs(lab.SeedNVA6(1), lab.SeedASN), strange6)
		b.learned(t, "nva2", strange6, reason(""))
		must(t, s[1].Withdraw(strange4))
		must(t, s[1].Withdraw(strange6))
		b.gone(t, "nva2", strange6)
	})
	t.Run("S19/flush", func(t *testing.T) {
		must(t, b.d.Stop())
		if after := present(t); after != before {
			t.Errorf("routes and next hops before:\n%safter a run and its flush:\n%s", before, after)
		}
		must(t, b.d.Start(within(t)))
	})
}

// at20 is what ip(8) shows of the prefix with our metric.
func (b *bed) at20(t *testing.T, p netip.Prefix) string {
	t.Helper()
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
	}
	return value(b.Host.Run(within(t), "ip", family, "-o", "route", "show", "exact", p.String(), "metric", "20"))(t)
}

// S20: a next hop is resolved by the host's own routes; one that can't be is left out,
// and comes in with the route, address or link that makes it reachable.
func TestS20_Resolution(t *testing.T) {
	for _, mode := range fibModes {
		t.Run(mode.name, func(t *testing.T) {
			b := newBed(t, 2, hostConfig+mode.config+nvaPeers(2))
			s := b.nvas(t, 2)
			both(t, "S20", "172.16.0.0/24", "2001:db8:7100::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
				far, behind, near, on := addr("10.66.0.9"), "10.66.0.0/24", addr("10.77.0.5"), "10.77.0.1/24"
				through, wide, own := netip.PrefixFrom(p.Addr(), p.Bits()+1), prefix("10.88.0.0/16"), addr("10.88.0.5")
				if p.Addr().Is6() {
					far, behind, near, on = addr("2001:db8:66::9"), "2001:db8:66::/64", addr("2001:db8:77::5"), "2001:db8:77::1/64"
					wide, own = prefix("2001:db8:8800::/40"), addr("2001:db8:8800::5")
				}
				t.Run("route", func(t *testing.T) {
					announce(t, s[0], attrs(far, lab.SeedASN), p)
					b.learned(t, "nva1", p, reason("next-hop-unreachable"))
					b.route(t, p)
					// The other path is used without it.
					announce(t, s[1], attrs(gw(1), lab.SeedASN), p)
					b.route(t, p, gw(1))
					must(t, b.Host.AddRoute(behind+" via "+gw(0).String()))
					b.route(t, p, gw(0), gw(1))
					b.learned(t, "nva1", p, reason(""))
					if x, text := b.explain(t, p.String()); !strings.Contains(text, behind) {
						t.Errorf("explain does not name the host's route %s: %+v\n%s", behind, x, text)
					}
					must(t, b.Host.IP("route del "+behind))
					b.route(t, p, gw(1))
					b.learned(t, "nva1", p, reason("next-hop-unreachable"))
					must(t, s[1].Withdraw(p))
					b.route(t, p)
				})
				t.Run("address", func(t *testing.T) {
					announce(t, s[0], attrs(near, lab.SeedASN), p)
					b.learned(t, "nva1", p, reason("next-hop-unreachable"))
					must(t, b.HostVNet.AddAddr(on))
					b.route(t, p, near)
					must(t, b.HostVNet.DelAddr(on))
					b.route(t, p)
				})
				t.Run("own routes", func(t *testing.T) {
					announce(t, s[0], attrs(gw(0), lab.SeedASN), wide)
					b.route(t, wide, gw(0))
					announce(t, s[0], attrs(own, lab.SeedASN), through)
					b.learned(t, "nva1", through, reason("next-hop-unreachable"))
					b.route(t, through)
					must(t, s[0].Withdraw(through))
				})
				t.Run("carrier", func(t *testing.T) {
					announce(t, s[0], attrs(gw(0), lab.SeedASN), p)
					announce(t, s[1], attrs(gw(1), lab.SeedASN), p)
					b.route(t, p, gw(0), gw(1))
					must(t, b.HostVNet.Unplug())
					b.learned(t, "nva1", p, reason("next-hop-unreachable"))
					must(t, b.HostVNet.Plug())
					b.route(t, p, gw(0), gw(1))
					b.learned(t, "nva1", p, reason(""))
				})
				t.Run("link", func(t *testing.T) {
					must(t, b.HostVNet.Down())
					b.learned(t, "nva1", p, reason("next-hop-unreachable"))
					must(t, b.HostVNet.Up())
					// The kernel dropped the interface's IPv6 address.
					must(t, b.Host.IP("addr replace 2001:db8:1::2:4/64 dev eth0 nodad"))
					b.route(t, p, gw(0), gw(1))
					b.learned(t, "nva2", p, reason(""))
				})
			})
			for _, p := range list[status.Peer](t, b, "peers") {
				if p.State != "Established" || p.Flaps != 0 {
					t.Errorf("a session was disturbed: %+v", p)
				}
			}
		})
	}
}

// S21: no path through the host itself, and no prefix that would take the traffic to a
// peer or a next hop away from the host's own route.
func TestS21_LoopGuards(t *testing.T) {
	b := newBed(t, 2, "router-id: 10.1.2.4\nvnet: {prefixes: [10.200.0.0/16]}\n"+nvaPeers(1)+
		peer("six", lab.SeedNVA6(1), lab.SeedASN, "passive: true"))
	s, six := b.dial(t, b.NVAs[0], nva4(0)), b.dial(t, b.NVAs[1], nva6(1))
	t.Run("S21/next-hop-is-self", func(t *testing.T) {
		for nextHop, p := range map[string]string{
			"10.1.2.4": "172.16.1.0/24", "10.3.0.1": "172.16.2.0/24",
			"2001:db8:1::2:4": "2001:db8:7101::/64", "2001:db8:3::1": "2001:db8:7102::/64",
		} {
			announce(t, s, attrs(addr(nextHop), lab.SeedASN), prefix(p))
			b.learned(t, "nva1", prefix(p), reason("next-hop-is-self"))
			b.route(t, prefix(p))
		}
	})
	t.Run("S21/self, and another path", func(t *testing.T) {
		p := prefix("172.16.1.0/24")
		announce(t, six, attrs(lab.SeedNVA(1), lab.SeedASN), p)
		b.route(t, p, lab.SeedNVA(1))
	})
	t.Run("S21/covers a peer", func(t *testing.T) {
		for _, p := range []string{"10.1.0.0/24", "10.1.0.4/32", "10.1.0.0/17"} {
			announce(t, s, attrs(lab.SeedNVA(0), lab.SeedASN), prefix(p))
			b.learned(t, "nva1", prefix(p), reason("covers-next-hop"))
			b.route(t, prefix(p))
		}
		for _, p := range []string{"2001:db8:1::/112", "2001:db8:1::5/128"} {
			announce(t, s, attrs(lab.SeedNVA6(0), lab.SeedASN), prefix(p))
			b.learned(t, "nva1", prefix(p), reason("covers-next-hop"))
			b.route(t, prefix(p))
		}
		if _, text := b.explain(t, "10.1.0.0/24"); !strings.Contains(text, "10.1.0.4") || !strings.Contains(text, "covers-next-hop") {
			t.Errorf("explain does not say whose traffic it would take:\n%s", text)
		}
	})
	t.Run("S21/covers nobody", func(t *testing.T) {
		announce(t, s, attrs(lab.SeedNVA(0), lab.SeedASN), prefix("10.1.128.0/17"))
		b.route(t, prefix("10.1.128.0/17"), lab.SeedNVA(0))
		announce(t, s, attrs(lab.SeedNVA6(0), lab.SeedASN), prefix("2001:db8:1::8000:0/97"))
		b.route(t, prefix("2001:db8:1::8000:0/97"), lab.SeedNVA6(0))
	})
	for _, tt := range []struct{ cover, user, nextHop string }{
		{"10.1.64.0/24", "172.16.3.0/24", "10.1.64.9"},
		{"2001:db8:1::64:0/112", "2001:db8:7103::/64", "2001:db8:1::64:9"},
	} {
		t.Run("S21/covers a next hop/"+tt.nextHop, func(t *testing.T) {
			cover, user := prefix(tt.cover), prefix(tt.user)
			gw := lab.SeedNVA(0)
			if cover.Addr().Is6() {
				gw = lab.SeedNVA6(0)
			}
			announce(t, s, attrs(gw, lab.SeedASN), cover)
			b.route(t, cover, gw)
			announce(t, s, attrs(addr(tt.nextHop), lab.SeedASN), user)
			b.route(t, user, addr(tt.nextHop))
			b.learned(t, "nva1", cover, reason("covers-next-hop"))
			b.route(t, cover)
			must(t, s.Withdraw(user))
			b.route(t, cover, gw)
		})
	}
	if p := b.peerStatus(t, "nva1"); p.State != "Established" || p.Flaps != 0 {
		t.Errorf("the session suffered: %+v", p)
	}
}

// S27: in observe mode all is computed and shown, and nothing is written.
func TestS27_Observe(t *testing.T) {
	b := newBed(t, 2, hostConfig+"fib: {mode: observe}\n"+nvaPeers(1)+peer("nva2", lab.SeedNVA(1), 65148, "passive: true"))
	before := value(b.Host.Run(within(t), "ip", "-o", "route", "show", "table", "all"))(t)
	other := nva4(1)
	other.ASN = 65148 // GoBGP keeps from a peer what has its ASN in the path
	s := []*nva.Session{b.dial(t, b.NVAs[0], nva4(0)), b.dial(t, b.NVAs[1], other)}
	both(t, "S27", "172.16.0.0/24", "2001:db8:7100::/64", func(t *testing.T, p netip.Prefix, gw func(int) netip.Addr) {
		for i := range s {
			announce(t, s[i], attrs(gw(i), lab.SeedASN+uint32(i)), p)
			b.learned(t, fmt.Sprintf("nva%d", i+1), p, reason("observe-mode"))
		}
		x, text := b.explain(t, p.String())
		if len(x.Desired) != 2 || len(x.InKernel) != 0 || x.Reason != "observe-mode" {
			t.Errorf("explain %s: %+v\n%s", p, x, text)
		}
		value(s[1].Received().WaitPath(within(t), p, nil))(t) // NVA to NVA goes on
	})
	if st := value(b.d.Status(within(t)))(t); st.FIB.Mode != "observe" || st.FIB.Desired != 2 || st.FIB.Installed != 0 {
		t.Errorf("status: %+v", st.FIB)
	}
	if out := b.ours(t); out != "" {
		t.Errorf("written in observe mode: %s", out)
	}
	if after := value(b.Host.Run(within(t), "ip", "-o", "route", "show", "table", "all"))(t); after != before {
		t.Errorf("routes before:\n%safter:\n%s", before, after)
	}
}
