package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// kept looks at what everybody tells of n routes that are kept, p among them.
func (l *lab) kept(n int, reason string, p netip.Prefix) {
	l.t.Helper()
	s, err := l.a.Status(l.t.Context())
	if err != nil || s.FIB.Kept != n || s.FIB.Held != n || s.FIB.Sweep != "done" {
		l.t.Errorf("status: %+v, %v, want %d kept", s.FIB, err, n)
	}
	said := 0
	for _, p := range s.Degraded {
		if strings.Contains(p.What, "and are kept") && p.Next == "nexthopctl resume" {
			said++
		}
	}
	if want := min(n, 1); said != want {
		l.t.Errorf("degraded: %v, want it said %d times", s.Degraded, want)
	}
	x, err := l.a.explain(l.t.Context(), p.String())
	if n == 0 {
		if err != nil || x.Held != "" || strings.Contains(x.Verdict, "kept") {
			l.t.Errorf("explain: %q, held %q, %v", x.Verdict, x.Held, err)
		}
		return
	}
	if err != nil || !strings.Contains(x.Held, "nexthopctl resume") || !strings.Contains(x.Verdict, "kept in the kernel") || len(x.InKernel) != 1 {
		l.t.Errorf("explain: %s, %v", text(x), err)
	}
	if len(l.log.lines("event=routes-kept", "reason="+reason)) != 1 {
		l.t.Error("the journal does not tell of it once")
	}
	if ready, why := l.a.Ready(); !ready {
		l.t.Errorf("not ready: %s", why)
	}
}

// A start with a configuration that no longer accepts what is installed, or no longer has
// its peer, keeps it until an operator is sure. What peers do not announce any more, and
// what those that are missing left, is removed as ever.
func TestRoutesKeptAtTheSweep(t *testing.T) {
	all := many(120)
	heardBoth := func(l *lab) {
		l.up(quagga, bird)
		l.announce(quagga, all...)
		l.announce(bird, all...)
		l.eor(quagga)
		l.eor(bird)
	}
	tests := []struct {
		name   string
		change func(*config.Config)
		act    func(*lab)
		kept   int
	}{
		{"VNet", func(c *config.Config) { c.VNet.Prefixes = append(c.VNet.Prefixes, prefix("20.0.0.0/8")) }, heardBoth, 120},
		{"filter", func(c *config.Config) {
			for i := range c.Peers {
				c.Peers[i].Import = &policy.Filter{Default: policy.Reject}
			}
		}, heardBoth, 120},
		{"guard", func(c *config.Config) {
			for i := range c.Peers {
				c.Peers[i].Guards.IPv4 = config.Lengths{Min: 8, Max: 16}
			}
		}, heardBoth, 120},
		{"total", func(c *config.Config) { c.PrefixLimitTotal = 10 }, heardBoth, 110},
		{"no peers", func(c *config.Config) { c.Peers = nil }, func(*lab) { time.Sleep(2 * time.Minute) }, 120},
		{"shut down in the file", func(c *config.Config) { c.Peers[0].Shutdown, c.Peers[1].Shutdown = true, true }, func(*lab) {}, 120},
		{"another peer", func(c *config.Config) {
			c.Peers = c.Peers[:1]
			c.Peers[0].Address = addr("10.1.0.6")
		}, func(l *lab) { l.up(addr("10.1.0.6")); l.eor(addr("10.1.0.6")) }, 120},
		{"few", func(c *config.Config) { c.PrefixLimitTotal = 200 }, func(l *lab) {
			l.up(quagga, bird)
			l.announce(quagga, all[:60]...)
			l.eor(quagga)
			l.eor(bird)
		}, 0},
		{"not announced again", func(*config.Config) {}, func(l *lab) { l.up(quagga, bird); l.eor(quagga); l.eor(bird) }, 0},
		{"announced again as a loop", func(*config.Config) {}, func(l *lab) {
			l.up(quagga, bird)
			l.announceWith(quagga, &rib.Attrs{NextHop: quagga, ASPath: rib.ASPath{{Type: rib.ASSequence, ASNs: []uint32{nvaASN, 65515}}}}, all...)
			l.eor(quagga)
			l.eor(bird)
		}, 0},
		{"the peers died", func(*config.Config) {}, func(*lab) { time.Sleep(2 * time.Minute) }, 0},
		{"one died, and had another next hop", func(c *config.Config) {
			c.Peers[0].Address = addr("10.1.0.6")
			c.Peers[1].Address = addr("10.1.0.7")
		}, func(l *lab) {
			l.up(addr("10.1.0.6"))
			l.eor(addr("10.1.0.6"))
			time.Sleep(2 * time.Minute)
		}, 0},
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			m, eth0 := earlierRun(t, testConfig(), all...)
			cfg := testConfig()
			cfg.FIB.BlastRadius = config.BlastRadius{Share: 50, Min: 100}
			tt.change(cfg)
			l := startLab(t, cfg, m, eth0)
			tt.act(l)
			l.settle()
			l.kept(tt.kept, "sweep", all[119])
			if tt.kept == 0 {
				if n := l.a.FIB().Installed; n > 60 {
					t.Errorf("%d routes are left", n)
				}
				l.consistent()
				return
			}
			l.expect("kept", all[119], "10.1.0.4", "10.1.0.5")
			if d, err := l.a.Resume(t.Context(), false); err != nil || !strings.Contains(d.Done, "should go") {
				t.Errorf("Resume = %+v, %v", d, err)
			}
			if d, err := l.a.Resume(t.Context(), true); err != nil || !strings.Contains(d.Done, "removing the 1") {
				t.Errorf("Resume = %+v, %v", d, err)
			}
			l.settle()
			l.expect("resumed", all[119])
			l.kept(0, "", all[119])
			l.consistent()
			l.atRest()
		})
	}
	bubble(t, "mended", func(t *testing.T) {
		m, eth0 := earlierRun(t, testConfig(), all...)
		cfg := testConfig()
		cfg.FIB.BlastRadius = config.BlastRadius{Share: 50, Min: 100}
		cfg.VNet.Prefixes = append(cfg.VNet.Prefixes, prefix("20.0.0.0/8"))
		l := startLab(t, cfg, m, eth0)
		heardBoth(l)
		l.settle()
		l.kept(120, "sweep", all[0])
		l.ops()
		l.reload(func(c *config.Config) { c.VNet.Prefixes = c.VNet.Prefixes[:2] })
		l.settle()
		l.kept(0, "", all[0])
		if ops := l.ops(); len(ops) != 0 {
			t.Errorf("written: %v, want the routes taken over as they are", ops)
		}
		l.consistent()
		l.withdraw(quagga, all...)
		l.withdraw(bird, all...)
		l.settle()
		l.expect("withdrawn", all[0])
		l.consistent()
	})
}

// A comparison with the kernel that finds most routes to be strangers with our mark keeps
// them until an operator is sure; a few are removed.
func TestRoutesKeptAtAResync(t *testing.T) {
	start := func(t *testing.T, strangers int) *lab {
		m, eth0 := newHost()
		cfg := testConfig()
		cfg.FIB.BlastRadius = config.BlastRadius{Share: 50, Min: 100}
		cfg.FIB.NextHopObjects = false
		l := startLab(t, cfg, m, eth0)
		l.up(quagga)
		l.announce(quagga, seed)
		l.settle()
		for _, p := range many(strangers) {
			m.AddRoute(fib.Route{Prefix: p, Table: owner.Table, Metric: owner.Metric, Protocol: owner.Protocol, Type: rtnUnicast,
				Legs: []fib.Leg{{Gateway: addr("10.1.0.99"), IfIndex: eth0}}})
		}
		l.settle()
		return l
	}
	resync := func(l *lab) status.Resync {
		l.t.Helper()
		r, err := l.a.Resync(l.t.Context(), false)
		if err != nil {
			l.t.Error(err)
		}
		l.settle()
		return r
	}
	bubble(t, "most", func(t *testing.T) {
		l := start(t, 150)
		if r := resync(l); r.Kept != 150 || r.Routes != 151 {
			t.Errorf("Resync = %+v, want 150 of 151 kept", r)
		}
		l.kept(150, "operator", many(150)[149])
		resync(l)
		l.kept(150, "operator", many(150)[149])
		// A peer that announces some takes them over, and they are no others'.
		l.announce(quagga, many(10)...)
		l.settle()
		l.expect("taken over", many(1)[0], "10.1.0.4")
		l.withdraw(quagga, many(10)...)
		l.settle()
		l.expect("withdrawn", many(1)[0])
		if n := l.a.FIB().Kept; n != 140 {
			t.Errorf("%d kept, want 140", n)
		}
		if _, err := l.a.Resume(t.Context(), true); err != nil {
			t.Error(err)
		}
		l.settle()
		l.expect("resumed", many(150)[149])
		l.expect("a peer's", seed, "10.1.0.4")
		l.consistent()
		l.atRest()
	})
	bubble(t, "audit", func(t *testing.T) {
		l := start(t, 150)
		l.reload(func(c *config.Config) { c.FIB.Audit = time.Minute })
		time.Sleep(3 * time.Minute)
		l.settle()
		l.kept(150, "audit", many(150)[149])
		l.expect("kept", many(150)[149], "10.1.0.99")
	})
	bubble(t, "few", func(t *testing.T) {
		l := start(t, 99)
		if r := resync(l); r.Kept != 0 {
			t.Errorf("Resync = %+v, want none kept", r)
		}
		l.expect("a stranger", many(1)[0])
		l.consistent()
	})
	bubble(t, "flushed meanwhile", func(t *testing.T) {
		l := start(t, 150)
		resync(l)
		if _, err := l.a.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		l.expect("flushed", many(150)[149])
	})
}
