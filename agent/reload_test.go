package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/status"
)

// file makes the next reload find what change makes of the configuration in force.
func (l *lab) file(change func(*config.Config)) {
	c := *l.a.config()
	c = *c.With(nil) // a file has no dynamic peers
	c.VNet.Prefixes = slices.Clone(c.VNet.Prefixes)
	if change != nil {
		change(&c)
	}
	l.a.opts.Load = func() (*config.Config, error) { return &c, nil }
}

// reload applies a changed configuration.
func (l *lab) reload(change func(*config.Config)) status.Reload {
	l.t.Helper()
	l.file(change)
	l.sp.asked()
	r, err := l.a.Reload(l.t.Context(), false)
	if err != nil || !r.Applied {
		l.t.Fatalf("Reload: %+v, %v", r, err)
	}
	l.settle()
	return r
}

func (l *lab) expectCalls(when, want string) {
	l.t.Helper()
	if got := l.sp.asked(); got != want {
		l.t.Errorf("%s: asked of the speaker: %q, want %q", when, got, want)
	}
}

var third = addr("10.1.0.6")

func thirdPeer() config.Peer {
	return config.Peer{Name: "third", Address: third, ASN: nvaASN, Port: 179, HoldTime: 180 * time.Second, Keepalive: 60 * time.Second}
}

// S6, S23: a peer that comes or goes concerns no other session and no other route.
func TestReloadPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		alone := prefix("192.0.2.0/24")
		l.announce(quagga, seed)
		l.announce(bird, seed, alone)
		l.expect("before", seed, "10.1.0.4", "10.1.0.5")

		r := l.reload(func(c *config.Config) { c.Peers = append(c.Peers, thirdPeer()) })
		l.expectCalls("added", "add 10.1.0.6")
		if want := "peer third added: 10.1.0.6, AS 65147\nsessions reset: none"; r.Plan != want {
			t.Errorf("plan %q, want %q", r.Plan, want)
		}
		l.up(third)
		l.announce(third, seed)
		l.expect("added", seed, "10.1.0.4", "10.1.0.5", "10.1.0.6")

		// The fake leaves the paths: what the agent drops, it drops itself.
		r = l.reload(func(c *config.Config) { c.Peers = []config.Peer{c.Peers[2], c.Peers[0]} })
		l.expectCalls("removed", "remove 10.1.0.5")
		if !strings.HasPrefix(r.Plan, "peer bird removed") {
			t.Errorf("plan %q", r.Plan)
		}
		l.expect("removed", seed, "10.1.0.4", "10.1.0.6")
		l.expect("removed", alone)
		var names []string
		for _, p := range l.a.Peers() {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, []string{"third", "quagga"}) {
			t.Errorf("peers are %q, want those of the file in its order", names)
		}
		l.announce(bird, alone) // a late word of one that is gone
		l.idle(bird)
		l.settle()
		l.expect("late word", alone)
		l.consistent()

		// It comes back as somebody new.
		l.reload(func(c *config.Config) { c.Peers = append(c.Peers, testConfig().Peers[1]) })
		l.up(bird)
		l.announce(bird, alone)
		l.expect("back", alone, "10.1.0.5")
		l.consistent()
	})
}

// A name changes no session; the views show it.
func TestReloadName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, seed)
		l.reload(func(c *config.Config) { c.Peers[0].Name = "vyos" })
		l.expectCalls("named", "update 10.1.0.4")
		if rows := l.learnedOf(quagga); len(rows) != 1 || rows[0].Peer != "vyos" {
			t.Errorf("learned: %+v", rows)
		}
		l.expect("named", seed, "10.1.0.4")
	})
}

// S18, S28: VNet prefixes and exceptions count at once, for all that is known.
func TestReloadVNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		inside := prefix("10.1.9.0/24")
		l.announce(quagga, seed, inside)
		l.expect("before", inside)
		l.reload(func(c *config.Config) { c.VNet.AllowInside = []netip.Prefix{inside} })
		l.expectCalls("allowed", "")
		l.expect("allowed", inside, "10.1.0.4")
		l.reload(func(c *config.Config) { c.VNet.Prefixes = append(c.VNet.Prefixes, prefix("192.168.0.0/16")) })
		l.expectCalls("announced", "vnet [10.1.0.0/16 fd00:1::/64 192.168.0.0/16]")
		l.expect("now inside", seed)
		l.expect("still allowed", inside, "10.1.0.4")
		l.reload(func(c *config.Config) { c.VNet.Prefixes = c.VNet.Prefixes[:2] })
		l.expect("outside again", seed, "10.1.0.4")
		l.consistent()
	})
}

// S29 toggles without a reset; log level and timers count at once; the rest waits, and
// status says so until the file has the old values again.
func TestReloadSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		level := slog.LevelInfo
		l.a.opts.SetLogLevel = func(n slog.Level) { level = n }
		ended := 0
		l.a.opts.Reloading = func() func() { return func() { ended++ } }
		asn := l.a.config().ASN
		r := l.reload(func(c *config.Config) {
			c.BranchToBranch, c.Log.Level, c.FIB.OnStop = true, slog.LevelDebug, config.OnStopFlush
			c.ASN, c.FIB.Metric = 65001, 7
		})
		l.expectCalls("settings", "branch-to-branch true")
		if level != slog.LevelDebug || l.a.OnStop() != config.OnStopFlush || ended != 1 {
			t.Errorf("level %v, on-stop %v, %d reloads ended", level, l.a.OnStop(), ended)
		}
		if !slices.Equal(r.NeedsRestart, []string{"asn", "fib.metric"}) || l.a.config().ASN != asn || l.a.config().FIB.Metric != 20 {
			t.Errorf("needs a restart: %q, ASN %d, metric %d", r.NeedsRestart, l.a.config().ASN, l.a.config().FIB.Metric)
		}
		if got := l.problems(); !strings.Contains(got, "in force only after a restart: asn, fib.metric") {
			t.Errorf("status says %q", got)
		}
		if got := l.log.lines("event=config-applied", "asn, fib.metric"); len(got) != 1 {
			t.Errorf("%d records, want 1: %q", len(got), got)
		}
		l.reload(nil)
		if got := l.problems(); strings.Contains(got, "restart") {
			t.Errorf("status says %q", got)
		}
	})
}

func (l *lab) problems() string {
	l.t.Helper()
	s, err := l.a.Status(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	return text(s.Degraded)
}

// A bad file changes nothing; a dry run neither.
func TestReloadRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		before := l.a.config()
		l.file(func(c *config.Config) { c.Peers = c.Peers[:1] })
		l.sp.asked()
		r, err := l.a.Reload(t.Context(), true)
		if err != nil || r.Applied || !strings.HasPrefix(r.Plan, "peer bird removed") {
			t.Errorf("dry run: %+v, %v", r, err)
		}
		bad := config.Errors{{File: "f", Line: 3, Col: 1, Msg: "wrong"}, {File: "f", Line: 4, Col: 1, Msg: "too"}}
		l.a.opts.Load = func() (*config.Config, error) { return nil, bad }
		if _, err := l.a.Reload(t.Context(), false); !errors.As(err, &bad) {
			t.Errorf("bad file: %v", err)
		}
		l.expectCalls("refused", "")
		if l.a.config() != before {
			t.Error("the configuration in force has changed")
		}
		if got := l.log.lines("event=config-refused", "f:3:1"); len(got) != 1 {
			t.Errorf("%d records, want 1: %q", len(got), got)
		}
	})
}

// What the speaker refuses is not in force, the rest is, and the next reload tries again.
func TestReloadInPart(t *testing.T) {
	for _, refuse := range []string{"add 10.1.0.6", "remove 10.1.0.5", "update 10.1.0.4", "vnet [10.9.0.0/16]", "branch-to-branch true"} {
		bubble(t, refuse, func(t *testing.T) {
			l := newLab(t, nil)
			l.file(func(c *config.Config) {
				c.Peers = []config.Peer{c.Peers[0], thirdPeer()}
				c.Peers[0].HoldTime = 9 * time.Second
				c.VNet.Prefixes = []netip.Prefix{prefix("10.9.0.0/16")}
				c.BranchToBranch = true
			})
			l.sp.refuse = refuse
			l.sp.asked()
			if r, err := l.a.Reload(t.Context(), false); err == nil || r.Applied {
				t.Fatalf("Reload: %+v, %v", r, err)
			}
			l.expectCalls("first", "remove 10.1.0.5, vnet [10.9.0.0/16], branch-to-branch true, update 10.1.0.4, add 10.1.0.6")
			l.sp.refuse = ""
			if r, err := l.a.Reload(t.Context(), false); err != nil || !r.Applied {
				t.Fatalf("Reload: %+v, %v", r, err)
			}
			l.expectCalls("again", refuse)
			if r, err := l.a.Reload(t.Context(), false); err != nil || r.Changed {
				t.Errorf("a third time: %+v, %v", r, err)
			}
		})
	}
}
