// Package fib decides what the kernel's forwarding tables should hold and how to
// get there. It is pure: no socket, clock, goroutine or logger, and it knows
// nothing of BGP. Package fib/kernel carries its operations out.
//
// The model has three kinds of kernel object. A next hop is one leg (gateway and
// interface). A group is the set of legs in use for one Set, the complete ranking
// of the ways to a destination. A route only names a group, so a failure rewrites
// the few groups that are concerned and never a route.
package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Source numbers whoever offered a way to forward (for the agent: a peer). It is
// small and stable for as long as the process runs.
type Source uint16

// Via is one way to forward: a next hop as announced, who announced it, and its
// place in the ranking. Tier 0 is used first; ways of one tier share the traffic.
type Via struct {
	NextHop netip.Addr
	Source  Source
	Tier    uint8
}

// Discard is the next hop of a way that is there to drop the traffic: it resolves to
// Blackhole. No peer can announce it, for the zone that it has.
var Discard = netip.MustParseAddr("100::%blackhole") // of RFC 6666's block

// SourceState says whether what a source offered can be used.
type SourceState uint8

// The states of a source.
const (
	// SourceUp offers are used as they are ranked. It is the zero value.
	SourceUp SourceState = iota
	// SourceStale offers are used where their tier has no other: a peer in graceful
	// restart promised to keep forwarding, but shares no traffic with a live one (S17).
	SourceStale
	// SourceDown offers are not used.
	SourceDown
)

// Leg is one next hop as the kernel sees it. The zero Gateway is a directly
// connected, gateway-less leg (a point-to-point interface).
type Leg struct {
	Gateway netip.Addr
	IfIndex int
}

// Blackhole is the leg that drops what is sent to it. The kernel takes it as the only
// member of a group, for routes of both families.
var Blackhole = Leg{IfIndex: -2}

func (l Leg) String() string {
	if l == Blackhole {
		return "blackhole"
	}
	if !l.Gateway.IsValid() {
		return fmt.Sprintf("dev %d", l.IfIndex)
	}
	return fmt.Sprintf("via %s dev %d", l.Gateway, l.IfIndex)
}

// Owner names what makes a kernel route ours: the kernel's key is (table, prefix,
// TOS, metric) and does not contain the protocol, so all three are needed.
type Owner struct {
	Table    uint32
	Metric   uint32
	Protocol uint8
	// FirstID and LastID bound the range of next-hop object ids that belong to us.
	// Ids are shared with every other program in the network namespace.
	FirstID, LastID uint32
}

// OwnsID tells whether a next-hop object id is in our range.
func (o Owner) OwnsID(id uint32) bool { return id >= o.FirstID && id <= o.LastID }

// The range of next-hop object ids this project uses: 165 (our route protocol) in
// the top byte. FRR numbers from 1, systemd-networkd takes ids from its files.
const (
	DefaultFirstID = 165 << 24
	DefaultLastID  = DefaultFirstID | 0xffffff
)

// OpKind says what an Op does.
type OpKind uint8

// The operations, in the order in which one cycle sends them: make before break.
const (
	NextHopAdd   OpKind = iota + 1 // create next hop ID with Leg; an existing id is an error
	GroupAdd                       // create group ID with Members; an existing id is an error
	GroupReplace                   // change the Members of the existing group ID in one step
	RouteAdd                       // create the route; EEXIST when (table, prefix, metric) is taken
	RouteReplace                   // change our existing route in one step
	RouteDel                       // delete our route; an absent route is no error
	GroupDel                       // delete group ID; an absent group is no error
	NextHopDel                     // delete next hop ID; an absent one is no error
)

func (k OpKind) String() string {
	switch k {
	case NextHopAdd:
		return "nexthop-add"
	case GroupAdd:
		return "group-add"
	case GroupReplace:
		return "group-replace"
	case RouteAdd:
		return "route-add"
	case RouteReplace:
		return "route-replace"
	case RouteDel:
		return "route-delete"
	case GroupDel:
		return "group-delete"
	case NextHopDel:
		return "nexthop-delete"
	}
	return fmt.Sprintf("op-%d", uint8(k))
}

// Op is one write to the kernel.
type Op struct {
	Kind    OpKind
	ID      uint32       // the next hop's or the group's id; for routes the group's
	Leg     Leg          // NextHopAdd
	Members []uint32     // GroupAdd, GroupReplace: next-hop ids, ascending, equal weight
	Prefix  netip.Prefix // Route*
	Legs    []Leg        // RouteAdd, RouteReplace in classic mode, where ID is 0
}

// OpError is an operation that the kernel refused.
type OpError struct {
	Index int           // into the slice given to Apply
	Errno syscall.Errno // never 0
	Text  string        // the kernel's own words (extended ACK), may be empty
}

func (e OpError) Error() string {
	if e.Text != "" {
		return fmt.Sprintf("%s (%s)", e.Text, e.Errno)
	}
	return e.Errno.Error()
}

// Route is a route as read back from the kernel.
type Route struct {
	Prefix   netip.Prefix
	Table    uint32
	Metric   uint32
	Protocol uint8
	Type     uint8  // RTN_UNICAST, RTN_BLACKHOLE, ...
	GroupID  uint32 // RTA_NH_ID, or 0
	Legs     []Leg  // resolved through GroupID where there is one; Blackhole for that Type
}

// Snapshot is everything of ours in the kernel at one moment.
type Snapshot struct {
	NextHops map[uint32]Leg      // ids in our range, with our protocol
	Groups   map[uint32][]uint32 // likewise; members ascending
	Routes   map[netip.Prefix]SnapshotRoute
}

// SnapshotRoute is one of our routes: a group's id, or the legs of a classic route.
type SnapshotRoute struct {
	GroupID uint32
	Legs    []Leg
}

// ErrUrgent says that Dump was given up for something more urgent.
var ErrUrgent = errors.New("given up for something more urgent")

// Kernel is what the FIB needs of the kernel. fib/kernel implements it on netlink,
// fib/fibtest in memory; one contract suite runs against both. Its methods are
// called by one goroutine at a time.
type Kernel interface {
	// HasNextHopObjects tells whether groups can be used; where it is false, routes
	// carry their legs (classic mode).
	HasNextHopObjects() bool
	// Dump reads all that is ours. A table that does not exist yet is empty. As soon as
	// urgent says so, it gives up with ErrUrgent: a large table takes seconds. nil: never.
	Dump(urgent func() bool) (Snapshot, error)
	// Apply carries the operations out in order and returns those that the kernel
	// refused, in order; the others were done. err reports that the outcome is
	// unknown (a receive buffer overran, a socket broke): dump before going on.
	Apply(ops []Op) (refused []OpError, err error)
	// Lookup returns every route for exactly this prefix in the owner's table,
	// whoever made it.
	Lookup(prefix netip.Prefix) ([]Route, error)
	// Host reads the host's own links, addresses and routes: all that next hops
	// are resolved with, and nothing of ours.
	Host() (*Host, error)
}
