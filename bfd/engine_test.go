package bfd

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Two engines, each family and mode; then one stops, which is no failure.
func TestEngines(t *testing.T) {
	n := newNetwork(t)
	auth := &Auth{Type: MeticulousSHA1, KeyID: 9, Key: []byte("a key of 20 bytes...")}
	tests := []struct {
		name        string
		left, right netip.Addr // the addresses
		config      Config
	}{
		{"IPv4", n.left4, n.right4, Config{}},
		{"IPv6", n.left6, n.right6, Config{Auth: auth}},
		{"IPv6 link-local", n.leftLL6, n.rightLL6, Config{Interface: "eth0"}},
		{"IPv4 over several hops", n.left4, n.far4, Config{Multihop: true, Auth: auth}},
		{"IPv6 over several hops", n.left6, n.far6, Config{Multihop: true}},
	}
	left, right, far := startEngine(t, n.left), startEngine(t, n.right), startEngine(t, n.far)
	ids := map[string][2]ID{}
	other := func(c Config) *running {
		if c.Multihop {
			return far
		}
		return right
	}
	for _, tt := range tests {
		a, b := tt.config, tt.config
		a.Local, a.Peer = tt.left, tt.right
		b.Peer = tt.left // its own is the kernel's choice
		if tt.config.Interface != "" {
			b.Local = tt.right
		}
		ids[tt.name] = [2]ID{left.add(a), other(b).add(b)}
	}
	for _, tt := range tests {
		left.untilUp(ids[tt.name][0])
		other(tt.config).untilUp(ids[tt.name][1])
		i := left.info(ids[tt.name][0])
		if i.TXInterval != 50*time.Millisecond || i.DetectionTime != calm*50*time.Millisecond || i.RemoteDiscriminator == 0 || !i.EverUp || i.ControlPlaneIndependent || len(i.Dropped) > 0 {
			t.Errorf("%s: %+v", tt.name, i)
		}
		if i.Config.Auth != nil && i.Config.Auth.Key != nil {
			t.Errorf("%s: the key is shown", tt.name)
		}
	}
	left.seen()
	right.stop()
	far.stop()
	for _, tt := range tests {
		e := left.untilEvent(ids[tt.name][0], Down)
		if e.Diag != DiagNeighborDown || e.RemoteState != AdminDown || e.RemoteDiag != DiagAdminDown || e.Failure() {
			t.Errorf("%s: stopped peer: %+v", tt.name, e)
		}
	}
	if _, err := right.Sessions(); !errors.Is(err, ErrStopped) {
		t.Errorf("call after the end: %v, want %v", err, ErrStopped)
	}
}

func TestEngineDetectsSilence(t *testing.T) {
	n := newNetwork(t)
	left, right := startEngine(t, n.left), startEngine(t, n.right)
	a := left.add(Config{Local: n.left4, Peer: n.right4})
	b := right.add(Config{Local: n.right4, Peer: n.left4, Interface: "eth0"})
	left.untilUp(a)
	right.untilUp(b)
	left.seen()
	right.seen()
	fatal(t, n.right.IP("link set eth0 down")) // left's own link stays up
	for _, who := range []struct {
		*running
		id ID
	}{{left, a}, {right, b}} {
		e := who.untilEvent(who.id, Down)
		if e.Diag != DiagTimeExpired || !e.Failure() || e.DetectedIn < calm*50*time.Millisecond {
			t.Errorf("%s: %+v", who.name, e)
		}
		t.Logf("%s: detected in %s", who.name, e.DetectedIn)
	}
	if i := right.until(b, "says why it sends nothing", func(i Info) bool { return i.SocketError != "" }); i.SendErrors == 0 || i.LastDown != DiagTimeExpired {
		t.Errorf("%+v", i)
	}
	if i := left.until(a, "forgets the peer", func(i Info) bool { return i.RemoteDiscriminator == 0 }); i.State != Down {
		t.Errorf("%+v", i)
	}
	fatal(t, n.right.IP("link set eth0 up"))
	left.untilUp(a)
	right.untilUp(b)
	if i := right.info(b); i.SocketError != "" {
		t.Errorf("still: %s", i.SocketError)
	}
}

// AdminDown from either side, Remove, and a session that is added again at once.
func TestEngineAdminDown(t *testing.T) {
	n := newNetwork(t)
	left, right := startEngine(t, n.left), startEngine(t, n.right)
	config := Config{Local: n.left4, Peer: n.right4}
	a, b := left.add(config), right.add(Config{Local: n.right4, Peer: n.left4})
	left.untilUp(a)
	right.untilUp(b)
	left.seen()
	right.seen()
	fatal(t, left.SetAdmin(a, true))
	if e := left.untilEvent(a, AdminDown); e.Failure() || e.Diag != DiagAdminDown {
		t.Errorf("%+v", e)
	}
	if e := right.untilEvent(b, Down); e.Failure() || e.RemoteState != AdminDown || e.Diag != DiagNeighborDown {
		t.Errorf("%+v", e)
	}
	fatal(t, left.SetAdmin(a, false))
	left.untilUp(a)
	right.untilUp(b)
	right.seen()
	fatal(t, left.Remove(a))
	a = left.add(Config{Local: n.left4, Peer: n.right4})
	right.untilEvent(b, Down)
	left.untilUp(a)
	right.untilUp(b)
	fatal(t, left.Remove(a))
	if e := right.untilEvent(b, Down); e.Failure() {
		t.Errorf("a removed session is a failure: %+v", e)
	}
	if err := left.Remove(a); !errors.Is(err, ErrUnknown) {
		t.Errorf("remove again: %v", err)
	}
	if err := left.SetAdmin(a, true); !errors.Is(err, ErrUnknown) {
		t.Errorf("set after remove: %v", err)
	}
}

func TestEngineUpdate(t *testing.T) {
	n := newNetwork(t)
	left := startEngine(t, n.left)
	config := Config{Local: n.left4, Peer: n.far4, Multihop: true, Interval: 100 * time.Millisecond, Multiplier: 20}
	back := Config{Local: n.far4, Peer: n.left4, Multihop: true, Interval: 100 * time.Millisecond, Multiplier: 20}
	far := startEngine(t, n.far)
	a, b := left.add(config), far.add(back)
	left.untilUp(a)
	far.untilUp(b)
	left.seen()
	far.seen()
	for _, interval := range []time.Duration{400 * time.Millisecond, 60 * time.Millisecond} {
		config.Interval, config.Multiplier = interval, 30
		fatal(t, left.Update(a, config))
		agreed := max(interval, 100*time.Millisecond)
		left.until(a, "settles", func(i Info) bool {
			return !i.Polling && i.TXInterval == agreed && i.RXInterval == agreed && i.DetectionTime == 20*agreed
		})
		far.until(b, "follows", func(i Info) bool {
			return i.TXInterval == agreed && i.RXInterval == agreed && i.RemoteMultiplier == 30 && i.DetectionTime == 30*agreed
		})
	}
	left.wantQuiet()
	far.wantQuiet()

	// A minimum TTL that the path does not keep ends it, and one that it does mends it.
	config.MinTTL = 255
	fatal(t, left.Update(a, config))
	i := left.until(a, "drops by TTL", func(i Info) bool { return i.State == Down && i.Dropped[DropTTL] > 0 })
	if i.LastDrop != errTTL.Error() {
		t.Errorf("%+v", i)
	}
	config.MinTTL = 200
	fatal(t, left.Update(a, config))
	left.untilUp(a)

	config.Local = n.stranger4
	if err := left.Update(a, config); err == nil {
		t.Error("Update accepts another local address")
	}
	if _, err := left.Add(Config{Local: n.left4, Peer: n.far4, Multihop: true, Interval: time.Second, Multiplier: 3}); !errors.Is(err, ErrExists) {
		t.Errorf("the same again: %v, want %v", err, ErrExists)
	}
}

// Packets that must not count, from the peer's own address and from others.
func TestEngineDrops(t *testing.T) {
	n := newNetwork(t)
	left, right := startEngine(t, n.left), startEngine(t, n.right)
	a, b := left.add(Config{Local: n.left4, Peer: n.right4}), right.add(Config{Local: n.right4, Peer: n.left4})
	left.untilUp(a)
	right.untilUp(b)
	left.seen()
	down := packet{State: Down, Multiplier: 3, Mine: 4711, Yours: left.info(a).LocalDiscriminator, DesiredMinTX: time.Second, RequiredMinRX: time.Second}
	admin := down
	admin.State = AdminDown
	wrong := down
	wrong.Yours++
	signed := down
	signed.Auth = authSection{Type: KeyedSHA1, KeyID: 1}
	password := append(down.appendTo(nil), 1, 4, 1, 'x')
	password[1] |= bitAuth
	password[3] += 4
	peer, afar := newOutsider(t, n.right, n.right4, 255), newOutsider(t, n.right, n.right4, 254)
	stranger := newOutsider(t, n.right, n.stranger4, 255)
	port := portSingleHop
	for range 200 { // the kernel's filter lets one of 4 pass here
		afar.send(n.left4, port, down.appendTo(nil))
	}
	stranger.send(n.left4, port, down.appendTo(nil))
	peer.send(n.left4, port, wrong.appendTo(nil))
	peer.send(n.left4, port, admin.appendTo(nil)[:20])
	peer.send(n.left4, port, nil)
	peer.send(n.left4, port, make([]byte, 1400))
	peer.send(n.left4, port, signed.appendTo(nil))
	peer.send(n.left4, port, password)
	i := left.until(a, "counts all", func(i Info) bool {
		return i.Dropped[DropTTL] > 0 && i.Dropped[DropDiscriminator] == 1 && i.Dropped[DropMalformed] == 3 && i.Dropped[DropAuth] == 2
	})
	if i.LastDrop != errAuthPassword.Error() || i.State != Up {
		t.Errorf("%+v", i)
	}
	left.wantQuiet()
	s, err := left.Stats()
	fatal(t, err)
	if s.KernelDrops < 100 || s.Dropped[DropNoSession] != 0 || s.Scheduling == "" {
		t.Errorf("%+v, want the stranger's packet, and most with a low TTL, refused by the filter", s)
	}

	// The control: the same packet as all those, but right, does count.
	peer.send(n.left4, port, down.appendTo(nil))
	if e := left.untilEvent(a, Down); e.Diag != DiagNeighborDown {
		t.Errorf("%+v", e)
	}
	left.untilUp(a)
}

// The engine's own checks, where the filter does not help.
func TestEngineWithoutFilter(t *testing.T) {
	n := newNetwork(t)
	left, right := startEngine(t, n.left), startEngine(t, n.right)
	for _, end := range []struct {
		*running
		local, peer netip.Addr
	}{{left, n.left6, n.right6}, {right, n.right6, n.left6}} {
		id := end.add(Config{Local: end.local, Peer: end.peer, Interval: time.Second})
		defer end.untilUp(id)
	}
	fatal(t, left.speaker.(*Engine).do(func() {
		fatal(t, unix.SetsockoptInt(left.speaker.(*Engine).receivers[1].fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	}))
	p := packet{State: Down, Multiplier: 3, Mine: 4711, DesiredMinTX: time.Second, RequiredMinRX: time.Second}
	stranger := newOutsider(t, n.far, n.far6, 255)
	stranger.send(n.left6, portSingleHop, p.appendTo(nil))
	afar := newOutsider(t, n.right, n.right6, 254)
	afar.send(n.left6, portSingleHop, p.appendTo(nil))
	eventually(t, "both drops", func() string {
		s, err := left.Stats()
		if err != nil || s.Dropped[DropNoSession] != 1 || s.Dropped[DropTTL] != 1 {
			return lines(left.seen())
		}
		return ""
	})
}

// A second engine on the host is an error that says so, and Remove gives the port back.
func TestEnginePortInUse(t *testing.T) {
	n := newNetwork(t)
	first, second := startEngine(t, n.left), startEngine(t, n.left)
	c := Config{Local: n.left4, Peer: n.right4, Interval: time.Second, Multiplier: 3}
	id := first.add(c)
	if _, err := second.Add(c); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second engine: %v, want %v", err, unix.EADDRINUSE)
	}
	fatal(t, first.Remove(id))
	eventually(t, "free port", func() string {
		_, err := second.Add(c)
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// Sessions whose addresses do not exist yet wait for them.
func TestEngineWaitsForItsAddress(t *testing.T) {
	n := newNetwork(t)
	left, right := startEngine(t, n.left), startEngine(t, n.right)
	late := netip.MustParseAddr("10.250.1.77")
	a := left.add(Config{Local: late, Peer: n.right4})
	b := right.add(Config{Local: n.right4, Peer: late})
	left.until(a, "says so", func(i Info) bool { return i.SocketError != "" })
	fatal(t, n.leftIf.AddAddr("10.250.1.77/24"))
	left.untilUp(a)
	right.untilUp(b)
}

func TestConfig(t *testing.T) {
	v4, v6, ll := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1")
	good := Config{Peer: v4, Interval: 300 * time.Millisecond, Multiplier: 3}
	with := func(edit func(*Config)) Config {
		c := good
		edit(&c)
		return c
	}
	tests := []struct {
		name   string
		config Config
		ok     bool
	}{
		{"the least", good, true},
		{"no peer", with(func(c *Config) { c.Peer = netip.Addr{} }), false},
		{"multicast peer", with(func(c *Config) { c.Peer = netip.MustParseAddr("224.0.0.5") }), false},
		{"two families", with(func(c *Config) { c.Local = v6 }), false},
		{"unspecified local", with(func(c *Config) { c.Local = netip.IPv4Unspecified() }), false},
		{"link-local without interface", with(func(c *Config) { c.Peer = ll }), false},
		{"link-local with zone", with(func(c *Config) { c.Peer = ll.WithZone("eth0") }), true},
		{"zone and another interface", with(func(c *Config) { c.Peer, c.Interface = ll.WithZone("eth0"), "eth1" }), false},
		{"several hops and an interface", with(func(c *Config) { c.Multihop, c.Interface = true, "eth0" }), false},
		{"TTL of a single hop", with(func(c *Config) { c.MinTTL = 254 }), false},
		{"interval too short", with(func(c *Config) { c.Interval = time.Millisecond }), false},
		{"interval too long", with(func(c *Config) { c.Interval = time.Hour }), false},
		{"interval in nanoseconds", with(func(c *Config) { c.Interval++ }), false},
		{"multiplier 0", with(func(c *Config) { c.Multiplier = 0 }), false},
		{"MD5", with(func(c *Config) { c.Auth = &Auth{Type: 2, Key: []byte("x")} }), false},
		{"no key", with(func(c *Config) { c.Auth = &Auth{Type: KeyedSHA1} }), false},
		{"key too long", with(func(c *Config) { c.Auth = &Auth{Type: KeyedSHA1, Key: make([]byte, 21)} }), false},
		{"SHA1", with(func(c *Config) { c.Auth = &Auth{Type: KeyedSHA1, Key: []byte("x")} }), true},
	}
	for _, tt := range tests {
		if _, err := tt.config.normal(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	c, err := good.normal()
	if err != nil || c.MinTTL != 255 {
		t.Errorf("minimum TTL of a single hop: %d, %v", c.MinTTL, err)
	}
}
