package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// bfdSession waits until the BFD session with a peer is as ok wants it.
func (b *bed) bfdSession(t *testing.T, peer string, ok func(status.BFDSession) error) (s status.BFDSession) {
	t.Helper()
	poll(t, "BFD with "+peer, func() error {
		var all status.BFD
		must(t, json.Unmarshal([]byte(b.cli(t, "bfd", "-o", "json")), &all))
		i := slices.IndexFunc(all.Sessions, func(s status.BFDSession) bool { return s.Peer == peer || s.Address.String() == peer })
		if i < 0 {
			return fmt.Errorf("not in %+v", all)
		}
		s = all.Sessions[i]
		return ok(s)
	})
	return s
}

// bfdIs is for bfdSession.
func bfdIs(state string) func(status.BFDSession) error {
	return func(s status.BFDSession) error {
		if s.State != state {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}
}

// nvaKind is a daemon that an appliance runs.
type nvaKind struct {
	name    string
	require func(*testing.T)
	start   func(*testing.T, router) (kill func() error)
}

var nvaKinds = []nvaKind{
	{"FRR", requireFRR, func(t *testing.T, r router) func() error { return r.startFRR(t).Kill }},
	{"BIRD", requireBIRD, func(t *testing.T, r router) func() error { return r.startBIRD(t).Proc.Kill }},
}

// S24, S37: an appliance dies without a word and with its link up. BFD notices, and all
// its traffic moves at once; the session ends, and everybody can see why.
func TestS24_SilentDeathWithBFD(t *testing.T) {
	for _, kind := range nvaKinds {
		for _, c := range []struct {
			name     string
			interval time.Duration
			direct   bool
			most     time.Duration // of loss; what is expected is a fraction of it
		}{
			{"3 x 300 ms", 300 * time.Millisecond, true, 3 * time.Second},
			{"3 x 50 ms, multihop", 50 * time.Millisecond, false, 2 * time.Second},
		} {
			t.Run("S24/"+kind.name+"/"+c.name, func(t *testing.T) {
				kind.require(t)
				mode := "multihop"
				if c.direct {
					mode = "auto"
				}
				b := newBed(t, 2, hostConfig+nvaPeers(2, fmt.Sprintf("bfd: {enabled: true, interval: %s, mode: %s}", c.interval, mode)))
				for i := range 2 {
					r := b.router4(i, append(prefixes(nva.IPv4, 500), lab.SeedBranch)...)
					r.direct, r.bfd, r.bfdBy = c.direct, c.interval, 3
					kind.start(t, r)
				}
				b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
				for _, name := range []string{"nva1", "nva2"} {
					s := b.bfdSession(t, name, func(s status.BFDSession) error {
						if s.State != "up" || s.Polling || s.DetectionTime != (3*c.interval).Seconds() {
							return fmt.Errorf("%+v", s)
						}
						return nil
					})
					if want := map[bool]string{true: "single-hop", false: "multihop"}[c.direct]; s.Mode != want {
						t.Errorf("mode %s, want %s", s.Mode, want)
					}
				}
				b.quiet(t)
				tr := b.flows(t, lab.TrafficConfig{Flows: 16, Rate: 200})
				since := time.Now()
				must(t, b.NVAVNet[0].Cut())
				b.route(t, lab.SeedBranch, lab.SeedNVA(1))
				b.steady(t, tr, 300)
				r := tr.Report(since)
				lost := r.LastLost.Sub(since)
				t.Logf("the last packet was lost %s after the cut", lost.Round(time.Millisecond))
				if r.Lost() == 0 || lost > c.most {
					t.Errorf("%d packets lost, the last after %s; want some, and none after %s", r.Lost(), lost, c.most)
				}
				p := b.session(t, "nva1", "Idle")
				if p.LastDown != "BFD: control detection time expired" || p.BFD != "down" {
					t.Errorf("nexthopctl peers: %+v", p)
				}
				last := value(b.d.Status(within(t)))(t).LastFailover
				if last == nil || last.Signal != "bfd 10.1.0.4" || last.Prefixes != 501 {
					t.Errorf("nexthopctl status: last failover %+v", last)
				}
				out, _, exit, err := b.d.CLI(within(t), "status")
				if want := "BFD with peer nva1 (10.1.0.4) is down: control detection time expired"; exit != 4 || err != nil || !strings.Contains(out, want) {
					t.Errorf("nexthopctl status: exit %d, %v, want %q:\n%s", exit, err, want, out)
				}
				if log := b.d.Proc.Log(); !strings.Contains(log, "bfd-down") || strings.Count(log, "bfd-up") < 2 {
					t.Errorf("the log lacks records of BFD")
				}
				must(t, b.NVAVNet[0].Mend())
				b.up(t, "nva1")
				b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
				b.bfdSession(t, "nva1", bfdIs("up"))
			})
		}
	}
}
