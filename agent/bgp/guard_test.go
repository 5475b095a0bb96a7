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
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
)

// Eight peers come up within milliseconds and announce 500 routes each: all must have
// those of all others in the end.
func TestPeersTogether(t *testing.T) {
	const peers, each = 8, 500
	s, r, _ := startSpeaker(t, nil)
	mustSetVNet(t, s, "10.1.0.0/16")
	for n := range peers {
		mustAdd(t, s, peerConf(4+n, uint32(65100+n)))
	}
	fakes := make([]*fake, peers)
	var wg sync.WaitGroup
	for n := range peers {
		wg.Go(func() {
			asn := uint32(65100 + n)
			f := connect(t, peerAddr(4+n), fakeOptions{asn: asn})
			var prefixes []netip.Prefix
			for i := range each {
				prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(n), byte(i >> 8), byte(i), 0}), 24))
			}
			for batch := range slices.Chunk(prefixes, 10) { // many small UPDATEs
				f.announceAll(announce{asPath: fmt.Sprint(asn), nextHop: peerAddr(4 + n).String()}, batch)
			}
			fakes[n] = f
		})
	}
	wg.Wait()
	for n, f := range fakes {
		want := (peers-1)*each + 1
		eventually(t, fmt.Sprintf("%d routes at peer %d", want, n), func() bool { return f.routes() == want })
		eventually(t, fmt.Sprintf("%d paths of peer %d", each, n), func() bool { return r.count(peerAddr(4+n)) == each })
	}
}

// What is withdrawn while another peer's session comes up must not stay with that peer.
func TestWithdrawnWhileComingUp(t *testing.T) {
	const withdrawers, each, rounds = 6, 300, 2
	s, r, _ := startSpeaker(t, nil)
	var fakes []*fake
	for n := range withdrawers {
		mustAdd(t, s, peerConf(4+n, uint32(65100+n)))
		fakes = append(fakes, connect(t, peerAddr(4+n), fakeOptions{asn: uint32(65100 + n)}))
	}
	for n := range rounds {
		mustAdd(t, s, peerConf(20+n, 65148))
	}
	for n := range rounds {
		var wg sync.WaitGroup
		for i, f := range fakes {
			prefixes := make([]string, each)
			for j := range prefixes {
				prefixes[j] = fmt.Sprintf("%d.%d.%d.0/24", 20+i, j>>8, j&255)
			}
			f.announce(announce{prefixes: prefixes, asPath: fmt.Sprint(65100 + i), nextHop: peerAddr(4 + i).String()})
			eventually(t, "all learned", func() bool { return r.count(peerAddr(4+i)) == each })
			wg.Go(func() { f.withdraw(prefixes[1:]...) }) // one UPDATE each
		}
		b := connect(t, peerAddr(20+n), fakeOptions{asn: 65148})
		wg.Wait()
		eventually(t, fmt.Sprintf("%d routes at peer %d", withdrawers, n), func() bool { return b.routes() == withdrawers })
		time.Sleep(gapAfter) // what comes later must not bring them back
		if n := b.routes(); n != withdrawers {
			t.Errorf("%d routes at the peer, want %d", n, withdrawers)
		}
	}
}

// The cure itself, without a race: the prefix of the first is gone everywhere, that of the
// second was announced again.
func TestWithdrawAgain(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	a.announce(announce{prefixes: []string{"192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	a.announce(announce{prefixes: []string{"2001:db8:2::/48"}, asPath: "65147", nextHop: "fd00:1::4"})
	b.wantRoute("2001:db8:2::/48", "65515 65147 via fd00:1::4 [igp] med - []")
	m := &missed{prefixes: map[netip.Prefix]struct{}{}}
	b.mu.Lock() // as if it had been announced to b, and the withdrawal had been lost
	for _, p := range []string{"192.168.1.0/24", "2001:db8:1::/48"} {
		b.table[netip.MustParsePrefix(p)] = route{}
	}
	for p := range b.table {
		m.add(p)
	}
	b.mu.Unlock()
	s.op.Lock()
	err := s.withdrawAgain(s.find(peerAddr(5)), m)
	s.op.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	b.wantRoute("192.168.1.0/24", "")
	b.wantRoute("2001:db8:1::/48", "")
	b.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
	b.wantRoute("2001:db8:2::/48", "65515 65147 via fd00:1::4 [igp] med - []")
	if n := a.routes(); n != 0 {
		t.Errorf("a got %d routes, want none", n)
	}
}

// A peer that takes a connection and says nothing must not keep its next one out for
// the 240 s of GoBGP.
func TestSilentPeer(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	s.openTimeout = 3 * time.Second
	theirs, own := peerAddr(4), peerAddr(5)
	l, err := net.ListenTCP("tcp", tcpFrom(own))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := peerConf(5, 65148)
	c.Passive, c.Port = false, uint16(l.Addr().(*net.TCPAddr).Port)
	mustAdd(t, s, peerConf(4, 65147), c)
	eventually(t, "readiness", func() bool { return r.state(theirs) == Active }) // before, GoBGP closes what it is given
	connect(t, theirs, fakeOptions{noOpen: true})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, a := range []netip.Addr{theirs, own} {
		eventually(t, "the attempt to be given up", func() bool { return r.lastDown(a).Down.Cause != "" })
		if d := r.lastDown(a).Down; d.Cause != "connection-lost" || d.Text != "the peer took the connection and sent no OPEN within 3s" {
			t.Errorf("reason for %s = %+v", a, d)
		}
	}
	connect(t, theirs, fakeOptions{asn: 65147})
	if i, _ := s.Peer(theirs); i.AdminDown {
		t.Error("the peer is shown as shut down")
	}
}

// A session that is up is not given up because the watching goroutine is behind.
func TestBusyWatcher(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	s.openTimeout = time.Second
	mustAdd(t, s, peerConf(4, 65147))
	eventually(t, "readiness", func() bool { return r.state(peerAddr(4)) == Active })
	r.mu.Lock() // the next event, OpenSent, waits in the Handler
	f := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	time.Sleep(s.openTimeout + 2*guardEvery)
	r.mu.Unlock()
	eventually(t, "session", func() bool { return r.state(peerAddr(4)) == Established })
	if i, _ := s.Peer(peerAddr(4)); i.Flaps != 0 || f.isClosed() {
		t.Errorf("%d flaps, closed: %v", i.Flaps, f.isClosed())
	}
}

func TestSameIdentifier(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), peerConf(6, 65149))
	id := netip.MustParseAddr("1.1.1.1")
	connect(t, peerAddr(4), fakeOptions{asn: 65147, id: id})
	connect(t, peerAddr(5), fakeOptions{asn: 65148, id: id})
	connect(t, peerAddr(6), fakeOptions{asn: 65149})
	eventually(t, "warnings", func() bool {
		l := s.Peers()
		return len(l) == 3 && strings.HasPrefix(l[0].Warning, "peer nva5 has the same BGP identifier 1.1.1.1") &&
			strings.HasPrefix(l[1].Warning, "peer nva4 has the same") && l[2].Warning == "" && l[2].State == Established
	})
}

// RFC 4724 section 4.2: paths stay while the peer restarts; what it does not announce again
// goes at End-of-RIB, or with the family that it no longer keeps.
func TestGracefulRestart(t *testing.T) {
	a := peerAddr(4)
	two := announce{prefixes: []string{"192.168.1.0/24", "192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"}
	start := func(t *testing.T, o fakeOptions) (*Speaker, *recorder, *fake, *fake) {
		s, r, _ := startSpeaker(t, nil)
		mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
		o.asn = 65147
		f := connect(t, a, o)
		b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
		f.announce(two)
		f.sendEndOfRIB(bgp.RF_IPv4_UC)
		f.sendEndOfRIB(bgp.RF_IPv6_UC)
		b.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
		eventually(t, "End-of-RIB", func() bool { return slices.Contains(r.heard(a), "EndOfRIB 6") })
		f.conn.Close()
		eventually(t, "session down", func() bool { return r.lastDown(a).Graceful })
		return s, r, f, b
	}
	t.Run("back in time", func(t *testing.T) {
		_, r, _, b := start(t, fakeOptions{})
		g := connect(t, a, fakeOptions{asn: 65147})
		two := two
		two.prefixes = two.prefixes[:1]
		g.announce(two)
		g.sendEndOfRIB(bgp.RF_IPv4_UC)
		g.sendEndOfRIB(bgp.RF_IPv6_UC)
		b.wantRoute("192.168.2.0/24", "")
		b.wantRoute("192.168.1.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
		tail := []string{"Idle", "Active", "OpenSent", "OpenConfirm", "Established", "Learned +1 -0", "EndOfRIB 4", "EndOfRIB 6"}
		eventually(t, fmt.Sprintf("the Handler hears, in the end, %q", tail), func() bool {
			heard := r.heard(a)
			return len(heard) > len(tail) && slices.Equal(heard[len(heard)-len(tail):], tail)
		})
	})
	t.Run("not back", func(t *testing.T) {
		_, r, _, b := start(t, fakeOptions{restartTime: 1})
		eventually(t, "withdrawal", func() bool { return r.count(a) == 0 })
		b.wantRoute("192.168.2.0/24", "")
	})
	t.Run("given up", func(t *testing.T) {
		s, r, _, b := start(t, fakeOptions{})
		s.EndRestart(a)
		eventually(t, "withdrawal", func() bool { return r.count(a) == 0 })
		b.wantRoute("192.168.2.0/24", "")
		g := connect(t, a, fakeOptions{asn: 65147})
		g.announce(two)
		b.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
		eventually(t, "both paths", func() bool { return r.count(a) == 2 })
		s.EndRestart(a) // is over
		time.Sleep(100 * time.Millisecond)
		if r.state(a) != Established || r.count(a) != 2 {
			t.Errorf("state %s, %d paths after EndRestart with the session up", r.state(a), r.count(a))
		}
	})
	for name, want := range map[string][]Family{"forwarding state lost": nil, "forwarding state kept": {IPv4, IPv6}} {
		t.Run(name, func(t *testing.T) {
			_, r, _, _ := start(t, fakeOptions{})
			connect(t, a, fakeOptions{asn: 65147, lost: want == nil})
			eventually(t, "session", func() bool { return r.state(a) == Established })
			if e := r.event(a); !slices.Equal(e.Preserved, want) {
				t.Errorf("preserved: %v, want %v", e.Preserved, want)
			}
		})
	}
	t.Run("switched off", func(t *testing.T) {
		s, r, _, b := start(t, fakeOptions{})
		connect(t, a, fakeOptions{asn: 65147, noRestart: true})
		eventually(t, "withdrawal", func() bool { return r.count(a) == 0 })
		b.wantRoute("192.168.2.0/24", "")
		g := connect(t, a, fakeOptions{asn: 65147, noRestart: true}) // GoBGP knows nothing of it any more
		g.announce(two)
		b.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
		eventually(t, "both paths", func() bool { return r.count(a) == 2 })
		g.conn.Close()
		eventually(t, "withdrawal", func() bool { return r.count(a) == 0 && r.state(a) != Established })
		if i, _ := s.Peer(a); i.Flaps != 3 {
			t.Errorf("flaps = %d, want 3", i.Flaps)
		}
	})
}

// A session that ends before anybody has heard that it was up is lost as any other.
func TestGracefulRestartOfAShortSession(t *testing.T) {
	l, downs := late{newRecorder(), OpenConfirm, make(chan struct{})}, make(chan bool, 2) // told twice, see lossAgain
	s, _, _ := startSpeaker(t, func(o *Options) {
		o.Handler = l
		o.OnPeerDown = func(_ netip.Addr, _ DownReason, graceful bool) { downs <- graceful }
	})
	mustAdd(t, s, peerConf(4, 65147))
	connect(t, peerAddr(4), fakeOptions{asn: 65147}).conn.Close()
	if !<-downs {
		t.Error("told as lost for good")
	}
	close(l.let)
	eventually(t, "the loss", func() bool { return l.lastDown(peerAddr(4)).Graceful })
}

// RFC 4724 section 4.1: a speaker that restarts says so, and announces nothing before it
// has heard all of its peers.
func TestRestarting(t *testing.T) {
	s, _, _ := startSpeaker(t, func(o *Options) { o.Restarting = true })
	mustSetVNet(t, s, "10.1.0.0/16")
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	a.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	a.sendEndOfRIB(bgp.RF_IPv4_UC)
	a.sendEndOfRIB(bgp.RF_IPv6_UC)
	offered := ""
	for _, o := range a.open.OptParams {
		for _, c := range o.(*bgp.OptionParameterCapability).Capability {
			if g, ok := c.(*bgp.CapGracefulRestart); ok {
				offered = fmt.Sprintf("flags %x", g.Flags)
				for _, x := range g.Tuples {
					offered += fmt.Sprintf(" %d/%d/%x", x.AFI, x.SAFI, x.Flags)
				}
			}
		}
	}
	// Restart State and, from RFC 8538, NOTIFICATION support; Forwarding State.
	if want := "flags c 1/1/80 2/1/80"; offered != want {
		t.Errorf("graceful restart capability = %q, want %q", offered, want)
	}
	time.Sleep(2 * gapAfter)
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	time.Sleep(2 * gapAfter)
	if a.routes() != 0 || b.routes() != 0 {
		t.Errorf("%d and %d routes announced before End-of-RIB of all peers", a.routes(), b.routes())
	}
	b.sendEndOfRIB(bgp.RF_IPv4_UC)
	b.sendEndOfRIB(bgp.RF_IPv6_UC)
	a.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	b.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	b.wantRoute("192.168.1.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
}

// S7, against FRR: right and wrong secrets, and one that changes and goes.
func TestMD5(t *testing.T) {
	s, r, log := startSpeaker(t, nil)
	file := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("s3cret")
	a := peerAddr(4)
	c := peerConf(4, 65147)
	c.PasswordFile = file
	mustAdd(t, s, c)
	nva := startFRR(t, 4, 65147, "password s3cret")
	eventually(t, "session", func() bool { return r.state(a) == Established })

	write("another")
	if err := s.UpdatePeer(c); err != nil {
		t.Fatal(err)
	}
	if r.state(a) != Established {
		t.Error("another secret ended the session")
	}
	nva.vtysh("conf t", "router bgp 65147", "neighbor 10.1.2.4 password another") // FRR ends it
	eventually(t, "session down", func() bool { return r.lastDown(a).Down.Cause != "" })
	eventually(t, "session", func() bool { return r.state(a) == Established })

	c.PasswordFile = ""
	if err := s.UpdatePeer(c); err != nil {
		t.Fatal(err)
	}
	nva.vtysh("conf t", "router bgp 65147", "no neighbor 10.1.2.4 password")
	eventually(t, "session", func() bool { return r.state(a) == Established })
	for _, secret := range []string{"s3cret", "another"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells the secret %q", secret)
		}
	}
}

// S7: GTSM lets in what comes from near enough.
func TestGTSM(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	for n, hops := range map[int]uint8{4: 1, 5: 1, 6: 56} {
		c := peerConf(n, uint32(65100+n))
		c.GTSM = hops
		mustAdd(t, s, c)
	}
	startFRR(t, 4, 65104, "ttl-security hops 1")
	startFRR(t, 5, 65105, "ebgp-multihop 200") // sends with TTL 200: 55 hops away
	startFRR(t, 6, 65106, "ebgp-multihop 200")
	for _, n := range []int{4, 6} {
		eventually(t, fmt.Sprintf("session %d", n), func() bool { return r.state(peerAddr(n)) == Established })
	}
	eventually(t, "the connection from afar", func() bool { return slices.Contains(r.heard(peerAddr(5)), string(OpenSent)) })
	time.Sleep(500 * time.Millisecond)
	if slices.Contains(r.heard(peerAddr(5)), string(Established)) {
		t.Error("the session of the far one came up")
	}
}

// We connect, with our options, to peers that don't.
func TestActive(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	c := peerConf(4, 65147)
	c.Passive, c.LocalAddress, c.Port = false, ours, 2179
	mustAdd(t, s, c)
	startFRR(t, 4, 65147, "passive", "port 2179")
	eventually(t, "session", func() bool { return r.state(c.Address) == Established })
	if e := r.event(c.Address); e.LocalAddress != ours {
		t.Errorf("local address = %s, want %s", e.LocalAddress, ours)
	}
	c.NextHop = config.NextHopSelf
	if err := s.UpdatePeer(c); err != nil || r.state(c.Address) != Established {
		t.Errorf("UpdatePeer = %v, state %s", err, r.state(c.Address))
	}
}
