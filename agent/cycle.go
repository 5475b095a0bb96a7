package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

// Reading the host or the kernel anew is cheap but not free, and others may change
// them in a storm: the next reading waits at least this long, and readShare times as long
// as the last one took. A lone event is served at once.
const (
	readPause = 20 * time.Millisecond
	readShare = 10
	// readRetry is when a reading that failed is tried again.
	readRetry = time.Second
)

// alarm is when the loop has to go round again at the latest.
type alarm struct{ at time.Time }

func (w *alarm) by(t time.Time) {
	if w.at.IsZero() || t.Before(w.at) {
		w.at = t
	}
}

// wait is never 0: what is due already and was not done waits for something else, and
// must not make the loop spin.
func (w *alarm) wait() time.Duration { return max(time.Until(w.at), time.Millisecond) }

// cycle does one bounded piece of work: what happened, then the host, then the changed
// prefixes, then the kernel. It returns how long the loop may sleep; 0: there is more.
func (a *Agent) cycle(now time.Time) time.Duration {
	var again alarm
	again.by(now.Add(beatEvery))
	in := a.take()
	if a.dirtyFrom.IsZero() {
		a.dirtyFrom = in.since
	}

	a.react(now, in, &again)
	if in.dead {
		a.nextHopNews(a.told, a.resolver)
		a.told = a.resolver
	}
	if in.resync != "" {
		a.dueResync(in.resync)
	}
	hostRead := a.lookAtHost(now, in, &again)
	if hostRead {
		a.failOver(in)
	}

	a.planBFD()
	for _, e := range in.bfd {
		a.bfdChanged(e)
	}
	for _, e := range in.sessions {
		a.sessionChanged(e)
	}
	a.lookAtLimits()
	a.repairs(in)
	if len(a.postponed) > 0 {
		again.by(a.fightsSince.Add(fightWindow))
	}
	more := a.decide(hostRead)
	if hostRead {
		a.conflictsOver()
		a.hostAfter = time.Now().Add(max(readPause, readShare*time.Since(now)))
	}
	a.sweep(now)
	a.reuse(now, &again)
	a.probe(now, &again)
	a.persisting(now, &again)
	a.expireStale(now, &again)
	a.longLives()

	a.auditIfDue(now, &again)
	a.syncIfDue(&again)
	if err := a.write(); err != nil {
		a.unknown(err)
	}
	more = a.announceChanges() || more
	if a.table.Suspect() {
		a.dueResync(metrics.ResyncRefused)
	}
	if a.syncCause != "" {
		again.by(a.syncAt())
	}
	if next := a.table.RetryDue(time.Now()); !next.IsZero() {
		again.by(next)
	}
	if more || a.table.Pending() {
		return 0
	}
	if a.syncCause == "" {
		a.settled()
	}
	if a.table.Held() {
		again.by(a.sweepAt)
	}
	return again.wait()
}

// take empties the inbox.
func (a *Agent) take() inbox {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.inbox
	a.inbox = inbox{}
	if a.hostStale && a.captured != a.rib.NextHopsGen() {
		in.host = true // one of the routes that did not matter may lead to the new next hop
	}
	return in
}

// setSource tells the table how a peer is.
func (a *Agent) setSource(s fib.Source, state fib.SourceState) {
	was := a.table.State(s)
	a.table.SetSource(s, state)
	if was != fib.SourceDown || state == fib.SourceDown {
		return
	}
	// The table forgot what a lost peer offered. By now the peer's paths should have been
	// withdrawn; where some were not, they count again.
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rib.Received(s).Total() > 0 {
		a.rib.MarkAll()
	}
}

// settled notes that everything known is done.
func (a *Agent) settled() {
	if !a.dirtyFrom.IsZero() {
		a.metrics.Convergence(time.Since(a.dirtyFrom))
		a.dirtyFrom = time.Time{}
	}
	if a.ready.Load() == nil {
		return
	}
	if n := a.table.Adopted(); n > 0 && a.table.Held() {
		why := fmt.Sprintf("%d routes of an earlier run wait for End-of-RIB from all peers", n)
		a.ready.Store(&why)
		return
	}
	a.ready.Store(nil)
}

// decide ranks the prefixes that changed, as many as one cycle takes.
func (a *Agent) decide(hostRead bool) (more bool) {
	a.mu.Lock()
	a.protect(hostRead)
	a.batch = a.rib.Next(a.batch[:0], cycleRoutes)
	for _, c := range a.batch {
		p, paths := c.Prefix, c.Paths
		var why rib.Reason
		a.vias, why = a.policy.Rank(a.vias[:0], p, paths)
		a.table.Set(p, a.vias)
		var few [8]badPath
		unusable := few[:0]
		if len(a.vias) < len(paths) {
			unusable = a.unusable(unusable, p, paths)
			if len(unusable) == len(paths) && why == "" {
				why = unusable[0].why
			}
		} else if len(paths) == 0 {
			why = ""
			delete(a.conflicts, p)
		}
		a.refused.set(p, unusable)
		a.rejected.set(p, why)
		a.withhold(p, paths, unusable)
	}
	more = a.rib.Dirty() > 0
	a.mu.Unlock()
	if a.hub.watched() {
		for _, c := range a.batch {
			a.pathEvent(c.Prefix)
		}
	}
	return more
}

// unusable appends the paths of a prefix that are never used whatever the others are.
func (a *Agent) unusable(buf []badPath, p netip.Prefix, paths []rib.Path) []badPath {
	for _, x := range paths {
		if _, why, _ := a.policy.Import(p, x); why != "" {
			buf = append(buf, badPath{x.Source, why})
		}
	}
	return buf
}

// sweep ends the hold on the routes of an earlier run: when every configured peer has
// sent its End-of-RIB, or when the deadline is over (S25).
func (a *Agent) sweep(now time.Time) {
	if !a.table.Held() {
		return
	}
	a.mu.Lock()
	// With no peers nobody will ever announce anything: a mistake in the file gets its time.
	// Who of a range is going to come nobody knows.
	all := len(a.peers.list) > 0 && len(a.cfg.DynamicPeers) == 0 && a.rib.Dirty() == 0
	for _, p := range a.peers.list {
		all = all && (p.heard() || p.cfg.Shutdown || p.disabled)
	}
	a.mu.Unlock()
	if !all && (now.Before(a.sweepAt) || a.cutOff(now)) {
		return
	}
	if n := a.endHold(); n > 0 {
		a.journal(journal.Swept, slog.Int("routes", n), slog.Bool("all_peers_heard", all))
	}
}

// cutOff tells whether a sweep would remove too much while no session is up, and puts it
// off: then it is this host that lost its network, and not everybody else (S25). Without
// any peers in the configuration there is nobody to wait for.
func (a *Agent) cutOff(now time.Time) bool {
	a.mu.Lock()
	alone := len(a.peers.list)+len(a.cfg.DynamicPeers) > 0
	for _, p := range a.peers.list {
		alone = alone && p.state != session.Established
	}
	a.mu.Unlock()
	n, of := a.table.Unconfirmed()
	if !alone || n*100 <= of*a.cfg.FIB.SweepShare {
		a.sweepHeld = 0
		return false
	}
	if a.sweepHeld == 0 {
		a.journal(journal.SweepHeld, slog.Int("routes", n), slog.Int("of", of), slog.Int("share", a.cfg.FIB.SweepShare))
	}
	a.sweepHeld = n
	a.sweepAt = now.Add(a.cfg.FIB.SweepAfter)
	return true
}

func (a *Agent) sessionChanged(e session.Event) {
	p := a.peers.ever(e.Peer) // the end of a session that its removal brought comes late
	fields := map[string]string{"state": string(e.State), "previous": string(e.Previous)}
	attrs := []slog.Attr{slog.String("peer", e.Peer.String()), slog.String("name", p.cfg.Name)}
	if e.Down.Text != "" {
		fields["cause"], fields["reason"] = e.Down.Cause, e.Down.Text
	}
	switch {
	case e.State == session.Established:
		a.journal(journal.SessionUp, append(attrs, slog.String("local", e.LocalAddress.String()))...)
		a.event("session", p, netip.Prefix{}, "session is established", fields)
	case e.Previous == session.Established:
		a.journal(journal.SessionDown, append(attrs,
			slog.String("cause", e.Down.Cause), slog.String("reason", e.Down.Text), slog.Bool("graceful", e.Graceful))...)
		a.event("session", p, netip.Prefix{}, "session is down: "+e.Down.Text, fields)
	default:
		a.event("session", p, netip.Prefix{}, "session is "+string(e.State), fields)
	}
}
