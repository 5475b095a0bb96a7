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

// refusals are the paths that are never used whatever the others are, and their number
// by source and family. The zero value is empty.
type refusals struct {
	paths  map[netip.Prefix][]fib.Source
	counts map[fib.Source]rib.Count
}

func (r *refusals) count(p netip.Prefix, s fib.Source, n int) {
	c := r.counts[s]
	if p.Addr().Is4() {
		c.IPv4 += n
	} else {
		c.IPv6 += n
	}
	r.counts[s] = c
}

// set notes whose paths of a prefix are refused. The slice is not kept.
func (r *refusals) set(p netip.Prefix, sources []fib.Source) {
	old := r.paths[p]
	if len(old) == 0 && len(sources) == 0 {
		return
	}
	for _, s := range old {
		r.count(p, s, -1)
	}
	if len(sources) == 0 {
		delete(r.paths, p)
		return
	}
	if r.paths == nil {
		r.paths, r.counts = make(map[netip.Prefix][]fib.Source), make(map[fib.Source]rib.Count)
	}
	r.paths[p] = append(old[:0], sources...)
	for _, s := range sources {
		r.count(p, s, 1)
	}
}
