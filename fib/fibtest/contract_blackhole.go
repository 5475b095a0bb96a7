package fibtest

import (
	"net/netip"
	"reflect"
	"syscall"

	"github.com/nexthopd/nexthopd/fib"
)

// blackhole expects the route for p to drop its traffic.
func (e *env) blackhole(what string, p netip.Prefix, group uint32) {
	e.Helper()
	want := []fib.Route{{
		Prefix: p, Table: mainTable, Metric: owner.Metric, Protocol: owner.Protocol, Type: typeBlackhole,
		GroupID: group, Legs: []fib.Leg{fib.Blackhole},
	}}
	if got := e.lookup(p); !reflect.DeepEqual(got, want) {
		e.Errorf("%s: Lookup = %+v, want %+v", what, got, want)
	}
}

// A group may hold a blackhole alone, and forward before and after.
func testBlackhole(e *env, f family) {
	e.objects(f)
	host := f.prefix(1).Addr()
	p := netip.PrefixFrom(host, host.BitLen())
	replace := func(members ...uint32) fib.Op {
		return fib.Op{Kind: fib.GroupReplace, ID: first + 10, Members: members}
	}
	e.apply(fib.Op{Kind: fib.NextHopAdd, ID: first + 3, Leg: fib.Blackhole}, route(fib.RouteAdd, p, first+10))
	e.refuse(replace(first+1, first+3), syscall.EINVAL, "Blackhole nexthop can not be used in a group with more than 1 path")
	e.apply(replace(first + 3))
	e.blackhole("replaced", p, first+10)
	want := fib.Snapshot{
		NextHops: map[uint32]fib.Leg{first + 1: f.leg(e, 0), first + 2: f.leg(e, 1), first + 3: fib.Blackhole},
		Groups:   map[uint32][]uint32{first + 10: {first + 3}},
		Routes:   map[netip.Prefix]fib.SnapshotRoute{p: {GroupID: first + 10}},
	}
	e.want("replaced", want)
	e.k = e.Open(owner, false)
	e.want("second handle", want)
	e.SetLink(e.v0, false)
	e.SetLink(e.v1, false)
	e.blackhole("all links down", p, first+10)
	e.SetLink(e.v0, true)
	e.apply(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)}, replace(first+1))
	if got := e.lookup(p); len(got) != 1 || got[0].Type != typeUnicast || !reflect.DeepEqual(got[0].Legs, []fib.Leg{f.leg(e, 0)}) {
		e.Errorf("forwarding again: Lookup = %+v", got)
	}
	e.apply(fib.Op{Kind: fib.NextHopDel, ID: first + 3}, route(fib.RouteDel, p, 0))
}

func testBlackholeClassic(e *env, f family) {
	host := f.prefix(1).Addr()
	p := netip.PrefixFrom(host, host.BitLen())
	both := []fib.Leg{f.leg(e, 0), f.leg(e, 1)}
	write := func(kind fib.OpKind, legs ...fib.Leg) fib.Op { return fib.Op{Kind: kind, Prefix: p, Legs: legs} }
	want := func(what string, legs ...fib.Leg) {
		e.Helper()
		e.want(what, fib.Snapshot{Routes: map[netip.Prefix]fib.SnapshotRoute{p: {Legs: legs}}})
	}
	e.refuse(write(fib.RouteAdd, both[0], fib.Blackhole), syscall.EINVAL, "a blackhole among other next hops")
	e.apply(write(fib.RouteAdd, fib.Blackhole))
	want("added", fib.Blackhole)
	e.blackhole("added", p, 0)
	e.apply(write(fib.RouteReplace, both...))
	want("forwarding", both...)
	e.apply(write(fib.RouteReplace, fib.Blackhole))
	want("replaced", fib.Blackhole)
	e.blackhole("replaced", p, 0)
	e.apply(write(fib.RouteReplace, both[1]))
	want("through one", both[1])
	e.apply(write(fib.RouteReplace, fib.Blackhole), write(fib.RouteReplace, fib.Blackhole), write(fib.RouteDel))
	e.want("deleted", fib.Snapshot{})
}
