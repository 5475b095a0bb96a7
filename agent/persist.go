package agent

import (
	"log/slog"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

// Persistence (fib.persist): when the last session is lost, and nobody wanted that, the
// routes are kept as they were for a while. All NVAs at once rarely die; that this host,
// or what lies between, lost its BGP is likelier. A peer whose paths are kept is handled
// as one that restarts gracefully.

// persistence is on from the loss of the last session until a peer is back and heard, or
// until it is over. mu guards it.
type persistence struct {
	until time.Time // zero: off
	told  bool      // the operator knows that it is on
}

// died tells whether the end of a session was an accident, and its cause one that leaves
// open whether the peer forwards.
func died(why session.DownReason) bool {
	switch why.Cause {
	case "hold-timer", "connection-lost", "notification-sent", "unknown", "graceful-restart":
		return true
	case "notification-received":
		// Cease/Administrative Shutdown and Peer De-configured: the peer's operator meant it.
		return why.Code != 6 || why.Subcode != 2 && why.Subcode != 3
	}
	return false // the operator or the configuration, a prefix limit, BFD, a wrong AS
}

// persist tells whether the paths of a peer whose session is over are kept, and keeps
// them where no other session is up. mu is held.
func (a *Agent) persist(p *peer, now time.Time) bool {
	if p.kept || a.cfg.FIB.Persist == 0 || p.cfg.Shutdown || p.disabled || a.rib.Received(p.source).Total() == 0 ||
		slices.ContainsFunc(a.peers.list, func(x *peer) bool { return x.up }) {
		return p.kept
	}
	if a.persistence.until.IsZero() {
		a.persistence = persistence{until: now.Add(a.cfg.FIB.Persist)}
	}
	p.kept, p.longLived, p.staleUntil = true, false, a.persistence.until
	a.inbox.source(p, fib.SourceStale, "", now)
	return true
}

// withoutWithdrawals leaves out what the speaker withdraws because the session is over.
func withoutWithdrawals(changes []rib.Change) []rib.Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c rib.Change) bool { return c.Attrs == nil })
}

// forget drops the paths that are kept of a peer whose session is over: it is not going
// to come back, or not soon enough. mu is held.
func (a *Agent) forget(p *peer, now time.Time) (routes int) {
	p.kept = false
	if p.up || !p.graceful {
		return 0
	}
	routes = a.rib.Stale(p.source)
	for _, f := range families {
		a.dropStale(p, f)
	}
	a.restarted(p, now)
	a.inbox.stamp(now)
	return routes
}

// persisted counts the paths that are kept. mu is held.
func (a *Agent) persisted() (n int) {
	for _, p := range a.peers.list {
		if p.kept {
			n += a.rib.Received(p.source).Total()
		}
	}
	return n
}

// persisting begins and ends, for the operator, what persist does, and ends it when it is
// over: for the peers that are not back when another one is.
func (a *Agent) persisting(now time.Time, again *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.persistence
	if s.until.IsZero() {
		return
	}
	kept, back, heard := false, false, false
	for _, p := range a.peers.list {
		kept = kept || p.kept
		back, heard = back || p.up, heard || p.up && p.heard()
	}
	if !s.told {
		s.told = true
		a.journal(journal.PersistStart, slog.Int("routes", a.persisted()), slog.Time("until", s.until))
	}
	if back {
		// From here on the others are just down; what is not heard by then never will be.
		if t := now.Add(a.cfg.FIB.SweepAfter); t.Before(s.until) {
			s.until = t
		}
	}
	if !heard && (kept || back) && now.Before(s.until) {
		again.by(s.until)
		return
	}
	outcome := "expired"
	switch {
	case back:
		outcome = "recovered"
	case !kept:
		outcome = "dropped"
	}
	dropped := 0
	for _, p := range a.peers.list {
		if p.kept {
			dropped += a.forget(p, now)
		}
	}
	a.persistence = persistence{}
	a.journal(journal.PersistEnd, slog.String("outcome", outcome), slog.Int("routes", dropped))
	a.wake()
}
