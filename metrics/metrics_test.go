package metrics

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/internal/version"
)

// fakeSource answers what the test sets.
type fakeSource struct {
	peers []status.Peer
	fib   status.FIBStatus
	bfd   status.BFD
	why   string // not ready
}

func (s *fakeSource) Peers() []status.Peer  { return s.peers }
func (s *fakeSource) BFD() status.BFD       { return s.bfd }
func (s *fakeSource) FIB() status.FIBStatus { return s.fib }
func (s *fakeSource) Overview() status.Overview {
	return status.Overview{Host: "here", Status: status.Status{Ready: true}}
}
func (s *fakeSource) Ready() (bool, string) { return s.why == "", s.why }

var testBuild = version.Info{Version: "1.2.3", Revision: "abc", Go: "go1.26", GoBGP: "4.8.0"}

// seedCase is S15's: two NVAs, one of them down.
func seedCase() *fakeSource {
	since := time.Unix(1700000000, 500e6)
	local := netip.MustParseAddr("10.1.2.4")
	two, one := 2, 1
	return &fakeSource{
		peers: []status.Peer{
			{
				Name: "quagga", Address: netip.MustParseAddr("10.1.0.4"), ASN: 65147, State: "Established", Since: &since,
				LocalAddress: &local, Flaps: 2, Received: 10, Accepted: 9, Advertised: 3, Refused: map[string]int{"first-as": 1},
				Families:         map[string]status.Prefixes{"ipv4": {Received: 8, Accepted: 7, Advertised: &two}, "ipv6": {Received: 2, Accepted: 2, Advertised: &one}},
				MessagesReceived: map[string]uint64{"update": 4}, MessagesSent: map[string]uint64{"keepalive": 7}, Faults: map[string]uint64{"treat-as-withdraw": 3},
			},
			{
				// Since is that of Active; the local address is left over from the last session.
				Name: "bird", Address: netip.MustParseAddr("10.1.0.5"), ASN: 65147, State: "Active", Since: &since,
				LocalAddress: &local, Shutdown: true, Restarting: true, LongLivedStale: 3,
			},
		},
		bfd: status.BFD{
			Engine: status.BFDEngine{Running: true, Dropped: map[string]uint64{"no-session": 3}, KernelDrops: 5, MaxLate: 0.002},
			Sessions: []status.BFDSession{
				{Peer: "quagga", Address: netip.MustParseAddr("10.1.0.4"), Mode: "single-hop", State: "up", Changes: 2, DetectionTime: 0.9,
					Sent: 10, Received: 11, SendErrors: 1, Dropped: map[string]uint64{"ttl": 4}, Jitter: 0.001, MaxGap: 0.31, MaxLate: 0.002},
				{Address: netip.MustParseAddr("10.1.0.100"), Mode: "multihop", State: "down", Failed: true, Changes: 3},
			},
		},
		fib: status.FIBStatus{
			Mode: "install", Table: 254, Metric: 20, Protocol: 165, NextHopObjects: true, Prefixes: 12, Desired: 10, Installed: 9, Single: 4, At: since,
			Rejected: map[string]int{"inside-vnet": 2, "next-hop-unreachable": 1}, Groups: 3, NextHops: 2, Sweep: "pending", LastSync: &since,
		},
	}
}

func registry(t *testing.T, src Source, ins *Instruments) *prometheus.Registry {
	t.Helper()
	reg, err := NewRegistry(src, ins, testBuild)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// S38: what a scrape shows is what the source says at that moment.
func TestScrape(t *testing.T) {
	const peers = `
# HELP nexthopd_bgp_peer_established_timestamp_seconds Unix time at which the present session with the peer was established; absent while it is not.
# TYPE nexthopd_bgp_peer_established_timestamp_seconds gauge
nexthopd_bgp_peer_established_timestamp_seconds{peer="10.1.0.4",peer_as="65147"} 1.7000000005e+09
# HELP nexthopd_bgp_peer_flaps_total Times an established session with the peer was lost.
# TYPE nexthopd_bgp_peer_flaps_total counter
nexthopd_bgp_peer_flaps_total{peer="10.1.0.4",peer_as="65147"} 2
nexthopd_bgp_peer_flaps_total{peer="10.1.0.5",peer_as="65147"} 0
# HELP nexthopd_bgp_peer_info Always 1 for each configured peer; name is the configured name, local_address our end of the session (empty while it is not established).
# TYPE nexthopd_bgp_peer_info gauge
nexthopd_bgp_peer_info{local_address="",name="bird",peer="10.1.0.5",peer_as="65147"} 1
nexthopd_bgp_peer_info{local_address="10.1.2.4",name="quagga",peer="10.1.0.4",peer_as="65147"} 1
# HELP nexthopd_bgp_peer_messages_received_total BGP messages received from the peer, by type.
# TYPE nexthopd_bgp_peer_messages_received_total counter
nexthopd_bgp_peer_messages_received_total{peer="10.1.0.4",peer_as="65147",type="update"} 4
# HELP nexthopd_bgp_peer_messages_sent_total BGP messages sent to the peer, by type.
# TYPE nexthopd_bgp_peer_messages_sent_total counter
nexthopd_bgp_peer_messages_sent_total{peer="10.1.0.4",peer_as="65147",type="keepalive"} 7
# HELP nexthopd_bgp_peer_paths_refused Paths of the peer that are never used whatever the others are, by reason: loops, guards, filters, limits.
# TYPE nexthopd_bgp_peer_paths_refused gauge
nexthopd_bgp_peer_paths_refused{peer="10.1.0.4",peer_as="65147",reason="first-as"} 1
# HELP nexthopd_bgp_peer_prefixes_accepted Prefixes that the peer announces and that may be used (not refused by a loop check, filter or limit), by address family.
# TYPE nexthopd_bgp_peer_prefixes_accepted gauge
nexthopd_bgp_peer_prefixes_accepted{family="ipv4",peer="10.1.0.4",peer_as="65147"} 7
nexthopd_bgp_peer_prefixes_accepted{family="ipv6",peer="10.1.0.4",peer_as="65147"} 2
# HELP nexthopd_bgp_peer_prefixes_advertised Prefixes that are announced to the peer, by address family, as of the last second or two; absent while they are not counted: in the first moment of a session, and where more than 50,000 paths are known.
# TYPE nexthopd_bgp_peer_prefixes_advertised gauge
nexthopd_bgp_peer_prefixes_advertised{family="ipv4",peer="10.1.0.4",peer_as="65147"} 2
nexthopd_bgp_peer_prefixes_advertised{family="ipv6",peer="10.1.0.4",peer_as="65147"} 1
# HELP nexthopd_bgp_peer_prefixes_received Prefixes that the peer announces, by address family (ipv4, ipv6).
# TYPE nexthopd_bgp_peer_prefixes_received gauge
nexthopd_bgp_peer_prefixes_received{family="ipv4",peer="10.1.0.4",peer_as="65147"} 8
nexthopd_bgp_peer_prefixes_received{family="ipv6",peer="10.1.0.4",peer_as="65147"} 2
# HELP nexthopd_bgp_peer_restarting 1 while the peer restarts gracefully and its stale routes are kept, else 0.
# TYPE nexthopd_bgp_peer_restarting gauge
nexthopd_bgp_peer_restarting{peer="10.1.0.4",peer_as="65147"} 0
nexthopd_bgp_peer_restarting{peer="10.1.0.5",peer_as="65147"} 1
# HELP nexthopd_bgp_peer_long_lived_stale_paths Paths of the peer that are long-lived stale: it is away for longer than a restart takes, and they are the last choice (RFC 9494).
# TYPE nexthopd_bgp_peer_long_lived_stale_paths gauge
nexthopd_bgp_peer_long_lived_stale_paths{peer="10.1.0.4",peer_as="65147"} 0
nexthopd_bgp_peer_long_lived_stale_paths{peer="10.1.0.5",peer_as="65147"} 3
# HELP nexthopd_bgp_peer_shutdown 1 when the peer is shut down by configuration or by an operator, else 0.
# TYPE nexthopd_bgp_peer_shutdown gauge
nexthopd_bgp_peer_shutdown{peer="10.1.0.4",peer_as="65147"} 0
nexthopd_bgp_peer_shutdown{peer="10.1.0.5",peer_as="65147"} 1
# HELP nexthopd_bgp_peer_state 1 for the state that the BGP session is in (RFC 4271 section 8.2.2), 0 for each of the others.
# TYPE nexthopd_bgp_peer_state gauge
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="Active"} 0
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="Connect"} 0
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="Established"} 1
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="Idle"} 0
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="OpenConfirm"} 0
nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="OpenSent"} 0
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="Active"} 1
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="Connect"} 0
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="Established"} 0
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="Idle"} 0
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="OpenConfirm"} 0
nexthopd_bgp_peer_state{peer="10.1.0.5",peer_as="65147",state="OpenSent"} 0
# HELP nexthopd_bgp_peer_up 1 when the BGP session with the peer is Established, else 0.
# TYPE nexthopd_bgp_peer_up gauge
nexthopd_bgp_peer_up{peer="10.1.0.4",peer_as="65147"} 1
nexthopd_bgp_peer_up{peer="10.1.0.5",peer_as="65147"} 0
`
	const fibAndBuild = `
# HELP nexthopd_build_info Always 1; the labels say what was built, and from which commit, with which Go and which GoBGP.
# TYPE nexthopd_build_info gauge
nexthopd_build_info{gobgp="4.8.0",goversion="go1.26",revision="abc",version="1.2.3"} 1
# HELP nexthopd_fib_groups Next-hop groups of ours in the kernel.
# TYPE nexthopd_fib_groups gauge
nexthopd_fib_groups 3
# HELP nexthopd_fib_info Always 1; mode is install or observe (nothing is written to the kernel), table, metric and protocol are those of our routes.
# TYPE nexthopd_fib_info gauge
nexthopd_fib_info{metric="20",mode="install",protocol="165",table="254"} 1
# HELP nexthopd_fib_last_sync_timestamp_seconds Unix time of the last full comparison with the kernel; absent before the first.
# TYPE nexthopd_fib_last_sync_timestamp_seconds gauge
nexthopd_fib_last_sync_timestamp_seconds 1.7000000005e+09
# HELP nexthopd_fib_nexthop_objects_enabled 1 when routes name next-hop groups, 0 when they carry their next hops themselves (classic mode).
# TYPE nexthopd_fib_nexthop_objects_enabled gauge
nexthopd_fib_nexthop_objects_enabled 1
# HELP nexthopd_fib_nexthops Next hops of ours in the kernel.
# TYPE nexthopd_fib_nexthops gauge
nexthopd_fib_nexthops 2
# HELP nexthopd_fib_read_timestamp_seconds Unix time at which all nexthopd_fib gauges of this scrape were read; it falls behind only where the daemon's main loop is busy or hangs.
# TYPE nexthopd_fib_read_timestamp_seconds gauge
nexthopd_fib_read_timestamp_seconds 1.7000000005e+09
# HELP nexthopd_fib_rejected_routes Prefixes that are known and not installed, by reason.
# TYPE nexthopd_fib_rejected_routes gauge
nexthopd_fib_rejected_routes{reason="inside-vnet"} 2
nexthopd_fib_rejected_routes{reason="next-hop-unreachable"} 1
# HELP nexthopd_fib_routes Prefixes by state: known (from any peer), desired (should be in the kernel), installed (are), rejected (known, and not to be or not installed).
# TYPE nexthopd_fib_routes gauge
nexthopd_fib_routes{state="desired"} 10
nexthopd_fib_routes{state="installed"} 9
nexthopd_fib_routes{state="known"} 12
nexthopd_fib_routes{state="rejected"} 3
# HELP nexthopd_fib_routes_without_redundancy Desired prefixes that one peer alone forwards: if it is lost, there is no way to them.
# TYPE nexthopd_fib_routes_without_redundancy gauge
nexthopd_fib_routes_without_redundancy 4
# HELP nexthopd_fib_sweep_pending 1 while routes of an earlier run are kept because the peers were not all heard yet, else 0.
# TYPE nexthopd_fib_sweep_pending gauge
nexthopd_fib_sweep_pending 1
# HELP nexthopd_ready 1 once the first full synchronisation with the kernel is done, else 0.
# TYPE nexthopd_ready gauge
nexthopd_ready 1
`
	src := seedCase()
	reg := registry(t, src, NewInstruments())
	check := func(want string) {
		t.Helper()
		var names []string
		for line := range strings.Lines(want) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
				names = append(names, f[2])
			}
		}
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
			t.Error(err)
		}
	}
	check(peers)
	check(fibAndBuild)

	// What was not counted is not shown as none.
	src.peers[0].Families = map[string]status.Prefixes{"ipv4": {Received: 8}}
	if n, err := testutil.GatherAndCount(reg, "nexthopd_bgp_peer_prefixes_advertised"); n != 0 || err != nil {
		t.Errorf("%d series of advertised prefixes that were not counted, %v", n, err)
	}

	// The next scrape shows the next state: a peer that was removed is gone.
	src.peers = src.peers[:1]
	src.peers[0].State = "Idle"
	src.why = "waiting for End-of-RIB"
	check(`
# HELP nexthopd_bgp_peer_up 1 when the BGP session with the peer is Established, else 0.
# TYPE nexthopd_bgp_peer_up gauge
nexthopd_bgp_peer_up{peer="10.1.0.4",peer_as="65147"} 0
# HELP nexthopd_ready 1 once the first full synchronisation with the kernel is done, else 0.
# TYPE nexthopd_ready gauge
nexthopd_ready 0
`)
}

func TestInstruments(t *testing.T) {
	ins := NewInstruments()
	reg := registry(t, &fakeSource{}, ins)
	ins.Operations(fib.RouteAdd, 64, 1)
	ins.Operations(fib.RouteAdd, 36, 0)
	ins.Repairs(RepairRoute, 3)
	ins.Resync(ResyncOverflow)
	ins.Overflow()
	ins.DynamicRefused()
	ins.ConnectionRefused(session.RefusedRate)
	ins.Convergence(3 * time.Millisecond)
	ins.Failover(300 * time.Microsecond)
	ins.Failover(time.Minute)

	if got := testutil.ToFloat64(ins.reloadOK); got != 1 || time.Since(time.Unix(int64(testutil.ToFloat64(ins.reloadedAt)), 0)) > time.Minute {
		t.Errorf("last reload successful = %v at %v, want the start to count as one", got, testutil.ToFloat64(ins.reloadedAt))
	}
	ins.Reload(false)
	got := func(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }
	for name, tt := range map[string]struct{ got, want float64 }{
		"operations done":    {got(ins.operations.WithLabelValues("route-add", "ok")), 100},
		"operations refused": {got(ins.operations.WithLabelValues("route-add", "refused")), 1},
		"repairs":            {got(ins.repairs.WithLabelValues("route")), 3},
		"resyncs":            {got(ins.resyncs.WithLabelValues("overflow")), 1},
		"overflows":          {got(ins.overflows), 1},
		"dynamic refused":    {got(ins.beyond), 1},
		"refused connection": {got(ins.refused.WithLabelValues("rate")), 1},
		"reload refused":     {got(ins.reloadOK), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %v, want %v", name, tt.got, tt.want)
		}
	}

	// A counter that appears with its first increment has no rate then: all are there at zero.
	for name, want := range map[string]int{
		"nexthopd_fib_operations_total": 2 * int(fib.NextHopDel), "nexthopd_fib_repairs_total": 5, "nexthopd_fib_resyncs_total": 8,
	} {
		if n, err := testutil.GatherAndCount(reg, name); n != want || err != nil {
			t.Errorf("%s has %d series, %v; want %d", name, n, err, want)
		}
	}

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]uint64{"nexthopd_fib_convergence_seconds": 1, "nexthopd_failover_seconds": 2}
	for _, f := range families {
		want, ok := samples[f.GetName()]
		if !ok {
			continue
		}
		delete(samples, f.GetName())
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != want || len(h.GetBucket()) == 0 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("%s: %d samples, %d classic buckets, %d native spans; want %d samples in both forms",
				f.GetName(), h.GetSampleCount(), len(h.GetBucket()), len(h.GetPositiveSpan()), want)
		}
	}
	if len(samples) > 0 {
		t.Errorf("histograms missing: %v", samples)
	}
}

func TestLint(t *testing.T) {
	reg := registry(t, seedCase(), NewInstruments())
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("lint: %s: %s", p.Metric, p.Text)
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
			t.Fatalf("%v: internal/tools/apt-packages installs it", err)
		}
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "metrics")
	if err := prometheus.WriteToTextfile(file, registry(t, seedCase(), NewInstruments())); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// A label that is no UTF-8 must not hide the other peers.
func TestBadLabelLeavesTheRest(t *testing.T) {
	src := seedCase()
	src.peers[0].Name = "\xff"
	families, err := registry(t, src, NewInstruments()).Gather()
	if err == nil {
		t.Error("Gather with an invalid name: no error")
	}
	n := 0
	for _, f := range families {
		if f.GetName() == "nexthopd_bgp_peer_up" {
			n = len(f.GetMetric())
		}
	}
	if n != 2 {
		t.Errorf("nexthopd_bgp_peer_up has %d series, want 2", n)
	}
}

// The manual lists every metric of ours that a scrape can show, and no other.
func TestDescribe(t *testing.T) {
	all, err := Describe()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]Description{}
	for _, d := range all {
		if _, twice := known[d.Name]; twice || d.Help == "" || d.Kind == "" {
			t.Errorf("described twice or not at all: %+v", d)
		}
		known[d.Name] = d
	}
	families, err := registry(t, seedCase(), NewInstruments()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "nexthopd_") {
			continue
		}
		d, ok := known[f.GetName()]
		delete(known, f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(d.Labels)
		if typ := strings.ToLower(f.GetType().String()); !ok || d.Help != f.GetHelp() || !strings.HasPrefix(d.Kind, typ) || !slices.Equal(d.Labels, labels) {
			t.Errorf("%s: described as %+v, a scrape has %s with the labels %v", f.GetName(), d, typ, labels)
		}
	}
	// A unit that was guessed wrong would call a count a switch.
	for _, d := range all {
		if d.Unit == "0 or 1" && d.Help[:2] != "1 " {
			t.Errorf("%s: its unit is not in the list", d.Name)
		}
	}
	for name := range known {
		t.Errorf("%s is described, and the scrape of a source that has everything lacks it", name)
	}
}
