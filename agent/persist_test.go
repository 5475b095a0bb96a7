package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// lost tells that a session ended, as the speaker does: first word, withdrawals, event.
func (l *lab) lost(peer netip.Addr, why session.DownReason, prefixes ...netip.Prefix) {
	l.a.PeerDown(peer, why, false)
	l.withdraw(peer, prefixes...)
	l.a.Session(session.Event{Peer: peer, State: session.Idle, Previous: session.Established, At: time.Now(), Down: why})
	l.settle()
}

// fib.persist: the routes of the last session stay, when nobody meant it to end.
func TestPersist(t *testing.T) {
	other, third := prefix("192.168.1.0/24"), prefix("192.168.2.0/24")
	operator := session.DownReason{Cause: "operator", Text: "by the operator"}
	start := func(t *testing.T, persist time.Duration) *lab {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Persist = persist })
		l.up(quagga, bird)
		l.announce(quagga, seed, other, third)
		l.announce(bird, seed)
		l.expect("before", seed, "10.1.0.4", "10.1.0.5")
		l.lost(bird, accident, seed)
		l.expect("not the last session", seed, "10.1.0.4")
		l.ops()
		return l
	}
	kept := func(t *testing.T) *lab {
		l := start(t, 5*time.Minute)
		l.lost(quagga, accident, seed, other, third)
		l.expect("all sessions are lost", seed, "10.1.0.4")
		l.expect("all sessions are lost", other, "10.1.0.4")
		if ops := l.ops(); len(ops) != 0 {
			t.Errorf("writes: %v", ops)
		}
		if f := l.a.FIB(); f.Persisted != 3 || f.PersistUntil == nil || time.Until(*f.PersistUntil) < 4*time.Minute {
			t.Errorf("status: %s", text(f))
		}
		s, err := l.a.Status(t.Context())
		if err != nil || !strings.HasPrefix(s.Degraded[0].What, "all sessions are lost: 3 paths are kept unconfirmed") {
			t.Errorf("status: %s, %v", text(s), err)
		}
		if n := len(l.log.lines("event=persist-start", "routes=3")); n != 1 {
			t.Errorf("%d records of persist-start: %q", n, l.log.lines())
		}
		if p := l.a.Peers()[0]; p.Restarting {
			t.Errorf("shown as restarting: %s", text(p))
		}
		return l
	}
	ended := func(l *lab, outcome, routes string) {
		l.t.Helper()
		if n := len(l.log.lines("event=persist-end", "outcome="+outcome, "routes="+routes)); n != 1 {
			l.t.Errorf("%d records of persist-end, %s: %q", n, outcome, l.log.lines())
		}
		if f := l.a.FIB(); f.Persisted != 0 || f.PersistUntil != nil {
			l.t.Errorf("status: %s", text(f))
		}
		l.consistent()
	}
	bubble(t, "expired", func(t *testing.T) {
		l := kept(t)
		time.Sleep(5*time.Minute - time.Second)
		l.expect("not yet", seed, "10.1.0.4")
		time.Sleep(2 * time.Second)
		l.settle()
		l.expect("over", seed)
		l.expect("over", other)
		ended(l, "expired", "3")
		l.up(quagga)
		l.announce(quagga, seed)
		l.expect("back", seed, "10.1.0.4")
		l.atRest()
	})
	bubble(t, "back with End-of-RIB", func(t *testing.T) {
		l := kept(t)
		l.a.Session(session.Event{Peer: quagga, State: session.Established, Previous: session.OpenConfirm, At: time.Now(), Families: families})
		l.settle()
		l.expect("back, and said nothing yet", other, "10.1.0.4")
		l.announce(quagga, seed, other)
		l.expect("not announced again yet", third, "10.1.0.4")
		l.eor(quagga)
		l.settle()
		l.expect("announced again", other, "10.1.0.4")
		l.expect("not announced again", third)
		if ops := l.ops(); len(ops) > 2 {
			t.Errorf("writes: %v", ops)
		}
		ended(l, "recovered", "0")
	})
	bubble(t, "back without End-of-RIB", func(t *testing.T) {
		l := kept(t)
		l.up(quagga)
		l.announce(quagga, seed)
		time.Sleep(l.cfg.FIB.SweepAfter + time.Second)
		l.settle()
		l.expect("announced again", seed, "10.1.0.4")
		l.expect("not announced again", other)
		ended(l, "recovered", "0")
	})
	bubble(t, "another is back", func(t *testing.T) {
		l := kept(t)
		l.up(bird)
		l.announce(bird, seed)
		l.expect("a fresh path wins", seed, "10.1.0.5")
		l.expect("not heard yet", other, "10.1.0.4")
		l.eor(bird)
		l.settle()
		l.expect("heard: the other one is just down", other)
		l.expect("heard", seed, "10.1.0.5")
		ended(l, "recovered", "3")
	})
	bubble(t, "restart takes too long", func(t *testing.T) {
		l := start(t, time.Hour)
		l.restarting(quagga)
		l.withdraw(quagga, seed, other, third) // by the speaker, for the restart time is over
		l.settle()
		l.expect("kept", other, "10.1.0.4")
		if f := l.a.FIB(); f.Persisted != 3 {
			t.Errorf("status: %s", text(f))
		}
		l.up(quagga)
		l.announce(quagga, seed)
		l.eor(quagga)
		l.settle()
		l.expect("not announced again", other)
		ended(l, "recovered", "0")
	})
	for _, why := range []session.DownReason{
		operator, {Cause: "bfd"}, {Cause: "prefix-limit"}, {Cause: "deconfigured"},
		{Cause: "notification-received", Code: 6, Subcode: 2},
	} {
		bubble(t, "meant: "+why.Cause, func(t *testing.T) {
			l := start(t, time.Hour)
			l.lost(quagga, why, seed, other, third)
			l.expect("gone", seed)
			if f := l.a.FIB(); f.Persisted != 0 || f.PersistUntil != nil {
				t.Errorf("status: %s", text(f))
			}
		})
	}
	bubble(t, "off", func(t *testing.T) {
		l := start(t, 0)
		l.lost(quagga, accident, seed, other, third)
		l.expect("gone", seed)
	})
	bubble(t, "disabled meanwhile", func(t *testing.T) {
		l := kept(t)
		l.a.disable(l.a.peers.byAddr[quagga], true)
		l.settle()
		l.expect("gone", seed)
		ended(l, "dropped", "0")
	})
}
