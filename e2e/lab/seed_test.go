package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// Traffic spreads over the appliances, tells which it passed, and shows an
// interruption when one dies without a sign.
func TestTrafficThroughAppliances(t *testing.T) {
	l := ForTest(t)
	ctx := testContext(t)
	s := value(NewSeed(l, 2))(t)
	for _, tt := range []struct {
		dst         netip.Addr
		both, other string
	}{
		{SeedServer, "route replace 192.168.255.0/24 nexthop via 10.1.0.4 nexthop via 10.1.0.5",
			"route replace 192.168.255.0/24 via 10.1.0.5"},
		{SeedServer6, "route replace 2001:db8:255::/64 nexthop via 2001:db8:1::4 nexthop via 2001:db8:1::5",
			"route replace 2001:db8:255::/64 via 2001:db8:1::5"},
	} {
		t.Run(tt.dst.String(), func(t *testing.T) {
			must(t, s.NVAs[0].SetForwarding(true))
			must(t, s.Host.IP(tt.both))
			tr := value(s.Traffic(TrafficConfig{Dst: tt.dst, Flows: 16, Rate: 200}))(t)
			start := time.Now()
			seen := func(enough int) {
				t.Helper()
				since := time.Now()
				must(t, Eventually(ctx, "packets", func() error {
					if r := tr.Report(since); r.Sent()-r.Lost() < enough {
						return fmt.Errorf("%d sent, %d lost", r.Sent(), r.Lost())
					}
					return nil
				}))
			}
			seen(500)
			r := tr.Report(start)
			if via := r.Via(); via["nva1"] == 0 || via["nva2"] == 0 || len(via) != 2 {
				t.Errorf("traffic passed %v, want nva1 and nva2", via)
			}
			for i, f := range r.Flows {
				if len(f.Via) != 1 {
					t.Errorf("flow %d passed %v, want one appliance", i, f.Via)
				}
			}
			death := time.Now()
			must(t, s.NVAs[0].SetForwarding(false))
			must(t, Eventually(ctx, "loss", func() error {
				if tr.Report(death).Lost() < 20 {
					return errors.New("too little is lost")
				}
				return nil
			}))
			must(t, s.Host.IP(tt.other))
			moved := time.Now()
			seen(500)
			r = tr.Stop()
			if r.Lost() == 0 || r.Interrupted() == 0 || r.Interrupted() == len(r.Flows) {
				t.Errorf("lost %d packets of %d flows, want some of some", r.Lost(), r.Interrupted())
			}
			if gap := r.Interruption(); gap < 10*time.Millisecond || gap > moved.Sub(death)+30*time.Second {
				t.Errorf("interruption of %s, and the route moved after %s", gap, moved.Sub(death))
			}
			if last := r.LastVia["nva1"]; last.Before(start) || last.After(moved) {
				t.Errorf("last packet through nva1 %s after its death", last.Sub(death))
			}
		})
	}
}
