package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

// The other ways to lose most routes at once without a peer's doing (fib.blast-radius):
// the sweep after a start with another configuration, and a comparison with the kernel
// that finds routes marked as ours which nobody knows. Those stay as they are, each until
// a peer announces its prefix, all until Resume.

// keptRoutes are routes that should go and are kept. Which ones, the table knows.
type keptRoutes struct {
	impact
	why string
}

// The reasons to keep routes.
const (
	keptSweep  = "the configuration at the start no longer accepts them, or no longer has their peer"
	keptResync = "marked as ours, and of no peer that is known: another program made them"
)

// keep notes that routes are kept, and says so.
func (a *Agent) keep(n, of int, reason, why string) {
	a.mu.Lock()
	a.kept = &keptRoutes{impact{n, of}, why}
	a.mu.Unlock()
	a.journal(journal.RoutesKept, slog.String("reason", reason), slog.Int("routes", n), slog.Int("installed", of))
	a.event("fib", nil, netip.Prefix{}, fmt.Sprintf("%d of %d routes are kept, though they should go", n, of), nil)
}

// keptNow counts the routes that are kept still. It is called in the loop.
func (a *Agent) keptNow() int {
	if a.kept == nil || a.table.Held() {
		return 0
	}
	return a.table.Adopted()
}

// keptText puts in a sentence that routes are kept; "": none is. It is called in the loop.
func (a *Agent) keptText() string {
	n := a.keptNow()
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of the %d routes in the kernel should go, too many at once, and are kept: %s", n, a.table.Counts().Present, a.kept.why)
}

// endHold ends the hold on the routes of an earlier run, but for those that would go for
// what the configuration says, where they are too many. It returns how many go.
func (a *Agent) endHold() (swept int) {
	mine := a.ownLoss()
	of := a.table.Counts().Present
	if !a.cfg.FIB.BlastRadius.Exceeded(len(mine), of) {
		return a.table.Release(nil)
	}
	swept = a.table.Release(func(p netip.Prefix) bool { return mine[p] })
	a.keep(len(mine), of, "sweep", keptSweep)
	return swept
}

// ownLoss returns the routes of an earlier run that would go without a peer's doing:
// peers announce the prefix, and the configuration refuses that; or the route leads where
// no peer and no known next hop is, although all peers were heard. What a peer that is
// there, or is missing, does not announce any more leads nowhere, and is not among them.
func (a *Agent) ownLoss() map[netip.Prefix]bool {
	var excess []netip.Prefix
	var legs [][]fib.Leg
	for p, l := range a.table.Excess() {
		excess, legs = append(excess, p), append(legs, l)
	}
	if !a.cfg.FIB.BlastRadius.Exceeded(len(excess), a.table.Counts().Present) {
		return nil
	}
	known := a.knownLegs()
	mine := make(map[netip.Prefix]bool)
	for i := 0; i < len(excess); {
		a.mu.Lock()
		for end := min(len(excess), i+viewChunk); i < end; i++ {
			p := excess[i]
			if paths := a.rib.Paths(p); len(paths) > 0 && a.refuses(p, paths) || len(paths) == 0 && !slices.ContainsFunc(legs[i], known) {
				mine[p] = true
			}
		}
		a.mu.Unlock()
	}
	return mine
}

// refuses tells whether the configuration leaves no path of a prefix: of those that no
// configuration would accept, it is the peer's doing. mu is held.
func (a *Agent) refuses(p netip.Prefix, paths []rib.Path) bool {
	if a.policy.Prefix(p) != "" {
		return true
	}
	mine := false
	for _, x := range paths {
		switch _, why, _ := a.policy.Import(p, x); why {
		case "":
			return false
		case rib.OwnASInPath, rib.ASZeroInPath, rib.WrongFamily, rib.Damped:
		default:
			mine = true
		}
	}
	return mine
}

// knownLegs returns what tells whether a leg leads, or may lead, to a peer or a next hop
// of today. It is called in the loop.
func (a *Agent) knownLegs() func(fib.Leg) bool {
	a.mu.Lock()
	all := true
	var addrs []netip.Addr
	for _, p := range a.peers.list {
		if !p.cfg.Shutdown { // in the file: then its routes go because of that
			all = all && (p.heard() || p.disabled)
			addrs = append(addrs, p.cfg.Address)
		}
	}
	for nh := range a.rib.NextHops() {
		addrs = append(addrs, nh)
	}
	a.mu.Unlock()
	legs := make(map[fib.Leg]bool)
	for _, addr := range addrs {
		for _, l := range a.resolver.Resolve(addr).Legs {
			legs[l] = true
		}
	}
	return func(l fib.Leg) bool {
		// Where a peer is missing, any next hop may have been its.
		return !all || legs[l] || !l.Gateway.IsValid() || a.cfg.RangeOf(l.Gateway) != nil
	}
}

// removeKept lets go of the routes that are kept. It is called in the loop.
func (a *Agent) removeKept() int {
	a.mu.Lock()
	a.kept = nil
	a.mu.Unlock()
	n := a.table.Release(nil)
	a.journal(journal.OperatorAction, slog.String("action", "resume"), slog.Int("routes", n))
	return n
}

// load compares what was read with the table, but keeps what nobody knows where that is
// too much. It is called in the loop.
func (a *Agent) load(snap fib.Snapshot, cause metrics.ResyncCause) (drift int) {
	n, of := a.table.Strangers(snap), len(snap.Routes)
	// After an unknown outcome, strangers are what a peer withdrew meanwhile.
	if cause == metrics.ResyncUnknown || a.table.Held() || !a.cfg.FIB.BlastRadius.Exceeded(n, of) {
		return a.table.Load(snap)
	}
	a.table.Hold()
	drift = a.table.Load(snap)
	a.table.Release(func(netip.Prefix) bool { return true })
	a.keep(n, of, string(cause), keptResync)
	return drift
}
