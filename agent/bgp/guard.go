package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
)

// This file holds what we do against faults of GoBGP v4.8.0, each with a test.

const (
	// gapBefore and gapAfter widen the window in which announcements may miss a peer
	// that comes up: an UPDATE may have been propagating when the window began, and the
	// state is stored a moment after we hear of it.
	gapBefore = 2 * time.Second
	gapAfter  = 300 * time.Millisecond
	// storeAfter is how long after that event the state may still not be stored. Less than
	// gapAfter: withdrawing what was not missed costs every peer a message.
	storeAfter = 50 * time.Millisecond
	// maxMissed bounds the withdrawals noted for a peer that comes up.
	maxMissed = 10_000
	// openTimeout is how long a peer may take to answer our OPEN, and then to confirm it
	// with a KEEPALIVE. GoBGP waits 240 s for the one and for ever for the other (its hold
	// timer runs from Established on, for it negotiates the time only there), and
	// takes no other connection of the peer meanwhile.
	openTimeout = 10 * time.Second
	// guardEvery is less than GoBGP waits before its first connection (connectLoop: 1.5 s).
	guardEvery = time.Second
)

// missed notes, while a session comes up, what the other peers withdraw.
//
// GoBGP announces its table to a new session, and only then marks it as Established
// (handleFSMMessage, then fsm.state.Store in fsmHandler.loop). What propagates in
// between is for established sessions only (needToAdvertise): the new peer never hears
// of it. Sending everything again cures what it lacks. What it has too much, because a
// withdrawal was lost, must be withdrawn again.
type missed struct {
	prefixes map[netip.Prefix]struct{}
	overflow bool
}

func (m *missed) add(prefixes ...netip.Prefix) {
	for _, p := range prefixes {
		if len(m.prefixes) >= maxMissed {
			m.overflow = true
			return
		}
		m.prefixes[p] = struct{}{}
	}
}

// noteUpdate notes when a peer last announced or withdrew something, and what it withdrew.
// It tells whether the peer exists.
func (s *Speaker) noteUpdate(addr netip.Addr, paths []*apiutil.Path, received time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[addr]
	if p == nil {
		return false
	}
	p.lastUpdate = received
	p.lastWithdrawn = p.lastWithdrawn[:0]
	s.counters.changed = time.Now()
	for _, path := range paths {
		if !path.Withdrawal {
			continue
		}
		if nlri, ok := path.Nlri.(*bgp.IPAddrPrefix); ok {
			p.lastWithdrawn = append(p.lastWithdrawn, nlri.Prefix.Masked())
			if len(p.lastWithdrawn) > maxMissed {
				break // is an overflow wherever it matters
			}
		}
	}
	if len(p.lastWithdrawn) > 0 {
		for _, q := range s.peers {
			if q != p && q.missed != nil && (q.info.State != Established || received.Before(q.info.EstablishedAt.Add(storeAfter))) {
				q.missed.add(p.lastWithdrawn...)
			}
		}
	}
	return true
}

// expectGap opens the window: p's session comes up. With mu held.
func (s *Speaker) expectGap(p *peer, at time.Time) {
	p.openConfirm = at
	p.missed = &missed{prefixes: map[netip.Prefix]struct{}{}}
	for _, q := range s.peers {
		if q != p && q.lastUpdate.After(at.Add(-gapBefore)) {
			p.missed.add(q.lastWithdrawn...)
		}
		if q != p && q.lastHeldAt.After(at.Add(-gapBefore)) {
			p.missed.add(q.lastHeld...)
		}
	}
}

// afterEstablished does what may not wait for the watching goroutine.
func (s *Speaker) afterEstablished(p *peer, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again {
		s.spawn(func() { s.recreate(p, "the peer offers less of graceful restart than before", true) })
		return
	}
	s.spawn(func() {
		select {
		case <-s.ctx.Done():
		case <-time.After(gapAfter):
			s.op.Lock()
			defer s.op.Unlock()
			if err := s.closeGap(p); err != nil && s.ctx.Err() == nil {
				s.log.Warn("could not send a peer again what it may have missed", "peer", p.info.Address, "err", err)
			}
		}
	})
}

// closeGap sends p again what it may have missed, and gives it next hops that fit its
// session.
func (s *Speaker) closeGap(p *peer) error {
	s.mu.Lock()
	addr := p.info.Address
	if s.peers[addr] != p || p.info.State != Established {
		s.mu.Unlock()
		return nil
	}
	local, cfg := p.info.LocalAddress, p.cfg
	since := p.openConfirm.Add(-gapBefore)
	gap := s.vnetChanged.After(since)
	for _, q := range s.peers {
		gap = gap || q != p && (q.lastUpdate.After(since) || q.lastHeldAt.After(since))
	}
	m := p.missed
	p.missed = nil
	s.mu.Unlock()

	other := otherAddress(cfg, local)
	s.mu.Lock()
	p.otherAddress = other
	s.mu.Unlock()
	changed, err := s.applyPolicy()
	if err != nil {
		return err
	}
	if s.restarting(cfg) {
		// Nothing was sent yet; it comes, with the End-of-RIB, when GoBGP's deferral ends.
		if g, err := s.listPeer(addr); err != nil || g.GetGracefulRestart().GetLocalRestarting() {
			return err
		}
	}
	if changed || gap {
		s.log.Debug("announcements may have missed a session that came up; sending again", "peer", addr)
		if err := s.resend(addr.String()); err != nil {
			return err
		}
	}
	return s.withdrawAgain(p, m)
}

// withdrawAgain withdraws what others withdrew while p's session came up. GoBGP has no
// such command, but it does so to every peer when a path of ours goes away that had never
// been announced (NO_ADVERTISE).
func (s *Speaker) withdrawAgain(p *peer, m *missed) error {
	if m == nil {
		return nil
	}
	if m.overflow {
		s.log.Info("more was withdrawn while the session came up than is kept track of; resetting the session", "peer", p.info.Address)
		return s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{Address: p.info.Address.String(), Communication: "resynchronization"})
	}
	var prefixes [2][]*apiutil.LookupPrefix
	for x := range m.prefixes {
		f := IPv4
		if x.Addr().Is6() {
			f = IPv6
		}
		i := familyIndex(f)
		prefixes[i] = append(prefixes[i], &apiutil.LookupPrefix{Prefix: x.String()})
	}
	for i, f := range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		if len(prefixes[i]) == 0 {
			continue
		}
		request := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f, Prefixes: prefixes[i]}
		err := s.server.ListPath(request, func(n bgp.NLRI, _ []*apiutil.Path) {
			if known, ok := n.(*bgp.IPAddrPrefix); ok {
				delete(m.prefixes, known.Prefix.Masked()) // announced again since
			}
		})
		if err != nil {
			return fmt.Errorf("look up withdrawn prefixes: %w", err)
		}
	}
	var add, remove []*apiutil.Path
	for x := range m.prefixes {
		unspecified := netip.IPv4Unspecified()
		if x.Addr().Is6() {
			unspecified = netip.IPv6Unspecified()
		}
		stay := bgp.NewPathAttributeCommunities([]uint32{uint32(bgp.COMMUNITY_NO_ADVERTISE)})
		add = append(add, localPath(x, unspecified, stay))
		remove = append(remove, localPath(x, netip.Addr{}))
	}
	if len(add) == 0 {
		return nil
	}
	s.log.Debug("withdrawals may have missed a session that came up; withdrawing again", "peer", p.info.Address, "prefixes", len(add))
	_, err := s.server.AddPath(apiutil.AddPathRequest{Paths: add})
	if err == nil {
		err = s.server.DeletePath(apiutil.DeletePathRequest{Paths: remove})
	}
	if err != nil {
		return fmt.Errorf("withdraw again: %w", err)
	}
	return nil
}

// restartableLost notes the families that the peer keeps forwarding for when it restarts,
// and tells whether it did so for more of them in an earlier session. GoBGP does not
// forget those (fsm.stateChange only sets MpGracefulRestart.State): it would keep stale
// paths that RFC 4724 section 4.2 wants deleted now, for an End-of-RIB that never comes,
// and keep the paths again when the session is lost. The same with the N bit of RFC 8538
// (GracefulRestart.State.NotificationEnabled). With mu held.
func (s *Speaker) restartableLost(p *peer, g *bgp.CapGracefulRestart) bool {
	now := map[Family]bool{}
	notifies := false
	if g != nil {
		notifies = g.Flags&flagNotification != 0
		for _, t := range g.Tuples {
			if f, ok := family(bgp.NewFamily(t.AFI, t.SAFI)); ok {
				now[f] = true
			}
		}
	}
	lost := p.notifies && !notifies
	for f := range p.restartable {
		lost = lost || !now[f]
	}
	for f := range now {
		p.restartable[f] = true
	}
	p.notifies = notifies
	return lost
}

// noteRestartable notes the families that a peer keeps forwarding for as soon as its session
// is up: it may end before the event is heard that says that it was.
func (s *Speaker) noteRestartable(addr netip.Addr, open *bgp.BGPOpen) {
	g := restartCapability(capabilities(open))
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[addr]
	if g == nil || p == nil || !p.cfg.GracefulRestart.Enabled {
		return
	}
	for _, t := range g.Tuples {
		if f, ok := family(bgp.NewFamily(t.AFI, t.SAFI)); ok {
			p.restartable[f] = true
		}
	}
}

// EndRestart drops what is kept of a peer whose session is down: the Handler hears of
// the withdrawal. It returns at once, and does nothing where the session is up again.
//
// GoBGP keeps the paths for the time that the peer asked for, however long, and cannot be
// told otherwise.
func (s *Speaker) EndRestart(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[addr]; p != nil && !p.up {
		s.spawn(func() { s.recreate(p, "its restart takes too long", false) })
	}
}

// recreate removes a peer and adds it anew, which makes GoBGP forget all of it; up: also
// when its session is established.
func (s *Speaker) recreate(p *peer, why string, up bool) {
	s.op.Lock()
	defer s.op.Unlock()
	addr := p.info.Address
	s.mu.Lock()
	cfg := p.cfg
	cfg.Shutdown = p.info.AdminDown
	current := s.peers[addr] == p && (up || !p.up)
	s.mu.Unlock()
	if s.ctx.Err() != nil || !current {
		return
	}
	s.log.Info("starting the session anew to have paths forgotten that are kept for a graceful restart", "peer", addr, "reason", why)
	if err := s.replacePeer(p, cfg, why); err != nil {
		s.log.Error("could not start the session anew", "peer", addr, "err", err)
	}
}

// guard looks after peers that are stuck: they answered our connection, and not our OPEN.
func (s *Speaker) guard() {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range s.stuck() {
			s.restartAttempt(p)
		}
	}
}

// stuck returns the peers whose attempt is to be given up. An attempt over a connection
// from the peer shows in its state, OpenSent. One over our own goes on in state Active
// (outgoingConnManager) and shows only in the OPENs sent: one more, and then none.
func (s *Speaker) stuck() []*peer {
	var list, active []*peer
	s.mu.Lock()
	if s.walks == 0 {
		for _, p := range s.peers {
			switch {
			case p.info.AdminDown || p.up: // info.State may be long behind on a busy machine
			case (p.info.State == OpenSent || p.info.State == OpenConfirm) && time.Since(p.stateSince) > s.openTimeout:
				list = append(list, p)
			case p.info.State == Active && !p.cfg.Passive:
				active = append(active, p)
			}
		}
	}
	s.mu.Unlock()
	for _, p := range active {
		g, err := s.listPeer(p.info.Address)
		if err != nil {
			continue // removed in the meantime
		}
		sent := g.GetState().GetMessages().GetSent().GetOpen()
		s.mu.Lock()
		switch {
		case p.info.State != Active:
		case !p.opensSeen:
			p.opensSeen, p.opensSent = true, sent
		case sent != p.opensSent:
			p.opensSent, p.opensSentSince = sent, time.Now()
		case !p.opensSentSince.IsZero() && time.Since(p.opensSentSince) > s.openTimeout:
			p.opensSentSince = time.Time{} // once for each OPEN
			list = append(list, p)
		}
		s.mu.Unlock()
	}
	return list
}

func (s *Speaker) restartAttempt(p *peer) {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	current := s.peers[p.info.Address] == p && !p.up && (p.info.State == OpenSent || p.info.State == OpenConfirm || p.info.State == Active) && !p.info.AdminDown
	missing := "OPEN"
	if p.info.State == OpenConfirm {
		missing = "KEEPALIVE"
	}
	s.mu.Unlock()
	if !current {
		return
	}
	why := DownReason{
		Cause: "connection-lost",
		Text:  fmt.Sprintf("the peer took the connection and sent no %s within %v", missing, s.openTimeout),
	}
	err := s.setAdmin(p, false, why)
	if err == nil {
		err = s.setAdmin(p, true, DownReason{})
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("could not give up a connection attempt", "peer", p.info.Address, "err", err)
	}
}

// warning finds what an operator should act on, with mu held.
func (s *Speaker) warning(p *peer) string {
	if p.info.Warning != "" {
		return p.info.Warning
	}
	if at := p.limit.until; !at.IsZero() {
		return fmt.Sprintf("%s; the next attempt is at %s, `nexthopctl peer %s enable` tries now", p.limit.what, at.Format(time.TimeOnly), name(p.cfg))
	}
	for _, q := range s.peers {
		if q != p && p.info.RemoteID.IsValid() && q.info.RemoteID == p.info.RemoteID {
			// filterPathFromSourcePeer takes the identifier for the peer.
			return fmt.Sprintf("peer %s has the same BGP identifier %s: the two don't get each other's routes", name(q.cfg), p.info.RemoteID)
		}
	}
	return ""
}

func name(c config.Peer) string {
	if c.Name != "" {
		return c.Name
	}
	return c.Address.String()
}
