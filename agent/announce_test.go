package agent

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

func (l *lab) expectHeld(when, want string) {
	l.t.Helper()
	l.settle()
	if got := l.sp.held(); got != want {
		l.t.Errorf("%s: withheld are %q, want %q", when, got, want)
	}
}

// S31: what does not forward here is not announced, and is again when it does.
func TestAnnounceWhatForwards(t *testing.T) {
	far := addr("172.31.0.9")
	quaggas, birds := "10.1.0.4 192.168.255.0/24", "10.1.0.5 192.168.255.0/24"
	bubble(t, "next hop", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announceWith(quagga, attrs(far, 1), seed)
		l.expectHeld("an unreachable next hop", quaggas)
		l.announce(bird, seed)
		l.expectHeld("and another path", quaggas)
		eth1 := l.m.AddLink("eth1", prefix("172.31.0.1/24"))
		l.expectHeld("it can be reached", "")
		l.m.SetLink(eth1, false)
		l.expectHeld("its link is down", quaggas)
		l.announceWith(bird, attrs(addr("10.1.2.4"), 1), seed)
		l.expectHeld("and bird's is ours", quaggas+", "+birds)
		l.announce(quagga, seed)
		l.expectHeld("quagga has another", birds)
		l.withdraw(bird, seed)
		l.expectHeld("bird withdrew", "")
		l.consistent()
		l.atRest()
	})
	bubble(t, "foreign route", func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed, prefix("192.168.1.0/24"))
		foreign := static(seed, owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0})
		l.m.ReplaceRoute(foreign)
		l.expectHeld("a foreign route has the key", quaggas)
		l.announce(bird, seed)
		l.expectHeld("and bird announced it", quaggas+", "+birds)
		l.m.DelRoute(foreign)
		l.expectHeld("it is gone", "")
		l.consistent()
	})
	bubble(t, "refused next hop", func(t *testing.T) {
		l := newLab(t, nil)
		l.k.FailOps(func(_ int, op fib.Op) *fib.OpError {
			if op.Kind == fib.NextHopAdd && op.Leg.Gateway == quagga {
				return &fib.OpError{Errno: syscall.EINVAL, Text: "Nexthop has invalid gateway"}
			}
			return nil
		})
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed)
		l.expectHeld("the kernel takes no next hop of quagga", quaggas)
		l.k.FailOps(nil)
		l.m.AddLink("eth1", prefix("172.31.0.1/24")) // makes it try again
		l.expectHeld("it does", "")
		l.consistent()
	})
	bubble(t, "guards", func(t *testing.T) {
		inside := prefix("10.1.9.0/24")
		l := newLab(t, nil)
		l.up(quagga)
		l.announce(quagga, inside)
		l.expectHeld("inside the VNet", "10.1.0.4 10.1.9.0/24")
		l.reload(func(c *config.Config) { c.VNet.AllowInside = []netip.Prefix{inside} })
		l.expectHeld("allowed there", "")
	})
	bubble(t, "announce: all", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.Announce = config.AnnounceAll })
		l.up(quagga)
		l.announceWith(quagga, attrs(far, 1), seed, prefix("10.1.9.0/24"))
		l.expectHeld("all", "10.1.0.4 10.1.9.0/24")
		l.reload(func(c *config.Config) { c.Announce = config.AnnounceForwarding })
		l.expectHeld("forwarding", "10.1.0.4 10.1.9.0/24, "+quaggas)
		l.reload(func(c *config.Config) { c.Announce = config.AnnounceAll })
		l.expectHeld("all again", "10.1.0.4 10.1.9.0/24")
	})
	bubble(t, "observe", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Mode = config.ModeObserve })
		l.m.AddRoute(static(seed, owner.Metric, fib.Leg{Gateway: addr("10.1.0.99"), IfIndex: l.eth0}))
		l.up(quagga)
		l.announce(quagga, seed)
		l.announceWith(quagga, attrs(far, 1), prefix("192.168.1.0/24"))
		l.expectHeld("the kernel has no say where nothing is written", "10.1.0.4 192.168.1.0/24")
	})
}
