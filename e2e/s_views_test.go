package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// columns waits until a table of nexthopctl has a line with these cells, in this order
// and side by side.
func (b *bed) columns(t *testing.T, want []string, args ...string) {
	t.Helper()
	poll(t, "nexthopctl "+strings.Join(args, " "), func() error {
		out := b.cli(t, args...)
		for line := range strings.Lines(out) {
			if strings.Contains(" "+strings.Join(strings.Fields(line), " ")+" ", " "+strings.Join(want, " ")+" ") {
				return nil
			}
		}
		return fmt.Errorf("no line with %q in\n%s", want, out)
	})
}

// views is a bed for what can be seen: one appliance per session family.
func views(t *testing.T) (*bed, [2]*nva.Session) {
	t.Helper()
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("quagga", lab.SeedNVA(0), lab.SeedASN, "passive: true")+
		peer("six", lab.SeedNVA6(1), 65148, "passive: true"))
	o := nva6(1)
	o.ASN = 65148
	s := [2]*nva.Session{b.dial(t, b.NVAs[0], nva4(0)), b.dial(t, b.NVAs[1], o)}
	med := uint32(42)
	must(t, s[0].Announce(nva.Attrs{ASPath: nva.Seq(lab.SeedASN, 65001), MED: &med, Communities: []nva.Community{65147<<16 | 7}}, lab.SeedBranch))
	must(t, s[0].Announce(attrs(lab.SeedNVA6(0), lab.SeedASN), lab.SeedBranch6))
	must(t, s[1].Announce(attrs(lab.SeedNVA(1), 65148, 65002, 65003), lab.SeedBranch))
	must(t, s[1].Announce(attrs(lab.SeedNVA6(1), 65148), lab.SeedBranch6))
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	b.route(t, lab.SeedBranch6, lab.SeedNVA6(0), lab.SeedNVA6(1))
	return b, s
}

func TestS32toS36_Views(t *testing.T) {
	b, _ := views(t)
	heading := []string{"LocalAddress", "Network", "NextHop", "SourcePeer", "Origin", "AsPath", "Weight"}
	rows := [][]string{
		{"10.1.2.4", "192.168.255.0/24", "10.1.0.4", "10.1.0.4", "EBgp", "65147-65001", "32768"},
		{"10.1.2.4", "2001:db8:255::/64", "2001:db8:1::4", "10.1.0.4", "EBgp", "65147", "32768"},
		{"2001:db8:1::2:4", "192.168.255.0/24", "10.1.0.5", "2001:db8:1::5", "EBgp", "65148-65002-65003", "32768"},
		{"2001:db8:1::2:4", "2001:db8:255::/64", "2001:db8:1::5", "2001:db8:1::5", "EBgp", "65148", "32768"},
	}
	t.Run("S32/columns", func(t *testing.T) {
		for i, row := range rows {
			name, address := "quagga", "10.1.0.4"
			if i > 1 {
				name, address = "six", "2001:db8:1::5"
			}
			for _, args := range [][]string{{"learned"}, {"learned", name}, {"learned", address}} {
				b.columns(t, heading, args...)
				b.columns(t, row, args...)
			}
		}
		if out := b.cli(t, "learned", "quagga"); strings.Contains(out, "2001:db8:1::5") {
			t.Errorf("learned quagga shows another peer's:\n%s", out)
		}
	})
	t.Run("S32/ours", func(t *testing.T) {
		wide := b.cli(t, "learned", "-o", "wide")
		for _, want := range []string{"BEST", "INSTALLED", "REASON", "AGE", "COMMUNITIES", "MED"} {
			if !strings.Contains(wide, want) {
				t.Errorf("no column %s:\n%s", want, wide)
			}
		}
		for _, row := range list[status.Path](t, b, "learned") {
			best := row.Network != lab.SeedBranch.String() || row.Peer == "quagga"
			if row.Best != best || row.Installed != best || (row.Reason == "") != best {
				t.Errorf("%+v, want best and installed: %t", row, best)
			}
			if row.Network == lab.SeedBranch.String() && row.Peer == "quagga" &&
				(row.MED == nil || *row.MED != 42 || !slices.Equal(row.Communities, []string{"65147:7"}) || row.BGPOrigin != "igp") {
				t.Errorf("MED, communities, origin of %+v", row)
			}
			if age := time.Since(row.Since); age < 0 || age > patience {
				t.Errorf("age %s of %+v", age, row)
			}
		}
	})
	t.Run("S33/advertised", func(t *testing.T) {
		b.columns(t, heading, "advertised", "quagga")
		b.columns(t, []string{"10.1.2.4", "10.1.0.0/16", "10.1.2.4", "10.1.2.4", "Igp", "65515", "0"}, "advertised", "quagga")
		b.columns(t, []string{"10.1.2.4", "2001:db8:1::/64", "2001:db8:1::2:4", "10.1.2.4", "Igp", "65515", "0"}, "advertised", "10.1.0.4")
		b.columns(t, []string{"2001:db8:1::2:4", "10.1.0.0/16", "10.1.2.4", "2001:db8:1::2:4", "Igp", "65515", "0"}, "advertised", "six")
		b.columns(t, []string{"2001:db8:1::2:4", "192.168.255.0/24", "10.1.0.4", "10.1.0.4", "Igp", "65515-65147-65001", "0"}, "advertised", "six")
	})
	t.Run("S34/azure", func(t *testing.T) {
		for _, view := range []string{"learned", "advertised"} {
			out := b.cli(t, view, "quagga", "-o", "azure")
			var shape map[string][]map[string]any
			if err := json.Unmarshal([]byte(out), &shape); err != nil {
				t.Fatalf("%s -o azure: %v\n%s", view, err, out)
			}
			if len(shape) != 1 || len(shape["RouteServiceRole_IN_0"]) != 2 {
				t.Errorf("%s -o azure: want RouteServiceRole_IN_0 with 2 routes, and nothing else:\n%s", view, out)
			}
			for _, row := range shape["RouteServiceRole_IN_0"] {
				keys := slices.Sorted(maps.Keys(row))
				if want := []string{"asPath", "localAddress", "network", "nextHop", "origin", "sourcePeer", "weight"}; !slices.Equal(keys, want) {
					t.Errorf("keys %v, want %v", keys, want)
				}
				if row["network"] == lab.SeedBranch.String() && (row["asPath"] != "65147-65001" || row["weight"] != 32768.0 || row["origin"] != "EBgp") {
					t.Errorf("%s -o azure: %v", view, row)
				}
			}
		}
	})
	t.Run("S35/effective routes", func(t *testing.T) {
		must(t, b.Host.IP("route add default via 10.1.0.99", "route add blackhole 203.0.113.0/24"))
		b.columns(t, []string{"Source", "State", "Prefix", "NextHopType", "NextHopIP"}, "routes")
		for _, row := range [][]string{
			{"VirtualNetworkGateway", "Active", "192.168.255.0/24", "VirtualAppliance", "10.1.0.4"},
			{"VirtualNetworkGateway", "Active", "2001:db8:255::/64", "VirtualAppliance", "2001:db8:1::4"},
			{"VirtualNetworkGateway", "Active", "2001:db8:255::/64", "VirtualAppliance", "2001:db8:1::5"},
			{"Active", "0.0.0.0/0", "Internet", "10.1.0.99"},
			{"Active", "10.1.0.0/16", "VnetLocal", "-"},
			{"Active", "203.0.113.0/24", "None", "-"},
		} {
			b.columns(t, row, "routes")
		}
		n := 0
		for _, r := range list[status.Route](t, b, "routes") {
			if r.Prefix == lab.SeedBranch6.String() {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d rows for %s, want one per next hop", n, lab.SeedBranch6)
		}
		must(t, b.Host.IP("route del default", "route del 203.0.113.0/24"))
	})
	t.Run("S36/explain", func(t *testing.T) {
		for query, wants := range map[string][]string{
			"192.168.255.0/24": {
				"192.168.255.0/24 is installed with 1 next hop, from 1 of 2 paths", "quagga (10.1.0.4): used",
				"six (2001:db8:1::5): not used, lost at as-path-longer", "AS path length 3, the best has 2",
				"via 10.1.0.4 dev eth0 (host route 10.1.0.0/16)", "MED 42", "communities 65147:7", "proto nexthopd metric 20",
			},
			"192.168.255.10":      {"192.168.255.0/24", "192.168.255.10"}, // its prefix and the query
			"2001:db8:255::10":    {"2001:db8:255::/64", "used, shares the traffic", "via 2001:db8:1::4", "via 2001:db8:1::5"},
			"203.0.113.7":         {"no peer announces a prefix that contains 203.0.113.7"},
			"198.51.100.0/24":     {"198.51.100.0/24 is announced by no peer"},
			"10.1.0.77":           {"10.1.0.0/16"}, // the host's own way
			"2001:db8:255:1::/64": {"is announced by no peer"},
		} {
			_, text := b.explain(t, query)
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("explain %s does not say %q:\n%s", query, want, text)
				}
			}
		}
		if out, stderr, exit, err := b.d.CLI(within(t), "explain", "nonsense"); err != nil || exit == 0 || !strings.Contains(stderr, "nonsense") {
			t.Errorf("explain nonsense: exit status %d, %v, %q %q", exit, err, out, stderr)
		}
	})
	t.Run("S36/the kernel's last error", func(t *testing.T) {
		must(t, b.Host.IP("route replace 192.168.255.0/24 via 10.1.0.5 proto static metric 20"))
		b.learned(t, "quagga", lab.SeedBranch, reason("foreign-route"))
		x, text := b.explain(t, lab.SeedBranch.String())
		if x.LastError == "" || x.LastErrorAt == nil || x.Attempts == 0 || len(x.Foreign) != 1 || !strings.Contains(text, "last error") {
			t.Errorf("explain of a route that is in another's way: %+v\n%s", x, text)
		}
	})
}

// S37: the end of a session comes with its cause, in the list of peers, in the log and
// in the events.
func TestS37_Causes(t *testing.T) {
	// A peer per way to end: after each, GoBGP takes no connection for 5 s, and of one
	// peer no more than 5 ends in 30 s are logged at once.
	config := hostConfig + "peers:\n" + peer("frr", lab.SeedNVA(0), lab.SeedASN, "hold-time: 3s") +
		peer("silent", lab.SeedNVA(1), lab.SeedASN, "passive: true", "hold-time: 3s")
	b := newSeed(t, 2)
	own := func(i int) netip.Addr { return addr(fmt.Sprintf("2001:db8:1::4:%d", i)) }
	const peers = 9
	for i := range peers {
		must(t, b.NVAVNet[1].AddAddr(own(i).String()+"/64"))
		config += peer(fmt.Sprintf("nva%d", i), own(i), lab.SeedASN, "passive: true")
	}
	b.start(t, config)
	monitor := value(b.Host.Start(value(b.Binary("nexthopctl"))(t), "--socket", b.d.Socket, "monitor"))(t)
	poll(t, "the monitor runs", func() error {
		if !strings.Contains(monitor.Log(), "MESSAGE") {
			return errors.New("no heading yet")
		}
		return nil
	})
	r := b.router4(0)
	r.session = []string{"timers 1 3"}
	f := r.startFRR(t)
	b.up(t, "frr")
	// down waits for the cause in all three places.
	down := func(t *testing.T, name, cause, text string) {
		t.Helper()
		poll(t, "the cause at "+name, func() error {
			p := b.peerStatus(t, name)
			if p.LastDown == "" || !strings.Contains(p.LastDown, text) {
				return fmt.Errorf("last down %q, want %q", p.LastDown, text)
			}
			if p.LastDownAt == nil || time.Since(*p.LastDownAt) > patience {
				return fmt.Errorf("last down at %v", p.LastDownAt)
			}
			if cause == "" {
				return nil // an attempt, and no session, ended: nothing an operator is told of
			}
			for what, log := range map[string]string{"log": b.d.Proc.Log(), "monitor": monitor.Log()} {
				if !strings.Contains(log, text) {
					return fmt.Errorf("the %s does not say %q", what, text)
				}
			}
			if !strings.Contains(b.d.Proc.Log(), `"cause":"`+cause+`"`) {
				return fmt.Errorf("no cause %s in the log", cause)
			}
			return nil
		})
	}
	next := 0
	session := func(t *testing.T) (s *nva.Session, name string) {
		t.Helper()
		name = fmt.Sprintf("nva%d", next)
		s = b.dial(t, b.NVAs[1], options(own(next), lab.SeedHost6))
		next++
		b.up(t, name)
		return s, name
	}
	t.Run("S37/shutdown with a communication, FRR", func(t *testing.T) {
		value(f.Vtysh(within(t), "configure terminal", "router bgp 65147", "neighbor 10.1.2.4 shutdown message maintenance at nine"))(t)
		down(t, "frr", "notification-received", "Cease/Administrative Shutdown (6/2), as a Hard Reset: maintenance at nine")
		value(f.Vtysh(within(t), "configure terminal", "router bgp 65147", "no neighbor 10.1.2.4 shutdown"))(t)
		b.up(t, "frr")
	})
	t.Run("S37/hold timer, FRR behind a cut", func(t *testing.T) {
		must(t, b.NVAVNet[0].Cut())
		down(t, "frr", "hold-timer", "hold timer expired")
		must(t, b.NVAVNet[0].Mend())
	})
	t.Run("S37/hold timer, hung", func(t *testing.T) {
		b.dial(t, b.NVAs[1], nva4(1)).Silence()
		down(t, "silent", "hold-timer", "hold timer expired")
	})
	for _, tt := range []struct {
		name          string
		code, subcode uint8
		says          string
	}{
		{"administrative reset", 6, 4, "NOTIFICATION received: Cease/Administrative Reset (6/4)"},
		{"out of resources", 6, 8, "NOTIFICATION received: Cease/Out of Resources (6/8)"},
		{"hold timer of theirs", 4, 0, "NOTIFICATION received: Hold Timer Expired (4/0)"},
		{"malformed AS_PATH", 3, 11, "NOTIFICATION received: UPDATE Message Error/Malformed AS_PATH (3/11)"},
		{"unknown", 66, 6, "NOTIFICATION received: code 66 (66/6)"},
	} {
		t.Run("S37/"+tt.name, func(t *testing.T) {
			s, name := session(t)
			s.Notify(tt.code, tt.subcode, nil)
			down(t, name, "notification-received", tt.says)
		})
	}
	t.Run("S37/our NOTIFICATION", func(t *testing.T) {
		s, name := session(t)
		must(t, s.Write(slices.Repeat([]byte{0}, nva.HeaderLen))) // no marker
		down(t, name, "notification-sent", "NOTIFICATION sent: Message Header Error/Connection Not Synchronized (1/1)")
		var n nva.Notification
		if err := s.Err(); !errors.As(err, &n) || n.Code != 1 || n.Subcode != 1 {
			t.Errorf("the appliance saw %v", err)
		}
	})
	for how, end := range map[string]func(*nva.Session){"RST": (*nva.Session).Reset, "FIN": (*nva.Session).Close} {
		t.Run("S37/connection lost, "+how, func(t *testing.T) {
			s, name := session(t)
			end(s)
			down(t, name, "connection-lost", "the peer closed the connection, or it broke")
		})
	}
	t.Run("S37/wrong ASN", func(t *testing.T) {
		o := options(own(peers-1), lab.SeedHost6)
		o.ASN = 64999
		poll(t, "a refusal", func() error {
			var n nva.Notification
			if _, err := dialOnce(within(t), b.NVAs[1], o); !errors.As(err, &n) || n.Code != 2 || n.Subcode != 2 {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		down(t, fmt.Sprintf("nva%d", peers-1), "", "another ASN")
	})
}
