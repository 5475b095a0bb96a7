package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// groupTexts are the groups of an overview: prefixes, installed, and each way.
func groupTexts(o status.Overview) []string {
	var out []string
	for _, g := range o.Groups {
		text := fmt.Sprintf("%d/%d", g.Installed, g.Prefixes)
		for _, w := range g.Ways {
			text += strings.TrimRight(fmt.Sprintf(" %s %s %s", w.Peer, w.Use, w.Why), " ")
		}
		out = append(out, text)
	}
	return out
}

func TestOverview(t *testing.T) {
	expect := func(l *lab, when string, single int, want ...string) status.Overview {
		l.t.Helper()
		o := l.a.Overview()
		if got := groupTexts(o); !slices.Equal(got, want) || o.FIB.Single != single {
			l.t.Errorf("%s: groups %q and %d prefixes without a spare, want %q and %d", when, got, o.FIB.Single, want, single)
		}
		return o
	}
	bubble(t, "groups", func(t *testing.T) {
		l := newLab(t, nil)
		expect(l, "before", 0)
		l.up(quagga, bird)
		l.announce(quagga, many(5)...)
		l.announce(bird, many(5)...)
		l.announceWith(bird, attrs(addr("172.16.0.1"), 1), prefix("192.0.2.0/24"))
		l.settle()
		o := expect(l, "both are up", 0, "0/1 bird dead next-hop-unreachable", "5/5 quagga in use bird in use")
		l.withdraw(bird, prefix("192.0.2.0/24"))
		if len(o.PeerList) != 2 || len(o.VNet) != 2 || o.Peers.Established != 2 || o.RouterID != addr("10.1.2.4") || !o.Ready || len(o.Failovers) != 0 {
			t.Errorf("overview: %s", text(o))
		}
		l.down(bird)
		l.settle()
		o = expect(l, "one is lost", 5, "5/5 quagga in use")
		if len(o.Failovers) != 1 || o.Failovers[0].Prefixes != 5 || o.LastFailover == nil {
			t.Errorf("overview: %s", text(o))
		}
	})
	bubble(t, "observing", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Mode = config.ModeObserve })
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.settle()
		expect(l, "nothing is written", 1, "0/1 quagga in use")
	})
	// A page and a scrape come, and say how old they are, however busy the loop is.
	bubble(t, "busy", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.settle()
		before := l.a.FIB().At
		time.Sleep(time.Minute)
		busy := make(chan struct{})
		go func() { _ = l.a.do(t.Context(), func() { close(busy); time.Sleep(time.Hour) }) }()
		<-busy
		asked := time.Now()
		o := l.a.Overview()
		last := o.Degraded[len(o.Degraded)-1].What
		if len(o.PeerList) != 2 || o.FIB.Prefixes != 1 || len(o.Groups) != 0 || !strings.Contains(last, "has not answered for a second") {
			t.Errorf("overview: %s", text(o))
		}
		f := l.a.FIB()
		if took := time.Since(asked); took > 3*time.Second {
			t.Errorf("both took %s", took)
		}
		if f.At.Before(before) || time.Since(f.At) < time.Minute {
			t.Errorf("gauges read at %s, after %s, want them to be as old as they are", f.At, before)
		}
	})
}
