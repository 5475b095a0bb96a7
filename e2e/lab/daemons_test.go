package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/nva"
)

// TestMain builds the programs once for all labs.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 || os.Getenv(BinDirEnv) != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "nexthopd-bin-")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			err = errors.Join(Build(dir, Programs...), os.Setenv(BinDirEnv, dir))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// The daemon's helper: start, ask, restart, kill, start again, and what a refused
// configuration looks like.
func TestDaemon(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	s := value(NewSeed(l, 0))(t)
	config := "router-id: 10.1.2.4\nlisten: [10.1.2.4]\nvnet: {prefixes: [10.1.0.0/16]}\n"
	d := value(StartDaemon(ctx, s.Host, config))(t)
	wantPID := func() {
		t.Helper()
		if st, err := d.Status(ctx); err != nil || st.PID != d.Proc.PID() {
			t.Errorf("status of pid %d: %v; the process is %d", st.PID, err, d.Proc.PID())
		}
	}
	wantPID()
	out, stderr, exit, err := d.CLI(ctx, "status", "-o", "json")
	if err != nil || !strings.Contains(out, `"asn": 65515`) && !strings.Contains(out, `"asn":65515`) {
		t.Errorf("nexthopctl status: %q %q, exit %d, %v", out, stderr, exit, err)
	}
	if _, stderr, exit, err = d.CLI(ctx, "learned", "nobody"); err != nil || exit == 0 || stderr == "" {
		t.Errorf("nexthopctl learned nobody: %q, exit %d, %v; want a failure", stderr, exit, err)
	}
	must(t, d.Restart(ctx))
	wantPID()
	must(t, d.Kill())
	if _, err := d.Status(ctx); err == nil {
		t.Error("a killed daemon answers")
	}
	must(t, d.Start(ctx))
	wantPID()
	must(t, d.Stop())
	must(t, d.SetConfig(config+"nonsense: 1\n"))
	if err := d.Start(ctx); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("start with a bad configuration: %v, want the log with the reason", err)
	}
	if code := d.Proc.ExitCode(); code != 78 {
		t.Errorf("exit status %d with a bad configuration, want 78", code)
	}
}

// The tests below let FRR, BIRD and the simulator speak to each other: what the
// simulator sends is what real daemons take, and what they send it understands.

const frrConfig = `router bgp 65147
 bgp router-id 10.1.0.4
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor 10.1.2.4 remote-as 65515
 neighbor 10.1.2.4 ebgp-multihop
 neighbor 10.1.2.4 timers connect 1
 address-family ipv4 unicast
  neighbor 10.1.2.4 activate
  network 192.168.255.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor 10.1.2.4 activate
  network 2001:db8:255::/48
 exit-address-family
`

const birdConfig = `router id 10.1.0.4;
protocol device {}
protocol static s4 { ipv4; route 192.168.255.0/24 blackhole; }
protocol static s6 { ipv6; route 2001:db8:255::/48 blackhole; }
protocol bgp server {
	local 10.1.0.4 as 65147;
	neighbor 10.1.2.4 as 65515;
	multihop;
	connect retry time 1; connect delay time 1; error wait time 1,2;
	ipv4 { import all; export where source = RTS_STATIC; };
	ipv6 { import all; export where source = RTS_STATIC; next hop address 2001:db8::4; };
}
`

// rs is the simulator in the place of the route server.
func rs(l *nva.Listener, ctx context.Context) (*nva.Session, error) {
	s, err := l.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return s, errors.Join(
		s.Announce(nva.Attrs{ASPath: nva.Seq(65515), Communities: []nva.Community{65515<<16 | 1}}, netip.MustParsePrefix("10.1.0.0/16")),
		s.Announce(nva.Attrs{ASPath: nva.Seq(65515), NextHop: netip.MustParseAddr("2001:db8::1")}, netip.MustParsePrefix("2001:db8::/48")),
		s.EndOfRIB(nva.IPv4), s.EndOfRIB(nva.IPv6))
}

// rsOptions is who the route server is.
func rsOptions() nva.Options {
	return nva.Options{
		Transport: nva.Transport{Local: netip.MustParseAddr("10.1.2.4")},
		ASN:       65515, ID: netip.MustParseAddr("10.1.2.4"), Hold: 180 * time.Second,
		Families: []nva.Family{nva.IPv4, nva.IPv6},
		GR:       &nva.GracefulRestart{Time: 120, Families: []nva.Family{nva.IPv4, nva.IPv6}},
	}
}

// vnet is the segment with the route server's node and one appliance's.
func vnet(t *testing.T, l *Lab) (host, appliance *Node) {
	host, appliance = value(l.Node("host"))(t), value(l.Node("nva"))(t)
	seg := value(l.Segment("vnet"))(t)
	value(seg.Attach(host, "eth0", "10.1.2.4/16", "2001:db8::1/48"))(t)
	value(seg.Attach(appliance, "eth0", "10.1.0.4/16", "2001:db8::4/48"))(t)
	return host, appliance
}

// routeServer is a VNet with the simulator as route server, which accept waits for an
// appliance's session with.
func routeServer(t *testing.T) (ctx context.Context, appliance *Node, accept func() *nva.Session) {
	l := ForTest(t)
	ctx = testContext(t)
	host, appliance := vnet(t, l)
	var listener *nva.Listener
	must(t, host.Do(func() (err error) { // the namespace is that of the thread
		listener, err = nva.Listen(ctx, rsOptions(), 179)
		return err
	}))
	t.Cleanup(func() { _ = listener.Close() })
	return ctx, appliance, func() *nva.Session {
		s := value(rs(listener, ctx))(t)
		t.Cleanup(s.Close)
		return s
	}
}

// wantReceived checks what an appliance that announces the two test prefixes sent.
func wantReceived(ctx context.Context, s *nva.Session) error {
	var errs []error
	for prefix, want := range map[string]string{
		"192.168.255.0/24":  "192.168.255.0/24 next-hop 10.1.0.4 as-path 65147 origin IGP",
		"2001:db8:255::/48": "2001:db8:255::/48 next-hop 2001:db8::4 as-path 65147 origin IGP",
	} {
		p, err := s.Received().WaitPath(ctx, netip.MustParsePrefix(prefix), nil)
		if err == nil {
			// FRR's "network" has a MED of 0.
			if got := strings.TrimSuffix(p.String(), " med 0"); got != want {
				err = fmt.Errorf("got %s, want %s", got, want)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func TestFRR(t *testing.T) {
	if !HaveFRR() {
		t.Skip("FRR is not installed")
	}
	ctx, appliance, accept := routeServer(t)
	// FRR's IPv6 next hop over an IPv4 session is the interface's address, which only zebra tells it.
	frr := value(StartFRR(ctx, appliance, FRRConfig{BGPD: frrConfig, Zebra: "log stdout\n"}))(t)
	s := accept()
	must(t, wantReceived(ctx, s))
	must(t, Eventually(ctx, "FRR's table", func() error {
		for family, prefix := range map[string]string{"ipv4": "10.1.0.0/16", "ipv6": "2001:db8::/48"} {
			routes, err := frr.Routes(ctx, family)
			if err != nil {
				return err
			}
			if p := routes[prefix]; len(p) != 1 || p[0].Path != "65515" || p[0].Origin != "IGP" || !p[0].Valid {
				return fmt.Errorf("%s: %+v", prefix, routes)
			}
		}
		return nil
	}))
	// A route-map is changed at run time, as the demo does.
	_, err := frr.Vtysh(ctx, "configure terminal", "route-map out permit 10", "set as-path prepend 65147 65147", "exit",
		"router bgp 65147", "address-family ipv4 unicast", "neighbor 10.1.2.4 route-map out out")
	must(t, err)
	_, err = frr.Vtysh(ctx, "clear bgp ipv4 unicast 10.1.2.4 soft out")
	must(t, err)
	_, err = s.Received().WaitPath(ctx, netip.MustParsePrefix("192.168.255.0/24"), func(p nva.Path) bool {
		return nva.PathString(p.Attrs.ASPath) == "65147 65147 65147"
	})
	must(t, err)
	if _, err := frr.Vtysh(ctx, "show nonsense"); err == nil {
		t.Error("vtysh accepts nonsense")
	}
	must(t, frr.Kill())
	select {
	case <-s.Done():
	case <-ctx.Done():
		t.Error("the session outlives FRR")
	}
}

func TestFRRWithoutZebra(t *testing.T) {
	if !HaveFRR() {
		t.Skip("FRR is not installed")
	}
	ctx, appliance, accept := routeServer(t)
	frr := value(StartFRR(ctx, appliance, FRRConfig{BGPD: frrConfig}))(t)
	s := accept()
	_, err := s.Received().WaitPath(ctx, netip.MustParsePrefix("192.168.255.0/24"), nil)
	must(t, err)
	must(t, Eventually(ctx, "FRR's table", func() error {
		routes, err := frr.Routes(ctx, "ipv4")
		if p := routes["10.1.0.0/16"]; err == nil && (len(p) != 1 || !p[0].Valid) {
			err = fmt.Errorf("%+v", routes)
		}
		return err
	}))
}

func TestBIRD(t *testing.T) {
	if !HaveBIRD() {
		t.Skip("BIRD is not installed")
	}
	ctx, appliance, accept := routeServer(t)
	bird := value(StartBIRD(ctx, appliance, birdConfig))(t)
	s := accept()
	must(t, wantReceived(ctx, s))
	for prefix, wants := range map[string][]string{
		"10.1.0.0/16":   {"BGP.as_path: 65515", "BGP.origin: IGP", "BGP.next_hop: 10.1.2.4", "BGP.community: (65515,1)"},
		"2001:db8::/48": {"BGP.as_path: 65515", "BGP.origin: IGP", "BGP.next_hop: 2001:db8::1"},
	} {
		must(t, Eventually(ctx, "BIRD's route to "+prefix, func() error {
			out, err := bird.Birdc(ctx, "show route all for "+prefix)
			for _, want := range wants {
				if !strings.Contains(out, want) {
					err = errors.Join(err, fmt.Errorf("no %q in %s", want, out))
				}
			}
			return err
		}))
	}
	must(t, bird.Configure(ctx, strings.Replace(birdConfig, "export where source = RTS_STATIC;",
		"export filter { if source != RTS_STATIC then reject; bgp_path.prepend(65147); bgp_path.prepend(65147); accept; };", 1)))
	_, err := s.Received().WaitPath(ctx, netip.MustParsePrefix("192.168.255.0/24"), func(p nva.Path) bool {
		return nva.PathString(p.Attrs.ASPath) == "65147 65147 65147"
	})
	must(t, err)
	must(t, bird.Proc.Kill())
	select {
	case <-s.Done():
	case <-ctx.Done():
		t.Error("the session outlives BIRD")
	}
}

// The simulator in a process of its own, as an appliance of FRR's and of BIRD's.
func TestSimulatorProcess(t *testing.T) {
	daemons := map[string]struct {
		have  bool
		start func(context.Context, *Node) (path func(context.Context) (string, error), err error)
	}{
		"FRR": {HaveFRR(), func(ctx context.Context, n *Node) (func(context.Context) (string, error), error) {
			f, err := StartFRR(ctx, n, FRRConfig{BGPD: `router bgp 65515
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.1.0.4 remote-as 65147
 neighbor 10.1.0.4 passive
 neighbor 10.1.0.4 ebgp-multihop
 address-family ipv4 unicast
  network 10.1.0.0/16
`})
			return func(ctx context.Context) (string, error) {
				routes, err := f.Routes(ctx, "ipv4")
				if err != nil || len(routes["192.168.255.0/24"]) == 0 {
					return "none", err
				}
				return routes["192.168.255.0/24"][0].Path, nil
			}, err
		}},
		"BIRD": {HaveBIRD(), func(ctx context.Context, n *Node) (func(context.Context) (string, error), error) {
			b, err := StartBIRD(ctx, n, `router id 10.1.2.4;
protocol device {}
protocol static { ipv4; route 10.1.0.0/16 blackhole; }
protocol bgp quagga {
	local 10.1.2.4 as 65515; neighbor 10.1.0.4 as 65147; multihop; passive;
	ipv4 { import all; export where source = RTS_STATIC; };
}
`)
			return func(ctx context.Context) (string, error) {
				out, err := b.Birdc(ctx, "show route all for 192.168.255.0/24")
				_, path, found := strings.Cut(out, "BGP.as_path: ")
				if strings.Contains(out, "Network not found") { // and exit status 1
					return "none", nil
				}
				if !found {
					return "", errors.Join(err, errors.New(out))
				}
				path, _, _ = strings.Cut(path, "\n")
				return path, err
			}, err
		}},
	}
	for name, d := range daemons {
		t.Run(name, func(t *testing.T) {
			if !d.have {
				t.Skip(name + " is not installed")
			}
			l := ForTest(t)
			ctx := testContext(t)
			host, appliance := vnet(t, l)
			path, err := d.start(ctx, host)
			must(t, err)
			sim := value(StartSimulator(ctx, appliance, netip.MustParseAddr("10.1.0.4"), netip.MustParseAddr("10.1.2.4"),
				65147, "announce 192.168.255.0/24"))(t)
			want := func(want string) {
				t.Helper()
				must(t, Eventually(ctx, "AS path "+want, func() error {
					got, err := path(ctx)
					if err == nil && got != want {
						err = fmt.Errorf("AS path %s", got)
					}
					return err
				}))
			}
			command := func(line string) []string {
				t.Helper()
				return value(sim.Command(ctx, line))(t)
			}
			want("65147")
			command("announce 192.168.255.0/24 prepend 2")
			want("65147 65147 65147")
			command("withdraw 192.168.255.0/24")
			want("none")
			command("announce 192.168.255.0/24")
			want("65147")
			must(t, Eventually(ctx, "the VNet's prefix", func() error {
				for _, line := range command("received") { // FRR sends our own prefix back, too
					if strings.TrimSuffix(line, " med 0") == "10.1.0.0/16 next-hop 10.1.2.4 as-path 65515 origin IGP" {
						return nil
					}
				}
				return errors.New(strings.Join(command("received"), "\n"))
			}))
			must(t, sim.Proc.Kill())
			want("none")
		})
	}
}
