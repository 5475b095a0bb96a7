// Package status holds the plain structs that travel over the control socket, shared
// by the daemon and nexthopctl. Times are RFC 3339 in JSON; durations are seconds.
package status

import (
	"net/netip"
	"time"
)

// Status is the one-screen summary.
type Status struct {
	Version   string     `json:"version"`
	PID       int        `json:"pid"`
	StartedAt time.Time  `json:"startedAt"`
	ASN       uint32     `json:"asn"`
	RouterID  netip.Addr `json:"routerID"`
	Listen    []string   `json:"listen"`
	Config    string     `json:"config"` // file
	Ready     bool       `json:"ready"`
	NotReady  string     `json:"notReady,omitempty"` // why not
	// Degraded lists what is wrong, each with what to do next; empty when all is well.
	Degraded []Problem `json:"degraded"`
	Peers    PeerCount `json:"peers"`
	// LastFailover is the latest one of this run.
	LastFailover *Failover `json:"lastFailover,omitempty"`
	FIB          FIBStatus `json:"fib"`
}

// Problem is something an operator should act on.
type Problem struct {
	What string `json:"what"`
	Next string `json:"next"` // the next command
}

// PeerCount sums up the sessions.
type PeerCount struct {
	Configured  int `json:"configured"` // those of the file, and the dynamic ones that did not leave
	Established int `json:"established"`
	Shutdown    int `json:"shutdown"`
}

// FIBStatus sums up the kernel's side.
type FIBStatus struct {
	Mode           string `json:"mode"` // install or observe
	Table          uint32 `json:"table"`
	Metric         uint32 `json:"metric"`
	Protocol       uint8  `json:"protocol"`
	NextHopObjects bool   `json:"nextHopObjects"`
	Prefixes       int    `json:"prefixes"`  // known from any peer
	Desired        int    `json:"desired"`   // should be installed
	Installed      int    `json:"installed"` // are
	Held           int    `json:"held"`      // their removal waits for a resume
	Kept           int    `json:"kept"`      // of those, not because of a reload
	Single         int    `json:"single"`    // of the desired, those that one peer alone forwards
	// Rejected counts prefixes that are known and not installed, by reason.
	Rejected map[string]int `json:"rejected"`
	Groups   int            `json:"groups"`
	NextHops int            `json:"nextHops"`
	// Unanswered are the next hops whose neighbour does not answer.
	Unanswered int `json:"unanswered,omitempty"`
	// Sweep: "pending" while routes of an earlier run wait for the peers, else "done".
	Sweep    string     `json:"sweep"`
	LastSync *time.Time `json:"lastSync,omitempty"`
	// Persisted counts the paths that are kept, until PersistUntil, although all sessions
	// are lost (fib.persist).
	Persisted    int        `json:"persisted,omitempty"`
	PersistUntil *time.Time `json:"persistUntil,omitempty"`
	At           time.Time  `json:"at,omitzero"` // when all of this was true
}

// Peer is a configured neighbour and its session.
type Peer struct {
	Name        string     `json:"name"`
	Dynamic     bool       `json:"dynamic,omitempty"` // it came by a range
	Description string     `json:"description,omitempty"`
	Address     netip.Addr `json:"address"`
	ASN         uint32     `json:"asn"`
	State       string     `json:"state"`
	Shutdown    bool       `json:"shutdown,omitempty"`
	// Disabled: by an operator, until enabled. Shutdown is true too.
	Disabled     bool        `json:"disabled,omitempty"`
	Since        *time.Time  `json:"since,omitempty"` // of the present state
	LocalAddress *netip.Addr `json:"localAddress,omitempty"`
	RemoteID     *netip.Addr `json:"remoteID,omitempty"`
	HoldTime     int         `json:"holdTime"`  // seconds, negotiated; configured when down
	Keepalive    int         `json:"keepalive"` // seconds
	Flaps        uint64      `json:"flaps"`
	Received     int         `json:"received"` // prefixes
	Accepted     int         `json:"accepted"`
	// Refused counts the paths that are never used, by reason: loops, guards.
	Refused    map[string]int `json:"refused,omitempty"`
	Advertised int            `json:"advertised"`
	// OnlyToCustomers counts the paths that the peer is not told because they are for
	// customers only, and its role is another (RFC 9234).
	OnlyToCustomers int `json:"onlyToCustomers,omitempty"`
	// Role is what the peer is to us, RoleConfirmed that its own OPEN says so.
	Role          string `json:"role,omitempty"`
	RoleConfirmed bool   `json:"roleConfirmed,omitempty"`
	// Families splits received, accepted and advertised, by "ipv4" and "ipv6".
	Families         map[string]Prefixes `json:"families,omitempty"`
	Restarting       bool                `json:"restarting,omitempty"`     // graceful restart under way
	LongLivedStale   int                 `json:"longLivedStale,omitempty"` // paths (RFC 9494)
	LongLivedUntil   *time.Time          `json:"longLivedUntil,omitempty"` // they are kept
	MessagesReceived map[string]uint64   `json:"messagesReceived,omitempty"`
	MessagesSent     map[string]uint64   `json:"messagesSent,omitempty"`
	// Faults counts the messages that were wrong, by reaction (RFC 7606): ignored,
	// attribute-discard, treat-as-withdraw, session-reset.
	Faults           map[string]uint64 `json:"faults,omitempty"`
	PeerCapabilities []string          `json:"peerCapabilities,omitempty"`
	LastDown         string            `json:"lastDown,omitempty"` // why
	LastDownAt       *time.Time        `json:"lastDownAt,omitempty"`
	Warning          string            `json:"warning,omitempty"` // something to act on
	BFD              string            `json:"bfd,omitempty"`     // state of its BFD session; absent: there is none
}

// Prefixes counts a peer's prefixes of one family.
type Prefixes struct {
	Received   int  `json:"received"`
	Accepted   int  `json:"accepted"`
	Advertised *int `json:"advertised,omitempty"` // absent: not counted (yet)
	Limit      int  `json:"limit"`                // of what it may announce
	Beyond     int  `json:"beyond,omitempty"`     // received, and not used because of a limit
}

// Overview is the state at one moment, as the status page shows it.
type Overview struct {
	Status
	Host      string // name
	VNet      []netip.Prefix
	PeerList  []Peer
	Groups    []Group // without a way in use first, then by their number of prefixes
	Rest      Group   // sums up the groups beyond; without ways
	More      int     // their number
	Failovers []Failover
}

// Group is what the prefixes with the same ranking of ways have in common.
type Group struct {
	Ways      []Way // none: an earlier run left the routes, and no peer has confirmed them yet
	Prefixes  int
	Installed int
}

// Way is a next hop that a peer announces for a group.
type Way struct {
	Peer      string // name
	NextHop   netip.Addr
	Blackhole bool // there is no next hop: the traffic is dropped, as the peer asked for
	Use       Use
	Why       string // it is dead: in a word
}

// To is where it leads, as explain writes it.
func (w Way) To() string {
	if w.Blackhole {
		return "blackhole"
	}
	return w.NextHop.String()
}

// Use says what becomes of a way at present.
type Use string

// The uses of a way.
const (
	InUse   Use = "in use"
	Standby Use = "standby"
	Dead    Use = "dead"
)

// Path is a row of the learned (S32) or the advertised view (S33).
type Path struct {
	LocalAddress string `json:"localAddress"`
	Network      string `json:"network"`
	NextHop      string `json:"nextHop"`
	SourcePeer   string `json:"sourcePeer"`
	Origin       string `json:"origin"` // EBgp (learned), Igp (advertised)
	AsPath       string `json:"asPath"` // hyphen-joined
	Weight       int    `json:"weight"` // 32768 learned, 0 advertised
	// Ours, beyond what Azure shows. Learned view only, but for Peer and the last four.
	Peer           string    `json:"peer,omitempty"` // name of the peer it was learned from, or is advertised to
	Best           bool      `json:"best"`
	Installed      bool      `json:"installed"`
	Reason         string    `json:"reason,omitempty"` // why it is not used
	Stale          bool      `json:"stale,omitempty"`
	LongLivedStale bool      `json:"longLivedStale,omitempty"` // besides, and the last choice
	Since          time.Time `json:"since,omitzero"`
	BGPOrigin      string    `json:"bgpOrigin,omitempty"` // igp, egp, incomplete
	MED            *uint32   `json:"med,omitempty"`
	Communities    []string  `json:"communities,omitempty"`
	OTC            *uint32   `json:"otc,omitempty"` // the AS that says: only to customers (RFC 9234)
}

// Route is a row of the host's effective routes, read back from the kernel (S35):
// one row per next hop.
type Route struct {
	Source      string `json:"source"` // VirtualNetworkGateway (ours), VNet, Default (anything else)
	State       string `json:"state"`  // Active, Invalid (a better metric wins)
	Prefix      string `json:"prefix"`
	NextHopType string `json:"nextHopType"` // VirtualAppliance, VnetLocal, Internet, None
	NextHopIP   string `json:"nextHopIP"`
	Interface   string `json:"interface,omitempty"`
	Metric      uint32 `json:"metric"`
	Protocol    string `json:"protocol"`
	Table       uint32 `json:"table"`
	Peer        string `json:"peer,omitempty"` // names of the peers behind this next hop
}

// Explanation answers "why is this route (not) installed?" (S36).
type Explanation struct {
	Query  string `json:"query"`
	Prefix string `json:"prefix,omitempty"` // what matched; empty when nothing did
	// Verdict is one sentence.
	Verdict string        `json:"verdict"`
	Paths   []ExplainPath `json:"paths"`
	// Desired, InKernel and Foreign are next hops and routes as ip(8) would write them.
	Desired  []string `json:"desired"`
	InKernel []string `json:"inKernel"`
	Foreign  []string `json:"foreign,omitempty"`
	Reason   string   `json:"reason,omitempty"` // of the prefix: inside-vnet, foreign-route, ...
	// Held says what would remove the route, is held back for that, and how to go on.
	Held        string     `json:"held,omitempty"`
	LastError   string     `json:"lastError,omitempty"`
	LastErrorAt *time.Time `json:"lastErrorAt,omitempty"`
	Attempts    int        `json:"attempts,omitempty"`
	NextRetry   *time.Time `json:"nextRetry,omitempty"`
}

// ExplainPath is one path, and how it fared.
type ExplainPath struct {
	Path
	// Step of the decision at which it lost: as-path-longer, origin-worse, med-higher...; "" for those used.
	Step string `json:"step,omitempty"`
	// Detail puts it in a sentence: "AS path has 3 ASNs, the best has 1".
	Detail string `json:"detail,omitempty"`
	// Rule of the peer's import filter that decided about it, in words.
	Rule string `json:"rule,omitempty"`
	ECMP bool   `json:"ecmp"` // shares the traffic
	// Resolution of the next hop: "via 10.1.0.4 dev eth0 (host route 10.1.0.0/16)" or why there is none.
	Resolution string `json:"resolution"`
}

// Failover is one move of traffic away from a lost peer, link or neighbour.
type Failover struct {
	At     time.Time `json:"at"`     // of the signal
	Signal string    `json:"signal"` // what told of the loss, and whose: "session 10.1.0.4", "link eth1"
	// Groups that were rewritten, and the prefixes that moved with them.
	Groups       int   `json:"groups"`
	Prefixes     int   `json:"prefixes"`
	Microseconds int64 `json:"microseconds"` // from the signal to the kernel's confirmation
}

// EventTypes are what an Event may be about.
func EventTypes() []string {
	return []string{"session", "bfd", "path", "route", "nexthop", "config", "fib"}
}

// Event is one line of `nexthopctl monitor`.
type Event struct {
	Time    time.Time         `json:"time"`
	Type    string            `json:"type"` // one of EventTypes
	Peer    string            `json:"peer,omitempty"`
	Prefix  string            `json:"prefix,omitempty"`
	Message string            `json:"message"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Error string `json:"error"`
	Next  string `json:"next,omitempty"` // the next command to try
	// Lines are several mistakes, where Error only sums them up.
	Lines []string `json:"lines,omitempty"`
}

// Doctor is what the daemon knows of its host, for nexthopctl doctor to judge.
type Doctor struct {
	PID            int      `json:"pid"`
	Namespace      string   `json:"namespace"` // of the network, as /proc/PID/ns/net names it
	Listen         []string `json:"listen"`
	Mode           string   `json:"mode"` // install or observe
	Table          uint32   `json:"table"`
	Metric         uint32   `json:"metric"`
	Protocol       uint8    `json:"protocol"`
	NextHopObjects bool     `json:"nextHopObjects"` // the kernel has them, and they are used
	IPv6           bool     `json:"ipv6"`           // some route of ours is IPv6
	// Legs are the interfaces that lead to next hops in use.
	Legs  []string     `json:"legs"`
	Peers []DoctorPeer `json:"peers"`
	Rules []DoctorRule `json:"rules"`
	// SameProtocol and SameMetric are routes of others that carry our protocol, or our
	// metric in our table, as ip(8) writes them. No more than a few are listed.
	SameProtocol []string `json:"sameProtocol"`
	SameMetric   []string `json:"sameMetric"`
	// Compared routes with several next hops were read back; Differ lists a few of those that
	// are not as they should be.
	Compared int      `json:"compared"`
	Differ   []string `json:"differ"`
}

// DoctorPeer is the host's way to a peer.
type DoctorPeer struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Way is the route and the next hops, empty where there is none; Why says why.
	Way []string `json:"way"`
	Why string   `json:"why,omitempty"`
	// Interfaces of the way, and the least MTU of them; 0: not known.
	Interfaces []string `json:"interfaces"`
	MTU        int      `json:"mtu"`
	// Connected is the interface whose subnet the peer is in.
	Connected string `json:"connected,omitempty"`
	// Captured is a route that is in the way of it, as ip(8) writes it.
	Captured string `json:"captured,omitempty"`
}

// DoctorRule is a routing policy rule.
type DoctorRule struct {
	IPv6     bool   `json:"ipv6,omitempty"`
	Priority uint32 `json:"priority"`
	Table    uint32 `json:"table"`
	Lookup   bool   `json:"lookup"` // asks Table; else it refuses or jumps
	All      bool   `json:"all"`    // for all packets, and every route of the table
	VRF      bool   `json:"vrf,omitempty"`
}

// Reload answers a request to read the configuration file again.
type Reload struct {
	// Plan is the change, a line each, for people; the last says which sessions are reset.
	Plan    string `json:"plan"`
	Changed bool   `json:"changed"` // the file differs from what is in force
	Applied bool   `json:"applied"` // it is in force now; false for a dry run
	// Removes is how many of the Installed routes the change removes from the kernel, until
	// sessions that are reset are back. Held: too many to be applied without a resume.
	Removes   int  `json:"removes,omitempty"`
	Installed int  `json:"installed,omitempty"`
	Held      bool `json:"held,omitempty"`
	// NeedsRestart are the keys that keep their old values until a restart.
	NeedsRestart []string `json:"needsRestart,omitempty"`
}

// Resync answers a request to compare everything with the kernel.
type Resync struct {
	Routes      int `json:"routes"`         // of ours, found in the kernel
	Differences int `json:"differences"`    // found, and written right after
	Kept        int `json:"kept,omitempty"` // too many to be removed without a resume
}

// Done answers a request that changed something: one sentence for people.
type Done struct {
	Done string `json:"done"`
	Next string `json:"next,omitempty"` // the command that takes it back, or goes on
}

// PolicyRequest is the body of a POST to PathPolicy: what would the filter of a peer say?
type PolicyRequest struct {
	Peer   string `json:"peer"` // name or address
	Export bool   `json:"export,omitempty"`
	// Config is the text of a configuration that is not in force, and File its name.
	Config string `json:"config,omitempty"`
	File   string `json:"file,omitempty"`
	// Learned: of all paths that the peer announces now. Else of one path:
	Learned     bool     `json:"learned,omitempty"`
	Prefix      string   `json:"prefix,omitempty"`
	ASPath      string   `json:"asPath,omitempty"` // default: the peer's AS
	NextHop     string   `json:"nextHop,omitempty"`
	MED         *uint32  `json:"med,omitempty"`
	Communities []string `json:"communities,omitempty"` // large ones too
}

// PolicyTest answers a PolicyRequest.
type PolicyTest struct {
	Peer     string `json:"peer"`
	Prefix   string `json:"prefix,omitempty"`
	Accepted bool   `json:"accepted"`       // the one path
	Rule     string `json:"rule,omitempty"` // that decided, in words
	// Of all paths learned: how many there are, what each rule decides, how many are
	// decided otherwise than now, and the first thousand of those.
	Paths   int            `json:"paths,omitempty"`
	Rules   []PolicyCount  `json:"rules,omitempty"`
	Changed int            `json:"changed,omitempty"`
	Changes []PolicyChange `json:"changes,omitempty"`
}

// PolicyCount is how many paths a rule decides.
type PolicyCount struct {
	Rule     string `json:"rule"`
	Accepted bool   `json:"accepted"`
	Paths    int    `json:"paths"`
}

// PolicyChange is a path that is decided otherwise than now.
type PolicyChange struct {
	Prefix   string `json:"prefix"`
	Accepted bool   `json:"accepted"` // from now on
	Rule     string `json:"rule"`
}

// ReloadRequest is the body of a POST to PathReload.
type ReloadRequest struct {
	DryRun bool `json:"dryRun"` // only tell what would change
}

// ResyncRequest is the body of a POST to PathResync.
type ResyncRequest struct {
	Install bool `json:"install"` // end what a flush began
}

// ResumeRequest is the body of a POST to PathResume.
type ResumeRequest struct {
	Yes bool `json:"yes"` // go on; else only tell what waits
}

// PeerRequest is the body of a POST to PathPeer.
type PeerRequest struct {
	Peer   string `json:"peer"`   // name or address
	Action string `json:"action"` // disable, enable, reset, refresh
	Reason string `json:"reason,omitempty"`
}

// Paths that take a POST with a JSON body and change something: PathReload (ReloadRequest,
// answers Reload; 422 for a file with mistakes), PathResync (ResyncRequest, Resync),
// PathPeer (PeerRequest, Done), PathFlush, PathDrain and PathUndrain (no body, Done), PathResume (ResumeRequest, Done). 403:
// the caller may only read; 409: it makes no sense at present.
const (
	PathReload  = "/v1/reload"
	PathResync  = "/v1/resync"
	PathPeer    = "/v1/peer"
	PathFlush   = "/v1/flush"
	PathDrain   = "/v1/drain"
	PathUndrain = "/v1/undrain"
	PathResume  = "/v1/resume"
)

// Paths of the control socket, GET but for PathPolicy: PathStatus answers Status, PathPeers []Peer,
// PathLearned and PathAdvertised []Path (query "peer": a name or an address; 404 with
// an Error when it is not known), PathRoutes []Route, PathExplain Explanation (query
// "q": a prefix or an address), PathEvents a stream of Event, one JSON object a line.
// PathBFD answers BFD.
// Lists come ordered by prefix (netip.Prefix.Compare), then by peer: nexthopctl passes
// them on as JSON without holding them. PathEvents sends its header at once, not with
// the first event.
const (
	PathStatus     = "/v1/status"
	PathPeers      = "/v1/peers"
	PathLearned    = "/v1/learned"
	PathAdvertised = "/v1/advertised"
	PathRoutes     = "/v1/routes"
	PathExplain    = "/v1/explain"
	PathEvents     = "/v1/events"
	PathBFD        = "/v1/bfd"
	PathFailovers  = "/v1/failovers" // answers []Failover, the latest first
	PathPolicy     = "/v1/policy"    // POST of a PolicyRequest, changes nothing, answers PolicyTest
	PathDoctor     = "/v1/doctor"    // answers Doctor
)
