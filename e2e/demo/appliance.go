package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// appliance is a network virtual appliance: the built-in simulator or FRR.
type appliance interface {
	// Announce announces the branch, with the ASN once and prepend times more.
	Announce(ctx context.Context, prepend int) error
	// Received is the command that shows what the route server announced, its output,
	// and whether that is the VNet as S28 wants it: AS path 65515, IGP.
	Received(ctx context.Context) (command, output string, ok bool, err error)
	// Kill ends its BGP process without a chance to say goodbye.
	Kill() error
}

// starter starts appliance i.
type starter func(ctx context.Context, s *lab.Seed, i int) (appliance, error)

// applianceKind reads $NVA.
func applianceKind(name string) (starter, error) {
	switch name {
	case "", "simulator":
		return startSimulator, nil
	case "frr":
		if !lab.HaveFRR() {
			return nil, errors.New("NVA=frr: FRR is not installed (on Debian: apt-get install frr)")
		}
		return startFRR, nil
	}
	return nil, fmt.Errorf("NVA=%s: there are simulator (the default) and frr", name)
}

type simulator struct{ *lab.Simulator }

func startSimulator(ctx context.Context, s *lab.Seed, i int) (appliance, error) {
	sim, err := lab.StartSimulator(ctx, s.NVAs[i], lab.SeedNVA(i), lab.SeedHost, lab.SeedASN, "announce "+lab.SeedBranch.String())
	return simulator{sim}, err
}

func (a simulator) Announce(ctx context.Context, prepend int) error {
	_, err := a.Command(ctx, fmt.Sprintf("announce %s prepend %d", lab.SeedBranch, prepend))
	return err
}

func (a simulator) Received(ctx context.Context) (string, string, bool, error) {
	lines, err := a.Command(ctx, "received")
	want := fmt.Sprintf("%s next-hop %s as-path 65515 origin IGP", lab.SeedVNet, lab.SeedHost)
	return "nvasim ctl " + a.Socket + " received", strings.Join(lines, "\n"), slices.Contains(lines, want), err
}

func (a simulator) Kill() error { return a.Proc.Kill() }

type frr struct{ *lab.FRR }

func startFRR(ctx context.Context, s *lab.Seed, i int) (appliance, error) {
	f, err := lab.StartFRR(ctx, s.NVAs[i], lab.FRRConfig{BGPD: frrConfig(lab.SeedNVA(i))})
	return frr{f}, err
}

// frrConfig announces the branch through a route-map whose prepend changes later.
func frrConfig(self netip.Addr) string {
	return fmt.Sprintf(`router bgp %[1]d
 bgp router-id %[2]s
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor %[3]s remote-as 65515
 neighbor %[3]s ebgp-multihop
 neighbor %[3]s timers connect 1
 address-family ipv4 unicast
  network %[4]s
  neighbor %[3]s route-map out out
 exit-address-family
route-map out permit 10
`, lab.SeedASN, self, lab.SeedHost, lab.SeedBranch)
}

func (a frr) Announce(ctx context.Context, prepend int) error {
	set := "no set as-path prepend"
	if prepend > 0 {
		set = "set as-path prepend" + strings.Repeat(fmt.Sprintf(" %d", lab.SeedASN), prepend)
	}
	if _, err := a.Vtysh(ctx, "configure terminal", "route-map out permit 10", set); err != nil {
		return err
	}
	_, err := a.Vtysh(ctx, fmt.Sprintf("clear bgp ipv4 unicast %s soft out", lab.SeedHost))
	return err
}

func (a frr) Received(ctx context.Context) (string, string, bool, error) {
	routes, err := a.Routes(ctx, "ipv4")
	if err != nil {
		return "", "", false, err
	}
	ok := slices.ContainsFunc(routes[lab.SeedVNet.String()], func(p lab.FRRPath) bool {
		return p.Path == nva.PathString(nva.Seq(65515)) && p.Origin == nva.IGP.String() &&
			len(p.Nexthops) == 1 && p.Nexthops[0].IP == lab.SeedHost.String()
	})
	command := "show bgp ipv4 unicast " + lab.SeedVNet.String()
	if !ok {
		return command, "", false, nil
	}
	out, err := a.Vtysh(ctx, command)
	return "vtysh -c '" + command + "'", out, true, err
}
