package fibtest

import (
	"fmt"
	"net/netip"
	"reflect"
	"syscall"

	"github.com/nexthopd/nexthopd/fib"
)

func testRefusals(e *env) {
	e.objects(families[0])
	noLeg := func(gw string, dev int) fib.Op {
		return fib.Op{Kind: fib.NextHopAdd, ID: first + 5, Leg: fib.Leg{Gateway: addr(gw), IfIndex: dev}}
	}
	group := func(kind fib.OpKind, id uint32, members ...uint32) fib.Op {
		return fib.Op{Kind: kind, ID: id, Members: members}
	}
	e.apply(route(fib.RouteAdd, prefix("10.9.0.0/24"), first+10))
	for _, c := range []struct {
		op    fib.Op
		errno syscall.Errno
		text  string
	}{
		{fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: families[0].leg(e, 0)}, syscall.EEXIST, ""},
		{fib.Op{Kind: fib.NextHopAdd, ID: first + 10, Leg: families[0].leg(e, 0)}, syscall.EEXIST, ""},
		{noLeg("10.0.0.2", 9999), syscall.EINVAL, "Invalid device index"},
		{noLeg("2001:db8::2", 9999), syscall.EINVAL, "Invalid device index"},
		// The host's own address: S21.
		{noLeg("10.0.0.1", e.v0), syscall.EINVAL, "Nexthop has invalid gateway"},
		{noLeg("10.0.1.1", e.v0), syscall.EINVAL, "Nexthop has invalid gateway"},
		{noLeg("2001:db8::1", e.v0), syscall.EINVAL, "Gateway can not be a local address"},
		{noLeg("224.0.0.5", e.v0), syscall.EINVAL, "Nexthop has invalid gateway"},
		{noLeg("2001:db8:1::99", e.v0), syscall.EINVAL, "Nexthop has invalid gateway or device mismatch"},
		{group(fib.GroupAdd, first+10, first+1), syscall.EEXIST, ""},
		{group(fib.GroupAdd, first+1, first+2), syscall.EEXIST, ""},
		{group(fib.GroupAdd, first+11, first+1, first+99), syscall.EINVAL, "Invalid nexthop id"},
		{group(fib.GroupAdd, first+11, first+1, first+1), syscall.EINVAL, "Nexthop id can not be used twice in a group"},
		{group(fib.GroupAdd, first+11, first+10), syscall.EINVAL, "Hash-threshold group can not be a nexthop within a group"},
		{group(fib.GroupAdd, first+11), syscall.EINVAL, "Invalid length for nexthop group attribute"},
		{group(fib.GroupReplace, first+11, first+1), syscall.ENOENT, "Replace specified without create and no entry exists"},
		{group(fib.GroupReplace, first+1, first+2), syscall.EINVAL, "Can not replace a nexthop with a nexthop group."},
		{group(fib.GroupReplace, first+10, first+99), syscall.EINVAL, "Invalid nexthop id"},
		{route(fib.RouteAdd, prefix("10.9.0.0/24"), first+10), syscall.EEXIST, ""},
		{route(fib.RouteAdd, prefix("10.9.1.0/24"), first+99), syscall.EINVAL, "Nexthop id does not exist"},
		{route(fib.RouteAdd, prefix("2001:db9::/48"), first+10), syscall.EINVAL, "IPv6 routes can not use an IPv4 nexthop"},
		{route(fib.RouteReplace, prefix("10.9.1.0/24"), first+10), syscall.ENOENT, ""},
		{route(fib.RouteReplace, prefix("10.9.0.0/24"), first+99), syscall.EINVAL, "Nexthop id does not exist"},
		{route(fib.RouteAdd, prefix("10.9.1.0/24"), 0), syscall.EINVAL, "no next hop, or too many"},
		{fib.Op{Kind: 99}, syscall.EINVAL, "unknown operation"},
	} {
		e.refuse(c.op, c.errno, c.text)
	}
	// An IPv4 gateway on another link's subnet is accepted: onlink asks no questions.
	e.apply(noLeg("10.0.1.99", e.v0))
}

func testRefusalsClassic(e *env) {
	if e.k.HasNextHopObjects() {
		e.Error("HasNextHopObjects in classic mode")
	}
	add := func(p, gw string, dev int) fib.Op {
		return fib.Op{Kind: fib.RouteAdd, Prefix: prefix(p), Legs: []fib.Leg{{Gateway: addr(gw), IfIndex: dev}}}
	}
	const four, six = "10.9.0.0/24", "2001:db9::/48"
	down := e.AddLink("v2")
	e.SetLink(down, false)
	for _, c := range []struct {
		op    fib.Op
		errno syscall.Errno
		text  string
	}{
		{add(four, "10.0.0.2", 9999), syscall.ENODEV, "Nexthop device required for onlink"},
		{add(six, "2001:db8::2", 9999), syscall.ENODEV, ""},
		{add(four, "10.0.0.2", down), syscall.ENETDOWN, "Nexthop device is not up"},
		{add(six, "2001:db8:9::2", down), syscall.ENETDOWN, "Nexthop device is not up"},
		{add(four, "10.0.0.1", e.v0), syscall.EINVAL, "Nexthop has invalid gateway"},
		{add(six, "2001:db8::1", e.v0), syscall.EINVAL, "Gateway can not be a local address"},
		{add(six, "10.0.0.2", e.v0), syscall.EINVAL, "IPv6 does not support RTA_VIA attribute"},
	} {
		e.refuse(c.op, c.errno, c.text)
	}
}

func testClassic(e *env, f family) {
	p, q := f.prefix(1), f.prefix(2)
	both := []fib.Leg{f.leg(e, 0), f.leg(e, 1)}
	set := func(kind fib.OpKind, p netip.Prefix, legs ...fib.Leg) fib.Op {
		return fib.Op{Kind: kind, Prefix: p, Legs: legs}
	}
	check := func(what string, want map[netip.Prefix][]fib.Leg) {
		e.Helper()
		routes := make(map[netip.Prefix]fib.SnapshotRoute)
		for p, legs := range want {
			routes[p] = fib.SnapshotRoute{Legs: legs}
		}
		e.want(what, fib.Snapshot{Routes: routes})
	}
	e.apply(set(fib.RouteAdd, p, both...), set(fib.RouteAdd, q, both[1]))
	check("after the adds", map[netip.Prefix][]fib.Leg{p: both, q: both[1:]})
	e.refuse(set(fib.RouteAdd, p, both...), syscall.EEXIST, "")
	if got := e.lookup(p); len(got) != 1 || !reflect.DeepEqual(got[0].Legs, both) || got[0].GroupID != 0 {
		e.Errorf("Lookup = %+v", got)
	}
	e.apply(set(fib.RouteReplace, p, both[0]), set(fib.RouteReplace, q, both[1], both[0]))
	check("after the replaces", map[netip.Prefix][]fib.Leg{p: both[:1], q: both})
	e.refuse(set(fib.RouteReplace, f.prefix(3), both...), syscall.ENOENT, f.noMatch())
	e.apply(set(fib.RouteAdd, f.prefix(3), fib.Leg{IfIndex: e.v0}))
	check("a leg without gateway", map[netip.Prefix][]fib.Leg{p: both[:1], q: both, f.prefix(3): {{IfIndex: e.v0}}})
	e.apply(set(fib.RouteDel, p), set(fib.RouteDel, q), set(fib.RouteDel, f.prefix(3)), set(fib.RouteDel, p))
	check("after the deletes", nil)

	e.AddRoute(e.foreign(f, p, owner.Metric, 4))
	e.AddRoute(e.foreign(f, p, owner.Metric+1, owner.Protocol))
	check("strangers' routes", nil)
	e.apply(set(fib.RouteDel, p))
	if got := e.lookup(p); len(got) != 2 {
		e.Errorf("strangers' routes = %+v, want both", got)
	}
	if f.name == "IPv4" { // over an IPv6 gateway
		mixed := []fib.Leg{f.leg(e, 0), families[1].leg(e, 1)}
		e.apply(set(fib.RouteAdd, q, mixed...), set(fib.RouteAdd, f.prefix(4), mixed[1]))
		check("IPv6 gateways", map[netip.Prefix][]fib.Leg{q: mixed, f.prefix(4): mixed[1:]})
	}
}

// What an earlier run with groups left behind is ours in classic mode, too.
func testClassicAfterObjects(e *env, f family) {
	e.objects(f)
	p := f.prefix(1)
	e.apply(route(fib.RouteAdd, p, first+10))
	want := e.dump()
	e.k = e.Open(owner, true)
	e.want("seen in classic mode", want)
	e.apply(
		fib.Op{Kind: fib.RouteReplace, Prefix: p, Legs: []fib.Leg{f.leg(e, 0), f.leg(e, 1)}},
		fib.Op{Kind: fib.GroupDel, ID: first + 10},
	)
	if got := e.dump(); len(got.Routes[p].Legs) != 2 || got.Routes[p].GroupID != 0 {
		e.Errorf("Dump = %+v, want two legs for %s", got, p)
	}
}

func testMixedFamilies(e *env) {
	e.objects(families[1])
	e.apply(route(fib.RouteAdd, prefix("10.9.0.0/24"), first+10)) // IPv4 over IPv6
	e.apply(route(fib.RouteAdd, prefix("2001:db9::/48"), first+10))
	e.apply(fib.Op{Kind: fib.NextHopAdd, ID: first + 3, Leg: families[0].leg(e, 0)})
	const text = "IPv6 routes can not use an IPv4 nexthop"
	e.refuse(fib.Op{Kind: fib.GroupReplace, ID: first + 10, Members: []uint32{first + 2, first + 3}}, syscall.EINVAL, text)
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 2, first + 3}})
	e.refuse(route(fib.RouteAdd, prefix("2001:db9:1::/48"), first+11), syscall.EINVAL, text)
	e.apply(route(fib.RouteAdd, prefix("10.9.1.0/24"), first+11))

	// A leg without gateway serves both families.
	e.apply(
		fib.Op{Kind: fib.NextHopAdd, ID: first + 4, Leg: fib.Leg{IfIndex: e.v0}},
		fib.Op{Kind: fib.GroupAdd, ID: first + 12, Members: []uint32{first + 4}},
		route(fib.RouteAdd, prefix("10.9.2.0/24"), first+12),
		route(fib.RouteAdd, prefix("2001:db9:2::/48"), first+12),
	)
	if got := e.dump().NextHops[first+4]; got != (fib.Leg{IfIndex: e.v0}) {
		e.Errorf("leg without gateway = %v", got)
	}
	if got := e.lookup(prefix("10.9.2.0/24")); len(got) != 1 || fmt.Sprint(got[0].Legs) != fmt.Sprintf("[dev %d]", e.v0) {
		e.Errorf("Lookup = %+v", got)
	}
}
