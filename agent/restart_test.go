package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// earlierRun leaves routes of both NVAs to some prefixes in a kernel, and stops.
func earlierRun(t *testing.T, cfg *config.Config, prefixes ...netip.Prefix) (*fibtest.Machine, int) {
	t.Helper()
	m, eth0 := newHost()
	l := startLab(t, cfg, m, eth0)
	l.up(quagga, bird)
	l.announce(quagga, prefixes...)
	l.announce(bird, prefixes...)
	l.eor(quagga)
	l.eor(bird)
	l.settle()
	if ready, why := l.a.Ready(); !ready {
		t.Fatalf("not ready: %s", why)
	}
	if err := l.stop(); err != nil {
		t.Fatalf("Run: %v", err)
	}
	return m, eth0
}

// S25: the routes of an earlier run are adopted without a write, and what nobody announces
// again goes after End-of-RIB from all peers.
func TestAdoption(t *testing.T) {
	prefixes := many(100)
	for _, classic := range []bool{false, true} {
		name := map[bool]string{false: "groups", true: "classic"}[classic]
		bubble(t, name, func(t *testing.T) {
			cfg := testConfig()
			cfg.FIB.NextHopObjects = !classic
			m, eth0 := earlierRun(t, cfg, append(prefixes, seed)...)
			l := startLab(t, cfg, m, eth0)
			l.settle()
			l.expect("started", seed, "10.1.0.4", "10.1.0.5")
			if ready, why := l.a.Ready(); ready || !strings.HasPrefix(why, "101 routes of an earlier run") {
				t.Errorf("ready %t, %q", ready, why)
			}
			if f := l.a.FIB(); f.Sweep != "pending" || f.Installed != 101 || f.LastSync == nil {
				t.Errorf("status: %s", text(f))
			}
			x, err := l.a.explain(t.Context(), seed.String())
			if err != nil || !strings.Contains(x.Verdict, "earlier run") || len(x.InKernel) != 1 {
				t.Errorf("explain: %s, %v", text(x), err)
			}
			if x, err = l.a.explain(t.Context(), "192.168.255.9"); err != nil || x.Prefix != seed.String() {
				t.Errorf("explain an address inside: %s, %v", text(x), err)
			}

			l.up(quagga)
			l.announce(quagga, prefixes...)
			l.expect("one peer is back", prefixes[7], "10.1.0.4", "10.1.0.5")
			if got := l.reason(quagga, prefixes[7]); got != "installed" {
				t.Errorf("quagga's path is %q", got)
			}
			if x, err = l.a.explain(t.Context(), prefixes[7].String()); err != nil || x.Reason != "pending" || !strings.Contains(x.Verdict, "earlier run") {
				t.Errorf("explain: %s, %v", text(x), err)
			}
			l.eor(quagga)
			l.settle()
			l.expect("one peer was heard", seed, "10.1.0.4", "10.1.0.5")
			l.up(bird)
			l.a.EndOfRIB(bird, session.IPv6)
			l.announce(bird, prefixes...)
			l.settle()
			l.expect("the other's IPv4 was not", seed, "10.1.0.4", "10.1.0.5")
			if ops := l.ops(); len(ops) != 0 {
				t.Errorf("writes before the sweep: %v", ops)
			}
			l.a.EndOfRIB(bird, session.IPv4)
			l.settle()
			l.expect("all were heard", seed)
			l.expect("announced again", prefixes[7], "10.1.0.4", "10.1.0.5")
			if ops := l.ops(); ops[fib.RouteDel] != 1 || len(ops) != 1 {
				t.Errorf("the sweep took %v, want one deletion", ops)
			}
			if ready, why := l.a.Ready(); !ready {
				t.Errorf("not ready: %s", why)
			}
			l.consistent()
			l.atRest()
		})
	}
}

// All routes of the earlier run are confirmed: nothing has to be waited for, although a
// peer's End-of-RIB never comes.
func TestReadyWhenAllIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		m, eth0 := earlierRun(t, cfg, seed)
		l := startLab(t, cfg, m, eth0)
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.settle()
		if ready, _ := l.a.Ready(); ready {
			t.Error("ready although bird has announced nothing yet")
		}
		l.announce(bird, seed)
		l.settle()
		if ready, why := l.a.Ready(); !ready {
			t.Errorf("not ready: %s", why)
		}
		if f := l.a.FIB(); f.Sweep != "pending" {
			t.Errorf("sweep is %q", f.Sweep)
		}
	})
}

// S25: without End-of-RIB, the deadline ends the wait; a peer that is shut down is not
// waited for; no peers at all are.
func TestSweep(t *testing.T) {
	tests := []struct {
		name   string
		change func(*config.Config)
		act    func(*lab)
		after  time.Duration
	}{
		{"no peer comes", func(*config.Config) {}, func(*lab) {}, 2 * time.Minute},
		{"one never sends End-of-RIB", func(*config.Config) {}, func(l *lab) { l.up(quagga, bird); l.eor(quagga) }, 2 * time.Minute},
		{"one is shut down", func(c *config.Config) { c.Peers[1].Shutdown = true }, func(l *lab) { l.up(quagga); l.eor(quagga) }, 0},
		{"families are not known", func(*config.Config) {}, func(l *lab) {
			for _, p := range []netip.Addr{quagga, bird} {
				l.a.Session(session.Event{Peer: p, State: session.Established, At: time.Now()})
			}
		}, 2 * time.Minute},
		{"one speaks IPv4 only", func(*config.Config) {}, func(l *lab) {
			l.up(quagga)
			l.eor(quagga)
			l.a.Session(session.Event{Peer: bird, State: session.Established, At: time.Now(), Families: []session.Family{session.IPv4}})
			l.a.EndOfRIB(bird, session.IPv4)
		}, 0},
		{"heard, then lost", func(*config.Config) {}, func(l *lab) {
			l.up(quagga)
			l.eor(quagga)
			l.down(quagga)
			l.idle(quagga)
			l.up(bird)
			l.eor(bird)
		}, 2 * time.Minute},
		{"no peers are configured", func(c *config.Config) { c.Peers = nil }, func(*lab) {}, 2 * time.Minute},
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			m, eth0 := earlierRun(t, testConfig(), seed)
			cfg := testConfig()
			tt.change(cfg)
			l := startLab(t, cfg, m, eth0)
			tt.act(l)
			if tt.after > 0 {
				time.Sleep(tt.after - 200*time.Millisecond)
				synctest.Wait()
				l.expect("before the deadline", seed, "10.1.0.4", "10.1.0.5")
				l.settle()
			}
			l.settle()
			l.expect("in the end", seed)
			if ready, why := l.a.Ready(); !ready {
				t.Errorf("not ready: %s", why)
			}
			l.consistent()
			l.atRest()
		})
	}
}

// A next hop that died while the daemon was away: the adopted route must not stay on it
// beyond the sweep.
func TestAdoptedRouteWithADeadNextHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		m, eth0 := earlierRun(t, cfg, seed)
		l := startLab(t, cfg, m, eth0)
		l.up(quagga)
		l.announce(quagga, seed)
		l.eor(quagga)
		l.settle()
		l.expect("bird may come yet", seed, "10.1.0.4", "10.1.0.5")
		time.Sleep(cfg.FIB.SweepAfter)
		l.settle()
		l.expect("bird did not", seed, "10.1.0.4")
		l.consistent()
	})
}

// on-stop: keep leaves everything, flush removes exactly what is ours (S25).
func TestOnStop(t *testing.T) {
	start := func(t *testing.T, stop config.OnStop) *lab {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.OnStop = stop })
		l.m.AddRoute(static(prefix("192.168.7.0/24"), owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0}))
		l.m.AddNextHop(7, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0}, 3)
		l.up(quagga, bird)
		l.announce(quagga, many(5000)...)
		l.announce(bird, append(many(3000), prefix("192.168.7.0/24"))...)
		l.settle()
		return l
	}
	nothing := func(l *lab) {
		l.t.Helper()
		snap, err := l.k.Kernel.Dump(nil)
		if err != nil || len(snap.Routes)+len(snap.Groups)+len(snap.NextHops) != 0 {
			l.t.Errorf("left: %d routes, %d groups, %d next hops, %v", len(snap.Routes), len(snap.Groups), len(snap.NextHops), err)
		}
		if r := l.m.Routes(prefix("192.168.7.0/24"), 254); len(r) != 1 || r[0].Protocol != protoStatic {
			l.t.Errorf("the foreign route is not as it was: %s", text(r))
		}
	}
	bubble(t, "keep", func(t *testing.T) {
		l := start(t, config.OnStopKeep)
		l.ops()
		if err := l.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if ops := l.ops(); len(ops) != 0 {
			t.Errorf("writes at the end: %v", ops)
		}
		l.expect("stopped", many(1)[0], "10.1.0.4", "10.1.0.5")
	})
	bubble(t, "flush", func(t *testing.T) {
		l := start(t, config.OnStopFlush)
		begin := time.Now()
		if err := l.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// The refused route's back-off is nobody's concern any more.
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %s", took)
		}
		nothing(l)
	})
	bubble(t, "flush, with an outcome unknown", func(t *testing.T) {
		l := start(t, config.OnStopFlush)
		l.k.failing(failNth("apply", 1))
		if err := l.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		nothing(l)
	})
	bubble(t, "flush, with a refusal", func(t *testing.T) {
		l := start(t, config.OnStopFlush)
		l.k.FailOp(17, syscall.EBUSY, "")
		if err := l.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		nothing(l)
	})
	bubble(t, "flush, in vain", func(t *testing.T) {
		l := start(t, config.OnStopFlush)
		broken := errors.New("broken")
		l.k.failing(func(string) error { return broken })
		begin := time.Now()
		if err := l.stop(); !errors.Is(err, broken) {
			t.Errorf("Run: %v, want %v", err, broken)
		}
		if took := time.Since(begin); took > flushTime+time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// What is wrong at start ends the start.
func TestAdoptFails(t *testing.T) {
	for _, call := range []string{"dump", "host"} {
		m, _ := newHost()
		k := &kernel{Kernel: m.Open(owner, false), fail: failNth(call, 0)}
		a := newAgent(testConfig(), k)
		if _, err := a.Adopt(); err == nil || !strings.Contains(err.Error(), "read the ") {
			t.Errorf("%s fails: Adopt returned %v", call, err)
		}
	}
}

func TestConnect(t *testing.T) {
	m, _ := newHost()
	a := newAgent(testConfig(), &kernel{Kernel: m.Open(owner, false)})
	s := &speaker{err: errors.New("password file: no such file")}
	err := a.Connect(s)
	if err == nil || !strings.Contains(err.Error(), "peer quagga (10.1.0.4): password") || !strings.Contains(err.Error(), "peer bird (10.1.0.5): password") {
		t.Errorf("Connect: %v, want an error for each peer", err)
	}
	if !slices.Equal(s.vnet, testConfig().VNet.Prefixes) || len(s.peers) != 2 {
		t.Errorf("the speaker was told %v, %v", s.vnet, s.peers)
	}
}
