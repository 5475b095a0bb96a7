package agent

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib"
)

// lookAtHost reads the host again where what happened makes it necessary and the last
// reading is long enough ago.
func (a *Agent) lookAtHost(now time.Time, in inbox, again *alarm) (read bool) {
	switch {
	case len(in.links) > 0: // a lost link must not wait
	case !in.host:
		return false
	case now.Before(a.hostAfter):
		a.hostLater(again)
		return false
	}
	a.mu.Lock()
	a.hostStale = false // what changes from here on is not in what is read, perhaps
	a.mu.Unlock()
	if err := a.readHost(); err != nil {
		a.log.Error("cannot read the host's links, addresses and routes", "err", err)
		a.hostAfter = now.Add(readRetry)
		a.hostLater(again)
		return false
	}
	return true
}

func (a *Agent) hostLater(again *alarm) {
	a.mu.Lock()
	a.inbox.host = true
	a.mu.Unlock()
	again.by(a.hostAfter)
}

// readHost reads the host's links, addresses and routes, and tells the table.
func (a *Agent) readHost() error {
	h, err := a.kernel.Host()
	if err != nil {
		return err
	}
	a.mu.Lock()
	dead := a.bfd.dead
	a.bfd.stale = true // the way to a peer may be another one
	a.mu.Unlock()
	before := a.ownAddresses()
	a.host, a.resolver = h, fib.NewResolver(h).WithDead(dead)
	a.policy.IsSelf = a.resolver.IsSelf
	if after := a.ownAddresses(); !slices.Equal(before, after) {
		a.newAddresses(before)
	}
	a.table.SetResolver(a.resolver.Resolve)
	if a.told != nil {
		a.nextHopNews(a.told, a.resolver)
	}
	a.told = a.resolver
	return nil
}

// nextHopNews tells of next hops that were lost or found.
func (a *Agent) nextHopNews(before, after *fib.Resolver) {
	a.mu.Lock()
	nhs := slices.Collect(maps.Keys(a.rib.NextHops()))
	a.mu.Unlock()
	slices.SortFunc(nhs, netip.Addr.Compare)
	for _, nh := range nhs {
		was, is := before.Resolve(nh), after.Resolve(nh)
		switch {
		case was.Why == "" && is.Why != "":
			a.journal(journal.NextHopLost, slog.Any("nexthop", nh), slog.String("reason", is.Why))
			a.event("nexthop", nil, netip.Prefix{}, "next hop lost", map[string]string{"nexthop": nh.String(), "reason": is.Why})
		case was.Why != "" && is.Why == "":
			a.journal(journal.NextHopFound, slog.Any("nexthop", nh))
			a.event("nexthop", nil, netip.Prefix{}, "next hop found", map[string]string{"nexthop": nh.String()})
		}
	}
}

// conflictsOver tries the prefixes again whose foreign route is gone: when a link goes
// down, the kernel drops IPv4 routes without a word.
func (a *Agent) conflictsOver() {
	if len(a.conflicts) == 0 {
		return
	}
	taken := make(map[netip.Prefix]bool)
	for _, r := range a.host.Routes {
		if r.Table == a.cfg.FIB.Table && r.Metric == a.cfg.FIB.Metric {
			taken[r.Prefix] = true
		}
	}
	for p := range a.conflicts {
		if !taken[p] {
			delete(a.conflicts, p)
			a.table.Retry(p)
		}
	}
}

// protect brings the captures up to date where the peers, the next hops or the way to
// them changed (S21). mu is held, so that no prefix is ranked before the next hop that
// came with it is protected.
func (a *Agent) protect(hostRead bool) {
	gen := a.rib.NextHopsGen()
	if !hostRead && a.policy.Captures != nil && gen == a.captured {
		return
	}
	a.captured = gen
	nhs := a.rib.NextHops()
	all := slices.AppendSeq(make([]netip.Addr, 0, len(nhs)+len(a.peers.byAddr)), maps.Keys(nhs))
	all = slices.AppendSeq(all, maps.Keys(a.peers.byAddr))
	all = append(all, a.imposed...)
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	added, gone := difference(a.watched, all)
	a.watched = all

	if hostRead || a.policy.Captures == nil || gone {
		old := a.policy.Captures
		a.policy.Captures = rib.NewCaptures(all, a.cfg.FIB.Metric, a.resolver.Resolve)
		for _, p := range a.policy.Captures.Changed(old) {
			a.rib.Mark(p)
		}
		return
	}
	// A table that loads brings next hop after next hop: only those are looked at.
	for p, addr := range rib.NewCaptures(added, a.cfg.FIB.Metric, a.resolver.Resolve) {
		if _, ok := a.policy.Captures[p]; !ok {
			a.policy.Captures[p] = addr
			a.rib.Mark(p)
		}
	}
}

// difference compares two ascending lists: what was added to the first to make the
// second, and whether something is gone.
func difference(old, now []netip.Addr) (added []netip.Addr, gone bool) {
	for _, n := range now {
		for len(old) > 0 && old[0].Less(n) {
			old, gone = old[1:], true
		}
		if len(old) > 0 && old[0] == n {
			old = old[1:]
			continue
		}
		added = append(added, n)
	}
	return added, gone || len(old) > 0
}
