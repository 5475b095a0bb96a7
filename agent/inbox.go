package agent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

// peer is a configured neighbour and what its session last told.
type peer struct {
	cfg    config.Peer
	source fib.Source

	state    session.State
	since    time.Time
	local    netip.Addr // the session's local address; kept after it ends
	remoteID netip.Addr

	// graceful: it restarts, and some of its paths are stale still, until staleUntil at the
	// latest.
	graceful   bool
	staleUntil time.Time
	// longLived: it restarts for longer than a restart takes, and some of its paths are long-lived
	// stale, until staleUntil. agreed is what the session agreed on about that; told is what
	// the operator knows, and the loop's.
	longLived, told bool
	agreed          []session.LongLived
	// offered is what the session makes of the peer as a source of the FIB. It counts
	// only while the peer is not silenced: BFD found the path to it dead.
	offered  fib.SourceState
	silenced bool
	// up: its session is established, and not known to have ended since.
	up bool
	// kept: its session is over, and its paths stay all the same (fib.persist).
	kept bool
	// disabled: an operator shut it down, until told otherwise or a restart.
	disabled bool
	// eor: End-of-RIB heard in the present session, by family.
	eor4, eor6 bool
	families   []session.Family // negotiated; none: not known
	// left is when it was added, or its last session ended; gone is when it was removed.
	left, gone time.Time
	// limits is how near the peer is to its prefix limits, as the operator knows it.
	limits  [2]limitState
	closing bool // the speaker was asked to end the session because of them
}

// heard tells whether the peer has sent all it had in its present session.
func (p *peer) heard() bool {
	if p.state != session.Established {
		return false
	}
	known := len(p.families) > 0
	return (p.eor4 || known && !slices.Contains(p.families, session.IPv4)) &&
		(p.eor6 || known && !slices.Contains(p.families, session.IPv6))
}

// preserved tells whether the peer of a session that came up has kept its forwarding state
// for what is stale of a family (RFC 4724 section 4.2, RFC 9494 section 4.2).
func (p *peer) preserved(e session.Event, f session.Family) bool {
	if p.longLived {
		return slices.ContainsFunc(e.LongLived, func(x session.LongLived) bool { return x.Family == f && x.Preserved })
	}
	return slices.Contains(e.Preserved, f)
}

// registry finds peers by address and by source. The loop changes it, with mu held: the
// loop may read it as it is, everybody else with mu held.
type registry struct {
	byAddr map[netip.Addr]*peer
	list   []*peer // in the order of the configuration
	// bySource is indexed by fib.Source. A removed peer keeps its place: what is known of it
	// may be somewhere on its way still. But see source.
	bySource []*peer
}

func newRegistry(peers []config.Peer) registry {
	r := registry{byAddr: make(map[netip.Addr]*peer)}
	for _, c := range peers {
		r.add(c)
	}
	return r
}

func (r *registry) add(c config.Peer) {
	p := &peer{cfg: c, source: r.source(c), state: session.Idle, left: time.Now()}
	r.byAddr[c.Address] = p
	r.list = append(r.list, p)
	if int(p.source) < len(r.bySource) {
		r.bySource[p.source] = p
	} else {
		r.bySource = append(r.bySource, p)
	}
}

// source is one for a new peer. Dynamic peers come and go without end: one that is long
// gone leaves its source to the next.
func (r *registry) source(c config.Peer) fib.Source {
	if c.Dynamic {
		for _, old := range r.bySource {
			if old.cfg.Dynamic && !old.gone.IsZero() && time.Since(old.gone) > sourceRest {
				return old.source
			}
		}
	}
	return fib.Source(len(r.bySource))
}

func (r *registry) remove(p *peer) {
	p.gone = time.Now()
	delete(r.byAddr, p.cfg.Address)
	r.list = slices.DeleteFunc(slices.Clone(r.list), func(x *peer) bool { return x == p })
}

// ever returns the peer with this address, also when it was removed.
func (r *registry) ever(addr netip.Addr) *peer {
	if p := r.byAddr[addr]; p != nil {
		return p
	}
	for _, p := range slices.Backward(r.bySource) {
		if p.cfg.Address == addr {
			return p
		}
	}
	return nil
}

// find returns the peer with this name or address.
func (r *registry) find(s string) *peer {
	for _, p := range r.list {
		if p.cfg.Name == s || p.cfg.Address.String() == s {
			return p
		}
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return r.byAddr[a]
	}
	return nil
}

// inbox is what happened since the loop last looked. It is bounded: events of BGP and BFD
// sessions by what the sessions' timers allow, the rest by being sets of what exists.
type inbox struct {
	sessions []session.Event
	sources  map[fib.Source]fib.SourceState // the latest
	since    time.Time                      // of the oldest entry, or of the first dirty prefix
	loss     time.Time                      // of the first word of a lost peer, link or neighbour
	signal   string                         // what that word was, and of whom

	bfd   []bfdNews
	dead  bool             // the set of dead next hops changed
	host  bool             // addresses or routes of the host changed
	links map[int]linkNews // links that did: the kernel may have dropped what used them
	// neighbors of links: true: does not answer.
	neighbors map[fib.Leg]bool
	resync    metrics.ResyncCause
	lost      map[netip.Prefix]bool // our routes that somebody deleted or wrote
	lostBy    uint32                // the netlink port id of who did it last
	foreign   map[netip.Prefix]bool // keys of ours: true: a foreign route has it, false: it was freed
}

func (b *inbox) empty() bool {
	return len(b.sessions) == 0 && len(b.sources) == 0 && len(b.bfd) == 0 && !b.dead && !b.host && len(b.links) == 0 && len(b.neighbors) == 0 && b.resync == "" &&
		len(b.lost) == 0 && len(b.foreign) == 0
}

// linkNews is how a link is now.
type linkNews struct {
	fib.Link
	gone bool
}

func note[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

// source notes the state of a peer as the FIB sees it; signal says what told of its
// loss, and is empty for everything else.
func (b *inbox) source(p *peer, state fib.SourceState, signal string, now time.Time) {
	p.offered = state
	if p.silenced {
		state = fib.SourceDown
	}
	note(&b.sources, p.source, state)
	if signal != "" {
		b.lose(signal+" "+p.cfg.Address.String(), now)
	}
}

func (b *inbox) lose(signal string, now time.Time) {
	if b.loss.IsZero() {
		b.loss, b.signal = now, signal
	}
}

// stamp notes when the work in hand began to wait.
func (b *inbox) stamp(now time.Time) {
	if b.since.IsZero() {
		b.since = now
	}
}

// PathChanges is how many changes of paths the peers have sent in all.
func (a *Agent) PathChanges() uint64 { return a.changes.Load() }

// Learned implements session.Handler.
func (a *Agent) Learned(addr netip.Addr, changes []rib.Change) {
	now := time.Now()
	a.changes.Add(uint64(len(changes)))
	a.mu.Lock()
	if p := a.peers.byAddr[addr]; p != nil {
		if !p.up && (p.kept || p.graceful) && a.persist(p, now) {
			changes = withoutWithdrawals(changes)
		}
		if p.up {
			a.rib.Flapped(p.source, changes, now.Unix())
		}
		a.rib.Update(p.source, changes, now.Unix())
		a.restarted(p, now)
		a.inbox.stamp(now)
	}
	a.mu.Unlock()
	a.wake()
}

// EndOfRIB implements session.Handler.
func (a *Agent) EndOfRIB(addr netip.Addr, f session.Family) {
	now := time.Now()
	a.mu.Lock()
	if p := a.peers.byAddr[addr]; p != nil {
		a.dropStale(p, f)
		if f == session.IPv4 {
			p.eor4 = true
		} else {
			p.eor6 = true
		}
		a.restarted(p, now)
		a.inbox.stamp(now)
	}
	a.mu.Unlock()
	a.wake()
}

// Session implements session.Handler. What must keep its order with Learned happens
// here; the rest is the loop's.
func (a *Agent) Session(e session.Event) {
	now := time.Now()
	a.mu.Lock()
	p := a.peers.byAddr[e.Peer]
	if p == nil {
		a.mu.Unlock()
		return
	}
	if p.state != e.State {
		p.since = e.At
	}
	if e.Previous == session.Established {
		p.left = now
		a.pokeBFD() // the next session may have to wait for BFD
	}
	p.state, p.closing = e.State, p.closing && e.State == session.Established
	a.inbox.sessions = append(a.inbox.sessions, e)
	a.inbox.stamp(now)
	switch {
	case e.State == session.Established:
		p.local, p.remoteID, p.families, p.agreed = e.LocalAddress, e.RemoteID, e.Families, e.LongLived
		p.eor4, p.eor6, p.up = false, false, true
		for _, f := range families {
			if !p.kept && !p.preserved(e, f) {
				a.dropStale(p, f)
			}
		}
		if p.kept { // the peer may not know that it should send End-of-RIB
			p.kept, p.staleUntil = false, now.Add(a.cfg.FIB.SweepAfter)
		}
		a.restarted(p, now)
		if !p.graceful {
			a.inbox.source(p, fib.SourceUp, "", now)
		}
	case e.Previous == session.Established && (e.Graceful || p.kept):
		p.eor4, p.eor6, p.up = false, false, false
		a.inbox.source(p, fib.SourceStale, "", now)
		if !p.kept && !p.longLived {
			p.staleUntil = now.Add(p.cfg.GracefulRestart.StaleTime)
			// RFC 4724 section 4.2: what is stale since the restart before goes now.
			for _, f := range families {
				a.dropStale(p, f)
			}
		}
		p.graceful = true
		a.rib.MarkStale(p.source)
		a.restarted(p, now) // there was nothing to keep
	case e.Previous == session.Established:
		p.eor4, p.eor6, p.up = false, false, false
		p.graceful, p.longLived = false, false
		a.inbox.source(p, fib.SourceDown, "session", now)
	case e.Outlasted && p.graceful && !p.kept:
		a.outlast(p, now)
	}
	a.mu.Unlock()
	a.wake()
}

// PeerDown takes the speaker's first word of a lost session, which comes before the
// peer's paths are withdrawn one by one: the traffic moves now (S24). A peer in graceful
// restart is the business of the Session event that follows.
func (a *Agent) PeerDown(addr netip.Addr, why session.DownReason, graceful bool) {
	now := time.Now()
	a.mu.Lock()
	p := a.peers.byAddr[addr]
	if p != nil {
		p.up = false
	}
	if p != nil && !graceful && !(died(why) && a.persist(p, now)) {
		a.inbox.source(p, fib.SourceDown, "session", now)
		a.inbox.stamp(now)
	}
	a.mu.Unlock()
	a.wake()
}

// KernelEvent takes what the kernel's monitor saw.
func (a *Agent) KernelEvent(e fib.Event) {
	now := time.Now()
	a.mu.Lock()
	b := &a.inbox
	switch e.Kind {
	case fib.LinkChanged:
		note(&b.links, e.IfIndex, linkNews{e.Link, e.Deleted})
		if e.Deleted || !e.Link.Up || !e.Link.Running {
			b.lose("link "+e.Link.Name, now)
		}
	case fib.NeighborFailed, fib.NeighborReachable:
		failed := e.Kind == fib.NeighborFailed
		note(&b.neighbors, fib.Leg{Gateway: e.Addr, IfIndex: e.IfIndex}, failed)
		if _, concerns := slices.BinarySearchFunc(a.watched, e.Addr, netip.Addr.Compare); failed && concerns {
			b.lose("neighbor "+e.Addr.String(), now)
		}
	case fib.AddrChanged, fib.HostNextHopChanged:
		b.host = true
	case fib.HostRouteChanged:
		a.hostRouteChanged(e.Prefix)
	case fib.ForeignRoute:
		note(&b.foreign, e.Prefix, !e.Deleted)
		a.hostRouteChanged(e.Prefix)
	case fib.OwnRouteChanged:
		note(&b.lost, e.Prefix, true)
		b.lostBy = e.PID
	case fib.OwnNextHopChanged:
		b.resync = metrics.ResyncNextHop
	case fib.Overflow:
		a.metrics.Overflow()
		b.resync = metrics.ResyncOverflow
		b.host = true
	}
	if b.empty() {
		a.mu.Unlock()
		return
	}
	b.stamp(now)
	a.mu.Unlock()
	a.wake()
}

// hostRouteChanged notes a change of somebody else's route. Only one that could lead to a peer
// or a next hop is a reason to read the host's routes again; all others may churn, and
// are read when a next hop appears that one of them could lead to. mu is held.
func (a *Agent) hostRouteChanged(p netip.Prefix) {
	i, _ := slices.BinarySearchFunc(a.watched, p.Addr(), netip.Addr.Compare)
	if i < len(a.watched) && p.Contains(a.watched[i]) {
		a.inbox.host = true
		return
	}
	a.hostStale = true
}
