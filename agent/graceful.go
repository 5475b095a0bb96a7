package agent

import (
	"log/slog"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

var bothFamilies = []session.Family{session.IPv4, session.IPv6}

// dropStale withdraws what is stale of a peer's paths of a family. mu is held.
func (a *Agent) dropStale(p *peer, f session.Family) {
	if a.rib.Stale(p.source) > 0 {
		a.rib.DropStale(p.source, f == session.IPv4)
	}
}

// restarted ends a peer's graceful restart as soon as none of its paths is stale any
// more: they were announced again, or withdrawn, at End-of-RIB or because it took too
// long. mu is held.
func (a *Agent) restarted(p *peer, now time.Time) {
	if !p.graceful || a.rib.Stale(p.source) > 0 {
		return
	}
	p.graceful, p.kept = false, false
	if p.state == session.Established {
		a.inbox.source(p, fib.SourceUp, "", now)
	} else {
		a.inbox.source(p, fib.SourceDown, "session", now)
	}
}

// expireStale drops what has been stale for too long: the speaker ends a restart when the
// peer's own time is over, but the peer may ask for hours, or come back and never send its
// End-of-RIB.
func (a *Agent) expireStale(now time.Time, again *alarm) {
	a.mu.Lock()
	var over []*peer
	for _, p := range a.peers.list {
		switch {
		case !p.graceful || p.kept: // persisting
		case now.Before(p.staleUntil):
			again.by(p.staleUntil)
		case p.up || !a.persist(p, now):
			over = append(over, p)
		}
	}
	for _, p := range over {
		n := a.rib.Stale(p.source)
		for _, f := range bothFamilies {
			a.dropStale(p, f)
		}
		a.restarted(p, now)
		a.inbox.stamp(now)
		a.journal(journal.RestartExpired, slog.String("peer", p.cfg.Address.String()), slog.String("name", p.cfg.Name), slog.Int("routes", n))
	}
	speaker := a.speaker
	a.mu.Unlock()
	for _, p := range over {
		speaker.EndRestart(p.cfg.Address)
	}
	if len(over) > 0 {
		a.wake()
	}
}
