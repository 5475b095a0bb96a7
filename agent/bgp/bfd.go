package bgp

import (
	"fmt"
	"net/netip"
	_ "unsafe" // for go:linkname

	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/nexthopd/nexthopd/agent/config"
)

// GoBGP v4.8.0 sends no Cease with a subcode of the caller's choice: ResetPeer means
// Administrative Reset, ShutdownPeer Administrative Shutdown. What both are made of takes
// any, but is not exported; docs/adr/0017 says why it is called all the same. Another
// GoBGP that lacks one of them does not link.
//
//go:linkname mgmtOperation github.com/osrg/gobgp/v4/pkg/server.(*BgpServer).mgmtOperation
func mgmtOperation(s *server.BgpServer, f func() error, checkActive bool) error

//go:linkname sendNotification github.com/osrg/gobgp/v4/pkg/server.(*BgpServer).sendNotification
func sendNotification(s *server.BgpServer, op, addr string, subcode uint8, data []byte) error

// BFDDown ends the peer's session with Cease/BFD Down (RFC 9384), because BFD found the
// path to it dead; the session may come up again by itself. It never becomes a graceful
// restart here: GoBGP holds a peer's paths when it receives something or nothing, not
// when it sends a Cease. And not there: a peer that would take a Cease for a restart (RFC
// 8538) gets it inside a Hard Reset, for nothing forwards over a dead path.
func (s *Speaker) BFDDown(addr netip.Addr, diagnostic string) error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("end the session of peer %s: %w", addr, errUnknownPeer)
	}
	s.mu.Lock()
	up := p.up
	if up {
		p.expect = DownReason{Cause: "bfd", Text: "BFD: " + diagnostic}
	}
	subcode, data := uint8(ceaseBFDDown), []byte(nil)
	if p.hardReset {
		subcode, data = ceaseHardReset, []byte{codeCease, ceaseBFDDown} // RFC 8538 section 3.1
	}
	s.mu.Unlock()
	if !up { // else see Reset
		return nil
	}
	err := mgmtOperation(s.server, func() error {
		return sendNotification(s.server, "BFD down", addr.String(), subcode, data)
	}, true)
	if err != nil {
		return fmt.Errorf("end the session of peer %s: %w", addr, err)
	}
	return nil
}

// HoldDown keeps the peer's session down for as long as BFD is (bfd.strict), or lets it
// come up. What the configuration and the operator say about the session holds as well.
func (s *Speaker) HoldDown(addr netip.Addr, hold bool) error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("hold the session of peer %s down: %w", addr, errUnknownPeer)
	}
	s.mu.Lock()
	same, was := p.held == hold, p.down()
	p.held = hold
	now := p.down()
	s.mu.Unlock()
	if same || was == now {
		return nil
	}
	if err := s.setAdmin(p, !now, DownReason{Cause: "bfd", Text: "BFD is not up, and bfd.strict is set"}); err != nil {
		return fmt.Errorf("hold the session of peer %s down: %w", addr, err)
	}
	return nil
}

// heldAtFirst tells whether a peer that is added has to wait for BFD.
func heldAtFirst(c config.Peer) bool { return c.BFD.Enabled && c.BFD.Strict }

// down tells whether the session is kept down, by whomever. With Speaker.mu held.
func (p *peer) down() bool { return p.info.AdminDown || p.held || !p.limit.until.IsZero() }
