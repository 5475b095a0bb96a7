package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/status"
)

// config returns what is in force. It must not be changed.
func (a *Agent) config() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// OnStop says what is to become of the routes at the end.
func (a *Agent) OnStop() config.OnStop { return a.config().FIB.OnStop }

// Reload reads the configuration again and applies what changed; it returns when that is
// done. A session is reset only where what it is built on changed. A configuration with
// mistakes changes nothing, and is a config.Errors. With dryRun, nothing is changed.
//
// A configuration that would remove too many of the installed routes at once
// (fib.blast-radius) changes nothing either, and waits for Resume.
func (a *Agent) Reload(ctx context.Context, dryRun bool) (status.Reload, error) {
	return a.reload(ctx, dryRun, false)
}

func (a *Agent) reload(ctx context.Context, dryRun, sure bool) (status.Reload, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	if !dryRun && a.opts.Reloading != nil {
		defer a.opts.Reloading()()
	}
	before := a.config()
	after, err := a.opts.Load()
	if err != nil {
		if !dryRun {
			a.metrics.Reload(false)
			a.journal(journal.ConfigRefused, slog.String("file", a.opts.ConfigFile), slog.Any("err", err))
			a.event("config", nil, netip.Prefix{}, "configuration is refused", nil)
		}
		return status.Reload{}, err
	}
	after = after.With(before.Dynamic())
	plan := config.Compare(before, after)
	r := status.Reload{Plan: plan.String(), Changed: !plan.Empty(), NeedsRestart: plan.NeedsRestart}
	blast, left, err := a.blast(ctx, before, after, plan)
	if err != nil {
		return status.Reload{}, err
	}
	r.Removes, r.Installed = blast.removes, blast.of
	r.Held = !sure && before.FIB.BlastRadius.Exceeded(blast.removes, blast.of)
	if dryRun {
		return r, nil
	}
	if r.Held {
		return r, a.holdBack(r, left)
	}
	a.setHeld(nil)
	// Half a reload is worse than a client that has gone.
	err = a.applyConfig(context.WithoutCancel(ctx), before, after, plan)
	a.mu.Lock()
	a.waiting = plan.NeedsRestart
	a.mu.Unlock()
	a.metrics.Reload(err == nil)
	changes := strings.ReplaceAll(r.Plan, "\n", "; ")
	if err != nil {
		a.journal(journal.ConfigIncomplete, slog.String("file", a.opts.ConfigFile), slog.String("changes", changes), slog.Any("err", err))
		return r, err
	}
	r.Applied = true
	attrs := []slog.Attr{slog.String("file", a.opts.ConfigFile), slog.String("changes", changes)}
	if len(r.NeedsRestart) > 0 {
		attrs = append(attrs, slog.String("needs_restart", strings.Join(r.NeedsRestart, ", ")))
	}
	a.journal(journal.ConfigApplied, attrs...)
	a.event("config", nil, netip.Prefix{}, "configuration is applied", map[string]string{"changes": changes})
	return r, nil
}

// applyConfig brings the loop and the speaker in line with a new configuration. What the
// speaker refuses is left out of what is in force, so that the next reload finds it to be
// different still. changing is held.
func (a *Agent) applyConfig(ctx context.Context, before, after *config.Config, plan config.Plan) error {
	a.mu.Lock()
	speaker := a.speaker
	a.mu.Unlock()
	if speaker == nil {
		return errStarting
	}
	now := config.Live(before, after)
	var errs []error

	// A session that ends has its paths withdrawn while its peer is known still.
	var removed []netip.Addr
	for _, p := range plan.Removed {
		if err := speaker.RemovePeer(p.Address); err != nil {
			errs = append(errs, fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err))
			now.Peers = append(slices.Clone(now.Peers), p)
			continue
		}
		removed = append(removed, p.Address)
	}
	if err := a.do(ctx, func() { a.newConfig(now, removed) }); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if a.opts.SetLogLevel != nil {
		a.opts.SetLogLevel(now.Log.Level)
	}

	refused := *now
	refused.Peers = slices.Clone(now.Peers)
	var never []netip.Addr
	v, was := now.VNet, before.VNet
	if !slices.Equal(v.Prefixes, was.Prefixes) || !slices.Equal(v.AllowInside, was.AllowInside) {
		if err := speaker.RefuseInside(v.Prefixes, v.AllowInside); err != nil {
			errs = append(errs, fmt.Errorf("refuse what is inside the VNet: %w", err))
			refused.VNet = was
		}
	}
	if len(plan.Announced)+len(plan.Withdrawn) > 0 || v.NextHop4 != was.NextHop4 || v.NextHop6 != was.NextHop6 {
		if err := speaker.SetVNet(v.Prefixes, v.NextHop4, v.NextHop6); err != nil {
			errs = append(errs, fmt.Errorf("announce the VNet prefixes: %w", err))
			refused.VNet = was
		}
	}
	if plan.BranchToBranch {
		if err := speaker.SetBranchToBranch(now.BranchToBranch); err != nil {
			errs = append(errs, err)
			refused.BranchToBranch = before.BranchToBranch
		}
	}
	if len(before.DynamicPeers)+len(now.DynamicPeers) > 0 {
		if err := speaker.SetRanges(now.DynamicPeers); err != nil {
			errs = append(errs, err)
			refused.DynamicPeers = before.DynamicPeers
		}
	}
	for _, c := range plan.Changed {
		if err := speaker.UpdatePeer(a.withOperator(c.New)); err != nil {
			errs = append(errs, fmt.Errorf("peer %s (%s): %w", c.New.Name, c.New.Address, err))
			refused.Peers[slices.IndexFunc(refused.Peers, func(p config.Peer) bool { return p.Address == c.New.Address })] = c.Old
		}
	}
	for _, p := range plan.Added {
		if err := speaker.AddPeer(p); err != nil {
			errs = append(errs, fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err))
			refused.Peers = slices.DeleteFunc(refused.Peers, func(x config.Peer) bool { return x.Address == p.Address })
			never = append(never, p.Address)
		}
	}
	if len(errs) > 0 {
		if err := a.do(ctx, func() { a.newConfig(&refused, never) }); err != nil {
			errs = append(errs, err)
		}
	}
	a.pokeBFD() // a peer that was added may have to wait for BFD
	return errors.Join(errs...)
}

// withOperator is a peer's configuration as the speaker is to have it: what an operator
// shut down stays down.
func (a *Agent) withOperator(c config.Peer) config.Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.peers.byAddr[c.Address]; p != nil && p.disabled {
		c.Shutdown = true
	}
	return c
}

// newConfig puts a configuration in force, as far as the loop is concerned. The peers
// removed have no session any more. It is called in the loop.
func (a *Agent) newConfig(now *config.Config, removed []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.cfg
	a.cfg = now
	a.sweepAt = a.sweepAt.Add(now.FIB.SweepAfter - was.FIB.SweepAfter)

	for _, addr := range removed {
		p := a.peers.byAddr[addr]
		if p == nil {
			continue
		}
		a.peers.remove(p)
		a.rib.Drop(p.source) // S23: exactly what it contributed
		a.rib.SetDamping(p.source, nil)
	}
	list := make([]*peer, 0, len(now.Peers))
	for _, c := range now.Peers {
		if p := a.peers.byAddr[c.Address]; p != nil {
			p.cfg = c
			if c.Shutdown {
				a.forget(p, time.Now())
			}
		} else {
			a.peers.add(c)
		}
		list = append(list, a.peers.byAddr[c.Address])
	}
	a.peers.list = list
	a.bfd.stale = true
	a.bfd.reload++
	a.newGuards()
	a.newDamping()
	a.captured = noGen // the ways to the peers are to be protected (S21)

	if !slices.Equal(was.VNet.Prefixes, now.VNet.Prefixes) || !slices.Equal(was.VNet.AllowInside, now.VNet.AllowInside) {
		a.policy.VNet, a.policy.AllowInside = now.VNet.Prefixes, now.VNet.AllowInside
		a.rib.MarkAll()
	}
	if was.Announce != now.Announce {
		a.announce.queue = a.rib.Prefixes()
	}
	a.newPolicy(was, now)
}

// noGen is no generation of the rib's next hops.
const noGen = ^uint64(0)
