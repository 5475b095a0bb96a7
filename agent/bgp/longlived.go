package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
)

// Long-lived graceful restart (RFC 9494). GoBGP keeps the paths and prefers all others to
// them, tells nobody that it does, and does so the first time that a peer that restarts is
// Idle: when its restart time is over, or an attempt to connect to it fails halfway.

// longLived is what a peer has agreed on. Speaker.mu guards it.
type longLived struct {
	// kept: the session was lost, and the paths are kept; told: and are long-lived now.
	kept, told bool
	// agreed are the families that GoBGP makes long-lived. It never forgets one while the
	// peer exists (as with peer.restartable).
	agreed map[Family]bool
}

// longLives tells whether long-lived graceful restart is offered to a peer.
func longLives(c config.Peer) bool {
	return c.GracefulRestart.Enabled && c.GracefulRestart.LongLived > 0
}

// longLivedOf are the families that both sides offer. GoBGP drops at once what can't
// restart gracefully, for however long it may be kept after that.
func longLivedOf(c config.Peer, capabilities []bgp.ParameterCapabilityInterface, g *bgp.CapGracefulRestart) []session.LongLived {
	var offer *bgp.CapLongLivedGracefulRestart
	for _, x := range capabilities {
		if x, ok := x.(*bgp.CapLongLivedGracefulRestart); ok {
			offer = x // the last one counts, as for GoBGP
		}
	}
	if offer == nil || g == nil || !longLives(c) {
		return nil
	}
	var list []session.LongLived
	for _, t := range offer.Tuples {
		f, ok := family(bgp.NewFamily(t.AFI, t.SAFI))
		restarts := slices.ContainsFunc(g.Tuples, func(x *bgp.CapGracefulRestartTuple) bool { return x.AFI == t.AFI && x.SAFI == t.SAFI })
		known := slices.ContainsFunc(list, func(x session.LongLived) bool { return x.Family == f })
		if ok && restarts && !known && t.RestartTime > 0 {
			list = append(list, session.LongLived{
				Family: f, Time: time.Duration(t.RestartTime) * time.Second, Preserved: t.Flags&flagForwarding != 0,
			})
		}
	}
	return list
}

// established notes what the peer of a session that came up has agreed on, and tells
// whether it did so for more families in an earlier session.
func (l *longLived) established(now []session.LongLived) (lost bool) {
	l.kept, l.told = false, false
	for f := range l.agreed {
		lost = lost || !slices.ContainsFunc(now, func(x session.LongLived) bool { return x.Family == f })
	}
	for _, x := range now {
		if l.agreed == nil {
			l.agreed = map[Family]bool{}
		}
		l.agreed[x.Family] = true
	}
	return lost
}

// outlasts is asked when the peer's state is Idle while its session is down: it tells
// whether GoBGP makes its paths long-lived now.
func (l *longLived) outlasts() bool {
	if !l.kept || l.told || len(l.agreed) == 0 {
		return false
	}
	l.told = true
	return true
}

// forgetLongLived drops what is kept of a peer that an operator has shut down. For GoBGP
// that is just one more attempt that failed.
func (s *Speaker) forgetLongLived(p *peer) {
	s.mu.Lock()
	kept := p.longLived.kept && len(p.longLived.agreed) > 0
	s.mu.Unlock()
	if kept {
		s.EndRestart(p.info.Address)
	}
}

// outlived is called when the time is over for the long-lived paths of a family. GoBGP
// drops all paths of it, also those that the peer has announced since, if it is back and
// its End-of-RIB is not: they have to be heard anew.
func (s *Speaker) outlived(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[addr]; p != nil && p.up {
		s.spawn(func() { s.recreate(p, "the peer sent no End-of-RIB in its long-lived stale time", true) })
	}
}
