package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/osrg/gobgp/v4/api"

	"github.com/nexthopd/nexthopd/agent/config"
)

const (
	// mostDeferral bounds how long a restarting speaker holds its announcements back for
	// the End-of-RIB of all peers (RFC 4724 section 4.1). A peer that is gone for good must
	// not keep the others waiting: they hold our old announcements as stale meanwhile.
	mostDeferral = 60 * time.Second
	connectRetry = 5 * time.Second
	// GoBGP waits this long after an Administrative Reset; its default is 30 s.
	idleAfterReset = 1 * time.Second
	// adminTimeout is how long an administrative change may take. GoBGP may be walking
	// over a million paths when it is asked.
	adminTimeout = 60 * time.Second
	// maxPassword is TCP_MD5SIG_MAXKEYLEN of linux/tcp.h. GoBGP only logs the kernel's EINVAL.
	maxPassword = 80
	// maxCommunication is what GoBGP sends at most of a shutdown communication (RFC 8203;
	// RFC 9003 allows 255 octets).
	maxCommunication = 128
)

var errUnknownPeer = errors.New("no such peer")

// AddPeer configures a peer and starts its session. The password is read now.
func (s *Speaker) AddPeer(c config.Peer) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.find(c.Address) != nil {
		return fmt.Errorf("add peer %s: it exists already", c.Address)
	}
	gobgp, err := s.peerConfig(c)
	if err != nil {
		return fmt.Errorf("add peer %s: %w", c.Address, err)
	}
	return s.addPeer(c, gobgp, nil)
}

// addPeer adds a peer, of which gobgp is what peerConfig says. What past, which may be nil,
// went through counts for the new peer from the first moment on, so that no counter falls.
func (s *Speaker) addPeer(c config.Peer, gobgp *api.Peer, past *peer) error {
	held := heldAtFirst(c)
	gobgp.Conf.AdminDown = c.Shutdown || held
	p := &peer{
		cfg:          c,
		held:         held,
		secret:       gobgp.Conf.AuthPassword,
		info:         PeerInfo{Address: c.Address, State: Idle, AdminDown: c.Shutdown, Faults: noFaults()},
		otherAddress: otherAddress(c, netip.Addr{}),
		restartable:  map[Family]bool{},
		stateSince:   time.Now(),
	}
	s.mu.Lock()
	if past != nil {
		p.info.Flaps, p.info.Faults = past.info.Flaps, past.info.Faults
		p.info.LastDown, p.info.LastDownAt = past.info.LastDown, past.info.LastDownAt
		p.limit.pause = past.limit.pause
	}
	s.peers[c.Address] = p
	s.mu.Unlock()
	s.applyKeys()
	_, err := s.applyPolicy()
	if err == nil {
		err = s.server.AddPeer(s.ctx, &api.AddPeerRequest{Peer: gobgp})
	}
	if err != nil {
		s.forget(c.Address)
		return fmt.Errorf("add peer %s: %w", c.Address, err)
	}
	return nil
}

// RemovePeer ends the peer's session and forgets it. When it returns, the Handler has
// heard the withdrawal of all its paths.
func (s *Speaker) RemovePeer(addr netip.Addr) error {
	s.op.Lock()
	defer s.op.Unlock()
	return s.removePeer(addr, DownReason{Cause: "deconfigured", Text: "the peer was removed from the configuration"})
}

func (s *Speaker) removePeer(addr netip.Addr, why DownReason) error {
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("remove peer %s: %w", addr, errUnknownPeer)
	}
	// GoBGP's DeletePeer alone is not safe while the session is up: an UPDATE that waits for
	// its lock is still taken in after the peer is gone, and its paths stay for good
	// (pkg/server/server.go, deleteNeighbor). So the session goes down first.
	if err := s.setAdmin(p, false, why); err != nil {
		return fmt.Errorf("remove peer %s: %w", addr, err)
	}
	farewell := make(chan struct{})
	s.mu.Lock()
	p.farewell = farewell
	s.mu.Unlock()
	if err := s.server.DeletePeer(s.ctx, &api.DeletePeerRequest{Address: addr.String()}); err != nil {
		return fmt.Errorf("remove peer %s: %w", addr, err)
	}
	// Stale paths go only now, and their withdrawal is told before the farewell. Of a peer
	// that is forgotten nothing more is heard.
	select {
	case <-farewell:
	case <-s.ctx.Done():
	case <-time.After(adminTimeout):
		s.log.Error("bug: no farewell of a peer that was removed", "peer", addr)
	}
	s.forget(addr)
	_, err := s.applyPolicy()
	return err
}

// UpdatePeer changes a peer's configuration. The session stays up where only the name,
// the description, the next hop, the filters, the limit or the secret changed; shutdown is
// applied to it; anything else needs a new session.
func (s *Speaker) UpdatePeer(c config.Peer) error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.find(c.Address)
	if p == nil {
		return fmt.Errorf("update peer %s: %w", c.Address, errUnknownPeer)
	}
	s.mu.Lock()
	old := p.cfg
	s.mu.Unlock()

	same := old
	same.Dynamic = c.Dynamic
	same.Name, same.Description, same.NextHop, same.Shutdown, same.BFD = c.Name, c.Description, c.NextHop, c.Shutdown, c.BFD
	same.GracefulRestart.StaleTime, same.Damping = c.GracefulRestart.StaleTime, c.Damping
	same.Guards = c.Guards
	same.PrefixLimit, same.Import, same.Export = c.PrefixLimit, c.Import, c.Export
	secret, err := readPassword(c.PasswordFile)
	if err != nil { // before anything is changed
		return fmt.Errorf("update peer %s: %w", c.Address, err)
	}
	if (old.PasswordFile == "") == (c.PasswordFile == "") {
		same.PasswordFile, same.PasswordSum = c.PasswordFile, c.PasswordSum
	}
	if same != c {
		return s.replacePeer(p, c, "the peer's configuration changed")
	}
	s.mu.Lock()
	was, adminDown, limit := p.down(), p.info.AdminDown, p.limit
	p.cfg, p.info.AdminDown = c, c.Shutdown
	s.mu.Unlock()
	err = s.adjustPeer(p, old, was)
	if err == nil && secret != p.secret {
		err = s.rotate(p, secret)
	}
	if err != nil {
		s.mu.Lock()
		p.cfg, p.info.AdminDown, p.limit = old, adminDown, limit // so that whoever tries again finds a difference
		s.mu.Unlock()
		return fmt.Errorf("update peer %s: %w", c.Address, err)
	}
	return nil
}

// adjustPeer applies a new configuration that needs no new session; was tells whether the
// peer was kept down.
func (s *Speaker) adjustPeer(p *peer, old config.Peer, was bool) error {
	c := p.cfg
	if err := s.updateAnnouncements(p, old, c); err != nil {
		return err
	}
	s.mu.Lock()
	if c.PrefixLimit.For(true) > old.PrefixLimit.For(true) || c.PrefixLimit.For(false) > old.PrefixLimit.For(false) {
		p.limit = limitHold{}
	}
	is := p.down()
	s.mu.Unlock()
	if was == is {
		return nil
	}
	err := s.setAdmin(p, !is, DownReason{Cause: "operator", Text: "shut down in the configuration"})
	if err == nil && is {
		s.forgetLongLived(p)
	}
	return err
}

// updateAnnouncements applies what a peer's new configuration says of paths.
func (s *Speaker) updateAnnouncements(p *peer, old, c config.Peer) error {
	imports := !old.Import.Equal(c.Import) || old.Guards.Martian != c.Guards.Martian
	exports := !old.Export.Equal(c.Export) || old.NextHop != c.NextHop
	if !imports && !exports {
		return nil
	}
	if _, err := s.applyPolicy(); err != nil {
		return err
	}
	if imports {
		if err := s.refilter(p); err != nil {
			return err
		}
	}
	if exports {
		return s.resend(c.Address.String())
	}
	return nil
}

// replacePeer removes p and adds it anew as c; what it went through is kept. Where c's
// secret cannot be read, p stays as it is.
func (s *Speaker) replacePeer(p *peer, c config.Peer, why string) error {
	gobgp, err := s.peerConfig(c)
	if err != nil {
		return fmt.Errorf("replace peer %s: %w", c.Address, err)
	}
	if err := s.removePeer(c.Address, DownReason{Cause: "operator", Text: why}); err != nil {
		return err
	}
	return s.addPeer(c, gobgp, p)
}

// Shutdown ends the peer's session with Cease/Administrative Shutdown and keeps it
// down until Enable. The communication (RFC 9003) may be empty.
func (s *Speaker) Shutdown(addr netip.Addr, communication string) error {
	s.op.Lock()
	defer s.op.Unlock()
	return s.administer(addr, true, DownReason{Cause: "operator", Text: communication})
}

// Enable lets the session of a peer come up that was shut down.
func (s *Speaker) Enable(addr netip.Addr) error {
	s.op.Lock()
	defer s.op.Unlock()
	return s.administer(addr, false, DownReason{})
}

func (s *Speaker) administer(addr netip.Addr, down bool, why DownReason) error {
	verb := "enable"
	if down {
		verb = "shut down"
	}
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("%s peer %s: %w", verb, addr, errUnknownPeer)
	}
	s.mu.Lock()
	p.info.AdminDown, p.limit = down, limitHold{}
	down = p.down()
	s.mu.Unlock()
	if err := s.setAdmin(p, !down, why); err != nil {
		return fmt.Errorf("%s peer %s: %w", verb, addr, err)
	}
	if down {
		s.forgetLongLived(p)
	}
	return nil
}

// Reset ends the peer's session with Cease/Administrative Reset; it comes up again by
// itself. A session that is not up is left alone: GoBGP would keep the NOTIFICATION
// and send it on the next session.
func (s *Speaker) Reset(addr netip.Addr, communication string) error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("reset peer %s: %w", addr, errUnknownPeer)
	}
	s.mu.Lock()
	up := p.up
	if up {
		p.expect = DownReason{Cause: "operator", Text: communication}
	}
	s.mu.Unlock()
	if !up {
		return nil
	}
	err := s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{Address: addr.String(), Communication: cut(communication)})
	if err != nil {
		return fmt.Errorf("reset peer %s: %w", addr, err)
	}
	return nil
}

// Resend sends a peer again all that is announced to it, without a reset. (GoBGP v4.8.0
// answers a ROUTE-REFRESH and cannot send one, so a peer can't be asked for its own.)
func (s *Speaker) Resend(addr netip.Addr) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.find(addr) == nil {
		return fmt.Errorf("resend to peer %s: %w", addr, errUnknownPeer)
	}
	return s.resend(addr.String())
}

// resend is a soft reset out; an empty addr means all peers.
func (s *Speaker) resend(addr string) error {
	defer s.recount()
	err := s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{
		Address:   addr,
		Soft:      true,
		Direction: api.ResetPeerRequest_DIRECTION_OUT,
	})
	if err != nil {
		return fmt.Errorf("resend to %s: %w", addr, err)
	}
	return nil
}

// setAdmin changes the administrative state in GoBGP and waits until GoBGP has it, the
// session is down, and the Handler heard so. GoBGP holds one request at a time and drops
// the next (setAdminState), so it is repeated until it is seen to have worked.
func (s *Speaker) setAdmin(p *peer, up bool, why DownReason) error {
	addr := p.info.Address
	want := api.PeerState_ADMIN_STATE_DOWN
	if up {
		want = api.PeerState_ADMIN_STATE_UP
	}
	s.mu.Lock()
	p.expect = why
	s.mu.Unlock()

	deadline := time.Now().Add(adminTimeout)
	var asked time.Time
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		now, err := s.listPeer(addr)
		if err != nil {
			return err
		}
		done := now.State.AdminState == want
		if done && (up || now.State.SessionState == api.PeerState_SESSION_STATE_IDLE && s.delivered(p, Idle)) {
			return nil
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the administrative state did not change within %v", adminTimeout)
		}
		if !done && time.Since(asked) > time.Second {
			asked = time.Now()
			if up {
				err = s.server.EnablePeer(s.ctx, &api.EnablePeerRequest{Address: addr.String()})
			} else {
				err = s.server.DisablePeer(s.ctx, &api.DisablePeerRequest{Address: addr.String(), Communication: cut(why.Text)})
			}
			if err != nil {
				return err
			}
		}
		time.Sleep(pause)
	}
}

// delivered tells whether the Handler was told that the peer is in the state.
func (s *Speaker) delivered(p *peer, state State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.info.State == state && !p.telling
}

// listPeer asks GoBGP for a peer. It counts the paths of a session that is up, with all
// of GoBGP stopped meanwhile, so it is nothing to do often (see info.go).
func (s *Speaker) listPeer(addr netip.Addr) (*api.Peer, error) {
	var found *api.Peer
	err := s.server.ListPeer(context.Background(), &api.ListPeerRequest{Address: addr.String()}, func(p *api.Peer) { found = p })
	if err == nil && found == nil {
		err = errUnknownPeer
	}
	return found, err
}

func (s *Speaker) find(addr netip.Addr) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peers[addr]
}

// forget drops what is known of a peer. With op held.
func (s *Speaker) forget(addr netip.Addr) {
	s.forgetWithheld(addr)
	s.mu.Lock()
	delete(s.peers, addr)
	s.mu.Unlock()
	s.applyKeys()
}

// peerConfig says in GoBGP's words what is configured. The description stays out of it:
// GoBGP resets the session when it changes.
func (s *Speaker) peerConfig(c config.Peer) (*api.Peer, error) {
	password, err := readPassword(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	p := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: c.Address.String(),
			PeerAsn:         c.ASN,
			LocalAsn:        s.opts.ASN,
			AuthPassword:    password,
			AdminDown:       c.Shutdown,
			// GoBGP ignores a path with our ASN in it and keeps the peer's old path for the
			// prefix in use; RFC 4271 section 9.1.2 wants it replaced. Allowed here, the path
			// comes through to the learned view and is refused by the import policy, which
			// is a withdrawal of the old one (S8).
			AllowOwnAsn: 255,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry:           uint64(connectRetry / time.Second),
			HoldTime:               uint64(c.HoldTime / time.Second),
			KeepaliveInterval:      uint64(c.Keepalive / time.Second),
			IdleHoldTimeAfterReset: uint64(idleAfterReset / time.Second),
		}},
		Transport: &api.Transport{
			RemotePort:  uint32(c.Port),
			PassiveMode: c.Passive,
		},
		GracefulRestart: &api.GracefulRestart{
			Enabled:             c.GracefulRestart.Enabled,
			RestartTime:         uint32(c.GracefulRestart.RestartTime / time.Second),
			DeferralTime:        uint32(deferral(c) / time.Second),
			NotificationEnabled: true, // RFC 8538
			LocalRestarting:     c.GracefulRestart.Enabled && s.restarting(c),
			LonglivedEnabled:    longLives(c),
		},
	}
	if c.LocalAddress.IsValid() {
		p.Transport.LocalAddress = c.LocalAddress.String()
	}
	if c.GTSM > 0 {
		// RFC 5082 section 3: a packet that crossed n-1 routers has a TTL of 255-(n-1).
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(c.GTSM)}
	} else {
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(c.MultihopTTL)}
	}
	for _, f := range []*api.Family{apiIPv4, apiIPv6} {
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: c.GracefulRestart.Enabled}},
			LongLivedGracefulRestart: &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
				Enabled: longLives(c), RestartTime: uint32(c.GracefulRestart.LongLived / time.Second),
			}},
		})
	}
	return p, nil
}

// deferral is how long announcements to a peer are held back after a restart: it must
// have them while it still keeps what we announced before.
func deferral(c config.Peer) time.Duration {
	return max(min(mostDeferral, c.GracefulRestart.RestartTime/2), time.Second)
}

// restarting tells whether a session that comes up now may be one of a restart.
func (s *Speaker) restarting(c config.Peer) bool {
	return s.opts.Restarting && time.Since(s.started) < deferral(c)
}

// readPassword reads a one-line secret. No error of it holds any of the secret.
func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case password == "":
		return "", fmt.Errorf("the password file %s is empty", file)
	case strings.ContainsAny(password, "\r\n"):
		return "", fmt.Errorf("the password file %s has more than one line", file)
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password in %s has %d octets; TCP MD5 takes at most %d", file, len(password), maxPassword)
	}
	return password, nil
}

// cut shortens a shutdown communication to what fits, at the end of a character.
func cut(communication string) string {
	if len(communication) <= maxCommunication {
		return communication
	}
	n := maxCommunication
	for n > 0 && !utf8.RuneStart(communication[n]) {
		n--
	}
	return communication[:n]
}
