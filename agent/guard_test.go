package agent

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

const protoStatic = 4

// static is a route of an operator.
func static(p netip.Prefix, metric uint32, legs ...fib.Leg) fib.Route {
	return fib.Route{Prefix: p, Table: 254, Metric: metric, Protocol: protoStatic, Type: rtnUnicast, Legs: legs}
}

// reason is what the learned view says of the only path of a prefix.
func (l *lab) reason(peer netip.Addr, p netip.Prefix) string {
	l.t.Helper()
	for _, r := range l.learnedOf(peer) {
		if r.Network == p.String() {
			if r.Installed {
				return "installed"
			}
			return r.Reason
		}
	}
	return "not learned"
}

func (l *lab) expectReason(when string, peer netip.Addr, p netip.Prefix, want string) {
	l.t.Helper()
	if got := l.reason(peer, p); got != want {
		l.t.Errorf("%s: path of %s for %s is %q, want %q", when, peer, p, got, want)
	}
}

// S18: what equals a VNet prefix or is inside one is learned and not installed, unless
// allow-inside-vnet lists it; a supernet is installed.
func TestInsideVNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allowed := prefix("10.1.7.0/24")
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.VNet.AllowInside = []netip.Prefix{allowed} })
		l.up(quagga)
		tests := []struct{ prefix, want string }{
			{"10.1.0.0/16", "inside-vnet"},
			{"10.1.9.0/24", "inside-vnet"},
			{"10.1.7.0/24", "installed"},
			{"10.1.7.0/25", "inside-vnet"},
			{"10.0.0.0/8", "installed"},
			{"fd00:1::/96", "inside-vnet"},
		}
		for _, tt := range tests {
			nextHop := quagga
			if prefix(tt.prefix).Addr().Is6() {
				nextHop = addr("fd00:1::a")
			}
			l.announceWith(quagga, attrs(nextHop, 1), prefix(tt.prefix))
		}
		l.settle()
		for _, tt := range tests {
			l.expectReason("announced", quagga, prefix(tt.prefix), tt.want)
			if installed := l.nextHops(prefix(tt.prefix)) != nil; installed != (tt.want == "installed") {
				t.Errorf("%s in the kernel: %t", tt.prefix, installed)
			}
		}
		if got := l.a.FIB().Rejected["inside-vnet"]; got != 4 {
			t.Errorf("%d prefixes counted as inside-vnet, want 4", got)
		}
		if p := l.a.Peers()[0]; p.Received != 6 || p.Accepted != 6 {
			t.Errorf("received %d, accepted %d, want 6 and 6", p.Received, p.Accepted)
		} else if p.Families["ipv4"].Received+p.Families["ipv6"].Accepted != 6 || p.Families["ipv6"].Received == 0 {
			t.Errorf("by family: %+v, want those of IPv4 and of IPv6 to add up to 6", p.Families)
		}
		l.consistent()
		for _, tt := range tests {
			l.withdraw(quagga, prefix(tt.prefix))
		}
		l.settle()
		l.consistent()
	})
}

// S8: a path with our own AS or AS 0 in it is not used, and counted per peer.
func TestLoopedPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		own, zero := attrs(quagga, 2), attrs(bird, 2)
		own.ASPath[0].ASNs[1] = 65515
		zero.ASPath[0].ASNs[1] = 0
		l.announceWith(quagga, own, seed)
		l.settle()
		l.expect("only a looped path", seed)
		l.expectReason("looped", quagga, seed, "own-as-in-path")
		l.consistent()
		if got := l.a.FIB().Rejected["own-as-in-path"]; got != 1 {
			t.Errorf("%d prefixes counted as own-as-in-path, want 1", got)
		}
		if p := l.a.Peers()[0]; p.Received != 1 || p.Accepted != 0 {
			t.Errorf("received %d, accepted %d, want 1 and 0", p.Received, p.Accepted)
		}
		l.announce(bird, seed)
		l.settle()
		l.expect("and a good one", seed, "10.1.0.5")
		l.announceWith(bird, zero, seed)
		l.settle()
		l.expect("both are bad", seed)
		l.expectReason("looped", bird, seed, "as-zero-in-path")
		l.withdraw(quagga, seed)
		l.withdraw(bird, seed)
		l.settle()
		l.consistent()
		for _, p := range l.a.Peers() {
			if p.Received != 0 || p.Accepted != 0 {
				t.Errorf("%s: received %d, accepted %d, want none", p.Name, p.Received, p.Accepted)
			}
		}
	})
}

// S19: a foreign route with our key is never touched; ours comes when it is gone.
func TestForeignRoute(t *testing.T) {
	theirs := func(l *lab) bool {
		routes := l.m.Routes(seed, 254)
		return len(routes) == 1 && routes[0].Protocol == protoStatic
	}
	foreign := func(l *lab) fib.Route {
		return static(seed, owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0})
	}
	bubble(t, "it was there before", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(foreign(l))
		l.up(quagga)
		l.announce(quagga, seed)
		l.settle()
		if !theirs(l) {
			t.Fatalf("the foreign route was touched: %s", text(l.m.Routes(seed, 254)))
		}
		l.expectReason("conflict", quagga, seed, "foreign-route")
		applies, _, _ := l.k.counts()
		time.Sleep(5 * time.Minute)
		if n, _, _ := l.k.counts(); n-applies > 10 {
			t.Errorf("%d more attempts in five minutes, want one in 30 s at most", n-applies)
		}
		if got := l.log.lines("event=foreign-conflict", "prefix=192.168.255.0/24", "protocol=static"); len(got) != 1 {
			t.Errorf("%d conflict records, want 1: %q", len(got), got)
		}
		l.consistent()
	})
	bubble(t, "it appears and goes", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, seed)
		l.expect("before", seed, "10.1.0.4")
		l.m.ReplaceRoute(foreign(l))
		l.settle()
		if !theirs(l) {
			t.Fatalf("the foreign route was touched: %s", text(l.m.Routes(seed, 254)))
		}
		l.expectReason("replaced ours", quagga, seed, "foreign-route")
		if got := l.log.lines("event=foreign-conflict"); len(got) != 1 {
			t.Errorf("%d conflict records, want 1: %q", len(got), got)
		}
		l.announce(bird, seed) // a change of ours must not take it over either
		l.withdraw(bird, seed)
		if !theirs(l) {
			t.Fatalf("the foreign route was touched: %s", text(l.m.Routes(seed, 254)))
		}
		if got := l.log.lines("event=foreign-conflict"); len(got) != 1 {
			t.Errorf("%d conflict records, want 1: %q", len(got), got)
		}
		l.m.DelRoute(foreign(l))
		l.settle()
		l.expect("it is gone", seed, "10.1.0.4")
		l.consistent()
		l.withdraw(quagga, seed)
		l.m.AddRoute(foreign(l))
		l.settle()
		if !theirs(l) {
			t.Errorf("the foreign route was touched: %s", text(l.m.Routes(seed, 254)))
		}
	})
	// The kernel drops IPv4 routes with their link, and tells nobody.
	bubble(t, "it goes with its link", func(t *testing.T) {
		l := newLab(t, nil)
		eth1 := l.m.AddLink("eth1", prefix("172.31.0.1/24"))
		l.m.AddRoute(static(seed, owner.Metric, fib.Leg{Gateway: addr("172.31.0.9"), IfIndex: eth1}))
		l.up(quagga)
		l.announce(quagga, seed)
		l.settle()
		l.expectReason("conflict", quagga, seed, "foreign-route")
		l.m.SetLink(eth1, false)
		l.settle()
		l.expect("its link is down", seed, "10.1.0.4")
		l.consistent()
	})
	// Each look at the kernel's route is a reading of the whole table.
	bubble(t, "thousands of them", func(t *testing.T) {
		l := newLab(t, nil)
		prefixes := many(5000)
		for _, p := range prefixes {
			l.m.AddRoute(static(p, owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0}))
		}
		l.up(quagga)
		l.settle()
		_, _, hosts := l.k.counts()
		l.announce(quagga, prefixes...)
		l.settle()
		l.expectReason("conflict", quagga, prefixes[4999], "foreign-route")
		if got := l.log.lines("event=foreign-conflict", "protocol=static"); len(got) == 0 {
			t.Error("no record tells whose routes they are")
		}
		cycles := len(prefixes)/cycleRoutes + 1
		if _, _, n := l.k.counts(); n-hosts > cycles+1 || l.k.lookups > cycles*fewConflicts {
			t.Errorf("%d readings of the host and %d of the table, want no more than one of either for %d routes", n-hosts, l.k.lookups, cycleRoutes)
		}
		l.m.DelRoute(fib.Route{Prefix: prefixes[7], Table: 254, Metric: owner.Metric})
		l.settle()
		l.expect("one is gone", prefixes[7], "10.1.0.4")
		l.consistent()
	})
	bubble(t, "another metric", func(t *testing.T) {
		l := newLab(t, nil)
		r := foreign(l)
		r.Metric = 0
		l.m.AddRoute(r)
		l.up(quagga)
		l.announce(quagga, seed)
		l.expect("beside a static route", seed, "10.1.0.4")
	})
}

// S26 in its basic form: what others do to our routes and objects is put back, and an
// own route that somebody wrote again is no foreign one.
func TestRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		prefixes := many(300)
		l.up(quagga, bird)
		l.announce(quagga, prefixes...)
		l.announce(bird, prefixes...)
		l.settle()
		all := func(what string) {
			t.Helper()
			l.settle()
			for _, p := range prefixes {
				l.expect(what, p, "10.1.0.4", "10.1.0.5")
			}
			l.consistent()
			if got := l.log.lines("event=foreign-conflict"); len(got) != 0 {
				t.Errorf("%s: taken for foreign: %q", what, got)
			}
		}
		all("before")
		l.m.DelRoute(fib.Route{Prefix: prefixes[0], Table: 254, Metric: owner.Metric})
		all("one route deleted")
		l.m.FlushProtocol(254, owner.Protocol)
		all("flushed")
		l.m.ReplaceRoute(l.m.Routes(prefixes[0], 254)[0])
		all("one of ours written again by somebody")
		// By the time an event is read, the kernel may have moved on.
		l.m.Emit(fib.Event{Kind: fib.Overflow})
		synctest.Wait()
		l.m.Emit(fib.Event{Kind: fib.ForeignRoute, Prefix: prefixes[1], Table: 254, Protocol: protoStatic})
		l.m.Emit(fib.Event{Kind: fib.OwnRouteChanged, Prefix: prefixes[2], Table: 254, Protocol: owner.Protocol, Deleted: true})
		synctest.Wait()
		l.m.DelRoute(fib.Route{Prefix: prefixes[1], Table: 254, Metric: owner.Metric})
		all("events that are out of date")
		snap, _ := l.k.Kernel.Dump(nil)
		for id := range snap.NextHops {
			l.m.DelNextHop(id)
			break
		}
		all("a next hop deleted")
		snap, _ = l.k.Kernel.Dump(nil)
		for id := range snap.Groups {
			l.m.DelNextHop(id)
		}
		all("all groups deleted")
		snap, _ = l.k.Kernel.Dump(nil)
		for id, members := range snap.Groups {
			l.m.SetGroup(id, members[:1], owner.Protocol)
		}
		all("a group changed")
		l.m.SetLink(l.eth0, false)
		l.m.SetLink(l.eth0, true)
		all("link down and up")
		l.m.Emit(fib.Event{Kind: fib.Overflow})
		all("overflow")
		if len(l.log.lines("event=repair")) == 0 {
			t.Error("no repair was logged")
		}
		l.atRest()
	})
}

// S20: next hops come and go with the host's links, addresses and routes.
func TestNextHopReachability(t *testing.T) {
	far := addr("172.16.0.9")
	bubble(t, "link", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, seed)
		l.m.SetCarrier(l.eth0, false)
		l.settle()
		l.expect("no carrier", seed)
		l.expectReason("no carrier", quagga, seed, "next-hop-unreachable")
		if got := l.log.lines("event=nexthop-lost", "nexthop=10.1.0.4"); len(got) != 1 {
			t.Errorf("%d records of the lost next hop, want 1", len(got))
		}
		l.consistent()
		l.m.SetCarrier(l.eth0, true)
		l.settle()
		l.expect("carrier", seed, "10.1.0.4")
		if got := l.log.lines("event=nexthop-found", "nexthop=10.1.0.4"); len(got) != 1 {
			t.Errorf("%d records of the found next hop, want 1", len(got))
		}
		l.atRest()
	})
	bubble(t, "address", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announceWith(quagga, attrs(far, 1), seed)
		l.expect("no way to it", seed)
		l.expectReason("no way to it", quagga, seed, "next-hop-unreachable")
		l.m.AddAddr(l.eth0, prefix("172.16.0.1/24"))
		l.settle()
		l.expect("connected", seed, "172.16.0.9")
		l.m.DelAddr(l.eth0, prefix("172.16.0.1/24"))
		l.settle()
		l.expect("not any more", seed)
	})
	bubble(t, "route", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announceWith(quagga, attrs(far, 1), seed)
		r := static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0})
		l.m.AddRoute(r)
		l.settle()
		l.expect("through a router", seed, "10.1.0.7")
		l.m.DelRoute(r)
		l.settle()
		l.expect("not any more", seed)
	})
	// A route that led to no next hop when it came was not read; it is when one appears.
	bubble(t, "route before the next hop", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0}))
		l.settle()
		_, _, before := l.k.counts()
		l.up(quagga)
		l.announceWith(quagga, attrs(far, 1), seed)
		l.settle()
		l.expect("through a router", seed, "10.1.0.7")
		if _, _, after := l.k.counts(); after != before+1 {
			t.Errorf("%d readings of the host, want 1", after-before)
		}
	})
	// The host's other routes may churn.
	bubble(t, "no concern", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, seed)
		l.settle()
		_, dumps, hosts := l.k.counts()
		for i, p := range many(500) {
			l.m.AddRoute(static(p, 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0}))
			if i%2 == 0 {
				l.m.AddLink("veth"+p.Addr().String(), prefix("198.18.0.1/32"))
			}
			synctest.Wait()
		}
		l.settle()
		if _, d, h := l.k.counts(); d != dumps || h > hosts+251 {
			t.Errorf("%d dumps, %d readings of the host, want none and at most one per link", d-dumps, h-hosts)
		}
	})
	// Readings are rate-limited in a storm, and the last state counts.
	bubble(t, "storm", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announceWith(quagga, attrs(far, 1), seed)
		l.settle()
		r := static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0})
		_, _, before := l.k.counts()
		for range 500 {
			l.m.AddRoute(r)
			synctest.Wait()
			l.m.DelRoute(r)
			time.Sleep(time.Millisecond)
		}
		l.m.AddRoute(r)
		l.settle()
		l.expect("at last", seed, "10.1.0.7")
		if _, _, after := l.k.counts(); after-before > 30 {
			t.Errorf("%d readings of the host in 0.5 s, want at most one in 20 ms", after-before)
		}
	})
}

// S21: the loop guards.
func TestLoopGuards(t *testing.T) {
	bubble(t, "next-hop-is-self", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announceWith(quagga, attrs(addr("10.1.2.4"), 1), seed)
		l.settle()
		l.expect("our own address", seed)
		l.expectReason("our own address", quagga, seed, "next-hop-is-self")
		l.announce(bird, seed)
		l.expect("and another", seed, "10.1.0.5")
	})
	bubble(t, "covers-next-hop", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.VNet.Prefixes = nil })
		l.up(quagga, bird)
		covering := prefix("10.1.0.0/24")
		l.announce(quagga, covering)
		l.announce(quagga, prefix("10.0.0.0/8"))
		l.settle()
		l.expect("around the peers", covering)
		l.expectReason("around the peers", quagga, covering, "covers-next-hop")
		l.expect("shorter than the host's own route", prefix("10.0.0.0/8"), "10.1.0.4")
		l.consistent()
	})
	bubble(t, "the next hop appears later", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0}))
		l.up(quagga, bird)
		covering := prefix("172.16.1.0/24")
		l.announce(quagga, covering)
		l.settle()
		l.expect("nothing to cover", covering, "10.1.0.4")
		l.announceWith(bird, attrs(addr("172.16.1.1"), 1), seed)
		l.settle()
		l.expect("it covers a next hop", covering)
		l.expect("whose route is", seed, "10.1.0.7")
		l.withdraw(bird, seed)
		l.settle()
		l.expect("the next hop is gone", covering, "10.1.0.4")
	})
	// A next hop that equals a peer's address goes in the same cycle in which another
	// comes: the number of protected addresses stays the same.
	bubble(t, "one next hop for another", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0}))
		l.up(quagga, bird)
		covering := prefix("172.16.1.0/24")
		l.announce(quagga, covering)
		l.announce(bird, seed)
		l.announceWith(bird, attrs(addr("172.16.1.1"), 1), seed)
		l.settle()
		l.expect("it covers a next hop", covering)
		l.expect("whose route is", seed, "10.1.0.7")
	})
	bubble(t, "the host's route changes", func(t *testing.T) {
		l := newLab(t, nil)
		l.m.AddRoute(static(prefix("172.16.0.0/16"), 100, fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: l.eth0}))
		l.up(quagga, bird)
		covering := prefix("172.16.1.0/24")
		l.announceWith(bird, attrs(addr("172.16.1.1"), 1), seed)
		l.announce(quagga, covering)
		l.settle()
		l.expect("it covers a next hop", covering)
		better := static(prefix("172.16.1.1/32"), 0, fib.Leg{Gateway: addr("10.1.0.8"), IfIndex: l.eth0})
		l.m.AddRoute(better)
		l.settle()
		l.expect("the host has a longer route", covering, "10.1.0.4")
		l.expect("and uses it", seed, "10.1.0.8")
		l.m.DelRoute(better)
		l.settle()
		l.expect("it has not any more", covering)
		l.expect("it has not any more", seed, "10.1.0.7")
	})
}

// S27: observe computes and shows everything, and writes nothing.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Mode = config.ModeObserve })
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		l.announce(bird, prefix("10.1.0.0/16"))
		l.settle()
		if applies, _, _ := l.k.counts(); applies != 0 {
			t.Errorf("%d writes", applies)
		}
		l.expectReason("observed", quagga, seed, "observe-mode")
		l.expectReason("observed", bird, prefix("10.1.0.0/16"), "inside-vnet")
		x, err := l.a.explain(t.Context(), seed.String())
		if err != nil || x.Reason != "observe-mode" || !slices.Equal(x.Desired, []string{"via 10.1.0.4 dev eth0", "via 10.1.0.5 dev eth0"}) || len(x.InKernel) != 0 {
			t.Errorf("explain: %s, %v", text(x), err)
		}
		if f := l.a.FIB(); f.Desired != 1 || f.Installed != 0 || f.Groups != 0 || f.Rejected["observe-mode"] != 1 || f.Mode != "observe" {
			t.Errorf("status: %s", text(f))
		}
		if ready, why := l.a.Ready(); !ready {
			t.Errorf("not ready: %s", why)
		}
		l.consistent()
		// Nothing piles up in what would have been written.
		for _, p := range many(100) {
			l.announce(quagga, p)
			l.withdraw(quagga, p)
		}
		l.m.Emit(fib.Event{Kind: fib.Overflow})
		l.settle()
		if c := l.a.table.Counts(); c.Pending != 0 || c.Groups > 3 {
			t.Errorf("kept for nothing: %s", text(c))
		}
		l.withdraw(quagga, seed)
		l.withdraw(bird, seed)
		l.atRest()
		if err := l.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
