package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
)

// series is what a metric of the collector is, for Prometheus and for the manual.
type series struct {
	*prometheus.Desc
	name, help string
	kind       kind
	labels     []string
}

// kind says what the values of a series are.
type kind string

const (
	gauge   kind = "gauge"
	counter kind = "counter"
)

func newSeries(name, help string, k kind, labels ...string) series {
	return series{prometheus.NewDesc(name, help, labels, nil), name, help, k, labels}
}

// ofPeer is a series per peer. "peer" is the address, as in the journal's PEER field;
// the name is in nexthopd_bgp_peer_info, so that renaming a peer ends no series.
func ofPeer(name, help string, k kind, more ...string) series {
	return newSeries("nexthopd_bgp_peer_"+name, help, k, append([]string{"peer", "peer_as"}, more...)...)
}

func ofFIB(name, help string, k kind, labels ...string) series {
	return newSeries("nexthopd_fib_"+name, help, k, labels...)
}

// The series of the collector.
var (
	descReady = newSeries("nexthopd_ready",
		"1 once the first full synchronisation with the kernel is done, else 0.", gauge)

	descPeerInfo = ofPeer("info",
		"Always 1 for each configured peer; name is the configured name, local_address our end of the session (empty while it is not established).",
		gauge, "name", "local_address")
	descPeerUp         = ofPeer("up", "1 when the BGP session with the peer is Established, else 0.", gauge)
	descPeerState      = ofPeer("state", "1 for the state that the BGP session is in (RFC 4271 section 8.2.2), 0 for each of the others.", gauge, "state")
	descPeerShutdown   = ofPeer("shutdown", "1 when the peer is shut down by configuration or by an operator, else 0.", gauge)
	descPeerRestarting = ofPeer("restarting", "1 while the peer restarts gracefully and its stale routes are kept, else 0.", gauge)
	descPeerLongLived  = ofPeer("long_lived_stale_paths", "Paths of the peer that are long-lived stale: it is away for longer than a restart takes, and they are the last choice (RFC 9494).", gauge)
	descPeerReceived   = ofPeer("prefixes_received", "Prefixes that the peer announces, by address family (ipv4, ipv6).", gauge, "family")
	descPeerAccepted   = ofPeer("prefixes_accepted", "Prefixes that the peer announces and that may be used (not refused by a loop check, filter or limit), by address family.", gauge, "family")
	descPeerAdvertised = ofPeer("prefixes_advertised", "Prefixes that are announced to the peer, by address family, as of the last second or two; absent while they are not counted: in the first moment of a session, and where more than 50,000 paths are known.", gauge, "family")
	descPeerRefused    = ofPeer("paths_refused", "Paths of the peer that are never used whatever the others are, by reason: loops, guards, filters, limits.", gauge, "reason")
	descPeerLimit      = ofPeer("prefix_limit", "Prefixes that the peer may announce (prefix-limit), by address family.", gauge, "family")
	descPeerBeyond     = ofPeer("prefixes_beyond_limit", "Prefixes that the peer announces and that are not used because of a prefix limit, by address family.", gauge, "family")
	descPeerFlaps      = ofPeer("flaps_total", "Times an established session with the peer was lost.", counter)
	descPeerMsgIn      = ofPeer("messages_received_total", "BGP messages received from the peer, by type.", counter, "type")
	descPeerMsgOut     = ofPeer("messages_sent_total", "BGP messages sent to the peer, by type.", counter, "type")
	descPeerFaults     = ofPeer("faulty_messages_total", "Messages of the peer that were malformed, by reaction (RFC 7606): ignored, attribute-discard, treat-as-withdraw, session-reset.", counter, "reaction")
	descPeerSince      = ofPeer("established_timestamp_seconds",
		"Unix time at which the present session with the peer was established; absent while it is not.", gauge)

	descFIBInfo = ofFIB("info",
		"Always 1; mode is install or observe (nothing is written to the kernel), table, metric and protocol are those of our routes.",
		gauge, "mode", "table", "metric", "protocol")
	descFIBRoutes = ofFIB("routes",
		"Prefixes by state: known (from any peer), desired (should be in the kernel), installed (are), rejected (known, and not to be or not installed).",
		gauge, "state")
	descFIBRejected = ofFIB("rejected_routes", "Prefixes that are known and not installed, by reason.", gauge, "reason")
	descFIBSingle   = ofFIB("routes_without_redundancy",
		"Desired prefixes that one peer alone forwards: if it is lost, there is no way to them.", gauge)
	descFIBGroups   = ofFIB("groups", "Next-hop groups of ours in the kernel.", gauge)
	descFIBNextHops = ofFIB("nexthops", "Next hops of ours in the kernel.", gauge)
	descFIBNoAnswer = ofFIB("nexthops_unanswered", "Next hops that do not answer ARP or neighbour discovery.", gauge)
	descFIBObjects  = ofFIB("nexthop_objects_enabled", "1 when routes name next-hop groups, 0 when they carry their next hops themselves (classic mode).", gauge)
	descFIBHeld     = ofFIB("held_routes", "Installed routes that should be removed, too many at once: that waits for nexthopctl resume (fib.blast-radius).", gauge)
	descFIBSweep    = ofFIB("sweep_pending", "1 while routes of an earlier run are kept because the peers were not all heard yet, else 0.", gauge)
	descFIBPersist  = ofFIB("persisted_paths", "Paths that are kept, unconfirmed, although all sessions are lost (fib.persist).", gauge)
	descFIBSync     = ofFIB("last_sync_timestamp_seconds", "Unix time of the last full comparison with the kernel; absent before the first.", gauge)
	descFIBRead     = ofFIB("read_timestamp_seconds",
		"Unix time at which all nexthopd_fib gauges of this scrape were read; it falls behind only where the daemon's main loop is busy or hangs.", gauge)

	allSeries = []series{
		descReady,
		descPeerInfo, descPeerUp, descPeerState, descPeerShutdown, descPeerRestarting, descPeerLongLived, descPeerReceived, descPeerAccepted, descPeerAdvertised, descPeerRefused,
		descPeerLimit, descPeerBeyond,
		descPeerFlaps, descPeerMsgIn, descPeerMsgOut, descPeerFaults, descPeerSince,
		descFIBInfo, descFIBRoutes, descFIBRejected, descFIBSingle, descFIBGroups, descFIBNextHops, descFIBNoAnswer, descFIBObjects, descFIBSweep, descFIBHeld, descFIBPersist, descFIBSync,
		descFIBRead,
		descBFDUp, descBFDFailed, descBFDTransitions, descBFDDetection, descBFDIn, descBFDOut, descBFDSendErrors, descBFDDropped,
		descBFDJitter, descBFDGap, descBFDLate, descBFDEngine, descBFDEngineLate, descBFDStray,
	}
)

// collector reads the source once per scrape, so that what one scrape shows belongs together.
type collector struct{ src Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allSeries {
		ch <- d.Desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := sink(ch)
	ready, _ := c.src.Ready()
	out.flag(descReady, ready)
	for _, p := range c.src.Peers() {
		if p.Dynamic && p.State != string(session.Established) && !p.Restarting {
			continue // it left, which is nothing to be alarmed about
		}
		out.peer(p)
	}
	out.fib(c.src.FIB())
	out.bfd(c.src.BFD())
}

type sink chan<- prometheus.Metric

func (s sink) value(d series, v float64, labels ...string) {
	typ := prometheus.GaugeValue
	if d.kind == counter {
		typ = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(d.Desc, typ, v, labels...)
	if err != nil { // a label that is not UTF-8: the scrape tells, and shows the rest
		m = prometheus.NewInvalidMetric(d.Desc, err)
	}
	s <- m
}

func (s sink) count(d series, n int, labels ...string) { s.value(d, float64(n), labels...) }

func (s sink) time(d series, t time.Time, labels ...string) {
	s.value(d, float64(t.UnixMilli())/1000, labels...)
}

func (s sink) flag(d series, b bool, labels ...string) {
	v := 0.0
	if b {
		v = 1
	}
	s.value(d, v, labels...)
}

func (s sink) peer(p status.Peer) {
	addr, as := p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10)
	up := p.State == string(session.Established)
	local := ""
	if up && p.LocalAddress != nil {
		local = p.LocalAddress.String()
	}
	s.count(descPeerInfo, 1, addr, as, p.Name, local)
	s.flag(descPeerUp, up, addr, as)
	s.flag(descPeerShutdown, p.Shutdown, addr, as)
	s.flag(descPeerRestarting, p.Restarting, addr, as)
	s.count(descPeerLongLived, p.LongLivedStale, addr, as)
	for _, state := range session.States {
		s.flag(descPeerState, p.State == string(state), addr, as, string(state))
	}
	for _, family := range slices.Sorted(maps.Keys(p.Families)) {
		n := p.Families[family]
		s.count(descPeerReceived, n.Received, addr, as, family)
		s.count(descPeerAccepted, n.Accepted, addr, as, family)
		if n.Advertised != nil {
			s.count(descPeerAdvertised, *n.Advertised, addr, as, family)
		}
		s.count(descPeerLimit, n.Limit, addr, as, family)
		s.count(descPeerBeyond, n.Beyond, addr, as, family)
	}
	for _, reason := range slices.Sorted(maps.Keys(p.Refused)) {
		s.count(descPeerRefused, p.Refused[reason], addr, as, reason)
	}
	s.value(descPeerFlaps, float64(p.Flaps), addr, as)
	for _, typ := range slices.Sorted(maps.Keys(p.MessagesReceived)) {
		s.value(descPeerMsgIn, float64(p.MessagesReceived[typ]), addr, as, typ)
	}
	for _, typ := range slices.Sorted(maps.Keys(p.MessagesSent)) {
		s.value(descPeerMsgOut, float64(p.MessagesSent[typ]), addr, as, typ)
	}
	for _, reaction := range slices.Sorted(maps.Keys(p.Faults)) {
		s.value(descPeerFaults, float64(p.Faults[reaction]), addr, as, reaction)
	}
	if up && p.Since != nil {
		s.time(descPeerSince, *p.Since, addr, as)
	}
}

func (s sink) fib(f status.FIBStatus) {
	s.count(descFIBInfo, 1, f.Mode, strconv.FormatUint(uint64(f.Table), 10), strconv.FormatUint(uint64(f.Metric), 10),
		strconv.FormatUint(uint64(f.Protocol), 10))
	rejected := 0
	for _, reason := range slices.Sorted(maps.Keys(f.Rejected)) {
		rejected += f.Rejected[reason]
		s.count(descFIBRejected, f.Rejected[reason], reason)
	}
	s.count(descFIBRoutes, f.Prefixes, "known")
	s.count(descFIBRoutes, f.Desired, "desired")
	s.count(descFIBRoutes, f.Installed, "installed")
	s.count(descFIBRoutes, rejected, "rejected")
	s.count(descFIBSingle, f.Single)
	s.count(descFIBGroups, f.Groups)
	s.count(descFIBNextHops, f.NextHops)
	s.count(descFIBNoAnswer, f.Unanswered)
	s.flag(descFIBObjects, f.NextHopObjects)
	s.count(descFIBHeld, f.Held)
	s.flag(descFIBSweep, f.Sweep == "pending")
	s.count(descFIBPersist, f.Persisted)
	s.time(descFIBRead, f.At)
	if f.LastSync != nil {
		s.time(descFIBSync, *f.LastSync)
	}
}
