// Package config reads the configuration file into a validated Config, with the
// place (file:line:col) of every mistake, and tells two configurations apart. It
// opens no socket and changes nothing.
package config

import (
	"cmp"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/nexthopd/nexthopd/agent/policy"
)

// Config is a complete, valid configuration: every default is filled in.
type Config struct {
	ASN            uint32
	RouterID       netip.Addr       // invalid: the lowest global IPv4 address of the host
	Listen         []netip.AddrPort // empty never: the default is 0.0.0.0:179 and [::]:179
	VNet           VNet
	Peers          []Peer // in the order of the file; then the dynamic ones that are there now
	DynamicPeers   []DynamicPeers
	BranchToBranch bool
	Announce       Announce
	// PrefixLimitTotal bounds the paths that are used, of all peers together; 0: no bound.
	PrefixLimitTotal int
	FIB              FIB
	Metrics          Metrics
	API              API
	Log              Log
}

// VNet describes the local network.
type VNet struct {
	Prefixes    []netip.Prefix // announced to every peer; masked
	AllowInside []netip.Prefix // learned prefixes inside Prefixes that may be installed all the same
	NextHop4    netip.Addr     // invalid: the session's local address
	NextHop6    netip.Addr
}

// Announce says which of the peers' paths the other peers hear of.
type Announce string

// The values of announce. A path that a guard refuses is never announced.
const (
	AnnounceForwarding Announce = "forwarding" // those that this host forwards on (S31)
	AnnounceAll        Announce = "all"        // also those whose next hop it can't reach, or that its kernel refuses
)

// NextHop says which next hop a peer sees on what other peers announced.
type NextHop string

// The values of a peer's next-hop.
const (
	NextHopUnchanged NextHop = "unchanged"
	NextHopSelf      NextHop = "self"
)

// Peer is a configured BGP neighbour.
type Peer struct {
	Name         string
	Dynamic      bool // it is not in the file: it came by a range
	Description  string
	Address      netip.Addr
	ASN          uint32
	Port         uint16 // default 179
	Passive      bool   // wait for the peer to connect
	LocalAddress netip.Addr
	MultihopTTL  uint8 // default 64; ignored where GTSM is set
	HoldTime     time.Duration
	Keepalive    time.Duration
	NextHop      NextHop
	Shutdown     bool
	// PasswordFile holds the TCP MD5 secret (RFC 2385), one line. Empty: no authentication.
	// A systemd credential is named as password-credential and resolved to its file here.
	PasswordFile string
	// PasswordSum is a hash of what is in it, so that Compare finds a new secret in an old
	// file. Not to be shown.
	PasswordSum string
	// GTSM is the largest number of hops to the peer (RFC 5082); 0: off.
	GTSM            uint8
	BFD             BFD
	GracefulRestart GracefulRestart
	Damping         Damping
	Guards          Guards
	Role            Role
	// RoleStrict: no session unless the peer says its role, too (RFC 9234 section 4.2).
	RoleStrict bool
	// Blackhole: the peer may have the traffic to a host dropped (RFC 7999).
	Blackhole bool
	// PrefixLimit bounds what the peer may announce (S9).
	PrefixLimit PrefixLimit
	// Import decides which of the peer's paths are used, Export which are announced to it
	// (S10). nil: all.
	Import, Export *policy.Filter
}

// GracefulRestart is what becomes of routes while a BGP daemon restarts and its host
// forwards on (RFC 4724, RFC 8538). Without it, the loss of a session is the loss of its
// routes, on both sides.
type GracefulRestart struct {
	Enabled bool
	// RestartTime is how long the peer is asked to wait for us.
	RestartTime time.Duration
	// StaleTime bounds how long the peer's paths are kept as stale, whatever it asks for.
	StaleTime time.Duration
	// LongLived is how long either side keeps the other's paths beyond that, as the last
	// choice (RFC 9494); 0: not at all.
	LongLived time.Duration
}

// PrefixLimit bounds what a peer may announce, counting distinct prefixes.
type PrefixLimit struct {
	Max        int
	IPv4, IPv6 FamilyLimit
	Warning    int // percent of the limit
	Action     LimitAction
	Idle       time.Duration // before the first retry after close
}

// FamilyLimit is a limit for one family; 0: as for the other.
type FamilyLimit int

func (l FamilyLimit) String() string {
	if l == 0 {
		return "max"
	}
	return strconv.Itoa(int(l))
}

// LimitAction says what happens at a prefix limit.
type LimitAction string

// The values of a peer's prefix-limit.action.
const (
	LimitClose  LimitAction = "close"  // the session, for a while
	LimitFreeze LimitAction = "freeze" // what is beyond the limit is not used
)

// For is the limit of a family.
func (l PrefixLimit) For(ipv4 bool) int {
	own := l.IPv6
	if ipv4 {
		own = l.IPv4
	}
	return cmp.Or(int(own), l.Max)
}

// Damping is how the peer's flapping paths are held back (RFC 2439, RFC 7196).
type Damping struct {
	Enabled     bool
	HalfLife    time.Duration // of the penalty
	Suppress    int           // from this penalty on a path is not used
	Reuse       int           // below this one it is again
	MaxSuppress time.Duration // and after this time in any case
}

// Most is the largest penalty that a path can reach: what falls to Reuse in MaxSuppress.
func (d Damping) Most() int {
	return int(min(float64(d.Reuse)*math.Exp2(float64(d.MaxSuppress)/float64(d.HalfLife)), math.MaxInt32))
}

// BFD is how a peer is watched by Bidirectional Forwarding Detection (RFC 5880).
type BFD struct {
	Enabled bool
	BFDSession
	Strict bool // the BGP session is held down until BFD is up
}

// BFDSession is how a BFD session is run.
type BFDSession struct {
	Interval   time.Duration // of our packets, and the least of the peer's
	Multiplier uint8
	Mode       BFDMode
	MinTTL     uint8 // of packets over several hops; 0: any
	Auth       BFDAuth
}

// BFDMode says how far away the peer is.
type BFDMode string

// The values of a peer's bfd.mode.
const (
	BFDAuto      BFDMode = "auto"       // single-hop on a connected subnet, else multihop
	BFDSingleHop BFDMode = "single-hop" // RFC 5881
	BFDMultihop  BFDMode = "multihop"   // RFC 5883
)

// BFDAuthType says how BFD packets are authenticated (RFC 5880 section 6.7.4).
type BFDAuthType string

// The values of a peer's bfd.auth.type.
const (
	BFDKeyedSHA1      BFDAuthType = "keyed-sha1"
	BFDMeticulousSHA1 BFDAuthType = "meticulous-keyed-sha1"
)

// BFDAuth is the authentication of BFD packets; an empty Type: none.
type BFDAuth struct {
	Type    BFDAuthType
	KeyID   uint8
	KeyFile string // holds the secret, one line of 1 to 20 bytes
}

// BlastRadius bounds what a change of the configuration may remove without being asked
// for twice: Share percent of the installed routes, or fewer than Min. The zero value
// bounds nothing.
type BlastRadius struct{ Share, Min int }

// Exceeded tells whether removing n of so many routes is too much.
func (b BlastRadius) Exceeded(n, of int) bool {
	return b.Share > 0 && n >= b.Min && n*100 > of*b.Share
}

// Mode says whether the FIB is written.
type Mode string

// The values of fib.mode.
const (
	ModeInstall Mode = "install"
	ModeObserve Mode = "observe" // compute and show everything, write nothing (S27)
)

// FIB says where routes go.
type FIB struct {
	Table    uint32 // main is 254
	Metric   uint32 // never 0
	Protocol uint8
	MaxPaths int
	Mode     Mode
	// NextHopObjects off forces classic multipath routes, as on a kernel before 5.3.
	NextHopObjects bool
	// SweepAfter is how long routes of an earlier run wait for End-of-RIB from all peers.
	SweepAfter time.Duration
	// SweepShare is the percentage of the routes that may be swept while no session is up.
	SweepShare  int
	BlastRadius BlastRadius
	// Probe is how often next hops are asked for, by ARP or ND; 0: not by us.
	Probe time.Duration
	// Persist is how long routes are kept after the last session was lost; 0: not at all.
	Persist time.Duration
	// Audit is the time between two comparisons of everything with the kernel; 0: none.
	Audit  time.Duration
	OnStop OnStop
	// BFDNextHops are next hops that are no peers (S11) and that BFD watches all the same.
	BFDNextHops BFDNextHops
}

// BFDNextHops are addresses that BFD watches, and how; none: off.
type BFDNextHops struct {
	Addresses []netip.Addr
	BFDSession
}

// OnStop says what happens to our routes when the daemon stops.
type OnStop string

// The values of fib.on-stop.
const (
	OnStopKeep  OnStop = "keep"
	OnStopFlush OnStop = "flush"
)

// Metrics is the HTTP listener for Prometheus and health checks; empty Listen: none.
type Metrics struct {
	Listen string
	// WebConfig is a web configuration file of Prometheus' exporters (TLS, basic auth), that
	// was valid when it was read. Empty: plain HTTP for everybody.
	WebConfig string
}

// API is the control socket.
type API struct {
	Socket string
}

// Log says how much is logged, and how.
type Log struct {
	Level  slog.Level
	Format string // auto, journal, text, json
}
