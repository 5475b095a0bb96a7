package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// S1: the ASN is 65515 by default, and two instances with the same one serve the same
// NVA; each works when the other is absent.
func TestS1_TwoInstances(t *testing.T) {
	requireFRR(t)
	b := newSeed(t, 1)
	host2 := value(b.Node("host2"))(t)
	value(b.VNet.Attach(host2, "eth0", "10.1.2.5/16", "2001:db8:1::2:5/64"))(t)
	r := b.router4(0, lab.SeedBranch)
	r.global = []string{
		"neighbor 10.1.2.5 remote-as 65515", "neighbor 10.1.2.5 ebgp-multihop", "neighbor 10.1.2.5 timers connect 1",
		"address-family ipv4 unicast", " neighbor 10.1.2.5 activate", " neighbor 10.1.2.5 route-map out out", "exit-address-family",
	}
	f := r.startFRR(t)
	config := "vnet: {prefixes: [10.1.0.0/16]}\npeers:\n" + peer("frr", lab.SeedNVA(0), lab.SeedASN)
	b.start(t, config)
	other := &bed{Seed: b.Seed, d: value(lab.StartDaemon(within(t), host2, config))(t)}
	ids := map[*bed]string{b: "10.1.2.4", other: "10.1.2.5"}
	want := func(instances ...*bed) {
		t.Helper()
		for _, x := range instances {
			if st := value(x.d.Status(within(t)))(t); st.ASN != 65515 {
				t.Errorf("ASN %d without one in the configuration, want 65515", st.ASN)
			}
		}
		frrPaths(t, f, lab.SeedVNet, func(paths []lab.FRRPath) error {
			if len(paths) != len(instances) {
				return fmt.Errorf("%d paths, want %d: %+v", len(paths), len(instances), paths)
			}
			for _, p := range paths {
				ok := false
				for _, x := range instances {
					ok = ok || p.Path == "65515" && p.PeerID == ids[x] && p.Nexthops[0].IP == ids[x]
				}
				if !ok {
					return fmt.Errorf("path %+v", p)
				}
			}
			return nil
		})
	}
	nodes := map[*bed]*lab.Node{b: b.Host, other: host2}
	installed := func(instances ...*bed) {
		t.Helper()
		for _, x := range instances {
			must(t, nodes[x].WaitGateways(within(t), lab.SeedBranch, lab.SeedNVA(0)))
		}
	}
	installed(b, other)
	want(b, other)
	for _, absent := range []*bed{b, other} {
		present := b
		if absent == b {
			present = other
		}
		t.Run("S1/without "+ids[absent], func(t *testing.T) {
			must(t, absent.d.Stop())
			// What the instance that is left does, it does while the other is absent.
			frrOut(t, f, "set metric 7")
			present.learned(t, "frr", lab.SeedBranch, medIs(7))
			frrOut(t, f, "")
			present.learned(t, "frr", lab.SeedBranch, medIs(0))
			installed(present)
			must(t, absent.d.Start(within(t)))
			installed(b, other)
		})
	}
	want(b, other)
}

// S2: a peer is a name, an address and an ASN. It may sit in another subnet, and either
// side may be the one that connects.
func TestS2_PeerInAnotherSubnet(t *testing.T) {
	requireFRR(t)
	b := newSeed(t, 0)
	router, far := value(b.Node("router"))(t), value(b.Node("far"))(t)
	behind := value(b.Segment("far"))(t)
	value(b.VNet.Attach(router, "eth0", "10.1.0.99/16", "2001:db8:1::99/64"))(t)
	value(behind.Attach(router, "eth1", "10.9.0.1/24", "2001:db8:9::1/64"))(t)
	value(behind.Attach(far, "eth0", "10.9.0.4/24", "2001:db8:9::4/64"))(t)
	must(t, b.Host.IP("route add 10.9.0.0/24 via 10.1.0.99", "route add 2001:db8:9::/64 via 2001:db8:1::99"))
	// Not by default routes: FRR does not look for its peers there.
	must(t, far.IP("route add 10.1.0.0/16 via 10.9.0.1", "route add 2001:db8:1::/64 via 2001:db8:9::1"))

	// Nothing but what is required; no listen either.
	four, six := addr("10.9.0.4"), addr("2001:db8:9::4")
	config := "peers:\n" + peer("far", four, lab.SeedASN)
	b.start(t, config)
	r := farRouter(far)
	r.session = []string{"passive"}
	t.Run("S2/we connect", func(t *testing.T) {
		f := r.startFRR(t)
		defer func() { must(t, f.Kill()) }()
		b.up(t, "far")
		b.route(t, lab.SeedBranch, addr("10.1.0.99"))
		b.route(t, lab.SeedBranch6, addr("2001:db8:1::99"))
	})
	t.Run("S2/the peer connects", func(t *testing.T) {
		must(t, b.d.SetConfig("peers:\n"+peer("far", four, lab.SeedASN, "passive: true")))
		must(t, b.d.Restart(within(t)))
		r.session = nil
		f := r.startFRR(t)
		defer func() { must(t, f.Kill()) }()
		b.up(t, "far")
		b.route(t, lab.SeedBranch, addr("10.1.0.99"))
	})
	t.Run("S2/over IPv6", func(t *testing.T) {
		must(t, b.d.SetConfig("peers:\n"+peer("far", six, lab.SeedASN)))
		must(t, b.d.Restart(within(t)))
		r.local, r.remote = six, lab.SeedHost6
		r.startFRR(t)
		b.up(t, "far")
		b.route(t, lab.SeedBranch, addr("10.1.0.99"))
		b.route(t, lab.SeedBranch6, addr("2001:db8:1::99"))
	})
}

// farRouter is an appliance on far's addresses.
func farRouter(far *lab.Node) router {
	return router{
		node: far, id: addr("10.9.0.4"), local: addr("10.9.0.4"), remote: lab.SeedHost,
		own4: addr("10.9.0.4"), own6: addr("2001:db8:9::4"), asn: lab.SeedASN,
		prefixes: []netip.Prefix{lab.SeedBranch, lab.SeedBranch6},
	}
}

// S2: both families go over either kind of session, S28: with next hops of their own.
func TestS2_BothFamiliesOverIPv6(t *testing.T) {
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("frr", lab.SeedNVA6(0), lab.SeedASN)+peer("bird", lab.SeedNVA6(1), lab.SeedASN))
	f := b.router6(0, lab.SeedBranch, lab.SeedBranch6).startFRR(t)
	bird := b.router6(1, lab.SeedBranch, lab.SeedBranch6).startBIRD(t)
	b.up(t, "frr", "bird")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	b.route(t, lab.SeedBranch6, lab.SeedNVA6(0), lab.SeedNVA6(1))
	frrPaths(t, f, lab.SeedVNet, frrPath("65515", "10.1.2.4"))
	frrPaths(t, f, lab.SeedVNet6, frrPath("65515", "2001:db8:1::2:4"))
	birdRoute(t, bird, lab.SeedVNet, "BGP.as_path: 65515", "BGP.next_hop: 10.1.2.4", "BGP.origin: IGP")
	birdRoute(t, bird, lab.SeedVNet6, "BGP.as_path: 65515", "BGP.next_hop: 2001:db8:1::2:4", "BGP.origin: IGP")
}

// S3: nobody but the configured peers gets a session.
func TestS3_UnknownAddress(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(1))
	b.dial(t, b.NVAs[0], nva4(0)) // so it is not that nobody gets one
	for name, o := range map[string]nva.Options{"IPv4": nva4(1), "IPv6": nva6(1), "the peer's other family": nva6(0)} {
		t.Run("S3/"+name, func(t *testing.T) {
			node := b.NVAs[1]
			if o.Local == lab.SeedNVA6(0) {
				node = b.NVAs[0]
			}
			never(t, node, o)
		})
	}
	if p := b.peerStatus(t, "nva1"); p.State != "Established" || p.Flaps != 0 {
		t.Errorf("the peer's own session suffered: %+v", p)
	}
}

// S3: who connects from a range becomes a peer, up to its limit, and only with the right
// AS; nobody else does.
func TestS3_DynamicPeers(t *testing.T) {
	b := newBed(t, 3, hostConfig+"dynamic-peers:\n- {range: 10.1.0.4/31, name: branch, asn: 65147, limit: 1}\n")
	name := "branch-" + lab.SeedNVA(0).String()
	s := b.dial(t, b.NVAs[0], nva4(0))
	announce(t, s, nva.Attrs{NextHop: lab.SeedNVA(0)}, lab.SeedBranch)
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	if p := b.peerStatus(t, name); !p.Dynamic || p.State != "Established" {
		t.Errorf("the peer: %+v", p)
	}
	t.Run("S3/outside", func(t *testing.T) { never(t, b.NVAs[2], nva4(2)) })
	t.Run("S3/limit", func(t *testing.T) { never(t, b.NVAs[1], nva4(1)) })
	if n := len(list[status.Peer](t, b, "peers")); n != 1 {
		t.Errorf("%d peers, want 1", n)
	}

	must(t, os.WriteFile(b.d.Config, []byte(hostConfig+"dynamic-peers: [{range: 10.1.0.5/32, name: other, asn: 65147, passive: true}]\n"), 0o644))
	b.cli(t, "reload")
	b.route(t, lab.SeedBranch)
	t.Run("S3/range removed", func(t *testing.T) { never(t, b.NVAs[0], nva4(0)) })
	wrong := nva4(1)
	wrong.ASN++
	t.Run("S3/AS", func(t *testing.T) { never(t, b.NVAs[1], wrong) })
	poll(t, "why the one with the wrong AS is not up", func() error {
		if s, err := dialOnce(within(t), b.NVAs[1], wrong); err == nil {
			s.Close()
		}
		if p := b.peerStatus(t, "other-"+lab.SeedNVA(1).String()); !strings.Contains(p.LastDown, "another ASN") {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// check runs nexthopd check on a configuration, for its output and status.
func check(t *testing.T, b *bed, config string) (output string, exit int) {
	t.Helper()
	bin := value(b.Binary("nexthopd"))(t)
	file := filepath.Join(t.TempDir(), "nexthopd.yaml")
	must(t, os.WriteFile(file, []byte(config), 0o644))
	p := value(b.Host.Start(bin, "check", file))(t)
	exit = p.ExitCode()
	return p.Log(), exit
}

// S4: ASNs that no peer can have are refused with their line.
func TestS4_ASNs(t *testing.T) {
	b := newSeed(t, 1)
	for name, tt := range map[string]struct{ asn, says string }{
		"the local one": {"65515", "local AS"},
		"0":             {"0", "0"},
		"AS_TRANS":      {"23456", "23456"},
		"65535":         {"65535", "65535"},
		"4294967295":    {"4294967295", "4294967295"},
	} {
		t.Run("S4/"+name, func(t *testing.T) {
			out, exit := check(t, b, "peers:\n  - name: nva1\n    address: 10.1.0.4\n    asn: "+tt.asn+"\n")
			if exit != 78 || !strings.Contains(out, "nexthopd.yaml:4:10: peers[0].asn: ") || !strings.Contains(out, tt.says) {
				t.Errorf("exit status %d, want 78 and a line that names line 4 and %q:\n%s", exit, tt.says, out)
			}
			if lines := strings.Count(strings.TrimSpace(out), "\n"); lines != 0 {
				t.Errorf("more than one line about one mistake:\n%s", out)
			}
		})
	}
	t.Run("S4/another local ASN", func(t *testing.T) {
		out, exit := check(t, b, "asn: 64512\npeers:\n  - {name: a, address: 10.1.0.4, asn: 64512}\n  - {name: b, address: 10.1.0.5, asn: 65515}\n")
		if exit != 78 || !strings.Contains(out, "nexthopd.yaml:3:") || strings.Contains(out, "nexthopd.yaml:4:") {
			t.Errorf("exit status %d, want 78 and only line 3 refused:\n%s", exit, out)
		}
	})
	t.Run("S4/4-byte and 2-byte ASNs", func(t *testing.T) {
		b.start(t, hostConfig+"peers:\n"+peer("four", lab.SeedNVA(0), 4200000001, "passive: true")+
			peer("two", lab.SeedNVA6(0), 65147, "passive: true"))
		o := nva4(0)
		o.ASN = 4200000001
		old := nva6(0)
		old.TwoOctetAS = true
		four, two := b.dial(t, b.NVAs[0], o), b.dial(t, b.NVAs[0], old)
		must(t, four.Announce(nva.Attrs{ASPath: nva.Seq(4200000001)}, lab.SeedBranch))
		must(t, two.Announce(nva.Attrs{ASPath: nva.Seq(65147)}, lab.SeedBranch6))
		b.route(t, lab.SeedBranch, lab.SeedNVA(0))
		b.route(t, lab.SeedBranch6, lab.SeedNVA6(0))
		b.learned(t, "four", lab.SeedBranch, asPathIs("4200000001"))
		if _, err := two.Received().WaitPath(within(t), lab.SeedBranch, func(p nva.Path) bool {
			return nva.PathString(p.Attrs.ASPath) == "65515 23456" // RFC 6793 section 4.2.2
		}); err != nil {
			t.Error(err)
		}
	})
}

// S5: 60 s and 180 s are offered, negotiated down, and configurable per peer, as both
// ends see it.
func TestS5_Timers(t *testing.T) {
	b := newBed(t, 3, hostConfig+"peers:\n"+
		peer("default", lab.SeedNVA(0), lab.SeedASN, "passive: true")+
		peer("frr-lower", lab.SeedNVA6(0), lab.SeedASN)+
		peer("ours-lower", lab.SeedNVA(1), lab.SeedASN, "hold-time: 9s", "keepalive: 3s")+
		peer("bird", lab.SeedNVA6(2), lab.SeedASN))
	holds := func(t *testing.T, name string, hold, keepalive int) {
		t.Helper()
		b.up(t, name)
		poll(t, "timers of "+name, func() error {
			if p := b.peerStatus(t, name); p.HoldTime != hold || p.Keepalive != keepalive {
				return fmt.Errorf("hold time %d, keepalive %d, want %d and %d", p.HoldTime, p.Keepalive, hold, keepalive)
			}
			return nil
		})
		if out := b.cli(t, "peers", "-o", "wide"); !strings.Contains(out, fmt.Sprintf("%ds", hold)) {
			t.Errorf("nexthopctl peers -o wide does not show %ds:\n%s", hold, out)
		}
	}
	frr := func(t *testing.T, r router, hold, keepalive int) {
		t.Helper()
		f := r.startFRR(t)
		poll(t, "session in FRR", func() error {
			n, _ := frrNeighbor(t, f, r.remote)
			if n.State != "Established" || n.HoldMsec != hold*1000 || n.KeepaliveMsec != keepalive*1000 {
				return fmt.Errorf("%s, hold %d ms, keepalive %d ms", n.State, n.HoldMsec, n.KeepaliveMsec)
			}
			return nil
		})
	}
	t.Run("S5/default", func(t *testing.T) {
		o := nva4(0)
		o.Hold = time.Hour
		s := b.dial(t, b.NVAs[0], o)
		if got := s.Peer().HoldTime; got != 180 {
			t.Errorf("hold time %d s offered, want 180", got)
		}
		holds(t, "default", 180, 60)
	})
	t.Run("S5/FRR offers less", func(t *testing.T) {
		r := b.router6(0)
		r.session = []string{"timers 10 30"}
		frr(t, r, 30, 10)
		holds(t, "frr-lower", 30, 10)
	})
	t.Run("S5/we offer less", func(t *testing.T) {
		r := b.router4(1)
		r.session = []string{"timers 60 180"}
		frr(t, r, 9, 3)
		holds(t, "ours-lower", 9, 3)
	})
	t.Run("S5/BIRD", func(t *testing.T) {
		r := b.router6(2)
		r.session = []string{"hold time 45", "keepalive time 15"}
		bird := r.startBIRD(t)
		holds(t, "bird", 45, 15)
		poll(t, "timers in BIRD", func() error {
			out, err := bird.Birdc(within(t), "show protocols all server")
			if !strings.Contains(out, "/45") || !strings.Contains(out, "/15") { // "Hold timer: 40.1/45"
				return errors.Join(err, errors.New(out))
			}
			return err
		})
	})
}
