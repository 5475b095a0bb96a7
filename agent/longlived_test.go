package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// upLongLived is up for a peer that has agreed on long-lived graceful restart.
func (l *lab) upLongLived(peer netip.Addr, agreed ...session.LongLived) {
	l.a.Session(session.Event{
		Peer: peer, State: session.Established, Previous: session.OpenConfirm, At: time.Now(),
		LocalAddress: addr("10.1.2.4"), RemoteID: peer, PeerASN: nvaASN, Families: families, LongLived: agreed,
	})
	l.settle()
}

// outlasted tells that a peer is not back within its restart time.
func (l *lab) outlasted(peer netip.Addr) {
	l.a.Session(session.Event{
		Peer: peer, State: session.Idle, Previous: session.Active, At: time.Now(), Outlasted: true,
		Down: session.DownReason{Cause: "graceful-restart", Text: "the graceful restart took too long"},
	})
	l.settle()
}

// RFC 9494 section 4.2: what outlasts the restart is the last choice, for as long as both
// sides agreed on.
func TestLongLived(t *testing.T) {
	worse, only, not, six := prefix("192.168.1.0/24"), prefix("192.168.2.0/24"), prefix("192.168.3.0/24"), prefix("2001:db8:255::/48")
	v4 := session.LongLived{Family: session.IPv4, Time: 10 * time.Hour, Preserved: true}
	v6 := session.LongLived{Family: session.IPv6, Time: 2 * time.Hour, Preserved: true}
	ours, ours6 := attrs(quagga, 1), attrs(addr("fd00:1::a"), 1)
	start := func(t *testing.T, agreed ...session.LongLived) *lab {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			c.Peers[0].GracefulRestart.LongLived = time.Hour
			c.FIB.Persist = time.Minute
		})
		l.upLongLived(quagga, agreed...)
		l.up(bird)
		l.announceWith(quagga, ours, seed, worse, only)
		l.announceWith(quagga, ours6, six)
		last := attrs(quagga, 1)
		last.Communities = []uint32{65535<<16 | 7}
		l.announceWith(quagga, last, not)
		l.announce(bird, seed)
		l.announceWith(bird, attrs(bird, 3), worse)
		l.expect("before", seed, "10.1.0.4", "10.1.0.5")
		l.restarting(quagga)
		l.expect("a stale path is still the better one", worse, "10.1.0.4")
		l.expect("stale", not, "10.1.0.4")
		return l
	}
	long := func(t *testing.T, agreed ...session.LongLived) *lab {
		l := start(t, agreed...)
		time.Sleep(time.Minute)
		l.outlasted(quagga)
		l.expect("any other path is better", worse, "10.1.0.5")
		l.expect("the last choice is one", only, "10.1.0.4")
		l.expect("NO_LLGR", not)
		l.consistent()
		return l
	}
	ended := func(l *lab, back string) {
		l.t.Helper()
		if got := l.log.lines("event=long-lived-end", "back="+back); len(got) != 1 {
			l.t.Errorf("%d records of the end: %q", len(got), l.log.lines())
		}
		if p := l.a.Peers()[0]; p.Restarting || p.LongLivedStale != 0 || p.LongLivedUntil != nil {
			l.t.Errorf("peers: %s", text(p))
		}
		l.consistent()
	}
	bubble(t, "seen", func(t *testing.T) {
		l := long(t, v4, v6)
		p := l.a.Peers()[0]
		if !p.Restarting || p.LongLivedStale != 4 || p.LongLivedUntil == nil || time.Until(*p.LongLivedUntil).Round(time.Minute) != time.Hour {
			t.Errorf("peers: %s", text(p))
		}
		rows := map[string]status.Path{}
		for _, r := range l.learnedOf(quagga) {
			rows[r.Network] = r
		}
		if r := rows[worse.String()]; !r.LongLivedStale || r.Reason != "long-lived-stale" || r.Installed {
			t.Errorf("learned: %s", text(r))
		}
		if r := rows[only.String()]; !r.LongLivedStale || r.Reason != "" || !r.Installed {
			t.Errorf("learned: %s", text(r))
		}
		x, err := l.a.explain(t.Context(), worse.String())
		if err != nil || x.Paths[1].Step != string(rib.LongLivedStale) || !strings.Contains(x.Paths[1].Detail, "RFC 9494") {
			t.Errorf("explain: %s, %v", text(x), err)
		}
		if s, err := l.a.Status(t.Context()); err != nil || !strings.Contains(s.Degraded[0].What, "4 paths are kept as the last choice until") {
			t.Errorf("status: %s, %v", text(s), err)
		}
		if got := l.log.lines("event=long-lived-start", "routes=4"); len(got) != 1 {
			t.Errorf("%d records of the start: %q", len(got), l.log.lines())
		}
	})
	bubble(t, "back", func(t *testing.T) {
		l := long(t, v4, v6)
		time.Sleep(30 * time.Minute)
		l.upLongLived(quagga, v4, v6)
		l.expect("said nothing yet", only, "10.1.0.4")
		l.announceWith(quagga, ours, worse)
		l.expect("the same path again is a fresh one", worse, "10.1.0.4")
		l.announceWith(quagga, ours, seed)
		l.expect("not all announced again", seed, "10.1.0.5")
		l.eor(quagga)
		l.settle()
		l.expect("not announced again", only)
		l.expect("announced again", seed, "10.1.0.4", "10.1.0.5")
		ended(l, "true")
	})
	// The peer asked for hours before that, and the speaker counts its time.
	bubble(t, "stale-time comes before the restart time", func(t *testing.T) {
		l := start(t, v4)
		time.Sleep(6*time.Minute - time.Second)
		l.expect("not yet", worse, "10.1.0.4")
		time.Sleep(2 * time.Second)
		l.settle()
		l.expect("any other path is better", worse, "10.1.0.5")
		l.expect("the last choice", only, "10.1.0.4")
		l.expect("NO_LLGR", not)
		l.expect("not agreed on", six)
		time.Sleep(30 * time.Minute)
		l.outlasted(quagga)
		if got := l.sp.asked(); strings.Contains(got, "end-restart") {
			t.Errorf("the speaker was asked: %s", got)
		}
		time.Sleep(29 * time.Minute)
		l.expect("not yet", only, "10.1.0.4")
		time.Sleep(2 * time.Minute)
		l.settle()
		l.expect("over an hour after stale-time", only)
		if got := l.sp.asked(); !strings.HasSuffix(got, "end-restart 10.1.0.4") {
			t.Errorf("the speaker was asked: %s", got)
		}
		if got := l.log.lines("event=restart-expired", "routes=3"); len(got) != 1 {
			t.Errorf("log: %q", l.log.lines())
		}
		ended(l, "false")
	})
	bubble(t, "the peer wants less", func(t *testing.T) {
		less := v4
		less.Time = time.Minute
		l := long(t, less)
		l.expect("not agreed on", six)
		time.Sleep(time.Minute + time.Second)
		l.settle()
		l.expect("over", only)
		ended(l, "false")
	})
	// The speaker drops what the peer wants kept for less.
	bubble(t, "withdrawn by the speaker", func(t *testing.T) {
		l := long(t, v4, v6)
		l.withdraw(quagga, seed, worse, only, not, six)
		l.settle()
		l.expect("gone", only)
		ended(l, "false")
	})
	// Section 4.2: the time runs on until an End-of-RIB.
	bubble(t, "lost again before its End-of-RIB", func(t *testing.T) {
		l := long(t, v4, v6)
		time.Sleep(40 * time.Minute)
		l.upLongLived(quagga, v4, v6)
		l.announceWith(quagga, ours, worse)
		l.expect("fresh", worse, "10.1.0.4")
		l.restarting(quagga)
		l.expect("kept", only, "10.1.0.4")
		l.expect("stale, and no last choice yet", worse, "10.1.0.4")
		l.outlasted(quagga)
		l.expect("the last choice", worse, "10.1.0.5")
		time.Sleep(21 * time.Minute)
		l.settle()
		l.expect("over", only)
		ended(l, "false")
	})
	bubble(t, "forwarding state lost", func(t *testing.T) {
		l := long(t, v4, v6)
		lost := v4
		lost.Preserved = false
		l.upLongLived(quagga, lost, v6)
		l.expect("lost", only)
		l.expect("kept", six, "fd00:1::a")
	})
	bubble(t, "lost for good", func(t *testing.T) {
		l := long(t, v4, v6)
		l.upLongLived(quagga, v4, v6)
		l.down(quagga)
		l.withdraw(quagga, seed, worse, only, six)
		l.idle(quagga)
		l.expect("gone", only)
		ended(l, "false")
	})
	bubble(t, "nothing to keep", func(t *testing.T) {
		l := start(t, v4, v6)
		l.withdraw(quagga, seed, worse, only, six)
		l.outlasted(quagga)
		l.expect("NO_LLGR", not)
		if p := l.a.Peers()[0]; p.Restarting || len(l.log.lines("event=long-lived-start")) != 0 {
			t.Errorf("peers: %s, log: %q", text(p), l.log.lines())
		}
	})
	// fib.persist comes after it.
	bubble(t, "the last session", func(t *testing.T) {
		l := start(t, v4, v6)
		l.lost(bird, session.DownReason{Cause: "operator"}, seed, worse)
		l.outlasted(quagga)
		l.expect("the last choice is the only one", seed, "10.1.0.4")
		if f := l.a.FIB(); f.Persisted != 0 {
			t.Errorf("persisting: %s", text(f))
		}
		time.Sleep(time.Hour + time.Second)
		l.settle()
		l.expect("persists", seed, "10.1.0.4")
		if f := l.a.FIB(); f.Persisted != 4 {
			t.Errorf("persisting: %s", text(f))
		}
		if got := l.log.lines("event=long-lived-end"); len(got) != 1 {
			t.Errorf("log: %q", l.log.lines())
		}
		time.Sleep(time.Minute + time.Second)
		l.settle()
		l.expect("over", seed)
	})
}
