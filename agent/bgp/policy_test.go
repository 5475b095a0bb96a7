package bgp

import (
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
)

const (
	noExport    = 0xffffff01
	noAdvertise = 0xffffff02
)

// S28: what the VNet looks like to a peer, and that a change touches only what changes.
func TestVNet(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147))
	mustSetVNet(t, s, "10.1.0.0/16", "10.2.0.0/16")
	f := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	f.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	f.wantRoute("10.2.0.0/16", "65515 via 10.1.2.4 [igp] med - []")

	// The peer's own announcement of it is learned, and overrides nothing.
	f.announce(announce{prefixes: []string{"10.1.0.0/16"}, nextHop: "10.1.0.4", asPath: "65147"})
	eventually(t, "the path", func() bool { return r.path(peerAddr(4), "10.1.0.0/16") != nil })

	f.mu.Lock()
	before := f.updates
	f.mu.Unlock()
	mustSetVNet(t, s, "10.1.0.0/16", "10.3.0.0/16")
	f.wantRoute("10.3.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	f.wantRoute("10.2.0.0/16", "")
	f.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	f.mu.Lock()
	if n := f.updates - before; n > 2 {
		t.Errorf("the change of two prefixes took %d UPDATEs", n)
	}
	f.mu.Unlock()

	prefixes := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	if err := s.SetVNet(prefixes, netip.MustParseAddr("10.1.2.100"), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	f.wantRoute("10.1.0.0/16", "65515 via 10.1.2.100 [igp] med - []")
	f.wantRoute("10.3.0.0/16", "")
	if err := s.SetVNet(nil, netip.Addr{}, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	f.wantRoute("10.1.0.0/16", "")
	if f.isClosed() {
		t.Error("the session was reset")
	}
}

// S29, S30
func TestBranchToBranch(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	self := peerConf(6, 65149)
	self.NextHop = config.NextHopSelf
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), self)
	mustSetVNet(t, s, "10.1.0.0/16")
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	c := connect(t, peerAddr(6), fakeOptions{asn: 65149})

	// RFC 4271 section 5.1.4: a MED from one AS is not passed on to another.
	a.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147 65147", nextHop: "10.1.0.99", med: 5, communities: []uint32{77}})
	a.announce(announce{prefixes: []string{"192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4", communities: []uint32{noAdvertise}})
	a.announce(announce{prefixes: []string{"192.168.3.0/24"}, asPath: "65147", nextHop: "10.1.0.4", communities: []uint32{77, noExport}})
	a.announce(announce{prefixes: []string{"192.168.4.0/24"}, asPath: "65147", nextHop: "10.1.0.4", origin: 1})
	b.wantRoute("192.168.1.0/24", "65515 65147 65147 via 10.1.0.99 [igp] med - [77]")
	c.wantRoute("192.168.1.0/24", "65515 65147 65147 via 10.1.2.4 [igp] med - [77]")
	b.wantRoute("192.168.4.0/24", "65515 65147 via 10.1.0.4 [egp] med - []")
	if n := b.routes(); n != 3 {
		t.Errorf("peer b has %d routes, want 3: the VNet and two of a", n)
	}
	eventually(t, "four paths of a, those with NO_ADVERTISE and NO_EXPORT too", func() bool { return r.count(peerAddr(4)) == 4 })
	if got := a.route("192.168.1.0/24"); got != "" {
		t.Errorf("a got its own route back: %s", got)
	}

	// NO_ADVERTISE that comes later withdraws.
	a.announce(announce{prefixes: []string{"192.168.4.0/24"}, asPath: "65147", nextHop: "10.1.0.4", communities: []uint32{noAdvertise}})
	b.wantRoute("192.168.4.0/24", "")

	if err := s.SetBranchToBranch(false); err != nil {
		t.Fatal(err)
	}
	b.wantRoute("192.168.1.0/24", "")
	c.wantRoute("192.168.1.0/24", "")
	b.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
	if err := s.SetBranchToBranch(true); err != nil {
		t.Fatal(err)
	}
	b.wantRoute("192.168.1.0/24", "65515 65147 65147 via 10.1.0.99 [igp] med - [77]")
	if a.isClosed() || b.isClosed() || c.isClosed() {
		t.Error("a session was reset")
	}

	got, err := s.Advertised(peerAddr(5))
	if err != nil || len(got) != 2 {
		t.Fatalf("Advertised = %v, %v, want two paths", got, err)
	}
	if got[0].Prefix.String() != "10.1.0.0/16" || got[0].From.IsValid() || got[0].Attrs.ASPath.String() != "65515" || got[0].Attrs.NextHop != ours {
		t.Errorf("Advertised[0] = %+v %+v", got[0], got[0].Attrs)
	}
	if got[1].Prefix.String() != "192.168.1.0/24" || got[1].From != peerAddr(4) || got[1].Attrs.ASPath.String() != "65515 65147 65147" ||
		got[1].Attrs.NextHop != netip.MustParseAddr("10.1.0.99") || got[1].Attrs.HasMED {
		t.Errorf("Advertised[1] = %+v %+v", got[1], got[1].Attrs)
	}
	eventually(t, "count of what is advertised", func() bool {
		i, _ := s.Peer(peerAddr(5))
		return i.Advertised[IPv4] == 2 && i.MessagesReceived["open"] == 1 && i.MessagesSent["update"] > 0
	})
}

// What could not be switched is switched when it is asked for again.
func TestSwitchThatFails(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	s.Stop(t.Context(), false)
	for range 2 {
		if err := s.SetBranchToBranch(false); err == nil {
			t.Error("SetBranchToBranch of a speaker that has stopped = nil, want an error")
		}
		if err := s.SetDrain(true); err == nil {
			t.Error("SetDrain of a speaker that has stopped = nil, want an error")
		}
	}
}

// S8: our ASN or AS 0 in a path. It is learned, so that the view can say why it is not
// used; it goes to nobody; and it replaces what the peer said before.
func TestRefusedASPath(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	for _, c := range []struct {
		name, asPath string
		refused      bool
	}{
		{"our ASN", "65147 65515", true},
		{"our ASN twice", "65147 65515 1 65515", true},
		{"our ASN in a set", "65147 {1,65515,2}", true},
		{"our ASN last in a set", "65147 {1,65515}", true},
		{"our ASN alone in a set", "65147 {65515}", true},
		{"AS 0", "65147 0 7", true},
		{"AS 0 in a set", "65147 {0,7}", true},
		{"a set", "65147 {10,155150}", false},
		{"a longer number", "65147 655150 165515", false},
		{"the other peer's neighbour", "65147 65001", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.t, b.t = t, t
			a.announce(announce{prefixes: []string{"192.168.7.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
			b.wantRoute("192.168.7.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
			a.announce(announce{prefixes: []string{"192.168.7.0/24"}, asPath: c.asPath, nextHop: "10.1.0.4"})
			want := ""
			if !c.refused {
				want = "65515 " + c.asPath + " via 10.1.0.4 [igp] med - []"
			}
			b.wantRoute("192.168.7.0/24", want)
			eventually(t, "AS path "+c.asPath+" in what is learned", func() bool {
				got := r.path(peerAddr(4), "192.168.7.0/24")
				return got != nil && got.ASPath.String() == c.asPath
			})
		})
	}
	a.t, b.t = t, t
	if a.isClosed() {
		t.Error("the session did not stay up")
	}
}

// The order of preference must be the RIB's: AS path length, ORIGIN, then MED, whoever
// the neighbour is.
func TestBestPathOrder(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), peerConf(6, 65149))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	c := connect(t, peerAddr(6), fakeOptions{asn: 65149})
	for i, x := range []struct{ a, b announce }{
		{announce{asPath: "65147", origin: 2, med: 9}, announce{asPath: "65148 1", origin: 0, med: 1}},
		{announce{asPath: "65147 2", origin: 0, med: 9}, announce{asPath: "65148 1", origin: 1, med: 1}},
		{announce{asPath: "65147 2", med: 8}, announce{asPath: "65148 1", med: 9}},
	} {
		// The better one comes last, so that age does not help it.
		x.b.prefixes, x.b.nextHop = []string{"192.168.8.0/24"}, "10.1.0.5"
		b.announce(x.b)
		c.wantRoute("192.168.8.0/24", "65515 "+x.b.asPath+" via 10.1.0.5 ["+[]string{"igp", "egp", "incomplete"}[x.b.origin]+"] med - []")
		x.a.prefixes, x.a.nextHop = x.b.prefixes, "10.1.0.4"
		a.announce(x.a)
		c.wantRoute("192.168.8.0/24", "65515 "+x.a.asPath+" via 10.1.0.4 ["+[]string{"igp", "egp", "incomplete"}[x.a.origin]+"] med - []")
		a.withdraw("192.168.8.0/24")
		b.withdraw("192.168.8.0/24")
		c.wantRoute("192.168.8.0/24", "")
		if t.Failed() {
			t.Fatalf("case %d", i)
		}
	}
}
