package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// weightLearned is what Azure shows for what a route server learned (S32).
const weightLearned = 32768

// viewChunk bounds how many prefixes one visit to the loop serves, so that a listing of
// a million prefixes does not hold up a failover. What needs the loop's state is taken
// there; rows are made of it outside.
const viewChunk = 1000

// judgement is how a prefix and its paths fared.
type judgement struct {
	prefix   netip.Prefix
	entry    fib.Entry
	verdicts []rib.Verdict
	local    []netip.Addr // our end of the session behind each verdict
	// why the prefix is not in the kernel as it should be; "": it is, or nobody announces it.
	why    rib.Reason
	detail string
}

// judge is called in the loop, with mu held.
func (a *Agent) judge(prefix netip.Prefix) judgement {
	j := judgement{prefix: prefix}
	j.entry, _ = a.table.Entry(prefix)
	j.verdicts = a.policy.Judge(prefix, a.rib.Paths(prefix), j.entry, a.table.State, a.resolver.Resolve)
	for i := range j.verdicts {
		v := &j.verdicts[i]
		switch v.Reason {
		case rib.Damped:
			v.Detail = a.dampedDetail(v, &j)
		case rib.PrefixLimit:
			v.Detail = a.limitDetail(v, prefix.Addr().Is4())
		}
		j.local = append(j.local, a.peers.bySource[v.Path.Source].local)
	}
	a.bfdVerdicts(&j)
	if len(j.verdicts) > 0 {
		j.why, j.detail = a.prefixReason(&j)
	}
	return j
}

func (a *Agent) prefixReason(j *judgement) (rib.Reason, string) {
	switch why := a.policy.Prefix(j.prefix); why {
	case rib.InsideVNet:
		return why, "it is a VNet prefix or inside one, and vnet.allow-inside-vnet does not list it"
	case rib.CoversNextHop:
		return why, fmt.Sprintf("it would take the traffic to %s away from the host's own route", a.policy.Captures[j.prefix])
	}
	e := &j.entry
	best := slices.ContainsFunc(j.verdicts, func(v rib.Verdict) bool { return v.Best })
	switch {
	case !best:
		return j.verdicts[0].Reason, j.verdicts[0].Detail
	case a.suspended:
		return rib.ObserveMode, "an operator flushed the routes: `nexthopctl resync --install` installs them again"
	case !a.install():
		return rib.ObserveMode, "fib.mode is observe: nothing is written"
	case e.Failure != nil && e.Failure.Foreign():
		return rib.ForeignRoute, "a route of another program has the same table, prefix and metric"
	case e.Failure != nil:
		return rib.Refused, "the kernel refused it: " + e.Failure.Err.Error()
	case e.Adopted && !e.InSync:
		return rib.Pending, "it stays as an earlier run left it until all peers have sent all they have"
	case !e.InSync || len(e.Vias) == 0:
		return rib.Pending, "about to be written"
	}
	return "", ""
}

// path writes a verdict as a row of the learned view. A path that won has no reason of
// its own.
func (a *Agent) path(j *judgement, i int, resolver *fib.Resolver) status.Path {
	v := &j.verdicts[i]
	name, addr := a.who(v.Path.Source)
	at := v.Path.Attrs
	row := pathRow(j.prefix, at)
	row.SourcePeer, row.Origin, row.Weight = addr.String(), "EBgp", weightLearned
	row.Peer, row.Best, row.Stale, row.LongLivedStale = name, v.Best, v.Path.Stale, v.Path.LongLived
	row.Since = time.Unix(v.Path.Since, 0)
	row.Reason = string(v.Reason)
	if l := j.local[i]; l.IsValid() {
		row.LocalAddress = l.String()
	}
	row.Installed = v.Used && j.why != rib.ObserveMode &&
		slices.ContainsFunc(resolver.Resolve(v.Attrs.NextHop).Legs, func(l fib.Leg) bool { return slices.Contains(j.entry.Kernel, l) })
	return row
}

// pathRow fills in what the learned and the advertised view have in common.
func pathRow(prefix netip.Prefix, at *rib.Attrs) status.Path {
	row := status.Path{
		Network: prefix.String(), NextHop: at.NextHop.String(), AsPath: at.ASPath.Join("-"),
		BGPOrigin: at.Origin.String(), Communities: communities(at),
	}
	if at.HasMED {
		med := at.MED
		row.MED = &med
	}
	if at.HasOTC {
		otc := at.OTC
		row.OTC = &otc
	}
	return row
}

func communities(a *rib.Attrs) []string {
	var out []string
	for _, c := range a.Communities {
		out = append(out, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
	}
	for _, c := range a.LargeCommunities {
		out = append(out, fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]))
	}
	return out
}

// learned calls row for every path that the peer announces (all peers: nil), ordered
// by prefix and peer.
func (a *Agent) learned(ctx context.Context, of *peer, row func(status.Path) error) error {
	a.mu.Lock()
	prefixes := a.rib.Prefixes()
	a.mu.Unlock()
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for chunk := range slices.Chunk(prefixes, viewChunk) {
		judged := make([]judgement, 0, len(chunk))
		var resolver *fib.Resolver
		if err := a.do(ctx, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, p := range chunk {
				judged = append(judged, a.judge(p))
			}
			resolver = a.resolver
		}); err != nil {
			return err
		}
		for i := range judged {
			if err := a.learnedRows(&judged[i], of, resolver, row); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Agent) learnedRows(j *judgement, of *peer, resolver *fib.Resolver, row func(status.Path) error) error {
	var rows []status.Path
	for i, v := range j.verdicts {
		if of != nil && of.source != v.Path.Source {
			continue
		}
		r := a.path(j, i, resolver)
		if r.Reason == "" {
			r.Reason = string(j.why) // the winners share what is wrong with the prefix
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(x, y status.Path) int { return strings.Compare(x.Peer, y.Peer) })
	for _, r := range rows {
		if err := row(r); err != nil {
			return err
		}
	}
	return nil
}

// advertised calls row for every path that the peer (all peers: nil) hears from us,
// ordered by prefix and peer.
func (a *Agent) advertised(ctx context.Context, to *peer, row func(status.Path) error) error {
	a.mu.Lock()
	speaker := a.speaker
	a.mu.Unlock()
	if speaker == nil {
		return nil // no session can be up yet
	}
	type receiver struct {
		name           string
		address, local netip.Addr
	}
	type told struct {
		session.Advertised
		to receiver
	}
	var receivers []receiver
	a.mu.Lock()
	for _, p := range a.peers.list {
		if to == nil || to == p {
			receivers = append(receivers, receiver{p.cfg.Name, p.cfg.Address, p.local})
		}
	}
	a.mu.Unlock()
	var all []told
	for _, p := range receivers {
		if err := ctx.Err(); err != nil {
			return err
		}
		paths, err := speaker.Advertised(p.address)
		if err != nil {
			return fmt.Errorf("advertised to %s: %w", p.name, err)
		}
		all = slices.Grow(all, len(paths))
		for _, x := range paths {
			all = append(all, told{x, p})
		}
	}
	slices.SortStableFunc(all, func(x, y told) int {
		if c := x.Prefix.Compare(y.Prefix); c != 0 {
			return c
		}
		return strings.Compare(x.to.name, y.to.name)
	})
	for _, x := range all {
		r := pathRow(x.Prefix, x.Attrs)
		r.Origin, r.Peer = "Igp", x.to.name
		if l := x.to.local; l.IsValid() {
			r.LocalAddress, r.SourcePeer = l.String(), l.String()
		}
		if x.From.IsValid() {
			r.SourcePeer = x.From.String()
		}
		if err := row(r); err != nil {
			return err
		}
	}
	return nil
}

// who tells the name and the address of a source. The loop may call it, with mu free.
func (a *Agent) who(s fib.Source) (name string, address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &a.peers.bySource[s].cfg
	return c.Name, c.Address
}
