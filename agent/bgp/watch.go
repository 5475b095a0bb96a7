package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// maxBatch bounds the changes of one call of Handler.Learned: the end of a session
// comes from GoBGP in one piece, however many paths it had.
const maxBatch = 8192

// watch subscribes to what the peers announce, as received (the import policy refuses
// paths that the learned view shows), to the withdrawals that GoBGP makes itself, to
// End-of-RIB and to the sessions' states. It is ONE subscription, for only its queue
// keeps the order among those: GoBGP fills it from the goroutine of the peer's session.
//
// Nothing else takes a path away. Not told, and left to the Handler: that paths become
// stale (Event.Graceful), and that the stale ones go at End-of-RIB.
func (s *Speaker) watch() error {
	callbacks := server.WatchEventMessageCallbacks{
		OnPathUpdate: s.onPaths,
		OnPathEor:    s.onEndOfRIB,
		OnPeerUpdate: s.onPeer,
	}
	return s.server.WatchEvent(s.watching, callbacks,
		server.WatchUpdate(false, "", ""), server.WatchAdjInWithdraw(), server.WatchEor(false), server.WatchPeer())
}

// learner is what the watching goroutine keeps between events.
type learner struct {
	attrs   *interner
	changes []rib.Change
}

func (s *Speaker) onPaths(paths []*apiutil.Path, received time.Time) {
	if len(paths) == 0 || s.ctx.Err() != nil {
		return
	}
	addr := paths[0].PeerAddress.Unmap()
	if !s.noteUpdate(addr, paths, received) {
		return // of a peer that was removed meanwhile
	}
	conv := converter{attrs: s.in.attrs}
	for batch := range slices.Chunk(paths, maxBatch) {
		changes := s.in.changes[:0]
		for _, p := range batch {
			if c, ok := conv.change(p); ok {
				changes = append(changes, c)
			}
		}
		if len(changes) > 0 {
			s.opts.Handler.Learned(addr, changes)
		}
		clear(changes) // hold no Attrs that nobody else holds
		s.in.changes = changes
	}
}

func (s *Speaker) onEndOfRIB(p *apiutil.Path, _ time.Time) {
	addr := p.PeerAddress.Unmap()
	if s.find(addr) == nil || s.ctx.Err() != nil {
		return
	}
	if f, ok := family(p.Family); ok {
		s.opts.Handler.EndOfRIB(addr, f)
	}
}

func family(f bgp.Family) (Family, bool) {
	switch f {
	case bgp.RF_IPv4_UC:
		return IPv4, true
	case bgp.RF_IPv6_UC:
		return IPv6, true
	}
	return 0, false
}

// negotiated are the families that the peer offers, too. One without the capability
// speaks IPv4 only (RFC 4760 section 8).
func negotiated(capabilities []bgp.ParameterCapabilityInterface) []Family {
	var list []Family
	none := true
	for _, c := range capabilities {
		if m, ok := c.(*bgp.CapMultiProtocol); ok {
			none = false
			if f, ok := family(m.CapValue); ok && !slices.Contains(list, f) {
				list = append(list, f)
			}
		}
	}
	if none {
		return []Family{IPv4}
	}
	slices.Sort(list)
	return list
}

// restartsOnNotification tells whether the N bit is set (RFC 8538 section 2): ours always is.
func restartsOnNotification(capabilities []bgp.ParameterCapabilityInterface) bool {
	const n = 0x04
	for _, c := range capabilities {
		if g, ok := c.(*bgp.CapGracefulRestart); ok && g.Flags&n != 0 {
			return true
		}
	}
	return false
}

// notificationAge is how long before the end of an attempt its NOTIFICATION may be.
const notificationAge = time.Second

// states are GoBGP's numbers of the states.
var states = map[bgp.FSMState]State{
	bgp.BGP_FSM_IDLE:        Idle,
	bgp.BGP_FSM_CONNECT:     Connect,
	bgp.BGP_FSM_ACTIVE:      Active,
	bgp.BGP_FSM_OPENSENT:    OpenSent,
	bgp.BGP_FSM_OPENCONFIRM: OpenConfirm,
	bgp.BGP_FSM_ESTABLISHED: Established,
}

func (s *Speaker) onPeer(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	state, ok := states[e.Peer.State.SessionState]
	addr := e.Peer.State.NeighborAddress.Unmap()
	p := s.find(addr)
	if e.Type != apiutil.PEER_EVENT_STATE || !ok || p == nil || s.ctx.Err() != nil {
		return
	}
	reason := e.Peer.State.DisconnectMessage
	if state == Idle && reason == "" {
		s.farewell(p) // DeletePeer's
		return
	}
	event := SessionEvent{Peer: addr, State: state, At: at}
	var live sessionFacts
	forget := false
	if state == Established {
		live = s.facts(p)
		event.LocalAddress, event.RemoteID, event.PeerASN = live.local, e.Peer.State.RouterID, e.Peer.State.PeerASN
		event.Families = negotiated(e.Peer.State.RemoteCap)
	}

	s.mu.Lock()
	event.Previous = p.info.State
	p.info.State, p.stateSince = state, time.Now()
	p.opensSeen, p.opensSentSince = false, time.Time{}
	switch {
	case event.Previous == Established && state != Established:
		s.walks--
		d := down{reason: DownReason{Cause: "unknown"}}
		if len(p.downs) > 0 {
			d, p.downs = p.downs[0], p.downs[1:]
		}
		event.Down, event.Graceful, forget = d.reason, d.graceful, d.forget
		p.info.Flaps++
		p.longLived.kept = d.graceful
		p.info.EstablishedAt = time.Time{}
		p.info.LocalAddress, p.info.RemoteID = netip.Addr{}, netip.Addr{}
		p.info.HoldTime, p.info.Keepalive = 0, 0
		p.info.PeerCapabilities = nil
		p.info.Advertised, p.info.OnlyToCustomers = nil, 0
		s.counters.changed = time.Now()
	case state == Idle:
		n := p.notification
		if at.Sub(n.at) > notificationAge {
			n = notification{} // of an attempt before
		}
		event.Down = downReason(reason, n, false, p.expect)
		p.expect = DownReason{}
		event.Outlasted = !p.info.AdminDown && p.longLived.outlasts()
	case state == OpenConfirm:
		s.expectGap(p, at)
	case state == Established:
		p.info.EstablishedAt = at
		p.info.LocalAddress, p.info.RemoteID = event.LocalAddress, event.RemoteID
		p.info.HoldTime, p.info.Keepalive = live.hold, live.keepalive
		p.info.PeerCapabilities = capabilityNames(e.Peer.State.RemoteCap)
		p.hardReset = restartsOnNotification(e.Peer.State.RemoteCap)
		p.info.LocalCapabilities = capabilityNames(e.Peer.State.LocalCap)
		s.counters.changed = time.Now()
	}
	if event.Down.Cause != "" {
		p.info.LastDown, p.info.LastDownAt = event.Down, at
	}
	again := false
	if state == Established {
		g := restartCapability(e.Peer.State.RemoteCap)
		event.Preserved = preserved(g)
		event.LongLived = longLivedOf(p.cfg, e.Peer.State.RemoteCap, g)
		again = p.longLived.established(event.LongLived)
		again = s.restartableLost(p, g) || again
	}
	if state == Idle && event.Previous != Established {
		p.stale = false // GoBGP dropped them, or keeps them for long
	}
	reconnect := state == Idle && p.rekeyed && !p.stale
	tell := state != event.Previous || event.Outlasted
	p.telling = tell
	s.mu.Unlock()

	if tell {
		s.opts.Handler.Session(event)
		s.mu.Lock()
		p.telling = false
		s.mu.Unlock()
	}
	switch {
	case state == Established:
		s.lossAgain(p)
		s.afterEstablished(p, again)
	case forget:
		s.EndRestart(addr)
	}
	if reconnect {
		s.mu.Lock()
		s.reconnectLater(p)
		s.mu.Unlock()
	}
}

// lossAgain tells once more of the end of a session that was over before the Handler heard
// of its beginning: the first word came too early, and all that the peer announced is still
// to come.
func (s *Speaker) lossAgain(p *peer) {
	var d down
	s.mu.Lock()
	over := len(p.downs) > 0
	if over {
		d = p.downs[0]
	}
	s.mu.Unlock()
	if over && s.opts.OnPeerDown != nil {
		s.opts.OnPeerDown(p.info.Address, d.reason, d.graceful)
	}
}

// Flags of the graceful restart capability: RFC 4724 section 3, RFC 8538 section 2.
const (
	flagNotification = 0x4
	flagForwarding   = 0x80 // of a family
)

// restartCapability is the peer's graceful restart capability, or nil.
func restartCapability(capabilities []bgp.ParameterCapabilityInterface) (g *bgp.CapGracefulRestart) {
	for _, c := range capabilities {
		if c, ok := c.(*bgp.CapGracefulRestart); ok {
			g = c // the last one counts, as for GoBGP
		}
	}
	return g
}

// preserved are the families with the Forwarding State bit.
func preserved(g *bgp.CapGracefulRestart) []Family {
	var list []Family
	if g != nil {
		for _, t := range g.Tuples {
			if f, ok := family(bgp.NewFamily(t.AFI, t.SAFI)); ok && t.Flags&flagForwarding != 0 {
				list = append(list, f)
			}
		}
	}
	return list
}

// farewell tells removePeer that all that GoBGP had to tell of the peer was heard.
func (s *Speaker) farewell(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.farewell != nil {
		close(p.farewell)
		p.farewell = nil
	}
}

// sessionFacts is what GoBGP's event lacks of a session that came up.
type sessionFacts struct {
	local           netip.Addr
	hold, keepalive time.Duration
}

// facts asks GoBGP, unless that is busy withdrawing the paths of another peer's session:
// the question would wait for that, and everybody's updates for the question. The timers
// then come with the next refresh of the counters.
func (s *Speaker) facts(p *peer) sessionFacts {
	s.mu.Lock()
	busy := s.walks > 0
	cfg := p.cfg
	s.mu.Unlock()
	if !busy {
		if g, err := s.listPeer(cfg.Address); err == nil {
			f := sessionFacts{
				hold:      time.Duration(g.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second,
				keepalive: time.Duration(g.GetTimers().GetState().GetKeepaliveInterval()) * time.Second,
			}
			if a, err := netip.ParseAddr(g.GetTransport().GetLocalAddress()); err == nil && !a.IsUnspecified() {
				f.local = a.Unmap().WithZone("")
				return f
			}
		}
	}
	return sessionFacts{local: localAddress(cfg)}
}
