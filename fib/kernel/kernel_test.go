package kernel

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
	"github.com/nexthopd/nexthopd/internal/netnstest"
	"github.com/vishvananda/netlink"
)

func TestContract(t *testing.T) {
	netnstest.RequireRoot(t)
	fibtest.RunContract(t, func(t *testing.T) fibtest.Harness { return newHost(t) })
}

// The same with net.ipv4.nexthop_compat_mode=0, where the kernel's dumps and events do
// not say where a route with a group leads.
func TestContractWithoutCompatMode(t *testing.T) {
	netnstest.RequireRoot(t)
	fibtest.RunContract(t, func(t *testing.T) fibtest.Harness {
		h := newHost(t)
		setCompatMode(t, "0")
		return h
	})
}

// host is a network namespace, changed with ip(8): independent of what is tested.
type host struct{ testing.TB }

func newHost(tb testing.TB) host {
	netnstest.New(tb)
	return host{tb}
}

func (h host) ip(format string, args ...any) {
	h.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		h.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

func (h host) Open(owner fib.Owner, classic bool) fib.Kernel { return openTest(h, owner, classic) }

func openTest(tb testing.TB, owner fib.Owner, classic bool) *Handle {
	tb.Helper()
	k, err := Open(Options{Owner: owner, Classic: classic})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(k.Close)
	return k
}

func (h host) name(index int) string {
	h.Helper()
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		h.Fatalf("link %d: %v", index, err)
	}
	return l.Attrs().Name
}

func (h host) AddLink(name string, addrs ...netip.Prefix) int {
	h.Helper()
	h.ip("link add %s mtu 1500 type veth peer name %sp mtu 1500", name, name)
	for _, n := range []string{name, name + "p"} {
		h.ip("link set %s addrgenmode none up", n)
	}
	var index int
	for _, n := range []string{name + "p", name} { // no event of either may come later
		l, err := netlink.LinkByName(n)
		if err != nil {
			h.Fatal(err)
		}
		index = l.Attrs().Index
		h.waitOper(index, netlink.OperUp)
	}
	for _, a := range addrs {
		if a.Addr().Is6() {
			h.ip("addr add %s dev %s nodad", a, name)
		} else {
			h.ip("addr add %s dev %s", a, name)
		}
	}
	return index
}

// waitOper waits until the kernel's link watcher, which runs beside everything else, has
// told the rest of the kernel about a carrier.
func (h host) waitOper(index int, want netlink.LinkOperState) {
	h.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			h.Fatal(err)
		}
		if l.Attrs().OperState == want {
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("link %d is %s, want %s", index, l.Attrs().OperState, want)
		}
	}
}

func (h host) SetLink(index int, up bool) {
	h.Helper()
	if !up {
		h.ip("link set %s down", h.name(index))
		return
	}
	h.ip("link set %s up", h.name(index))
	h.waitOper(index, netlink.OperUp)
}

func (h host) SetCarrier(index int, on bool) {
	h.Helper()
	if on {
		h.ip("link set %sp up", h.name(index))
		h.waitOper(index, netlink.OperUp)
		return
	}
	h.ip("link set %sp down", h.name(index))
	h.waitOper(index, netlink.OperLowerLayerDown)
}

func (h host) DelLink(index int) {
	h.Helper()
	h.ip("link del %s", h.name(index))
}

var routeTypes = map[uint8]string{1: "unicast", 6: "blackhole"}

func (h host) route(verb string, r fib.Route) {
	h.Helper()
	family := "-4"
	if r.Prefix.Addr().Is6() {
		family = "-6"
	}
	line := fmt.Sprintf("%s route %s %s %s table %d metric %d proto %d",
		family, verb, routeTypes[r.Type], r.Prefix, r.Table, r.Metric, r.Protocol)
	if r.GroupID != 0 {
		line += fmt.Sprintf(" nhid %d", r.GroupID)
	}
	for _, l := range r.Legs {
		if len(r.Legs) > 1 {
			line += " nexthop"
		}
		line += fmt.Sprintf(" via %s dev %s", l.Gateway, h.name(l.IfIndex))
	}
	h.ip("%s", line)
}

func (h host) AddRoute(r fib.Route)     { h.Helper(); h.route("add", r) }
func (h host) ReplaceRoute(r fib.Route) { h.Helper(); h.route("replace", r) }
func (h host) DelRoute(r fib.Route)     { h.Helper(); h.route("del", r) }

func (h host) AddNextHop(id uint32, leg fib.Leg, protocol uint8) {
	h.Helper()
	h.ip("nexthop add id %d via %s dev %s proto %d", id, leg.Gateway, h.name(leg.IfIndex), protocol)
}

func (h host) DelNextHop(id uint32) {
	h.Helper()
	h.ip("nexthop del id %d", id)
}
