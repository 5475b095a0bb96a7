package status

import (
	"net/netip"
	"time"
)

// BFD is what watches peers and next hops for silence.
type BFD struct {
	Sessions []BFDSession `json:"sessions"` // by name of the peer, then by address
	Engine   BFDEngine    `json:"engine"`
}

// BFDSession is one BFD session (RFC 5880).
type BFDSession struct {
	Peer        string     `json:"peer,omitempty"` // name; absent for a next hop that is no peer
	Address     netip.Addr `json:"address"`
	Mode        string     `json:"mode"`        // single-hop, multihop
	State       string     `json:"state"`       // admin-down, down, init, up
	RemoteState string     `json:"remoteState"` // likewise, as the other side last said
	// Failed: it was up, the path failed, and nothing is sent there until it is up again.
	Failed   bool       `json:"failed,omitempty"`
	LastDown string     `json:"lastDown,omitempty"` // why it last left up
	Since    *time.Time `json:"since,omitempty"`    // of the state
	Changes  uint64     `json:"changes"`            // of the state
	// Configured, and agreed. Until the first packet the latter are 0.
	Interval         float64 `json:"interval"`
	Multiplier       int     `json:"multiplier"`
	TXInterval       float64 `json:"txInterval"`
	RXInterval       float64 `json:"rxInterval"`
	DetectionTime    float64 `json:"detectionTime"`
	RemoteMultiplier int     `json:"remoteMultiplier"`
	Polling          bool    `json:"polling,omitempty"` // a change of intervals waits for the other side
	Auth             string  `json:"auth,omitempty"`    // its type

	LocalDiscriminator      uint32 `json:"localDiscriminator"`
	RemoteDiscriminator     uint32 `json:"remoteDiscriminator"`
	ControlPlaneIndependent bool   `json:"controlPlaneIndependent,omitempty"` // the other side's C bit

	Sent       uint64            `json:"sent"` // packets
	Received   uint64            `json:"received"`
	SendErrors uint64            `json:"sendErrors"`
	Dropped    map[string]uint64 `json:"dropped,omitempty"` // received and ignored, by cause
	LastDrop   string            `json:"lastDrop,omitempty"`
	LastDropAt *time.Time        `json:"lastDropAt,omitempty"`
	// Since it came up: how evenly the other side's packets come, the longest time
	// between two, and by how much our own were late at worst.
	Jitter  float64 `json:"jitter"`
	MaxGap  float64 `json:"maxGap"`
	MaxLate float64 `json:"maxLate"`
	Error   string  `json:"error,omitempty"` // why it does not run, or cannot send
}

// BFDEngine is the process that runs the BFD sessions.
type BFDEngine struct {
	Running     bool              `json:"running"`
	Error       string            `json:"error,omitempty"`      // why not, where there are sessions
	Scheduling  string            `json:"scheduling,omitempty"` // of its threads: the policy, or why it has none of its own
	Received    uint64            `json:"received"`             // packets
	Dropped     map[string]uint64 `json:"dropped,omitempty"`    // those that no session took, by cause
	KernelDrops uint64            `json:"kernelDrops"`          // refused before the process saw them
	MaxLate     float64           `json:"maxLate"`              // of a timer, since the start
}
