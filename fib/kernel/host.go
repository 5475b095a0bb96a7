package kernel

import (
	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// Host reads links, addresses, and the routes of the main table and the owner's that
// are not ours. Of routes it takes those that lead somewhere or say that nothing does;
// a leg through a tunnel encapsulation, or a blackhole next hop, is left out.
func (h *Handle) Host() (*fib.Host, error) {
	host := &fib.Host{}
	err := retryInterrupted("links", func() error {
		host.Links = make(map[int]fib.Link)
		return h.dump(dumpLinks, func(typ uint16, body []byte) error {
			if typ != unix.RTM_NEWLINK {
				return nil
			}
			index, link, err := parseLink(body)
			host.Links[index] = link
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	err = retryInterrupted("addresses", func() error {
		host.Addrs = host.Addrs[:0]
		return h.dump(dumpAddrs, func(typ uint16, body []byte) error {
			if typ != unix.RTM_NEWADDR {
				return nil
			}
			addr, ok, err := parseAddr(body)
			if ok {
				host.Addrs = append(host.Addrs, addr)
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if err := h.hostRoutes(host); err != nil {
		return nil, err
	}
	return host, nil
}

func (h *Handle) hostRoutes(host *fib.Host) error {
	tables := []uint32{unix.RT_TABLE_MAIN}
	if h.owner.Table != unix.RT_TABLE_MAIN {
		tables = append(tables, h.owner.Table)
	}
	// Routes that name an object are looked up in the end: with nexthop_compat_mode=0
	// the kernel does not say where they lead.
	type named struct {
		route int
		id    uint32
	}
	var byID []named
	err := retryInterrupted("routes", func() error {
		host.Routes, byID = host.Routes[:0], byID[:0]
		var pool []fib.Leg // a slice per route would be an allocation per route
		for _, table := range tables {
			err := h.eachRoute(table, 0, func(r *routeMsg) error {
				if h.ours(r) || r.narrow || !leads(r.typ) {
					return nil
				}
				route := fib.HostRoute{
					Prefix: r.prefix, Table: r.table, Metric: r.metric, Protocol: r.protocol, Type: r.typ,
				}
				switch {
				case r.typ != unix.RTN_UNICAST: // IPv6 shows lo as interface
				case r.group != 0:
					byID = append(byID, named{len(host.Routes), r.group})
				default:
					if cap(pool)-len(pool) == 0 {
						pool = make([]fib.Leg, 0, 256)
					}
					at := len(pool)
					var err error
					if pool, _, err = r.appendLegs(pool); err != nil {
						return err
					}
					route.Legs = pool[at:len(pool):len(pool)]
				}
				host.Routes = append(host.Routes, route)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(byID) == 0 {
		return err
	}
	legs, err := h.nextHopLegs()
	if err != nil {
		return err
	}
	for _, n := range byID {
		host.Routes[n.route].Legs = legs[n.id]
	}
	return nil
}

// leads tells whether routes of this type take part in forwarding decisions for other
// hosts' addresses.
func leads(typ uint8) bool {
	switch typ {
	case unix.RTN_UNICAST, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		return true
	}
	return false
}
