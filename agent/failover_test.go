package agent

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// S24: a lost session moves all prefixes by rewriting their group, also where only one
// peer carried the traffic, and the failover is on record.
func TestFailoverIsOnRecord(t *testing.T) {
	for _, c := range []struct {
		name  string
		paths int // length of bird's AS path
		add   int // next hops that have to be made
	}{{"ECMP", 1, 0}, {"active and standby", 3, 1}} {
		bubble(t, c.name, func(t *testing.T) {
			l := newLab(t, nil)
			prefixes := many(500)
			l.up(quagga, bird)
			l.announce(quagga, prefixes...)
			l.announceWith(bird, attrs(bird, c.paths), prefixes...)
			l.settle()
			l.ops()

			l.down(quagga)
			l.expect("quagga is lost", prefixes[499], "10.1.0.5")
			if ops := l.ops(); ops[fib.GroupReplace] != 1 || ops[fib.NextHopAdd] != c.add || ops[fib.RouteAdd]+ops[fib.RouteReplace]+ops[fib.RouteDel] != 0 {
				t.Errorf("the failover took %v, want one group and no route", ops)
			}
			last := l.a.Failovers(t.Context())
			if len(last) != 1 || last[0].Signal != "session 10.1.0.4" || last[0].Groups != 1 || last[0].Prefixes != 500 {
				t.Errorf("failovers: %+v", last)
			}
			if got := l.log.lines("event=failover", "peer=10.1.0.4", "prefixes=500"); len(got) != 1 {
				t.Errorf("records of the failover: %q", got)
			}
			l.withdraw(quagga, prefixes...)
			l.idle(quagga)
			l.settle()
			if n := len(l.a.Failovers(t.Context())); n != 1 {
				t.Errorf("%d failovers after the clean-up, want the one", n)
			}
			l.consistent()
		})
	}
}

// A link's loss is known from its event alone: no reading of the host stands before it.
func TestLinkLossNeedsNoReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var eth1 int
		l := newLab(t, func(_ *config.Config, m *fibtest.Machine) {
			eth1 = m.AddLink("eth1", prefix("10.2.0.4/16"))
		})
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announceWith(bird, attrs(addr("10.2.0.9"), 3), seed)
		l.settle()
		l.expect("before", seed, "10.1.0.4")
		l.k.failing(func(call string) error {
			if call == "host" {
				return errors.New("no buffer space available")
			}
			return nil
		})
		l.m.SetCarrier(l.eth0, false)
		synctest.Wait()
		l.k.failing(nil)
		l.settle()
		l.expect("eth0 lost its carrier", seed, "10.2.0.9")
		_ = eth1
	})
}

// A neighbour that does not answer is avoided while there is another way, and tried
// again after a while, for the kernel asks for it only when there is traffic.
func TestSilentNeighbor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announceWith(bird, attrs(bird, 3), seed)
		other := prefix("192.168.7.0/24")
		l.announce(quagga, other)
		l.settle()
		silent := func(kind fib.EventKind) {
			l.m.Emit(fib.Event{Kind: kind, Addr: quagga, IfIndex: l.eth0})
			synctest.Wait()
		}
		silent(fib.NeighborFailed)
		l.expect("quagga does not answer", seed, "10.1.0.5")
		l.expect("where there is no other way", other, "10.1.0.4")
		if last := l.a.Failovers(t.Context()); len(last) != 1 || last[0].Signal != "neighbor 10.1.0.4" {
			t.Errorf("failovers: %+v", last)
		}
		silent(fib.NeighborReachable)
		l.settle()
		l.expect("quagga answers", seed, "10.1.0.4")

		silent(fib.NeighborFailed)
		time.Sleep(avoidFor + time.Second)
		l.settle()
		l.expect("nobody heard of it for long", seed, "10.1.0.4")
		l.atRest()
	})
}

// What no event told of is found by the audit.
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Audit = time.Minute })
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.settle()
		// A deletion without a notification, as the kernel does it with a link: by our own port.
		if _, err := l.k.Kernel.Apply([]fib.Op{{Kind: fib.RouteDel, Prefix: seed}}); err != nil {
			t.Fatal(err)
		}
		l.settle()
		l.expect("nobody told", seed)
		time.Sleep(time.Minute)
		l.settle()
		l.expect("after an audit", seed, "10.1.0.4")
		if got := l.log.lines("event=repair", "reason=audit"); len(got) != 1 {
			t.Errorf("records of the repair: %q", got)
		}
	})
}

// An audit that reads a large table makes way for a failover, and is done after it; so is
// the resync that an operator waits for.
func TestAuditMakesWay(t *testing.T) {
	for name, begin := range map[string]func(l *lab){
		"audit": func(*lab) { time.Sleep(time.Minute + time.Millisecond) },
		"resync": func(l *lab) {
			l.announce(bird, prefix("192.168.254.0/24")) // one more than any resync has found
			l.settle()
			if r, err := l.a.Resync(l.t.Context(), false); err != nil || r.Routes != 2 {
				l.t.Errorf("Resync = %+v, %v, want 2 routes", r, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testMakesWay(t, begin) }) })
	}
}

func testMakesWay(t *testing.T, begin func(l *lab)) {
	l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Audit = time.Minute })
	l.up(quagga, bird)
	l.announce(quagga, seed)
	l.announce(bird, seed)
	l.settle()
	dumps := func() int {
		l.k.mu.Lock()
		defer l.k.mu.Unlock()
		return l.k.dumps
	}
	before := dumps()
	l.k.failing(func(call string) error {
		if call == "dump" && l.k.dumps == before+1 {
			go l.a.PeerDown(quagga, accident, false) // the kernel is being read
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	l.ops()
	begin(l)
	l.settle()
	l.expect("after a failover in an audit", seed, "10.1.0.5")
	if n := dumps() - before; n != 2 {
		t.Errorf("read %d times, want one given up and one done", n)
	}
	l.k.failing(nil)
	l.idle(quagga)
	l.consistent()
}

// A program that deletes a route of ours again and again does not make the agent spin.
func TestFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, seed)
		l.settle()
		l.ops()
		for range 100 {
			l.m.DelRoute(fib.Route{Prefix: seed, Table: owner.Table, Metric: owner.Metric, Protocol: owner.Protocol})
			l.settle()
		}
		if n := l.ops()[fib.RouteAdd]; n < fightRounds || n > 2*fightRounds+2 {
			t.Errorf("%d repairs in 10 s, want about %d", n, fightRounds)
		}
		if got := l.log.lines("keeps changing a route", "prefix="+seed.String()); len(got) == 0 || len(got) > 2 {
			t.Errorf("records of the fight: %q", got)
		}
		time.Sleep(2 * fightWindow)
		l.settle()
		l.expect("the other one gave up", seed, "10.1.0.4")
		l.atRest()
	})
}

// S25: a host that is cut off does not empty its own table.
func TestSweepGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.FIB.SweepShare = 50
		m, eth0 := earlierRun(t, cfg, many(100)...)
		l := startLab(t, cfg, m, eth0)
		time.Sleep(3 * cfg.FIB.SweepAfter)
		l.settle()
		l.expect("no session is up", many(100)[7], "10.1.0.4", "10.1.0.5")
		if got := l.log.lines("keeping the routes of an earlier run"); len(got) != 1 {
			t.Errorf("records: %q", got)
		}
		l.up(bird)
		l.announce(bird, netip.MustParsePrefix("192.168.1.0/24"))
		time.Sleep(2 * cfg.FIB.SweepAfter)
		l.settle()
		l.expect("a peer is back and the deadline over", many(100)[7])
		l.consistent()
	})
}
