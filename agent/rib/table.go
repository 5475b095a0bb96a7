package rib

import (
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
)

// Table is the sum of the peers' Adj-RIBs-In: for every prefix, the paths that are
// announced now. It remembers which prefixes changed until Next hands them out, once
// each however often they changed. Not safe for concurrent use.
type Table struct {
	// Yield, if set, is called every so often in the middle of a walk over all prefixes,
	// which takes some 0.2 s for a million: the owner may let others at the table there.
	Yield func()

	dests    map[netip.Prefix]*dest
	dirty    []marked
	head     int
	known    int                // dests with paths
	nextHops map[netip.Addr]int // paths that name it
	hopsGen  uint64             // counts the next hops that came or went
	counts   []Count            // by Source
	stale    []int              // paths that are Stale, by Source
	long     []int              // paths that are LongLived, by Source
	over     []Count            // paths that are Over, by Source
	quotas   [][2]*quota        // by Source: IPv4, IPv6
	total    quota
	seq      uint64
	dampers  map[fib.Source]*damper
}

type dest struct {
	paths []Path // ascending by Source: one path per peer
	dirty bool
	two   [2]Path // where paths begin: most prefixes have two, and an allocation less counts
}

// marked is an entry of the queue of what changed. A dest is not forgotten while it is in there.
type marked struct {
	prefix netip.Prefix
	dest   *dest
}

// Changed is a prefix that changed, and its paths now, ascending by source. They must not
// be kept beyond the next change of the table.
type Changed struct {
	Prefix netip.Prefix
	Paths  []Path
}

// Count is a number of paths by family.
type Count struct{ IPv4, IPv6 int }

// Total is the number over both families.
func (c Count) Total() int { return c.IPv4 + c.IPv6 }

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{dests: make(map[netip.Prefix]*dest), nextHops: make(map[netip.Addr]int)}
}

// Update applies announcements and withdrawals of one source at a time (in seconds
// since 1970). An announcement that changes nothing does not make its prefix dirty.
func (t *Table) Update(src fib.Source, changes []Change, now int64) {
	for _, c := range changes {
		d := t.dests[c.Prefix]
		if c.Attrs == nil {
			if d != nil {
				t.withdraw(c.Prefix, d, src)
			}
			continue
		}
		if d == nil {
			d = &dest{}
			d.paths = d.two[:0]
			t.dests[c.Prefix] = d
		}
		i, found := slices.BinarySearchFunc(d.paths, src, func(p Path, s fib.Source) int { return int(p.Source) - int(s) })
		if !found {
			if len(d.paths) == 0 {
				t.known++
			}
			d.paths = slices.Insert(d.paths, i, Path{Source: src, Attrs: c.Attrs, Since: now, Damped: t.damped(src, c.Prefix)})
			t.admit(c.Prefix, &d.paths[i])
			t.count(src, c.Prefix, 1)
			t.use(c.Attrs.NextHop, 1)
			t.mark(c.Prefix, d)
			continue
		}
		p := &d.paths[i]
		if p.LongLived { // it is not the last choice any more, though it may be the same path
			t.mark(c.Prefix, d)
		}
		t.fresh(p)
		if p.Attrs == c.Attrs {
			continue
		}
		t.use(p.Attrs.NextHop, -1)
		t.use(c.Attrs.NextHop, 1)
		p.Attrs, p.Since = c.Attrs, now
		t.mark(c.Prefix, d)
	}
}

func (t *Table) withdraw(prefix netip.Prefix, d *dest, src fib.Source) {
	i := slices.IndexFunc(d.paths, func(p Path) bool { return p.Source == src })
	if i < 0 {
		return
	}
	gone := d.paths[i]
	t.use(gone.Attrs.NextHop, -1)
	t.fresh(&d.paths[i])
	if d.paths = slices.Delete(d.paths, i, i+1); len(d.paths) == 0 {
		t.known--
	}
	t.count(src, prefix, -1)
	t.mark(prefix, d) // Next forgets a destination without paths
	t.release(prefix, gone)
}

// fresh ends what is stale of a path.
func (t *Table) fresh(p *Path) {
	if p.Stale {
		t.stale[p.Source]--
	}
	if p.LongLived {
		t.long[p.Source]--
	}
	p.Stale, p.LongLived = false, false
}

func (t *Table) count(src fib.Source, p netip.Prefix, n int) {
	for int(src) >= len(t.counts) {
		t.counts, t.stale, t.long = append(t.counts, Count{}), append(t.stale, 0), append(t.long, 0)
	}
	if p.Addr().Is4() {
		t.counts[src].IPv4 += n
	} else {
		t.counts[src].IPv6 += n
	}
}

func (t *Table) use(nh netip.Addr, n int) {
	old := t.nextHops[nh]
	if old+n == 0 {
		delete(t.nextHops, nh)
	} else {
		t.nextHops[nh] = old + n
	}
	if old == 0 || old+n == 0 {
		t.hopsGen++
	}
}

func (t *Table) mark(p netip.Prefix, d *dest) {
	if !d.dirty {
		d.dirty = true
		t.dirty = append(t.dirty, marked{p, d})
	}
}

// MarkStale marks the paths of a source that announced a graceful restart.
func (t *Table) MarkStale(src fib.Source) {
	n := 0
	for _, d := range t.dests {
		for i := range d.paths {
			if p := &d.paths[i]; p.Source == src && !p.Stale {
				p.Stale = true
				t.stale[src]++
			}
		}
		n = t.pause(n)
	}
}

// MarkLongLived makes the stale paths of a source long-lived stale (RFC 9494 section 4.2):
// the last choice from now on. Those that must not be kept for so long (NO_LLGR) go.
func (t *Table) MarkLongLived(src fib.Source) {
	n := 0
	for pfx, d := range t.dests {
		i := slices.IndexFunc(d.paths, func(p Path) bool { return p.Source == src && p.Stale && !p.LongLived })
		switch {
		case i < 0:
		case slices.Contains(d.paths[i].Attrs.Communities, noLLGR):
			t.withdraw(pfx, d, src)
		default:
			d.paths[i].LongLived = true
			t.long[src]++
			t.mark(pfx, d)
		}
		n = t.pause(n)
	}
}

// LongLived counts the paths of a source that are long-lived stale.
func (t *Table) LongLived(src fib.Source) int {
	if int(src) < len(t.long) {
		return t.long[src]
	}
	return 0
}

// Stale counts the paths of a source that are stale.
func (t *Table) Stale(src fib.Source) int {
	if int(src) < len(t.stale) {
		return t.stale[src]
	}
	return 0
}

// pause counts the steps of a walk and yields at every 1024th. A map may change while
// it is walked: what was there at the start and still is gets visited, once.
func (t *Table) pause(n int) int {
	if n++; n%1024 == 0 && t.Yield != nil {
		t.Yield()
	}
	return n
}

// DropStale withdraws what a source did not announce again by its End-of-RIB, for
// the family of IPv4 (v4) or of IPv6 (RFC 4724 section 4.2).
func (t *Table) DropStale(src fib.Source, v4 bool) {
	t.withdrawIf(func(pfx netip.Prefix, p Path) bool {
		return p.Source == src && p.Stale && pfx.Addr().Is4() == v4
	})
}

// Drop withdraws all that a source announced.
func (t *Table) Drop(src fib.Source) {
	t.withdrawIf(func(_ netip.Prefix, p Path) bool { return p.Source == src })
}

func (t *Table) withdrawIf(match func(netip.Prefix, Path) bool) {
	n := 0
	for pfx, d := range t.dests {
		for _, p := range d.paths {
			if match(pfx, p) {
				t.withdraw(pfx, d, p.Source)
				break // one path per source, and match names one source
			}
		}
		n = t.pause(n)
	}
}

// Next appends up to max changed prefixes to buf and forgets that they changed.
func (t *Table) Next(buf []Changed, max int) []Changed {
	for ; max > 0 && t.head < len(t.dirty); max-- {
		p, d := t.dirty[t.head].prefix, t.dirty[t.head].dest
		t.head++
		d.dirty = false
		if len(d.paths) == 0 {
			delete(t.dests, p)
		}
		buf = append(buf, Changed{p, d.paths})
	}
	switch {
	case t.head == len(t.dirty):
		t.dirty, t.head = t.dirty[:0], 0
		if cap(t.dirty) > 1<<16 {
			t.dirty = nil // a burst of a million must not cost memory for good
		}
	case t.head >= 1<<12 && t.head >= len(t.dirty)/2:
		// Under a churn that never lets the queue run empty it would grow for good.
		t.dirty = t.dirty[:copy(t.dirty, t.dirty[t.head:])]
		t.head = 0
	}
	return buf
}

// Dirty is the number of prefixes that Next would return.
func (t *Table) Dirty() int { return len(t.dirty) - t.head }

// MarkAll makes every prefix dirty: the policy changed.
func (t *Table) MarkAll() {
	n := 0
	for p, d := range t.dests {
		t.mark(p, d)
		n = t.pause(n)
	}
}

// MarkSource makes every prefix dirty that a source announces: its filter changed.
func (t *Table) MarkSource(src fib.Source) {
	n := 0
	for p, d := range t.dests {
		if !d.dirty && slices.ContainsFunc(d.paths, func(x Path) bool { return x.Source == src }) {
			t.mark(p, d)
		}
		n = t.pause(n)
	}
}

// Mark makes one prefix dirty, if it is known.
func (t *Table) Mark(p netip.Prefix) {
	if d := t.dests[p]; d != nil {
		t.mark(p, d)
	}
}

// Paths returns the paths of a prefix, ascending by source. The slice must not be
// kept beyond the next call of Update.
func (t *Table) Paths(p netip.Prefix) []Path {
	if d := t.dests[p]; d != nil {
		return d.paths
	}
	return nil
}

// Prefixes returns every known prefix, in no order.
func (t *Table) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, t.known)
	n := 0
	for p, d := range t.dests {
		if len(d.paths) > 0 {
			out = append(out, p)
		}
		n = t.pause(n)
	}
	return out
}

// Naming returns the prefixes with a path that names one of the next hops, in no order.
func (t *Table) Naming(nhs map[netip.Addr]bool) []netip.Prefix {
	var out []netip.Prefix
	n := 0
	for p, d := range t.dests {
		if slices.ContainsFunc(d.paths, func(x Path) bool { return nhs[x.Attrs.NextHop] }) {
			out = append(out, p)
		}
		n = t.pause(n)
	}
	return out
}

// Len is the number of known prefixes: those that somebody announces.
func (t *Table) Len() int { return t.known }

// NextHops returns every next hop that a path names.
func (t *Table) NextHops() map[netip.Addr]int { return t.nextHops }

// NextHopsGen is another number whenever NextHops has other keys than before.
func (t *Table) NextHopsGen() uint64 { return t.hopsGen }

// Received counts the paths of a source.
func (t *Table) Received(src fib.Source) Count {
	if int(src) < len(t.counts) {
		return t.counts[src]
	}
	return Count{}
}
