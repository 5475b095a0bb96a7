package fibtest

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

func (e *env) host() *fib.Host {
	e.Helper()
	h, err := e.k.Host()
	if err != nil {
		e.Fatalf("Host: %v", err)
	}
	return h
}

func testHost(e *env, f family) {
	e.objects(f)
	e.apply(route(fib.RouteAdd, f.prefix(1), first+10))
	e.AddNextHop(77, f.leg(e, 1), 4)
	static := e.foreign(f, f.prefix(2), 50, 4)
	static.Legs = []fib.Leg{f.leg(e, 0), f.leg(e, 1)}
	named := e.foreign(f, f.prefix(3), 50, 4)
	named.GroupID, named.Legs = 77, nil
	blackhole := e.foreign(f, f.prefix(4), 50, 4)
	blackhole.Type, blackhole.Legs = 6, nil
	elsewhere := e.foreign(f, f.prefix(5), 50, 4)
	elsewhere.Table = 1000
	for _, r := range []fib.Route{static, named, blackhole, elsewhere, e.foreign(f, f.prefix(1), owner.Metric+1, owner.Protocol)} {
		e.AddRoute(r)
	}

	h := e.host()
	if l := h.Links[e.v0]; l.Name != "v0" || !l.Up || !l.Running || l.MTU != 1500 {
		e.Errorf("link v0 = %+v", l)
	}
	if l := h.Links[1]; l.Name != "lo" {
		e.Errorf("link 1 = %+v, want lo", l)
	}
	for _, a := range []fib.Address{{Prefix: prefix("10.0.0.1/24"), IfIndex: e.v0}, {Prefix: prefix("2001:db8:1::1/64"), IfIndex: e.v1}} {
		if !slices.Contains(h.Addrs, a) {
			e.Errorf("address %+v is missing in %v", a, h.Addrs)
		}
	}
	routes := make(map[netip.Prefix]fib.HostRoute)
	for _, r := range h.Routes {
		routes[r.Prefix] = r
	}
	connected := netip.PrefixFrom(addr(f.gw[0]), 64)
	var metric uint32 = 256
	if f.name == "IPv4" {
		connected, metric = netip.PrefixFrom(addr(f.gw[0]), 24), 0
	}
	want := []fib.HostRoute{
		{Prefix: connected.Masked(), Table: mainTable, Metric: metric, Protocol: protocolKernel, Type: 1, Legs: []fib.Leg{{IfIndex: e.v0}}},
		{Prefix: f.prefix(2), Table: mainTable, Metric: 50, Protocol: 4, Type: 1, Legs: static.Legs},
		{Prefix: f.prefix(3), Table: mainTable, Metric: 50, Protocol: 4, Type: 1, Legs: []fib.Leg{f.leg(e, 1)}},
		{Prefix: f.prefix(4), Table: mainTable, Metric: 50, Protocol: 4, Type: 6},
		{Prefix: f.prefix(1), Table: mainTable, Metric: owner.Metric + 1, Protocol: owner.Protocol, Type: 1, Legs: []fib.Leg{f.leg(e, 0)}},
	}
	for _, w := range want {
		if got := routes[w.Prefix]; !reflect.DeepEqual(got, w) {
			e.Errorf("host route %s:\n got %+v\nwant %+v", w.Prefix, got, w)
		}
	}
	if r, ok := routes[f.prefix(5)]; ok {
		e.Errorf("route of a table that is none of ours: %+v", r)
	}
	o := owner
	o.Table = 1000
	e.k = e.Open(o, false)
	if !slices.ContainsFunc(e.host().Routes, func(r fib.HostRoute) bool { return r.Prefix == f.prefix(5) }) {
		e.Error("the route in our own table is missing")
	}
	e.SetLink(e.v0, false)
	if slices.ContainsFunc(e.host().Routes, func(r fib.HostRoute) bool { return r.Prefix == connected.Masked() }) {
		e.Error("the connected route survives its link")
	}
}

// watch starts a Watch and returns a function that waits for an event and returns all
// that came before it.
func (e *env) watch(k fib.Kernel) (until func(what string, match func(fib.Event) bool) []fib.Event) {
	e.Helper()
	w, ok := k.(interface {
		Watch(context.Context, func(fib.Event)) error
	})
	if !ok {
		e.Fatalf("%T has no Watch", k)
	}
	events := make(chan fib.Event, 1024) // more than any step makes; a full one blocks the watcher only
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- w.Watch(ctx, func(ev fib.Event) {
			select {
			case events <- ev:
			case <-ctx.Done():
			}
		})
	}()
	e.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				e.Errorf("Watch: %v", err)
			}
		case <-time.After(time.Minute):
			e.Error("Watch did not end with its context")
		}
	})
	return func(what string, match func(fib.Event) bool) (before []fib.Event) {
		e.Helper()
		deadline := time.After(time.Minute)
		for {
			select {
			case ev := <-events:
				if match(ev) {
					return before
				}
				before = append(before, ev)
			case <-deadline:
				e.Fatalf("no event for: %s; there were %+v", what, before)
			}
		}
	}
}

func testEvents(e *env, f family) {
	e.objects(f)
	until := e.watch(e.k)
	wait := func(what string, want fib.Event) []fib.Event {
		e.Helper()
		return until(what, func(got fib.Event) bool {
			return got.Kind == want.Kind && got.Deleted == want.Deleted && got.Prefix == want.Prefix &&
				got.ID == want.ID && (want.Link == fib.Link{} || got.Link == want.Link) && (want.IfIndex == 0 || got.IfIndex == want.IfIndex) &&
				(want.Protocol == 0 || got.Protocol == want.Protocol) &&
				// Own objects are changed by somebody, who has a number.
				(got.PID != 0 || want.Kind != fib.OwnRouteChanged && want.Kind != fib.OwnNextHopChanged)
		})
	}
	if before := wait("the beginning", fib.Event{Kind: fib.Subscribed}); len(before) > 0 {
		e.Errorf("events before Subscribed: %+v", before)
	}

	// Our own writes are silent.
	p, q := f.prefix(1), f.prefix(2)
	e.apply(
		fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}},
		route(fib.RouteAdd, p, first+10), route(fib.RouteReplace, p, first+11),
		fib.Op{Kind: fib.GroupReplace, ID: first + 11, Members: []uint32{first + 2}},
		route(fib.RouteDel, p, 0), fib.Op{Kind: fib.GroupDel, ID: first + 11},
		route(fib.RouteAdd, p, first+10),
	)
	static := e.foreign(f, q, 50, 4)
	e.AddRoute(static)
	before := wait("a stranger's route", fib.Event{Kind: fib.HostRouteChanged, Prefix: q, Protocol: 4})
	// A new IPv6 address is told of once more when the kernel's work queue gets to it.
	before = slices.DeleteFunc(before, func(ev fib.Event) bool { return ev.Kind == fib.AddrChanged })
	if len(before) > 0 {
		e.Errorf("own writes made events: %+v", before)
	}
	e.DelRoute(static)
	wait("its deletion", fib.Event{Kind: fib.HostRouteChanged, Prefix: q, Deleted: true})

	// Another program of our name is a stranger, too.
	second := e.Open(owner, false)
	if refused, err := second.Apply([]fib.Op{route(fib.RouteDel, p, 0)}); err != nil || len(refused) > 0 {
		e.Fatalf("second handle: %v %v", refused, err)
	}
	wait("our route deleted", fib.Event{Kind: fib.OwnRouteChanged, Prefix: p, Deleted: true, Protocol: owner.Protocol})
	e.apply(route(fib.RouteAdd, p, first+10))
	e.ReplaceRoute(e.foreign(f, p, owner.Metric, 4))
	wait("our route replaced", fib.Event{Kind: fib.ForeignRoute, Prefix: p, Protocol: 4})
	e.DelRoute(e.foreign(f, p, owner.Metric, 4))
	wait("the way is free", fib.Event{Kind: fib.ForeignRoute, Prefix: p, Deleted: true, Protocol: 4})

	e.AddNextHop(77, f.leg(e, 0), 4)
	wait("a stranger's next hop", fib.Event{Kind: fib.HostNextHopChanged, ID: 77})
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}})
	e.DelNextHop(first + 1)
	wait("our next hop deleted", fib.Event{Kind: fib.OwnNextHopChanged, ID: first + 1, Deleted: true})
	wait("the group it left empty", fib.Event{Kind: fib.OwnNextHopChanged, ID: first + 11, Deleted: true})

	v2 := e.AddLink("v2", prefix("10.0.2.1/24"))
	wait("new link", fib.Event{Kind: fib.LinkChanged, IfIndex: v2})
	wait("new address", fib.Event{Kind: fib.AddrChanged, IfIndex: v2})
	wait("its connected route", fib.Event{Kind: fib.HostRouteChanged, Prefix: prefix("10.0.2.0/24"), Protocol: protocolKernel})
	e.SetLink(e.v1, false)
	wait("link down", fib.Event{Kind: fib.LinkChanged, IfIndex: e.v1, Link: fib.Link{Name: "v1", MTU: 1500}})
	e.DelLink(v2)
	wait("link gone", fib.Event{Kind: fib.LinkChanged, IfIndex: v2, Deleted: true})
}
