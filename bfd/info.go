package bfd

import (
	"net/netip"
	"time"
)

// ID names a session of an Engine or a Process.
type ID uint32

// Event is a change of a session's state.
type Event struct {
	ID        ID
	Peer      netip.Addr
	Local     netip.Addr // as configured: may be the zero Addr
	Interface string
	Multihop  bool

	From, To State
	Diag     Diag // why, as we see it

	// What the peer's last packet said of the peer itself.
	RemoteState State
	RemoteDiag  Diag
	// ControlPlaneIndependent is the peer's C bit while it last was Up.
	ControlPlaneIndependent bool

	At time.Time
	// DetectedIn is, for DiagTimeExpired, how long after the peer's last packet; else
	// how long after the arrival of the packet that caused the change, and 0 where
	// none did.
	DetectedIn time.Duration
}

// Failure tells whether the event says that the path failed. A session that either side
// took down on purpose does not (RFC 5882 section 3.2).
func (e Event) Failure() bool {
	return e.From == Up && e.To == Down && e.RemoteState != AdminDown
}

// Info is a session as it stands.
type Info struct {
	ID                  ID
	Config              Config // with its defaults; its key is not in it
	LocalDiscriminator  uint32
	RemoteDiscriminator uint32 // 0: not heard for a Detection Time

	State, RemoteState State
	Diag, RemoteDiag   Diag
	LastDown           Diag // why the session last left Up; DiagNone: it never did
	EverUp             bool
	// ControlPlaneIndependent is the peer's C bit while it last was Up.
	ControlPlaneIndependent bool
	// RemoteDemand: the peer wants no periodic packets while both sides are Up.
	RemoteDemand bool
	LastChange   time.Time // of the state; zero: never
	Changes      uint64

	TXInterval       time.Duration // agreed, in force; before jitter
	RXInterval       time.Duration // agreed, in force; 0: no packet yet
	DetectionTime    time.Duration // ours; 0: no packet yet
	RemoteMultiplier uint8
	Polling          bool // a change of intervals waits for the peer's Final

	Sent, Received uint64
	SendErrors     uint64
	Dropped        map[Drop]uint64 // only what occurred
	// LastDrop is why a packet was last dropped, LastDropAt when.
	LastDrop   string
	LastDropAt time.Time
	// SocketError is why no packet can be sent at present; "" when one can.
	SocketError string

	// LastReceived is when the last good packet came; zero: none came.
	LastReceived time.Time
	// Jitter is the mean deviation of the gaps between the peer's packets from one
	// another (as in RFC 3550 section 6.4.1), and MaxGap the longest, both while Up
	// and since the session last came up. A MaxGap near DetectionTime is a false alarm
	// in waiting.
	Jitter, MaxGap time.Duration
	// MaxLate is by how much our own packets were late at worst since the session last
	// came up.
	MaxLate time.Duration
}

const numLate = 8 // len(LateBounds()) + 1

// Stats is about the engine as a whole.
type Stats struct {
	Received uint64 // all packets that got as far as this process
	// Dropped counts all of them that no session took.
	Dropped map[Drop]uint64
	// KernelDrops is what never got so far: foreign addresses, low TTLs, full queues.
	KernelDrops uint64
	// Late counts how late timers were served, in LateBounds' steps; MaxLate is the
	// worst since the start.
	Late    [numLate]uint64
	MaxLate time.Duration
	// Scheduling is how the engine's thread is scheduled: what it asked for, or why it
	// did not get it.
	Scheduling string
}
