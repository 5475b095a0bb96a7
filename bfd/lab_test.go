package bfd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"golang.org/x/sys/unix"
)

// workerEnv makes the test binary a worker.
const workerEnv = "NEXTHOPD_TEST_BFD_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		if err := RunWorker(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// patience is for what happens within a second or so on a machine that has time.
const patience = time.Minute

// calm is a multiplier with which sessions of 50 ms survive it when a busy machine lets
// nobody run for a second: these tests are of the protocol, not of the machine.
const calm = 40

// network is a lab with two hosts on one segment, and a third beyond a router.
type network struct {
	lab               *lab.Lab
	left, right, far  *lab.Node
	leftIf, rightIf   *lab.Iface
	left4, left6      netip.Addr
	right4, right6    netip.Addr
	far4, far6        netip.Addr
	stranger4         netip.Addr // an address of right's that nobody configured
	leftLL6, rightLL6 netip.Addr
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{
		lab:   lab.ForTest(t),
		left4: netip.MustParseAddr("10.250.1.1"), left6: netip.MustParseAddr("fd00:250:1::1"),
		right4: netip.MustParseAddr("10.250.1.2"), right6: netip.MustParseAddr("fd00:250:1::2"),
		far4: netip.MustParseAddr("10.250.2.9"), far6: netip.MustParseAddr("fd00:250:2::9"),
		stranger4: netip.MustParseAddr("10.250.1.66"),
		leftLL6:   netip.MustParseAddr("fe80::1"), rightLL6: netip.MustParseAddr("fe80::2"),
	}
	value := func(node *lab.Node, err error) *lab.Node { fatal(t, err); return node }
	n.left, n.right = value(n.lab.Node("left")), value(n.lab.Node("right"))
	router := value(n.lab.Node("router"))
	n.far = value(n.lab.Node("far"))
	near, err := n.lab.Segment("near")
	fatal(t, err)
	beyond, err := n.lab.Segment("beyond")
	fatal(t, err)
	n.leftIf, err = near.Attach(n.left, "eth0", "10.250.1.1/24", "fd00:250:1::1/64", "fe80::1/64")
	fatal(t, err)
	n.rightIf, err = near.Attach(n.right, "eth0", "10.250.1.2/24", "10.250.1.66/24", "fd00:250:1::2/64", "fe80::2/64")
	fatal(t, err)
	_, err = near.Attach(router, "eth0", "10.250.1.254/24", "fd00:250:1::fe/64")
	fatal(t, err)
	_, err = beyond.Attach(router, "eth1", "10.250.2.254/24", "fd00:250:2::fe/64")
	fatal(t, err)
	_, err = beyond.Attach(n.far, "eth0", "10.250.2.9/24", "fd00:250:2::9/64")
	fatal(t, err)
	fatal(t, n.left.AddRoute("10.250.2.0/24 via 10.250.1.254"))
	fatal(t, n.left.AddRoute("fd00:250:2::/64 via fd00:250:1::fe"))
	fatal(t, n.far.AddRoute("10.250.1.0/24 via 10.250.2.254"))
	fatal(t, n.far.AddRoute("fd00:250:1::/64 via fd00:250:2::fe"))
	return n
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inNode runs f in the node's namespace, on a thread that ends with it.
func inNode(node *lab.Node, f func() error) error {
	done := make(chan error, 1) // the one result
	go func() {
		runtime.LockOSThread() // and never unlocked
		ns, err := os.Open(filepath.Join("/run/netns", node.Namespace))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// speaker is what Engine and Process have in common.
type speaker interface {
	Run(context.Context) error
	Add(Config) (ID, error)
	Update(ID, Config) error
	Remove(ID) error
	SetAdmin(ID, bool) error
	Sessions() ([]Info, error)
	Stats() (Stats, error)
}

// running is a speaker that runs in a node until the test ends, and what it reported.
type running struct {
	speaker
	t    *testing.T
	name string
	stop func()

	mu     sync.Mutex // guards events and delays
	events []Event
	delays []time.Duration // from Event.At until it was here
}

func (r *running) onChange(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	r.delays = append(r.delays, time.Since(e.At))
}

func startEngine(t *testing.T, node *lab.Node) *running {
	t.Helper()
	r := &running{t: t, name: node.Name}
	e, err := New(Options{OnChange: r.onChange})
	fatal(t, err)
	r.run(e, node)
	return r
}

func (r *running) run(s speaker, node *lab.Node) {
	r.speaker = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := inNode(node, func() error { return s.Run(ctx) }); err != nil {
			r.t.Errorf("%s: Run: %v", r.name, err)
		}
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	r.t.Cleanup(r.stop)
}

func (r *running) add(c Config) ID {
	r.t.Helper()
	if c.Interval == 0 {
		c.Interval = 50 * time.Millisecond
	}
	if c.Multiplier == 0 {
		c.Multiplier = calm
	}
	id, err := r.Add(c)
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
	return id
}

func (r *running) info(id ID) Info {
	r.t.Helper()
	all, err := r.Sessions()
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
	i := slices.IndexFunc(all, func(i Info) bool { return i.ID == id })
	if i < 0 {
		r.t.Fatalf("%s: no session %d", r.name, id)
	}
	return all[i]
}

// eventually waits until ok returns "", and fails with what it last returned.
func eventually(t *testing.T, what string, ok func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := lab.Eventually(ctx, what, func() error {
		if why := ok(); why != "" {
			return fmt.Errorf("%s", why)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (r *running) until(id ID, what string, ok func(Info) bool) Info {
	r.t.Helper()
	var last Info
	eventually(r.t, r.name+" "+what, func() string {
		all, err := r.Sessions()
		if err != nil {
			return err.Error()
		}
		for _, last = range all {
			if last.ID == id && ok(last) {
				return ""
			}
		}
		return fmt.Sprintf("%+v", all)
	})
	return last
}

func (r *running) untilUp(ids ...ID) {
	r.t.Helper()
	for _, id := range ids {
		r.until(id, "up, with its own intervals", func(i Info) bool { return i.State == Up && i.RemoteState == Up && !i.Polling })
	}
}

// seen returns the events since the last call.
func (r *running) seen() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.events
	r.events = nil
	return all
}

// untilEvent waits for an event of a session and takes it from the list.
func (r *running) untilEvent(id ID, to State) Event {
	r.t.Helper()
	var found Event
	eventually(r.t, fmt.Sprintf("%s: event of %d to %s", r.name, id, to), func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, e := range r.events {
			if e.ID == id && e.To == to {
				found = e
				r.events = slices.Delete(r.events, i, i+1)
				return ""
			}
		}
		return fmt.Sprintf("%+v", r.events)
	})
	return found
}

func (r *running) wantQuiet() {
	r.t.Helper()
	if e := r.seen(); len(e) > 0 {
		r.t.Errorf("%s: unexpected events: %s", r.name, lines(e))
	}
}

func lines(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n%s %s: %s to %s, %s; remote %s, %s; detected in %s", e.At.Format("15:04:05.000"), e.Peer, e.From, e.To, e.Diag, e.RemoteState, e.RemoteDiag, e.DetectedIn)
	}
	return b.String()
}

// outsider is a socket of a node that sends what a test likes.
type outsider struct {
	t    *testing.T
	conn *net.UDPConn
}

func newOutsider(t *testing.T, node *lab.Node, from netip.Addr, ttl int) *outsider {
	t.Helper()
	o := &outsider{t: t}
	fatal(t, node.Do(func() (err error) {
		o.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
		return err
	}))
	t.Cleanup(func() { _ = o.conn.Close() })
	raw, err := o.conn.SyscallConn()
	fatal(t, err)
	fatal(t, raw.Control(func(fd uintptr) {
		if from.Is4() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
		}
	}))
	fatal(t, err)
	return o
}

func (o *outsider) send(to netip.Addr, port int, b []byte) {
	o.t.Helper()
	if _, err := o.conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(to, uint16(port))); err != nil {
		o.t.Errorf("send: %v", err)
	}
}
