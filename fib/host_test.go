package fib_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

const (
	rtnUnicast     = 1
	rtnBlackhole   = 6
	rtnUnreachable = 7
)

func via(gw string, index int) fib.Leg { return fib.Leg{Gateway: addr(gw), IfIndex: index} }

func dev(index int) fib.Leg { return fib.Leg{IfIndex: index} }

func unicast(p string, metric uint32, legs ...fib.Leg) fib.HostRoute {
	return fib.HostRoute{Prefix: pfx(p), Table: 254, Metric: metric, Type: rtnUnicast, Legs: legs}
}

func testHost() *fib.Host {
	return &fib.Host{
		Links: map[int]fib.Link{
			1: {Name: "lo", Up: true, Running: true},
			2: {Name: "eth0", Up: true, Running: true},
			3: {Name: "eth1", Up: true, Running: true},
			4: {Name: "down", Up: false, Running: true},
			5: {Name: "unplugged", Up: true, Running: false},
			6: {Name: "wg0", Up: true, Running: true},
		},
		Addrs: []fib.Address{
			{Prefix: pfx("127.0.0.1/8"), IfIndex: 1},
			{Prefix: pfx("10.1.0.1/16"), IfIndex: 2},
			{Prefix: pfx("10.2.0.1/16"), IfIndex: 3},
			{Prefix: pfx("10.99.0.1/32"), IfIndex: 1},
			{Prefix: pfx("fd01::1/64"), IfIndex: 2},
			{Prefix: pfx("fe80::1/64"), IfIndex: 2},
		},
		Routes: []fib.HostRoute{
			unicast("0.0.0.0/0", 100, via("10.1.0.254", 2)),
			unicast("10.1.0.0/16", 0, dev(2)),
			unicast("10.2.0.0/16", 0, dev(3)),
			unicast("10.1.5.0/24", 0, via("10.2.0.9", 3)),                                         // longer than the connected one
			unicast("10.4.0.0/16", 0, dev(4)),                                                     // administratively down
			unicast("10.5.0.0/16", 0, dev(5)),                                                     // no carrier
			unicast("10.6.0.0/16", 0, dev(6)),                                                     // a tunnel without neighbours
			unicast("10.7.0.0/16", 200, via("10.1.0.7", 2)),                                       // two metrics, the worse first
			unicast("10.7.0.0/16", 50, via("10.2.0.7", 3)),                                        //
			unicast("10.7.0.0/16", 300, via("10.1.0.8", 2)),                                       //
			unicast("10.8.0.0/16", 0, via("10.2.0.8", 3), via("10.1.0.8", 2)),                     // multipath
			unicast("10.9.0.0/16", 0, via("10.4.0.9", 4), via("10.1.0.9", 2), via("10.5.0.9", 5)), // one leg left
			{Prefix: pfx("10.10.0.0/16"), Table: 254, Type: rtnBlackhole},
			{Prefix: pfx("fd99::/16"), Table: 254, Type: rtnUnreachable, Metric: 1024},
			unicast("10.11.0.0/16", 0, dev(77)),            // a link that is not there
			unicast("10.12.0.0/16", 0),                     // all legs were of a kind we do not use
			unicast("10.13.0.0/16", 0, via("fd01::13", 2)), // an IPv4 route with an IPv6 gateway (RFC 8950)
			unicast("fd01::/64", 256, dev(2)),
			unicast("fe80::/64", 256, dev(2)),
			unicast("fd02::/48", 1024, via("fe80::99", 2)),
			unicast("10.14.0.0/16", 0, dev(2), dev(2)), // the same twice
		},
	}
}

func TestResolve(t *testing.T) {
	r := fib.NewResolver(testHost())
	unreachable := func(route string, metric uint32) fib.Resolution {
		res := fib.Resolution{Why: fib.Unreachable, Metric: metric}
		if route != "" {
			res.Route = pfx(route)
		}
		return res
	}
	found := func(route string, metric uint32, legs ...fib.Leg) fib.Resolution {
		return fib.Resolution{Legs: legs, Route: pfx(route), Metric: metric}
	}
	for _, tt := range []struct {
		name string
		nh   string
		want fib.Resolution
	}{
		{"connected", "10.1.0.4", found("10.1.0.0/16", 0, via("10.1.0.4", 2))},
		{"connected, IPv6", "fd01::4", found("fd01::/64", 256, via("fd01::4", 2))},
		{"via a gateway", "192.0.2.1", found("0.0.0.0/0", 100, via("10.1.0.254", 2))},
		{"via a link-local gateway", "fd02::5", found("fd02::/48", 1024, via("fe80::99", 2))},
		{"via an IPv6 gateway", "10.13.0.1", found("10.13.0.0/16", 0, via("fd01::13", 2))},
		{"longest match", "10.1.5.5", found("10.1.5.0/24", 0, via("10.2.0.9", 3))},
		{"lowest metric", "10.7.1.1", found("10.7.0.0/16", 50, via("10.2.0.7", 3))},
		{"multipath", "10.8.1.1", found("10.8.0.0/16", 0, via("10.1.0.8", 2), via("10.2.0.8", 3))},
		{"multipath, legs on links that are down left out", "10.9.1.1", found("10.9.0.0/16", 0, via("10.1.0.9", 2))},
		{"the same leg twice", "10.14.0.4", found("10.14.0.0/16", 0, via("10.14.0.4", 2))},
		{"a tunnel", "10.6.0.2", found("10.6.0.0/16", 0, via("10.6.0.2", 6))},
		{"link down (S20)", "10.4.0.4", unreachable("10.4.0.0/16", 0)},
		{"no carrier (S20)", "10.5.0.4", unreachable("10.5.0.0/16", 0)},
		{"link gone", "10.11.0.4", unreachable("10.11.0.0/16", 0)},
		{"no legs", "10.12.0.4", unreachable("10.12.0.0/16", 0)},
		{"blackhole", "10.10.0.4", unreachable("10.10.0.0/16", 0)},
		{"unreachable route, IPv6", "fd99::4", unreachable("fd99::/16", 1024)},
		{"no route, IPv6", "2001:db8::1", unreachable("", 0)},
		{"self (S21)", "10.1.0.1", fib.Resolution{Why: fib.IsSelf}},
		{"self, another interface's", "10.2.0.1", fib.Resolution{Why: fib.IsSelf}},
		{"self, a loopback address outside 127/8", "10.99.0.1", fib.Resolution{Why: fib.IsSelf}},
		{"self, IPv6", "fd01::1", fib.Resolution{Why: fib.IsSelf}},
		{"loopback", "127.0.0.1", unreachable("", 0)},
		{"loopback, IPv6", "::1", unreachable("", 0)},
		{"unspecified", "0.0.0.0", unreachable("", 0)},
		{"unspecified, IPv6", "::", unreachable("", 0)},
		{"multicast", "224.0.0.5", unreachable("", 0)},
		{"multicast, IPv6", "ff02::5", unreachable("", 0)},
		{"link-local, IPv6: on which link?", "fe80::5", unreachable("", 0)},
		{"link-local, IPv4, is as any other", "169.254.21.1", found("0.0.0.0/0", 100, via("10.1.0.254", 2))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Resolve(addr(tt.nh)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Resolve(%s) = %+v, want %+v", tt.nh, got, tt.want)
			}
		})
	}
	if got := r.Resolve(netip.Addr{}); got.Why != fib.Unreachable {
		t.Errorf("Resolve(invalid) = %+v, want unreachable", got)
	}
	if !r.IsSelf(addr("10.1.0.1")) || r.IsSelf(addr("10.1.0.4")) {
		t.Error("IsSelf does not know its own")
	}
}

// Without any route, as between two readings of a host that is being set up.
func TestResolveNothing(t *testing.T) {
	r := fib.NewResolver(&fib.Host{})
	if got := r.Resolve(addr("10.1.0.4")); got.Why != fib.Unreachable || got.Route.IsValid() {
		t.Errorf("Resolve = %+v, want unreachable without a route", got)
	}
}

// Which of two tables' routes comes first in a reading does not matter.
func TestResolveOrder(t *testing.T) {
	h := testHost()
	want := fib.NewResolver(h).Resolve(addr("10.7.1.1"))
	for i, j := 0, len(h.Routes)-1; i < j; i, j = i+1, j-1 {
		h.Routes[i], h.Routes[j] = h.Routes[j], h.Routes[i]
	}
	if got := fib.NewResolver(h).Resolve(addr("10.7.1.1")); !reflect.DeepEqual(got, want) {
		t.Errorf("Resolve = %+v with the routes reversed, want %+v", got, want)
	}
}
