package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// restarter is an NVA whose BGP daemon can be killed and started again, as an upgrade does.
type restarter struct {
	// restart kills it, runs meanwhile, and starts it announcing these prefixes.
	restart func(t *testing.T, meanwhile func(), announced ...netip.Prefix)
	log     func() string
}

type appliance struct {
	name  string
	start func(*testing.T, router) restarter
}

// restarters are the appliances that go on forwarding while their daemon restarts.
var restarters = []appliance{{"FRR", startRestartingFRR}, {"BIRD", startRestartingBIRD}}

// helpers are the appliances that keep our announcements while we restart: also as they
// come, with nothing configured.
var helpers = append([]appliance{{"FRR as it comes", startFRR}, {"BIRD as it comes", startBIRD}}, restarters...)

func startRestartingFRR(t *testing.T, r router) restarter {
	r.global = []string{"bgp graceful-restart", "bgp graceful-restart preserve-fw-state"}
	return startFRR(t, r)
}

func startFRR(t *testing.T, r router) restarter {
	f := r.startFRR(t)
	return restarter{
		restart: func(t *testing.T, meanwhile func(), announced ...netip.Prefix) {
			t.Helper()
			r.prefixes = announced
			must(t, f.RestartBGPD(within(t), r.frr(), meanwhile))
		},
		log: func() string { return f.BGPD.Log() },
	}
}

func startRestartingBIRD(t *testing.T, r router) restarter {
	r.session = append(r.session, "graceful restart on")
	return startBIRD(t, r)
}

func startBIRD(t *testing.T, r router) restarter {
	r.kernel = true
	b := r.startBIRD(t)
	return restarter{
		restart: func(t *testing.T, meanwhile func(), announced ...netip.Prefix) {
			t.Helper()
			r.prefixes = announced
			must(t, b.Proc.Kill())
			meanwhile()
			b = value(lab.StartBIRD(within(t), r.node, r.bird(), "-R"))(t)
		},
		log: func() string { return b.Proc.Log() },
	}
}

// touched lists what ip-monitor(8) saw of the agent's routes and next hops.
func touched(monitor *lab.Proc) []string {
	var lines []string
	for line := range strings.Lines(monitor.Log()) {
		if strings.Contains(line, "proto 165") || strings.Contains(line, "nexthop") && strings.Contains(line, "165") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// RFC 4724, S17: while an NVA's daemon restarts, no packet is lost, and no route and no
// next hop in the kernel is touched but those that it announces no more or anew.
func TestGracefulRestartOfAnNVA(t *testing.T) {
	for _, kind := range restarters {
		t.Run(kind.name, func(t *testing.T) {
			b := newBed(t, 1, hostConfig+"peers:\n"+peer("nva", lab.SeedNVA(0), lab.SeedASN))
			same4, same6 := prefixes(nva.IPv4, 50), prefixes(nva.IPv6, 50)
			gone, added := prefix("172.16.1.0/24"), prefix("172.16.2.0/24")
			before := slices.Concat(same4, same6, []netip.Prefix{lab.SeedBranch, lab.SeedBranch6, gone})
			after := slices.Concat(same4, same6, []netip.Prefix{lab.SeedBranch, lab.SeedBranch6, added})
			r := kind.start(t, b.router4(0, before...))
			b.up(t, "nva")
			for _, p := range []netip.Prefix{lab.SeedBranch, lab.SeedBranch6, gone, same4[49], same6[49]} {
				b.route(t, p, map[bool]netip.Addr{true: lab.SeedNVA(0), false: lab.SeedNVA6(0)}[p.Addr().Is4()])
			}
			t4 := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
			t6 := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300, Dst: lab.SeedServer6})
			monitor := value(b.Host.Start("ip", "-N", "-o", "monitor", "route", "nexthop"))(t)
			since := time.Now()
			r.restart(t, func() {
				poll(t, "restart seen", func() error {
					if p := b.peerStatus(t, "nva"); !p.Restarting {
						return fmt.Errorf("%+v", p)
					}
					return nil
				})
			}, after...)
			b.route(t, gone)
			b.route(t, added, lab.SeedNVA(0))
			b.route(t, same4[0], lab.SeedNVA(0))
			poll(t, "end of the restart", func() error {
				if p := b.peerStatus(t, "nva"); p.Restarting || p.State != "Established" {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			for name, tr := range map[string]*lab.Traffic{"IPv4": t4, "IPv6": t6} {
				b.steady(t, tr, 300)
				if rep := tr.Report(since); rep.Lost() > 0 {
					t.Errorf("%s: %d of %d packets lost, interruption %s", name, rep.Lost(), rep.Sent(), rep.Interruption())
				}
			}
			for _, line := range touched(monitor) {
				if !strings.Contains(line, gone.String()) && !strings.Contains(line, added.String()) {
					t.Errorf("touched: %s", line)
				}
			}
			if t.Failed() {
				t.Log(r.log())
			}
		})
	}
}

// RFC 4724, S25: an NVA that helps keeps what we announced to it throughout a restart of
// ours, its kernel included, also when another peer never comes back; but for what we do
// not announce again.
func TestGracefulRestartOfOurs(t *testing.T) {
	for i, kind := range helpers {
		t.Run(kind.name, func(t *testing.T) {
			vnet := func(more string) string {
				gr := "graceful-restart: {restart-time: 20s}" // so that the dead one is waited for 10 s
				dead := ""
				if i == 0 { // nobody has its address
					dead = peer("dead", lab.SeedNVA(7), 65004, gr)
				}
				return "router-id: 10.1.2.4\nlisten: [10.1.2.4]\nvnet: {prefixes: [10.9.0.0/16, \"2001:db8:9::/64\"" + more + "]}\n" +
					"fib: {sweep-after: 10s}\npeers:\n" + peer("nva", lab.SeedNVA(0), lab.SeedASN, gr) +
					peer("other", lab.SeedNVA(1), 65003, gr) + dead
			}
			b := newBed(t, 2, vnet(", 10.10.0.0/16"))
			r := kind.start(t, b.router4(0, lab.SeedBranch, lab.SeedBranch6))
			learned := prefix("172.16.9.0/24")
			o := b.router4(1, learned)
			// GoBGP waits for the End-of-RIB only of peers that can restart gracefully.
			o.asn, o.session = 65003, []string{"graceful restart on"}
			o.startBIRD(t)
			b.up(t, "nva", "other")
			kept, dropped := []netip.Prefix{prefix("10.9.0.0/16"), prefix("2001:db8:9::/64"), learned}, prefix("10.10.0.0/16")
			installed := func(p netip.Prefix, want bool) {
				t.Helper()
				poll(t, p.String()+" in the NVA's kernel", func() error {
					gws, err := b.NVAs[0].Gateways(within(t), p)
					if err == nil && (len(gws) > 0) != want {
						err = fmt.Errorf("next hops %v", gws)
					}
					return err
				})
			}
			for _, p := range append(kept, dropped) {
				installed(p, true)
			}
			b.route(t, lab.SeedBranch, lab.SeedNVA(0))
			b.route(t, lab.SeedBranch6, lab.SeedNVA6(0))
			monitor := value(b.NVAs[0].Start("ip", "-o", "monitor", "route"))(t)
			must(t, b.d.SetConfig(vnet("")))
			for _, end := range []struct {
				name string
				do   func() error
			}{{"SIGTERM", b.d.Stop}, {"SIGKILL", b.d.Kill}} {
				t.Run(end.name, func(t *testing.T) {
					must(t, end.do())
					must(t, b.d.Launch(within(t)))
					b.up(t, "nva", "other")
					installed(dropped, false)
					poll(t, "all is announced again", func() error {
						if p := b.peerStatus(t, "nva"); p.Advertised < len(kept) {
							return fmt.Errorf("%d announced", p.Advertised)
						}
						return nil
					})
					for _, p := range kept {
						installed(p, true)
					}
					for line := range strings.Lines(monitor.Log()) {
						for _, p := range kept {
							if strings.Contains(line, p.String()) {
								t.Errorf("the NVA's kernel: %s", line)
							}
						}
					}
					if t.Failed() {
						t.Log(r.log())
					}
				})
			}
		})
	}
}

// fib.persist: no packet is lost while all sessions are, and when one is back only what
// it does not announce again goes.
func TestPersist(t *testing.T) {
	b := newBed(t, 2, hostConfig+"fib: {persist: 30s, sweep-after: 20s}\n"+nvaPeers(2))
	gone := prefix("172.16.1.0/24")
	s := b.nvas(t, 2)
	for i := range s {
		announce(t, s[i], nva.Attrs{}, lab.SeedBranch, gone)
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	s[0].Close()
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	tr := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
	since := time.Now()
	s[1].Close()
	poll(t, "a loud status", func() error {
		out, _, exit, err := b.d.CLI(within(t), "status")
		if err == nil && (exit != 4 || !strings.Contains(out, "all sessions are lost: 2 paths are kept")) {
			err = fmt.Errorf("exit status %d: %s", exit, out)
		}
		return err
	})
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	again := b.dial(t, b.NVAs[1], nva4(1))
	announce(t, again, nva.Attrs{}, lab.SeedBranch)
	must(t, again.EndOfRIB(nva.IPv4))
	must(t, again.EndOfRIB(nva.IPv6))
	b.route(t, gone)
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	b.steady(t, tr, 300)
	if r := tr.Report(since); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost, interruption %s", r.Lost(), r.Sent(), r.Interruption())
	}
	for _, event := range []string{"persist-start", "persist-end"} {
		if !strings.Contains(b.d.Proc.Log(), event) {
			t.Errorf("no %s in the journal", event)
		}
	}
}

// fib.probe: an NVA that dies silently, with its session as established as ever, is found
// by its silence to ARP and ND, and taken back when it answers.
func TestProbe(t *testing.T) {
	b := newBed(t, 2, hostConfig+"fib: {probe: 1s}\n"+nvaPeers(2))
	s := b.nvas(t, 2)
	for i := range s {
		announce(t, s[i], nva.Attrs{}, lab.SeedBranch)
		announce(t, s[i], attrs(lab.SeedNVA6(i), lab.SeedASN), lab.SeedBranch6)
	}
	both := func() {
		t.Helper()
		b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
		b.route(t, lab.SeedBranch6, lab.SeedNVA6(0), lab.SeedNVA6(1))
	}
	both()
	must(t, b.NVAVNet[0].Cut())
	cut := time.Now()
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	b.route(t, lab.SeedBranch6, lab.SeedNVA6(1))
	t.Logf("without it after %s", time.Since(cut).Round(100*time.Millisecond))
	if p := b.peerStatus(t, "nva1"); p.State != "Established" {
		t.Errorf("the session ended: %+v", p)
	}
	if _, text := b.explain(t, lab.SeedBranch.String()); !strings.Contains(text, "10.1.0.4 does not answer") {
		t.Errorf("explain:\n%s", text)
	}
	must(t, b.NVAVNet[0].Mend())
	both()
}

// damping: a path that is withdrawn again and again is not used when it comes back, and
// not announced to the other NVA.
func TestDamping(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2, "damping: {enabled: true, suppress: 2500}"))
	p, s := prefix("172.16.0.0/24"), b.nvas(t, 2)
	for range 3 {
		announce(t, s[0], nva.Attrs{}, p)
		b.route(t, p, lab.SeedNVA(0))
		must(t, s[0].Withdraw(p))
		b.route(t, p)
	}
	announce(t, s[0], nva.Attrs{}, p)
	b.learned(t, "nva1", p, reason("damped"))
	b.route(t, p)
	if _, text := b.explain(t, p.String()); !strings.Contains(text, "damped") || !strings.Contains(text, "used again in") {
		t.Errorf("explain:\n%s", text)
	}
	poll(t, "no announcement to the other", func() error {
		if out := b.cli(t, "advertised", "nva2"); strings.Contains(out, p.String()) {
			return fmt.Errorf("advertised:\n%s", out)
		}
		return nil
	})
}
