package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// stopTimeout is how long a daemon may take to end after SIGTERM: it may have to delete
// a million routes.
const stopTimeout = 90 * time.Second

// daemon is what is measured.
type daemon interface {
	// start returns when the daemon runs; its sessions may come up later.
	start(context.Context) error
	stop() error // SIGTERM
	kill() error // SIGKILL
	pids() []int
	// bfd has the sessions with the NVAs watched by BFD, times bfdMultiplier; 0: not.
	bfd(ctx context.Context, interval time.Duration) error
}

const bfdMultiplier = 3

// contender is a daemon and its settings, under the name of its column.
type contender struct {
	name   string
	sysctl []string // of the host
	phases []string // those that are run, at the largest size only; nil: all, at every size
	make   func(*network) daemon
}

// contenders are the columns, the first one ours. The last one shows what the kernel's
// default of nexthop_compat_mode costs us, for which a few rows are enough.
var contenders = []contender{
	{"nexthopd", []string{"net.ipv4.nexthop_compat_mode=0"}, nil, func(n *network) daemon { return &nexthopd{net: n} }},
	{"bird", nil, nil, func(n *network) daemon { return &bird{net: n} }},
	{"frr", nil, nil, func(n *network) daemon { return &frr{net: n} }},
	{"nexthopd-compat", []string{"net.ipv4.nexthop_compat_mode=1"}, []string{"reset"}, func(n *network) daemon { return &nexthopd{net: n} }},
}

// nexthopd with its defaults.
type nexthopd struct {
	net *network
	d   *lab.Daemon
}

func (d *nexthopd) config(bfd time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "asn: %d\nrouter-id: %s\nvnet: {prefixes: [%s]}\npeers:\n", hostASN, hostAddr(0), vnet)
	for i := range nvas {
		watch := ""
		if bfd > 0 {
			watch = fmt.Sprintf(", bfd: {enabled: true, interval: %s, multiplier: %d}", bfd, bfdMultiplier)
		}
		fmt.Fprintf(&b, "  - {name: nva%d, address: %s, asn: %d, passive: true, prefix-limit: 2000000%s}\n", i+1, nvaAddr(i), nvaASN, watch)
	}
	return b.String()
}

func (d *nexthopd) start(ctx context.Context) (err error) {
	if d.d != nil {
		return d.d.Launch(ctx)
	}
	var args []string
	if os.Getenv(profileEnv) != "" {
		args = []string{"--pprof", pprofAddr}
	}
	d.d, err = lab.StartDaemon(ctx, d.net.host, d.config(0), args...)
	return err
}

func (d *nexthopd) bfd(ctx context.Context, interval time.Duration) error {
	if err := d.d.SetConfig(d.config(interval)); err != nil {
		return err
	}
	_, stderr, code, err := d.d.CLI(ctx, "reload")
	if err == nil && code != 0 {
		err = errors.New("nexthopctl reload: " + stderr)
	}
	return err
}

func (d *nexthopd) stop() error { return d.d.Stop() }
func (d *nexthopd) kill() error { return d.d.Kill() }
func (d *nexthopd) pids() []int { return []int{d.d.Proc.PID()} }

// bird is BIRD 2: one thread, routes with a multipath attribute. It keeps its routes when
// it ends (persist) and may take them over when it starts (graceful restart, -R); that it
// waits with it for peers with graceful restart only is seen in the figures.
type bird struct {
	net *network
	b   *lab.BIRD
}

func (d *bird) config(bfd time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, `router id %s;
protocol device {}
protocol direct { ipv4; interface "eth*"; }
protocol kernel {
	merge paths yes limit 64;
	persist; graceful restart;
	ipv4 { import none; export where source = RTS_BGP; };
}
`, hostAddr(0))
	watch := ""
	if bfd > 0 {
		watch = "bfd;"
		fmt.Fprintf(&b, "protocol bfd { interface \"eth*\" { interval %d ms; multiplier %d; }; }\n", bfd.Milliseconds(), bfdMultiplier)
	}
	for i := range nvas {
		// direct: the session ends with its link. The timers only shorten the wait for a
		// new session, which is no part of any figure but the restarts.
		fmt.Fprintf(&b, `protocol bgp nva%d {
	local %s as %d;
	neighbor %s as %d;
	direct; passive yes; check link yes; %s
	connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv4 { import all; export where source = RTS_BGP; };
}
`, i+1, hostAddr(i), hostASN, nvaAddr(i), nvaASN, watch)
	}
	return b.String()
}

func (d *bird) bfd(ctx context.Context, interval time.Duration) error {
	return d.b.Configure(ctx, d.config(interval))
}

func (d *bird) start(ctx context.Context) (err error) {
	var args []string
	if d.b != nil {
		args = []string{"-R"}
	}
	d.b, err = lab.StartBIRD(ctx, d.net.host, d.config(0), args...)
	return err
}

func (d *bird) stop() error { return d.b.Proc.Stop(stopTimeout) }
func (d *bird) kill() error { return d.b.Proc.Kill() }
func (d *bird) pids() []int { return []int{d.b.Proc.PID()} }

// frr is FRR's bgpd, zebra and bfdd, whose routes name next-hop objects. zebra keeps its routes
// when it ends (-r) and, when it starts, for a while until bgpd has them again (-K).
type frr struct {
	net *network
	f   *lab.FRR
}

func (d *frr) config() lab.FRRConfig {
	var b strings.Builder
	// As Debian's default profile, but for what would delay it: timers of the datacenter
	// profile, and no waiting with announcements.
	fmt.Fprintf(&b, `router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp bestpath as-path multipath-relax
 bgp fast-external-failover
`, hostASN, hostAddr(0))
	for i := range nvas {
		fmt.Fprintf(&b, ` neighbor %[1]s remote-as %[2]d
 neighbor %[1]s passive
 neighbor %[1]s timers connect 1
 neighbor %[1]s advertisement-interval 0
`, nvaAddr(i), nvaASN)
	}
	b.WriteString(" address-family ipv4 unicast\n  maximum-paths 64\n exit-address-family\n")
	// The kernel takes the lost link's next hop out of zebra's group, which zebra does not
	// notice and would use again when the link is back: FRR 8.4 then stays on one NVA. It
	// makes a new group when the old one was unused for longer than this second.
	const zebra = "log stdout\nzebra nexthop-group keep 1\n"
	return lab.FRRConfig{BGPD: b.String(), Zebra: zebra, ZebraArgs: []string{"-r", "-K", "60"}, BFDD: "log stdout\n"}
}

func (d *frr) bfd(ctx context.Context, interval time.Duration) error {
	commands := []string{"configure terminal", fmt.Sprintf("router bgp %d", hostASN)}
	for i := range nvas {
		no, timers := "", fmt.Sprintf(" %d %d %[2]d", bfdMultiplier, interval.Milliseconds())
		if interval == 0 {
			no, timers = "no ", ""
		}
		commands = append(commands, fmt.Sprintf("%sneighbor %s bfd%s", no, nvaAddr(i), timers))
	}
	_, err := d.f.Vtysh(ctx, commands...)
	return err
}

func (d *frr) start(ctx context.Context) (err error) {
	d.f, err = lab.StartFRR(ctx, d.net.host, d.config())
	return err
}

func (d *frr) stop() error {
	// At the same time, as Debian's script does.
	return errors.Join(d.f.BGPD.Signal(syscall.SIGTERM), d.f.BFDD.Signal(syscall.SIGTERM),
		d.f.Zebra.Stop(stopTimeout), d.f.BGPD.Stop(stopTimeout), d.f.BFDD.Stop(stopTimeout))
}

func (d *frr) kill() error { return d.f.Kill() }
func (d *frr) pids() []int { return []int{d.f.BGPD.PID(), d.f.Zebra.PID(), d.f.BFDD.PID()} }

// usage is what a daemon has taken of the machine.
type usage struct {
	cpu       time.Duration
	rss, peak uint64 // bytes
}

// usageOf reads /proc (proc(5)) and sums over processes.
func usageOf(pids []int) (u usage, err error) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return u, err
		}
		// The second field, in parentheses, may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		const utime, stime = 14 - 3, 15 - 3 // fields of stat(5), less those before
		for _, i := range []int{utime, stime} {
			ticks, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return u, err
			}
			u.cpu += time.Duration(ticks) * time.Second / 100 // USER_HZ
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(string(status)) {
			var kb uint64
			if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
				u.rss += kb << 10
			} else if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
				u.peak += kb << 10
			}
		}
	}
	return u, nil
}

// waitIdle waits until the daemon has used hardly any CPU for half a second, so that what
// follows does not measure what came before; or for so long at most.
func waitIdle(ctx context.Context, d daemon, most time.Duration) error {
	const step, still = 250 * time.Millisecond, 2
	last := time.Duration(-1)
	for n, start := 0, time.Now(); n < still && time.Since(start) < most; {
		u, err := usageOf(d.pids())
		if err != nil {
			return err
		}
		if n++; u.cpu-last > step/20 {
			n = 0
		}
		last = u.cpu
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(step):
		}
	}
	return nil
}

// versions says what is measured, by column.
func versions(names []string) map[string]string {
	v := map[string]string{}
	for _, name := range names {
		var cmd *exec.Cmd
		switch name {
		case "bird":
			cmd = exec.Command("bird", "--version")
		case "frr":
			cmd = exec.Command("/usr/lib/frr/bgpd", "--version")
		default:
			continue
		}
		out, err := cmd.CombinedOutput()
		if err == nil {
			v[name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		}
	}
	return v
}
