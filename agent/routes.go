package agent

import (
	"context"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// Numbers of linux/rtnetlink.h.
const (
	rtnUnicast   = 1
	rtnBlackhole = 6
)

// routes calls row for every effective route of the host, one per next hop, read back
// from the kernel (S35). Only the reading and who is behind a next hop are the loop's
// business: with a million routes, the rest takes seconds.
func (a *Agent) routes(ctx context.Context, row func(status.Route) error) error {
	var host *fib.Host
	var snap fib.Snapshot
	err := a.ask(ctx, func() (err error) {
		if host, err = a.kernel.Host(); err == nil {
			snap, err = a.kernel.Dump(a.urgent)
		}
		return err
	})
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(a.effective(host, snap), viewChunk) {
		var resolver *fib.Resolver
		used := make([][]fib.Via, len(chunk))
		if err := a.do(ctx, func() {
			resolver = a.resolver
			for i := range chunk {
				if chunk[i].ours {
					e, _ := a.table.Entry(chunk[i].prefix)
					used[i] = e.Used
				}
			}
		}); err != nil {
			return err
		}
		for i := range chunk {
			if err := a.routeRows(&chunk[i], host.Links, used[i], resolver, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// effectiveRoute is a route of the host, whoever made it.
type effectiveRoute struct {
	prefix   netip.Prefix
	table    uint32
	metric   uint32
	protocol uint8
	kind     uint8 // RTN_UNICAST, ...
	legs     []fib.Leg
	ours     bool
	beaten   bool // one of the same prefix and table has a better metric
}

// effective merges the host's routes and ours, in the order of prefix, table and metric.
func (a *Agent) effective(host *fib.Host, snap fib.Snapshot) []effectiveRoute {
	all := make([]effectiveRoute, 0, len(host.Routes)+len(snap.Routes))
	for _, h := range host.Routes {
		all = append(all, effectiveRoute{prefix: h.Prefix, table: h.Table, metric: h.Metric, protocol: h.Protocol, kind: h.Type, legs: h.Legs})
	}
	groups := make(map[uint32][]fib.Leg, len(snap.Groups))
	for id, members := range snap.Groups {
		for _, m := range members {
			groups[id] = append(groups[id], snap.NextHops[m])
		}
	}
	f := a.config().FIB
	for p, s := range snap.Routes {
		legs := s.Legs
		if s.GroupID != 0 {
			legs = groups[s.GroupID]
		}
		kind := uint8(rtnUnicast)
		if slices.Contains(legs, fib.Blackhole) {
			kind = rtnBlackhole
		}
		all = append(all, effectiveRoute{prefix: p, table: f.Table, metric: f.Metric, protocol: f.Protocol, kind: kind, legs: legs, ours: true})
	}
	slices.SortStableFunc(all, func(x, y effectiveRoute) int {
		if c := x.prefix.Compare(y.prefix); c != 0 {
			return c
		}
		if c := int64(x.table) - int64(y.table); c != 0 {
			return int(c)
		}
		return int(int64(x.metric) - int64(y.metric))
	})
	for i := 1; i < len(all); i++ {
		x, y := &all[i-1], &all[i]
		y.beaten = x.prefix == y.prefix && x.table == y.table && (x.beaten || x.metric < y.metric)
	}
	return all
}

func (a *Agent) routeRows(e *effectiveRoute, links map[int]fib.Link, used []fib.Via, resolver *fib.Resolver, row func(status.Route) error) error {
	r := status.Route{
		Source: "Default", State: "Active", Prefix: e.prefix.String(), NextHopType: "VirtualAppliance",
		Metric: e.metric, Protocol: protocolName(e.protocol), Table: e.table,
	}
	switch {
	case e.ours:
		r.Source = "VirtualNetworkGateway"
	case slices.ContainsFunc(a.config().VNet.Prefixes, func(v netip.Prefix) bool { return v.Overlaps(e.prefix) && v.Bits() <= e.prefix.Bits() }):
		r.Source = "VNet"
	}
	switch {
	case e.kind != rtnUnicast:
		r.NextHopType = "None"
	case e.ours:
	case !slices.ContainsFunc(e.legs, func(l fib.Leg) bool { return l.Gateway.IsValid() }):
		r.NextHopType = "VnetLocal"
	case e.prefix.Bits() == 0:
		r.NextHopType = "Internet"
	}
	if e.beaten {
		r.State = "Invalid"
	}
	if len(e.legs) == 0 {
		return row(r)
	}
	for _, l := range e.legs {
		r.NextHopIP, r.Interface = "", links[l.IfIndex].Name
		if l.Gateway.IsValid() {
			r.NextHopIP = l.Gateway.String()
		}
		r.Peer = a.behind(used, l, resolver)
		if err := row(r); err != nil {
			return err
		}
	}
	return nil
}

// behind names the peers whose paths a leg serves.
func (a *Agent) behind(used []fib.Via, l fib.Leg, resolver *fib.Resolver) string {
	names := ""
	for _, v := range used {
		if slices.Contains(resolver.Resolve(v.NextHop).Legs, l) {
			if names != "" {
				names += ","
			}
			name, _ := a.who(v.Source)
			names += name
		}
	}
	return names
}
