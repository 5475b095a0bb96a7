package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// parseQuery takes a prefix or an address.
func parseQuery(q string) (netip.Prefix, netip.Addr, error) {
	if addr, err := netip.ParseAddr(q); err == nil && addr.Zone() == "" {
		return netip.Prefix{}, addr.Unmap(), nil
	}
	p, err := netip.ParsePrefix(q)
	if err != nil || p.Addr().Is4In6() {
		return p, netip.Addr{}, fmt.Errorf("%q is neither a prefix (10.0.0.0/8) nor an address (10.1.2.3)", q)
	}
	return p.Masked(), netip.Addr{}, nil
}

// explain answers why a prefix, or the prefix that an address falls into, is or is not
// installed (S36).
func (a *Agent) explain(ctx context.Context, query string) (status.Explanation, error) {
	prefix, addr, err := parseQuery(query)
	if err != nil {
		return status.Explanation{}, err
	}
	x := status.Explanation{Query: query, Paths: []status.ExplainPath{}, Desired: []string{}, InKernel: []string{}}
	var failure error
	err = a.do(ctx, func() { failure = a.explainNow(&x, prefix, addr) })
	return x, orElse(err, failure)
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// explainNow is called in the loop.
func (a *Agent) explainNow(x *status.Explanation, prefix netip.Prefix, addr netip.Addr) error {
	if addr.IsValid() {
		if prefix = a.longestMatch(addr); !prefix.IsValid() {
			x.Verdict = fmt.Sprintf("no peer announces a prefix that contains %s", addr)
			if res := a.resolver.Resolve(addr); res.Route.IsValid() {
				x.InKernel = append(x.InKernel, strings.TrimSpace(fmt.Sprintf("%s %s (the host's own)", res.Route, a.legsText(res.Legs))))
			}
			return nil
		}
	}
	x.Prefix = prefix.String()
	routes, err := a.kernel.Lookup(prefix)
	if err != nil {
		return fmt.Errorf("read route %s: %w", prefix, err)
	}
	for _, r := range routes {
		text := strings.Join(strings.Fields(fmt.Sprintf("%s %s proto %s metric %d", r.Prefix, a.legsText(r.Legs), protocolName(r.Protocol), r.Metric)), " ")
		if a.ours(r) {
			x.InKernel = append(x.InKernel, text)
		} else {
			x.Foreign = append(x.Foreign, text)
		}
	}
	a.mu.Lock()
	j := a.judge(prefix)
	x.Held = a.heldText(&j)
	a.mu.Unlock()
	for i, v := range j.verdicts {
		p := status.ExplainPath{Path: a.path(&j, i, a.resolver), Detail: v.Detail, Rule: v.Rule, Resolution: a.resolution(v.Attrs.NextHop)}
		switch v.Reason {
		case rib.LongLivedStale, rib.LocalPrefLow, rib.ASPathLonger, rib.OriginWorse, rib.MEDHigher, rib.StalePath, rib.MaxPaths, rib.Blackholed:
			p.Step = p.Reason
		}
		p.ECMP = p.Installed && len(j.entry.Kernel) > 1
		x.Paths = append(x.Paths, p)
	}
	slices.SortFunc(x.Paths, func(a, b status.ExplainPath) int { return strings.Compare(a.Peer, b.Peer) })
	for _, l := range j.entry.Legs {
		x.Desired = append(x.Desired, legText(l, a.host.Links))
	}
	x.Reason = string(j.why)
	if f := j.entry.Failure; f != nil {
		x.LastError, x.LastErrorAt, x.Attempts, x.NextRetry = f.Err.Error(), timeOrNil(f.At), f.Attempts, timeOrNil(f.Retry)
	}
	x.Verdict = a.verdict(&j, routes)
	return nil
}

func (a *Agent) verdict(j *judgement, routes []fib.Route) string {
	e, paths := &j.entry, len(j.verdicts)
	switch {
	case e.Adopted && !a.table.Held():
		why := "no peer announces it"
		if paths > 0 {
			why = fmt.Sprintf("%s: %s", j.why, j.detail)
		}
		return fmt.Sprintf("%s is kept in the kernel as it was found, though it should go (%s)", j.prefix, why)
	case paths == 0 && e.Adopted:
		return fmt.Sprintf("%s is a route of an earlier run; no peer has announced it yet, and it is removed at %s at the latest", j.prefix, a.sweepAt.Format("15:04:05"))
	case paths == 0:
		return fmt.Sprintf("%s is announced by no peer", j.prefix)
	case (j.why == rib.Pending || j.why == rib.Refused) && len(e.Kernel) > 0:
		return fmt.Sprintf("%s is installed with other next hops than it should have (%s): %s", j.prefix, j.why, j.detail)
	case j.why != "":
		return fmt.Sprintf("%s is not installed (%s): %s", j.prefix, j.why, j.detail)
	}
	for _, r := range routes {
		if r.Metric < a.cfg.FIB.Metric {
			return fmt.Sprintf("%s is installed, but a %s route with the better metric %d wins", j.prefix, protocolName(r.Protocol), r.Metric)
		}
	}
	if slices.Contains(e.Legs, fib.Blackhole) {
		return fmt.Sprintf("%s is installed as a blackhole: the traffic to it is dropped, as %d of %d paths ask for (RFC 7999)", j.prefix, len(e.Used), paths)
	}
	return fmt.Sprintf("%s is installed with %d next hop%s, from %d of %d paths", j.prefix, len(e.Legs), plural(len(e.Legs), "", "s"), len(e.Used), paths)
}

// longestMatch finds the longest prefix around an address that a peer announces, or that
// an earlier run left in the kernel.
func (a *Agent) longestMatch(addr netip.Addr) netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	for bits := addr.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(addr, bits).Masked()
		if _, known := a.table.Entry(p); known || len(a.rib.Paths(p)) > 0 {
			return p
		}
	}
	return netip.Prefix{}
}

func (a *Agent) resolution(nh netip.Addr) string {
	if nh == fib.Discard {
		return "blackhole"
	}
	res := a.resolver.Resolve(nh)
	switch {
	case res.Why == fib.IsSelf:
		return nh.String() + " is an address of this host"
	case res.Why != "" && a.resolver.IsDead(nh):
		return nh.String() + " is unreachable: BFD says that the path to it is dead"
	case res.Why != "" && res.Route.IsValid():
		return fmt.Sprintf("%s is unreachable: the host's route %s leads over no link that is up", nh, res.Route)
	case res.Why != "":
		return fmt.Sprintf("%s is unreachable: the host has no route of its own to it", nh)
	}
	text := fmt.Sprintf("%s (host route %s)", a.legsText(res.Legs), res.Route)
	for _, l := range res.Legs {
		if a.table.Avoids(l) {
			text += fmt.Sprintf("; %s does not answer (ARP or ND): avoided while there are others", l.Gateway)
		}
	}
	return text
}

func (a *Agent) legsText(legs []fib.Leg) string { return legsOn(legs, a.host.Links) }

func legsOn(legs []fib.Leg, links map[int]fib.Link) string {
	var out []string
	for _, l := range legs {
		out = append(out, legText(l, links))
	}
	return strings.Join(out, ", ")
}
