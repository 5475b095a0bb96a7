package bgp

import (
	"errors"
	"testing"
)

// S24, S37, RFC 9384: BFD ends the session with a subcode of its own; a peer that would
// take that for a restart gets it as a Hard Reset (RFC 8538 section 3.1). Nothing of
// either is stale afterwards.
func TestBFDDown(t *testing.T) {
	for name, tt := range map[string]struct {
		o    fakeOptions
		want string
		data string
	}{
		"no graceful restart":          {fakeOptions{noRestart: true}, "6/10", ""},
		"graceful restart":             {fakeOptions{}, "6/10", ""},
		"graceful restart by RFC 8538": {fakeOptions{notifies: true}, "6/9 \n", "\x06\x0a"},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, _ := startSpeaker(t, nil)
			a := peerAddr(4)
			mustAdd(t, s, peerConf(4, 65147))
			if err := s.BFDDown(a, "early"); err != nil { // there is no session: nothing is kept for the next one
				t.Fatal(err)
			}
			tt.o.asn = 65147
			f := connect(t, a, tt.o)
			f.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
			eventually(t, "the path", func() bool { return r.count(a) == 1 })
			if err := s.BFDDown(a, "control detection time expired"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "session down", func() bool { return r.lastDown(a).Down.Cause != "" })
			e := r.lastDown(a)
			if e.Down.Cause != "bfd" || e.Down.Text != "BFD: control detection time expired" || e.Graceful {
				t.Errorf("event = %+v", e)
			}
			eventually(t, "withdrawal", func() bool { return r.count(a) == 0 })
			eventually(t, "NOTIFICATION "+tt.want, func() bool { return f.received() == tt.want })
			f.mu.Lock()
			if got := string(f.notification.Data); got != tt.data {
				t.Errorf("NOTIFICATION's data = %q, want %q", got, tt.data)
			}
			f.mu.Unlock()
			connect(t, a, tt.o)
			eventually(t, "the next session", func() bool { return r.state(a) == Established })
		})
	}
}

// bfd.strict: the session waits for BFD, whatever an operator does meanwhile.
func TestHoldDown(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	a := peerAddr(4)
	c := peerConf(4, 65147)
	c.BFD.Enabled, c.BFD.Strict = true, true
	mustAdd(t, s, c)
	if i, _ := s.Peer(a); i.AdminDown {
		t.Error("the peer is shown as shut down by an operator")
	}
	if err := errors.Join(s.Shutdown(a, ""), s.Enable(a), s.HoldDown(a, true)); err != nil {
		t.Fatal(err)
	}
	if g, err := s.listPeer(a); err != nil || g.State.AdminState == 0 {
		t.Errorf("held: %v, %v", g, err)
	}
	for _, f := range []func() error{
		func() error { return s.Shutdown(a, "") }, func() error { return s.HoldDown(a, false) },
		func() error { return s.HoldDown(a, false) }, func() error { return s.Enable(a) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	connect(t, a, fakeOptions{asn: 65147})
	eventually(t, "session", func() bool { return r.state(a) == Established })
	if err := s.HoldDown(a, true); err != nil {
		t.Fatal(err)
	}
	if e := r.lastDown(a); e.Down.Cause != "bfd" {
		t.Errorf("event = %+v, want cause bfd", e)
	}
	if err := s.HoldDown(peerAddr(9), true); !errors.Is(err, errUnknownPeer) {
		t.Errorf("for an unknown peer: %v", err)
	}
}
