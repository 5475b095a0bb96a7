package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

// keptFailovers is how many of the last failovers are remembered.
const keptFailovers = 32

// avoidFor is how long a leg whose neighbour does not answer is avoided at the most. The
// kernel resolves a neighbour only for traffic, so that one nobody talks to is never
// found again: after this the leg gets traffic once more, and fails anew if it must.
const avoidFor = time.Minute

// react hands what happened to peers, links and neighbours to the table and writes the
// groups that this changes, before anything else is done: it is what makes traffic move,
// and it costs the same at any number of routes.
func (a *Agent) react(now time.Time, in inbox, again *alarm) {
	for s, state := range in.sources {
		a.setSource(s, state)
	}
	if len(in.links) > 0 {
		for index, l := range in.links {
			a.resolver = a.resolver.WithLink(index, l.Link, l.gone)
			if a.table.UsesLink(index) {
				a.dueResync(metrics.ResyncLink)
			}
		}
		a.table.SetResolver(a.resolver.Resolve)
	}
	if in.dead {
		a.mu.Lock()
		dead := a.bfd.dead
		a.mu.Unlock()
		a.resolver = a.resolver.WithDead(dead)
		a.table.SetResolver(a.resolver.Resolve)
	}
	for leg, failed := range in.neighbors {
		a.table.Avoid(leg, failed)
		delete(a.avoided, leg)
		if a.table.Avoids(leg) {
			a.avoided[leg] = now.Add(avoidFor)
		}
	}
	for leg, until := range a.avoided {
		if a.cfg.FIB.Probe > 0 && a.opts.Probe != nil {
			break // the probes tell when it is back
		}
		if now.Before(until) {
			again.by(until)
			continue
		}
		a.table.Avoid(leg, false)
		delete(a.avoided, leg)
	}
	a.failOver(in)
}

// mostPlans bounds the plans of one failover: a standby that was never used needs its
// next hop made before its group can name it.
const mostPlans = 4

// failOver writes the groups that what happened has changed, and nothing else.
func (a *Agent) failOver(in inbox) {
	groups, routes := 0, 0
	for range mostPlans {
		ops := a.table.Plan(time.Now(), 0)
		if !slices.ContainsFunc(ops, func(op fib.Op) bool { return op.Kind != fib.GroupDel }) {
			if err := a.apply(ops); err != nil {
				a.unknown(err)
			}
			break
		}
		g, r := a.table.Moves()
		if err := a.apply(ops); err != nil {
			a.unknown(err)
			return
		}
		groups, routes = groups+g, routes+r
	}
	if groups == 0 || in.signal == "" || !a.install() {
		return
	}
	took := time.Since(in.loss)
	f := status.Failover{At: in.loss, Signal: in.signal, Groups: groups, Prefixes: routes, Microseconds: took.Microseconds()}
	if a.failovers = append(a.failovers, f); len(a.failovers) > keptFailovers {
		a.failovers = slices.Delete(a.failovers, 0, 1)
	}
	a.metrics.Failover(took)
	attrs := []slog.Attr{slog.String("signal", in.signal), slog.Int("groups", groups), slog.Int("prefixes", routes), slog.Int64("microseconds", f.Microseconds)}
	var whose *peer
	if _, of, ok := strings.Cut(in.signal, " "); ok {
		if addr, err := netip.ParseAddr(of); err == nil {
			whose = a.peers.ever(addr)
		}
	}
	if whose != nil {
		attrs = append(attrs, slog.String("peer", whose.cfg.Address.String()))
	}
	a.journal(journal.Failover, attrs...)
	a.event("fib", whose, netip.Prefix{}, fmt.Sprintf("failover (%s): %d prefixes in %d groups moved in %d us", in.signal, routes, groups, f.Microseconds), nil)
}

// Failovers lists the last failovers of this run, the latest first.
func (a *Agent) Failovers(ctx context.Context) []status.Failover {
	out := []status.Failover{}
	_ = a.do(ctx, func() { // an ended loop has nothing to report
		out = slices.Clone(a.failovers)
		slices.Reverse(out)
	})
	return out
}

// unknown notes that nobody knows what became of a batch of writes.
func (a *Agent) unknown(err error) {
	a.log.Warn("outcome of a batch of writes is unknown", "err", err)
	a.dueResync(metrics.ResyncUnknown)
}
