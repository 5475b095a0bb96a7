// Package fibtest is a kernel in memory, for tests of what is built on fib.Kernel, and
// the contract suite that holds it to the behaviour of the real one. Error texts are
// those of Linux 6.18.
package fibtest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/nexthopd/nexthopd/fib"
)

// Numbers of linux/rtnetlink.h.
const (
	mainTable      = 254
	protocolKernel = 2
	typeUnicast    = 1
	typeBlackhole  = 6
)

// strangerPID is the port id of whoever uses the Machine's own methods.
const strangerPID = 4242

// Machine is a host: its links, addresses, routes and next-hop objects, whoever made
// them. Its methods do what an operator or another daemon would do. All of it is safe
// for concurrent use.
type Machine struct {
	mu       sync.Mutex
	links    map[int]*link
	hops     map[uint32]object
	groups   map[uint32]object
	routes   map[netip.Prefix][]fib.Route
	named    map[uint32]int // routes per group
	lastPID  uint32
	watchers map[*watcher]struct{}
}

type link struct {
	fib.Link
	addrs []netip.Prefix
}

type object struct {
	protocol uint8
	leg      fib.Leg  // of a next hop
	members  []uint32 // of a group, ascending
}

// NewMachine returns a host with nothing but lo.
func NewMachine() *Machine {
	return &Machine{
		links: map[int]*link{1: {
			Link:  fib.Link{Name: "lo", Up: true, Running: true, MTU: 65536},
			addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")},
		}},
		hops:     make(map[uint32]object),
		groups:   make(map[uint32]object),
		routes:   make(map[netip.Prefix][]fib.Route),
		named:    make(map[uint32]int),
		lastPID:  1000,
		watchers: make(map[*watcher]struct{}),
	}
}

// Open returns a Kernel that works on this machine.
func (m *Machine) Open(owner fib.Owner, classic bool) *Kernel {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastPID++
	return &Kernel{m: m, owner: owner, classic: classic, pid: m.lastPID}
}

// AddLink adds an interface, up and with carrier, and returns its index.
func (m *Machine) AddLink(name string, addrs ...netip.Prefix) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	index := 1
	for m.links[index] != nil {
		index++
	}
	m.links[index] = &link{Link: fib.Link{Name: name, Up: true, Running: true, MTU: 1500}, addrs: slices.Clone(addrs)}
	m.emitLink(index)
	for _, a := range addrs {
		m.addConnected(index, a)
	}
	return index
}

func (m *Machine) addConnected(index int, a netip.Prefix) {
	m.emit(fib.Event{Kind: fib.AddrChanged, IfIndex: index})
	r := fib.Route{
		Prefix: a.Masked(), Table: mainTable, Protocol: protocolKernel, Type: typeUnicast,
		Legs: []fib.Leg{{IfIndex: index}},
	}
	if a.Addr().Is6() {
		r.Metric = 256
	}
	if _, taken := m.find(r.Prefix, r.Table, r.Metric); !taken {
		m.putRoute(r)
		m.emitRoute(r, false, 0)
	}
}

// AddAddr adds an address to a link.
func (m *Machine) AddAddr(index int, a netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[index].addrs = append(m.links[index].addrs, a)
	m.addConnected(index, a)
}

// DelAddr removes an address and its connected route. Next hops stay, as they do on
// Linux.
func (m *Machine) DelAddr(index int, a netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[index]
	l.addrs = slices.DeleteFunc(l.addrs, func(b netip.Prefix) bool { return a == b })
	m.emit(fib.Event{Kind: fib.AddrChanged, Deleted: true, IfIndex: index})
	m.deleteRoutes(0, func(r *fib.Route) bool {
		return r.Prefix == a.Masked() && r.Protocol == protocolKernel && r.Legs[0].IfIndex == index
	})
}

// SetLink sets a link administratively up or down. Going down takes next hops, routes
// and IPv6 addresses along, and only the IPv4 addresses come back with it.
func (m *Machine) SetLink(index int, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[index]
	if l.Up == up {
		return
	}
	l.Up, l.Running = up, up
	m.emitLink(index)
	if !up {
		m.linkDown(index)
		l.addrs = slices.DeleteFunc(l.addrs, func(a netip.Prefix) bool { return a.Addr().Is6() })
		return
	}
	for _, a := range l.addrs {
		m.addConnected(index, a)
	}
}

// SetCarrier plugs a link in or pulls it out. Losing the carrier takes next-hop objects
// along; routes that carry their legs stay.
func (m *Machine) SetCarrier(index int, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[index]
	if l.Running == on {
		return
	}
	l.Running = on
	m.emitLink(index)
	if !on {
		m.flushHops(index)
	}
}

func (m *Machine) emitLink(index int) {
	m.emit(fib.Event{Kind: fib.LinkChanged, IfIndex: index, Link: m.links[index].Link})
}

// DelLink removes a link and all that uses it.
func (m *Machine) DelLink(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[index].Up = false
	m.linkDown(index)
	delete(m.links, index)
	m.emit(fib.Event{Kind: fib.LinkChanged, Deleted: true, IfIndex: index})
}

func (m *Machine) linkDown(index int) {
	m.flushHops(index)
	m.deleteRoutes(0, func(r *fib.Route) bool {
		if r.GroupID != 0 || r.Type != typeUnicast {
			return false
		}
		return !slices.ContainsFunc(r.Legs, func(l fib.Leg) bool {
			return m.links[l.IfIndex] != nil && m.links[l.IfIndex].Up
		})
	})
}

// flushHops deletes the next hops of a link, silently.
func (m *Machine) flushHops(index int) {
	for id, h := range m.hops {
		if h.leg.IfIndex == index {
			m.deleteHop(id, silent)
		}
	}
}

// AddRoute adds a route of somebody else's, as `ip route add` does.
func (m *Machine) AddRoute(r fib.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.find(r.Prefix, r.Table, r.Metric); taken {
		panic(fmt.Sprintf("bug in the test: %s table %d metric %d exists", r.Prefix, r.Table, r.Metric))
	}
	r.Legs = slices.Clone(r.Legs)
	m.putRoute(r)
	m.emitRoute(r, false, strangerPID)
}

// ReplaceRoute does what `ip route replace` does: it takes over whatever has the key.
func (m *Machine) ReplaceRoute(r fib.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropRoute(r.Prefix, r.Table, r.Metric)
	r.Legs = slices.Clone(r.Legs)
	m.putRoute(r)
	m.emitRoute(r, false, strangerPID)
}

// DelRoute deletes the route with the key of r, whoever made it, if there is one.
func (m *Machine) DelRoute(r fib.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.dropRoute(r.Prefix, r.Table, r.Metric); ok {
		m.emitRoute(old, true, strangerPID)
	}
}

// FlushProtocol deletes all routes of one protocol in a table, as `ip route flush` does.
func (m *Machine) FlushProtocol(table uint32, protocol uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleteRoutes(strangerPID, func(r *fib.Route) bool { return r.Table == table && r.Protocol == protocol })
}

// AddNextHop adds a next-hop object of any protocol.
func (m *Machine) AddNextHop(id uint32, leg fib.Leg, protocol uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hops[id] = object{protocol: protocol, leg: leg}
	m.emitNextHop(id, false, strangerPID)
}

// SetGroup adds or replaces a group.
func (m *Machine) SetGroup(id uint32, members []uint32, protocol uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	members = slices.Clone(members)
	slices.Sort(members)
	m.groups[id] = object{protocol: protocol, members: members}
	m.emitNextHop(id, false, strangerPID)
}

// DelNextHop deletes a next hop or group, whoever made it.
func (m *Machine) DelNextHop(id uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.hops[id]; ok {
		m.deleteHop(id, strangerPID)
	} else if _, ok := m.groups[id]; ok {
		m.deleteGroup(id, strangerPID)
	}
}

// Routes returns all routes for a prefix in a table, whoever made them.
func (m *Machine) Routes(prefix netip.Prefix, table uint32) []fib.Route {
	m.mu.Lock()
	defer m.mu.Unlock()
	var routes []fib.Route
	for _, r := range m.routes[prefix] {
		if r.Table == table {
			switch r.Legs = m.legs(&r); {
			case r.Type == typeBlackhole:
				r.Legs = []fib.Leg{fib.Blackhole}
			case slices.Contains(r.Legs, fib.Blackhole):
				r.Type = typeBlackhole // the kernel tells it by the next hop
			}
			routes = append(routes, r)
		}
	}
	return routes
}

// legs resolves a route's legs, as Kernel.Lookup reports them.
func (m *Machine) legs(r *fib.Route) []fib.Leg {
	if r.GroupID == 0 {
		return slices.Clone(r.Legs)
	}
	if h, ok := m.hops[r.GroupID]; ok {
		return []fib.Leg{h.leg}
	}
	var legs []fib.Leg
	for _, id := range m.groups[r.GroupID].members {
		legs = append(legs, m.hops[id].leg)
	}
	slices.SortFunc(legs, compareLegs)
	return legs
}

func compareLegs(a, b fib.Leg) int {
	if c := a.Gateway.Compare(b.Gateway); c != 0 {
		return c
	}
	return a.IfIndex - b.IfIndex
}

func (m *Machine) find(p netip.Prefix, table, metric uint32) (int, bool) {
	i := slices.IndexFunc(m.routes[p], func(r fib.Route) bool { return r.Table == table && r.Metric == metric })
	return i, i >= 0
}

func (m *Machine) putRoute(r fib.Route) {
	m.routes[r.Prefix] = append(m.routes[r.Prefix], r)
	if r.GroupID != 0 {
		m.named[r.GroupID]++
	}
}

func (m *Machine) dropRoute(p netip.Prefix, table, metric uint32) (fib.Route, bool) {
	i, ok := m.find(p, table, metric)
	if !ok {
		return fib.Route{}, false
	}
	r := m.routes[p][i]
	if rest := slices.Delete(m.routes[p], i, i+1); len(rest) > 0 {
		m.routes[p] = rest
	} else {
		delete(m.routes, p)
	}
	if r.GroupID != 0 {
		m.named[r.GroupID]--
	}
	return r, true
}

// silent as pid: there is no event.
const silent = ^uint32(0)

// deleteRoutes deletes what which says. pid 0: the kernel did it, which it reports for
// IPv6 only.
func (m *Machine) deleteRoutes(pid uint32, which func(*fib.Route) bool) {
	var gone []fib.Route
	for _, routes := range m.routes {
		for i := range routes {
			if which(&routes[i]) {
				gone = append(gone, routes[i])
			}
		}
	}
	for _, r := range gone {
		m.dropRoute(r.Prefix, r.Table, r.Metric)
		if pid != 0 || r.Prefix.Addr().Is6() {
			m.emitRoute(r, true, pid)
		}
	}
}

func (m *Machine) deleteHop(id, pid uint32) {
	delete(m.hops, id)
	m.emitNextHop(id, true, pid)
	m.routesOf(id, pid)
	for gid, g := range m.groups {
		i := slices.Index(g.members, id)
		if i < 0 {
			continue
		}
		if len(g.members) == 1 {
			m.deleteGroup(gid, pid)
			continue
		}
		g.members = slices.Concat(g.members[:i], g.members[i+1:])
		m.groups[gid] = g
		m.emitNextHop(gid, false, pid)
	}
}

func (m *Machine) deleteGroup(id, pid uint32) {
	delete(m.groups, id)
	m.emitNextHop(id, true, pid)
	m.routesOf(id, pid)
}

// routesOf deletes the routes that name an object which is gone. IPv4 says nothing.
func (m *Machine) routesOf(id, pid uint32) {
	if m.named[id] == 0 {
		return
	}
	var gone []fib.Route
	for _, routes := range m.routes {
		for i := range routes {
			if routes[i].GroupID == id {
				gone = append(gone, routes[i])
			}
		}
	}
	if pid == silent {
		pid = 0
	}
	for _, r := range gone {
		m.dropRoute(r.Prefix, r.Table, r.Metric)
		if r.Prefix.Addr().Is6() {
			m.emitRoute(r, true, pid)
		}
	}
}

func (m *Machine) isOwnAddr(a netip.Addr) bool {
	for _, l := range m.links {
		if slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return true
		}
	}
	return false
}

// refusal is an errno with the kernel's text; the zero one is success.
type refusal struct {
	errno syscall.Errno
	text  string
}
