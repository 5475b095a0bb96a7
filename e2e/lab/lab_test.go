package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// must fails the test on an error that is not what is tested.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pair is two nodes on one segment.
func pair(t *testing.T, l *Lab) (a, b *Node, ia, ib *Iface) {
	a, b = value(l.Node("a"))(t), value(l.Node("b"))(t)
	seg := value(l.Segment("net"))(t)
	ia = value(seg.Attach(a, "eth0", "10.1.2.4/16", "2001:db8::1/64"))(t)
	ib = value(seg.Attach(b, "eth0", "10.1.0.4/16", "2001:db8::2/64"))(t)
	return a, b, ia, ib
}

// probe tells whether the node reaches addr: a datagram to a closed port comes back
// as ECONNREFUSED. (A bare machine has no ping.)
func probe(n *Node, addr string) error {
	var c net.Conn
	if err := n.Do(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(addr, "9"))
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("probe %s: %w", addr, err)
	}
	return nil
}

func TestNodesReachEachOtherAtOnce(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	a, b, ia, _ := pair(t, l)
	// Addresses are usable without duplicate address detection: a listener binds at once.
	for _, addr := range []string{"10.1.0.4", "2001:db8::2"} {
		tr := value(StartTraffic(TrafficConfig{From: a, To: b, In: b.ifaces["eth0"], Dst: netip.MustParseAddr(addr),
			Flows: 2, Rate: 200, Via: []*Iface{ia}}))(t)
		must(t, Eventually(ctx, "packets", func() error {
			if tr.Report(time.Time{}).Sent() < 20 {
				return context.DeadlineExceeded
			}
			return nil
		}))
		r := tr.Stop()
		if r.Lost() != 0 || r.Interruption() != 0 {
			t.Errorf("%s: lost %d of %d, interruption %s", addr, r.Lost(), r.Sent(), r.Interruption())
		}
		if via := r.Via(); via["a"] != r.Sent() {
			t.Errorf("%s: passed %v, want all %d from a", addr, via, r.Sent())
		}
	}
}

func TestLinkFailures(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	a, _, ia, ib := pair(t, l)
	carrier := func(want string) func() error {
		return func() error {
			out, err := a.Run(ctx, "ip", "-br", "link", "show", "eth0")
			if err == nil && !strings.Contains(out, want) {
				err = errors.New(out)
			}
			return err
		}
	}
	tests := []struct {
		name       string
		fail       func() error
		mend       func() error
		whileState string
	}{
		{"cut keeps the carrier", ia.Cut, ia.Mend, ",LOWER_UP"},
		{"cut of the other end", ib.Cut, ib.Mend, ",LOWER_UP"},
		{"unplug takes the carrier", ia.Unplug, ia.Plug, "NO-CARRIER"},
		{"down", ia.Down, ia.Up, "DOWN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			must(t, Eventually(ctx, "reachable before", func() error { return probe(a, "10.1.0.4") }))
			must(t, tt.fail())
			must(t, Eventually(ctx, tt.whileState, carrier(tt.whileState)))
			if err := probe(a, "10.1.0.4"); err == nil {
				t.Error("still reachable")
			}
			must(t, tt.mend())
			must(t, Eventually(ctx, "reachable again", func() error { return probe(a, "10.1.0.4") }))
		})
	}
}

func TestGateways(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	a, _, _, _ := pair(t, l)
	must(t, a.IP(
		"route add 192.168.1.0/24 via 10.1.0.4",
		"route add 192.168.2.0/24 nexthop via 10.1.0.5 nexthop via 10.1.0.4",
		"nexthop add id 1 via 10.1.0.4 dev eth0", "nexthop add id 2 via 10.1.0.5 dev eth0",
		"nexthop add id 3 group 1/2", "nexthop add id 4 group 2",
		"route add 192.168.3.0/24 nhid 3", "route add 192.168.4.0/24 nhid 4",
		"nexthop add id 5 via 2001:db8::2 dev eth0", "nexthop add id 6 group 5",
		"route add 192.168.5.0/24 nhid 6",
	))
	must(t, a.AddRoute("2001:db8:5::/64 via 2001:db8::2"))
	tests := []struct{ prefix, want string }{
		{"192.168.1.0/24", "10.1.0.4"},
		{"192.168.2.0/24", "10.1.0.4 10.1.0.5"},
		{"192.168.3.0/24", "10.1.0.4 10.1.0.5"},
		{"192.168.4.0/24", "10.1.0.5"},
		{"192.168.5.0/24", "2001:db8::2"},
		{"2001:db8:5::/64", "2001:db8::2"},
		{"192.168.6.0/24", ""},
	}
	for _, compat := range []string{"1", "0"} { // 0: a route shows nothing but its id
		must(t, a.Sysctl("net.ipv4.nexthop_compat_mode="+compat))
		for _, tt := range tests {
			var want []netip.Addr
			for _, f := range strings.Fields(tt.want) {
				want = append(want, netip.MustParseAddr(f))
			}
			got, err := a.Gateways(ctx, netip.MustParsePrefix(tt.prefix))
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("compat_mode=%s: %s leads to %v, %v, want %v", compat, tt.prefix, got, err, want)
			}
		}
	}
}

func TestProcesses(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	a := value(l.Node("a"))(t)
	p := value(a.Start("sh", "-c", "echo hello; echo oops >&2; exec sleep 60"))(t)
	must(t, Eventually(ctx, "output", func() error {
		if p.Log() != "hello\noops\n" {
			return context.DeadlineExceeded
		}
		return nil
	}))
	must(t, p.running())
	must(t, p.Stop(time.Minute))
	if p.ExitCode() != -1 {
		t.Errorf("exit code %d after a signal, want -1", p.ExitCode())
	}
	if err := p.running(); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("error of an ended process is %v, want the end of its log", err)
	}
	deaf := value(a.Start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"))(t)
	must(t, Eventually(ctx, "trap", func() error {
		if deaf.Log() == "" {
			return context.DeadlineExceeded
		}
		return nil
	}))
	if err := deaf.Stop(50 * time.Millisecond); err == nil {
		t.Error("Stop of a process that ignores SIGTERM reports nothing")
	}
	if _, err := a.Run(ctx, "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("Run of a failing command: %v, want its stderr", err)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	RequireRoot(t)
	l := value(New())(t)
	n := value(l.Node("a"))(t)
	p := value(n.Start("sleep", "60"))(t)
	must(t, l.Close())
	must(t, l.Close())
	if alive(p.PID()) {
		t.Errorf("process %d lives on", p.PID())
	}
	for _, path := range []string{l.Dir(), filepath.Join(netnsDir, n.Namespace)} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if err := n.Do(func() error { return nil }); err == nil {
		t.Error("Do on a closed node reports nothing")
	}
	if _, err := l.Node("b"); err == nil {
		t.Error("a closed lab makes nodes")
	}
}

func TestRemoveLeftovers(t *testing.T) {
	RequireRoot(t)
	cmd := exec.Command("true")
	must(t, cmd.Run())
	dead := namePrefix + strconv.Itoa(cmd.ProcessState.Pid()) + "-1"
	living := namePrefix + strconv.Itoa(os.Getpid()) + "-999"
	for _, name := range []string{dead, living} {
		must(t, exec.Command("ip", "netns", "add", name+"-x").Run())
		must(t, os.Mkdir(filepath.Join(os.TempDir(), name), 0o755))
	}
	t.Cleanup(func() {
		must(t, removeNamespace(living+"-x"))
		must(t, os.Remove(filepath.Join(os.TempDir(), living)))
	})
	orphan := exec.Command("ip", "netns", "exec", dead+"-x", "sleep", "60")
	must(t, orphan.Start())
	must(t, Eventually(testContext(t), "the orphan", func() error {
		out, err := exec.Command("ip", "netns", "pids", dead+"-x").Output()
		if err == nil && len(out) == 0 {
			err = context.DeadlineExceeded
		}
		return err
	}))
	must(t, RemoveLeftovers())
	if err := orphan.Wait(); err == nil {
		t.Error("the dead lab's process was not killed")
	}
	for _, path := range []string{filepath.Join(netnsDir, dead+"-x"), filepath.Join(os.TempDir(), dead)} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if _, err := os.Stat(filepath.Join(netnsDir, living+"-x")); err != nil {
		t.Errorf("a living lab's namespace is gone: %v", err)
	}
}
