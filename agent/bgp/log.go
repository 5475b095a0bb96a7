package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// logHandler takes GoBGP's log: it picks out what GoBGP tells nowhere else, and passes
// the records on with our keys. Below Info it takes nothing, for GoBGP has a debug
// record for every UPDATE.
type logHandler struct {
	speaker *Speaker
	out     slog.Handler
	peer    netip.Addr // invalid: not about one peer
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// The records of GoBGP v4.8.0 that mean something here (pkg/server/fsm.go, server.go).
const (
	logPeerUp      = "Peer Up"
	logPeerDown    = "Peer Down"
	logSent        = "sent notification"
	logReceived    = "received notification"
	logHoldExpired = "hold timer expired"
	logStranger    = "Can't find configuration for a new passive connection"
	logOutlived    = "LLGR restart timer expired"
)

// levels are the records that we pass on with another level than the usual: an Info of
// GoBGP becomes Debug, the others stay.
var levels = map[string]slog.Level{
	logStranger:                                   slog.LevelDebug, // a peer that was removed in this moment
	logHoldExpired:                                slog.LevelDebug, // the agent logs the session's end
	"graceful restart timer expired":              slog.LevelInfo,
	"Closed an accepted connection":               slog.LevelDebug,
	"accepted conn is closed to avoid be blocked": slog.LevelDebug,
	"restart flag is not set":                     slog.LevelDebug,
	"failed to send":                              slog.LevelDebug,
	"failed to stop BGP server":                   slog.LevelDebug, // Speaker.Stop stopped all but its BFD
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	peer := h.peer
	fields := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool {
		if addr, ok := peerOf(a); ok {
			peer = addr
		}
		fields[a.Key] = a.Value
		return true
	})
	if r.Message == logPeerUp && h.speaker.inside != nil { // nil: not started
		h.speaker.judge(peer)
	}
	h.speaker.heard(peer, r.Message, fields)

	level := r.Level
	if level == slog.LevelInfo {
		level = slog.LevelDebug
	}
	if l, ok := levels[r.Message]; ok {
		level = l
	}
	if !h.out.Enabled(ctx, level) {
		return nil
	}
	out := slog.NewRecord(r.Time, level, "gobgp: "+r.Message, 0)
	if peer.IsValid() && peer != h.peer {
		out.AddAttrs(slog.String("peer", peer.String()))
	}
	r.Attrs(func(a slog.Attr) bool {
		if a, ok := ourAttr(a); ok {
			out.AddAttrs(a)
		}
		return true
	})
	return h.out.Handle(ctx, out)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	var ours []slog.Attr
	for _, a := range attrs {
		if addr, ok := peerOf(a); ok {
			n.peer = addr
			ours = append(ours, slog.String("peer", addr.String()))
		} else if a, ok := ourAttr(a); ok {
			ours = append(ours, a)
		}
	}
	n.out = h.out.WithAttrs(ours)
	return &n
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.out = h.out.WithGroup(name)
	return &n
}

// peerOf tells whether the attribute names the peer.
func peerOf(a slog.Attr) (netip.Addr, bool) {
	if a.Key != "Key" {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(a.Value.String())
	return addr, err == nil
}

// ourAttr renames an attribute; ok is false for what says nothing.
func ourAttr(a slog.Attr) (slog.Attr, bool) {
	switch a.Key {
	case "Topic":
		return a, false
	case "Key":
		if _, ok := peerOf(a); ok {
			return a, false
		}
	case "Error", "Err":
		a.Key = "err"
		return a, true
	}
	a.Key = strings.ToLower(strings.ReplaceAll(a.Key, " ", "-"))
	return a, true
}

// heard takes what a record of GoBGP tells. GoBGP may hold its locks.
func (s *Speaker) heard(addr netip.Addr, message string, fields map[string]slog.Value) {
	switch message {
	case logPeerDown:
		s.sessionLost(addr, fields["Reason"].String())
		return
	case logOutlived:
		s.outlived(addr)
		return
	case logPeerUp, logSent, logReceived, logHoldExpired:
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[addr]
	if p == nil {
		return
	}
	switch message {
	case logPeerUp:
		p.notification, p.holdExpired, p.up = notification{}, false, true
	case logHoldExpired:
		p.holdExpired = true
	default:
		n := notification{
			at:      time.Now(),
			sent:    message == logSent,
			code:    octet(fields["Code"]),
			subcode: octet(fields["Subcode"]),
		}
		if c, ok := fields["Communicated-Reason"]; ok {
			n.communication = printable(c.String())
		}
		if data, ok := fields["Data"]; ok {
			b, _ := data.Any().([]byte)
			n = n.unwrap(b)
		}
		p.notification = n
		if n.sent && fields["State"].String() != bgp.BGP_FSM_ESTABLISHED.String() {
			// GoBGP makes its own connections in state Active and tells of no change when
			// the OPENs don't agree.
			p.info.LastDown, p.info.LastDownAt = downReason(fsmInvalid, n, false, DownReason{}), n.at
		}
	}
}

// sessionLost takes GoBGP's record of the end of an established session.
func (s *Speaker) sessionLost(addr netip.Addr, reason string) {
	s.mu.Lock()
	p := s.peers[addr]
	if p == nil {
		s.mu.Unlock()
		return
	}
	d := down{reason: downReason(reason, p.notification, p.holdExpired, p.expect)}
	switch {
	case reason != fsmGraceful || len(p.restartable) == 0:
	case p.holdExpired && !p.notifies:
		// The expiry of the hold timer is no graceful restart but between speakers that
		// both have the N bit (RFC 8538 section 4). GoBGP makes it one with all of them.
		d.forget = true
	default:
		d.graceful = true
		d.reason.Text = fmt.Sprintf("the peer restarts and goes on forwarding (%s: %s)", d.reason.Cause, d.reason.Text)
		d.reason.Cause = fsmGraceful
	}
	p.downs = append(p.downs, d)
	p.losses++
	p.up, p.socket, p.stale = false, nil, d.graceful
	p.notification, p.holdExpired, p.expect = notification{}, false, DownReason{}
	s.walks++
	s.mu.Unlock()
	if s.opts.OnPeerDown != nil {
		s.opts.OnPeerDown(addr, d.reason, d.graceful)
	}
}

func octet(v slog.Value) uint8 {
	if v.Kind() != slog.KindInt64 {
		return 0
	}
	return uint8(v.Int64())
}

// printable makes what a peer sent fit for a terminal and a log line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
