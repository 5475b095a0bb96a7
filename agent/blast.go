package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// impact is how many of the installed routes a change removes.
type impact struct{ removes, of int }

// heldReload is a configuration that is not applied because it removes too much.
type heldReload struct {
	impact
	plan string
	left outcome
}

func (h *heldReload) text(file string) string {
	return fmt.Sprintf("the changes in %s would remove %d of %d installed routes at once, and are held back", file, h.removes, h.of)
}

// outcome is what a new configuration leaves of the paths: those that its filters, guards
// and VNet accept, of peers that stay, within its prefix limits.
type outcome struct {
	policy rib.Policy
	gone   map[fib.Source]bool // sources whose sessions end
	cut    *rib.Cut
}

// blast computes what a new configuration would remove from the kernel: the routes of
// which no path is left that may be used, once the peers are gone that go or whose session
// is reset, and the filters, the guards, the limits and the VNet are the new ones. What a
// peer does, and what the host's links do, is not asked about: such routes lead nowhere
// any more.
func (a *Agent) blast(ctx context.Context, before, after *config.Config, plan config.Plan) (impact, outcome, error) {
	var sum impact
	var left outcome
	a.mu.Lock()
	prefixes := a.rib.Prefixes()
	a.mu.Unlock()
	if err := a.do(ctx, func() { left = a.outcomeOf(config.Live(before, after), plan) }); err != nil {
		return sum, left, err
	}
	for chunk := range slices.Chunk(prefixes, viewChunk) {
		err := a.do(ctx, func() {
			if !a.install() {
				return
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, p := range chunk {
				if !a.table.Installed(p) {
					continue
				}
				sum.of++
				if !a.stays(&left, p) {
					sum.removes++
				}
			}
		})
		if err != nil {
			return sum, left, err
		}
	}
	return sum, left, nil
}

// outcomeOf is called in the loop.
func (a *Agent) outcomeOf(c *config.Config, plan config.Plan) outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := outcome{policy: a.policyFor(c), gone: a.goneWith(plan)}
	limits := make(map[fib.Source]config.PrefixLimit, len(c.Peers))
	for _, peer := range c.Peers {
		if known := a.peers.byAddr[peer.Address]; known != nil {
			limits[known.source] = peer.PrefixLimit
		}
	}
	o.cut = a.rib.Lower(func(s fib.Source, ipv4 bool) int {
		if o.gone[s] {
			return rib.NoPlace
		}
		return limits[s].For(ipv4)
	}, c.PrefixLimitTotal)
	return o
}

// policyFor is the policy as a configuration would make it. mu is held.
func (a *Agent) policyFor(c *config.Config) rib.Policy {
	p := a.policy
	p.VNet, p.AllowInside = c.VNet.Prefixes, c.VNet.AllowInside
	p.Guards, p.Imports = slices.Clone(p.Guards), slices.Clone(p.Imports)
	for _, peer := range c.Peers {
		if known := a.peers.byAddr[peer.Address]; known != nil {
			p.Guards[known.source], p.Imports[known.source] = guardsOf(peer), nil
			if peer.Import != nil {
				p.Imports[known.source] = peer.Import
			}
		}
	}
	return p
}

// goneWith are the sources whose sessions a change ends. mu is held.
func (a *Agent) goneWith(plan config.Plan) map[fib.Source]bool {
	gone := make(map[fib.Source]bool)
	end := func(addr netip.Addr) {
		if p := a.peers.byAddr[addr]; p != nil {
			gone[p.source] = true
		}
	}
	for _, p := range plan.Removed {
		end(p.Address)
	}
	for _, c := range plan.Changed {
		if c.Reset || c.New.Shutdown || a.closes(c.New) {
			end(c.New.Address)
		}
	}
	return gone
}

// closes tells whether a session that is up ends because of the limit that a peer's
// configuration has. mu is held.
func (a *Agent) closes(c config.Peer) bool {
	p := a.peers.byAddr[c.Address]
	if p == nil || p.state != session.Established {
		return false
	}
	r := a.rib.Received(p.source)
	for _, f := range families {
		received, limit := r.IPv6, c.PrefixLimit.For(f == session.IPv4)
		if f == session.IPv4 {
			received = r.IPv4
		}
		if overflows(c.PrefixLimit, received, limit) {
			return true
		}
	}
	return false
}

// stays tells whether a route of the prefix would be left. mu is held.
func (a *Agent) stays(left *outcome, p netip.Prefix) bool {
	if left.policy.Prefix(p) != "" {
		return false
	}
	return slices.ContainsFunc(a.rib.Paths(p), func(x rib.Path) bool {
		if left.gone[x.Source] || left.cut.Takes(p, x) || a.table.State(x.Source) == fib.SourceDown {
			return false
		}
		used, why, _ := left.policy.Import(p, x)
		return why == "" && a.forwards(used.Attrs.NextHop)
	})
}

// holdBack keeps a configuration from being applied, and says so.
func (a *Agent) holdBack(r status.Reload, left outcome) error {
	h := &heldReload{impact{r.Removes, r.Installed}, r.Plan, left}
	a.setHeld(h)
	a.metrics.Reload(false)
	changes := strings.ReplaceAll(r.Plan, "\n", "; ")
	a.journal(journal.BlastRadius, slog.String("file", a.opts.ConfigFile), slog.Int("routes", r.Removes),
		slog.Int("installed", r.Installed), slog.String("changes", changes))
	a.event("config", nil, netip.Prefix{}, "configuration is held back", map[string]string{"changes": changes})
	return conflict("nexthopctl resume", "nothing is changed: %s", h.text(a.opts.ConfigFile))
}

// heldText says that a route would go, were that not held back; "": it would not. It is called in the loop, with mu held.
func (a *Agent) heldText(j *judgement) string {
	switch {
	case j.entry.Adopted && a.keptNow() > 0:
		return a.keptText() + ": nexthopctl resume"
	case a.held == nil || j.entry.Kernel == nil:
		return ""
	}
	now := a.held.left // but the host is as it is now
	now.policy.Captures, now.policy.IsSelf = a.policy.Captures, a.policy.IsSelf
	if a.stays(&now, j.prefix) {
		return ""
	}
	return a.held.text(a.opts.ConfigFile) + ": nexthopctl resume"
}

func (a *Agent) setHeld(h *heldReload) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = h
}

// Resume does what was held back: it removes the routes that are kept, and applies the
// configuration as the file has it now. Without yes, it only tells what that would do.
func (a *Agent) Resume(ctx context.Context, yes bool) (status.Done, error) {
	var kept string
	if err := a.do(ctx, func() { kept = a.keptText() }); err != nil {
		return status.Done{}, err
	}
	a.mu.Lock()
	h := a.held
	a.mu.Unlock()
	var texts []string
	switch {
	case h == nil && kept == "":
		return status.Done{}, conflict("nexthopctl status", "nothing is held back")
	case !yes:
		if kept != "" {
			texts = append(texts, kept)
		}
		if h != nil {
			texts = append(texts, h.text(a.opts.ConfigFile)+"\n"+h.plan)
		}
		return status.Done{Done: strings.Join(texts, "\n"), Next: "nexthopctl resume --yes"}, nil
	}
	if kept != "" {
		n := 0
		if err := a.do(ctx, func() { n = a.removeKept() }); err != nil {
			return status.Done{}, err
		}
		texts = append(texts, fmt.Sprintf("removing the %d routes that were kept", n))
	}
	if h != nil {
		r, err := a.reload(ctx, false, true)
		if err != nil {
			return status.Done{}, err
		}
		texts = append(texts, "applied\n"+r.Plan)
	}
	return status.Done{Done: strings.Join(texts, "\n"), Next: "nexthopctl status"}, nil
}
