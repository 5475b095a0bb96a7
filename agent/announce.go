package agent

import (
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

// announcements decide which paths the speaker must not announce to other peers: those
// that would not forward here (S31), blackholes too. What is only waiting to be written is announced, or
// held back, as it was before: the kernel takes nearly everything, and a peer must not
// see a path go and come with every write. The zero value holds nothing back. It belongs
// to the loop.
type announcements struct {
	held map[netip.Prefix][]fib.Source // whose paths are held back, ascending
	// forwards remembers, of every next hop that a path named when it was looked at,
	// whether it could be used, to find those that changed.
	forwards   map[netip.Addr]bool
	resolver   *fib.Resolver // that forwards is built on
	refusalGen uint64        // likewise

	queue   []netip.Prefix     // to be looked at again
	changes []session.Withheld // not handed to the speaker yet
}

// forwards tells whether a path with this next hop could carry traffic.
func (a *Agent) forwards(nh netip.Addr) bool {
	f, known := a.announce.forwards[nh]
	if !known {
		f = a.resolver.Resolve(nh).Why == "" && !a.table.RefusesNextHop(nh)
		if a.announce.forwards == nil {
			a.announce.forwards = make(map[netip.Addr]bool)
		}
		a.announce.forwards[nh] = f
	}
	return f
}

// forwardingChanged queues the prefixes behind next hops that can be used now and could
// not before, or the reverse. It is called with mu held.
func (a *Agent) forwardingChanged() {
	n := &a.announce
	if n.resolver == a.resolver && n.refusalGen == a.table.RefusalGen() {
		return
	}
	n.resolver, n.refusalGen = a.resolver, a.table.RefusalGen()
	was := n.forwards
	n.forwards = nil
	named := a.rib.NextHops()
	changed := make(map[netip.Addr]bool)
	for nh, f := range was {
		imposed := slices.Contains(a.imposed, nh)
		if (named[nh] > 0 || imposed) && a.forwards(nh) != f {
			if imposed { // the rib does not know which paths a filter gives it
				n.queue = a.rib.Prefixes()
				return
			}
			changed[nh] = true
		}
	}
	if len(changed) > 0 {
		n.queue = append(n.queue, a.rib.Naming(changed)...)
	}
}

// withhold notes whose paths of a prefix must not be announced. It is called with mu held,
// after the table knows the prefix.
func (a *Agent) withhold(p netip.Prefix, paths []rib.Path, unusable []badPath) {
	kernel := a.cfg.Announce == config.AnnounceForwarding
	all := a.policy.Prefix(p) != "" || kernel && a.table.Refused(p)
	var few [8]fib.Source
	now := few[:0]
	for _, x := range paths {
		i := slices.IndexFunc(unusable, func(r badPath) bool { return r.source == x.Source })
		// What a filter rejects, the speaker rejects by the same filter: a list may be long.
		refused := i >= 0 && unusable[i].why != rib.Filtered
		nh := x.Attrs.NextHop
		if len(a.imposed) > 0 || a.policy.MayBlackhole(p, x.Source) {
			used, _, _ := a.policy.Import(p, x)
			nh = used.Attrs.NextHop
		}
		// A blackhole is for this host only (RFC 7999 section 3.2).
		if all || refused || nh == fib.Discard || kernel && !a.forwards(nh) {
			now = append(now, x.Source)
		}
	}
	n := &a.announce
	was := n.held[p]
	if slices.Equal(was, now) {
		return
	}
	note := func(list, other []fib.Source, held bool) {
		for _, s := range list {
			if slices.Contains(other, s) {
				continue
			}
			n.changes = append(n.changes, session.Withheld{
				Peer: a.peers.bySource[s].cfg.Address, Prefix: p, Held: held,
				Gone: !slices.ContainsFunc(paths, func(x rib.Path) bool { return x.Source == s }),
			})
		}
	}
	note(now, was, true)
	note(was, now, false)
	if len(now) == 0 {
		delete(n.held, p)
		return
	}
	if n.held == nil {
		n.held = make(map[netip.Prefix][]fib.Source)
	}
	n.held[p] = slices.Clone(now)
}

// announceChanges looks at as many of the queued prefixes as one cycle takes, and tells
// the speaker what changed. It returns whether there is more.
func (a *Agent) announceChanges() (more bool) {
	n := &a.announce
	a.mu.Lock()
	a.forwardingChanged()
	n.queue = append(n.queue, a.table.RefusalNews()...)
	next := n.queue[:min(len(n.queue), cycleRoutes)]
	for _, p := range next {
		paths := a.rib.Paths(p)
		a.withhold(p, paths, a.unusable(nil, p, paths))
	}
	speaker := a.speaker
	a.mu.Unlock()
	if n.queue = n.queue[len(next):]; len(n.queue) == 0 {
		n.queue = nil
	}
	if len(n.changes) > 0 && speaker != nil {
		speaker.Withhold(n.changes)
		n.changes = nil
	}
	return len(n.queue) > 0
}
