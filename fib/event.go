package fib

import (
	"fmt"
	"net/netip"
)

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of event. All of them are hints to look at the present state, never the
// state itself: by the time one is read, the kernel may have moved on.
const (
	// Subscribed is the first event, once: nothing that happens from here on is
	// missed, so what was read before should be read again.
	Subscribed EventKind = iota + 1
	// Overflow: events were lost. Read everything again.
	Overflow
	// LinkChanged: IfIndex came, went (Deleted), or changed a flag. On link down the
	// kernel deletes next hops, groups and IPv4 routes without any event of their own.
	LinkChanged
	// AddrChanged: an address of this host came or went (Deleted) on IfIndex.
	AddrChanged
	// HostRouteChanged: somebody else's route for Prefix came, changed or went.
	HostRouteChanged
	// ForeignRoute is HostRouteChanged for a route with our table and metric: one that
	// stands where ours would, or (Deleted) stands there no more. When it replaced our
	// route, this is the only event: the kernel reports no deletion of ours.
	ForeignRoute
	// OwnRouteChanged: somebody else wrote or deleted (Deleted) our route for Prefix.
	OwnRouteChanged
	// OwnNextHopChanged: somebody else, or the kernel, wrote or deleted the next hop or
	// group ID, which is in our range.
	OwnNextHopChanged
	// HostNextHopChanged: next hop or group ID, which is not in our range, came, changed or went.
	// Host routes that name it may lead elsewhere now, without an event of their own.
	HostNextHopChanged
	// NeighborFailed: the kernel gave up resolving Addr on IfIndex.
	NeighborFailed
	// NeighborReachable: Addr answered on IfIndex, or was set by hand.
	NeighborReachable
)

func (k EventKind) String() string {
	switch k {
	case Subscribed:
		return "subscribed"
	case Overflow:
		return "overflow"
	case LinkChanged:
		return "link-changed"
	case AddrChanged:
		return "address-changed"
	case HostRouteChanged:
		return "host-route-changed"
	case ForeignRoute:
		return "foreign-route"
	case OwnRouteChanged:
		return "own-route-changed"
	case OwnNextHopChanged:
		return "own-nexthop-changed"
	case HostNextHopChanged:
		return "host-nexthop-changed"
	case NeighborFailed:
		return "neighbor-failed"
	case NeighborReachable:
		return "neighbor-reachable"
	}
	return fmt.Sprintf("event-%d", uint8(k))
}

// Event is something that others, or the kernel itself, did to what the FIB depends
// on. Our own writes make no events.
type Event struct {
	Kind    EventKind
	Deleted bool
	IfIndex int        // LinkChanged, AddrChanged, Neighbor*
	Link    Link       // LinkChanged, unless Deleted: how it is now
	Addr    netip.Addr // Neighbor*
	ID      uint32     // *NextHopChanged
	// Prefix, Table and Protocol describe the route.
	Prefix   netip.Prefix
	Table    uint32
	Protocol uint8
	// PID is the netlink port id of who did it: the process id for the first socket of
	// most programs, some other large number for further ones, 0 for the kernel itself.
	PID uint32
}
