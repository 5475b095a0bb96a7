package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
)

// RFC 9494: an NVA whose BGP does not come back in time keeps the traffic that nobody else
// takes, hands over the rest, and has all of it again when it is back, without any loss.
func TestLongLivedGracefulRestart(t *testing.T) {
	t.Run("BIRD", func(t *testing.T) {
		testLongLived(t, func(t *testing.T, r router) restarter {
			r.session = []string{"graceful restart on", "graceful restart time 3", "long lived graceful restart on", "long lived stale time 3600"}
			return startBIRD(t, r)
		})
	})
	t.Run("FRR", func(t *testing.T) {
		testLongLived(t, func(t *testing.T, r router) restarter {
			r.global = []string{"bgp graceful-restart", "bgp graceful-restart preserve-fw-state", "bgp graceful-restart restart-time 3",
				"bgp long-lived-graceful-restart stale-time 3600"}
			return startFRR(t, r)
		})
	})
}

func testLongLived(t *testing.T, start func(*testing.T, router) restarter) {
	const gr = "graceful-restart: {long-lived: 10m}"
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("nva", lab.SeedNVA(0), lab.SeedASN, gr)+peer("other", lab.SeedNVA(1), 65003, gr))
	r := start(t, b.router4(0, lab.SeedBranch, lab.SeedBranch6))
	// It has no such capability, and a longer AS path.
	options := nva4(1)
	options.ASN = 65003
	announce(t, b.dial(t, b.NVAs[1], options), attrs(lab.SeedNVA(1), 65003, 65003, 65003), lab.SeedBranch)
	b.up(t, "nva", "other")
	whole := func() {
		t.Helper()
		b.route(t, lab.SeedBranch, lab.SeedNVA(0))
		b.route(t, lab.SeedBranch6, lab.SeedNVA6(0))
	}
	whole()
	told := func(want bool) {
		t.Helper()
		poll(t, fmt.Sprintf("announced to the other NVA: %t", want), func() error {
			if out := b.cli(t, "advertised", "other"); strings.Contains(out, lab.SeedBranch6.String()) != want {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	told(true)
	t4 := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
	t6 := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300, Dst: lab.SeedServer6})
	since := time.Now()
	r.restart(t, func() {
		poll(t, "long-lived stale paths", func() error {
			if p := b.peerStatus(t, "nva"); p.LongLivedStale < 2 || p.LongLivedUntil == nil || time.Until(*p.LongLivedUntil) > 10*time.Minute {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		b.route(t, lab.SeedBranch, lab.SeedNVA(1))
		b.route(t, lab.SeedBranch6, lab.SeedNVA6(0))
		told(false)
		b.learned(t, "nva", lab.SeedBranch, reason("long-lived-stale"))
		b.learned(t, "nva", lab.SeedBranch6, func(p status.Path) error {
			if !p.LongLivedStale || !p.Installed {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		for _, args := range [][]string{{"peers"}, {"explain", lab.SeedBranch6.String()}, {"learned", "nva", "-o", "wide"}} {
			if out := b.cli(t, args...); !strings.Contains(strings.ReplaceAll(out, "-", " "), "long lived stale") {
				t.Errorf("nexthopctl %s:\n%s", strings.Join(args, " "), out)
			}
		}
		b.steady(t, t4, 300)
		b.steady(t, t6, 300)
	}, lab.SeedBranch, lab.SeedBranch6)
	whole()
	told(true)
	b.logged(t, "long-lived-start")
	b.logged(t, "long-lived-end", `"back":true`)
	for name, tr := range map[string]*lab.Traffic{"IPv4": t4, "IPv6": t6} {
		b.steady(t, tr, 300)
		if rep := tr.Report(since); rep.Lost() > 0 {
			t.Errorf("%s: %d of %d packets lost, interruption %s", name, rep.Lost(), rep.Sent(), rep.Interruption())
		}
	}
	if t.Failed() {
		t.Log(r.log())
	}
}
