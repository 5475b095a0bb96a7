package rib

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
)

// Over says whether a path is beyond a prefix limit.
type Over uint8

// The values of Over. A path that waits for the total has its place in its peer's limit.
const (
	Within Over = iota
	OverPeer
	OverTotal
)

// quota is how much of a limit is used. Who came first has it; what finds it full waits
// in the order of arrival, and comes in as soon as a place is free.
type quota struct {
	max     int // 0: no limit
	within  int
	waiting int
	queue   []waiter // from head on; holds some that wait no more
	head    int
}

type waiter struct {
	seq    uint64
	prefix netip.Prefix
	source fib.Source
}

func (q *quota) full() bool { return q.max > 0 && q.within >= q.max }

// SetLimit bounds the prefixes of a source that are used, by family; 0: no limit. What
// was announced first is used; what is beyond is known, and waits for a place.
func (t *Table) SetLimit(src fib.Source, ipv4, ipv6 int) {
	for i, max := range []int{ipv4, ipv6} {
		q := t.quota(src, i == 0)
		if q.max == max {
			continue
		}
		q.max = max
		t.shrink(q, OverPeer, func(prefix netip.Prefix, p *Path) bool {
			return p.Source == src && prefix.Addr().Is4() == (i == 0)
		})
		t.refill(t.quota(src, i == 0))
	}
}

// SetTotal bounds the paths that are used, over all sources and both families.
func (t *Table) SetTotal(max int) {
	if t.total.max == max {
		return
	}
	t.total.max = max
	t.shrink(&t.total, OverTotal, func(netip.Prefix, *Path) bool { return true })
	t.refill(&t.total)
}

// NoPlace is the limit of a source that is going to be lost, with all it has.
const NoPlace = -1

// Cut says which of the paths that are used today lower limits would leave out: those
// that came last. That of no limit lowered is nil, and takes nothing.
type Cut struct {
	last  map[family]uint64 // the seq of the last path that has a place
	total uint64
}

// family is what one source announces of one address family.
type family struct {
	source fib.Source
	ipv4   bool
}

// Takes tells whether a path is among them.
func (c *Cut) Takes(prefix netip.Prefix, p Path) bool {
	if c == nil {
		return false
	}
	last, lower := c.last[family{p.Source, prefix.Addr().Is4()}]
	return lower && p.seq > last || p.seq > c.total
}

// Lower tells what SetLimit and SetTotal would leave out with these limits, and changes
// nothing. Paths that wait for a place today are not counted on.
func (t *Table) Lower(limit func(src fib.Source, ipv4 bool) int, total int) *Cut {
	type place struct {
		seq    uint64
		within bool // the total, too
	}
	c := &Cut{last: make(map[family]uint64), total: math.MaxUint64}
	lowered := make(map[family][]place)
	for src := range t.quotas {
		for i, q := range t.quotas[src] {
			f := family{fib.Source(src), i == 0}
			if max := limit(f.source, f.ipv4); max == NoPlace {
				c.last[f] = 0
			} else if max > 0 && q.within > max {
				lowered[f] = nil
			}
		}
	}
	lowTotal := total > 0 && t.total.within > total
	if len(lowered) == 0 && !lowTotal {
		return nil
	}
	var all []uint64 // within the total
	n := 0
	for prefix, d := range t.dests {
		for i := range d.paths {
			p := &d.paths[i]
			f := family{p.Source, prefix.Addr().Is4()}
			_, lost := c.last[f]
			if list, lower := lowered[f]; lower && p.Over != OverPeer {
				lowered[f] = append(list, place{p.seq, p.Over == Within})
			} else if lowTotal && !lost && p.Over == Within {
				all = append(all, p.seq)
			}
		}
		n = t.pause(n)
	}
	for f, list := range lowered {
		slices.SortFunc(list, func(a, b place) int { return cmp.Compare(a.seq, b.seq) })
		list = list[:min(len(list), limit(f.source, f.ipv4))]
		c.last[f] = math.MaxUint64
		if len(list) > 0 { // not all withdrawn in the meantime
			c.last[f] = list[len(list)-1].seq
		}
		for _, x := range list {
			if x.within {
				all = append(all, x.seq)
			}
		}
	}
	if lowTotal && len(all) > total {
		slices.Sort(all)
		c.total = all[total-1]
	}
	return c
}

// Waiting counts the paths of a source that are beyond its limit or the total.
func (t *Table) Waiting(src fib.Source) Count {
	if int(src) >= len(t.over) {
		return Count{}
	}
	return t.over[src]
}

// Total counts the paths within all limits.
func (t *Table) Total() int { return t.total.within }

func (t *Table) quota(src fib.Source, v4 bool) *quota {
	for int(src) >= len(t.quotas) {
		t.quotas = append(t.quotas, [2]*quota{{}, {}})
		t.over = append(t.over, Count{})
	}
	if v4 {
		return t.quotas[src][0]
	}
	return t.quotas[src][1]
}

// admit gives a new path its place.
func (t *Table) admit(prefix netip.Prefix, p *Path) {
	t.seq++
	p.seq = t.seq
	if q := t.quota(p.Source, prefix.Addr().Is4()); q.full() {
		t.wait(q, OverPeer, prefix, p)
	} else {
		q.within++
		t.admitTotal(prefix, p)
	}
}

func (t *Table) admitTotal(prefix netip.Prefix, p *Path) {
	if t.total.full() {
		t.wait(&t.total, OverTotal, prefix, p)
		return
	}
	t.total.within++
	p.Over = Within
}

// wait puts a path at the end of a queue.
func (t *Table) wait(q *quota, over Over, prefix netip.Prefix, p *Path) {
	p.Over = over
	t.countOver(p.Source, prefix, 1)
	q.waiting++
	if len(q.queue)-q.head > 2*q.waiting+64 {
		q.queue = slices.DeleteFunc(q.queue[q.head:], func(w waiter) bool { return t.waits(w, over) == nil })
		q.head = 0
	}
	q.queue = append(q.queue, waiter{p.seq, prefix, p.Source})
}

// release takes a path's place away: the path is gone.
func (t *Table) release(prefix netip.Prefix, p Path) {
	q := t.quota(p.Source, prefix.Addr().Is4())
	if p.Over != Within {
		t.countOver(p.Source, prefix, -1)
	}
	switch p.Over {
	case OverPeer:
		q.waiting--
		return
	case OverTotal:
		t.total.waiting--
	case Within:
		t.total.within--
	}
	q.within--
	t.refill(q)
	t.refill(&t.total)
}

// refill lets in what waits while there is room.
func (t *Table) refill(q *quota) {
	over := OverPeer
	if q == &t.total {
		over = OverTotal
	}
	for q.waiting > 0 && !q.full() {
		w := q.queue[q.head]
		q.head++
		p := t.waits(w, over)
		if p == nil {
			continue
		}
		q.waiting--
		t.countOver(w.source, w.prefix, -1)
		if over == OverPeer {
			q.within++
			t.admitTotal(w.prefix, p)
		} else {
			q.within++
			p.Over = Within
		}
		t.Mark(w.prefix)
	}
	if q.head == len(q.queue) {
		q.queue, q.head = nil, 0
	}
}

// waits returns the path of a waiter, nil if it waits no more.
func (t *Table) waits(w waiter, over Over) *Path {
	d := t.dests[w.prefix]
	if d == nil {
		return nil
	}
	for i := range d.paths {
		if p := &d.paths[i]; p.Source == w.source && p.seq == w.seq && p.Over == over {
			return p
		}
	}
	return nil
}

func (t *Table) countOver(src fib.Source, p netip.Prefix, n int) {
	if p.Addr().Is4() {
		t.over[src].IPv4 += n
	} else {
		t.over[src].IPv6 += n
	}
}

// shrink takes the places of those who came last, after the limit became lower.
func (t *Table) shrink(q *quota, over Over, of func(netip.Prefix, *Path) bool) {
	if q.max == 0 || q.within <= q.max {
		return
	}
	// What waits for its peer's limit has no place in the total, either.
	placed := func(p *Path) bool { return p.Over == Within || over == OverPeer && p.Over == OverTotal }
	var last []waiter
	n := 0
	for prefix, d := range t.dests {
		for i := range d.paths {
			if p := &d.paths[i]; of(prefix, p) && placed(p) {
				last = append(last, waiter{p.seq, prefix, p.Source})
			}
		}
		n = t.pause(n)
	}
	slices.SortFunc(last, func(a, b waiter) int {
		if a.seq < b.seq {
			return 1
		}
		return -1
	})
	var out []waiter
	for _, w := range last {
		if q.within <= q.max {
			break
		}
		p := t.waits(w, Within)
		if p == nil && over == OverPeer {
			p = t.waits(w, OverTotal)
		}
		if p == nil {
			continue // withdrawn in the meantime
		}
		switch {
		case p.Over == OverTotal:
			t.total.waiting--
			t.countOver(w.source, w.prefix, -1)
		case over == OverPeer:
			t.total.within--
		}
		q.within--
		q.waiting++
		p.Over = over
		t.countOver(w.source, w.prefix, 1)
		t.Mark(w.prefix)
		out = append(out, w)
	}
	// They came before those who wait already.
	slices.Reverse(out)
	q.queue, q.head = append(out, q.queue[q.head:]...), 0
	t.refill(&t.total)
}
