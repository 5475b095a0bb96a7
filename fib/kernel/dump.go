package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// dumpTries bounds the repetition of dumps that the kernel marked as interrupted.
const dumpTries = 5

var errInterrupted = errors.New("the table kept changing while it was read")

// dumpRequest encodes a dump request.
type dumpRequest func(*encoder)

func dumpNextHops(e *encoder) {
	m := e.begin(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
	e.nhmsg(unix.AF_UNSPEC, 0, 0)
	e.end(m)
}

func dumpLinks(e *encoder) {
	m := e.begin(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	e.buf = append(e.buf, make([]byte, unix.SizeofIfInfomsg)...)
	e.attrU32(unix.IFLA_EXT_MASK, rtextFilterSkipStat)
	e.end(m)
}

func dumpAddrs(e *encoder) {
	m := e.begin(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	e.buf = append(e.buf, make([]byte, unix.SizeofIfAddrmsg)...)
	e.end(m)
}

// dumpRoutes asks for one table; protocol 0 means all. In strict mode the kernel leaves
// out cached routes by itself (net/ipv4/fib_frontend.c, ip_valid_fib_dump_req).
func dumpRoutes(family uint8, table uint32, protocol uint8) dumpRequest {
	return func(e *encoder) {
		m := e.begin(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		e.rtmsg(family, 0, protocol, 0, 0, table, 0)
		e.attrU32(unix.RTA_TABLE, table)
		e.end(m)
	}
}

// dump sends the request and calls each for every message until the end. What each
// does must be repeatable where interrupted dumps are retried.
//
// One that may be given up has a socket of its own: the kernel goes on with it, and starts
// no other on that socket until it was read to its end (EBUSY).
func (h *Handle) dump(request dumpRequest, each func(typ uint16, body []byte) error) error {
	s := h.w
	if h.urgent != nil {
		s = h.r
		if err := h.finish(); err != nil {
			return err
		}
	}
	seq := s.nextSeq()
	h.enc.reset(seq)
	request(&h.enc)
	if err := s.send(h.enc.buf); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	err := h.read(s, seq, each)
	if errors.Is(err, fib.ErrUrgent) {
		h.unread = seq
	}
	return err
}

// finish reads what is left of a dump that was given up.
func (h *Handle) finish() error {
	if h.unread == 0 {
		return nil
	}
	err := h.read(h.r, h.unread, func(uint16, []byte) error { return nil })
	if errors.Is(err, fib.ErrUrgent) {
		return err
	}
	h.unread = 0 // whatever became of it
	return nil
}

// read reads a dump until its end, or until there is something more urgent.
func (h *Handle) read(s *socket, seq uint32, each func(typ uint16, body []byte) error) error {
	interrupted := false
	var failed error // of each; the dump is read to its end nevertheless
	for {
		if h.urgent != nil && h.urgent() {
			return fib.ErrUrgent
		}
		b, err := s.receive()
		if err == unix.ENOBUFS || err == errTruncated {
			interrupted = true // something is missing, but the dump goes on to its end
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for len(b) > 0 {
			var m message
			if m, b, err = nextMessage(b); err != nil {
				return err
			}
			if m.seq != seq {
				continue // of an exchange that was given up
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_ERROR:
				errno, text, err := parseError(m)
				return errors.Join(dumpError(errno, text), err)
			case unix.NLMSG_DONE:
				err := doneError(m)
				if err == nil && failed == nil && interrupted {
					err = errInterrupted
				}
				return errors.Join(failed, err)
			}
			if failed == nil {
				failed = each(m.typ, m.body)
			}
		}
	}
}

// doneError reads the result of a dump out of NLMSG_DONE, and the kernel's text.
func doneError(m message) error {
	if len(m.body) < 4 {
		return nil // before Linux 2.6.31 or so there was none
	}
	var text []byte
	if m.flags&unix.NLM_F_ACK_TLVS != 0 {
		var err error
		if text, err = errorText(m.body[4:]); err != nil {
			return err
		}
	}
	return dumpError(unix.Errno(-int32(native.Uint32(m.body))), text)
}

func dumpError(errno unix.Errno, text []byte) error {
	switch {
	case errno == 0:
		return nil
	case len(text) > 0:
		return fmt.Errorf("%s: %w", text, errno)
	}
	return errno
}

// retryInterrupted calls read until it was not interrupted.
func retryInterrupted(what string, read func() error) error {
	var err error
	for range dumpTries {
		if err = read(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("fib/kernel: dump %s: %w", what, err)
	}
	return nil
}

// eachRoute calls each for every IPv4 and IPv6 route of a table, whose routeMsg is
// valid during the call. A table that does not exist is empty: the kernel says ENOENT.
func (h *Handle) eachRoute(table uint32, protocol uint8, each func(*routeMsg) error) error {
	var r routeMsg
	for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
		err := h.dump(dumpRoutes(family, table, protocol), func(typ uint16, body []byte) error {
			if typ != unix.RTM_NEWROUTE {
				return nil
			}
			if err := parseRoute(body, &r); err != nil {
				return err
			}
			// A kernel that ignores the filter must not make strangers' routes ours.
			if r.family != family || r.table != table || r.flags&unix.RTM_F_CLONED != 0 ||
				(protocol != 0 && r.protocol != protocol) {
				return nil
			}
			return each(&r)
		})
		// EAFNOSUPPORT, EOPNOTSUPP: a kernel without IPv6.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// ours tells whether a route is ours: by protocol, table and metric, and by naming one
// of our groups where routes do that. In classic mode a route that names no object at
// all is ours, too.
func (h *Handle) ours(r *routeMsg) bool {
	return r.protocol == h.owner.Protocol && h.ourKey(r) &&
		(h.owner.OwnsID(r.group) || r.group == 0 && !h.objects)
}

// ourKey tells whether a route stands where ours stands or would stand.
func (h *Handle) ourKey(r *routeMsg) bool {
	return r.table == h.owner.Table && r.metric == h.owner.Metric && !r.narrow
}

// Dump reads what is ours: routes as Owner says, next hops and groups by id and
// protocol. An object that is ours but not as Apply would have made it can't equal
// anything wanted: a next hop (without onlink, with an encapsulation, ...) has the zero
// Leg, a group (with weights, or of another type) no members, and a route (with a source
// address, IPv6 metrics, or of another type than unicast or blackhole) neither a group
// nor legs.
// In classic mode, next hops and groups of an earlier run are still reported.
// Dump must not run beside writes of our own: the kernel does not mark a route dump as
// inconsistent.
func (h *Handle) Dump(urgent func() bool) (fib.Snapshot, error) {
	h.urgent = urgent
	defer func() { h.urgent = nil }()
	var s fib.Snapshot
	err := retryInterrupted("next hops", func() error {
		s.NextHops = make(map[uint32]fib.Leg)
		s.Groups = make(map[uint32][]uint32)
		if !h.hasObjects {
			return nil
		}
		return h.eachNextHop(func(n *nextHopMsg) {
			switch {
			case !h.owner.OwnsID(n.id) || n.protocol != h.owner.Protocol:
			case n.group == nil && n.plain:
				s.NextHops[n.id] = n.leg
			case n.group == nil:
				s.NextHops[n.id] = fib.Leg{}
			case n.plain:
				members := n.appendMembers(nil)
				slices.Sort(members)
				s.Groups[n.id] = members
			default:
				s.Groups[n.id] = nil
			}
		})
	})
	if err != nil {
		return fib.Snapshot{}, err
	}
	err = retryInterrupted("routes", func() error {
		s.Routes = make(map[netip.Prefix]fib.SnapshotRoute, h.sizeHint)
		return h.eachRoute(h.owner.Table, h.owner.Protocol, func(r *routeMsg) error {
			if !h.ours(r) {
				return nil
			}
			sr, err := snapshotRoute(r)
			s.Routes[r.prefix] = sr
			return err
		})
	})
	if err != nil {
		return fib.Snapshot{}, err
	}
	h.sizeHint = len(s.Routes)
	return s, nil
}

func snapshotRoute(r *routeMsg) (fib.SnapshotRoute, error) {
	odd := r.odd || r.metrics
	if r.family == unix.AF_INET && r.group != 0 {
		// A replace would not cure the metrics of such a route, and repairing it would
		// never end: looking for a nexthop's fib_info to share, IPv4 does not compare
		// them (net/ipv4/fib_semantics.c, fib_find_info_nh; seen on Linux 6.18).
		odd = r.odd
	}
	switch blackhole := r.typ == unix.RTN_BLACKHOLE; {
	case odd || r.typ != unix.RTN_UNICAST && !blackhole:
		return fib.SnapshotRoute{}, nil
	case r.group != 0: // whose type is that of the group
		return fib.SnapshotRoute{GroupID: r.group}, nil
	case blackhole:
		return fib.SnapshotRoute{Legs: []fib.Leg{fib.Blackhole}}, nil
	}
	legs, plain, err := r.appendLegs(nil)
	if err != nil || !plain {
		return fib.SnapshotRoute{}, err
	}
	slices.SortFunc(legs, compareLegs)
	return fib.SnapshotRoute{Legs: legs}, nil
}

// compareLegs orders legs as fib does: by gateway, then by interface.
func compareLegs(a, b fib.Leg) int {
	if c := a.Gateway.Compare(b.Gateway); c != 0 {
		return c
	}
	return a.IfIndex - b.IfIndex
}

func (h *Handle) eachNextHop(each func(*nextHopMsg)) error {
	var n nextHopMsg
	return h.dump(dumpNextHops, func(typ uint16, body []byte) error {
		if typ != unix.RTM_NEWNEXTHOP {
			return nil
		}
		if err := parseNextHop(body, &n); err != nil {
			return err
		}
		each(&n)
		return nil
	})
}

// Lookup returns every route for exactly this prefix in the owner's table, whoever made
// it. The kernel has no such question: this reads the whole table of that family, about
// 0.4 s per million routes. It is for an operator's question, not for a loop.
func (h *Handle) Lookup(prefix netip.Prefix) ([]fib.Route, error) {
	prefix = prefix.Masked()
	var routes []fib.Route
	var expand bool
	err := retryInterrupted("routes", func() error {
		routes, expand = nil, false
		return h.eachRoute(h.owner.Table, 0, func(r *routeMsg) error {
			if r.prefix != prefix {
				return nil
			}
			legs, _, err := r.appendLegs(nil)
			if r.typ == unix.RTN_BLACKHOLE {
				legs = []fib.Leg{fib.Blackhole} // IPv6 shows lo as interface
			}
			expand = expand || r.group != 0
			routes = append(routes, fib.Route{
				Prefix: r.prefix, Table: r.table, Metric: r.metric,
				Protocol: r.protocol, Type: r.typ, GroupID: r.group, Legs: legs,
			})
			return err
		})
	})
	if err != nil || !expand {
		return routes, err
	}
	objects, err := h.nextHopLegs()
	if err != nil {
		return nil, err
	}
	for i := range routes {
		if id := routes[i].GroupID; id != 0 && routes[i].Type != unix.RTN_BLACKHOLE {
			routes[i].Legs = objects[id]
		}
	}
	return routes, nil
}

// nextHopLegs returns the legs of every next hop and group in the namespace. Groups
// hold next hops only (the kernel nests none); what is no leg (a blackhole, a tunnel
// encapsulation, a bridge's forwarding entry) has none.
func (h *Handle) nextHopLegs() (map[uint32][]fib.Leg, error) {
	var legs map[uint32][]fib.Leg
	var groups map[uint32][]uint32
	err := retryInterrupted("next hops", func() error {
		legs, groups = make(map[uint32][]fib.Leg), make(map[uint32][]uint32)
		return h.eachNextHop(func(n *nextHopMsg) {
			if n.group != nil {
				groups[n.id] = n.appendMembers(nil)
			} else if n.leads {
				legs[n.id] = []fib.Leg{n.leg}
			}
		})
	})
	if err != nil {
		return nil, err
	}
	for id, members := range groups {
		var all []fib.Leg
		for _, m := range members {
			all = append(all, legs[m]...)
		}
		slices.SortFunc(all, compareLegs)
		legs[id] = all
	}
	return legs, nil
}
