package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// limitHold is a peer that is kept down for a while, because it announced more than its
// limit, or for its role.
type limitHold struct {
	until time.Time     // zero: it is not
	what  string        // it did
	pause time.Duration // the last one for its limit
}

const (
	// maxPause bounds the time between two attempts.
	maxPause = 24 * time.Hour
	// ceaseTimeout is how long GoBGP may take to send a Cease.
	ceaseTimeout = 5 * time.Second
)

// LimitReached ends the session of a peer that announces more than its limit, with
// Cease/Maximum Number of Prefixes Reached (RFC 4486), and tries it again after the idle
// time of its configuration, doubled with each time that it happens again. It returns at
// once. text says for people what it was.
func (s *Speaker) LimitReached(addr netip.Addr, f Family, limit int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spawn(func() {
		s.op.Lock()
		defer s.op.Unlock()
		p := s.find(addr)
		if p == nil || s.ctx.Err() != nil {
			return
		}
		if err := s.closeForLimit(p, f, limit, text); err != nil && s.ctx.Err() == nil {
			s.log.Error("could not end the session of a peer beyond its prefix limit", "peer", addr, "err", err)
		}
	})
}

// closeForLimit is called with op held.
//
// GoBGP has a limit of its own: after its Cease the peer's paths stay as stale ones where
// graceful restart was negotiated, and it never tries again; a change of it makes the
// session forget what it knows of graceful restart (updatePrefixLimitConfig). So we count,
// and send the NOTIFICATION as BFDDown does.
func (s *Speaker) closeForLimit(p *peer, f Family, limit int, text string) error {
	addr := p.cfg.Address
	s.mu.Lock()
	if !p.up { // it ended meanwhile, and costs no pause
		s.mu.Unlock()
		return nil
	}
	if p.limit.pause == 0 || time.Since(p.info.EstablishedAt) > max(p.limit.pause, time.Hour) {
		p.limit.pause = p.cfg.PrefixLimit.Idle // it was well for long
	} else {
		p.limit.pause = min(2*p.limit.pause, maxPause)
	}
	why := DownReason{Cause: "prefix-limit", Text: fmt.Sprintf("%s; the next attempt is in %s", text, p.limit.pause)}
	p.expect = why
	subcode, data := uint8(ceaseMaxPrefixes), limitData(f, limit)
	if p.hardReset {
		subcode, data = ceaseHardReset, append([]byte{codeCease, ceaseMaxPrefixes}, data...) // RFC 8538 section 3.1
	}
	s.mu.Unlock()
	err := mgmtOperation(s.server, func() error {
		return sendNotification(s.server, "prefix limit", addr.String(), subcode, data)
	}, true)
	if err != nil {
		return err
	}
	return s.keepDown(p, p.limit.pause, "announced more than its prefix-limit", why)
}

// keepDown waits until the session has ended, which it must have been told to, and keeps
// the peer down for a while. It is called with op held.
func (s *Speaker) keepDown(p *peer, pause time.Duration, what string, why DownReason) error {
	// The order to stay down must not overtake the NOTIFICATION: it has a Cease of its own.
	for deadline := time.Now().Add(ceaseTimeout); !s.delivered(p, Idle) && time.Now().Before(deadline) && s.ctx.Err() == nil; {
		time.Sleep(2 * time.Millisecond)
	}
	s.mu.Lock()
	until := time.Now().Add(pause)
	p.limit.until, p.limit.what = until, what
	s.spawn(func() { s.tryAgain(p, until) })
	s.mu.Unlock()
	return s.setAdmin(p, false, why)
}

// limitData is what the NOTIFICATION says of the limit (RFC 4486 section 4).
func limitData(f Family, limit int) []byte {
	afi := api.Family_AFI_IP
	if f == IPv6 {
		afi = api.Family_AFI_IP6
	}
	data := binary.BigEndian.AppendUint16(nil, uint16(afi))
	data = append(data, byte(api.Family_SAFI_UNICAST))
	return binary.BigEndian.AppendUint32(data, uint32(limit))
}

// tryAgain lets the peer come up again, unless it was tried or changed meanwhile.
func (s *Speaker) tryAgain(p *peer, at time.Time) {
	wait := time.NewTimer(time.Until(at))
	defer wait.Stop()
	select {
	case <-s.ctx.Done():
		return
	case <-wait.C:
	}
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	due := s.peers[p.cfg.Address] == p && p.limit.until.Equal(at)
	if due {
		p.limit.until = time.Time{}
		due = !p.down()
	}
	s.mu.Unlock()
	if !due {
		return
	}
	if err := s.setAdmin(p, true, DownReason{}); err != nil && s.ctx.Err() == nil {
		s.log.Error("could not try a peer again", "peer", p.cfg.Address, "err", err)
	}
}
