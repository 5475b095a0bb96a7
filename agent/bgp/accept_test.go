package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
)

// rawSocket is a socket before it is connected.
type rawSocket struct{ syscall.RawConn }

func (r rawSocket) SyscallConn() (syscall.RawConn, error) { return r.RawConn, nil }

// signed gives a socket the key for connections with the speaker.
func signed(password string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if password == "" {
			return nil
		}
		return setMD5(rawSocket{c}, hostPrefix(ours), password)
	}
}

// secretFile holds a secret that a test changes.
func secretFile(t *testing.T) (file string, write func(secret string)) {
	file = filepath.Join(t.TempDir(), "secret")
	return file, func(secret string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mustUpdate(t *testing.T, s *Speaker, c config.Peer) {
	t.Helper()
	if err := s.UpdatePeer(c); err != nil {
		t.Fatal(err)
	}
}

// Both sides change the secret while the session is up: it stays, and what was announced
// in between arrives.
func TestRotateSecret(t *testing.T) {
	s, r, log := startSpeaker(t, nil)
	file, write := secretFile(t)
	write("s3cret-one")
	c := peerConf(4, 65147)
	c.PasswordFile = file
	mustAdd(t, s, c, peerConf(5, 65148))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147, password: "s3cret-one"})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	eventually(t, "session", func() bool { return r.state(peerAddr(4)) == Established })
	for i, secret := range []string{"s3cret-two", "s3cret-three"} {
		write(secret)
		c.Description = secret[7:] // with something else that changes
		mustUpdate(t, s, c)
		prefix := fmt.Sprintf("192.168.%d.0/24", i)
		a.announce(announce{prefixes: []string{prefix}, asPath: "65147", nextHop: "10.1.0.4"})
		if err := setMD5(a.conn.(syscall.Conn), hostPrefix(ours), secret); err != nil {
			t.Fatal(err)
		}
		b.wantRoute(prefix, "65515 65147 via 10.1.0.4 [igp] med - []")
	}
	if i, _ := s.Peer(peerAddr(4)); i.Flaps != 0 || a.isClosed() || i.Warning != "" {
		t.Errorf("the session did not stay up: %+v", i)
	}
	a.conn.Close()
	eventually(t, "session down", func() bool { return r.state(peerAddr(4)) != Established })
	d := net.Dialer{LocalAddr: tcpFrom(peerAddr(4)), Timeout: 300 * time.Millisecond, Control: signed("s3cret-one")}
	if conn, err := d.Dial("tcp", listenOn.String()); err == nil {
		conn.Close()
		t.Error("the old secret still connects")
	}
	connect(t, peerAddr(4), fakeOptions{asn: 65147, password: "s3cret-three"})
	if strings.Contains(log.String(), "s3cret") {
		t.Error("the log tells a secret")
	}
	if err := s.RemovePeer(peerAddr(4)); err != nil {
		t.Fatal(err)
	}
	connect(t, peerAddr(4), fakeOptions{noOpen: true}) // no key is left behind
}

// Our own connections have the new secret too: those of a peer that was down when it
// changed, and those after a session in which it did.
func TestRotateSecretConnecting(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	file, write := secretFile(t)
	write("one")
	c := peerConf(5, 65148)
	c.PasswordFile, c.Passive, c.Port, c.LocalAddress = file, false, 1790, ours
	mustAdd(t, s, c)
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", netip.AddrPortFrom(peerAddr(5), c.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key := func(on syscall.Conn, secret string) {
		t.Helper()
		if err := setMD5(on, hostPrefix(ours), secret); err != nil {
			t.Fatal(err)
		}
	}
	// session waits for a connection that becomes one.
	session := func() *fake {
		var f *fake
		within(t, time.Minute, "session", func() bool {
			l.(*net.TCPListener).SetDeadline(time.Now().Add(40 * time.Second))
			conn, err := l.Accept()
			if err != nil {
				t.Fatalf("nobody connects: %v", err)
			}
			f = &fake{t: t, conn: conn, asn: 65148, table: map[netip.Prefix]route{}}
			t.Cleanup(func() { conn.Close() })
			if err := f.handshake(peerAddr(5), fakeOptions{asn: 65148, noRestart: true}); err != nil {
				conn.Close()
				return false
			}
			go f.read()
			return true
		})
		eventually(t, "session", func() bool { return r.state(peerAddr(5)) == Established })
		return f
	}
	key(l.(syscall.Conn), "two") // nothing of ours arrives
	eventually(t, "attempts with the old secret", func() bool { return r.state(peerAddr(5)) == Active })
	write("two")
	mustUpdate(t, s, c)
	f := session()

	write("three")
	mustUpdate(t, s, c)
	key(f.conn.(syscall.Conn), "three")
	key(l.(syscall.Conn), "three")
	if i, _ := s.Peer(peerAddr(5)); i.Flaps != 0 {
		t.Errorf("the session did not stay up: %+v", i)
	}
	f.conn.Close()
	eventually(t, "session down", func() bool { return r.state(peerAddr(5)) != Established })
	session()
}

// refusals counts what a speaker refused, and who of a range came.
type refusals struct {
	mu    sync.Mutex
	count map[Refusal]int
	came  []config.Arrival
}

func (r *refusals) options(o *Options) {
	r.count = map[Refusal]int{}
	o.OnRefused = func(why Refusal) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.count[why]++
	}
	o.OnStranger = func(addr netip.Addr, asn uint32) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.came = append(r.came, config.Arrival{Address: addr, ASN: asn})
	}
}

func (r *refusals) of(why Refusal) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[why]
}

func (r *refusals) hasCome(a config.Arrival) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.came, a)
}

// A flood of connections from a peer's address disturbs neither its session nor another's,
// nor one that comes up.
func TestConnectionFlood(t *testing.T) {
	var refused refusals
	s, _, log := startSpeaker(t, refused.options)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), peerConf(6, 65149))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	var flood sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		flood.Go(func() {
			d := net.Dialer{LocalAddr: tcpFrom(peerAddr(4)), Timeout: time.Second}
			for {
				select {
				case <-done:
					return
				default:
				}
				if conn, err := d.Dial("tcp", listenOn.String()); err == nil {
					conn.Close()
				}
			}
		})
	}
	eventually(t, "connections refused", func() bool { return refused.of(RefusedRate) > 100 })
	c := connect(t, peerAddr(6), fakeOptions{asn: 65149})
	a.announce(announce{prefixes: []string{"192.168.4.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	for _, f := range []*fake{b, c} {
		f.wantRoute("192.168.4.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
	}
	close(done)
	flood.Wait()
	for _, n := range []int{4, 5, 6} {
		if i, _ := s.Peer(peerAddr(n)); i.State != Established || i.Flaps != 0 {
			t.Errorf("the session of peer %d: %+v", n, i)
		}
	}
	if n := strings.Count(log.String(), "event=connection-refused"); n < 1 || n > 6 {
		t.Errorf("%d records of the flood, want one in ten seconds", n)
	}
	connect(t, peerAddr(9), fakeOptions{noOpen: true})
	eventually(t, "a stranger refused", func() bool { return refused.of(RefusedStranger) == 1 })
}

// A range with a secret and a list of ASNs: who has both becomes a peer.
func TestRange(t *testing.T) {
	var refused refusals
	s, r, log := startSpeaker(t, refused.options)
	s.openTimeout = 5 * time.Second
	file, write := secretFile(t)
	write("s3cret")
	like := peerConf(4, 0)
	like.PasswordFile = file
	ranges := []config.DynamicPeers{{
		Range: netip.MustParsePrefix("10.1.0.16/28"), Limit: 2, Like: like,
		ASNs: []config.ASNRange{{First: 65200, Last: 65200}, {First: 4200000000, Last: 4200000010}},
	}}
	if err := s.SetRanges(ranges); err != nil {
		t.Fatal(err)
	}
	dial := func(n int, secret string) net.Conn {
		d := net.Dialer{LocalAddr: tcpFrom(peerAddr(n)), Timeout: 300 * time.Millisecond, Control: signed(secret)}
		conn, err := d.Dial("tcp", listenOn.String())
		if err != nil {
			return nil
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for _, secret := range []string{"", "another"} {
		if dial(20, secret) != nil {
			t.Errorf("the secret %q connects", secret)
		}
	}
	// comes sends an OPEN, and returns the error that ends it.
	comes := func(n int, asn uint32) error {
		var conn net.Conn
		eventually(t, "connection", func() bool { conn = dial(n, "s3cret"); return conn != nil })
		return (&fake{t: t, conn: conn, asn: asn}).handshake(peerAddr(n), fakeOptions{asn: asn})
	}
	if err := comes(20, 65201); err == nil || err.Error() != fmt.Sprintf("NOTIFICATION %d/%d", bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS) {
		t.Errorf("with another AS: %v", err)
	}
	for n, asn := range map[int]uint32{20: 4200000007, 21: 65200} {
		comes(n, asn)
		eventually(t, "it is to be a peer", func() bool { return refused.hasCome(config.Arrival{Address: peerAddr(n), ASN: asn}) })
	}
	eventually(t, "a connection that says nothing", func() bool { return dial(22, "s3cret") != nil })
	eventually(t, "its end", func() bool { return refused.of(session.RefusedOpen) == 1 })
	if refused.of(RefusedASN) != 1 || refused.of(RefusedRate) != 0 || refused.of(RefusedStranger) != 0 {
		t.Errorf("refused: %v", refused.count)
	}

	c := like
	c.Dynamic, c.Address, c.ASN = true, peerAddr(20), 4200000007
	mustAdd(t, s, c)
	f := connect(t, peerAddr(20), fakeOptions{asn: 4200000007, password: "s3cret"})
	eventually(t, "session", func() bool { return r.state(peerAddr(20)) == Established })
	write("s3cret-two")
	if err := s.SetRanges(ranges); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, s, c)
	f.announce(announce{prefixes: []string{"192.168.4.0/24"}, asPath: "4200000007", nextHop: "10.1.0.20"})
	if err := setMD5(f.conn.(syscall.Conn), hostPrefix(ours), "s3cret-two"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a path after the secret changed", func() bool { return r.count(peerAddr(20)) == 1 })
	if i, _ := s.Peer(peerAddr(20)); i.Flaps != 0 {
		t.Errorf("the session did not stay: %+v", i)
	}
	if keys := len(s.keys); keys != 1 {
		t.Errorf("%d keys on the listeners, want the range's", keys)
	}
	if err := s.SetRanges(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a connection without the range's key", func() bool { return dial(21, "") != nil })
	eventually(t, "a stranger", func() bool { return refused.of(RefusedStranger) == 1 })
	if err := s.SetRanges([]config.DynamicPeers{{Range: ranges[0].Range, Like: config.Peer{PasswordFile: "/nonexistent"}}}); err == nil {
		t.Error("a secret that can't be read: no error")
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Error("the log tells the secret")
	}
}
