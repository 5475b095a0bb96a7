package agent

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// A guard keeps a path from being installed and announced, counts it, and lets go of it
// when it is switched off for the peer, or when what it went by changes.
func TestGuards(t *testing.T) {
	own, martian, other, good := prefix("198.51.100.7/32"), prefix("127.0.0.0/8"), prefix("192.0.2.0/24"), prefix("192.0.3.0/24")
	bubble(t, "switched off and on", func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			for i := range c.Peers {
				c.Peers[i].Guards = config.Guards{Martian: true, OwnAddress: true, FirstAS: true}
			}
		})
		l.m.AddAddr(l.eth0, own)
		l.up(quagga, bird)
		l.announce(quagga, own, martian, good)
		strange := &rib.Attrs{NextHop: quagga, ASPath: rib.ASPath{{Type: rib.ASSequence, ASNs: []uint32{1}}}}
		l.announceWith(quagga, strange, other)
		l.announce(bird, other)
		l.settle()
		for p, why := range map[netip.Prefix]string{own: "own-address", martian: "martian-prefix", other: "first-as", good: "installed"} {
			l.expectReason("guarded", quagga, p, why)
		}
		l.expect("the other peer's path", other, "10.1.0.5")
		l.expectHeld("guarded", "10.1.0.4 127.0.0.0/8, 10.1.0.4 192.0.2.0/24, 10.1.0.4 198.51.100.7/32")
		want := map[string]int{"own-address": 1, "martian-prefix": 1, "first-as": 1}
		if p := l.a.Peers()[0]; !maps.Equal(p.Refused, want) || p.Received != 4 || p.Accepted != 1 {
			t.Errorf("refused %v, received %d, accepted %d, want %v, 4 and 1", p.Refused, p.Received, p.Accepted, want)
		}
		l.consistent()

		l.m.DelAddr(l.eth0, own)
		l.settle()
		l.expectReason("no address of the host any more", quagga, own, "installed")
		l.reload(func(c *config.Config) { c.Peers[0].Guards.Martian = false })
		l.expectReason("martians allowed", quagga, martian, "installed")
		l.expectReason("martians allowed", quagga, other, "first-as")
		l.reload(func(c *config.Config) { c.Peers[0].Guards = config.Guards{} })
		l.expect("none is left", other, "10.1.0.4", "10.1.0.5")
		l.expectHeld("none is left", "")
		l.reload(func(c *config.Config) { c.Peers[0].Guards = config.Guards{Martian: true} })
		l.expectReason("martians again", quagga, martian, "martian-prefix")
		if p := l.a.Peers()[0]; !maps.Equal(p.Refused, map[string]int{"martian-prefix": 1}) {
			t.Errorf("refused %v", p.Refused)
		}
		l.consistent()
	})
}
