package agent

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// mostGroups bounds the groups of an overview, and so the time that one costs the loop.
const mostGroups = 200

// Overview implements page.Source. Where the loop is busy for long, it tells so, with what
// is known without asking it.
func (a *Agent) Overview() status.Overview {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := a.Status(ctx)
	o := status.Overview{Status: st, PeerList: a.Peers(), VNet: a.config().VNet.Prefixes}
	o.Host, _ = os.Hostname() // a page without it is a page
	if err == nil {
		err = a.do(ctx, func() { a.overviewNow(&o) })
	}
	if err != nil {
		o.FIB = *a.fibSeen.Load()
		o.Ready, o.NotReady = a.Ready()
		o.Degraded = append(o.Degraded, status.Problem{
			What: "the main loop has not answered for a second: what is shown of routes is old, and groups are missing",
			Next: "journalctl -u nexthopd",
		})
	}
	return o
}

// overviewNow is called in the loop.
func (a *Agent) overviewNow(o *status.Overview) {
	all, rest := a.table.Rankings(mostGroups)
	for _, r := range all {
		g := status.Group{Prefixes: r.Prefixes, Installed: r.Present}
		for _, w := range r.Ways {
			name, _ := a.who(w.Source)
			way := status.Way{Peer: name, NextHop: w.NextHop, Use: uses[w.Use], Why: w.Why}
			if w.NextHop == fib.Discard {
				way.NextHop, way.Blackhole = netip.Addr{}, true
			}
			if w.Use == fib.Dead && a.resolver.IsDead(w.NextHop) {
				way.Why = "bfd-down"
			}
			g.Ways = append(g.Ways, way)
		}
		o.Groups = append(o.Groups, g)
	}
	o.More, o.Rest = rest.Groups, status.Group{Prefixes: rest.Prefixes, Installed: rest.Present}
	if !a.install() {
		for i := range o.Groups {
			o.Groups[i].Installed = 0
		}
		o.Rest.Installed = 0
	}
	o.Failovers = slices.Clone(a.failovers)
	slices.Reverse(o.Failovers)
}

var uses = map[fib.Use]status.Use{fib.InUse: status.InUse, fib.Standby: status.Standby, fib.Dead: status.Dead}
