package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// manyRoutes is how many routes the restarts are tried with.
const manyRoutes = 10_000

// crowded is the seed network with the simulator and BIRD, which both announce the two
// branches and many prefixes more.
type crowded struct {
	*bed
	sim  *lab.Simulator
	many []netip.Prefix
}

func newCrowded(t *testing.T, config string) *crowded {
	t.Helper()
	requireBIRD(t)
	c := &crowded{many: prefixes(nva.IPv4, manyRoutes-2)}
	c.bed = newBed(t, 2, hostConfig+config+"peers:\n"+
		peer("sim", lab.SeedNVA(0), lab.SeedASN)+peer("bird", lab.SeedNVA(1), lab.SeedASN))
	c.sim = value(lab.StartSimulator(within(t), c.NVAs[0], lab.SeedNVA(0), lab.SeedHost, lab.SeedASN,
		"announce "+lab.SeedBranch.String(),
		"announce "+lab.SeedBranch6.String()+" nexthop "+lab.SeedNVA6(0).String()))(t)
	for rest := c.many; len(rest) > 0; {
		n := min(1000, len(rest))
		c.command(t, "announce", rest[:n]...)
		rest = rest[n:]
	}
	r := c.router4(1, append(c.many, lab.SeedBranch, lab.SeedBranch6)...)
	r.session = []string{"graceful restart on"}
	r.startBIRD(t)
	c.complete(t)
	return c
}

// command tells the simulator to announce or withdraw prefixes.
func (c *crowded) command(t *testing.T, verb string, list ...netip.Prefix) {
	t.Helper()
	for _, p := range list {
		verb += " " + p.String()
	}
	value(c.sim.Command(within(t), verb))(t)
}

// complete waits until both peers have announced everything, and everything is in order.
func (c *crowded) complete(t *testing.T) {
	t.Helper()
	poll(t, "all routes, with both next hops", func() error {
		st, err := c.d.Status(within(t))
		if err != nil {
			return err
		}
		if !st.Ready || st.FIB.Sweep != "done" || st.FIB.Installed != manyRoutes {
			return fmt.Errorf("ready %t (%s), sweep %s, %d installed", st.Ready, st.NotReady, st.FIB.Sweep, st.FIB.Installed)
		}
		for _, p := range list[status.Peer](t, c.bed, "peers") {
			if p.Received != manyRoutes {
				return fmt.Errorf("%d received from %s", p.Received, p.Name)
			}
		}
		return nil
	})
	for _, p := range []netip.Prefix{lab.SeedBranch, c.many[0], c.many[len(c.many)-1]} {
		c.route(t, p, lab.SeedNVA(0), lab.SeedNVA(1))
	}
	c.route(t, lab.SeedBranch6, lab.SeedNVA6(0), lab.SeedNVA6(1))
}

// count is how many routes of ours the kernel has.
func (c *crowded) count(t *testing.T) int {
	t.Helper()
	n := 0
	for _, family := range []string{"-4", "-6"} {
		out := value(c.Host.Run(within(t), "ip", family, "-o", "route", "show", "proto", "165"))(t)
		n += strings.Count(out, "\n")
	}
	return n
}

// S25: with 10,000 routes, SIGTERM, SIGKILL and a new start lose no packet of a flow
// that runs through one of them; no route is deleted or changed.
func TestS25_Restart(t *testing.T) {
	for _, mode := range fibModes {
		t.Run(mode.name, func(t *testing.T) {
			c := newCrowded(t, mode.config)
			t4 := c.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
			t6 := c.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300, Dst: lab.SeedServer6})
			for _, end := range []struct {
				name string
				do   func() error
			}{{"SIGTERM", c.d.Stop}, {"SIGKILL", c.d.Kill}} {
				t.Run("S25/"+end.name, func(t *testing.T) {
					monitor := value(c.Host.Start("ip", "-o", "monitor", "route"))(t)
					since := time.Now()
					must(t, end.do())
					if n := c.count(t); n != manyRoutes {
						t.Errorf("%d routes after the end of the daemon, want %d", n, manyRoutes)
					}
					time.Sleep(500 * time.Millisecond) // the peers notice, and the traffic goes on
					started := time.Now()
					must(t, c.d.Launch(within(t)))
					if n := c.count(t); n != manyRoutes {
						t.Errorf("%d routes after the start, want %d", n, manyRoutes)
					}
					c.complete(t)
					t.Logf("complete %s after the start", time.Since(started).Round(time.Millisecond))
					for name, tr := range map[string]*lab.Traffic{"IPv4": t4, "IPv6": t6} {
						c.steady(t, tr, 300)
						if r := tr.Report(since); r.Lost() > 0 {
							t.Errorf("%s: %d of %d packets lost, interruption %s", name, r.Lost(), r.Sent(), r.Interruption())
						} else {
							t.Logf("%s: none of %d packets lost", name, r.Sent())
						}
					}
					if n := strings.Count(monitor.Log(), "Deleted"); n > 0 {
						t.Errorf("%d routes were deleted meanwhile", n)
					}
					must(t, monitor.Kill())
				})
			}
		})
	}
}

// S25: what nobody announced again goes after End-of-RIB from the peers, or at the
// deadline, and never before.
func TestS25_Sweep(t *testing.T) {
	c := newCrowded(t, "")
	gone := c.many[:100]
	t.Run("S25/End-of-RIB", func(t *testing.T) {
		// One peer stops announcing while the daemon is away: one next hop is left.
		must(t, c.d.Kill())
		c.command(t, "withdraw", gone...)
		must(t, c.d.Launch(within(t)))
		c.route(t, gone[0], lab.SeedNVA(1))
		c.route(t, c.many[200], lab.SeedNVA(0), lab.SeedNVA(1))
		c.command(t, "announce", gone...)
		c.complete(t)
	})
	extra := prefix("172.16.0.0/24")
	t.Run("S25/nobody", func(t *testing.T) {
		c.command(t, "announce", extra)
		c.route(t, extra, lab.SeedNVA(0))
		must(t, c.d.Kill())
		c.command(t, "withdraw", extra)
		must(t, c.d.Launch(within(t)))
		c.route(t, extra)
		c.complete(t)
	})
	t.Run("S25/deadline", func(t *testing.T) {
		const sweepAfter = 6 * time.Second
		c.command(t, "announce", extra)
		c.route(t, extra, lab.SeedNVA(0))
		must(t, c.d.Stop())
		must(t, c.d.SetConfig(hostConfig+fmt.Sprintf("fib: {sweep-after: %s}\npeers:\n", sweepAfter)+
			peer("sim", lab.SeedNVA(0), lab.SeedASN)+peer("bird", lab.SeedNVA(1), lab.SeedASN)))
		must(t, c.sim.Proc.Kill()) // it stays away
		start := time.Now()
		must(t, c.d.Launch(within(t)))
		c.up(t, "bird")
		poll(t, "the deadline", func() error {
			// The state before the clock: what is seen after the deadline may be gone.
			n, st := c.count(t), value(c.d.Status(within(t)))(t)
			if time.Since(start) < sweepAfter-time.Second {
				if n != manyRoutes+1 || st.Ready || st.NotReady == "" || st.FIB.Sweep != "pending" {
					t.Errorf("before the deadline: %d routes, ready %t, %+v", n, st.Ready, st.FIB)
				}
			}
			if !st.Ready || n != manyRoutes {
				return fmt.Errorf("%d routes, ready %t: %s", n, st.Ready, st.NotReady)
			}
			return nil
		})
		c.route(t, extra)
		c.route(t, lab.SeedBranch, lab.SeedNVA(1))
		c.route(t, lab.SeedBranch6, lab.SeedNVA6(1))
		c.route(t, c.many[0], lab.SeedNVA(1))
	})
	t.Run("S25/nexthopd flush", func(t *testing.T) {
		bin := value(c.Binary("nexthopd"))(t)
		if out, err := c.Host.Run(within(t), bin, "flush", "--config", c.d.Config); err == nil || !strings.Contains(err.Error(), "nexthopd") {
			t.Errorf("flush while the daemon runs: %v %s; want a refusal that names it", err, out)
		}
		must(t, c.d.Stop())
		if n := c.count(t); n != manyRoutes {
			t.Errorf("%d routes after the stop, want %d", n, manyRoutes)
		}
		must(t, c.Host.IP("route add 203.0.113.0/24 via 10.1.0.4 proto 165 metric 21"))
		t.Log(value(c.Host.Run(within(t), bin, "flush", "--config", c.d.Config))(t))
		if left := c.ours(t); strings.Count(left, "\n") != 1 || !strings.Contains(left, "203.0.113.0/24") {
			t.Errorf("after the flush, want the foreign route alone:\n%s", left)
		}
		must(t, c.Host.IP("route del 203.0.113.0/24 proto 165 metric 21"))
		must(t, c.d.Start(within(t)))
	})
	t.Run("S25/on-stop flush", func(t *testing.T) {
		must(t, c.d.Stop())
		must(t, c.d.SetConfig(hostConfig+"fib: {on-stop: flush, sweep-after: 6s}\npeers:\n"+peer("bird", lab.SeedNVA(1), lab.SeedASN)))
		must(t, c.d.Launch(within(t)))
		c.route(t, lab.SeedBranch, lab.SeedNVA(1))
		must(t, c.d.Stop())
		if left := c.ours(t); left != "" {
			t.Errorf("left behind: %d lines, %s", strings.Count(left, "\n"), firstLine(left))
		}
		must(t, c.d.Start(within(t)))
	})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// Issue 2: a full table from two NVAs has both next hops everywhere; the daemon then
// rests, and nothing of ours is left when all is withdrawn.
func TestS14_FullTable(t *testing.T) {
	const n = 100_000
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	s := b.nvas(t, 2)
	all := prefixes(nva.IPv4, n)
	load := time.Now()
	for i := range s {
		go func() { _ = s[i].Write(s[i].Encode(all, attrs(lab.SeedNVA(i), lab.SeedASN))) }()
	}
	installed := func(want int) error {
		st, err := b.d.Status(within(t))
		if err == nil && (st.FIB.Installed != want || st.FIB.Prefixes != want) {
			err = fmt.Errorf("%d known, %d installed", st.FIB.Prefixes, st.FIB.Installed)
		}
		return err
	}
	poll(t, "100,000 routes", func() error { return installed(n) })
	// Routes name a group: find those with both next hops, and count who names another.
	groups := map[string]bool{}
	poll(t, "both next hops on all of them", func() error {
		out := value(b.Host.Run(within(t), "ip", "-4", "-o", "route", "show", "proto", "165"))(t)
		seen, single, sample := 0, 0, ""
		for line := range strings.Lines(out) {
			seen++
			f := strings.Fields(line)
			id := f[2]
			if both, ok := groups[id]; ok && both {
				continue
			}
			gws, err := b.Host.Gateways(within(t), prefix(f[0]))
			if groups[id] = err == nil && len(gws) == 2; !groups[id] {
				single, sample = single+1, line
				if single > 10 {
					break
				}
			}
		}
		if seen != n || single > 0 {
			return fmt.Errorf("%d routes, and some (%d) without both: %s", seen, single, sample)
		}
		return nil
	})
	t.Logf("loaded and checked in %s, with %d groups; %d MB resident", time.Since(load).Round(10*time.Millisecond), len(groups), residentMB(t, b.d.Proc.PID()))
	t.Run("idle", func(t *testing.T) {
		const window = 3 * time.Second
		poll(t, "rest", func() error {
			before := cpuTime(t, b.d.Proc.PID())
			time.Sleep(window)
			used := cpuTime(t, b.d.Proc.PID()) - before
			t.Logf("%s of CPU in %s", used, window)
			if used > window/20 {
				return fmt.Errorf("the daemon used %s of CPU in %s, with nothing to do", used, window)
			}
			return nil
		})
	})
	t.Run("withdrawal", func(t *testing.T) {
		start := time.Now()
		for i := range s {
			must(t, s[i].Withdraw(all...))
		}
		poll(t, "no route", func() error { return installed(0) })
		poll(t, "no object of ours", func() error {
			if left := b.ours(t); left != "" {
				return errors.New(firstLine(left))
			}
			return nil
		})
		t.Logf("withdrawn in %s", time.Since(start).Round(10*time.Millisecond))
		if st := value(b.d.Status(within(t)))(t); st.FIB.Groups != 0 || st.FIB.NextHops != 0 || st.FIB.Desired != 0 {
			t.Errorf("status after the withdrawal: %+v", st.FIB)
		}
	})
}
