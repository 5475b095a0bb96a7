package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
)

func TestLearnAndLose(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	a := peerAddr(4)
	mustAdd(t, s, peerConf(4, 65147))
	f := connect(t, a, fakeOptions{asn: 65147, noRestart: true})
	// Both families over an IPv4 session, a default route (S10), a third-party next hop (S11).
	f.announce(announce{prefixes: []string{"192.168.255.0/24", "0.0.0.0/0"}, asPath: "65147 65001", nextHop: "10.1.0.99", med: 7, communities: []uint32{1, 65147<<16 | 2}})
	f.announce(announce{prefixes: []string{"2001:db8:ff::/48"}, asPath: "65147 {3,4}", nextHop: "fd00:1::4", origin: 2})
	eventually(t, "three paths", func() bool { return r.count(a) == 3 })
	if e := r.event(a); e.PeerASN != 65147 || e.RemoteID != a || e.LocalAddress != ours || !slices.Equal(e.Families, []Family{IPv4, IPv6}) {
		t.Errorf("event = %+v, want ASN 65147, BGP identifier %s, local address %s, both families", e, a, ours)
	}
	got := *r.path(a, "192.168.255.0/24")
	want := `via 10.1.0.99 as 65147 65001 igp med true 7 [1 4269473794]`
	if text := fmt.Sprintf("via %s as %s %s med %v %d %d", got.NextHop, got.ASPath, got.Origin, got.HasMED, got.MED, got.Communities); text != want {
		t.Errorf("IPv4 path = %q, want %q", text, want)
	}
	if r.path(a, "0.0.0.0/0") != r.path(a, "192.168.255.0/24") {
		t.Error("two prefixes of an UPDATE do not share their attributes")
	}
	got = *r.path(a, "2001:db8:ff::/48")
	want = "via fd00:1::4 as 65147 {3,4} incomplete med false 0"
	if text := fmt.Sprintf("via %s as %s %s med %v %d", got.NextHop, got.ASPath, got.Origin, got.HasMED, got.MED); text != want {
		t.Errorf("IPv6 path = %q, want %q", text, want)
	}

	f.withdraw("0.0.0.0/0", "2001:db8:ff::/48")
	eventually(t, "one path", func() bool { return r.count(a) == 1 })
	f.conn.Close()
	eventually(t, "session down", func() bool { return r.lastDown(a).State == Idle })
	if n := r.count(a); n != 0 {
		t.Errorf("%d paths left after the session was lost", n)
	}
	heard := r.heard(a)
	tail := []string{"Established", "Learned +2 -0", "Learned +1 -0", "Learned +0 -1", "Learned +0 -1", "Learned +0 -1", "Idle"}
	if i := slices.Index(heard, "Established"); i < 0 || !slices.Equal(heard[i:], tail) {
		t.Errorf("heard %q, want it to end with %q", heard, tail)
	}
}

func TestIPv6Session(t *testing.T) {
	s, r, _ := startSpeaker(t, func(o *Options) {
		o.Listen = append(o.Listen, netip.AddrPortFrom(ours6, 179))
	})
	c4, c6 := peerConf(4, 65147), peerConf(5, 65148)
	c6.Address = peerAddr6(5)
	mustAdd(t, s, c4, c6)
	mustSetVNet(t, s, "10.1.0.0/16", "fd00:1::/64")
	f4 := connect(t, c4.Address, fakeOptions{asn: 65147})
	f6 := connect(t, c6.Address, fakeOptions{asn: 65148})
	// S28: a session's local address, or the host's address of the other family.
	for _, f := range []*fake{f4, f6} {
		f.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
		f.wantRoute("fd00:1::/64", "65515 via fd00:1::2:4 [igp] med - []")
	}
	// S29: both families over either session, next hop unchanged.
	f6.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65148", nextHop: "10.1.0.5"})
	f6.announce(announce{prefixes: []string{"2001:db8:1::/48"}, asPath: "65148", nextHop: "fd00:1::5"})
	f4.announce(announce{prefixes: []string{"192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	f4.announce(announce{prefixes: []string{"2001:db8:2::/48"}, asPath: "65147", nextHop: "fd00:1::4"})
	f4.wantRoute("192.168.1.0/24", "65515 65148 via 10.1.0.5 [igp] med - []")
	f4.wantRoute("2001:db8:1::/48", "65515 65148 via fd00:1::5 [igp] med - []")
	f6.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
	f6.wantRoute("2001:db8:2::/48", "65515 65147 via fd00:1::4 [igp] med - []")
	eventually(t, "paths", func() bool { return r.count(c4.Address) == 2 && r.count(c6.Address) == 2 })

	c4.NextHop, c6.NextHop = config.NextHopSelf, config.NextHopSelf
	for _, c := range []config.Peer{c4, c6} {
		if err := s.UpdatePeer(c); err != nil {
			t.Fatal(err)
		}
	}
	f4.wantRoute("192.168.1.0/24", "65515 65148 via 10.1.2.4 [igp] med - []")
	f4.wantRoute("2001:db8:1::/48", "65515 65148 via fd00:1::2:4 [igp] med - []")
	f6.wantRoute("192.168.2.0/24", "65515 65147 via 10.1.2.4 [igp] med - []")
	f6.wantRoute("2001:db8:2::/48", "65515 65147 via fd00:1::2:4 [igp] med - []")
	if f4.isClosed() || f6.isClosed() {
		t.Error("a session was reset by a change of the next hop")
	}
}

// S6, S4: what we offer.
func TestCapabilities(t *testing.T) {
	s, _, _ := startSpeaker(t, func(o *Options) { o.ASN = 4200000000 })
	mustAdd(t, s, peerConf(4, 4200000001))
	f := connect(t, peerAddr(4), fakeOptions{asn: 4200000001, hold: 30})
	if f.open.HoldTime != 180 {
		t.Errorf("hold time offered = %d, want 180 (S5)", f.open.HoldTime)
	}
	eventually(t, "timers", func() bool {
		i, _ := s.Peer(peerAddr(4))
		return i.HoldTime.Seconds() == 30 && i.Keepalive.Seconds() == 10
	})
	i, _ := s.Peer(peerAddr(4))
	want := []string{
		"4-octet-as 4200000000", "extended-message", "extended-nexthop", "fqdn", "graceful-restart 120s ipv4-unicast ipv6-unicast",
		"multiprotocol ipv4-unicast", "multiprotocol ipv6-unicast", "route-refresh",
	}
	if !slices.Equal(i.LocalCapabilities, want) {
		t.Errorf("our capabilities = %q, want %q", i.LocalCapabilities, want)
	}
	if i.LocalAddress != ours || i.RemoteID != peerAddr(4) || i.EstablishedAt.IsZero() {
		t.Errorf("session = %+v, want local address %s and BGP identifier %s", i, ours, peerAddr(4))
	}
	// A ROUTE-REFRESH is answered with all, and no reset.
	mustSetVNet(t, s, "10.1.0.0/16")
	f.wantRoute("10.1.0.0/16", "4200000000 via 10.1.2.4 [igp] med - []")
	f.mu.Lock()
	clear(f.table)
	f.mu.Unlock()
	if err := f.send(bgp.NewBGPRouteRefreshMessage(bgp.AFI_IP, 0, bgp.SAFI_UNICAST)); err != nil {
		t.Fatal(err)
	}
	f.wantRoute("10.1.0.0/16", "4200000000 via 10.1.2.4 [igp] med - []")
}

// S3
func TestUnknownPeer(t *testing.T) {
	s, _, log := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147))
	d := net.Dialer{LocalAddr: tcpFrom(peerAddr(9))}
	conn, err := d.Dial("tcp", listenOn.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("an unknown peer was sent %d octets", n)
	}
	eventually(t, "a log line", func() bool { return strings.Contains(log.String(), "address=10.1.0.9") })
}

func TestPortInUse(t *testing.T) {
	startSpeaker(t, nil)
	free := netip.AddrPortFrom(peerAddr(4), 179)
	other := New(Options{ASN: ourASN, RouterID: ours, Listen: []netip.AddrPort{free, listenOn}, Handler: newRecorder()})
	err := other.Start(t.Context())
	var listen *ListenError
	if !errors.As(err, &listen) || listen.Address != listenOn || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Start = %v, want a ListenError of %s with EADDRINUSE", err, listenOn)
	}
	if l, err := net.Listen("tcp4", free.String()); err != nil {
		t.Errorf("what could be listened on stays in use: %v", err)
	} else {
		l.Close()
	}
	if err := New(Options{ASN: ourASN, RouterID: ours, Handler: newRecorder()}).Start(t.Context()); err == nil {
		t.Error("Start without an address to listen on: no error")
	}
}
