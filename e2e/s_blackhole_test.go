package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// RFC 7999: the traffic to a host stops for as long as a peer that may asks for it; that to
// the rest of the prefix loses no packet. Other appliances do not hear of it.
func TestBlackhole(t *testing.T) {
	for _, mode := range fibModes {
		t.Run(mode.name, func(t *testing.T) {
			b := newBed(t, 2, hostConfig+mode.config+"peers:\n"+
				peer("scrubber", lab.SeedNVA(0), 65101, "passive: true", "blackhole: true")+
				peer("router", lab.SeedNVA(1), 65102, "passive: true"))
			so, ro := nva4(0), nva4(1)
			so.ASN, ro.ASN = 65101, 65102
			scrubber, router := b.dial(t, b.NVAs[0], so), b.dial(t, b.NVAs[1], ro)
			for _, f := range []struct {
				name         string
				branch       netip.Prefix
				server, next netip.Addr
				add          string
				gw           func(int) netip.Addr
			}{
				{"IPv4", lab.SeedBranch, lab.SeedServer, addr("192.168.255.11"), "192.168.255.11/32 dev eth0", lab.SeedNVA},
				{"IPv6", lab.SeedBranch6, lab.SeedServer6, addr("2001:db8:255::11"), "2001:db8:255::11/128 dev eth0 nodad", lab.SeedNVA6},
			} {
				t.Run(f.name, func(t *testing.T) {
					host := netip.PrefixFrom(f.server, f.server.BitLen())
					next := netip.PrefixFrom(f.next, f.next.BitLen())
					must(t, b.Server.IP("addr add "+f.add))
					announce(t, router, attrs(f.gw(1), 65102), f.branch, host)
					b.route(t, host, f.gw(1))
					doomed := b.flows(t, lab.TrafficConfig{Dst: f.server, Flows: 4, Rate: 200})
					rest := b.flows(t, lab.TrafficConfig{Dst: f.next, Flows: 4, Rate: 200, Port: 10})
					start := time.Now()

					drop := attrs(f.gw(0), 65101)
					drop.Communities = []nva.Community{65535<<16 | 666}
					announce(t, scrubber, drop, host)
					forged := attrs(f.gw(1), 65102)
					forged.Communities = drop.Communities
					announce(t, router, forged, next) // who may not
					poll(t, "no more packets to "+f.server.String(), func() error {
						r := doomed.Report(time.Now().Add(-time.Second))
						if got := r.Sent() - r.Lost(); got > 0 || r.Sent() == 0 {
							return fmt.Errorf("%d of %d arrived in the last second", got, r.Sent())
						}
						return nil
					})
					b.route(t, next, f.gw(1))
					if out := b.ip(t, host); !strings.HasPrefix(out, "blackhole ") || strings.Count(out, host.Addr().String()) != 1 {
						t.Errorf("ip route show %s:\n%s", host, out)
					}
					b.learned(t, "scrubber", host, reason(""))
					b.learned(t, "router", host, reason("blackholed"))
					if _, text := b.explain(t, host.String()); !strings.Contains(text, "blackhole") {
						t.Errorf("explain:\n%s", text)
					}
					routes := list[status.Route](t, b, "routes")
					if i := slices.IndexFunc(routes, func(r status.Route) bool { return r.Prefix == host.String() }); i < 0 || routes[i].NextHopType != "None" || routes[i].Peer != "scrubber" {
						t.Errorf("routes: %+v", routes)
					}
					must(t, router.Received().WaitGone(within(t), host))

					must(t, scrubber.Withdraw(host))
					b.route(t, host, f.gw(1))
					b.steady(t, doomed, 400)
					b.steady(t, rest, 400)
					bound := 0
					if f.name == "IPv6" {
						bound = rest.Report(start).Sent() / 100 // see TestS22_AtomicReplace
					}
					if r := rest.Report(start); r.Lost() > bound {
						t.Errorf("the rest of the prefix lost %d of %d packets", r.Lost(), r.Sent())
					}
				})
			}
		})
	}
}
