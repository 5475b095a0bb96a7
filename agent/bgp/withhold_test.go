package bgp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/session"
)

func withheld(n int, held bool, prefixes ...string) []session.Withheld {
	var list []session.Withheld
	for _, p := range prefixes {
		list = append(list, session.Withheld{Peer: peerAddr(n), Prefix: netip.MustParsePrefix(p), Held: held})
	}
	return list
}

// S31: a path that is withheld is not announced, another peer's takes its place, and it
// comes back; a withheld path that is announced anew stays away; the session of nobody
// is reset.
func TestWithhold(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), peerConf(6, 65149))
	mustSetVNet(t, s, "10.1.0.0/16")
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	c := connect(t, peerAddr(6), fakeOptions{asn: 65149})

	all := []string{"0.0.0.0/0", "192.168.1.0/24", "192.168.2.0/24", "fd00:9::/64", "::/0"}
	a.announce(announce{prefixes: all[:3], asPath: "65147", nextHop: "10.1.0.4"})
	a.announce(announce{prefixes: all[3:], asPath: "65147", nextHop: "fd00:1::4"})
	b.announce(announce{prefixes: all[1:2], asPath: "65148 65148", nextHop: "10.1.0.5"})
	from := func(asPath, nh string) string { return "65515 " + asPath + " via " + nh + " [igp] med - []" }
	for i, p := range all {
		c.wantRoute(p, from("65147", []string{"10.1.0.4", "fd00:1::4"}[i/3]))
	}

	s.Withhold(withheld(4, true, all...))
	for _, p := range all {
		want := ""
		if p == "192.168.1.0/24" {
			want = from("65148 65148", "10.1.0.5")
		}
		c.wantRoute(p, want)
	}
	b.wantRoute("192.168.1.0/24", "")
	a.wantRoute("192.168.1.0/24", from("65148 65148", "10.1.0.5"))
	c.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")

	// Announced anew, it is learned and stays away. The prefix beside it shows when.
	a.announce(announce{prefixes: append([]string{"192.168.3.0/24"}, all[:3]...), asPath: "65147", nextHop: "10.1.0.99"})
	c.wantRoute("192.168.3.0/24", from("65147", "10.1.0.99"))
	c.wantRoute("192.168.2.0/24", "")
	c.wantRoute("192.168.1.0/24", from("65148 65148", "10.1.0.5"))
	eventually(t, "the peer's path by 10.1.0.99", func() bool {
		got := r.path(peerAddr(4), "192.168.2.0/24")
		return got != nil && got.NextHop.String() == "10.1.0.99"
	})

	// One more and one less, with what is in force changed in place.
	s.Withhold(append(withheld(4, false, "192.168.2.0/24", "::/0"), withheld(4, true, "192.168.3.0/24")...))
	c.wantRoute("192.168.2.0/24", from("65147", "10.1.0.99"))
	c.wantRoute("::/0", from("65147", "fd00:1::4"))
	c.wantRoute("192.168.3.0/24", "")
	c.wantRoute("0.0.0.0/0", "")

	// A session that comes up hears no more than that.
	c.conn.Close()
	eventually(t, "the session is down", func() bool { return r.state(peerAddr(6)) != Established })
	c = connect(t, peerAddr(6), fakeOptions{asn: 65149})
	c.wantRoute("192.168.2.0/24", from("65147", "10.1.0.99"))
	c.wantRoute("0.0.0.0/0", "")

	s.Withhold(withheld(4, false, all...))
	s.Withhold(withheld(4, false, "192.168.3.0/24"))
	for i, p := range all {
		c.wantRoute(p, from("65147", []string{"10.1.0.99", "fd00:1::4"}[i/3]))
	}
	c.wantRoute("192.168.3.0/24", from("65147", "10.1.0.99"))
	if a.isClosed() || b.isClosed() || c.isClosed() {
		t.Error("a session was reset")
	}
}

// S31: what is withheld outlives the peer's session and its configuration, and what is
// taken back for a peer that is gone leaves nothing behind.
func TestWithholdGone(t *testing.T) {
	s, _, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	bad, good := "192.168.1.0/24", "192.168.2.0/24"
	hear := func() {
		t.Helper()
		a.announce(announce{prefixes: []string{bad, good}, asPath: "65147", nextHop: "10.1.0.4"})
		b.wantRoute(good, "65515 65147 via 10.1.0.4 [igp] med - []")
		b.wantRoute(bad, "")
	}
	s.Withhold(withheld(4, true, bad))
	eventually(t, "it is withheld", func() bool {
		s.op.Lock()
		defer s.op.Unlock()
		return len(s.withheld.held[peerAddr(4)]) == 1
	})
	hear()
	conf := peerConf(4, 65147)
	conf.MultihopTTL = 3
	if err := s.UpdatePeer(conf); err != nil {
		t.Fatal(err)
	}
	a = connect(t, peerAddr(4), fakeOptions{asn: 65147})
	hear()
	if err := s.RemovePeer(peerAddr(4)); err != nil {
		t.Fatal(err)
	}
	s.Withhold([]session.Withheld{{Peer: peerAddr(4), Prefix: netip.MustParsePrefix(bad), Gone: true}})
	eventually(t, "nothing is left of the peer", func() bool {
		s.op.Lock()
		defer s.op.Unlock()
		return len(s.withheld.held) == 0
	})
	mustAdd(t, s, conf)
	a = connect(t, peerAddr(4), fakeOptions{asn: 65147})
	a.announce(announce{prefixes: []string{bad}, asPath: "65147", nextHop: "10.1.0.4"})
	b.wantRoute(bad, "65515 65147 via 10.1.0.4 [igp] med - []")
}

// Twenty thousand withheld paths disturb nobody: others' announcements get through
// meanwhile, and all of it is done in seconds.
func TestWithholdMany(t *testing.T) {
	const n = 20_000
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148), peerConf(6, 65149))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	c := connect(t, peerAddr(6), fakeOptions{asn: 65149})
	var prefixes []string
	for i := range n {
		prefixes = append(prefixes, fmt.Sprintf("172.%d.%d.%d/32", 16+i>>16, i>>8&0xff, i&0xff))
	}
	for i := 0; i < n; i += 500 {
		a.announce(announce{prefixes: prefixes[i : i+500], asPath: "65147", nextHop: "10.1.0.4"})
	}
	within(t, time.Minute, "all are announced", func() bool { return r.count(peerAddr(4)) == n && c.routes() == n })
	for i, want := range []int{1, n + 2} {
		start := time.Now()
		s.Withhold(withheld(4, i == 0, prefixes...))
		mark := fmt.Sprintf("192.168.%d.0/24", i)
		b.announce(announce{prefixes: []string{mark}, asPath: "65148", nextHop: "10.1.0.5"})
		c.wantRoute(mark, "65515 65148 via 10.1.0.5 [igp] med - []")
		heard := time.Since(start)
		for end := time.Now().Add(time.Minute); c.routes() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("round %d: the peer has %d routes, want %d", i, c.routes(), want)
			}
		}
		t.Logf("round %d: another's announcement after %v, all after %v", i, heard, time.Since(start))
	}
}

// What could not be done is tried again, but for what was asked for meanwhile.
func TestPutBackWithheld(t *testing.T) {
	s := New(Options{Handler: newRecorder()})
	a := peerAddr(4)
	s.Withhold(withheld(4, true, "192.168.3.0/24"))
	s.takeWithheld() // done
	s.Withhold(append(withheld(4, true, "192.168.1.0/24", "192.168.2.0/24"), withheld(4, false, "192.168.3.0/24")...))
	failed := s.takeWithheld()
	s.Withhold(withheld(4, false, "192.168.1.0/24"))
	s.putBackWithheld(failed)
	if held := s.withheld.held[a]; len(held) != 1 {
		t.Errorf("in the sets: %v, want only 192.168.3.0/24", held)
	}
	c := s.takeWithheld()[a]
	if c == nil || fmt.Sprint(c.add, c.remove) != "[192.168.2.0/24] [192.168.3.0/24]" {
		t.Errorf("tried again: %+v, want 192.168.2.0/24 withheld and 192.168.3.0/24 not", c)
	}
}
