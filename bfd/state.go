package bfd

import "strconv"

// State is a session's state (RFC 5880 section 4.1).
type State uint8

// The states, with their numbers on the wire.
const (
	AdminDown State = 0
	Down      State = 1
	Init      State = 2
	Up        State = 3
)

// String is the RFC's name in lower case.
func (s State) String() string {
	switch s {
	case AdminDown:
		return "admin-down"
	case Down:
		return "down"
	case Init:
		return "init"
	case Up:
		return "up"
	}
	return "state " + strconv.Itoa(int(s))
}

// Diag is a diagnostic: why the state last changed (RFC 5880 section 4.1).
type Diag uint8

// The diagnostics. This package itself sets DiagNone, DiagTimeExpired,
// DiagNeighborDown and DiagAdminDown; a peer may send any.
const (
	DiagNone              Diag = 0
	DiagTimeExpired       Diag = 1
	DiagEchoFailed        Diag = 2
	DiagNeighborDown      Diag = 3
	DiagForwardingReset   Diag = 4
	DiagPathDown          Diag = 5
	DiagConcatPathDown    Diag = 6
	DiagAdminDown         Diag = 7
	DiagReverseConcatDown Diag = 8
)

// String is the RFC's name in lower case.
func (d Diag) String() string {
	switch d {
	case DiagNone:
		return "no diagnostic"
	case DiagTimeExpired:
		return "control detection time expired"
	case DiagEchoFailed:
		return "echo function failed"
	case DiagNeighborDown:
		return "neighbor signaled session down"
	case DiagForwardingReset:
		return "forwarding plane reset"
	case DiagPathDown:
		return "path down"
	case DiagConcatPathDown:
		return "concatenated path down"
	case DiagAdminDown:
		return "administratively down"
	case DiagReverseConcatDown:
		return "reverse concatenated path down"
	}
	return "diagnostic " + strconv.Itoa(int(d))
}

// Drop is the cause for which a received packet was ignored.
type Drop uint8

// The causes. Those that no session can be blamed with are in Stats alone, the others in
// the Info of the session that they were meant for as well.
const (
	accepted          Drop = iota
	DropMalformed          // not a packet that RFC 5880 section 6.8.6 lets pass
	DropTTL                // a hop count under the minimum: 255 for a single hop
	DropNoSession          // from an address, or over an interface, without a session
	DropDiscriminator      // Your Discriminator is of no session, or of another peer's
	DropAuth               // authentication missing, not expected, or wrong
	DropAuthSequence       // authenticated, but out of the window: a replay
	numDrops
)

// Drops lists the causes, for who makes one series of each.
func Drops() []Drop {
	return []Drop{DropMalformed, DropTTL, DropNoSession, DropDiscriminator, DropAuth, DropAuthSequence}
}

// String is a name fit for a metric's label.
func (d Drop) String() string {
	switch d {
	case accepted:
		return "accepted"
	case DropMalformed:
		return "malformed"
	case DropTTL:
		return "ttl"
	case DropNoSession:
		return "no-session"
	case DropDiscriminator:
		return "discriminator"
	case DropAuth:
		return "auth"
	case DropAuthSequence:
		return "auth-sequence"
	}
	return "drop " + strconv.Itoa(int(d))
}
