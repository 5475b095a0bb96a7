package agent

import (
	"net/netip"

	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib"
)

// rejections are the prefixes that must not be installed whatever the kernel says, and
// their number by reason. The zero value is empty.
type rejections struct {
	why    map[netip.Prefix]rib.Reason
	counts map[rib.Reason]int
}

// set notes why a prefix is rejected; "": it is not.
func (r *rejections) set(p netip.Prefix, why rib.Reason) {
	old := r.why[p]
	if old == why {
		return
	}
	if r.why == nil {
		r.why, r.counts = make(map[netip.Prefix]rib.Reason), make(map[rib.Reason]int)
	}
	if old != "" {
		r.counts[old]--
	}
	if why == "" {
		delete(r.why, p)
		return
	}
	r.why[p] = why
	r.counts[why]++
}

// badPath says that a path is never used, and why.
type badPath struct {
	source fib.Source
	why    rib.Reason
}

// refusals are the paths that are never used whatever the others are, and their number
// by source and family, and by source and reason. The zero value is empty.
type refusals struct {
	paths   map[netip.Prefix][]badPath
	counts  map[fib.Source]rib.Count
	reasons map[badPath]int
}

func (r *refusals) count(p netip.Prefix, x badPath, n int) {
	c := r.counts[x.source]
	if p.Addr().Is4() {
		c.IPv4 += n
	} else {
		c.IPv6 += n
	}
	r.counts[x.source] = c
	if r.reasons[x] += n; r.reasons[x] == 0 {
		delete(r.reasons, x)
	}
}

// set notes whose paths of a prefix are refused. The slice is not kept.
func (r *refusals) set(p netip.Prefix, now []badPath) {
	old := r.paths[p]
	if len(old) == 0 && len(now) == 0 {
		return
	}
	for _, x := range old {
		r.count(p, x, -1)
	}
	if len(now) == 0 {
		delete(r.paths, p)
		return
	}
	if r.paths == nil {
		r.paths, r.counts, r.reasons = make(map[netip.Prefix][]badPath), make(map[fib.Source]rib.Count), make(map[badPath]int)
	}
	r.paths[p] = append(old[:0], now...)
	for _, x := range now {
		r.count(p, x, 1)
	}
}

// of counts the refused paths of a source by reason; nil: there are none.
func (r *refusals) of(s fib.Source) map[string]int {
	var out map[string]int
	for x, n := range r.reasons {
		if x.source == s {
			if out == nil {
				out = make(map[string]int)
			}
			out[string(x.why)] = n
		}
	}
	return out
}
