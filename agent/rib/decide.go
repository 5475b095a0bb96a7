package rib

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
)

// Reason says why a path is not used or a prefix not installed. The zero value says
// that it is.
type Reason string

// The reasons. Those of a prefix come before those of a path.
const (
	InsideVNet    Reason = "inside-vnet"     // S18
	CoversNextHop Reason = "covers-next-hop" // S21
	ForeignRoute  Reason = "foreign-route"   // S19
	Refused       Reason = "kernel-refused"
	ObserveMode   Reason = "observe-mode" // S27
	Pending       Reason = "pending"      // about to be written

	PrefixLimit    Reason = "prefix-limit"   // S9
	Filtered       Reason = "filtered"       // S10
	OwnASInPath    Reason = "own-as-in-path" // S8
	ASZeroInPath   Reason = "as-zero-in-path"
	PeerDown       Reason = "peer-down"
	WrongFamily    Reason = "next-hop-family" // an IPv4 next hop for an IPv6 prefix
	Unreachable    Reason = fib.Unreachable   // S20
	IsSelf         Reason = fib.IsSelf        // S21
	Damped         Reason = "damped"
	StalePath      Reason = "stale" // S17
	LongLivedStale Reason = "long-lived-stale"
	LocalPrefLow   Reason = "local-pref-lower"
	ASPathLonger   Reason = "as-path-longer"
	OriginWorse    Reason = "origin-worse"
	MEDHigher      Reason = "med-higher"
	MaxPaths       Reason = "max-paths" // S14
	Blackholed     Reason = "blackholed"
)

// Policy is what the decision needs beside the paths.
type Policy struct {
	LocalASN    uint32
	VNet        []netip.Prefix
	AllowInside []netip.Prefix
	// Captures are the prefixes that must not be installed because they would take the
	// traffic to a peer or to a next hop away from the host's own route (see NewCaptures).
	Captures Captures
	// Guards are those of the peers, by Source; none: nothing is refused.
	Guards []Guards
	// IsSelf tells the host's own addresses; nil: none is known.
	IsSelf func(netip.Addr) bool
	// Imports are the import filters, by Source; nil, or none: all is accepted.
	Imports []Filter
}

// Filter decides with which attributes a peer's path is used.
type Filter interface {
	// Import returns the attributes, nil where the path is refused, and the rule that
	// decided, in words; "": none did. The attributes given stay as they are.
	Import(netip.Prefix, *Attrs) (*Attrs, string)
}

// Import passes a path through its peer's limit and filter: the path as it is used, and
// the rule that decided. A reason says that it must not be used, whatever the others are.
// The next hop of a blackhole is fib.Discard.
func (p *Policy) Import(pfx netip.Prefix, x Path) (used Path, why Reason, rule string) {
	if x.Over != Within {
		return x, PrefixLimit, ""
	}
	// First as it was announced: no rule makes a path good that is none.
	if why := p.Path(pfx, x); why != "" {
		return x, why, ""
	}
	if int(x.Source) < len(p.Imports) && p.Imports[x.Source] != nil {
		var a *Attrs
		if a, rule = p.Imports[x.Source].Import(pfx, x.Attrs); a == nil {
			return x, Filtered, rule
		}
		x.Attrs = a
	}
	if p.MayBlackhole(pfx, x.Source) && slices.Contains(x.Attrs.Communities, blackhole) {
		a := *x.Attrs
		a.NextHop = fib.Discard
		x.Attrs = &a
	}
	return x, "", rule
}

// Well-known communities.
const (
	blackhole = 65535<<16 | 666 // RFC 7999
	llgrStale = 65535<<16 | 6   // RFC 9494
	noLLGR    = 65535<<16 | 7
)

// MayBlackhole tells whether the peer may have the traffic to the prefix dropped: to a
// single host, where its configuration says so (RFC 7999 section 3.3 wants it strict).
func (p *Policy) MayBlackhole(pfx netip.Prefix, src fib.Source) bool {
	return pfx.IsSingleIP() && int(src) < len(p.Guards) && p.Guards[src].Blackhole
}

// Path says why a path of a prefix must not be used, whatever the others are.
func (p *Policy) Path(pfx netip.Prefix, x Path) Reason {
	a := x.Attrs
	switch {
	case a.ASPath.Contains(p.LocalASN):
		return OwnASInPath
	case a.ASPath.Contains(0): // RFC 7607
		return ASZeroInPath
	case pfx.Addr().Is6() && a.NextHop.Is4():
		// The kernel would refuse the whole route, and with it the next hops of the other
		// peers ("IPv6 routes can not use an IPv4 nexthop"). The reverse works (RFC 8950).
		return WrongFamily
	}
	if why := p.guard(pfx, x); why != "" {
		return why
	}
	if x.Damped {
		return Damped
	}
	return ""
}

// Prefix says why a prefix must not be installed, whatever its paths are.
func (p *Policy) Prefix(pfx netip.Prefix) Reason {
	for _, v := range p.VNet {
		if pfx.Bits() >= v.Bits() && v.Contains(pfx.Addr()) && !slices.Contains(p.AllowInside, pfx) {
			return InsideVNet
		}
	}
	if _, ok := p.Captures[pfx]; ok {
		return CoversNextHop
	}
	return ""
}

// compare ranks two paths: below 0 when a is preferred, 0 when they share the traffic.
// RFC 9494 section 4.3 and RFC 4271 sections 9.1.1 and 9.1.2.2 a to c, with two decisions of ours: paths come from
// eBGP peers only, so LOCAL_PREF is what an import filter says, and the interior cost has
// no part; and MED is compared whoever the neighbouring AS is, as GoBGP's multipath does, so that the outcome does
// not depend on the order in which paths arrived. What remains equal is ECMP: the
// later steps (d to g) would only break the tie.
func compare(x, y *Path) (int, Reason) {
	if last := x.last(); last != y.last() {
		if last {
			return 1, LongLivedStale
		}
		return -1, LongLivedStale
	}
	a, b := x.Attrs, y.Attrs
	if pa, pb := a.localPref(), b.localPref(); pa != pb {
		if pa > pb {
			return -1, LocalPrefLow
		}
		return 1, LocalPrefLow
	}
	if c := a.ASPath.Len() - b.ASPath.Len(); c != 0 {
		return c, ASPathLonger
	}
	if c := int(a.Origin) - int(b.Origin); c != 0 {
		return c, OriginWorse
	}
	switch {
	case a.MED < b.MED:
		return -1, MEDHigher
	case a.MED > b.MED:
		return 1, MEDHigher
	}
	return 0, ""
}

// last tells whether a path is the last choice: it is long-lived stale here, or was where
// the peer has it from (LLGR_STALE).
func (x *Path) last() bool { return x.LongLived || slices.Contains(x.Attrs.Communities, llgrStale) }

// Rank appends to buf the ranking of the usable paths of a prefix, in the form that
// fib.Table.Set takes: the equal-cost tier, the next-best tier, and so on. Reachability
// and the state of the peers are not its business: the FIB applies them to the whole
// ranking at once.
func (p *Policy) Rank(buf []fib.Via, pfx netip.Prefix, paths []Path) ([]fib.Via, Reason) {
	if why := p.Prefix(pfx); why != "" {
		return buf, why
	}
	var few [8]Path
	order := few[:0]
	for _, x := range paths {
		if used, why, _ := p.Import(pfx, x); why == "" {
			order = append(order, used)
		}
	}
	slices.SortFunc(order, func(a, b Path) int {
		if c, _ := compare(&a, &b); c != 0 {
			return c
		}
		if c := a.Attrs.NextHop.Compare(b.Attrs.NextHop); c != 0 {
			return c
		}
		return int(a.Source) - int(b.Source)
	})
	tier := 0
	for i, x := range order {
		if i > 0 {
			if c, _ := compare(&order[i-1], &x); c != 0 {
				tier++
			}
		}
		if tier > math.MaxUint8 {
			break // 256 tiers would have to fail first
		}
		buf = append(buf, fib.Via{NextHop: x.Attrs.NextHop, Source: x.Source, Tier: uint8(tier)})
	}
	return buf, ""
}

// Verdict is how one path of a prefix fared.
type Verdict struct {
	Path   Path   // as it was announced
	Attrs  *Attrs // as it is used: what the import filter made of it
	Rule   string // of the import filter that decided; "": none did
	Best   bool   // in the preferred tier of those that can be used
	Used   bool   // carries traffic
	Reason Reason // why not
	Detail string // in a sentence
}

// Judge tells for every path of a prefix how it fared. e is what the FIB knows of the
// prefix, state and resolve are as the FIB has them. It does not depend on whether the
// kernel took the route.
func (p *Policy) Judge(pfx netip.Prefix, paths []Path, e fib.Entry, state func(fib.Source) fib.SourceState, resolve func(netip.Addr) fib.Resolution) []Verdict {
	out := make([]Verdict, len(paths))
	var best *Path // the preferred among the usable
	bestStale := true
	for i, x := range paths {
		v := &out[i]
		used, why, rule := p.Import(pfx, x)
		v.Path, v.Attrs, v.Rule = x, used.Attrs, rule
		if v.Reason, v.Detail = why, p.refused(pfx, used, why, rule); why == "" {
			v.Reason, v.Detail = unusable(used, e, state, resolve)
		}
		if v.Reason != "" {
			continue
		}
		stale := state(x.Source) == fib.SourceStale
		if best != nil {
			if c, _ := compare(&used, best); c > 0 || c == 0 && (stale || !bestStale) {
				continue
			}
		}
		best, bestStale = &used, stale
	}
	for i := range out {
		v := &out[i]
		if v.Reason != "" || best == nil {
			continue
		}
		used := v.Path
		used.Attrs = v.Attrs
		if c, step := compare(&used, best); c != 0 {
			v.Reason, v.Detail = step, lost(v.Attrs, best.Attrs, step)
			continue
		}
		if state(v.Path.Source) == fib.SourceStale && !bestStale {
			v.Reason = StalePath
			v.Detail = "its peer is restarting, and a fresh path is as good"
			continue
		}
		v.Best = true
		v.Used = slices.ContainsFunc(e.Used, v.is)
		switch {
		case v.Used || len(e.Used) == 0 || !slices.ContainsFunc(e.Vias, v.is):
		case e.Used[0].NextHop == fib.Discard:
			v.Reason = Blackholed
			v.Detail = "another path is as good and asks for the traffic to be dropped (RFC 7999)"
		default:
			v.Reason = MaxPaths
			v.Detail = fmt.Sprintf("as good as the others, but the route has its %d next hops already", len(e.Legs))
		}
	}
	return out
}

// is tells whether a way to forward comes from this path.
func (v *Verdict) is(via fib.Via) bool {
	return via.Source == v.Path.Source && via.NextHop == v.Attrs.NextHop
}

// refused puts in a sentence why a path must not be used.
func (p *Policy) refused(pfx netip.Prefix, x Path, why Reason, rule string) string {
	switch why {
	case PrefixLimit:
		return "it came after others, and there is no place for it" // the caller knows the limit
	case Filtered:
		return "the import filter of its peer rejects it: " + rule
	case OwnASInPath:
		return fmt.Sprintf("the AS path %q holds our own AS %d: a loop", x.Attrs.ASPath, p.LocalASN)
	case ASZeroInPath:
		return fmt.Sprintf("the AS path %q holds AS 0 (RFC 7607)", x.Attrs.ASPath)
	case WrongFamily:
		return fmt.Sprintf("an IPv6 route cannot use the IPv4 next hop %s", x.Attrs.NextHop)
	case Damped:
		return "it was withdrawn too often in a short time (peers.damping)"
	case "":
		return ""
	}
	return p.guardDetail(why, pfx, x)
}

func unusable(x Path, e fib.Entry, state func(fib.Source) fib.SourceState, resolve func(netip.Addr) fib.Resolution) (Reason, string) {
	if state(x.Source) == fib.SourceDown {
		return PeerDown, "its peer's session is down"
	}
	switch res := resolve(x.Attrs.NextHop); res.Why {
	case fib.IsSelf:
		return IsSelf, fmt.Sprintf("next hop %s is an address of this host", x.Attrs.NextHop)
	case fib.Unreachable:
		if res.Route.IsValid() {
			return Unreachable, fmt.Sprintf("the host's route %s leads to next hop %s over no link that is up", res.Route, x.Attrs.NextHop)
		}
		return Unreachable, fmt.Sprintf("the host has no route of its own to next hop %s", x.Attrs.NextHop)
	}
	for _, r := range e.Refused {
		if r.Via.Source == x.Source && r.Via.NextHop == x.Attrs.NextHop {
			return Refused, fmt.Sprintf("the kernel refused next hop %s: %s", x.Attrs.NextHop, r.Failure.Err.Error())
		}
	}
	return "", ""
}

func lost(a, best *Attrs, step Reason) string {
	switch step {
	case LongLivedStale:
		return "it is long-lived stale (RFC 9494): any other path is preferred"
	case LocalPrefLow:
		return fmt.Sprintf("local preference %d, the best has %d", a.localPref(), best.localPref())
	case ASPathLonger:
		return fmt.Sprintf("AS path length %d, the best has %d", a.ASPath.Len(), best.ASPath.Len())
	case OriginWorse:
		return fmt.Sprintf("origin %s, the best has %s", a.Origin, best.Origin)
	case MEDHigher:
		return fmt.Sprintf("MED %d, the best has %d", a.MED, best.MED)
	}
	return ""
}
