// Package bgp is the BGP speaker: sessions with the peers, what they announce, and
// what is announced to them. It is the only package that imports GoBGP, so that
// GoBGP's version and its habits are this package's business alone. It decides
// nothing about forwarding.
package bgp

import "github.com/nexthopd/nexthopd/agent/session"

// The types shared with the agent live in agent/session.
type (
	Family       = session.Family
	Handler      = session.Handler
	State        = session.State
	SessionEvent = session.Event
	DownReason   = session.DownReason
	PeerInfo     = session.PeerInfo
	Advertised   = session.Advertised
	Refusal      = session.Refusal
)

// See agent/session.
const (
	IPv4        = session.IPv4
	IPv6        = session.IPv6
	Idle        = session.Idle
	Connect     = session.Connect
	Active      = session.Active
	OpenSent    = session.OpenSent
	OpenConfirm = session.OpenConfirm
	Established = session.Established

	RefusedStranger = session.RefusedStranger
	RefusedRate     = session.RefusedRate
	RefusedOpen     = session.RefusedOpen
	RefusedASN      = session.RefusedASN
)
