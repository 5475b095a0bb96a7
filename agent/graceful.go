package agent

import (
	"log/slog"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

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
	p.graceful, p.kept, p.longLived = false, false, false
	if p.state == session.Established {
		a.inbox.source(p, fib.SourceUp, "", now)
	} else {
		a.inbox.source(p, fib.SourceDown, "session", now)
	}
}

// outlast makes what is kept of a peer that is not back in time long-lived stale, where
// that was agreed on (RFC 9494 section 4.2), and drops the rest. The speaker does the same
// when the peer's own time is over. mu is held.
func (a *Agent) outlast(p *peer, now time.Time) {
	longest := time.Duration(0)
	for _, f := range families {
		i := slices.IndexFunc(p.agreed, func(x session.LongLived) bool { return x.Family == f })
		if i < 0 {
			a.dropStale(p, f)
			continue
		}
		longest = max(longest, p.agreed[i].Time)
	}
	a.rib.MarkLongLived(p.source)
	if !p.longLived { // else the time of the restart before runs on, until an End-of-RIB
		p.longLived = true
		p.staleUntil = now.Add(min(longest, p.cfg.GracefulRestart.LongLived))
	}
	a.restarted(p, now)
	a.inbox.stamp(now)
}

// longLives tells the operator where paths have become long-lived stale, and where none
// is any more.
func (a *Agent) longLives() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.peers.list {
		if p.longLived == p.told {
			continue
		}
		p.told = p.longLived
		attrs := []slog.Attr{slog.String("peer", p.cfg.Address.String()), slog.String("name", p.cfg.Name)}
		if p.told {
			a.journal(journal.LongLivedStart, append(attrs, slog.Int("routes", a.rib.LongLived(p.source)), slog.Time("until", p.staleUntil))...)
			continue
		}
		a.journal(journal.LongLivedEnd, append(attrs, slog.Bool("back", p.up))...)
	}
}

// expireStale drops what has been stale for too long, or makes it long-lived stale: the speaker ends a restart when the
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
		case !p.up && !p.longLived && len(p.agreed) > 0:
			a.outlast(p, now)
			again.by(now) // there may be nothing left
		case p.up || !a.persist(p, now):
			over = append(over, p)
		}
	}
	for _, p := range over {
		n := a.rib.Stale(p.source)
		for _, f := range families {
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
