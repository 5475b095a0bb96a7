package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// failoverRoutes is how many routes have to move.
const failoverRoutes = 5000

// loss is a way to lose the first of two appliances.
type loss struct {
	name   string
	hold   time.Duration // offered by the appliance; 0: 180 s
	signal string        // as status tells it; empty: not asked
	lose   func(*testing.T, *bed, *nva.Session)
	// back undoes it; nil: the session ended, though the appliance went on forwarding, so
	// that no packet may be lost, and is to be opened anew.
	back func(*testing.T, *bed)
}

var losses = []loss{
	{name: "RST", signal: "session 10.1.0.4",
		lose: func(_ *testing.T, _ *bed, s *nva.Session) { s.Reset() }},
	{name: "FIN", signal: "session 10.1.0.4",
		lose: func(_ *testing.T, _ *bed, s *nva.Session) { s.Close() }},
	{name: "NOTIFICATION", signal: "session 10.1.0.4",
		lose: func(_ *testing.T, _ *bed, s *nva.Session) { s.Notify(6, 2, nil) }},
	{name: "hold timer", signal: "session 10.1.0.4", hold: 6 * time.Second,
		lose: func(_ *testing.T, _ *bed, s *nva.Session) { s.Silence() }},
	{name: "neighbour does not answer", signal: "neighbor 10.1.0.4",
		lose: func(t *testing.T, b *bed, _ *nva.Session) {
			must(t, b.NVAVNet[0].Cut())
			// What the kernel finds after some unanswered probes of its own, found at once.
			must(t, b.Host.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms=100", "net.ipv4.neigh.eth0.delay_first_probe_time=0",
				"net.ipv4.neigh.eth0.ucast_solicit=1", "net.ipv4.neigh.eth0.mcast_solicit=1"))
		},
		back: func(t *testing.T, b *bed) { must(t, b.NVAVNet[0].Mend()) }},
	{name: "way to the next hop gone",
		lose: func(t *testing.T, b *bed, _ *nva.Session) { must(t, b.Host.IP("route add unreachable 10.1.0.4/32")) },
		back: func(t *testing.T, b *bed) { must(t, b.Host.IP("route del unreachable 10.1.0.4/32")) }},
}

// S24: the loss of a peer or of a next hop moves all its prefixes at once, by rewriting
// groups alone: to the equal-cost next hop that remains, or to the next best path.
func TestS24_Failover(t *testing.T) {
	for _, standby := range []bool{false, true} {
		name := "ECMP"
		if standby {
			name = "active and standby"
		}
		for _, loss := range losses {
			t.Run("S24/"+name+"/"+loss.name, func(t *testing.T) { failover(t, standby, loss) })
		}
	}
}

func failover(t *testing.T, standby bool, loss loss) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	must(t, b.Host.Sysctl("net.ipv4.nexthop_compat_mode=0"))
	must(t, b.d.Restart(within(t))) // it reads the sysctl when it starts
	o := nva4(0)
	if loss.hold > 0 {
		o.Hold = loss.hold
	}
	first, second := b.dial(t, b.NVAs[0], o), b.dial(t, b.NVAs[1], nva4(1))
	many := append(prefixes(nva.IPv4, failoverRoutes-1), lab.SeedBranch)
	active := []netip.Addr{lab.SeedNVA(0), lab.SeedNVA(1)}
	backup := attrs(lab.SeedNVA(1), lab.SeedASN)
	if standby {
		active, backup.ASPath = active[:1], nva.Seq(lab.SeedASN, lab.SeedASN)
	}
	must(t, first.Write(first.Encode(many, attrs(lab.SeedNVA(0), lab.SeedASN))))
	must(t, second.Write(second.Encode(many, backup)))
	all := func() {
		t.Helper()
		b.route(t, many[0], active...)
		b.route(t, lab.SeedBranch, active...)
		poll(t, "all routes", func() error {
			st, err := b.d.Status(within(t))
			if err == nil && (st.FIB.Installed != failoverRoutes || !st.Ready) {
				err = fmt.Errorf("%d installed, ready %t", st.FIB.Installed, st.Ready)
			}
			return err
		})
		b.quiet(t)
	}
	all()

	tr := b.flows(t, lab.TrafficConfig{Flows: 16, Rate: 200})
	monitor := value(b.Host.Start("ip", "-4", "-o", "monitor", "route"))(t)
	since := time.Now()
	loss.lose(t, b, first)
	b.route(t, many[0], lab.SeedNVA(1))
	b.route(t, lab.SeedBranch, lab.SeedNVA(1))
	r := b.steady(t, tr, 300)
	if via := r.Via(); via["nva1"] > 0 {
		t.Errorf("packets still pass the lost appliance: %v", via)
	}
	r = tr.Report(since)
	t.Logf("%d of %d packets lost, longest interruption %s", r.Lost(), r.Sent(), r.Interruption())
	if loss.back == nil && r.Lost() > 0 {
		t.Errorf("%d of %d packets lost though the appliance went on forwarding", r.Lost(), r.Sent())
	}
	b.quiet(t)
	// The clean-up prefix by prefix found its work done.
	if n := strings.Count(monitor.Log(), "proto 165"); n > 0 {
		t.Errorf("%d routes were written for the loss of one appliance, want none: groups alone", n)
	}
	must(t, monitor.Kill())
	if loss.signal != "" {
		b.failedOver(t, loss.signal, failoverRoutes)
	}

	switch {
	case loss.back != nil:
		loss.back(t, b)
	case standby || loss.name != "RST":
		return // all of these come back alike, after GoBGP's five idle seconds
	default:
		first = b.dial(t, b.NVAs[0], nva4(0))
		must(t, first.Write(first.Encode(many, attrs(lab.SeedNVA(0), lab.SeedASN))))
	}
	all()
}

// S24: a lost link takes its next hops away without a word; what remains on another
// link carries everything.
func TestS24_LinkLoss(t *testing.T) {
	for _, how := range []struct {
		name       string
		down, back func(*lab.Iface) error
	}{
		{"no carrier", (*lab.Iface).Unplug, (*lab.Iface).Plug},
		{"set down", (*lab.Iface).Down, (*lab.Iface).Up},
	} {
		t.Run("S24/"+how.name, func(t *testing.T) {
			b := newBed(t, 2, hostConfig+nvaPeers(2))
			// A second way to the VNet for the second appliance alone.
			value(b.VNet.Attach(b.Host, "eth2", "10.9.0.1/24"))(t)
			value(b.VNet.Attach(b.NVAs[1], "eth2", "10.9.0.5/24"))(t)
			s := b.nvas(t, 2)
			many := append(prefixes(nva.IPv4, failoverRoutes-1), lab.SeedBranch)
			must(t, s[0].Write(s[0].Encode(many, attrs(lab.SeedNVA(0), lab.SeedASN))))
			must(t, s[1].Write(s[1].Encode(many, attrs(addr("10.9.0.5"), lab.SeedASN))))
			b.route(t, lab.SeedBranch, lab.SeedNVA(0), addr("10.9.0.5"))
			b.route(t, many[0], lab.SeedNVA(0), addr("10.9.0.5"))
			b.quiet(t)

			must(t, how.down(b.HostVNet))
			b.route(t, lab.SeedBranch, addr("10.9.0.5"))
			b.route(t, many[0], addr("10.9.0.5"))
			poll(t, "all routes", func() error {
				st, err := b.d.Status(within(t))
				if err == nil && st.FIB.Installed != failoverRoutes {
					err = fmt.Errorf("%d installed", st.FIB.Installed)
				}
				return err
			})
			if n := strings.Count(value(b.Host.Run(within(t), "ip", "-4", "-o", "route", "show", "proto", "165"))(t), "\n"); n != failoverRoutes {
				t.Errorf("the kernel has %d routes of ours, want %d", n, failoverRoutes)
			}
			b.failedOver(t, "link eth0", 0)
			must(t, how.back(b.HostVNet))
			b.route(t, lab.SeedBranch, lab.SeedNVA(0), addr("10.9.0.5"))
		})
	}
}

// failedOver waits until status tells of the failover by a signal, of so many prefixes (0:
// the kernel itself may have moved them first).
func (b *bed) failedOver(t *testing.T, signal string, prefixes int) {
	t.Helper()
	poll(t, "the failover by "+signal+" in status", func() error {
		last := value(b.d.Status(within(t)))(t).LastFailover
		if last == nil || last.Signal != signal || prefixes > 0 && (last.Groups == 0 || last.Prefixes != prefixes) {
			return fmt.Errorf("%+v, want one of %d prefixes", last, prefixes)
		}
		t.Logf("%d prefixes in %d groups moved in %d us", last.Prefixes, last.Groups, last.Microseconds)
		return nil
	})
}

// quiet waits until the daemon has nothing to do: what it counts stays the same.
func (b *bed) quiet(t *testing.T) {
	t.Helper()
	type counts struct{ groups, prefixes, received int }
	var before counts
	poll(t, "a daemon at rest", func() error {
		st := value(b.d.Status(within(t)))(t)
		now := counts{groups: st.FIB.Groups, prefixes: st.FIB.Prefixes}
		for _, p := range list[status.Peer](t, b, "peers") {
			now.received += p.Received
		}
		was := before
		if before = now; now != was {
			return fmt.Errorf("%+v, a moment ago %+v", now, was)
		}
		return nil
	})
}
