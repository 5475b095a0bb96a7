package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// patience is how long a step may take to show what it should.
const patience = time.Minute

// demo is the play.
type demo struct {
	*lab.Seed
	out     *screen
	kind    starter
	daemon  *lab.Daemon
	nvas    []appliance
	traffic *lab.Traffic
}

var peerNames = []string{"quagga", "quagga2"}

func config() string {
	return fmt.Sprintf(`asn: 65515
router-id: %[1]s
listen: [%[1]s]
vnet:
  prefixes: [%[2]s]
peers:
  - {name: %[3]s, address: %[4]s, asn: %[5]d}
  - {name: %[6]s, address: %[7]s, asn: %[5]d}
`, lab.SeedHost, lab.SeedVNet, peerNames[0], lab.SeedNVA(0), lab.SeedASN, peerNames[1], lab.SeedNVA(1))
}

func (d *demo) play(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.start, d.showLearned, d.showReceived, d.startTraffic, d.prepend, d.unprepend, d.die,
	} {
		short, cancel := context.WithTimeout(ctx, patience)
		err := step(short)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// start brings up the daemon and the appliances.
func (d *demo) start(ctx context.Context) error {
	d.out.caption("The network")
	d.out.print(`
                        .-- nva1 10.1.0.4 (AS 65147) --.
  client --- host ------+                              +--- server 192.168.255.10
           10.1.2.4     '-- nva2 10.1.0.5 (AS 65147) --'
     runs nexthopd (AS 65515)
`)
	d.out.say("Each is a network namespace. The host has no route to 192.168.255.0/24 yet; this is nexthopd's configuration:")
	d.out.command("host", "cat nexthopd.yaml", config())
	var err error
	if d.daemon, err = lab.StartDaemon(ctx, d.Host, config()); err != nil {
		return err
	}
	for i := range d.NVAs {
		a, err := d.kind(ctx, d.Seed, i)
		if err != nil {
			return err
		}
		d.nvas = append(d.nvas, a)
	}
	return nil
}

func (d *demo) showLearned(ctx context.Context) error {
	d.out.caption("Both appliances announce %s: the host has ONE route with both next hops", lab.SeedBranch)
	if err := d.wantRoute(ctx, 0, 1); err != nil {
		return err
	}
	for _, peer := range peerNames {
		out, err := d.ctl(ctx, "learned", peer)
		if err != nil {
			return err
		}
		d.out.command("host", "nexthopctl learned "+peer, out)
		if !strings.Contains(out, lab.SeedBranch.String()) {
			return fmt.Errorf("nexthopctl learned %s does not show %s", peer, lab.SeedBranch)
		}
	}
	if err := d.showRoute(ctx); err != nil {
		return err
	}
	return d.show(ctx, "ip", "nexthop", "show")
}

func (d *demo) showReceived(ctx context.Context) error {
	d.out.caption("The appliances know the VNet: %s, AS path 65515, origin IGP", lab.SeedVNet)
	for i, a := range d.nvas {
		var command, output string
		err := lab.Eventually(ctx, "the VNet at "+d.NVAs[i].Name, func() (err error) {
			var ok bool
			if command, output, ok, err = a.Received(ctx); err == nil && !ok {
				err = fmt.Errorf("%s has not received %s with AS path 65515 and origin IGP; it has %q", d.NVAs[i].Name, lab.SeedVNet, output)
			}
			return err
		})
		if err != nil {
			return err
		}
		d.out.command(d.NVAs[i].Name, command, output)
	}
	return nil
}

// UDP flows, and packets per second of each, so that an interruption is measured to
// the millisecond. With layer-4 hashing the odds that all flows take the same
// appliance are 1 to 2^15.
const (
	flows = 16
	rate  = 1000
)

func (d *demo) startTraffic(ctx context.Context) error {
	d.out.caption("UDP traffic from the client to the server: %d flows, %d packets/s each", flows, rate)
	var err error
	if d.traffic, err = d.Traffic(lab.TrafficConfig{Flows: flows, Rate: rate}); err != nil {
		return err
	}
	start := time.Now()
	if err := d.wantVia(ctx, start, "nva1", "nva2"); err != nil {
		return err
	}
	d.out.say("It passes %s.", viaText(d.traffic.Report(start)))
	return nil
}

func (d *demo) prepend(ctx context.Context) error {
	d.out.caption("10.1.0.5 prepends its AS twice: only 10.1.0.4 remains")
	return d.change(ctx, func() error { return d.nvas[1].Announce(ctx, 2) }, 0)
}

func (d *demo) unprepend(ctx context.Context) error {
	d.out.caption("10.1.0.5 stops prepending: both are back")
	return d.change(ctx, func() error { return d.nvas[1].Announce(ctx, 0) }, 0, 1)
}

func (d *demo) die(ctx context.Context) error {
	d.out.caption("10.1.0.4 dies (its BGP process is killed and it forwards no longer): only 10.1.0.5 remains")
	return d.change(ctx, func() error {
		return errors.Join(d.NVAs[0].SetForwarding(false), d.nvas[0].Kill())
	}, 1)
}

// change does something to the appliances, and shows the host's route and the
// traffic once the route leads to exactly those wanted.
func (d *demo) change(ctx context.Context, do func() error, want ...int) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	if err := d.wantRoute(ctx, want...); err != nil {
		return err
	}
	if err := d.showRoute(ctx); err != nil {
		return err
	}
	var names []string
	for _, i := range want {
		names = append(names, d.NVAs[i].Name)
	}
	if err := d.wantVia(ctx, time.Now(), names...); err != nil {
		return err
	}
	r := d.traffic.Report(start)
	if r.Lost() == 0 {
		d.out.say("UDP traffic: not interrupted, 0 of %d packets lost; it passes %s now.", r.Sent(), strings.Join(names, " and "))
		return nil
	}
	d.out.say("UDP traffic: %d of %d flows interrupted, for %s at most; %d of %d packets lost; it passes %s now.",
		r.Interrupted(), len(r.Flows), milliseconds(r.Interruption()), r.Lost(), r.Sent(), strings.Join(names, " and "))
	return nil
}

// wantRoute waits until the host has one route to the branch, with exactly these
// appliances as next hops.
func (d *demo) wantRoute(ctx context.Context, want ...int) error {
	var addrs []netip.Addr
	for _, i := range want {
		addrs = append(addrs, lab.SeedNVA(i))
	}
	if err := d.Host.WaitGateways(ctx, lab.SeedBranch, addrs...); err != nil {
		return err
	}
	out, err := d.Host.Run(ctx, "ip", "-o", "route", "show", "exact", lab.SeedBranch.String())
	if n := strings.Count(out, "\n"); err == nil && n != 1 {
		err = fmt.Errorf("%d routes to %s instead of one: %s", n, lab.SeedBranch, out)
	}
	return err
}

// wantVia waits until traffic sent after since passes exactly these appliances and
// loses nothing over half a second.
func (d *demo) wantVia(ctx context.Context, since time.Time, want ...string) error {
	return lab.Eventually(ctx, "traffic through "+strings.Join(want, " and "), func() error {
		r := d.traffic.Report(since)
		via := r.Via()
		ok := len(via) == len(want) && !slices.ContainsFunc(want, func(n string) bool { return via[n] == 0 })
		if r.Lost() > 0 || (r.Sent() > 0 && !ok) {
			since = time.Now() // packets from before the change; look afresh
		}
		if !ok || r.Lost() > 0 || r.Sent() < flows*rate/2 {
			return fmt.Errorf("of %d packets %d are lost, the others passed %s", r.Sent(), r.Lost(), viaText(r))
		}
		return nil
	})
}

func (d *demo) showRoute(ctx context.Context) error {
	return d.show(ctx, "ip", "route", "show", lab.SeedBranch.String())
}

// show runs a command in the host and shows it.
func (d *demo) show(ctx context.Context, name string, args ...string) error {
	out, err := d.Host.Run(ctx, name, args...)
	if err == nil {
		d.out.command("host", name+" "+strings.Join(args, " "), out)
	}
	return err
}

// ctl runs nexthopctl.
func (d *demo) ctl(ctx context.Context, args ...string) (string, error) {
	out, stderr, exit, err := d.daemon.CLI(ctx, args...)
	if err == nil && exit != 0 {
		err = fmt.Errorf("nexthopctl %s: exit status %d: %s", strings.Join(args, " "), exit, strings.TrimSpace(stderr))
	}
	return out, err
}

// hold keeps the lab up and tells how to play with it.
func (d *demo) hold(ctx context.Context) error {
	d.out.caption("HOLD=1: 10.1.0.4 is back, and the lab stays up until Ctrl-C")
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := d.kind(short, d.Seed, 0)
	if err := errors.Join(err, d.NVAs[0].SetForwarding(true)); err != nil {
		return err
	}
	d.nvas[0] = a
	if err := d.wantRoute(short, 0, 1); err != nil {
		return err
	}
	ctl, err := d.Binary("nexthopctl")
	if err != nil {
		return err
	}
	for _, line := range []string{
		"alias nexthopctl='" + ctl + " --socket " + d.daemon.Socket + "'",
		"nexthopctl status",
		"nexthopctl explain " + lab.SeedBranch.String(),
		"nexthopctl monitor",
		"ip -n " + d.Host.Namespace + " route",
		"ip -n " + d.NVAs[0].Namespace + " link set eth0 down",
		"ip netns exec " + d.Client.Namespace + " bash",
	} {
		d.out.print("  " + line)
	}
	for i, a := range d.nvas {
		switch a := a.(type) {
		case simulator:
			sim, err := d.Binary("nvasim")
			if err != nil {
				return err
			}
			d.out.print(fmt.Sprintf("  %s ctl %s announce %s prepend %d", sim, a.Socket, lab.SeedBranch, i))
		case frr:
			d.out.print("  vtysh --vty_socket " + a.Dir())
		}
	}
	d.out.print("  daemon's configuration: " + d.daemon.Config + ", namespaces: ip netns")
	<-ctx.Done()
	return nil
}

// logs shows what the daemon said, for a demo that failed.
func (d *demo) logs() {
	if d.daemon != nil && d.daemon.Proc != nil {
		d.out.command("host", "nexthopd's log", d.daemon.Proc.Log())
	}
}

func viaText(r lab.Report) string {
	via := r.Via()
	var parts []string
	for name, n := range via {
		parts = append(parts, fmt.Sprintf("%s (%d packets)", name, n))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, " and ")
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
