package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/cmd/nexthopctl/doctor"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// asCommand makes the test binary behave as nexthopctl: what depends on a real process
// (SIGPIPE, SIGINT, another user) is tested with one.
const asCommand = "NEXTHOPCTL_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Unsetenv(socketEnv)
	os.Exit(m.Run())
}

// process prepares nexthopctl as a process of its own.
func process(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	// The race detector would wait a second at each exit.
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// present is the time of all canned answers.
var present = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return present.Add(-d) }

func ptr[T any](v T) *T { return &v }

// socketDir is a short path: t.TempDir with a long test name overruns sun_path.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nhctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve answers on a unix socket and returns its path.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	socket := filepath.Join(socketDir(t), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

func raw(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// result is what one command line did.
type result struct {
	code           int
	stdout, stderr string
}

// ctl runs nexthopctl in this process, at the time and place of the canned answers.
func ctl(t *testing.T, socket string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := &cli{
		out: newOutput(&stdout), errOut: &stderr,
		now: func() time.Time { return present }, location: time.UTC,
		host: cannedHost(),
	}
	code := c.run(t.Context(), append([]string{"--socket", socket}, args...))
	return result{code, stdout.String(), stderr.String()}
}

// cannedHost is a host whose kernel hashes by addresses only.
func cannedHost() doctor.Host {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/sys/net/ipv4/ip_forward": "1", "proc/sys/net/ipv6/conf/all/forwarding": "1",
		"proc/sys/net/ipv4/fib_multipath_hash_policy": "0", "proc/sys/net/ipv6/fib_multipath_hash_policy": "1",
		"proc/sys/net/ipv4/nexthop_compat_mode": "0", "proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown": "0",
		"proc/4711/status": "CapEff:\t0000000000001400",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	return doctor.Host{Files: files, Clock: func() (bool, error) { return true, nil }}
}

// cannedPolicy answers with a rule that matches just what was asked about.
func cannedPolicy(r status.PolicyRequest) status.PolicyTest {
	if r.Learned {
		return status.PolicyTest{
			Peer: r.Peer, Paths: 1204, Changed: 1002,
			Rules: []status.PolicyCount{
				{Rule: `rule "customers\x1b[31m" (prefix 10.0.0.0/8 le 24: set local-pref 200)`, Accepted: true, Paths: 200},
				{Rule: `rule "no-hosts" (prefix 0.0.0.0/0 ge 25)`, Paths: 1003},
				{Rule: "no rule matches, and the default is accept", Accepted: true, Paths: 1},
			},
			Changes: []status.PolicyChange{
				{Prefix: "10.1.0.0/16", Accepted: true, Rule: `rule "customers" (prefix 10.0.0.0/8 le 24: set local-pref 200)`},
				{Prefix: "192.168.7.128/25", Rule: `rule "no-hosts" (prefix 0.0.0.0/0 ge 25)`},
			},
		}
	}
	rule := fmt.Sprintf(`rule "asked" (as-path %q, community %q, next-hop %q)`, r.ASPath, r.Communities, r.NextHop)
	if r.MED != nil {
		rule += fmt.Sprintf(": set med %d", *r.MED)
	}
	return status.PolicyTest{Peer: r.Peer, Prefix: r.Prefix, Accepted: !r.Export, Rule: rule}
}

func cannedDoctor() status.Doctor {
	a := netip.MustParseAddr
	return status.Doctor{
		PID: 4711, Listen: []string{"10.1.2.4:179"}, Mode: "install", Table: 254, Metric: 20, Protocol: 165, NextHopObjects: true,
		Legs: []string{"eth0"}, Compared: 3,
		Peers: []status.DoctorPeer{
			{Name: "quagga", Address: a("10.1.0.4"), Way: []string{"via 10.1.0.4 dev eth0"}, Interfaces: []string{"eth0"}, MTU: 1500, Connected: "eth0"},
			{Name: "bird", Address: a("10.1.0.5"), Way: []string{"via 172.16.0.2 dev eth1"}, Interfaces: []string{"eth1"}, MTU: 1500, Connected: "eth0",
				Captured: "10.1.0.5/32 via 172.16.0.2 dev eth1 proto static metric 5 table 254"},
		},
		Rules: []status.DoctorRule{{Priority: 32766, Table: 254, Lookup: true, All: true}},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (rewrite with -update once explained)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// oneLine checks an error: one line, with our name, with all of the words.
func oneLine(t *testing.T, stderr string, words ...string) {
	t.Helper()
	if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "nexthopctl: ") {
		t.Errorf("stderr = %q, want one line that starts with nexthopctl:", stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			t.Errorf("stderr = %q, want %q in it", stderr, w)
		}
	}
}

// canned is a daemon in the seed case S15 after 10.1.0.5 prepended, with some trouble.
func canned(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(status.PathStatus, answer(cannedStatus()))
	mux.Handle(status.PathPeers, answer(cannedPeers()))
	mux.Handle(status.PathDoctor, answer(cannedDoctor()))
	mux.Handle(status.PathFailovers, answer(cannedFailovers()))
	mux.Handle(status.PathBFD, answer(cannedBFD()))
	byPeer := func(paths []status.Path) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			want := r.URL.Query().Get("peer")
			var out []status.Path
			for _, p := range paths {
				if want == "" || want == p.Peer || want == p.SourcePeer {
					out = append(out, p)
				}
			}
			if out == nil {
				w.WriteHeader(http.StatusNotFound)
				answer(status.Error{Error: "no such peer"})(w, r)
				return
			}
			answer(out)(w, r)
		}
	}
	mux.Handle(status.PathLearned, byPeer(cannedLearned()))
	mux.Handle(status.PathAdvertised, byPeer(cannedAdvertised()))
	mux.Handle(status.PathRoutes, answer(cannedRoutes()))
	mux.HandleFunc("POST "+status.PathPolicy, func(w http.ResponseWriter, r *http.Request) {
		var req status.PolicyRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		answer(cannedPolicy(req))(w, r)
	})
	mux.HandleFunc(status.PathExplain, func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query().Get("q"); q {
		case "192.168.255.0/24", "192.168.255.10":
			answer(cannedExplanation(q))(w, r)
		case "192.0.2.0/24":
			answer(status.Explanation{
				Query: q, Prefix: q, Verdict: "192.0.2.0/24 is kept in the kernel as it was found, though it should go (no peer announces it)",
				Held:     "300 of the 450 routes in the kernel should go, too many at once, and are kept: marked as ours, and of no peer that is known: nexthopctl resume",
				InKernel: []string{"192.0.2.0/24 via 10.1.0.4 dev eth0 proto nexthopd metric 20"},
			})(w, r)
		default:
			answer(status.Explanation{Query: q, Verdict: q + " is not announced by any peer."})(w, r)
		}
	})
	return serve(t, mux)
}

func cannedStatus() status.Status {
	return status.Status{
		Version: "1.2.3", PID: 4711, StartedAt: ago(3*time.Hour + 12*time.Minute), ASN: 65515,
		RouterID: netip.MustParseAddr("10.1.2.4"), Listen: []string{"10.1.2.4:179"},
		Config: "/etc/nexthopd/nexthopd.yaml", Ready: true,
		Degraded: []status.Problem{
			{What: "peer lost is Active for 5m0s: hold timer expired", Next: "nexthopctl peers"},
			{What: "198.51.100.0/24: a foreign route is in the way", Next: "nexthopctl explain 198.51.100.0/24"},
		},
		Peers: status.PeerCount{Configured: 4, Established: 2, Shutdown: 1},
		FIB: status.FIBStatus{
			Mode: "install", Table: 254, Metric: 20, Protocol: 165, NextHopObjects: true,
			Prefixes: 5, Desired: 3, Installed: 2, Rejected: map[string]int{"inside-vnet": 1, "foreign-route": 2, "covers-next-hop": 1},
			Groups: 1, NextHops: 2, Sweep: "done", LastSync: ptr(ago(4 * time.Second)),
		},
		LastFailover: &cannedFailovers()[0],
	}
}

func cannedFailovers() []status.Failover {
	return []status.Failover{
		{At: ago(4 * time.Minute), Signal: "session 10.1.0.5", Groups: 2, Prefixes: 1000, Microseconds: 812},
		{At: ago(26 * time.Hour), Signal: "link eth1\x1b[2J", Groups: 1, Prefixes: 1, Microseconds: 12345},
	}
}

func cannedBFD() status.BFD {
	a := netip.MustParseAddr
	return status.BFD{
		Engine: status.BFDEngine{
			Running: true, Scheduling: "SCHED_RR 1", Received: 40000, Dropped: map[string]uint64{"no-session": 7, "ttl": 2}, KernelDrops: 12, MaxLate: 0.0009,
		},
		Sessions: []status.BFDSession{
			{
				Address: a("10.1.0.100"), Mode: "single-hop", State: "down", RemoteState: "down", Interval: 1, Multiplier: 3,
				Error: "bind UDP port 3784: address already in use; does another BFD daemon run on this host?",
			},
			{
				Peer: "bird", Address: a("10.2.0.5"), Mode: "multihop", State: "down", RemoteState: "up", Failed: true, Since: ptr(ago(42 * time.Second)),
				LastDown: "control detection time expired", Changes: 3, Interval: 0.3, Multiplier: 3, TXInterval: 1, RXInterval: 0.3, DetectionTime: 0.9,
				RemoteMultiplier: 3, Auth: "keyed-sha1", LocalDiscriminator: 4711, Sent: 900, Received: 890, SendErrors: 4,
				Dropped: map[string]uint64{"auth": 3}, LastDrop: "digest is wrong\x1b[2J", LastDropAt: ptr(ago(50 * time.Second)),
			},
			{
				Peer: "quagga", Address: a("10.1.0.4"), Mode: "single-hop", State: "up", RemoteState: "up", Since: ptr(ago(3 * time.Hour)),
				Changes: 2, Interval: 0.05, Multiplier: 3, TXInterval: 0.05, RXInterval: 0.1, DetectionTime: 0.4, RemoteMultiplier: 4, Polling: true,
				LocalDiscriminator: 815, RemoteDiscriminator: 42, Sent: 216000, Received: 108000, Jitter: 0.00042, MaxGap: 0.1123, MaxLate: 0.0011,
			},
		},
	}
}

func cannedPeers() []status.Peer {
	a := netip.MustParseAddr
	return []status.Peer{
		{
			Name: "quagga", Description: "first appliance", Address: a("10.1.0.4"), ASN: 65147, State: "Established", BFD: "up",
			Since: ptr(ago(3*time.Hour + 12*time.Minute)), LocalAddress: ptr(a("10.1.2.4")), RemoteID: ptr(a("10.1.0.4")),
			HoldTime: 180, Keepalive: 60, Received: 3, Accepted: 3, Advertised: 2,
			MessagesReceived: map[string]uint64{"update": 3, "keepalive": 190}, MessagesSent: map[string]uint64{"keepalive": 192},
			PeerCapabilities: []string{"4-octet-as", "route-refresh"}, LastDown: "operator", LastDownAt: ptr(ago(26 * time.Hour)),
		},
		{
			Name: "bird", Address: a("10.1.0.5"), ASN: 65147, State: "Established", Since: ptr(ago(12*time.Minute + 30*time.Second)),
			LocalAddress: ptr(a("10.1.2.4")), RemoteID: ptr(a("10.1.0.5")), HoldTime: 90, Keepalive: 30, Flaps: 1,
			Received: 2, Accepted: 2, Advertised: 2, Warning: "75 % of the prefix limit of 4000",
		},
		{
			// What an NVA may write into a shutdown communication (RFC 9003).
			Name: "lost", Address: a("2001:db8::6"), ASN: 4200000001, State: "Active", Since: ptr(ago(5 * time.Minute)),
			HoldTime: 180, Keepalive: 60, Flaps: 7, Faults: map[string]uint64{"treat-as-withdraw": 2, "session-reset": 1},
			LastDown: "NOTIFICATION Cease/Administrative Shutdown: \"bye\x1b[2J\x1b]0;owned\x07\r\nquagga Established \u009b31m \u202eevil\"", LastDownAt: ptr(ago(5 * time.Minute)),
		},
		{Name: "off", Address: a("10.1.0.7"), ASN: 65007, State: "Idle", Shutdown: true, HoldTime: 180, Keepalive: 60},
	}
}

func cannedLearned() []status.Path {
	p := func(peer, addr, network, nexthop, asPath string) status.Path {
		return status.Path{
			LocalAddress: "10.1.2.4", Network: network, NextHop: nexthop, SourcePeer: addr, Origin: "EBgp", AsPath: asPath,
			Weight: 32768, Peer: peer, Since: ago(3*time.Hour + 12*time.Minute), BGPOrigin: "igp",
		}
	}
	paths := []status.Path{
		p("quagga", "10.1.0.4", "192.168.255.0/24", "10.1.0.4", "65147"),
		p("bird", "10.1.0.5", "192.168.255.0/24", "10.1.0.5", "65147-65147-65147"),
		p("quagga", "10.1.0.4", "2001:db8:1::/48", "2001:db8::4", "65147"),
		p("quagga", "10.1.0.4", "10.1.3.0/24", "10.1.0.4", "65147"),
		p("bird", "10.1.0.5", "9.0.0.0/8", "10.1.0.5", "65147-{64512,64513}"),
	}
	paths[0].Best, paths[0].Installed, paths[0].MED, paths[0].Communities = true, true, ptr(uint32(0)), []string{"65147:100", "no-export"}
	paths[1].Reason, paths[1].Since = "as-path-longer", ago(30*time.Second)
	paths[2].Best, paths[2].Installed, paths[2].Stale = true, true, true
	paths[3].Best, paths[3].Reason = true, "inside-vnet"
	paths[4].Best, paths[4].Installed, paths[4].BGPOrigin = true, true, "incomplete"
	return paths
}

func cannedAdvertised() []status.Path {
	p := func(peer, network, nexthop, asPath string) status.Path {
		return status.Path{
			LocalAddress: "10.1.2.4", Network: network, NextHop: nexthop, SourcePeer: "10.1.2.4", Origin: "Igp", AsPath: asPath, Peer: peer, BGPOrigin: "igp",
		}
	}
	return []status.Path{
		p("quagga", "10.1.0.0/16", "10.1.2.4", "65515"),
		p("bird", "10.1.0.0/16", "10.1.2.4", "65515"),
		p("bird", "192.168.255.0/24", "10.1.0.4", "65515-65147"),
		p("quagga", "9.0.0.0/8", "10.1.0.5", "65515-65147-{64512,64513}"),
	}
}

func cannedRoutes() []status.Route {
	return []status.Route{
		{Source: "VirtualNetworkGateway", State: "Active", Prefix: "192.168.255.0/24", NextHopType: "VirtualAppliance", NextHopIP: "10.1.0.5", Interface: "eth0", Metric: 20, Protocol: "nexthopd", Table: 254, Peer: "zebra"},
		{Source: "VirtualNetworkGateway", State: "Active", Prefix: "192.168.255.0/24", NextHopType: "VirtualAppliance", NextHopIP: "10.1.0.4", Interface: "eth0", Metric: 20, Protocol: "nexthopd", Table: 254, Peer: "quagga"},
		{Source: "VirtualNetworkGateway", State: "Invalid", Prefix: "9.0.0.0/8", NextHopType: "VirtualAppliance", NextHopIP: "10.1.0.5", Interface: "eth0", Metric: 20, Protocol: "nexthopd", Table: 254, Peer: "bird"},
		{Source: "Default", State: "Active", Prefix: "9.0.0.0/8", NextHopType: "Internet", NextHopIP: "10.1.0.1", Interface: "eth0", Metric: 0, Protocol: "static", Table: 254},
		{Source: "VNet", State: "Active", Prefix: "10.1.0.0/16", NextHopType: "VnetLocal", Interface: "eth0", Protocol: "kernel", Table: 254},
		{Source: "Default", State: "Active", Prefix: "0.0.0.0/0", NextHopType: "Internet", NextHopIP: "10.1.0.1", Interface: "eth0", Metric: 100, Protocol: "dhcp", Table: 254},
	}
}

func cannedExplanation(q string) status.Explanation {
	learned := cannedLearned()
	return status.Explanation{
		Query: q, Prefix: "192.168.255.0/24", Verdict: "192.168.255.0/24 is installed with 1 next hop.",
		Paths: []status.ExplainPath{
			{Path: learned[0], Resolution: "via 10.1.0.4 dev eth0 (host route 10.1.0.0/16)"},
			{Path: learned[1], Step: "as-path-longer", Detail: "AS path has 3 ASNs, the best has 1", Resolution: "via 10.1.0.5 dev eth0 (host route 10.1.0.0/16)"},
		},
		Desired:   []string{"192.168.255.0/24 via 10.1.0.4 dev eth0 proto 165 metric 20"},
		InKernel:  []string{"192.168.255.0/24 nhid 17 proto 165 metric 20", "nexthop via 10.1.0.4 dev eth0 weight 1"},
		Foreign:   []string{"192.168.255.0/24 via 10.1.0.9 dev eth0 proto static metric 30"},
		LastError: "replace 192.168.255.0/24 table 254: Nexthop id does not exist", LastErrorAt: ptr(ago(90 * time.Second)),
		Attempts: 3, NextRetry: ptr(present.Add(8 * time.Second)),
	}
}
