package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// fib.probe: the next hops in use and in reserve are asked for, and one that does not
// answer gets no traffic until it does.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Probe = time.Second })
		var asked [][]fib.Leg
		var refuse error
		probe := func(legs []fib.Leg) error {
			asked = append(asked, legs)
			return refuse
		}
		if err := l.a.do(t.Context(), func() { l.a.opts.Probe = probe }); err != nil {
			t.Fatal(err)
		}
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announceWith(bird, attrs(bird, 2), seed)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		legs := []fib.Leg{{Gateway: quagga, IfIndex: l.eth0}, {Gateway: bird, IfIndex: l.eth0}}
		if n := len(asked); n < 9 || n > 12 || !slices.Equal(asked[n-1], legs) {
			t.Errorf("asked in 10 s: %v, want about ten times %v", asked, legs)
		}
		l.expect("before", seed, "10.1.0.4")
		l.m.Emit(fib.Event{Kind: fib.NeighborFailed, Addr: quagga, IfIndex: l.eth0})
		l.settle()
		l.expect("no answer", seed, "10.1.0.5")
		time.Sleep(2 * avoidFor)
		l.settle()
		l.expect("no answer yet", seed, "10.1.0.5")
		if f := l.a.FIB(); f.Unanswered != 1 {
			t.Errorf("status: %s", text(f))
		}
		x, err := l.a.explain(t.Context(), seed.String())
		if err != nil || !strings.Contains(x.Paths[1].Resolution, "10.1.0.4 does not answer") {
			t.Errorf("explain: %s, %v", text(x), err)
		}
		l.m.Emit(fib.Event{Kind: fib.NeighborReachable, Addr: quagga, IfIndex: l.eth0})
		l.settle()
		l.expect("an answer", seed, "10.1.0.4")

		if err := l.a.do(t.Context(), func() { refuse = errors.New("no buffer space") }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(l.log.lines("cannot be probed")); n != 1 {
			t.Errorf("%d warnings: %q", n, l.log.lines())
		}
	})
}
