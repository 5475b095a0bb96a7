package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// interop is one session with another implementation, which has a node to itself.
type interop struct {
	name        string
	node        *lab.Node
	local, peer netip.Addr // ours, theirs
	multihop    bool
	auth        *Auth
	id          ID
}

// other is another implementation with all sessions of one node.
type other interface {
	// configure (re)writes its configuration; it announces the interval both ways.
	configure(interval time.Duration) error
	setAdmin(down bool) error
	// tells is whether setAdmin says AdminDown, or falls silent.
	tells() bool
	kill() error
}

// theirMultiplier, and ours, make 2 s of what is agreed on most of the time.
const theirMultiplier, ourMultiplier = 20, 21

// testInterop goes through a session's life against the implementation that start
// starts, over both families, with one hop and with two.
func testInterop(t *testing.T, auth *Auth, start func(n *network, node *lab.Node, sessions []*interop) (other, error)) {
	t.Parallel() // it waits more than it works
	n := newNetwork(t)
	near := []*interop{
		{name: "IPv4", node: n.right, local: n.left4, peer: n.right4, auth: auth},
		{name: "IPv6", node: n.right, local: n.left6, peer: n.right6, auth: auth},
	}
	far := []*interop{
		{name: "IPv4, two hops", node: n.far, local: n.left4, peer: n.far4, multihop: true, auth: auth},
		{name: "IPv6, two hops", node: n.far, local: n.left6, peer: n.far6, multihop: true, auth: auth},
	}
	all := append(append([]*interop{}, near...), far...)
	left, _ := startProcess(t, n.left, 1)
	config := func(s *interop, interval time.Duration) Config {
		c := Config{Local: s.local, Peer: s.peer, Multihop: s.multihop, Auth: s.auth, Interval: interval, Multiplier: ourMultiplier}
		if s.multihop {
			c.MinTTL = 60 // FRR sends 255, BIRD 64
		}
		return c
	}
	for _, s := range all {
		s.id = left.add(config(s, 100*time.Millisecond))
	}
	one, err := start(n, n.right, near)
	fatal(t, err)
	two, err := start(n, n.far, far)
	fatal(t, err)
	others := []other{one, two}
	each := func(do func(other) error) {
		t.Helper()
		for _, o := range others {
			fatal(t, do(o))
		}
	}
	up := func() {
		t.Helper()
		for _, s := range all {
			left.untilUp(s.id)
		}
		left.seen()
	}
	agreed := func(tx, rx time.Duration) {
		t.Helper()
		for _, s := range all {
			i := left.until(s.id, fmt.Sprintf("agrees on %s and %s", tx, rx), func(i Info) bool {
				return i.State == Up && !i.Polling && i.TXInterval == tx && i.RXInterval == rx
			})
			if i.DetectionTime != theirMultiplier*rx || i.RemoteMultiplier != theirMultiplier {
				t.Errorf("%s: %+v", s.name, i)
			}
		}
	}
	down := func(want func(Event) string) {
		t.Helper()
		for _, s := range all {
			e := left.untilEvent(s.id, Down)
			if why := want(e); why != "" || e.From != Up {
				t.Errorf("%s: %s: %s", s.name, why, lines([]Event{e}))
			}
		}
		left.seen()
	}
	expired := func(e Event) string {
		if e.Diag != DiagTimeExpired || !e.Failure() {
			return "want the detection time to have expired"
		}
		return ""
	}

	up()
	agreed(100*time.Millisecond, 100*time.Millisecond)

	t.Log("the peer becomes slower, and fast again; then we")
	each(func(o other) error { return o.configure(250 * time.Millisecond) })
	agreed(250*time.Millisecond, 250*time.Millisecond)
	each(func(o other) error { return o.configure(80 * time.Millisecond) })
	agreed(100*time.Millisecond, 100*time.Millisecond)
	for _, interval := range []time.Duration{300 * time.Millisecond, 100 * time.Millisecond} {
		for _, s := range all {
			fatal(t, left.Update(s.id, config(s, interval)))
		}
		agreed(interval, interval)
	}
	left.wantQuiet()

	t.Log("packets that must not count")
	for _, s := range all {
		i := left.info(s.id)
		p := packet{State: Down, Multiplier: 3, Mine: i.RemoteDiscriminator, Yours: i.LocalDiscriminator, DesiredMinTX: time.Second, RequiredMinRX: time.Second}
		wrong := p
		wrong.Yours++
		afar, peer := newOutsider(t, s.node, s.peer, 40), newOutsider(t, s.node, s.peer, 255)
		for range 20 {
			afar.send(s.local, port(s.multihop), p.appendTo(nil))
			peer.send(s.local, port(s.multihop), wrong.appendTo(nil))
		}
		left.until(s.id, "has counted them", func(i Info) bool { return i.Dropped[DropDiscriminator] == 20 && i.Dropped[DropTTL] > 0 })
	}
	left.wantQuiet()

	t.Log("AdminDown, ours and theirs")
	for _, s := range all {
		fatal(t, left.SetAdmin(s.id, true))
		left.until(s.id, "seen as down by the peer", func(i Info) bool { return i.RemoteState == Down })
		fatal(t, left.SetAdmin(s.id, false))
	}
	up()
	each(func(o other) error { return o.setAdmin(true) })
	down(func(e Event) string {
		if !one.tells() {
			return expired(e)
		}
		if e.Failure() || e.RemoteState != AdminDown || e.Diag != DiagNeighborDown {
			return "want no failure"
		}
		return ""
	})
	each(func(o other) error { return o.setAdmin(false) })
	up()

	t.Log("a silent cut")
	for _, node := range []*lab.Node{n.right, n.far} {
		fatal(t, node.IP("link set eth0 down"))
	}
	down(expired)
	for _, node := range []*lab.Node{n.right, n.far} {
		fatal(t, node.IP("link set eth0 up"))
	}
	fatal(t, n.right.IP("addr replace "+n.right6.String()+"/64 dev eth0 nodad")) // lost with the link
	fatal(t, n.far.IP("addr replace "+n.far6.String()+"/64 dev eth0 nodad"))
	fatal(t, n.far.AddRoute("10.250.1.0/24 via 10.250.2.254"))
	fatal(t, n.far.AddRoute("fd00:250:1::/64 via fd00:250:2::fe"))
	up()

	t.Log("a cut of the way to us")
	lose := func(node *lab.Node, to ...string) (mend func()) {
		var neighbours []string
		for _, addr := range to {
			neighbours = append(neighbours, "neigh replace "+addr+" lladdr 02:00:00:00:00:99 dev eth0 nud permanent")
		}
		fatal(t, node.IP(neighbours...))
		return func() { fatal(t, node.IP("neigh flush dev eth0 nud permanent")) }
	}
	mendNear, mendFar := lose(n.right, "10.250.1.1", "fd00:250:1::1"), lose(n.far, "10.250.2.254", "fd00:250:2::fe")
	down(expired)
	mendNear()
	mendFar()
	up()

	t.Log("a cut of the way to the peer")
	mendNear = lose(n.left, "10.250.1.2", "fd00:250:1::2", "10.250.1.254", "fd00:250:1::fe")
	down(func(e Event) string {
		if e.Diag != DiagNeighborDown || e.RemoteDiag != DiagTimeExpired || !e.Failure() {
			return "want what the peer says of its own detection time"
		}
		return ""
	})
	mendNear()
	up()

	t.Log("the peer is killed")
	each(func(o other) error { return o.kill() })
	down(expired)
}

// bird is BIRD 2 with BFD.
type bird struct {
	*lab.BIRD
	sessions []*interop
}

func (b *bird) config(interval time.Duration) string {
	var text strings.Builder
	text.WriteString("router id 10.250.0.9;\nprotocol device {}\nprotocol bfd b {\n")
	if interval == 0 {
		text.WriteString("  disabled;\n")
		interval = 100 * time.Millisecond
	}
	for _, s := range b.sessions {
		options := fmt.Sprintf("interval %d ms; multiplier %d;", interval.Milliseconds(), theirMultiplier)
		if a := s.auth; a != nil {
			kind := "keyed sha1"
			if a.Type == MeticulousSHA1 {
				kind = "meticulous keyed sha1"
			}
			options += fmt.Sprintf(" authentication %s; password \"%s\" { id %d; };", kind, a.Key, a.KeyID)
		}
		if s.multihop {
			if !strings.Contains(text.String(), "multihop {") {
				fmt.Fprintf(&text, "  multihop { %s };\n", options)
			}
			fmt.Fprintf(&text, "  neighbor %s local %s multihop on;\n", s.local, s.peer)
		} else {
			if !strings.Contains(text.String(), "interface ") {
				fmt.Fprintf(&text, "  interface \"eth0\" { %s };\n", options)
			}
			fmt.Fprintf(&text, "  neighbor %s dev \"eth0\" local %s;\n", s.local, s.peer)
		}
	}
	text.WriteString("}\n")
	return text.String()
}

func (b *bird) configure(interval time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.Configure(ctx, b.config(interval))
}

func (b *bird) setAdmin(down bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := "enable b"
	if down {
		command = "disable b"
	}
	_, err := b.Birdc(ctx, command)
	return err
}

// BIRD 2.0.12 ends its sessions without a word.
func (b *bird) tells() bool { return false }

func (b *bird) kill() error { return b.Proc.Kill() }

func TestInteropBIRD(t *testing.T) {
	if !lab.HaveBIRD() {
		t.Skip("BIRD 2 is not installed")
	}
	for _, auth := range []*Auth{nil, {Type: KeyedSHA1, KeyID: 5, Key: []byte("secret")}, {Type: MeticulousSHA1, KeyID: 6, Key: []byte("another secret key..")}} {
		name := "without authentication"
		if auth != nil {
			name = auth.Type.String()
		}
		t.Run(name, func(t *testing.T) {
			testInterop(t, auth, func(_ *network, node *lab.Node, sessions []*interop) (other, error) {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				b := &bird{sessions: sessions}
				var err error
				b.BIRD, err = lab.StartBIRD(ctx, node, b.config(100*time.Millisecond))
				return b, err
			})
		})
	}
}

// frr is FRR's bfdd, with zebra, which tells it the interfaces.
type frr struct {
	node     *lab.Node
	dir      string
	bfdd     *lab.Proc
	sessions []*interop
	admin    string
}

const frrDir = "/usr/lib/frr/"

func (f *frr) lines(interval time.Duration) []string {
	text := []string{"bfd"}
	for _, s := range f.sessions {
		peer := fmt.Sprintf("peer %s local-address %s interface eth0", s.local, s.peer)
		if s.multihop {
			peer = fmt.Sprintf("peer %s multihop local-address %s", s.local, s.peer)
		}
		text = append(text, peer, fmt.Sprintf("detect-multiplier %d", theirMultiplier),
			fmt.Sprintf("receive-interval %d", interval.Milliseconds()), fmt.Sprintf("transmit-interval %d", interval.Milliseconds()), f.admin)
		if s.multihop {
			text = append(text, "minimum-ttl 254")
		}
		text = append(text, "exit")
	}
	return text
}

func (f *frr) start(daemon string, config string, args ...string) (*lab.Proc, error) {
	file := filepath.Join(f.dir, daemon+".conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := f.node.Start(frrDir+daemon, append([]string{"-f", file, "-i", filepath.Join(f.dir, daemon+".pid"),
		"--vty_socket", f.dir, "-P", "0", "--log", "stdout", "-z", filepath.Join(f.dir, "zserv.api")}, args...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p, lab.Eventually(ctx, daemon, func() error {
		_, err := f.vtysh(ctx, daemon, "show version")
		return err
	})
}

func (f *frr) vtysh(ctx context.Context, daemon string, commands ...string) (string, error) {
	args := []string{"--vty_socket", f.dir, "-d", daemon}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := f.node.Run(ctx, "vtysh", args...)
	if err == nil && strings.Contains(out, "% ") {
		err = errors.New(out)
	}
	return out, err
}

func (f *frr) configure(interval time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := f.vtysh(ctx, "bfdd", append([]string{"configure terminal"}, f.lines(interval)...)...)
	return err
}

func (f *frr) setAdmin(down bool) error {
	f.admin = "no shutdown"
	if down {
		f.admin = "shutdown"
	}
	return f.configure(100 * time.Millisecond)
}

func (f *frr) tells() bool { return true }

func (f *frr) kill() error { return f.bfdd.Kill() }

func TestInteropFRR(t *testing.T) {
	if _, err := os.Stat(frrDir + "bfdd"); err != nil {
		t.Skip("FRR's bfdd is not installed")
	}
	testInterop(t, nil, func(n *network, node *lab.Node, sessions []*interop) (other, error) {
		f := &frr{node: node, dir: filepath.Join(n.lab.Dir(), node.Name+"-frr"), sessions: sessions, admin: "no shutdown"}
		if err := os.Mkdir(f.dir, 0o755); err != nil {
			return nil, err
		}
		owner, err := user.Lookup("frr") // whom the daemons become
		if err != nil {
			return nil, err
		}
		uid, err := strconv.Atoi(owner.Uid)
		if err != nil {
			return nil, err
		}
		if err := os.Chown(f.dir, uid, -1); err != nil {
			return nil, err
		}
		if _, err := f.start("zebra", ""); err != nil {
			return nil, err
		}
		f.bfdd, err = f.start("bfdd", strings.Join(f.lines(100*time.Millisecond), "\n")+"\n", "--bfdctl", filepath.Join(f.dir, "bfdd.sock"))
		return f, err
	})
}
