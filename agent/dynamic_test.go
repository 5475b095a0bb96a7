package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// Two addresses of the range, and one outside.
var branch1, branch2, outside = addr("10.1.8.1"), addr("10.1.8.2"), addr("10.1.9.1")

func dynamicLab(t *testing.T, limit int) *lab {
	l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
		like := c.Peers[0]
		like.Name, like.Address = "branch", like.LocalAddress
		c.DynamicPeers = []config.DynamicPeers{{Range: prefix("10.1.8.0/24"), Limit: limit, Like: like}}
	})
	l.up(quagga, bird)
	l.sp.asked()
	return l
}

// names lists the peers as the operator sees them.
func (l *lab) names() string {
	var names []string
	for _, p := range l.a.Peers() {
		if p.Dynamic {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (l *lab) connects(a ...string) {
	l.t.Helper()
	for _, s := range a {
		l.a.Stranger(addr(s), 0)
	}
	l.settle()
}

func (l *lab) status() status.Status {
	l.t.Helper()
	s, err := l.a.Status(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// A peer comes by a range, is one like all others, and makes room when it left.
func TestDynamicPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := dynamicLab(t, 2)
		l.a.Stranger(outside, 0)
		l.settle()
		l.expectCalls("outside", "")
		l.connects("10.1.8.1", "10.1.8.1")
		l.connects("10.1.8.1")
		l.expectCalls("came", "add 10.1.8.1")
		if got := l.names(); got != "branch-10.1.8.1" {
			t.Errorf("dynamic peers: %s", got)
		}
		if s := l.status(); s.Peers.Configured != 2 || len(s.Degraded) != 0 {
			t.Errorf("not up yet: %+v, %v", s.Peers, s.Degraded)
		}
		l.up(branch1)
		l.announce(branch1, seed)
		l.expect("up", seed, "10.1.8.1")
		if s := l.status(); s.Peers.Configured != 3 || s.Peers.Established != 3 {
			t.Errorf("up: %+v", s.Peers)
		}

		l.connects("10.1.8.2", "10.1.8.3")
		l.expectCalls("one more than the limit", "add 10.1.8.2")
		if n := len(l.log.lines("event=dynamic-refused", "prefix=10.1.8.0/24", "limit=2", "address=10.1.8.3")); n != 1 {
			t.Errorf("%d records of the one refused, want 1", n)
		}
		time.Sleep(dynamicNever + dynamicLook) // it was never up
		l.settle()
		l.expectCalls("never came", "remove 10.1.8.2")

		l.down(branch1)
		l.withdraw(branch1, seed)
		l.idle(branch1)
		time.Sleep(dynamicGone - time.Minute)
		l.expect("down", seed)
		if s := l.status(); s.Peers.Configured != 2 || len(s.Degraded) != 0 || l.names() == "" {
			t.Errorf("left: %+v, %v, %q", s.Peers, s.Degraded, l.names())
		}
		time.Sleep(time.Minute + dynamicLook)
		l.settle()
		l.expectCalls("gone", "remove 10.1.8.1")
		if l.names() != "" {
			t.Errorf("still there: %s", l.names())
		}
		l.consistent()
	})
}

// Sources are few: those of peers that are long gone are given to others.
func TestDynamicSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := dynamicLab(t, 2)
		for i := range 50 {
			a := fmt.Sprintf("10.1.8.%d", i+1)
			l.connects(a)
			l.up(addr(a))
			l.announce(addr(a), seed)
			l.expect(a, seed, a)
			l.down(addr(a))
			l.idle(addr(a))
			time.Sleep(dynamicGone + sourceRest + 2*dynamicLook)
		}
		l.a.mu.Lock()
		defer l.a.mu.Unlock()
		if n := len(l.a.peers.bySource); n > 4 {
			t.Errorf("%d sources for one dynamic peer at a time", n)
		}
	})
}

// What keeps a peer: its session, a graceful restart, an operator who shut it down.
func TestDynamicStays(t *testing.T) {
	for name, keep := range map[string]func(l *lab){
		"up":         func(*lab) {},
		"restarting": func(l *lab) { l.restarting(branch1) },
		"shut down": func(l *lab) {
			l.expectPost(status.PathPeer, `{"peer":"branch-10.1.8.1","action":"disable"}`, 200)
			l.idle(branch1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := dynamicLab(t, 1)
				l.connects("10.1.8.1")
				l.up(branch1)
				l.announce(branch1, seed)
				keep(l)
				time.Sleep(dynamicGone + 2*dynamicLook)
				if l.names() != "branch-10.1.8.1" {
					t.Errorf("it is gone: %q", l.names())
				}
			})
		})
	}
}

func TestDynamicReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := dynamicLab(t, 2)
		l.connects("10.1.8.1", "10.1.8.2")
		l.up(branch1, branch2)
		l.announce(branch1, seed)
		l.announce(branch2, seed)
		l.expect("up", seed, "10.1.8.1", "10.1.8.2")

		l.reload(func(c *config.Config) { c.BranchToBranch = true })
		l.expectCalls("something else", "branch-to-branch true")
		ranges := l.a.config().DynamicPeers
		l.reload(func(c *config.Config) {
			other := ranges[0]
			other.Like.HoldTime = 30 * time.Second
			c.DynamicPeers = []config.DynamicPeers{other}
		})
		l.expectCalls("timers", "update 10.1.8.1, update 10.1.8.2")
		l.reload(func(c *config.Config) {
			own := ranges[0].Like
			own.Name, own.Address = "mine", branch1
			c.Peers, c.DynamicPeers = append(c.Peers, own), nil
		})
		l.expectCalls("named, and range removed", "remove 10.1.8.2, update 10.1.8.1")
		l.expect("named, and range removed", seed, "10.1.8.1")
		for _, p := range l.a.Peers() {
			if p.Dynamic || p.Address == branch1 && (p.Name != "mine" || p.State != string(session.Established)) {
				t.Errorf("peer %+v", p)
			}
		}
		l.consistent()
	})
}
