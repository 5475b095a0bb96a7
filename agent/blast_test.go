package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// A reload that would remove most routes changes nothing until an operator is sure, and
// what a peer withdraws is removed without a question.
func TestBlastRadius(t *testing.T) {
	start := func(t *testing.T) *lab {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			c.FIB.BlastRadius = config.BlastRadius{Share: 50, Min: 100}
		})
		l.up(quagga, bird)
		l.announce(quagga, many(120)...)
		l.announce(bird, append(many(20), seed)...)
		l.settle()
		return l
	}
	installed := func(l *lab) int { return l.a.FIB().Installed }
	held := func(l *lab, change func(*config.Config)) {
		l.t.Helper()
		l.file(change)
		l.sp.asked()
		if r, err := l.a.Reload(l.t.Context(), true); err != nil || !r.Held || r.Applied {
			l.t.Errorf("dry run: %+v, %v", r, err)
		}
		if r, err := l.a.Reload(l.t.Context(), false); err == nil || r.Applied || !strings.Contains(err.Error(), "would remove 1") {
			l.t.Errorf("Reload = %+v, %v, want it held back", r, err)
		}
		l.settle()
		l.expectCalls("held back", "")
		s, err := l.a.Status(l.t.Context())
		if err != nil || installed(l) != 121 || s.FIB.Held < 100 || len(s.Degraded) == 0 || s.Degraded[0].Next != "nexthopctl resume" {
			l.t.Errorf("installed %d, status %+v, %v", installed(l), s, err)
		}
		if len(l.log.lines("event=blast-radius", "installed=121")) != 1 {
			l.t.Error("the journal does not tell of it")
		}
	}
	for name, change := range map[string]func(*config.Config){
		"peer removed":   func(c *config.Config) { c.Peers = c.Peers[1:] },
		"peer shut down": func(c *config.Config) { c.Peers[0].Shutdown = true },
		"session reset":  func(c *config.Config) { c.Peers[0].HoldTime = 90 * time.Second },
		"VNet":           func(c *config.Config) { c.VNet.Prefixes = append(c.VNet.Prefixes, prefix("20.0.0.0/9")) },
		"filter":         func(c *config.Config) { c.Peers[0].Import = &policy.Filter{Default: policy.Reject} },
		"guard":          func(c *config.Config) { c.Peers[0].Guards.IPv4 = config.Lengths{Min: 8, Max: 16} },
		"limit, freeze": func(c *config.Config) {
			c.Peers[0].PrefixLimit = config.PrefixLimit{Max: 5, Action: config.LimitFreeze}
		},
		"limit, close": func(c *config.Config) {
			c.Peers[0].PrefixLimit = config.PrefixLimit{Max: 119, Action: config.LimitClose}
		},
		"total": func(c *config.Config) { c.PrefixLimitTotal = 20 },
	} {
		bubble(t, name, func(t *testing.T) {
			l := start(t)
			if name == "VNet" { // takes a prefix from both peers
				l.withdraw(bird, many(20)...)
				l.file(change)
				if r, err := l.a.Reload(t.Context(), false); err == nil || r.Applied || r.Removes != 120 {
					t.Errorf("Reload = %+v, %v", r, err)
				}
				return
			}
			removes := "100 of 121"
			switch name {
			case "total": // who came first has the places
				removes = "101 of 121"
			}
			held(l, change)
			x, err := l.a.explain(t.Context(), many(120)[119].String())
			if err != nil || !strings.Contains(x.Held, removes) || !strings.Contains(x.Held, "nexthopctl resume") {
				t.Errorf("explain of a route that would go: %q, %v", x.Held, err)
			}
			if x, err = l.a.explain(t.Context(), many(120)[0].String()); err != nil || x.Held != "" {
				t.Errorf("explain of a route that stays: %q, %v", x.Held, err)
			}
			if d, err := l.a.Resume(t.Context(), false); err != nil || !strings.Contains(d.Done, removes) || d.Next != "nexthopctl resume --yes" {
				t.Errorf("Resume = %+v, %v", d, err)
			}
			if d, err := l.a.Resume(t.Context(), true); err != nil || !strings.HasPrefix(d.Done, "applied") {
				t.Errorf("Resume = %+v, %v", d, err)
			}
			if got := l.sp.asked(); got == "" && name != "guard" && name != "filter" && name != "total" {
				t.Error("the speaker was asked nothing")
			}
			if x, err = l.a.explain(t.Context(), many(120)[119].String()); err != nil || x.Held != "" {
				t.Errorf("explain, once it is applied: %q, %v", x.Held, err)
			}
			l.expectPost(status.PathResume, `{"yes":true}`, 409)
		})
	}
	bubble(t, "taken back", func(t *testing.T) {
		l := start(t)
		held(l, func(c *config.Config) { c.Peers = nil })
		l.reload(nil)
		if l.a.FIB().Held != 0 {
			t.Error("it is held back still")
		}
		l.reload(func(c *config.Config) { c.Peers = c.Peers[:1] }) // 1 of 121 goes
		l.settle()
	})
	bubble(t, "the peer's own doing", func(t *testing.T) {
		l := start(t)
		l.withdraw(quagga, many(120)...)
		l.settle()
		if n := installed(l); n != 21 {
			t.Errorf("%d routes are left, want 21", n)
		}
		l.withdraw(bird, append(many(20), netip.Prefix(seed))...)
		l.settle()
		l.consistent()
	})
}
