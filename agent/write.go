package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

func (a *Agent) install() bool { return a.cfg.FIB.Mode == config.ModeInstall && !a.suspended }

// write does one cycle's worth of writes. An error says that the outcome is unknown.
func (a *Agent) write() error { return a.apply(a.table.Plan(time.Now(), cycleRoutes)) }

func (a *Agent) apply(ops []fib.Op) error {
	if len(ops) == 0 {
		return nil
	}
	if !a.install() {
		// To observe is to write to a kernel that takes everything and does nothing (S27).
		a.table.Done(time.Now(), nil)
		return nil
	}
	refused, err := a.kernel.Apply(ops)
	if err != nil {
		return err
	}
	a.countOps(ops, refused)
	for _, r := range refused {
		if op := &ops[r.Index]; op.Kind < fib.RouteAdd || op.Kind > fib.RouteDel {
			a.log.Debug("kernel refused", "op", op.Kind.String(), "id", op.ID, "leg", op.Leg.String(), "err", r.Error())
		}
	}
	var inTheWay []netip.Prefix
	for _, p := range a.table.Done(time.Now(), refused) {
		if e, _ := a.table.Entry(p); e.Failure != nil && a.tellRefused(p, e.Failure) {
			inTheWay = append(inTheWay, p)
		}
	}
	a.tellForeign(inTheWay)
	return nil
}

// tellRefused tells the operator of the first refusal; explain has the count of those
// that follow. It says whether a route is in the way that is not told of yet.
func (a *Agent) tellRefused(p netip.Prefix, f *fib.Failure) (foreign bool) {
	if f.Attempts > 1 || a.conflicts[p] {
		a.log.Debug("kernel refused again", "prefix", p, "op", f.Op.String(), "err", f.Err.Error(), "attempts", f.Attempts)
		return false
	}
	if !f.Foreign() {
		a.journal(journal.FIBRefused, slog.Any("prefix", p), slog.String("op", f.Op.String()), slog.String("err", f.Err.Error()))
		a.event("route", nil, p, "kernel refused: "+f.Err.Error(), nil)
		return false
	}
	return true
}

// fewConflicts is how many routes in the way are looked up one by one in a cycle. Each of
// these reads the kernel's whole table, as one reading of the host does for all of them:
// another daemon that has the same thousands of routes must not stop the loop for minutes.
const fewConflicts = 4

// tellForeign finds out whose the routes are that are in the way of ours.
func (a *Agent) tellForeign(prefixes []netip.Prefix) {
	whose := make(map[netip.Prefix]uint8)
	if len(prefixes) > fewConflicts {
		h, err := a.kernel.Host()
		if err != nil {
			a.log.Error("cannot read the routes in the way", "prefixes", len(prefixes), "err", err)
			return
		}
		for _, r := range h.Routes {
			if r.Table == a.cfg.FIB.Table && r.Metric == a.cfg.FIB.Metric {
				whose[r.Prefix] = r.Protocol
			}
		}
	}
	looked := 0
	for _, p := range prefixes {
		if protocol, ok := whose[p]; ok {
			a.tellConflict(p, protocol)
			continue
		}
		if looked++; looked <= fewConflicts {
			a.lookAtConflict(p)
			continue
		}
		a.dueResync(metrics.ResyncRefused) // ours all the same, or gone again: that tells, of all
		a.mistaken = append(a.mistaken, p)
	}
}

// lookAtConflict reads the route that is in the way of one prefix.
func (a *Agent) lookAtConflict(p netip.Prefix) {
	routes, err := a.kernel.Lookup(p)
	if err != nil {
		a.log.Error("cannot read the route in the way", "prefix", p, "err", err)
		return
	}
	for _, r := range routes {
		if r.Table != a.cfg.FIB.Table || r.Metric != a.cfg.FIB.Metric {
			continue
		}
		if a.ours(r) { // and we did not know
			a.dueResync(metrics.ResyncRefused)
			a.mistaken = append(a.mistaken, p)
			return
		}
		a.tellConflict(p, r.Protocol)
		return
	}
	a.table.Retry(p) // it is gone again
}

func (a *Agent) tellConflict(p netip.Prefix, protocol uint8) {
	a.conflicts[p] = true
	whose := protocolName(protocol)
	a.journal(journal.ForeignConflict, slog.Any("prefix", p), slog.Uint64("table", uint64(a.cfg.FIB.Table)),
		slog.String("reason", string(rib.ForeignRoute)), slog.String("protocol", whose))
	a.event("route", nil, p, "another program's route is in the way", map[string]string{"protocol": whose})
}

// ours tells whether a route read back is one of ours (S19).
func (a *Agent) ours(r fib.Route) bool {
	o := a.opts.Owner
	return r.Protocol == o.Protocol && r.Table == o.Table && r.Metric == o.Metric &&
		(o.OwnsID(r.GroupID) || r.GroupID == 0 && !a.kernel.HasNextHopObjects())
}

func (a *Agent) countOps(ops []fib.Op, refused []fib.OpError) {
	var all, bad [fib.NextHopDel + 1]int
	for i := range ops {
		all[ops[i].Kind]++
	}
	for _, r := range refused {
		bad[ops[r.Index].Kind]++
	}
	for k := fib.NextHopAdd; k <= fib.NextHopDel; k++ {
		if all[k] > 0 {
			a.metrics.Operations(k, all[k]-bad[k], bad[k])
		}
	}
}

// repairs puts back what others changed. What was reported is a hint: by now the route
// may be ours again, which the write that finds its key taken brings to light.
func (a *Agent) repairs(in inbox) {
	for p, taken := range in.foreign {
		if !taken {
			delete(a.conflicts, p)
			a.table.Retry(p)
			continue
		}
		if e, _ := a.table.Entry(p); e.Kernel != nil {
			a.table.Lost(p) // ours was replaced, and nothing else tells of it
		}
	}
	n := 0
	var last netip.Prefix
	for p := range a.mayRepair(time.Now(), in.lost) {
		if e, _ := a.table.Entry(p); e.Kernel != nil {
			a.table.Lost(p)
			last = p
			n++
		} else {
			a.table.Retry(p) // the one in the way was ours
		}
	}
	if n > 0 {
		a.metrics.Repairs(metrics.RepairRoute, n)
		attrs := []slog.Attr{slog.String("reason", "routes changed by another program"), slog.Int("routes", n), slog.Uint64("by", uint64(in.lostBy))}
		if n == 1 {
			attrs = append(attrs, slog.Any("prefix", last))
		}
		a.journal(journal.Repair, attrs...)
		a.event("fib", nil, netip.Prefix{}, fmt.Sprintf("repairing %d routes that another program changed", n), nil)
	}
}

// A route that is changed again and again is a fight with another program, which nobody
// wins by being faster: in every window it is put back so many times, then once more when
// the window ends.
const (
	fightWindow = 10 * time.Second
	fightRounds = 5
)

// mayRepair returns those of the lost routes that are to be put back now, with those
// whose pause is over.
func (a *Agent) mayRepair(now time.Time, lost map[netip.Prefix]bool) map[netip.Prefix]bool {
	if now.Sub(a.fightsSince) >= fightWindow {
		if len(a.postponed) > 0 {
			maps.Copy(a.postponed, lost)
			lost = a.postponed
		}
		a.fightsSince, a.fights, a.postponed = now, make(map[netip.Prefix]int), make(map[netip.Prefix]bool)
	}
	due := make(map[netip.Prefix]bool, len(lost))
	for p := range lost {
		if a.fights[p]++; a.fights[p] <= fightRounds {
			due[p] = true
			continue
		}
		if !a.postponed[p] {
			a.postponed[p] = true
			a.journal(journal.Contested, slog.Any("prefix", p), slog.Duration("again_in", fightWindow-now.Sub(a.fightsSince)))
		}
	}
	return due
}

// dueResync notes that everything has to be compared with the kernel. Of several causes
// the first is told, but for an unknown outcome: nothing can be written before it is
// cleared up.
func (a *Agent) dueResync(cause metrics.ResyncCause) {
	if a.syncCause == "" || cause == metrics.ResyncUnknown {
		a.syncCause = cause
	}
}

// auditIfDue has everything compared with the kernel from time to time, for what no event
// told. Reading a large table takes a while, and nothing is written meanwhile, so that is
// kept to a hundredth of the time.
func (a *Agent) auditIfDue(now time.Time, again *alarm) {
	if a.cfg.FIB.Audit == 0 || a.syncCause != "" || !a.install() {
		return
	}
	at := a.synced.Add(max(a.cfg.FIB.Audit, auditShare*a.syncTook))
	if now.Before(at) {
		again.by(at)
		return
	}
	a.dueResync(metrics.ResyncAudit)
}

const auditShare = 100

// syncAt is when the resync that is due may begin.
func (a *Agent) syncAt() time.Time {
	share := readShare
	if a.syncCause == metrics.ResyncUnknown {
		share = 1
	}
	at := a.synced.Add(max(readPause, time.Duration(share)*a.syncTook))
	if at.Before(a.syncAfter) {
		return a.syncAfter
	}
	return at
}

func (a *Agent) syncIfDue(again *alarm) {
	if a.syncCause == "" || time.Now().Before(a.syncAt()) {
		return
	}
	if !a.install() {
		a.syncCause = "" // nothing of ours is there to compare with
		return
	}
	if err := a.resync(); err != nil && !errors.Is(err, fib.ErrUrgent) {
		a.log.Error("cannot read the kernel's routes", "err", err)
		a.syncAfter = time.Now().Add(readRetry)
		again.by(a.syncAfter)
	}
}

// mostHurries bounds how often in a row something more urgent makes the loop give up
// reading the kernel.
const mostHurries = 3

// urgent tells the reading of a large table that traffic has to be moved.
func (a *Agent) urgent() bool {
	if a.hurries >= mostHurries {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.inbox.loss.IsZero()
}

// resync compares everything with the kernel. Where something more urgent happens, it
// does nothing, says fib.ErrUrgent, and is due still.
func (a *Agent) resync() error {
	start := time.Now()
	cause, same := a.syncCause, false
	snap, err := a.kernel.Dump(a.urgent)
	if err == nil && cause == metrics.ResyncAudit {
		same, err = a.table.Agrees(snap, a.urgent)
	}
	if errors.Is(err, fib.ErrUrgent) {
		a.hurries++
	}
	if err != nil {
		return err
	}
	a.syncCause, a.hurries = "", 0
	drift := 0
	if !same {
		drift = a.load(snap, cause)
	}
	a.syncDrift, a.syncRoutes = drift, len(snap.Routes)
	for _, p := range a.mistaken {
		a.table.Retry(p)
	}
	a.mistaken = nil
	a.synced = time.Now()
	a.syncTook = a.synced.Sub(start)
	a.metrics.Resync(cause)
	switch {
	case cause == metrics.ResyncUnknown:
		// What differs is our own doing.
	case drift > 0:
		a.metrics.Repairs(repairOf(cause), drift)
		a.journal(journal.Repair, slog.String("reason", string(cause)), slog.Int("routes", drift))
	}
	if cause == metrics.ResyncUnknown || cause == metrics.ResyncOverflow || cause == metrics.ResyncOperator {
		a.journal(journal.Resync, slog.String("reason", string(cause)), slog.Int("routes", len(snap.Routes)), slog.Int("differences", drift))
	}
	a.log.Debug("resync", "cause", cause, "routes", len(snap.Routes), "drift", drift, "took", a.syncTook)
	return nil
}

// repairOf says what made repairs necessary that a resync found.
func repairOf(c metrics.ResyncCause) metrics.RepairCause {
	switch c {
	case metrics.ResyncLink:
		return metrics.RepairLink
	case metrics.ResyncNextHop:
		return metrics.RepairNextHop
	}
	return metrics.RepairAudit
}

// flushTime bounds the removal of everything when the daemon stops. It is well below
// systemd's default of 90 s.
const flushTime = time.Minute

// flush removes all that is ours.
func (a *Agent) flush() error {
	a.table.Clear()
	var failure error
	for deadline := time.Now().Add(flushTime); time.Now().Before(deadline); {
		a.beat.Store(time.Now().UnixNano())
		if failure = a.write(); failure != nil || a.table.Suspect() {
			a.syncCause = metrics.ResyncUnknown
			if err := a.resync(); err != nil {
				failure = err
			}
			time.Sleep(readPause)
			continue
		}
		next := a.table.RetryDue(time.Now())
		if a.table.Pending() {
			continue
		}
		if c := a.table.Counts(); next.IsZero() || c.Present+c.Groups+c.NextHops == 0 {
			break // done, even where a refused route has a retry left; or nothing more can be done
		}
		time.Sleep(max(min(time.Until(next), beatEvery), time.Millisecond))
	}
	c := a.table.Counts()
	switch {
	case failure != nil:
		return fmt.Errorf("flush: %w", failure)
	case c.Present+c.Groups+c.NextHops > 0:
		return fmt.Errorf("flush: %d routes, %d groups and %d next hops of ours could not be removed", c.Present, c.Groups, c.NextHops)
	}
	return nil
}
