package metrics

import (
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
)

// peerDesc is a series per peer. "peer" is the address, as in the journal's PEER field;
// the name is in nexthopd_bgp_peer_info, so that renaming a peer ends no series.
func peerDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("nexthopd_bgp_peer_"+name, help, append([]string{"peer", "peer_as"}, more...), nil)
}

func fibDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("nexthopd_fib_"+name, help, labels, nil)
}

// The series of the collector.
var (
	descReady = prometheus.NewDesc("nexthopd_ready",
		"1 once the first full synchronisation with the kernel is done, else 0.", nil, nil)

	descPeerInfo = peerDesc("info",
		"Always 1 for each configured peer; name is the configured name, local_address our end of the session (empty while it is not established).",
		"name", "local_address")
	descPeerUp         = peerDesc("up", "1 when the BGP session with the peer is Established, else 0.")
	descPeerShutdown   = peerDesc("shutdown", "1 when the peer is shut down by configuration or by an operator, else 0.")
	descPeerRestarting = peerDesc("restarting", "1 while the peer restarts gracefully and its stale routes are kept, else 0.")
	descPeerReceived   = peerDesc("prefixes_received", "Prefixes that the peer announces.")
	descPeerAccepted   = peerDesc("prefixes_accepted", "Prefixes that the peer announces and that may be used (not refused by a loop check, filter or limit).")
	descPeerAdvertised = peerDesc("prefixes_advertised", "Prefixes that are announced to the peer.")
	descPeerFlaps      = peerDesc("flaps_total", "Times an established session with the peer was lost.")
	descPeerMsgIn      = peerDesc("messages_received_total", "BGP messages received from the peer, by type.", "type")
	descPeerMsgOut     = peerDesc("messages_sent_total", "BGP messages sent to the peer, by type.", "type")
	descPeerSince      = peerDesc("established_timestamp_seconds",
		"Unix time at which the present session with the peer was established; absent while it is not.")

	descFIBInfo = fibDesc("info",
		"Always 1; mode is install or observe (nothing is written to the kernel), table, metric and protocol are those of our routes.",
		"mode", "table", "metric", "protocol")
	descFIBRoutes = fibDesc("routes",
		"Prefixes by state: known (from any peer), desired (should be in the kernel), installed (are), rejected (known, and not to be or not installed).",
		"state")
	descFIBRejected = fibDesc("rejected_routes", "Prefixes that are known and not installed, by reason.", "reason")
	descFIBGroups   = fibDesc("groups", "Next-hop groups of ours in the kernel.")
	descFIBNextHops = fibDesc("nexthops", "Next hops of ours in the kernel.")
	descFIBObjects  = fibDesc("nexthop_objects_enabled", "1 when routes name next-hop groups, 0 when they carry their next hops themselves (classic mode).")
	descFIBSweep    = fibDesc("sweep_pending", "1 while routes of an earlier run are kept because the peers were not all heard yet, else 0.")
	descFIBSync     = fibDesc("last_sync_timestamp_seconds", "Unix time of the last full comparison with the kernel; absent before the first.")

	allDescs = []*prometheus.Desc{
		descReady,
		descPeerInfo, descPeerUp, descPeerShutdown, descPeerRestarting, descPeerReceived, descPeerAccepted, descPeerAdvertised,
		descPeerFlaps, descPeerMsgIn, descPeerMsgOut, descPeerSince,
		descFIBInfo, descFIBRoutes, descFIBRejected, descFIBGroups, descFIBNextHops, descFIBObjects, descFIBSweep, descFIBSync,
	}
)

// collector reads the source once per scrape, so that what one scrape shows belongs together.
type collector struct{ src Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := sink(ch)
	ready, _ := c.src.Ready()
	out.flag(descReady, ready)
	for _, p := range c.src.Peers() {
		out.peer(p)
	}
	out.fib(c.src.FIB())
}

type sink chan<- prometheus.Metric

func (s sink) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil { // a label that is not UTF-8: the scrape tells, and shows the rest
		m = prometheus.NewInvalidMetric(d, err)
	}
	s <- m
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) flag(d *prometheus.Desc, b bool, labels ...string) {
	v := 0.0
	if b {
		v = 1
	}
	s.gauge(d, v, labels...)
}

func (s sink) peer(p status.Peer) {
	addr, as := p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10)
	up := p.State == string(session.Established)
	local := ""
	if up && p.LocalAddress != nil {
		local = p.LocalAddress.String()
	}
	s.gauge(descPeerInfo, 1, addr, as, p.Name, local)
	s.flag(descPeerUp, up, addr, as)
	s.flag(descPeerShutdown, p.Shutdown, addr, as)
	s.flag(descPeerRestarting, p.Restarting, addr, as)
	s.gauge(descPeerReceived, float64(p.Received), addr, as)
	s.gauge(descPeerAccepted, float64(p.Accepted), addr, as)
	s.gauge(descPeerAdvertised, float64(p.Advertised), addr, as)
	s.counter(descPeerFlaps, p.Flaps, addr, as)
	for _, typ := range slices.Sorted(maps.Keys(p.MessagesReceived)) {
		s.counter(descPeerMsgIn, p.MessagesReceived[typ], addr, as, typ)
	}
	for _, typ := range slices.Sorted(maps.Keys(p.MessagesSent)) {
		s.counter(descPeerMsgOut, p.MessagesSent[typ], addr, as, typ)
	}
	if up && p.Since != nil {
		s.gauge(descPeerSince, float64(p.Since.UnixMilli())/1000, addr, as)
	}
}

func (s sink) fib(f status.FIBStatus) {
	s.gauge(descFIBInfo, 1, f.Mode, strconv.FormatUint(uint64(f.Table), 10), strconv.FormatUint(uint64(f.Metric), 10),
		strconv.FormatUint(uint64(f.Protocol), 10))
	rejected := 0
	for _, reason := range slices.Sorted(maps.Keys(f.Rejected)) {
		rejected += f.Rejected[reason]
		s.gauge(descFIBRejected, float64(f.Rejected[reason]), reason)
	}
	s.gauge(descFIBRoutes, float64(f.Prefixes), "known")
	s.gauge(descFIBRoutes, float64(f.Desired), "desired")
	s.gauge(descFIBRoutes, float64(f.Installed), "installed")
	s.gauge(descFIBRoutes, float64(rejected), "rejected")
	s.gauge(descFIBGroups, float64(f.Groups))
	s.gauge(descFIBNextHops, float64(f.NextHops))
	s.flag(descFIBObjects, f.NextHopObjects)
	s.flag(descFIBSweep, f.Sweep == "pending")
	if f.LastSync != nil {
		s.gauge(descFIBSync, float64(f.LastSync.UnixMilli())/1000)
	}
}
