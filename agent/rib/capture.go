package rib

import (
	"net/netip"

	"github.com/nexthopd/nexthopd/fib"
)

// Captures maps each prefix that would draw the traffic to a protected address away
// from the host's own route to that address.
type Captures map[netip.Prefix]netip.Addr

// NewCaptures lists what would capture one of the protected addresses (the peers and
// the next hops) if it were installed with the given metric: every prefix around the
// address that is longer than the host's own route to it, or as long with a better
// metric (S21). An address that the host cannot reach has nothing to be captured from,
// and one of the host's own is served by the local table first.
func NewCaptures(protected []netip.Addr, metric uint32, resolve func(netip.Addr) fib.Resolution) Captures {
	c := make(Captures)
	for _, a := range protected {
		res := resolve(a)
		if !res.Route.IsValid() {
			continue
		}
		from := res.Route.Bits()
		if res.Metric <= metric {
			from++
		}
		for bits := from; bits <= a.BitLen(); bits++ {
			p, err := a.Prefix(bits)
			if err != nil {
				break // a zone: not a prefix anybody can announce
			}
			if old, ok := c[p]; !ok || a.Less(old) {
				c[p] = a
			}
		}
	}
	return c
}

// Changed returns the prefixes whose verdict may differ between two sets.
func (c Captures) Changed(other Captures) []netip.Prefix {
	var out []netip.Prefix
	for p := range c {
		if _, ok := other[p]; !ok {
			out = append(out, p)
		}
	}
	for p := range other {
		if _, ok := c[p]; !ok {
			out = append(out, p)
		}
	}
	return out
}
