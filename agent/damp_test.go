package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// A path that flaps is not used, and not announced to others, until it has been quiet; the
// loss of a session is no flap.
func TestDamping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			c.Peers[0].Damping = config.Damping{Enabled: true, HalfLife: 15 * time.Minute, Suppress: 3000, Reuse: 750, MaxSuppress: time.Hour}
		})
		l.up(quagga, bird)
		l.announceWith(bird, attrs(bird, 3), seed)
		for range 5 {
			l.announce(quagga, seed)
			l.expect("sessions come and go", seed, "10.1.0.4")
			l.lost(quagga, accident, seed)
			l.up(quagga)
		}
		l.announce(quagga, seed)
		for range 3 {
			l.expect("not too often", seed, "10.1.0.4")
			l.withdraw(quagga, seed)
			l.announce(quagga, seed)
		}
		l.settle()
		l.expect("too often", seed, "10.1.0.5")
		if got := l.reason(quagga, seed); got != "damped" {
			t.Errorf("learned: %q", got)
		}
		x, err := l.a.explain(t.Context(), seed.String())
		if err != nil || !strings.Contains(x.Paths[1].Detail, "penalty 2999, used again in 30m0s") && !strings.Contains(x.Paths[1].Detail, "penalty 3000, used again in 30m0s") {
			t.Errorf("explain: %s, %v", text(x), err)
		}
		l.announceWith(quagga, attrs(quagga, 2), seed)
		time.Sleep(29 * time.Minute)
		l.settle()
		l.expect("not yet", seed, "10.1.0.5")
		time.Sleep(2 * time.Minute)
		l.settle()
		l.expect("quiet for long", seed, "10.1.0.4")
		l.consistent()
		time.Sleep(time.Hour)
		l.atRest()
	})
}
