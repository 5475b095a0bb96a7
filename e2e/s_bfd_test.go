package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
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
			by       int // so that no machine is slow enough for a false alarm; make bench takes 3
			direct   bool
		}{
			{"300 ms", 300 * time.Millisecond, 5, true},
			{"50 ms, multihop", 50 * time.Millisecond, 20, false},
		} {
			t.Run("S24/"+kind.name+"/"+c.name, func(t *testing.T) {
				kind.require(t)
				mode := "multihop"
				if c.direct {
					mode = "auto"
				}
				b := newBed(t, 2, hostConfig+nvaPeers(2, fmt.Sprintf("bfd: {enabled: true, interval: %s, multiplier: %d, mode: %s}", c.interval, c.by, mode)))
				for i := range 2 {
					r := b.router4(i, append(prefixes(nva.IPv4, 500), lab.SeedBranch)...)
					r.direct, r.bfd, r.bfdBy = c.direct, c.interval, c.by
					kind.start(t, r)
				}
				b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
				for _, name := range []string{"nva1", "nva2"} {
					s := b.bfdSession(t, name, func(s status.BFDSession) error {
						if s.State != "up" || s.Polling || s.DetectionTime != (time.Duration(c.by)*c.interval).Seconds() {
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
				if most := 30 * time.Second; r.Lost() == 0 || lost > most { // a sixth of the hold time
					t.Errorf("%d packets lost, the last after %s; want some, and none after %s", r.Lost(), lost, most)
				}
				p := b.session(t, "nva1", "Idle")
				if p.LastDown != "BFD: control detection time expired" || p.BFD != "down" {
					t.Errorf("nexthopctl peers: %+v", p)
				}
				b.failedOver(t, "bfd 10.1.0.4", 501)
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

// RFC 5882, with FRR and BIRD: what is no failure moves nothing, and what is one tells the
// peer why. The sessions run over either family.
func TestBFDAndBGP(t *testing.T) {
	requireFRR(t)
	requireBIRD(t)
	config := func(more string) string {
		return hostConfig + "peers:\n" + peer("nva1", lab.SeedNVA(0), lab.SeedASN, "bfd: {enabled: true, "+more+"}") +
			peer("nva2", lab.SeedNVA6(1), lab.SeedASN, "bfd: {enabled: true, multiplier: 10}")
	}
	b := newBed(t, 2, config("interval: 300ms, multiplier: 10"))
	r := b.router4(0, lab.SeedBranch)
	r.direct, r.bfd, r.bfdBy = true, 300*time.Millisecond, 10
	frr := r.startFRR(t)
	r = b.router6(1, lab.SeedBranch)
	r.direct, r.bfd, r.bfdBy = true, 300*time.Millisecond, 10
	r.startBIRD(t)
	both := []netip.Addr{lab.SeedNVA(0), lab.SeedNVA(1)}
	b.bfdSession(t, "nva1", bfdIs("up"))
	b.bfdSession(t, "nva2", bfdIs("up"))
	b.route(t, lab.SeedBranch, both...)
	tr := b.flows(t, lab.TrafficConfig{Flows: 16, Rate: 200})
	lossless := func(t *testing.T, since time.Time) {
		t.Helper()
		b.steady(t, tr, 300)
		if r := tr.Report(since); r.Lost() > 0 {
			t.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
		}
	}

	t.Run("reload", func(t *testing.T) {
		since, changes := time.Now(), b.bfdSession(t, "nva1", bfdIs("up")).Changes
		must(t, b.d.SetConfig(config("interval: 500ms, multiplier: 11")))
		b.cli(t, "reload")
		s := b.bfdSession(t, "nva1", func(s status.BFDSession) error {
			if s.Polling || s.TXInterval != 0.5 || s.RXInterval != 0.5 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if s.Changes != changes || s.State != "up" {
			t.Errorf("the session did not stay up: %+v", s)
		}
		lossless(t, since)
		if p := b.peerStatus(t, "nva1"); p.Flaps != 0 {
			t.Errorf("the BGP session suffered: %+v", p)
		}
	})
	t.Run("our restart", func(t *testing.T) {
		since := time.Now()
		must(t, b.d.Restart(within(t)))
		b.up(t, "nva1", "nva2")
		b.bfdSession(t, "nva1", bfdIs("up"))
		b.bfdSession(t, "nva2", bfdIs("up"))
		b.route(t, lab.SeedBranch, both...)
		lossless(t, since)
	})
	t.Run("our crash", func(t *testing.T) {
		since := time.Now()
		must(t, b.d.Kill())
		// Its worker says AdminDown. FRR keeps what it learned from us all the same.
		poll(t, "FRR to see the end of BFD", func() error {
			if out, err := frr.BFD(within(t), "show bfd peers json"); err != nil || strings.Contains(out, `"status":"up"`) {
				return fmt.Errorf("%s, %v", out, err)
			}
			return nil
		})
		frrPaths(t, frr, lab.SeedVNet, frrPath("65515", lab.SeedHost.String()))
		must(t, b.d.Launch(within(t)))
		b.up(t, "nva1", "nva2")
		b.bfdSession(t, "nva1", bfdIs("up"))
		b.route(t, lab.SeedBranch, both...)
		lossless(t, since)
	})
	t.Run("BFD is switched off here", func(t *testing.T) {
		since := time.Now()
		// Of one of the two: it ends its BGP session, see below.
		must(t, b.d.SetConfig(strings.Replace(config("interval: 300ms, multiplier: 10"), "bfd: {enabled: true, multiplier: 10}", "bfd: false", 1)))
		b.cli(t, "reload")
		b.bfdGone(t, "nva2")
		// FRR 8.4 and BIRD 2.0 end their BGP session at AdminDown, whatever RFC 5882 says.
		b.up(t, "nva2")
		must(t, b.d.SetConfig(config("interval: 300ms, multiplier: 10")))
		b.cli(t, "reload")
		b.bfdSession(t, "nva2", bfdIs("up"))
		b.route(t, lab.SeedBranch, both...)
		lossless(t, since)
		if log := b.d.Proc.Log(); strings.Contains(log, "bfd-down") {
			t.Error("it was taken for a failure")
		}
	})
	t.Run("the peer's BFD dies alone", func(t *testing.T) {
		must(t, frr.BFDD.Kill())
		b.route(t, lab.SeedBranch, lab.SeedNVA(1))
		poll(t, "FRR to know why", func() error {
			if n, text := frrNeighbor(t, frr, lab.SeedHost); !strings.Contains(text, "BFD Down") && !strings.Contains(text, "Hard Reset") {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
		_, text := frrNeighbor(t, frr, lab.SeedHost)
		t.Logf("FRR says: %s", regexp.MustCompile(`"last(Notif|Reset)[^,]*`).FindAllString(text, -1))
		// FRR does not speak BFD any more: what its BGP session says counts again.
		b.route(t, lab.SeedBranch, both...)
		if s := b.bfdSession(t, "nva1", bfdIs("down")); s.Failed {
			t.Errorf("%+v", s)
		}
		b.steady(t, tr, 300)
	})
}

// bfdGone waits until there is no BFD session with the peer.
func (b *bed) bfdGone(t *testing.T, peer string) {
	t.Helper()
	poll(t, "the end of BFD with "+peer, func() error {
		if out := b.cli(t, "bfd"); strings.Contains(out, peer) {
			return errors.New(out)
		}
		return nil
	})
}

// bfd.strict: a BGP session waits for BFD, and is not up a moment before.
func TestBFDStrict(t *testing.T) {
	requireFRR(t)
	b := newBed(t, 1, hostConfig+nvaPeers(1, "bfd: {enabled: true, strict: true}"))
	r := b.router4(0, lab.SeedBranch)
	r.direct = true
	withBFD := r
	withBFD.bfd, withBFD.bfdBy = 300*time.Millisecond, 3
	f := value(lab.StartFRR(within(t), r.node, lab.FRRConfig{BGPD: r.frr(), Zebra: "log stdout\n", BFDD: "log stdout\n"}))(t)
	since := time.Now()
	for time.Since(since) < 5*time.Second { // FRR tries every second
		if p := b.peerStatus(t, "nva1"); p.State == "Established" || p.Shutdown {
			t.Fatalf("without BFD: %+v", p)
		}
		time.Sleep(100 * time.Millisecond)
	}
	value(f.Vtysh(within(t), "configure terminal", fmt.Sprintf("router bgp %d", lab.SeedASN), "neighbor 10.1.2.4 bfd"))(t)
	b.bfdSession(t, "nva1", bfdIs("up"))
	b.up(t, "nva1")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	must(t, f.BFDD.Kill())
	b.route(t, lab.SeedBranch)
	b.bfdSession(t, "nva1", bfdIs("down"))
	b.session(t, "nva1", "Idle")
}

// S11: a next hop that is no peer falls silent, and all that leads to it moves.
func TestBFDNextHops(t *testing.T) {
	requireBIRD(t)
	lb := netip.MustParseAddr("10.1.0.100")
	b := newBed(t, 2, hostConfig+nvaPeers(2)+"fib: {bfd-next-hops: {addresses: [10.1.0.100], interval: 100ms}}\n")
	must(t, b.NVAVNet[0].AddAddr("10.1.0.100/16"))
	// A load balancer: it has BFD, and no BGP.
	value(lab.StartBIRD(within(t), b.NVAs[0], `router id 10.1.0.100;
protocol device {}
protocol bfd { interface "eth0" { interval 100 ms; multiplier 3; }; neighbor 10.1.2.4 dev "eth0" local 10.1.0.100; }
`))(t)
	s := b.nvas(t, 2)
	announce(t, s[1], attrs(lb, lab.SeedASN), lab.SeedBranch)
	announce(t, s[1], attrs(lb, lab.SeedASN), prefixes(nva.IPv4, 100)...)
	announce(t, s[0], attrs(lab.SeedNVA(1), lab.SeedASN, lab.SeedASN), lab.SeedBranch)
	b.bfdSession(t, "10.1.0.100", bfdIs("up"))
	b.route(t, lab.SeedBranch, lb)
	must(t, b.NVAVNet[0].Cut())
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	b.route(t, prefixes(nva.IPv4, 100)[99])
	if _, text := b.explain(t, prefixes(nva.IPv4, 100)[0].String()); !strings.Contains(text, "BFD says that the path to next hop 10.1.0.100 is dead: control detection time expired") {
		t.Errorf("explain:\n%s", text)
	}
	must(t, b.NVAVNet[0].Mend())
	b.route(t, lab.SeedBranch, lb)
}

// RFC 5882 section 4.3: an appliance restarts gracefully, and its BFD goes down with its
// BGP, or (FRR's, whose daemons are several) is taken down because of it. No packet is lost.
func TestBFDWhileAnNVARestarts(t *testing.T) {
	for _, kind := range restarters {
		t.Run(kind.name, func(t *testing.T) {
			b := newBed(t, 1, hostConfig+"peers:\n"+peer("nva", lab.SeedNVA(0), lab.SeedASN, "bfd: {enabled: true, interval: 300ms, multiplier: 10}"))
			r := b.router4(0, lab.SeedBranch)
			r.direct, r.bfd, r.bfdBy = true, 300*time.Millisecond, 10
			nva := kind.start(t, r)
			b.bfdSession(t, "nva", bfdIs("up"))
			b.route(t, lab.SeedBranch, lab.SeedNVA(0))
			tr := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
			since := time.Now()
			lossless := func() {
				t.Helper()
				if rep := tr.Report(since); rep.Lost() > 0 {
					t.Errorf("%d of %d packets lost, interruption %s", rep.Lost(), rep.Sent(), rep.Interruption())
				}
			}
			nva.restart(t, func() {
				b.bfdSession(t, "nva", func(s status.BFDSession) error {
					if s.State == "up" || s.Failed {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
				b.steady(t, tr, 500) // on stale routes, and with BFD down
				lossless()
				if p := b.peerStatus(t, "nva"); !p.Restarting {
					t.Errorf("%+v", p)
				}
			}, lab.SeedBranch)
			b.up(t, "nva")
			b.bfdSession(t, "nva", bfdIs("up"))
			b.steady(t, tr, 500)
			// FRR 8.4 makes its BFD session anew when its BGP session is back, takes the end of
			// the old one for a failure, and ends BGP.
			if kind.name != "FRR" {
				lossless()
			}
			if t.Failed() {
				t.Log(nva.log(), b.d.Proc.Log())
			}
		})
	}
}

// S24: with 100,000 prefixes silence costs the same. The other ends of BFD are daemons of
// ours that do nothing else.
func TestS24_SilentDeathOfABigTable(t *testing.T) {
	const n = 100_000
	b := newSeed(t, 2)
	must(t, b.Host.Sysctl("net.ipv4.nexthop_compat_mode=0"))
	b.start(t, hostConfig+"branch-to-branch: false\n"+nvaPeers(2, "bfd: {enabled: true, multiplier: 10}"))
	for i := range 2 {
		value(lab.StartDaemon(within(t), b.NVAs[i], fmt.Sprintf(
			"router-id: %s\nlisten: 127.0.0.1:1179\nfib: {mode: observe, bfd-next-hops: {addresses: [%s], multiplier: 10}}\n", lab.SeedNVA(i), lab.SeedHost)))(t)
	}
	s := b.nvas(t, 2)
	table := append(prefixes(nva.IPv4, n-1), lab.SeedBranch)
	for i := range s {
		must(t, s[i].Write(s[i].Encode(table, attrs(lab.SeedNVA(i), lab.SeedASN))))
		must(t, s[i].EndOfRIB(nva.IPv4))
		b.bfdSession(t, fmt.Sprintf("nva%d", i+1), bfdIs("up"))
	}
	poll(t, "all routes", func() error {
		st, err := b.d.Status(within(t))
		if err == nil && st.FIB.Installed != n {
			err = fmt.Errorf("%d installed", st.FIB.Installed)
		}
		return err
	})
	b.route(t, table[0], lab.SeedNVA(0), lab.SeedNVA(1))
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	b.quiet(t)
	tr := b.flows(t, lab.TrafficConfig{Flows: 16, Rate: 200})
	since := time.Now()
	must(t, b.NVAVNet[0].Cut())
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	b.route(t, table[0], lab.SeedNVA(1))
	b.steady(t, tr, 300)
	lost := tr.Report(since).LastLost.Sub(since)
	t.Logf("the last packet was lost %s after the cut", lost.Round(time.Millisecond))
	if lost > 30*time.Second || lost <= 0 {
		t.Errorf("the last packet was lost %s after the cut, want at most 30 s", lost)
	}
	b.failedOver(t, "bfd 10.1.0.4", n)
}
