package bgp

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// S9: close is Cease/Maximum Number of Prefixes Reached, whatever graceful restart
// promised; the peer is tried again after its idle time, then after twice that.
func TestLimitReached(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	c := peerConf(4, 65147)
	c.PrefixLimit.Idle = time.Second
	mustAdd(t, s, c, peerConf(5, 65148))
	other := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	for round, pause := range []string{"1s", "2s"} {
		f := connect(t, peerAddr(4), fakeOptions{asn: 65147})
		f.announce(announce{prefixes: []string{"192.168.1.0/24", "192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
		eventually(t, "the paths", func() bool { return r.count(peerAddr(4)) == 2 })
		began := time.Now()
		s.LimitReached(peerAddr(4), IPv4, 2, "announced 3 IPv4 prefixes, its prefix-limit is 2")
		eventually(t, "the NOTIFICATION", func() bool { return strings.HasPrefix(f.received(), "6/1") })
		eventually(t, "the end of its paths", func() bool { return r.count(peerAddr(4)) == 0 })
		if data := f.notified(); !bytes.Equal(data, []byte{0, 1, 1, 0, 0, 0, 2}) { // RFC 4486 section 4
			t.Errorf("the NOTIFICATION has the data %v", data)
		}
		text := "announced 3 IPv4 prefixes, its prefix-limit is 2; the next attempt is in " + pause
		eventually(t, "the end of the session", func() bool { return r.lastDown(peerAddr(4)).Down.Text == text })
		if e := r.lastDown(peerAddr(4)); e.Down.Cause != "prefix-limit" || e.Down.Code != 6 || e.Down.Subcode != 1 || e.Graceful {
			t.Errorf("round %d: down %+v, graceful %v", round, e.Down, e.Graceful)
		}
		eventually(t, "a word to the operator", func() bool {
			return strings.HasPrefix(info(t, s, 4).Warning, "announced more than its prefix-limit; the next attempt is at ")
		})
		if info(t, s, 4).AdminDown {
			t.Error("the peer counts as shut down")
		}
		if round == 1 {
			break // GoBGP adds some seconds of its own to every pause
		}
		connect(t, peerAddr(4), fakeOptions{asn: 65147}).conn.Close()
		if took := time.Since(began); took < time.Duration(round+1)*time.Second {
			t.Errorf("round %d: back after %v, want %s", round, took, pause)
		}
		eventually(t, "the end of that", func() bool { return r.state(peerAddr(4)) == Idle })
	}
	if other.isClosed() {
		t.Error("the session of another peer was reset")
	}
	p := s.find(peerAddr(4))
	s.op.Lock()
	defer s.op.Unlock()
	if err := s.closeForLimit(p, IPv4, 2, "too late: it is down"); err != nil || p.limit.pause != 2*time.Second {
		t.Errorf("closeForLimit of a peer that is down = %v, pause %v, want it left at 2s", err, p.limit.pause)
	}
}

// Who raises the limit, or enables the peer, does not wait.
func TestLimitRaised(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	c := peerConf(4, 65147)
	c.PrefixLimit.Idle = time.Hour
	mustAdd(t, s, c)
	for _, again := range []func() error{
		func() error { c.PrefixLimit.Max = 10; return s.UpdatePeer(c) },
		func() error { return s.Enable(peerAddr(4)) },
	} {
		f := connect(t, peerAddr(4), fakeOptions{asn: 65147})
		f.announce(announce{prefixes: []string{"192.168.1.0/24", "192.168.2.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
		eventually(t, "the paths", func() bool { return r.count(peerAddr(4)) == 2 })
		s.LimitReached(peerAddr(4), IPv4, 2, "too many")
		eventually(t, "the NOTIFICATION", func() bool { return strings.HasPrefix(f.received(), "6/1") })
		eventually(t, "the time out", func() bool { return strings.Contains(info(t, s, 4).Warning, "prefix-limit") })
		if err := again(); err != nil {
			t.Fatal(err)
		}
		if w := info(t, s, 4).Warning; w != "" {
			t.Errorf("warning %q, want none", w)
		}
	}
}

func info(t *testing.T, s *Speaker, n int) PeerInfo {
	t.Helper()
	for _, i := range s.Peers() {
		if i.Address == peerAddr(n) {
			return i
		}
	}
	t.Fatalf("no peer %s", peerAddr(n))
	return PeerInfo{}
}
