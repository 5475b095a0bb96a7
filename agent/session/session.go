// Package session holds the words in which the BGP speaker and the agent talk: states
// and events of sessions, what is learned, what is advertised. Types only, so that the
// agent depends on neither agent/bgp nor GoBGP.
package session

import (
	"net/netip"
	"time"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// Family is an address family we negotiate.
type Family uint8

// The families: nothing else is ever negotiated or parsed.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String is the family's name in metrics and in JSON.
func (f Family) String() string {
	if f == IPv6 {
		return "ipv6"
	}
	return "ipv4"
}

// Handler hears what happens on the sessions. Calls for one peer come in order, from
// goroutines of the speaker; they must return quickly and never wait for the caller
// of a Speaker method.
type Handler interface {
	// Learned brings announcements and withdrawals of a peer. It is complete: when a
	// session ends without graceful restart, every path of it is withdrawn through it.
	// The slice belongs to the callee only during the call; Attrs are immutable and may be kept.
	Learned(peer netip.Addr, changes []rib.Change)
	// EndOfRIB says that the peer has sent all it had for the family (RFC 4724 section 2).
	// Paths of the family that are still stale are gone.
	EndOfRIB(peer netip.Addr, family Family)
	// Session brings every change of a session's state.
	Session(Event)
}

// Refusal is why a connection was closed before BGP had it.
type Refusal string

// The refusals.
const (
	RefusedStranger Refusal = "stranger" // neither a peer nor in a range
	RefusedRate     Refusal = "rate"     // too many from its address
	RefusedOpen     Refusal = "open"     // in a range, and sent no OPEN
	RefusedASN      Refusal = "asn"      // in a range that does not have its ASN
)

// Refusals lists them.
var Refusals = []Refusal{RefusedStranger, RefusedRate, RefusedOpen, RefusedASN}

// State is a session's state, by its name in RFC 4271 section 8.2.2.
type State string

// The states.
const (
	Idle        State = "Idle"
	Connect     State = "Connect"
	Active      State = "Active"
	OpenSent    State = "OpenSent"
	OpenConfirm State = "OpenConfirm"
	Established State = "Established"
)

// States lists them, on the way up.
var States = []State{Idle, Connect, Active, OpenSent, OpenConfirm, Established}

// Event is a change of a session's state.
type Event struct {
	Peer     netip.Addr
	State    State
	Previous State
	At       time.Time
	// Down tells why an established session, or an attempt, ended; empty on the way up.
	Down DownReason
	// Graceful: the session ended, and the peer promised to keep forwarding (RFC 4724).
	// Its paths are stale now, until EndOfRIB or until they are withdrawn.
	Graceful bool
	// Negotiated session, when State is Established.
	LocalAddress netip.Addr
	RemoteID     netip.Addr // BGP identifier
	PeerASN      uint32
	Families     []Family
	// Preserved are the families whose forwarding state the peer says it kept over a restart.
	// Stale paths of the others are gone with this event (RFC 4724 section 4.2).
	Preserved []Family
	// LongLived are the families whose paths may be kept beyond the restart time (RFC 9494),
	// as both sides have agreed in this session.
	LongLived []LongLived
	// Outlasted: the peer is not back from its graceful restart within its restart time.
	// From now on its stale paths are long-lived stale: those of the families that the last
	// session agreed on, for the others were withdrawn, and none that carries NO_LLGR, which
	// is not withdrawn. They are withdrawn when the time for that is over, too.
	Outlasted bool
}

// LongLived says how long the peer's paths of a family may be kept.
type LongLived struct {
	Family Family
	Time   time.Duration
	// Preserved: the peer says that it kept its forwarding state over a restart.
	Preserved bool
}

// DownReason says why a session ended (S37).
type DownReason struct {
	// Cause is one of hold-timer, notification-sent, notification-received,
	// connection-lost, operator, bfd, prefix-limit, graceful-restart, bad-peer-as,
	// role-mismatch, deconfigured, unknown.
	Cause string
	// Text is for a person: "NOTIFICATION received: Cease/Administrative Shutdown (6/2): maintenance".
	Text          string
	Code, Subcode uint8 // of the NOTIFICATION, where there was one
}

// PeerInfo is what the speaker knows of a peer's session now.
type PeerInfo struct {
	Address           netip.Addr
	State             State
	AdminDown         bool
	LocalAddress      netip.Addr
	RemoteID          netip.Addr
	HoldTime          time.Duration // negotiated; 0 when down
	Keepalive         time.Duration
	EstablishedAt     time.Time // zero when down
	Flaps             uint64    // times an established session was lost
	MessagesReceived  map[string]uint64
	MessagesSent      map[string]uint64
	PeerCapabilities  []string
	LocalCapabilities []string
	Faults            map[string]uint64 // messages that were wrong, by what that led to
	LastDown          DownReason
	LastDownAt        time.Time
	Advertised        map[Family]int // paths in the Adj-RIB-Out; nil: none, or not counted (yet)
	OnlyToCustomers   int            // of the paths in the Adj-RIB-Out, those that it is not told (RFC 9234)
	RoleConfirmed     bool           // it says itself that it has the role of its configuration
	Warning           string         // something about the session to act on
}

// Withheld says whether a peer's path must not be announced to the others (S31).
type Withheld struct {
	Peer   netip.Addr
	Prefix netip.Prefix
	Held   bool
	// Gone: no longer held, for the peer has no such path any more.
	Gone bool
}

// Advertised is one path as a peer sees it from us (S33).
type Advertised struct {
	Prefix netip.Prefix
	Attrs  *rib.Attrs
	// From is the peer it was learned from; invalid for a VNet prefix.
	From netip.Addr
}
