package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

func (l *lab) doctor() status.Doctor {
	l.t.Helper()
	d, err := l.a.doctor(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

func TestDoctorOfAHostInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.a.opts.Rules = func() ([]fib.Rule, error) {
			return []fib.Rule{{Priority: 32766, Table: 254, Lookup: true, All: true}}, nil
		}
		l.up(quagga, bird)
		l.announce(quagga, seed, prefix("192.0.2.0/24"))
		l.announce(bird, seed)
		l.settle()
		d := l.doctor()
		if d.Compared != 1 || len(d.Differ) > 0 || d.IPv6 {
			t.Errorf("compared %d routes, differ %q, IPv6 %t, want the one with two next hops", d.Compared, d.Differ, d.IPv6)
		}
		if !slices.Equal(d.Legs, []string{"eth0"}) || len(d.SameProtocol)+len(d.SameMetric) > 0 {
			t.Errorf("legs %q, same protocol %q, same metric %q", d.Legs, d.SameProtocol, d.SameMetric)
		}
		want := status.DoctorPeer{
			Name: "quagga", Address: quagga, Way: []string{"via 10.1.0.4 dev eth0"}, Interfaces: []string{"eth0"}, MTU: 1500, Connected: "eth0",
		}
		if got := d.Peers[0]; got.Name != want.Name || !slices.Equal(got.Way, want.Way) || got.Connected != want.Connected || got.Captured != "" || got.Why != "" {
			t.Errorf("peer %+v, want %+v", got, want)
		}
		if len(d.Rules) != 1 || d.Rules[0].Priority != 32766 {
			t.Errorf("rules %+v", d.Rules)
		}
	})
}

func TestDoctorOfATroubledHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eth1 := 0
		l := newLab(t, func(c *config.Config, m *fibtest.Machine) {
			eth1 = m.AddLink("eth1", prefix("172.16.0.1/24"))
			c.Peers = append(c.Peers, config.Peer{Name: "far", Address: addr("203.0.113.9"), ASN: 1})
		})
		route := func(p string, table, metric uint32, protocol uint8, leg fib.Leg) {
			l.m.AddRoute(fib.Route{Prefix: prefix(p), Table: table, Metric: metric, Protocol: protocol, Type: rtnUnicast, Legs: []fib.Leg{leg}})
		}
		route("10.1.0.4/32", 254, 5, 4, fib.Leg{Gateway: addr("172.16.0.2"), IfIndex: eth1})
		route("198.51.100.0/24", 254, 7, 165, fib.Leg{Gateway: addr("172.16.0.2"), IfIndex: eth1})
		route("198.18.0.0/15", 254, 20, 12, fib.Leg{Gateway: addr("172.16.0.2"), IfIndex: eth1})
		l.settle()
		d := l.doctor()
		for _, tt := range []struct{ what, got, want string }{
			{"captured", d.Peers[0].Captured, "10.1.0.4/32 via 172.16.0.2 dev eth1 proto static metric 5 table 254"},
			{"not captured", d.Peers[1].Captured, ""},
			{"no way", d.Peers[2].Why, fib.Unreachable},
			{"same protocol", strings.Join(d.SameProtocol, "; "), "198.51.100.0/24 via 172.16.0.2 dev eth1 proto nexthopd metric 7 table 254"},
			{"same metric", strings.Join(d.SameMetric, "; "), "198.18.0.0/15 via 172.16.0.2 dev eth1 proto bird metric 20 table 254"},
		} {
			if tt.got != tt.want {
				t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
			}
		}
	})
}
