package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// S14, S15: one route with both next hops; a prepend and its end; the loss of an NVA.
func TestSeedCase(t *testing.T) {
	for _, classic := range []bool{false, true} {
		name := map[bool]string{false: "groups", true: "classic"}[classic]
		bubble(t, name, func(t *testing.T) {
			l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.NextHopObjects = !classic })
			l.up(quagga, bird)
			l.announce(quagga, seed)
			l.expect("one NVA announced", seed, "10.1.0.4")
			l.announce(bird, seed)
			l.expect("both announced", seed, "10.1.0.4", "10.1.0.5")
			l.announceWith(bird, attrs(bird, 3), seed)
			l.expect("bird prepends twice", seed, "10.1.0.4")
			l.announce(bird, seed)
			l.expect("bird prepends no more", seed, "10.1.0.4", "10.1.0.5")
			l.down(quagga)
			l.expect("quagga died", seed, "10.1.0.5")
			l.withdraw(quagga, seed)
			l.idle(quagga)
			l.expect("and its paths are withdrawn", seed, "10.1.0.5")
			l.withdraw(bird, seed)
			l.expect("all withdrawn", seed)
			l.settle()
			l.consistent()
			if snap, _ := l.k.Kernel.Dump(nil); len(snap.Groups)+len(snap.NextHops) != 0 {
				t.Errorf("left behind: %s", text(snap))
			}
			l.atRest()
		})
	}
}

// S14: up to max-paths next hops.
func TestMaxPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.MaxPaths = 1 })
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		l.expect("two paths, one next hop allowed", seed, "10.1.0.4")
		if r := l.learnedOf(bird)[0]; r.Reason != "max-paths" || r.Installed || !r.Best {
			t.Errorf("bird's path: %s, want max-paths", text(r))
		}
	})
}

// S16: the same next hop from two peers is one leg, and stays with the last.
func TestSharedNextHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		lb := addr("10.1.0.100")
		l.announceWith(quagga, attrs(lb, 1), seed)
		l.announceWith(bird, attrs(lb, 1), seed)
		l.expect("both peers name it", seed, "10.1.0.100")
		l.ops()
		l.down(quagga)
		l.withdraw(quagga, seed)
		l.idle(quagga)
		l.settle()
		l.expect("one peer is left", seed, "10.1.0.100")
		if ops := l.ops(); len(ops) != 0 {
			t.Errorf("writes although nothing changed: %v", ops)
		}
		l.withdraw(bird, seed)
		l.expect("none", seed)
	})
}

// S24: the loss of a peer rewrites its groups at once and no route; the withdrawals that
// follow find all in order (S23).
func TestPeerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		prefixes := many(5000)
		l.up(quagga, bird)
		l.announce(quagga, prefixes...)
		l.announce(bird, prefixes...)
		l.announce(quagga, seed) // of quagga alone
		l.settle()
		l.expect("before", prefixes[4711], "10.1.0.4", "10.1.0.5")
		l.ops()

		l.down(quagga)
		l.expect("at once", prefixes[4711], "10.1.0.5")
		l.expect("nobody else has it", seed)
		if ops := l.ops(); ops[fib.GroupReplace] != 1 || ops[fib.RouteReplace] != 0 || ops[fib.RouteAdd] != 0 || ops[fib.RouteDel] != 1 {
			t.Errorf("the loss took %v, want one group replaced, one route deleted", ops)
		}
		if n := len(l.log.lines("event=failover", "groups=1")); n != 1 {
			t.Errorf("%d failover records, want 1", n)
		}
		l.withdraw(quagga, prefixes...)
		l.withdraw(quagga, seed)
		l.idle(quagga)
		l.settle()
		if ops := l.ops(); len(ops) != 0 {
			t.Errorf("the clean-up took %v, want no write", ops)
		}
		if n := len(l.log.lines("event=session-down", "cause=hold-timer", "peer=10.1.0.4")); n != 1 {
			t.Errorf("%d session-down records, want 1", n)
		}
		l.consistent()

		l.up(quagga)
		l.announce(quagga, prefixes...)
		l.announce(quagga, seed)
		l.eor(quagga)
		l.settle()
		l.expect("quagga is back", prefixes[4711], "10.1.0.4", "10.1.0.5")
		l.expect("quagga is back", seed, "10.1.0.4")
		if n := len(l.log.lines("event=failover")); n != 1 {
			t.Errorf("the return was logged as failover: %q", l.log.lines("event=failover"))
		}
		l.atRest()
	})
}

// A speaker that says a peer is down and does not withdraw its paths (they were announced
// again meanwhile, or it was a false alarm) must not cost these paths.
func TestPeerBackWithItsPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		l.down(quagga)
		l.expect("down", seed, "10.1.0.5")
		l.up(quagga)
		l.settle()
		l.expect("up", seed, "10.1.0.4", "10.1.0.5")
	})
}

// S17 and RFC 4724 section 4.2: a restarting peer's paths stay usable, join no ECMP set
// with a fresh path, and go at End-of-RIB unless they were announced again.
func TestGracefulRestart(t *testing.T) {
	other, third := prefix("192.168.1.0/24"), prefix("192.168.2.0/24")
	start := func(t *testing.T) *lab {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed, other, third)
		l.announce(bird, seed)
		l.expect("before", seed, "10.1.0.4", "10.1.0.5")
		l.restarting(quagga)
		l.expect("a fresh path is as good", seed, "10.1.0.5")
		l.expect("only the stale path", other, "10.1.0.4")
		if rows := l.learnedOf(quagga); rows[2].Network != seed.String() || rows[2].Reason != "stale" || !rows[2].Stale || !rows[1].Installed {
			t.Errorf("learned: %s", text(rows))
		}
		if p := l.a.Peers()[0]; !p.Restarting {
			t.Errorf("peer is not shown as restarting: %s", text(p))
		}
		return l
	}
	back := func(l *lab) {
		l.t.Helper()
		l.expect("ECMP again", seed, "10.1.0.4", "10.1.0.5")
		if p := l.a.Peers()[0]; p.Restarting {
			l.t.Errorf("still shown as restarting: %s", text(p))
		}
		l.consistent()
	}
	bubble(t, "End-of-RIB", func(t *testing.T) {
		l := start(t)
		l.up(quagga)
		l.expect("session up, nothing announced", other, "10.1.0.4")
		l.announce(quagga, seed, other)
		l.expect("not all announced yet", third, "10.1.0.4")
		l.expect("not all announced yet", seed, "10.1.0.5")
		l.a.EndOfRIB(quagga, session.IPv6)
		l.settle()
		l.expect("End-of-RIB of the other family", third, "10.1.0.4")
		l.a.EndOfRIB(quagga, session.IPv4)
		l.settle()
		l.expect("not announced again", third)
		l.expect("announced again", other, "10.1.0.4")
		back(l)
	})
	// No End-of-RIB is needed when nothing is stale any more.
	bubble(t, "all announced again", func(t *testing.T) {
		l := start(t)
		l.up(quagga)
		l.announce(quagga, seed, other, third)
		l.settle()
		back(l)
	})
	// The speaker withdraws what is stale when the restart takes too long, and the peer
	// comes back only later.
	bubble(t, "too late", func(t *testing.T) {
		l := start(t)
		l.withdraw(quagga, seed, other, third)
		l.settle()
		if p := l.a.Peers()[0]; p.Restarting {
			t.Errorf("still shown as restarting: %s", text(p))
		}
		l.up(quagga)
		l.announce(quagga, seed)
		back(l)
	})
	// RFC 4724 section 4.2: what was stale already when it restarts once more goes.
	bubble(t, "restarts again", func(t *testing.T) {
		l := start(t)
		l.up(quagga)
		l.announce(quagga, seed, other)
		l.restarting(quagga)
		l.expect("stale once", other, "10.1.0.4")
		l.expect("stale twice", third)
		l.up(quagga)
		l.announce(quagga, seed, other)
		l.settle()
		back(l)
	})
	// The same: without its Forwarding State, it restarted and forwards nothing.
	bubble(t, "forwarding state lost", func(t *testing.T) {
		l := start(t)
		l.a.Session(session.Event{Peer: quagga, State: session.Established, Previous: session.OpenConfirm, At: time.Now(),
			Families: families, Preserved: []session.Family{session.IPv6}})
		l.settle()
		l.expect("nothing announced yet", other)
		l.announce(quagga, seed)
		back(l)
	})
	bubble(t, "stale time over while it is away", func(t *testing.T) {
		l := start(t)
		time.Sleep(6*time.Minute - time.Second)
		l.expect("not yet", other, "10.1.0.4")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		l.expect("over", other)
		if got := l.sp.asked(); !strings.HasSuffix(got, "end-restart 10.1.0.4") {
			t.Errorf("the speaker was asked: %s", got)
		}
		if len(l.log.lines("peer took too long", "routes=3")) != 1 {
			t.Errorf("log: %q", l.log.lines())
		}
		l.up(quagga)
		l.announce(quagga, seed)
		back(l)
	})
	bubble(t, "stale time over without End-of-RIB", func(t *testing.T) {
		l := start(t)
		l.up(quagga)
		l.announce(quagga, seed)
		time.Sleep(6 * time.Minute)
		l.settle()
		l.expect("not announced again", other)
		back(l)
	})
	bubble(t, "lost again", func(t *testing.T) {
		l := start(t)
		l.up(quagga)
		l.announce(quagga, other)
		l.down(quagga)
		l.expect("lost for good", other)
		l.withdraw(quagga, seed, other, third)
		l.idle(quagga)
		l.up(quagga)
		l.announce(quagga, seed)
		back(l)
	})
	bubble(t, "nothing to keep", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.restarting(quagga)
		if p := l.a.Peers()[0]; p.Restarting {
			t.Errorf("shown as restarting: %s", text(p))
		}
		l.up(quagga)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		back(l)
	})
}

// IPv6 routes are on a par, and both families come over either session.
func TestIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		p := prefix("2001:db8:255::/48")
		l.up(quagga, bird)
		l.announceWith(quagga, attrs(addr("fd00:1::a"), 1), p)
		l.announceWith(bird, attrs(addr("fd00:1::b"), 1), p)
		l.expect("both", p, "fd00:1::a", "fd00:1::b")
		l.down(quagga)
		l.expect("one died", p, "fd00:1::b")
	})
}

// What the operator sees of the clock: time since the state changed, and convergence.
func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		start := time.Now()
		l.up(quagga)
		time.Sleep(time.Hour)
		l.up(quagga) // the same state again
		if p := l.a.Peers()[0]; p.Since == nil || !p.Since.Equal(start) {
			t.Errorf("since %v, want %v", p.Since, start)
		}
	})
}
