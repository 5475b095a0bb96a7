package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// Bounds of what doctor reports: it is for people.
const (
	doctorExamples = 5
	doctorCompared = 1000
)

// doctor gathers what only the daemon can see of the host. It judges nothing: that is
// nexthopctl's.
func (a *Agent) doctor(ctx context.Context) (status.Doctor, error) {
	cfg := a.config()
	d := status.Doctor{
		PID: os.Getpid(), Listen: []string{}, Mode: string(cfg.FIB.Mode),
		Table: cfg.FIB.Table, Metric: cfg.FIB.Metric, Protocol: cfg.FIB.Protocol, NextHopObjects: a.kernel.HasNextHopObjects(),
		Legs: []string{}, Peers: []status.DoctorPeer{}, Rules: []status.DoctorRule{}, SameProtocol: []string{}, SameMetric: []string{}, Differ: []string{},
	}
	for _, l := range cfg.Listen {
		d.Listen = append(d.Listen, l.String())
	}
	// Where it cannot be read, the reader takes it for its own.
	d.Namespace, _ = os.Readlink("/proc/thread-self/ns/net")
	return d, a.ask(ctx, func() error { return a.examine(&d) })
}

// examine reads the kernel. It is called in the loop.
func (a *Agent) examine(d *status.Doctor) error {
	host, err := a.kernel.Host()
	if err != nil {
		return err
	}
	snap, err := a.kernel.Dump(a.urgent)
	if err != nil {
		return err
	}
	if a.opts.Rules != nil {
		rules, err := a.opts.Rules()
		if err != nil {
			return err
		}
		for _, r := range rules {
			d.Rules = append(d.Rules, status.DoctorRule(r))
		}
	}
	for _, r := range host.Routes {
		switch {
		case r.Protocol == a.cfg.FIB.Protocol && len(d.SameProtocol) < doctorExamples:
			d.SameProtocol = append(d.SameProtocol, hostRouteText(&r, host.Links))
		case r.Table == a.cfg.FIB.Table && r.Metric == a.cfg.FIB.Metric && len(d.SameMetric) < doctorExamples:
			d.SameMetric = append(d.SameMetric, hostRouteText(&r, host.Links))
		}
	}
	resolver := fib.NewResolver(host)
	for _, p := range a.cfg.Peers {
		d.Peers = append(d.Peers, a.wayTo(p.Name, p.Address, host, resolver))
	}
	a.readBack(d, host, snap)
	return nil
}

// wayTo is how the host reaches a peer.
func (a *Agent) wayTo(name string, addr netip.Addr, host *fib.Host, resolver *fib.Resolver) status.DoctorPeer {
	p := status.DoctorPeer{Name: name, Address: addr, Way: []string{}, Interfaces: []string{}}
	res := resolver.Resolve(addr)
	p.Why = res.Why
	subnet := fib.Address{IfIndex: -1}
	for _, x := range host.Addrs {
		if x.Prefix.Contains(addr) && (subnet.IfIndex < 0 || x.Prefix.Bits() > subnet.Prefix.Bits()) {
			subnet = x
			p.Connected = host.Links[x.IfIndex].Name
		}
	}
	around := false
	for _, l := range res.Legs {
		link := host.Links[l.IfIndex]
		p.Way = append(p.Way, legText(l, host.Links))
		if !slices.Contains(p.Interfaces, link.Name) {
			p.Interfaces = append(p.Interfaces, link.Name)
		}
		if p.MTU == 0 || link.MTU < p.MTU {
			p.MTU = link.MTU
		}
		around = around || l.IfIndex != subnet.IfIndex || l.Gateway != addr
	}
	for bits := addr.BitLen(); bits >= res.Route.Bits() && bits >= 0; bits-- {
		prefix := netip.PrefixFrom(addr, bits).Masked()
		e, ok := a.table.Entry(prefix)
		if ok && len(e.Kernel) > 0 && (prefix != res.Route || a.cfg.FIB.Metric < res.Metric) {
			p.Captured = fmt.Sprintf("%s proto %s metric %d", prefix, protocolName(a.cfg.FIB.Protocol), a.cfg.FIB.Metric)
			return p
		}
	}
	if p.Connected != "" && around {
		i := slices.IndexFunc(host.Routes, func(r fib.HostRoute) bool { return r.Prefix == res.Route && r.Metric == res.Metric })
		if i >= 0 {
			p.Captured = hostRouteText(&host.Routes[i], host.Links)
		}
	}
	return p
}

// readBack compares routes with several next hops with what they should be.
func (a *Agent) readBack(d *status.Doctor, host *fib.Host, snap fib.Snapshot) {
	legs := make(map[string]bool)
	for _, l := range snap.NextHops {
		legs[host.Links[l.IfIndex].Name] = true
	}
	for p, r := range snap.Routes {
		d.IPv6 = d.IPv6 || p.Addr().Is6()
		has := slices.Clone(r.Legs)
		for _, member := range snap.Groups[r.GroupID] {
			has = append(has, snap.NextHops[member])
		}
		for _, l := range r.Legs {
			legs[host.Links[l.IfIndex].Name] = true
		}
		e, ok := a.table.Entry(p)
		if !ok || len(e.Legs) < 2 || !e.InSync || d.Compared == doctorCompared {
			continue
		}
		d.Compared++
		want := slices.Clone(e.Legs)
		for _, s := range [][]fib.Leg{has, want} {
			slices.SortFunc(s, func(x, y fib.Leg) int { return strings.Compare(legText(x, host.Links), legText(y, host.Links)) })
		}
		if !slices.Equal(has, want) && len(d.Differ) < doctorExamples {
			d.Differ = append(d.Differ, fmt.Sprintf("%s has %s, and should have %s", p, legsOn(has, host.Links), legsOn(want, host.Links)))
		}
	}
	delete(legs, "") // of an interface that is gone
	d.Legs = slices.Sorted(maps.Keys(legs))
}

// hostRouteText writes a route of somebody else as ip(8) does.
func hostRouteText(r *fib.HostRoute, links map[int]fib.Link) string {
	words := append([]string{r.Prefix.String()}, legsOn(r.Legs, links), "proto", protocolName(r.Protocol), "metric", fmt.Sprint(r.Metric), "table", fmt.Sprint(r.Table))
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
