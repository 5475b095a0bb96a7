package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// S6: what is offered, as FRR names it, and a ROUTE-REFRESH answered without a reset.
func TestS6_Capabilities(t *testing.T) {
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("frr", lab.SeedNVA(0), lab.SeedASN)+
		peer("nva", lab.SeedNVA(1), lab.SeedASN, "passive: true"))
	r := b.router4(0, lab.SeedBranch)
	r.global = []string{"bgp graceful-restart"}
	f := r.startFRR(t)
	b.up(t, "frr")
	frrPaths(t, f, lab.SeedVNet, frrPath("65515", "10.1.2.4"))
	t.Run("S6/offered", func(t *testing.T) {
		n, text := frrNeighbor(t, f, lab.SeedHost)
		var caps struct {
			FourByteAS      string                     `json:"4byteAs"`
			RouteRefresh    string                     `json:"routeRefresh"`
			GracefulRestart string                     `json:"gracefulRestart"`
			Multiprotocol   map[string]map[string]bool `json:"multiprotocolExtensions"`
		}
		must(t, json.Unmarshal(n.Capabilities, &caps))
		for name, got := range map[string]string{"4-octet AS": caps.FourByteAS, "route refresh": caps.RouteRefresh, "graceful restart": caps.GracefulRestart} {
			if !strings.HasPrefix(got, "advertisedAndReceived") {
				t.Errorf("FRR says of %s: %q, want advertised and received", name, got)
			}
		}
		for _, family := range []string{"ipv4Unicast", "ipv6Unicast"} {
			if !caps.Multiprotocol[family]["advertisedAndReceived"] {
				t.Errorf("FRR says of %s: %v", family, caps.Multiprotocol[family])
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	})
	t.Run("S6/clear soft in", func(t *testing.T) {
		before, _ := frrNeighbor(t, f, lab.SeedHost)
		value(f.Vtysh(within(t), "clear bgp * soft in"))(t)
		poll(t, "the answer to FRR's ROUTE-REFRESH", func() error {
			if n, _ := frrNeighbor(t, f, lab.SeedHost); n.Messages.UpdatesRecv <= before.Messages.UpdatesRecv {
				return fmt.Errorf("%d UPDATEs, as before", n.Messages.UpdatesRecv)
			}
			return nil
		})
		if n, _ := frrNeighbor(t, f, lab.SeedHost); n.State != "Established" || n.Established != before.Established {
			t.Errorf("FRR's session: %s, established %d times, %d before", n.State, n.Established, before.Established)
		}
		if p := b.peerStatus(t, "frr"); p.Flaps != 0 {
			t.Errorf("the session flapped: %+v", p)
		}
	})
	t.Run("S6/ROUTE-REFRESH per family", func(t *testing.T) {
		s := b.dial(t, b.NVAs[1], nva4(1))
		for _, family := range []nva.Family{nva.IPv4, nva.IPv6} {
			p := lab.SeedVNet
			if family == nva.IPv6 {
				p = lab.SeedVNet6
			}
			first := value(s.Received().WaitPath(within(t), p, nil))(t)
			must(t, s.Write(nva.RefreshRequest(family)))
			value(s.Received().WaitPath(within(t), p, func(again nva.Path) bool { return again.At.After(first.At) }))(t)
		}
		open := s.Peer()
		for _, code := range []uint8{nva.CapMultiprotocol, nva.CapRouteRefresh, nva.CapGracefulRestart, nva.CapFourOctetAS} {
			if !open.Has(code) {
				t.Errorf("the OPEN has no capability %d: %+v", code, open)
			}
		}
	})
}

// never fails the test when a session comes up within some seconds.
func never(t *testing.T, n *lab.Node, o nva.Options) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		s, err := dialOnce(ctx, n, o)
		cancel()
		if err == nil {
			s.Close()
			t.Fatalf("%s got an established session", o.Local)
		}
		time.Sleep(50 * time.Millisecond) // not a race for the processor
	}
}

// S7: TCP MD5 from a file and from a systemd credential, and the secret nowhere to be
// read.
func TestS7_MD5(t *testing.T) {
	const secret = "s3cret-of-the-NVAs"
	b := newSeed(t, 3)
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	must(t, os.WriteFile(filepath.Join(credentials, "nvas"), []byte(secret+"\n"), 0o600))
	file := filepath.Join(b.Dir(), "password")
	must(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	fromFile, fromCredential := "password-file: "+file, "password-credential: nvas"
	b.start(t, hostConfig+"log: {level: debug}\npeers:\n"+
		peer("frr", lab.SeedNVA(0), lab.SeedASN, fromFile)+
		peer("bird", lab.SeedNVA6(1), lab.SeedASN, fromCredential)+
		peer("wrong", lab.SeedNVA(2), lab.SeedASN, fromFile, "passive: true")+
		peer("wrong6", lab.SeedNVA6(2), lab.SeedASN, fromFile, "passive: true"))
	r0, r1 := b.router4(0, lab.SeedBranch), b.router6(1, lab.SeedBranch)
	r0.session, r1.session = []string{"password " + secret}, []string{`password "` + secret + `"`}
	r0.startFRR(t)
	r1.startBIRD(t)
	b.up(t, "frr", "bird")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	for name, o := range map[string]nva.Options{"IPv4": nva4(2), "IPv6": nva6(2)} {
		t.Run("S7/no password, "+name, func(t *testing.T) { never(t, b.NVAs[2], o) })
		t.Run("S7/wrong password, "+name, func(t *testing.T) {
			o.Password = "not " + secret
			never(t, b.NVAs[2], o)
		})
		t.Run("S7/right password, "+name, func(t *testing.T) {
			o.Password = secret
			b.dial(t, b.NVAs[2], o)
		})
	}
	t.Run("S7/secrecy", func(t *testing.T) {
		said := b.d.Proc.Log()
		for _, command := range []string{
			"status", "status -o wide", "status -o json", "peers", "peers -o wide", "peers -o json",
			"learned -o wide", "advertised -o wide", "explain 192.168.255.0/24",
		} {
			out, stderr, _, err := b.d.CLI(within(t), strings.Fields(command)...)
			must(t, err)
			said += out + stderr
		}
		out, _ := check(t, b, "peers:\n"+peer("a", lab.SeedNVA(0), 65515, fromFile))
		said += out
		if i := strings.Index(said, secret); i >= 0 {
			t.Errorf("the secret is shown: %s", said[max(0, i-200):i+len(secret)])
		}
	})
}

// S7: GTSM. With it, a packet that came over a router is not the peer's.
func TestS7_GTSM(t *testing.T) {
	b := newBed(t, 3, hostConfig+"peers:\n"+
		peer("frr", lab.SeedNVA(0), lab.SeedASN, "gtsm: 1")+
		peer("bird", lab.SeedNVA6(1), lab.SeedASN, "gtsm: 1")+
		peer("nva", lab.SeedNVA(2), lab.SeedASN, "gtsm: 2", "passive: true", "hold-time: 9s")+
		peer("nva6", lab.SeedNVA6(2), lab.SeedASN, "gtsm: 2", "passive: true", "hold-time: 9s"))
	r0, r1 := b.router4(0, lab.SeedBranch), b.router6(1, lab.SeedBranch)
	r0.session, r1.session = []string{"ttl-security hops 1"}, []string{"multihop 1", "ttl security on"}
	r0.startFRR(t)
	r1.startBIRD(t)
	b.up(t, "frr", "bird")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	appliances := map[string]nva.Options{"nva": nva4(2), "nva6": nva6(2)}
	for name, o := range appliances {
		t.Run("S7/from too far, "+name, func(t *testing.T) {
			o.TTL = 253 // what is left of 255 two routers on
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			for ctx.Err() == nil {
				// Its OPEN may still be taken, as long as nothing comes of it: this side may then
				// believe in a session, and the daemon may not.
				if s, err := dialOnce(ctx, b.NVAs[2], o); err == nil {
					defer s.Close()
				}
				if p := b.peerStatus(t, name); p.State == "Established" {
					t.Fatalf("a session from too far away is established: %+v", p)
				}
			}
		})
	}
	for name, o := range appliances { // the daemon gives the attempts up together, after 10 s
		t.Run("S7/near enough, "+name, func(t *testing.T) {
			o.TTL = 254
			b.dial(t, b.NVAs[2], o)
		})
	}
}

// S8: a path with our own AS, or AS 0, is shown with the reason and not used; it ends
// the use of the peer's path before it, and disturbs no session.
func TestS8_Loops(t *testing.T) {
	b := newBed(t, 3, hostConfig+"peers:\n"+peer("frr", lab.SeedNVA(0), lab.SeedASN)+
		peer("bird", lab.SeedNVA(1), lab.SeedASN)+peer("nva", lab.SeedNVA(2), lab.SeedASN, "passive: true"))
	p4, p6, q4, q6 := prefix("172.16.1.0/24"), prefix("2001:db8:71::/64"), prefix("172.16.2.0/24"), prefix("2001:db8:72::/64")
	f := b.router4(0, p4, p6).startFRR(t)
	r1 := b.router4(1, q4, q6)
	bird := r1.startBIRD(t)
	s := b.dial(t, b.NVAs[2], nva4(2))
	used := func(t *testing.T, peer string, used bool) {
		t.Helper()
		p, q, i := p4, p6, 0
		if peer == "bird" {
			p, q, i = q4, q6, 1
		}
		if !used {
			b.learned(t, peer, p, reason("own-as-in-path"))
			b.learned(t, peer, q, reason("own-as-in-path"))
			b.route(t, p)
			b.route(t, q)
			if x, text := b.explain(t, p.String()); !strings.Contains(text, "holds our own AS 65515") {
				t.Errorf("explain does not tell of the loop: %+v\n%s", x, text)
			}
			return
		}
		b.route(t, p, lab.SeedNVA(i))
		b.route(t, q, lab.SeedNVA6(i))
	}
	t.Run("S8/FRR", func(t *testing.T) {
		used(t, "frr", true)
		frrOut(t, f, "set as-path prepend 65515")
		used(t, "frr", false)
		frrOut(t, f, "")
		used(t, "frr", true)
	})
	t.Run("S8/BIRD", func(t *testing.T) {
		used(t, "bird", true)
		r1.out = "bgp_path.prepend(65515);"
		must(t, bird.Configure(within(t), r1.bird()))
		used(t, "bird", false)
		r1.out = ""
		must(t, bird.Configure(within(t), r1.bird()))
		used(t, "bird", true)
	})
	for name, tt := range map[string]struct {
		path   []nva.Segment
		reason string
	}{
		"AS 0":                 {nva.Seq(65147, 0, 65001), "as-zero-in-path"},
		"AS 0 in an AS_SET":    {append(nva.Seq(65147), nva.Segment{Type: nva.ASSet, ASNs: []uint32{65001, 0}}), "as-zero-in-path"},
		"own AS in an AS_SET":  {append(nva.Seq(65147), nva.Segment{Type: nva.ASSet, ASNs: []uint32{65001, 65515}}), "own-as-in-path"},
		"own AS in the middle": {nva.Seq(65147, 65515, 65001), "own-as-in-path"},
	} {
		t.Run("S8/"+name, func(t *testing.T) {
			for _, p := range []struct{ prefix, nextHop string }{{"172.16.3.0/24", "10.1.0.6"}, {"2001:db8:73::/64", "2001:db8:1::6"}} {
				a := nva.Attrs{NextHop: addr(p.nextHop)}
				announce(t, s, a, prefix(p.prefix))
				b.route(t, prefix(p.prefix), a.NextHop)
				a.ASPath = tt.path
				announce(t, s, a, prefix(p.prefix))
				b.learned(t, "nva", prefix(p.prefix), reason(tt.reason))
				b.route(t, prefix(p.prefix))
			}
		})
	}
	for _, p := range list[status.Peer](t, b, "peers") {
		if p.State != "Established" || p.Flaps != 0 {
			t.Errorf("a session was disturbed: %+v", p)
		}
	}
}
