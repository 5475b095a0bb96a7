package bgp

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/internal/netnstest"
)

// inNamespace marks the process that runs the tests in a network namespace of its own.
// GoBGP's goroutines use any thread, so the whole process must be in it.
const inNamespace = "NEXTHOPD_BGP_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	fuzzes := func(arg string) bool {
		return strings.HasPrefix(arg, "-test.fuzz=") || strings.HasPrefix(arg, "-test.fuzzworker")
	}
	stopTime = 2 * time.Minute
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" || slices.ContainsFunc(os.Args, fuzzes) {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1", "GORACE="+os.Getenv("GORACE")+" suppressions=testdata/gobgp-races.txt")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		os.Exit(1)
	}
}

const ourASN = 65515

var (
	ours     = netip.MustParseAddr("10.1.2.4")
	ours6    = netip.MustParseAddr("fd00:1::2:4")
	listenOn = netip.AddrPortFrom(ours, 179)
)

// peerAddr is the address of the n-th peer.
func peerAddr(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", n)) }

func peerAddr6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", n)) }

var labOnce sync.Once

// needLab skips without root, and sets up the addresses: ours on an interface, those of
// the peers on lo.
func needLab(t testing.TB) {
	t.Helper()
	netnstest.RequireRoot(t)
	labOnce.Do(func() {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "link", "add", "us", "type", "veth", "peer", "name", "them")
		run(t, "ip", "link", "set", "us", "up")
		run(t, "ip", "link", "set", "them", "up")
		run(t, "ip", "addr", "add", ours.String()+"/32", "dev", "us")
		run(t, "ip", "addr", "add", ours6.String()+"/128", "dev", "us", "nodad")
		var addrs []netip.Addr
		for n := 4; n < 30; n++ {
			addrs = append(addrs, peerAddr(n), peerAddr6(n))
		}
		var batch strings.Builder
		for _, a := range addrs {
			fmt.Fprintf(&batch, "addr add %s/%d dev lo\n", a, a.BitLen())
		}
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip -batch: %v\n%s", err, out)
		}
	})
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually polls until ok, or fails with what it still lacks.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, time.Minute, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// recorder is a Handler that keeps what it hears, in order.
type recorder struct {
	mu     sync.Mutex
	paths  map[netip.Addr]map[netip.Prefix]*rib.Attrs
	events map[netip.Addr][]string // "Established", "Learned +2 -0", "EndOfRIB 4"
	last   map[netip.Addr]SessionEvent
	downs  map[netip.Addr][]SessionEvent
}

func newRecorder() *recorder {
	return &recorder{
		paths:  map[netip.Addr]map[netip.Prefix]*rib.Attrs{},
		events: map[netip.Addr][]string{},
		last:   map[netip.Addr]SessionEvent{},
		downs:  map[netip.Addr][]SessionEvent{},
	}
}

func (r *recorder) Learned(peer netip.Addr, changes []rib.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths[peer] == nil {
		r.paths[peer] = map[netip.Prefix]*rib.Attrs{}
	}
	add, remove := 0, 0
	for _, c := range changes {
		if c.Attrs == nil {
			remove++
			delete(r.paths[peer], c.Prefix)
		} else {
			add++
			r.paths[peer][c.Prefix] = c.Attrs
		}
	}
	r.events[peer] = append(r.events[peer], fmt.Sprintf("Learned +%d -%d", add, remove))
}

func (r *recorder) EndOfRIB(peer netip.Addr, f Family) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[peer] = append(r.events[peer], fmt.Sprintf("EndOfRIB %d", f))
}

func (r *recorder) Session(e SessionEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := string(e.State)
	if e.Outlasted {
		what += " outlasted"
	}
	r.events[e.Peer] = append(r.events[e.Peer], what)
	r.last[e.Peer] = e
	if e.Down.Cause != "" {
		r.downs[e.Peer] = append(r.downs[e.Peer], e)
	}
}

func (r *recorder) path(peer netip.Addr, prefix string) *rib.Attrs {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paths[peer][netip.MustParsePrefix(prefix)]
}

func (r *recorder) count(peer netip.Addr) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.paths[peer])
}

func (r *recorder) state(peer netip.Addr) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[peer].State
}

// event is the last event of the peer's session.
func (r *recorder) event(peer netip.Addr) SessionEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[peer]
}

func (r *recorder) heard(peer netip.Addr) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events[peer])
}

// lastDown is the last event with a reason; its zero value where there was none.
func (r *recorder) lastDown(peer netip.Addr) SessionEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.downs[peer]; len(d) > 0 {
		return d[len(d)-1]
	}
	return SessionEvent{}
}

// testLog collects what the speaker logs.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startSpeaker starts a speaker and returns what it tells. It is stopped at the end.
func startSpeaker(t testing.TB, change func(*Options)) (*Speaker, *recorder, *testLog) {
	t.Helper()
	needLab(t)
	r, log := newRecorder(), &testLog{}
	o := Options{
		ASN:            ourASN,
		RouterID:       ours,
		Listen:         []netip.AddrPort{listenOn},
		Logger:         slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Handler:        r,
		BranchToBranch: true,
	}
	if change != nil {
		change(&o)
	}
	s := New(o)
	if err := s.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		s.Stop(t.Context(), false)
		if t.Failed() {
			t.Logf("log of the speaker:\n%s", log)
		}
	})
	return s, r, log
}

// peerConf is the configuration of the n-th peer, which connects to us.
func peerConf(n int, asn uint32) config.Peer {
	return config.Peer{
		Name:        fmt.Sprintf("nva%d", n),
		Address:     peerAddr(n),
		ASN:         asn,
		Port:        179,
		Passive:     true,
		MultihopTTL: 64,
		HoldTime:    180 * time.Second,
		Keepalive:   60 * time.Second,
		NextHop:     config.NextHopUnchanged,
		GracefulRestart: config.GracefulRestart{
			Enabled: true, RestartTime: 120 * time.Second, StaleTime: 360 * time.Second,
		},
	}
}

func mustAdd(t testing.TB, s *Speaker, peers ...config.Peer) {
	t.Helper()
	for _, p := range peers {
		if err := s.AddPeer(p); err != nil {
			t.Fatalf("AddPeer: %v", err)
		}
	}
}

func mustSetVNet(t testing.TB, s *Speaker, prefixes ...string) {
	t.Helper()
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	if err := s.SetVNet(list, netip.Addr{}, netip.Addr{}); err != nil {
		t.Fatalf("SetVNet: %v", err)
	}
}

func tcpFrom(a netip.Addr) *net.TCPAddr { return &net.TCPAddr{IP: a.AsSlice()} }
