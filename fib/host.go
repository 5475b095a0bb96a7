package fib

import (
	"maps"
	"net/netip"
	"slices"
)

// Host is the host's own network state, without anything that we installed.
type Host struct {
	Links  map[int]Link
	Addrs  []Address
	Routes []HostRoute // of the main table and of the table we write to
}

// Link is a network interface.
type Link struct {
	Name    string
	Up      bool // administratively up
	Running bool // has carrier
	MTU     int
}

// Address is an address of this host.
type Address struct {
	Prefix  netip.Prefix // not masked
	IfIndex int
}

// HostRoute is a route somebody else made: the kernel (connected), an operator,
// another daemon.
type HostRoute struct {
	Prefix   netip.Prefix
	Table    uint32
	Metric   uint32
	Protocol uint8
	Type     uint8 // RTN_UNICAST, RTN_BLACKHOLE, ...
	Legs     []Leg // a leg without gateway reaches the whole prefix on its link
}

// Rule is a routing policy rule: which table is asked, and for what.
type Rule struct {
	IPv6     bool
	Priority uint32
	Table    uint32
	Lookup   bool // asks Table; else it refuses or jumps
	All      bool // for all packets, and every route of the table
	VRF      bool // asks the table of the packet's VRF, not Table
}

// Why a next hop has no leg.
const (
	Unreachable = "next-hop-unreachable"
	IsSelf      = "next-hop-is-self"
)

// Resolution is what a next hop leads to.
type Resolution struct {
	Legs  []Leg        // ascending; empty when Why is set
	Why   string       // "", Unreachable or IsSelf
	Route netip.Prefix // the host's own route that was used; invalid when there was none
	// Metric of that route, for the comparison with a learned route of the same length.
	Metric uint32
}

// Resolver answers where next hops are, from one Host. It is immutable.
type Resolver struct {
	self   map[netip.Addr]bool
	routes map[netip.Prefix]HostRoute // per prefix the one of the lowest metric
	lens4  []int                      // prefix lengths that occur, longest first
	lens6  []int
	links  map[int]Link
	dead   map[netip.Addr]bool
}

// rtnUnicast is RTN_UNICAST of linux/rtnetlink.h.
const rtnUnicast = 1

// NewResolver builds a resolver from the host's state.
func NewResolver(h *Host) *Resolver {
	r := &Resolver{
		self:   make(map[netip.Addr]bool, len(h.Addrs)),
		routes: make(map[netip.Prefix]HostRoute, len(h.Routes)),
		links:  h.Links,
	}
	for _, a := range h.Addrs {
		r.self[a.Prefix.Addr()] = true
	}
	var has4 [33]bool
	var has6 [129]bool
	for _, rt := range h.Routes {
		if old, ok := r.routes[rt.Prefix]; ok && old.Metric <= rt.Metric {
			continue
		}
		r.routes[rt.Prefix] = rt
		if rt.Prefix.Addr().Is4() {
			has4[rt.Prefix.Bits()] = true
		} else {
			has6[rt.Prefix.Bits()] = true
		}
	}
	for i := 32; i >= 0; i-- {
		if has4[i] {
			r.lens4 = append(r.lens4, i)
		}
	}
	for i := 128; i >= 0; i-- {
		if has6[i] {
			r.lens6 = append(r.lens6, i)
		}
	}
	return r
}

// WithLink returns a resolver in which one link is as given; gone: it does not exist. A
// link's state is the one thing that is told in full by its event, so that its loss does
// not have to wait for the host's routes to be read.
func (r *Resolver) WithLink(index int, link Link, gone bool) *Resolver {
	links := maps.Clone(r.links)
	if gone {
		delete(links, index)
	} else {
		links[index] = link
	}
	with := *r
	with.links = links
	return &with
}

// WithDead returns a resolver for which some next hops have no leg, whatever the routes
// say: BFD found the path to them dead. The map must not be changed any more.
func (r *Resolver) WithDead(dead map[netip.Addr]bool) *Resolver {
	with := *r
	with.dead = dead
	return &with
}

// IsDead tells whether nh is one of those of WithDead.
func (r *Resolver) IsDead(nh netip.Addr) bool { return r.dead[nh] }

// Connected tells whether addr is on a subnet of this host; known is false where no route
// leads to it. It does not ask whether the link is up.
func (r *Resolver) Connected(addr netip.Addr) (connected, known bool) {
	rt, ok := r.match(addr)
	for _, leg := range rt.Legs {
		if leg.Gateway.IsValid() {
			return false, true
		}
	}
	return ok, ok
}

// IsSelf tells whether addr is one of the host's own.
func (r *Resolver) IsSelf(addr netip.Addr) bool { return r.self[addr] }

// Resolve follows the host's own longest matching route to nh. A link that is down
// or has no carrier resolves nothing: the kernel would refuse the next hop, or lose
// the traffic. An IPv6 link-local address means nothing without its link: every link
// has the same route for it.
func (r *Resolver) Resolve(nh netip.Addr) Resolution {
	if nh == Discard {
		return Resolution{Legs: []Leg{Blackhole}}
	}
	if !nh.IsValid() || nh.IsUnspecified() || nh.IsMulticast() || nh.IsLoopback() || nh.Is6() && nh.IsLinkLocalUnicast() {
		return Resolution{Why: Unreachable}
	}
	if r.self[nh] {
		return Resolution{Why: IsSelf}
	}
	rt, ok := r.match(nh)
	if !ok {
		return Resolution{Why: Unreachable}
	}
	res := Resolution{Route: rt.Prefix, Metric: rt.Metric}
	if rt.Type == rtnUnicast && !r.dead[nh] {
		for _, leg := range rt.Legs {
			link, ok := r.links[leg.IfIndex]
			if !ok || !link.Up || !link.Running {
				continue
			}
			if !leg.Gateway.IsValid() {
				leg.Gateway = nh // on the link itself
			}
			if !slices.Contains(res.Legs, leg) {
				res.Legs = append(res.Legs, leg)
			}
		}
	}
	if len(res.Legs) == 0 {
		res.Why = Unreachable
		return res
	}
	slices.SortFunc(res.Legs, compareLegs)
	return res
}

func (r *Resolver) match(a netip.Addr) (HostRoute, bool) {
	lens := r.lens4
	if a.Is6() {
		lens = r.lens6
	}
	for _, bits := range lens {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // unreachable: bits came from a prefix of this family
		}
		if rt, ok := r.routes[p]; ok {
			return rt, true
		}
	}
	return HostRoute{}, false
}

func compareLegs(a, b Leg) int {
	if c := a.Gateway.Compare(b.Gateway); c != 0 {
		return c
	}
	return a.IfIndex - b.IfIndex
}
