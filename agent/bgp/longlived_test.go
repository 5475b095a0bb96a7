package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
)

// longLivedConf is a peer with which RFC 9494 is spoken.
func longLivedConf(n int, asn uint32) config.Peer {
	c := peerConf(n, asn)
	c.GracefulRestart.LongLived = time.Hour
	return c
}

// RFC 9494 sections 4.2 and 4.3: the paths of a peer that outlasts its restart time are kept as the
// last choice, and are told to those only that know what that is.
func TestLongLived(t *testing.T) {
	a, outlasted := peerAddr(4), "Idle outlasted"
	plain := announce{prefixes: []string{"192.168.1.0/24", "192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"}
	const told, stale = "65515 65147 via 10.1.0.4 [igp] med - []", "65515 65147 via 10.1.0.4 [igp] med - [4294901766]"
	type bed struct {
		*Speaker
		r         *recorder
		log       *testLog
		knows, no *fake // two other peers, with and without the capability
	}
	// lose ends the session of peer 4 and waits until its restart time is over.
	lose := func(t *testing.T, o fakeOptions, announcements ...announce) bed {
		s, r, log := startSpeaker(t, nil)
		mustAdd(t, s, longLivedConf(4, 65147), longLivedConf(5, 65148), longLivedConf(6, 65149))
		o.asn, o.restartTime = 65147, 1
		f := connect(t, a, o)
		b := bed{s, r, log, connect(t, peerAddr(5), fakeOptions{asn: 65148, longLived: []uint32{60, 60}}), connect(t, peerAddr(6), fakeOptions{asn: 65149})}
		for _, x := range announcements {
			f.announce(x)
			want := fmt.Sprintf("65515 65147 via %s [igp] med - %v", x.nextHop, x.communities)
			b.knows.wantRoute(x.prefixes[0], want)
			b.no.wantRoute(x.prefixes[0], want)
		}
		n := 0
		for _, x := range announcements {
			n += len(x.prefixes)
		}
		eventually(t, "all is learned", func() bool { return r.count(a) == n })
		f.conn.Close()
		return b
	}
	t.Run("kept, and back", func(t *testing.T) {
		b := lose(t, fakeOptions{longLived: []uint32{600, 600}}, plain,
			announce{prefixes: []string{"192.168.3.0/24"}, asPath: "65147", nextHop: "10.1.0.4", communities: []uint32{65535<<16 | 7}})
		b.knows.wantRoute("192.168.1.0/24", stale)
		b.no.wantRoute("192.168.1.0/24", "")
		// NO_LLGR. GoBGP tells nobody that it dropped the path, but the other peers.
		b.knows.wantRoute("192.168.3.0/24", "")
		// Any other path is better.
		b.no.announce(announce{prefixes: []string{"192.168.2.0/24"}, asPath: "65149 1 2 3", nextHop: "10.1.0.6"})
		b.knows.wantRoute("192.168.2.0/24", "65515 65149 1 2 3 via 10.1.0.6 [igp] med - []")
		b.no.withdraw("192.168.2.0/24")
		b.knows.wantRoute("192.168.2.0/24", stale)
		eventually(t, "the Handler hears of it", func() bool { return slices.Contains(b.r.heard(a), outlasted) })
		if n := b.r.count(a); n != 3 {
			t.Errorf("%d paths, want all: what has NO_LLGR is the Handler's to drop", n)
		}
		g := connect(t, a, fakeOptions{asn: 65147, longLived: []uint32{600, 300}})
		eventually(t, "session", func() bool { return b.r.state(a) == Established })
		want := []session.LongLived{{Family: IPv4, Time: 10 * time.Minute, Preserved: true}, {Family: IPv6, Time: 5 * time.Minute, Preserved: true}}
		if e := b.r.event(a); !slices.Equal(e.LongLived, want) {
			t.Errorf("agreed: %v, want %v", e.LongLived, want)
		}
		again := plain
		again.prefixes = plain.prefixes[:1]
		g.announce(again)
		b.no.wantRoute("192.168.1.0/24", told)
		b.knows.wantRoute("192.168.1.0/24", told)
		g.sendEndOfRIB(bgp.RF_IPv4_UC)
		g.sendEndOfRIB(bgp.RF_IPv6_UC)
		b.knows.wantRoute("192.168.2.0/24", "")
	})
	t.Run("a family without", func(t *testing.T) {
		b := lose(t, fakeOptions{longLived: []uint32{600}}, plain,
			announce{prefixes: []string{"2001:db8:1::/48"}, asPath: "65147", nextHop: "fd00:1::4"})
		b.knows.wantRoute("192.168.1.0/24", stale)
		b.knows.wantRoute("2001:db8:1::/48", "")
		eventually(t, "withdrawal", func() bool { return b.r.count(a) == 2 })
	})
	t.Run("too long", func(t *testing.T) {
		b := lose(t, fakeOptions{longLived: []uint32{1, 1}}, plain)
		eventually(t, "withdrawal", func() bool { return b.r.count(a) == 0 })
		b.knows.wantRoute("192.168.1.0/24", "")
		heard := b.r.heard(a)
		if i := slices.Index(heard, outlasted); i < 0 || i > slices.Index(heard, "Learned +0 -2") {
			t.Errorf("heard %q: want %q before the withdrawal", heard, outlasted)
		}
		if !strings.Contains(b.log.String(), logOutlived) {
			t.Error("GoBGP does not log it as we know it")
		}
	})
	t.Run("shut down", func(t *testing.T) {
		b := lose(t, fakeOptions{longLived: []uint32{600, 600}}, plain)
		b.knows.wantRoute("192.168.1.0/24", stale)
		if err := b.Shutdown(a, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, "withdrawal", func() bool { return b.r.count(a) == 0 })
		b.knows.wantRoute("192.168.1.0/24", "")
		eventually(t, "still shut down", func() bool {
			i, _ := b.Peer(a)
			return i.AdminDown
		})
	})
	// GoBGP does not forget what was agreed on before.
	t.Run("offered no more", func(t *testing.T) {
		b := lose(t, fakeOptions{longLived: []uint32{600, 600}}, plain)
		b.knows.wantRoute("192.168.1.0/24", stale)
		connect(t, a, fakeOptions{asn: 65147})
		eventually(t, "withdrawal", func() bool { return b.r.count(a) == 0 })
		g := connect(t, a, fakeOptions{asn: 65147, restartTime: 1})
		g.announce(plain)
		b.knows.wantRoute("192.168.1.0/24", told)
		g.conn.Close()
		eventually(t, "withdrawal", func() bool { return b.r.count(a) == 0 })
	})
}

// When the time is over, GoBGP drops all of the family. Of a peer that is back, and without
// its End-of-RIB so far, that is also what it has announced since.
func TestLongLivedTooLongWithoutEndOfRIB(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, longLivedConf(4, 65147))
	f := connect(t, peerAddr(4), fakeOptions{asn: 65147, longLived: []uint32{600, 600}})
	eventually(t, "session", func() bool { return r.state(peerAddr(4)) == Established })
	s.heard(peerAddr(4), logOutlived, nil)
	eventually(t, "a session anew", f.isClosed)
	connect(t, peerAddr(4), fakeOptions{asn: 65147})
}

// RFC 9494 section 4.1: both sides offer it, or it is not done.
func TestLongLivedOffer(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, longLivedConf(4, 65147), peerConf(5, 65148))
	for n, want := range map[int]string{4: "1/1/0/3600 2/1/0/3600", 5: ""} {
		f := connect(t, peerAddr(n), fakeOptions{asn: 65143 + uint32(n), longLived: []uint32{600, 600}})
		var offered []string
		for _, o := range f.open.OptParams {
			for _, c := range o.(*bgp.OptionParameterCapability).Capability {
				if g, ok := c.(*bgp.CapLongLivedGracefulRestart); ok {
					for _, x := range g.Tuples {
						offered = append(offered, fmt.Sprintf("%d/%d/%x/%d", x.AFI, x.SAFI, x.Flags, x.RestartTime))
					}
				}
			}
		}
		if got := strings.Join(offered, " "); got != want {
			t.Errorf("peer %d is offered %q, want %q", n, got, want)
		}
		eventually(t, "session", func() bool { return r.state(peerAddr(n)) == Established })
		if got := len(r.event(peerAddr(n)).LongLived) > 0; got != (want != "") {
			t.Errorf("peer %d: agreed %t", n, got)
		}
	}
	if i, _ := s.Peer(peerAddr(4)); !slices.Contains(i.PeerCapabilities, "long-lived-graceful-restart ipv4-unicast 600s ipv6-unicast 600s") {
		t.Errorf("capabilities %q", i.PeerCapabilities)
	}
}
