package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
)

// newPolicy puts the peers' import filters and prefix limits in force. What a filter or a
// limit decides anew becomes dirty, and nothing else. It is called with mu held.
func (a *Agent) newPolicy(was, now *config.Config) {
	before := make(map[netip.Addr]config.Peer, len(was.Peers))
	for _, c := range was.Peers {
		before[c.Address] = c
	}
	imports := slices.Grow(slices.Clone(a.policy.Imports), len(a.peers.bySource))[:len(a.peers.bySource)]
	var imposed []netip.Addr
	var changed []*peer
	for _, c := range now.Peers {
		p := a.peers.byAddr[c.Address]
		imports[p.source] = nil
		if c.Import != nil {
			imports[p.source] = c.Import
			imposed = append(imposed, c.Import.NextHops()...)
		}
		if !c.Import.Equal(before[c.Address].Import) {
			changed = append(changed, p)
		}
	}
	a.policy.Imports, a.imposed = imports, imposed
	a.captured = noGen
	for _, p := range changed {
		a.rib.MarkSource(p.source)
	}
	for _, c := range now.Peers {
		// Where the session is to be closed, nothing beyond the limit is used until it is.
		a.rib.SetLimit(a.peers.byAddr[c.Address].source, c.PrefixLimit.For(true), c.PrefixLimit.For(false))
	}
	a.rib.SetTotal(now.PrefixLimitTotal)
}

// limitState is how near a peer is to its prefix limit.
type limitState uint8

const (
	farFromLimit limitState = iota
	nearLimit
	beyondLimit // and frozen
)

// headroom tells how near a peer is to its limit for a family. mu is held.
func (a *Agent) headroom(p *peer, ipv4 bool) (received, limit, waiting int, state limitState) {
	r, w := a.rib.Received(p.source), a.rib.Waiting(p.source)
	received, waiting = r.IPv6, w.IPv6
	if ipv4 {
		received, waiting = r.IPv4, w.IPv4
	}
	limit = p.cfg.PrefixLimit.For(ipv4)
	switch {
	case limit == 0: // a test's peer without any
	case received > limit:
		state = beyondLimit
	case received*100 >= limit*p.cfg.PrefixLimit.Warning:
		state = nearLimit
	}
	return received, limit, waiting, state
}

// A frozen peer's prefixes are known, all of them, to come in when there is room. What it
// sends must have an end: this many times its limit, and never less than frozenLeast.
const (
	frozenTimes = 10
	frozenLeast = 100_000
)

// overflows tells whether a peer's session is to end because of its limit; 0: none.
func overflows(c config.PrefixLimit, received, limit int) bool {
	switch {
	case limit == 0:
		return false
	case c.Action == config.LimitFreeze:
		return received > max(frozenTimes*limit, frozenLeast)
	}
	return received > limit
}

// families are all that are negotiated, in the order of a peer's limits in its state.
var families = []session.Family{session.IPv4, session.IPv6}

// familyName is how people write a family.
func familyName(f session.Family) string {
	if f == session.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// lookAtLimits tells once of each peer that comes near its limit, or goes beyond it, and
// has sessions closed.
func (a *Agent) lookAtLimits() {
	type news struct {
		peer            *peer
		family          session.Family
		received, limit int
		event           journal.Event
	}
	var list []news
	var closing []news
	a.mu.Lock()
	speaker := a.speaker
	for _, p := range a.peers.list {
		for i, f := range families {
			received, limit, _, state := a.headroom(p, f == session.IPv4)
			if state > p.limits[i] {
				ev := journal.PrefixLimitWarning
				if state == beyondLimit {
					ev = journal.PrefixLimitReached
				}
				list = append(list, news{p, f, received, limit, ev})
			}
			p.limits[i] = state
			if state == beyondLimit && !p.closing && p.state == session.Established && overflows(p.cfg.PrefixLimit, received, limit) {
				p.closing = true
				closing = append(closing, news{peer: p, family: f, received: received, limit: limit})
			}
		}
	}
	a.mu.Unlock()
	for _, n := range closing {
		speaker.LimitReached(n.peer.cfg.Address, n.family, n.limit,
			fmt.Sprintf("announced %d %s prefixes, its prefix-limit is %d", n.received, familyName(n.family), n.limit))
	}
	for _, n := range list {
		a.journal(n.event, slog.String("peer", n.peer.cfg.Address.String()), slog.String("name", n.peer.cfg.Name),
			slog.String("family", n.family.String()), slog.Int("received", n.received), slog.Int("limit", n.limit))
		a.event("session", n.peer, netip.Prefix{}, n.event.Message, map[string]string{
			"family": n.family.String(), "received": fmt.Sprint(n.received), "limit": fmt.Sprint(n.limit),
		})
	}
}

// limitWarning puts in a sentence what the operator should know of a peer's limit. mu is
// held.
func (a *Agent) limitWarning(p *peer) string {
	for _, f := range families {
		received, limit, waiting, state := a.headroom(p, f == session.IPv4)
		switch {
		case state == beyondLimit && waiting > 0:
			return fmt.Sprintf("announces %d %s prefixes, %d beyond its prefix-limit of %d: those are not used", received, familyName(f), waiting, limit)
		case waiting > 0:
			return fmt.Sprintf("%d of its %d %s prefixes are beyond prefix-limit-total: those are not used", waiting, received, familyName(f))
		case state == nearLimit:
			return fmt.Sprintf("announces %d %s prefixes, its prefix-limit is %d", received, familyName(f), limit)
		}
	}
	return ""
}

// limitDetail says which limit a path is beyond, and how far its peer is. mu is held.
func (a *Agent) limitDetail(v *rib.Verdict, ipv4 bool) string {
	p, f := a.peers.bySource[v.Path.Source], session.IPv6
	if ipv4 {
		f = session.IPv4
	}
	received, limit, waiting, _ := a.headroom(p, ipv4)
	what := fmt.Sprintf("its prefix-limit is %d", limit)
	if v.Path.Over == rib.OverTotal {
		what = fmt.Sprintf("prefix-limit-total is %d for all peers together", a.cfg.PrefixLimitTotal)
	}
	return fmt.Sprintf("its peer announces %d %s prefixes and %s: this one came after the others, and is one of %d that wait for a place",
		received, familyName(f), what, waiting)
}
