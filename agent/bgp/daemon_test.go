package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemon is a real BGP daemon as a peer. It ends with the test.
type daemon struct {
	t    testing.TB
	dir  string
	name string
	cmd  *exec.Cmd
}

func startDaemon(t testing.TB, name, config string, args func(dir, file string) []string) *daemon {
	t.Helper()
	if _, err := os.Stat(args("", "")[0]); err != nil {
		t.Fatalf("%s is needed: %v", name, err)
	}
	d := &daemon{t: t, dir: t.TempDir(), name: name}
	file := filepath.Join(d.dir, "conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	a := args(d.dir, file)
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(a[0], a[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		d.kill()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("log of %s:\n%s", name, text)
		}
	})
	return d
}

func (d *daemon) kill() {
	if d.cmd.ProcessState == nil {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}
}

// startFRR starts bgpd as the n-th peer; options are those of its neighbour, us.
func startFRR(t testing.TB, n int, asn uint32, options ...string) *daemon {
	t.Helper()
	var conf strings.Builder
	port := "179"
	fmt.Fprintf(&conf, `router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.1.2.4 remote-as 65515
 neighbor 10.1.2.4 update-source %[2]s
 neighbor 10.1.2.4 timers 3 9
 neighbor 10.1.2.4 timers connect 1
`, asn, peerAddr(n))
	multihop := true
	for _, o := range options {
		if p, ok := strings.CutPrefix(o, "port "); ok {
			port = p
			continue
		}
		multihop = multihop && !strings.HasPrefix(o, "ttl-security") && !strings.HasPrefix(o, "ebgp-multihop")
		fmt.Fprintf(&conf, " neighbor 10.1.2.4 %s\n", o)
	}
	if multihop {
		conf.WriteString(" neighbor 10.1.2.4 ebgp-multihop 64\n")
	}
	fmt.Fprintf(&conf, ` address-family ipv4 unicast
  network 192.168.%d.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor 10.1.2.4 activate
  neighbor 10.1.2.4 route-map v6 out
  network 2001:db8:%[1]d::/48
 exit-address-family
route-map v6 permit 10
 set ipv6 next-hop global %[2]s
`, n, peerAddr6(n))
	d := startDaemon(t, "FRR", conf.String(), func(dir, file string) []string {
		return []string{"/usr/lib/frr/bgpd", "-f", file, "-n", "-Z", "-S", "-P", "0", "-l", peerAddr(n).String(), "-p", port,
			"-i", filepath.Join(dir, "pid"), "--vty_socket", dir, "--log", "stdout"}
	})
	within(t, time.Minute, "FRR's vty", func() bool {
		_, err := os.Stat(filepath.Join(d.dir, "bgpd.vty"))
		return err == nil
	})
	return d
}

func (d *daemon) vtysh(commands ...string) string {
	d.t.Helper()
	args := []string{"--vty_socket", d.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return run(d.t, "vtysh", args...)
}

// startBIRD starts BIRD 2 as the n-th peer.
func startBIRD(t testing.TB, n int, asn uint32) *daemon {
	t.Helper()
	conf := fmt.Sprintf(`router id %[2]s;
protocol device {}
protocol static s4 { ipv4; route 192.168.%[1]d.0/24 blackhole; }
protocol static s6 { ipv6; route 2001:db8:%[1]d::/48 blackhole; }
protocol bgp host {
	local %[2]s as %[3]d;
	neighbor 10.1.2.4 as 65515;
	multihop;
	strict bind yes;
	connect delay time 1;
	connect retry time 1;
	ipv4 { import all; export where source = RTS_STATIC; next hop address %[2]s; };
	ipv6 { import all; export where source = RTS_STATIC; next hop address %[4]s; };
}
`, n, peerAddr(n), asn, peerAddr6(n))
	return startDaemon(t, "BIRD", conf, func(dir, file string) []string {
		return []string{"/usr/sbin/bird", "-f", "-c", file, "-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid")}
	})
}

func (d *daemon) birdc(command string) string {
	d.t.Helper()
	return run(d.t, "birdc", append([]string{"-s", filepath.Join(d.dir, "ctl")}, strings.Fields(command)...)...)
}

// FRR and BIRD as appliances: both families over an IPv4 session, both ways. (FRR also
// sends back to us what it has from us, which S8 is for.)
func TestRealDaemons(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustSetVNet(t, s, "10.1.0.0/16", "fd00:1::/64")
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	frr, bird := startFRR(t, 4, 65147), startBIRD(t, 5, 65148)
	for n, asn := range map[int]string{4: "65147", 5: "65148"} {
		a := peerAddr(n)
		p4, p6 := fmt.Sprintf("192.168.%d.0/24", n), fmt.Sprintf("2001:db8:%d::/48", n)
		eventually(t, fmt.Sprintf("paths of %s", a), func() bool { return r.path(a, p4) != nil && r.path(a, p6) != nil })
		v4, v6 := r.path(a, p4), r.path(a, p6)
		if v4.NextHop != a || v4.ASPath.String() != asn || v6.NextHop != peerAddr6(n) || v6.ASPath.String() != asn {
			t.Errorf("paths of %s = %+v and %+v", a, v4, v6)
		}
		eventually(t, "End-of-RIB", func() bool { return strings.Contains(fmt.Sprint(r.heard(a)), "EndOfRIB 6") })
	}
	for _, want := range []struct{ prefix, nextHop, asPath string }{
		{"10.1.0.0/16", "10.1.2.4", "65515"},
		{"fd00:1::/64", "fd00:1::2:4", "65515"},
		{"192.168.5.0/24", "10.1.0.5", "65515 65148"},
		{"2001:db8:5::/48", "fd00:1::5", "65515 65148"},
	} {
		family := "ipv4"
		if netip.MustParsePrefix(want.prefix).Addr().Is6() {
			family = "ipv6"
		}
		var out string
		ok := func() bool {
			out = frr.vtysh("show bgp " + family + " unicast " + want.prefix)
			return strings.Contains(out, "  "+want.asPath+"\n") && strings.Contains(out, "    "+want.nextHop+" ")
		}
		eventually(t, fmt.Sprintf("%+v at FRR", want), ok)
	}
	for _, want := range []struct{ prefix, nextHop, asPath string }{
		{"10.1.0.0/16", "10.1.2.4", "65515"},
		{"fd00:1::/64", "fd00:1::2:4", "65515"},
		{"192.168.4.0/24", "10.1.0.4", "65515 65147"},
		{"2001:db8:4::/48", "fd00:1::4", "65515 65147"},
	} {
		eventually(t, fmt.Sprintf("%+v at BIRD", want), func() bool {
			out := bird.birdc("show route all for " + want.prefix)
			return strings.Contains(out, "BGP.as_path: "+want.asPath+"\n") && strings.Contains(out, "BGP.next_hop: "+want.nextHop) &&
				strings.Contains(out, "BGP.origin: IGP")
		})
	}
	frr.kill()
	eventually(t, "FRR's session down", func() bool { return r.lastDown(peerAddr(4)).Down.Cause == "connection-lost" })
	if n := r.count(peerAddr(4)); n != 0 {
		t.Errorf("%d paths of FRR left", n)
	}
	eventually(t, "withdrawal at BIRD", func() bool { return !strings.Contains(bird.birdc("show route"), "192.168.4.0/24") })
}
