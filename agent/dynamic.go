package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/session"
)

// Peers by range (dynamic-peers). Who connects from an address of a range, and is no peer,
// is disconnected, and made one: the next connection finds it configured, with all that a
// peer has. A peer that came so is part of the configuration in force and not of the
// file, and comes and goes as by a reload.

const (
	// A dynamic peer is forgotten when its session has been down for so long,
	dynamicGone = 5 * time.Minute
	// or when it was never up. FRR waits 2 minutes before it connects again.
	dynamicNever = 3 * time.Minute
	// dynamicLook is how often that is looked at.
	dynamicLook = 5 * time.Second
	// sourceRest is how long after a dynamic peer was removed nothing of it is on its way.
	sourceRest = time.Minute
)

// dynamics are the addresses that are to become peers. Agent.mu guards came.
type dynamics struct {
	came []config.Arrival // in this order
	poke chan struct{}
}

// Stranger takes the address of somebody of a range who connected and is no peer, and the
// ASN that was told, where the range allows several. It returns quickly.
func (a *Agent) Stranger(addr netip.Addr, asn uint32) {
	a.mu.Lock()
	r := a.cfg.RangeOf(addr)
	full := false
	if r != nil && !a.cfg.Has(addr) && !slices.ContainsFunc(a.dynamic.came, func(other config.Arrival) bool { return other.Address == addr }) {
		n := a.cfg.Count(r)
		for _, other := range a.dynamic.came {
			if r.Range.Contains(other.Address) {
				n++
			}
		}
		if full = n >= r.Limit; !full {
			a.dynamic.came = append(a.dynamic.came, config.Arrival{Address: addr, ASN: asn})
		}
	}
	a.mu.Unlock()
	if full {
		a.metrics.DynamicRefused()
		a.journal(journal.DynamicRefused, slog.String("prefix", r.Range.String()), slog.Int("limit", r.Limit), slog.String("address", addr.String()))
		return
	}
	select {
	case a.dynamic.poke <- struct{}{}:
	default:
	}
}

// RunDynamic makes peers of those who came, and removes those who left, until ctx ends. It
// is to be called once, after Connect.
func (a *Agent) RunDynamic(ctx context.Context) {
	look := time.NewTicker(dynamicLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.dynamic.poke:
		case <-look.C:
		}
		a.comeAndGo(ctx)
	}
}

// comeAndGo is one round of RunDynamic.
func (a *Agent) comeAndGo(ctx context.Context) {
	a.changing.Lock()
	defer a.changing.Unlock()
	now := time.Now()
	a.mu.Lock()
	before := a.cfg
	list := slices.DeleteFunc(before.Dynamic(), func(d config.Arrival) bool { return a.peers.byAddr[d.Address].isGone(now) })
	list, a.dynamic.came = append(list, a.dynamic.came...), nil
	a.mu.Unlock()
	if slices.Equal(list, before.Dynamic()) {
		return
	}
	after := before.With(list)
	plan := config.Compare(before, after)
	if err := a.applyConfig(ctx, before, after, plan); err != nil && ctx.Err() == nil {
		a.journal(journal.ConfigIncomplete, slog.String("file", a.opts.ConfigFile), slog.String("changes", plan.String()), slog.Any("err", err))
	}
}

// isGone tells whether a dynamic peer has been away for long enough to be forgotten.
func (p *peer) isGone(now time.Time) bool {
	if p.state == session.Established || p.graceful || p.kept || p.disabled {
		return false
	}
	if p.local.IsValid() { // it was here
		return now.Sub(p.left) >= max(dynamicGone, p.cfg.PrefixLimit.Idle)
	}
	return now.Sub(p.left) >= dynamicNever
}
