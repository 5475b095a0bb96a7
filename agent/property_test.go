package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// chaos does at random whatever peers, other programs and a kernel in trouble do.
type chaos struct {
	*lab
	rng      *rand.Rand
	prefixes []netip.Prefix
	up       map[netip.Addr]bool
	told     map[netip.Addr]map[netip.Prefix]*announced // and not withdrawn
	outlast  map[netip.Addr]bool                        // away for longer than a restart takes, and something is stale still
}

// announced is a path as the peer knows it.
type announced struct {
	attrs *rib.Attrs
	stale bool // before a graceful restart, and not again since
	long  bool // long-lived stale
}

func (c *chaos) prefix() netip.Prefix { return c.prefixes[c.rng.IntN(len(c.prefixes))] }

func (c *chaos) peer() netip.Addr {
	return []netip.Addr{quagga, bird, addr("10.1.0.6")}[c.rng.IntN(3)]
}

func (c *chaos) nextHop(p netip.Addr) netip.Addr {
	switch c.rng.IntN(8) {
	case 0:
		return addr("10.1.0.100") // a load balancer
	case 1:
		return addr("172.16.0.9") // reachable at times
	case 2:
		return addr("10.1.2.4") // our own
	}
	return p
}

func (c *chaos) change(p netip.Addr) {
	var changes []rib.Change
	for range 1 + c.rng.IntN(5) {
		x := c.prefix()
		if c.rng.IntN(3) == 0 {
			delete(c.told[p], x)
			changes = append(changes, rib.Change{Prefix: x})
			continue
		}
		at := attrs(c.nextHop(p), 1+c.rng.IntN(2))
		if c.rng.IntN(20) == 0 {
			at.ASPath[0].ASNs[0] = 65515
		}
		if c.rng.IntN(20) == 0 {
			at.Communities = []uint32{65535<<16 | 7} // NO_LLGR
		}
		c.told[p][x] = &announced{attrs: at}
		changes = append(changes, rib.Change{Prefix: x, Attrs: at})
	}
	c.a.Learned(p, changes)
}

// outlasts is what the speaker does when a restart takes longer than it should.
func (c *chaos) outlasts(p netip.Addr) {
	for x, path := range c.told[p] {
		switch {
		case !path.stale || path.long:
		case len(path.attrs.Communities) > 0:
			delete(c.told[p], x)
		default:
			path.long = true
		}
	}
	c.outlast[p] = c.stale(p)
	c.a.Session(session.Event{Peer: p, At: time.Now(), State: session.Idle, Previous: session.Active, Outlasted: true})
}

// stale tells whether paths of a peer are.
func (c *chaos) stale(p netip.Addr) bool {
	for _, path := range c.told[p] {
		if path.stale {
			return true
		}
	}
	return false
}

func (c *chaos) session(p netip.Addr) {
	e := session.Event{Peer: p, At: time.Now(), Families: []session.Family{session.IPv4}, LocalAddress: addr("10.1.2.4")}
	if !c.up[p] {
		c.up[p] = true
		e.State, e.Previous = session.Established, session.OpenConfirm
		if c.rng.IntN(4) > 0 {
			e.Preserved = families
		} else { // its forwarding state is lost
			c.dropStale(p)
		}
		e.LongLived = []session.LongLived{{Family: session.IPv4, Time: 100 * time.Hour, Preserved: len(e.Preserved) > 0}}
		c.a.Session(e)
		return
	}
	c.up[p] = false
	e.State, e.Previous = session.Idle, session.Established
	e.Graceful = c.rng.IntN(3) == 0
	c.a.PeerDown(p, e.Down, e.Graceful)
	c.pause()
	if !e.Graceful {
		c.withdrawAll(p)
	} else if !c.outlast[p] || !c.stale(p) {
		c.dropStale(p) // of the restart before
	}
	c.a.Session(e)
	for _, x := range c.told[p] {
		x.stale = true
	}
}

// withdrawAll is what the speaker does when a session is over for good, or a graceful
// restart takes too long.
func (c *chaos) withdrawAll(p netip.Addr) {
	var changes []rib.Change
	for x := range c.told[p] {
		changes = append(changes, rib.Change{Prefix: x})
	}
	clear(c.told[p])
	for half := range slices.Chunk(changes, 1+len(changes)/2) {
		c.a.Learned(p, half)
		c.pause()
	}
}

func (c *chaos) endOfRIB(p netip.Addr) {
	if !c.up[p] {
		return
	}
	c.a.EndOfRIB(p, session.IPv4)
	c.dropStale(p)
}

// dropStale forgets what is gone and need not be withdrawn.
func (c *chaos) dropStale(p netip.Addr) {
	for x, path := range c.told[p] {
		if path.stale {
			delete(c.told[p], x)
		}
	}
}

// model is what the agent should have learned, and how the FIB should see the peers.
func (c *chaos) model() (*rib.Table, func(fib.Source) fib.SourceState) {
	table := rib.NewTable()
	states := make(map[fib.Source]fib.SourceState)
	for _, p := range c.cfg.Peers {
		src := c.a.peers.byAddr[p.Address].source
		for x, path := range c.told[p.Address] {
			table.Update(src, []rib.Change{{Prefix: x, Attrs: path.attrs}}, 0)
			if path.stale {
				states[src] = fib.SourceStale
			}
			if path.long {
				paths := table.Paths(x)
				paths[slices.IndexFunc(paths, func(x rib.Path) bool { return x.Source == src })].LongLived = true
			}
		}
	}
	return table, func(s fib.Source) fib.SourceState { return states[s] }
}

// host does what an operator, another daemon or a cable does.
func (c *chaos) host() {
	leg := fib.Leg{Gateway: addr("10.1.0.7"), IfIndex: c.eth0}
	switch c.rng.IntN(12) {
	case 0:
		c.m.SetLink(c.eth0, false)
	case 1, 2:
		c.m.SetLink(c.eth0, true)
	case 3:
		c.m.ReplaceRoute(static(prefix("172.16.0.0/16"), 100, leg))
	case 4:
		c.m.DelRoute(static(prefix("172.16.0.0/16"), 100, leg))
	case 5:
		if p := c.prefix(); len(c.m.Routes(p, 254)) == 0 {
			c.m.ReplaceRoute(static(p, owner.Metric, leg))
		}
	case 6, 7:
		p := c.prefix()
		c.m.DelRoute(static(p, owner.Metric)) // whoever made it
	case 8:
		c.m.FlushProtocol(254, owner.Protocol)
	case 9:
		if snap, err := c.k.Kernel.Dump(nil); err == nil {
			for id := range snap.NextHops {
				c.m.DelNextHop(id)
				break
			}
		}
	case 10:
		if snap, err := c.k.Kernel.Dump(nil); err == nil {
			for id := range snap.Groups {
				c.m.DelNextHop(id)
				break
			}
		}
	case 11:
		c.m.Emit(fib.Event{Kind: fib.Overflow})
	}
}

func (c *chaos) fault() {
	switch c.rng.IntN(4) {
	case 0:
		c.k.FailOp(c.rng.IntN(5), []syscall.Errno{syscall.ENOMEM, syscall.EINVAL, syscall.ENETDOWN}[c.rng.IntN(3)], "")
	case 1:
		c.k.BreakAfter(c.rng.IntN(5), syscall.ENOBUFS)
	case 2:
		c.k.FailDump(errors.New("interrupted"))
	case 3:
		c.k.FailHost(errors.New("interrupted"))
	}
}

func (c *chaos) pause() {
	switch c.rng.IntN(4) {
	case 0:
		synctest.Wait()
	case 1:
		time.Sleep(time.Duration(c.rng.IntN(30)) * time.Millisecond)
	}
}

func (c *chaos) step() {
	switch n := c.rng.IntN(21); {
	case n < 9:
		if p := c.peer(); c.up[p] {
			c.change(p)
		}
	case n < 11:
		c.session(c.peer())
	case n < 13:
		if p := c.peer(); c.up[p] || c.rng.IntN(2) == 0 {
			c.endOfRIB(p)
		} else {
			c.withdrawAll(p)
		}
	case n < 14:
		if p := c.peer(); !c.up[p] {
			c.outlasts(p)
		}
	case n < 18:
		c.host()
	case n < 19:
		c.fault()
	}
	c.pause()
}

// Whatever happens, in whatever order: in the end the kernel has exactly what follows
// from the paths that are announced and the host as it is, and the agent is at rest.
func TestProperty(t *testing.T) {
	for seed := range uint64(150) {
		classic := seed%4 == 3
		bubble(t, fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			cfg := testConfig()
			cfg.Peers = append(cfg.Peers, config.Peer{Name: "third", Address: addr("10.1.0.6"), ASN: nvaASN})
			for i := range cfg.Peers {
				cfg.Peers[i].GracefulRestart.StaleTime = 24 * time.Hour
				cfg.Peers[i].GracefulRestart.LongLived = 24 * time.Hour
			}
			cfg.FIB.NextHopObjects = !classic
			m, eth0 := newHost()
			c := &chaos{
				rng:      rand.New(rand.NewPCG(seed, 1)),
				prefixes: append(many(12), prefix("172.16.0.0/24"), prefix("10.1.9.0/24"), prefix("0.0.0.0/0")),
				up:       map[netip.Addr]bool{}, told: map[netip.Addr]map[netip.Prefix]*announced{},
				outlast: map[netip.Addr]bool{},
			}
			for _, p := range cfg.Peers {
				c.told[p.Address] = map[netip.Prefix]*announced{}
			}
			for run := range 2 { // the second adopts what the first has left
				c.lab = startLab(t, cfg, m, eth0)
				for range 120 {
					c.step()
				}
				if run == 0 {
					_ = c.stop()
					clear(c.up)
					clear(c.outlast)
					for _, told := range c.told {
						clear(told)
					}
				}
			}
			m.SetLink(eth0, true)
			c.k.FailOps(nil)
			c.k.BreakAfter(1<<30, nil)
			c.k.FailDump(nil)
			c.k.FailHost(nil)
			time.Sleep(cfg.FIB.SweepAfter + time.Minute) // the sweep, and every back-off
			c.as(c.model())
			c.atRest()
			if t.Failed() {
				for _, line := range c.log.lines() {
					t.Log(line)
				}
			}
		})
	}
}

// The handlers are called from many goroutines at once, while everything is looked at.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			for i := range 6 {
				c.Peers = append(c.Peers, config.Peer{Name: fmt.Sprint("nva", i), Address: addr(fmt.Sprintf("10.1.0.%d", 20+i)), ASN: nvaASN, GracefulRestart: c.Peers[0].GracefulRestart})
			}
		})
		client, end := l.serve()
		var tasks sync.WaitGroup
		for _, p := range l.cfg.Peers {
			tasks.Go(func() { l.churn(p.Address) })
		}
		tasks.Go(func() {
			for i := range 200 {
				l.m.DelRoute(fib.Route{Prefix: many(200)[i], Table: 254, Metric: owner.Metric})
				l.m.SetCarrier(l.eth0, i%20 != 0)
				l.m.Emit(fib.Event{Kind: fib.Overflow})
			}
			l.m.SetCarrier(l.eth0, true)
		})
		for range 3 {
			tasks.Go(func() {
				for range 5 {
					for _, path := range []string{"/v1/status", "/v1/peers", "/v1/learned", "/v1/learned?peer=bird", "/v1/advertised", "/v1/routes", "/v1/explain?q=20.0.7.0/24"} {
						if code, body, _ := get(t, client, path); code != 200 {
							t.Errorf("GET %s: %d %s", path, code, body)
						}
					}
					_, _, _ = l.a.FIB(), l.a.Summary(), l.a.Healthy()
					_, _ = l.a.Ready()
				}
			})
		}
		tasks.Wait()
		time.Sleep(time.Minute)
		l.asFromScratch()
		end()
	})
}

// churn is the life of one peer: it comes, announces, and is lost, gracefully or not.
func (l *lab) churn(p netip.Addr) {
	at := attrs(p, 1)
	announce := make([]rib.Change, 0, 2000)
	withdraw := make([]rib.Change, 0, 2000)
	for _, x := range many(2000) {
		announce = append(announce, rib.Change{Prefix: x, Attrs: at})
		withdraw = append(withdraw, rib.Change{Prefix: x})
	}
	for round := range 4 {
		up := session.Event{Peer: p, State: session.Established, Previous: session.OpenConfirm, At: time.Now(), Families: []session.Family{session.IPv4}, Preserved: families}
		down := session.Event{Peer: p, State: session.Idle, Previous: session.Established, At: time.Now(), Graceful: round%2 == 1}
		l.a.Session(up)
		for part := range slices.Chunk(announce, 700) {
			l.a.Learned(p, part)
		}
		l.a.EndOfRIB(p, session.IPv4)
		l.a.PeerDown(p, down.Down, down.Graceful)
		if down.Graceful {
			l.a.Session(down)
			l.a.Session(up)
			l.a.Learned(p, announce[:1000])
			l.a.EndOfRIB(p, session.IPv4)
			l.a.PeerDown(p, accident, false)
			down.Graceful = false
		}
		for part := range slices.Chunk(withdraw, 700) {
			l.a.Learned(p, part)
		}
		l.a.Session(down)
	}
	l.a.Session(session.Event{Peer: p, State: session.Established, Previous: session.OpenConfirm, At: time.Now()})
	l.a.Learned(p, announce[:1500])
}
