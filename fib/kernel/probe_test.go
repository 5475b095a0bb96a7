package kernel

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

// A neighbour that is there answers, one that is gone fails, and a permanent one is left
// alone.
func TestProbe(t *testing.T) {
	h := newHost(t)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.1.2.4/16"), netip.MustParsePrefix("fd00:1::4/64"))
	k := openTest(t, testOwner, false)
	events := watch(t, k)
	leg := func(a string) fib.Leg { return fib.Leg{Gateway: netip.MustParseAddr(a), IfIndex: v0} }
	legs := []fib.Leg{leg("10.1.0.4"), leg("fd00:1::a"), leg("10.1.0.9"), leg("10.1.0.5"), leg("fd00:1::b")}
	for _, l := range legs[:3] {
		h.ip("neigh add %s lladdr 02:00:00:00:00:01 nud reachable dev v0", l.Gateway)
	}
	h.ip("neigh change 10.1.0.9 lladdr 02:00:00:00:00:01 nud permanent dev v0")
	if err := k.Probe(legs); err != nil {
		t.Fatalf("Probe: %v", err)
	}
	// Nobody answers on the other end of the link.
	failed := map[netip.Addr]bool{}
	deadline := time.After(2 * time.Minute)
	for len(failed) < 4 {
		select {
		case e := <-events:
			if e.Kind == fib.NeighborFailed {
				failed[e.Addr] = true
			}
		case <-deadline:
			t.Fatalf("only these failed: %v", failed)
		}
	}
	if failed[legs[2].Gateway] {
		t.Error("the permanent neighbour failed")
	}
	if out, err := exec.Command("ip", "neigh", "show", "10.1.0.9").Output(); err != nil || !strings.Contains(string(out), "PERMANENT") {
		t.Errorf("the permanent neighbour is %q, %v", out, err)
	}
	if err := k.Probe(append(legs, fib.Leg{Gateway: legs[0].Gateway, IfIndex: 4711})); err != nil {
		t.Errorf("Probe on a link that is gone: %v", err)
	}
}
