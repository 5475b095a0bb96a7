package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/policy"
)

// S37: the cause as the agent hears it, and what the peer hears.
func TestDownReasons(t *testing.T) {
	a := peerAddr(4)
	cease := func(subcode uint8, text string) *bgp.BGPMessage {
		var data []byte
		if text != "" {
			data = append([]byte{byte(len(text))}, text...)
		}
		return bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_CEASE, subcode, data)
	}
	for _, c := range []struct {
		name     string
		o        fakeOptions
		end      func(t *testing.T, s *Speaker, f *fake)
		want     DownReason
		received string // by the peer
		graceful bool
	}{{
		name: "connection lost",
		o:    fakeOptions{noRestart: true},
		end:  func(_ *testing.T, _ *Speaker, f *fake) { f.conn.Close() },
		want: DownReason{Cause: "connection-lost", Text: lostText},
	}, {
		name:     "graceful restart",
		end:      func(_ *testing.T, _ *Speaker, f *fake) { f.conn.Close() },
		want:     DownReason{Cause: "graceful-restart", Text: "the peer restarts and goes on forwarding (connection-lost: " + lostText + ")"},
		graceful: true,
	}, {
		name: "graceful restart for no family",
		o:    fakeOptions{families: []bgp.Family{}},
		end:  func(_ *testing.T, _ *Speaker, f *fake) { f.conn.Close() },
		want: DownReason{Cause: "connection-lost", Text: lostText},
	}, {
		name: "shutdown by the peer",
		end:  func(_ *testing.T, _ *Speaker, f *fake) { f.send(cease(2, "maintenance\x1b[2J")) },
		want: DownReason{Cause: "notification-received", Text: "NOTIFICATION received: Cease/Administrative Shutdown (6/2): maintenance?[2J", Code: 6, Subcode: 2},
	}, {
		name: "BFD of the peer",
		end:  func(_ *testing.T, _ *Speaker, f *fake) { f.send(cease(10, "")) },
		want: DownReason{Cause: "notification-received", Text: "NOTIFICATION received: Cease/BFD Down (6/10)", Code: 6, Subcode: 10},
	}, {
		name: "malformed message",
		end: func(_ *testing.T, _ *Speaker, f *fake) {
			f.conn.Write(append([]byte(strings.Repeat("\xff", 16)), 0, 19, 9)) // no message has type 9
		},
		want:     DownReason{Cause: "notification-sent", Text: "NOTIFICATION sent: Message Header Error/Bad Message Type (1/3)", Code: 1, Subcode: 3},
		received: "1/3",
	}, {
		name: "operator",
		end: func(t *testing.T, s *Speaker, _ *fake) {
			if err := s.Shutdown(a, "reboot at 5"); err != nil {
				t.Error(err)
			}
		},
		want:     DownReason{Cause: "operator", Text: "by the operator: reboot at 5", Code: 6, Subcode: 2},
		received: "6/2 reboot at 5",
	}, {
		name: "reset by the operator",
		end: func(t *testing.T, s *Speaker, _ *fake) {
			if err := s.Reset(a, "try again"); err != nil {
				t.Error(err)
			}
		},
		want:     DownReason{Cause: "operator", Text: "by the operator: try again", Code: 6, Subcode: 4},
		received: "6/4 try again",
	}, {
		name: "removed",
		end: func(t *testing.T, s *Speaker, _ *fake) {
			if err := s.RemovePeer(a); err != nil {
				t.Error(err)
			}
		},
		want:     DownReason{Cause: "deconfigured", Text: deconfiguredText, Code: 6, Subcode: 2},
		received: "6/2 " + deconfiguredText,
	}, {
		name:     "hold timer",
		o:        fakeOptions{hold: 6, noRestart: true},
		end:      func(*testing.T, *Speaker, *fake) {}, // sends no KEEPALIVE
		want:     DownReason{Cause: "hold-timer", Text: holdTimerText, Code: 4},
		received: "4/0",
	}, {
		name:     "hold timer of one that restarts gracefully, without the N bit of RFC 8538",
		o:        fakeOptions{hold: 6},
		end:      func(*testing.T, *Speaker, *fake) {},
		want:     DownReason{Cause: "hold-timer", Text: holdTimerText, Code: 4},
		received: "4/0",
	}, {
		name: "hold timer of one with the N bit",
		o:    fakeOptions{hold: 6, notifies: true},
		end:  func(*testing.T, *Speaker, *fake) {},
		want: DownReason{
			Cause: "graceful-restart", Text: "the peer restarts and goes on forwarding (hold-timer: " + holdTimerText + ")", Code: 4,
		},
		received: "4/0",
		graceful: true,
	}, {
		name:     "NOTIFICATION of one with the N bit",
		o:        fakeOptions{notifies: true},
		end:      func(_ *testing.T, _ *Speaker, f *fake) { f.send(cease(4, "")) },
		want:     DownReason{Cause: "graceful-restart", Text: "the peer restarts and goes on forwarding (notification-received: NOTIFICATION received: Cease/Administrative Reset (6/4))", Code: 6, Subcode: 4},
		graceful: true,
	}, {
		name: "Hard Reset of one with the N bit",
		o:    fakeOptions{notifies: true},
		end:  func(_ *testing.T, _ *Speaker, f *fake) { f.send(cease(9, "")) },
		want: DownReason{Cause: "notification-received", Text: "NOTIFICATION received: Cease/Hard Reset (6/9)", Code: 6, Subcode: 9},
	}} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var early []string
			s, r, _ := startSpeaker(t, func(o *Options) {
				o.OnPeerDown = func(p netip.Addr, _ DownReason, graceful bool) {
					mu.Lock()
					defer mu.Unlock()
					early = append(early, fmt.Sprint(p, graceful))
				}
			})
			mustAdd(t, s, peerConf(4, 65147))
			c.o.asn = 65147
			f := connect(t, a, c.o)
			f.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
			eventually(t, "the path", func() bool { return r.count(a) == 1 })
			c.end(t, s, f)
			eventually(t, "session down", func() bool { return r.lastDown(a).Down.Cause != "" })
			e := r.lastDown(a)
			if e.Down != c.want || e.Graceful != c.graceful || e.Previous != Established || e.State != Idle {
				t.Errorf("event = %+v, want reason %+v, graceful %v, from Established to Idle", e, c.want, c.graceful)
			}
			want := 0
			if c.graceful {
				want = 1
			}
			eventually(t, fmt.Sprintf("%d paths left", want), func() bool { return r.count(a) == want })
			mu.Lock()
			if len(early) != 1 || early[0] != fmt.Sprint(a, c.graceful) {
				t.Errorf("OnPeerDown was called with %q, want once for %s, graceful %v", early, a, c.graceful)
			}
			mu.Unlock()
			if c.received != "" {
				eventually(t, "NOTIFICATION "+c.received, func() bool { return f.received() == c.received })
			}
			if i, ok := s.Peer(a); ok {
				if i.Flaps != 1 || i.LastDown != c.want || i.State == Established {
					t.Errorf("Peer = %+v, want one flap and its reason", i)
				}
			}
		})
	}
}

func TestShutdownAndEnable(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	a := peerAddr(4)
	c := peerConf(4, 65147)
	c.Shutdown = true
	mustAdd(t, s, c)
	if i, _ := s.Peer(a); !i.AdminDown {
		t.Error("the peer is not shown as shut down")
	}
	for range 3 { // twice the same is no error, and one undoes the other
		for _, up := range []bool{true, true, false, false} {
			var err error
			if up {
				err = s.Enable(a)
			} else {
				err = s.Shutdown(a, "")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	c.Shutdown = false
	if err := s.UpdatePeer(c); err != nil { // its configuration says shutdown still
		t.Fatal(err)
	}
	connect(t, a, fakeOptions{asn: 65147})
	eventually(t, "session", func() bool { return r.state(a) == Established })
	for _, f := range []func(netip.Addr) error{s.Enable, s.RemovePeer, s.Resend} {
		if err := f(peerAddr(9)); !errors.Is(err, errUnknownPeer) {
			t.Errorf("for an unknown peer: %v, want %v", err, errUnknownPeer)
		}
	}
}

// S4: another ASN than configured. GoBGP tells of it only in its log.
func TestBadPeerAS(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	a := peerAddr(4)
	mustAdd(t, s, peerConf(4, 65147))
	d := fakeOptions{asn: 65999, noOpen: true}
	eventually(t, "a reason", func() bool {
		f := connect(t, a, d)
		defer f.conn.Close()
		f.handshake(a, fakeOptions{asn: 65999})
		i, _ := s.Peer(a)
		return i.LastDown.Cause == "bad-peer-as" && i.LastDown.Code == 2 && i.LastDown.Subcode == 2
	})
	eventually(t, "an event", func() bool { return r.lastDown(a).Down.Cause == "bad-peer-as" })
	if r.state(a) == Established {
		t.Error("the session came up")
	}
}

func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, text, password, err string }{
		{"newline", "s3cret\n", "s3cret", ""},
		{"CR LF", "s3cret\r\n", "s3cret", ""},
		{"none", "s3cret", "s3cret", ""},
		{"spaces stay", " a b \n", " a b ", ""},
		{"empty", "\n", "", "is empty"},
		{"two lines", "s3cret\nx\n", "", "has more than one line"},
		{"too long", strings.Repeat("x", 81), "", "has 81 octets; TCP MD5 takes at most 80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, "key")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readPassword(file)
			if got != c.password || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("readPassword = %q, %v, want %q, %q", got, err, c.password, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	if _, err := readPassword(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("readPassword of no file = %v", err)
	}
}

func TestUpdatePeer(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	a := peerAddr(4)
	c := peerConf(4, 65147)
	mustAdd(t, s, c)
	f := connect(t, a, fakeOptions{asn: 65147})
	eventually(t, "session", func() bool { return r.state(a) == Established })
	c.Name, c.Description = "other", "words"
	if err := s.UpdatePeer(c); err != nil || f.isClosed() {
		t.Fatalf("UpdatePeer = %v, closed %v, want neither", err, f.isClosed())
	}
	bad := c
	bad.PasswordFile = "/nonexistent"
	if err := s.UpdatePeer(bad); err == nil || f.isClosed() || r.state(a) != Established {
		t.Errorf("UpdatePeer with an absent password = %v, want an error and the session left alone", err)
	}
	c.HoldTime, c.Keepalive = 30*time.Second, 10*time.Second
	if err := s.UpdatePeer(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Cease", func() bool { return strings.HasPrefix(f.received(), "6/2 ") })
	g := connect(t, a, fakeOptions{asn: 65147})
	if g.open.HoldTime != 30 {
		t.Errorf("hold time offered = %d, want 30", g.open.HoldTime)
	}
	if i, _ := s.Peer(a); i.Flaps != 1 || i.LastDown.Text != "by the operator: the peer's configuration changed" {
		t.Errorf("Peer = %+v, want one flap and its reason", i)
	}

	bad = c
	bad.Import = &policy.Filter{Default: policy.Accept, Rules: []policy.Rule{{
		Action: policy.Accept, Match: policy.Match{ASPaths: []policy.Pattern{{Regexp: "["}}},
	}}}
	for range 2 { // what failed is tried again
		if err := s.UpdatePeer(bad); err == nil {
			t.Error("UpdatePeer with a filter that GoBGP does not take = nil, want an error")
		}
	}
	if err := s.UpdatePeer(c); err != nil {
		t.Error(err)
	}

	p := s.find(a)
	s.op.Lock()
	s.mu.Lock()
	p.cfg.PasswordFile = "/nonexistent" // gone since it was read
	s.mu.Unlock()
	s.op.Unlock()
	s.recreate(p, "a test", true)
	if s.find(a) != p || g.isClosed() {
		t.Error("a peer whose secret cannot be read any more was removed, to be made anew")
	}
}

// late holds back the news of one state until it is let go.
type late struct {
	*recorder
	state State
	let   chan struct{}
}

func (h late) Session(e SessionEvent) {
	if e.State == h.state {
		<-h.let
	}
	h.recorder.Session(e)
}

// S24: a session that is over before its beginning was told is told to be over right after,
// not when all that the peer announced has been told.
func TestLossBeforeNews(t *testing.T) {
	a, r := peerAddr(4), newRecorder()
	h := late{r, OpenConfirm, make(chan struct{})}
	let := sync.OnceFunc(func() { close(h.let) })
	s, _, _ := startSpeaker(t, func(o *Options) {
		o.Handler = h
		o.OnPeerDown = func(p netip.Addr, _ DownReason, _ bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events[p] = append(r.events[p], "down")
		}
	})
	t.Cleanup(let)
	mustAdd(t, s, peerConf(4, 65147))
	f := connect(t, a, fakeOptions{asn: 65147, noRestart: true})
	f.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	eventually(t, "the path", func() bool {
		list, err := s.server.GetTable(t.Context(), &api.GetTableRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: apiIPv4})
		return err == nil && list.NumPath == 1
	})
	f.conn.Close()
	eventually(t, "the first word", func() bool { return slices.Contains(r.heard(a), "down") })
	let()
	want := []string{"down", "Established", "down", "Learned +1 -0"}
	eventually(t, fmt.Sprintf("the Handler hears %q", want), func() bool {
		heard := slices.DeleteFunc(r.heard(a), func(e string) bool { return e == "Active" || e == "OpenSent" || e == "OpenConfirm" })
		return len(heard) >= len(want) && slices.Equal(heard[:len(want)], want)
	})
}

// A stop that keeps the routes sends nothing to a peer that will wait for us.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		name           string
		keep, restarts bool
		want           string
	}{
		{"keep", true, true, ""},
		{"keep, no graceful restart", true, false, "6/2"},
		{"do not keep", false, true, "6/2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r, _ := startSpeaker(t, nil)
			mustAdd(t, s, peerConf(4, 65147))
			f := connect(t, peerAddr(4), fakeOptions{asn: 65147, noRestart: !c.restarts})
			f.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
			eventually(t, "the path", func() bool { return r.count(peerAddr(4)) == 1 })
			s.Stop(t.Context(), c.keep)
			eventually(t, "closed", f.isClosed)
			if got := f.received(); got != c.want {
				t.Errorf("the peer received %q, want %q", got, c.want)
			}
			if n := r.count(peerAddr(4)); n != 1 {
				t.Errorf("%d paths after Stop, want the one that was there", n)
			}
		})
	}
}
