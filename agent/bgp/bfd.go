package bgp

import (
	"fmt"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
)

// BFDDown ends the peer's session because BFD found the path to it dead; the session may
// come up again by itself. It never becomes a graceful restart here: GoBGP holds a peer's
// paths when it receives something or nothing, not when it sends a Cease.
//
// RFC 9384 has Cease/BFD Down (6/10) for this. GoBGP v4.8.0 takes no subcode from outside:
// ResetPeer sends Administrative Reset (6/4), ShutdownPeer Administrative Shutdown. The
// peer most likely does not hear it anyway, and where it does, the communication (RFC
// 9003) says what it was.
func (s *Speaker) BFDDown(addr netip.Addr, diagnostic string) error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.find(addr)
	if p == nil {
		return fmt.Errorf("end the session of peer %s: %w", addr, errUnknownPeer)
	}
	s.mu.Lock()
	up := p.info.State == Established
	if up {
		p.expect = DownReason{Cause: "bfd", Text: "BFD: " + diagnostic}
	}
	s.mu.Unlock()
	if !up { // else see Reset
		return nil
	}
	err := s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{Address: addr.String(), Communication: cut("BFD Down: " + diagnostic)})
	if err != nil {
		return fmt.Errorf("end the session of peer %s: %w", addr, err)
	}
	return nil
}
