package fibtest

import (
	"net/netip"
	"slices"
	"syscall"

	"github.com/nexthopd/nexthopd/fib"
)

// Kernel is one program's hold on a Machine. It implements fib.Kernel and can be told
// to fail.
type Kernel struct {
	m       *Machine
	owner   fib.Owner
	classic bool
	pid     uint32

	// All below is guarded by m.mu.
	log        []fib.Op
	count      int // operations so far
	failOp     func(n int, op fib.Op) *fib.OpError
	breakAfter int
	breakErr   error
	dumpErr    error
	hostErr    error
	lookupErr  error
}

var _ fib.Kernel = (*Kernel)(nil)

// FailOps asks f before each operation whether it is refused, with its number since
// Open, from 0 (the Index of the answer is filled in here). nil: no more failures.
func (k *Kernel) FailOps(f func(n int, op fib.Op) *fib.OpError) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	k.failOp = f
}

// FailOp makes the nth operation from now on (0: the next) fail, once.
func (k *Kernel) FailOp(n int, errno syscall.Errno, text string) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	at := k.count + n
	k.failOp = func(n int, _ fib.Op) *fib.OpError {
		if n != at {
			return nil
		}
		return &fib.OpError{Errno: errno, Text: text}
	}
}

// BreakAfter makes Apply return err, its outcome unknown, once n more operations are
// done; those after them are not.
func (k *Kernel) BreakAfter(n int, err error) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	k.breakAfter, k.breakErr = k.count+n, err
}

// FailDump makes the next Dump fail.
func (k *Kernel) FailDump(err error) { k.m.mu.Lock(); defer k.m.mu.Unlock(); k.dumpErr = err }

// FailHost makes the next Host fail.
func (k *Kernel) FailHost(err error) { k.m.mu.Lock(); defer k.m.mu.Unlock(); k.hostErr = err }

// FailLookup makes the next Lookup fail.
func (k *Kernel) FailLookup(err error) { k.m.mu.Lock(); defer k.m.mu.Unlock(); k.lookupErr = err }

// TakeOps returns the operations since the last call, refused ones included.
func (k *Kernel) TakeOps() []fib.Op {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	log := k.log
	k.log = nil
	return log
}

func take(err *error) error {
	e := *err
	*err = nil
	return e
}

// HasNextHopObjects is false in classic mode.
func (k *Kernel) HasNextHopObjects() bool { return !k.classic }

// Apply carries the operations out as the kernel would.
func (k *Kernel) Apply(ops []fib.Op) (refused []fib.OpError, err error) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	for i, op := range ops {
		if k.breakErr != nil && k.count >= k.breakAfter {
			return refused, take(&k.breakErr)
		}
		op.Members, op.Legs = slices.Clone(op.Members), slices.Clone(op.Legs)
		k.log = append(k.log, op)
		n := k.count
		k.count++
		if k.failOp != nil {
			if e := k.failOp(n, op); e != nil {
				refused = append(refused, fib.OpError{Index: i, Errno: e.Errno, Text: e.Text})
				continue
			}
		}
		if r := k.apply(op); r.errno != 0 {
			refused = append(refused, fib.OpError{Index: i, Errno: r.errno, Text: r.text})
		}
	}
	return refused, nil
}

func (k *Kernel) apply(op fib.Op) refusal {
	m := k.m
	switch op.Kind {
	case fib.NextHopAdd:
		if r := m.checkHop(op.Leg); r.errno != 0 {
			return r
		}
		if m.exists(op.ID) {
			return refusal{errno: syscall.EEXIST}
		}
		m.hops[op.ID] = object{protocol: k.owner.Protocol, leg: op.Leg}
		m.emitNextHop(op.ID, false, k.pid)
	case fib.GroupAdd, fib.GroupReplace:
		return k.setGroup(op)
	case fib.RouteAdd, fib.RouteReplace:
		return k.setRoute(op)
	case fib.RouteDel:
		i, ok := m.find(op.Prefix, k.owner.Table, k.owner.Metric)
		if ok && m.routes[op.Prefix][i].Protocol == k.owner.Protocol {
			r, _ := m.dropRoute(op.Prefix, k.owner.Table, k.owner.Metric)
			m.emitRoute(r, true, k.pid)
		}
	case fib.GroupDel, fib.NextHopDel:
		// One message for both: the kernel deletes whatever has the id.
		if _, ok := m.hops[op.ID]; ok {
			m.deleteHop(op.ID, k.pid)
		} else if _, ok := m.groups[op.ID]; ok {
			m.deleteGroup(op.ID, k.pid)
		}
	default:
		return refusal{syscall.EINVAL, "unknown operation"}
	}
	return refusal{}
}

func (m *Machine) exists(id uint32) bool {
	_, hop := m.hops[id]
	_, group := m.groups[id]
	return hop || group
}

func (m *Machine) checkHop(l fib.Leg) refusal {
	dev := m.links[l.IfIndex]
	switch {
	case l == fib.Blackhole:
		return refusal{}
	case dev == nil:
		return refusal{syscall.EINVAL, "Invalid device index"}
	case !dev.Up:
		return refusal{syscall.ENETDOWN, "Nexthop device is not up"}
	case !dev.Running:
		return refusal{syscall.ENETDOWN, "Carrier for nexthop device is down"}
	}
	return m.checkGateway(l)
}

func (m *Machine) checkGateway(l fib.Leg) refusal {
	gw := l.Gateway
	switch {
	case !gw.IsValid():
		return refusal{}
	case gw.Is4() && (m.isOwnAddr(gw) || gw.IsMulticast() || gw.IsUnspecified()):
		return refusal{syscall.EINVAL, "Nexthop has invalid gateway"}
	case gw.Is4():
		return refusal{}
	case m.isOwnAddr(gw):
		return refusal{syscall.EINVAL, "Gateway can not be a local address"}
	}
	// IPv6 checks onlink gateways against the connected prefixes of other links.
	for index, other := range m.links {
		if index == l.IfIndex || !other.Up {
			continue
		}
		for _, a := range other.addrs {
			if a.Masked().Contains(gw) {
				return refusal{syscall.EINVAL, "Nexthop has invalid gateway or device mismatch"}
			}
		}
	}
	return refusal{}
}

func (k *Kernel) setGroup(op fib.Op) refusal {
	m := k.m
	if len(op.Members) == 0 {
		return refusal{syscall.EINVAL, "Invalid length for nexthop group attribute"}
	}
	members := slices.Clone(op.Members)
	slices.Sort(members)
	if len(slices.Compact(slices.Clone(members))) != len(members) {
		return refusal{syscall.EINVAL, "Nexthop id can not be used twice in a group"}
	}
	for _, id := range members {
		if _, ok := m.groups[id]; ok {
			return refusal{syscall.EINVAL, "Hash-threshold group can not be a nexthop within a group"}
		}
		if _, ok := m.hops[id]; !ok {
			return refusal{syscall.EINVAL, "Invalid nexthop id"}
		}
		if m.hops[id].leg == fib.Blackhole && len(members) > 1 {
			return refusal{syscall.EINVAL, "Blackhole nexthop can not be used in a group with more than 1 path"}
		}
	}
	_, isHop := m.hops[op.ID]
	_, isGroup := m.groups[op.ID]
	switch {
	case op.Kind == fib.GroupAdd && (isHop || isGroup):
		return refusal{errno: syscall.EEXIST}
	case op.Kind == fib.GroupReplace && isHop:
		return refusal{syscall.EINVAL, "Can not replace a nexthop with a nexthop group."}
	case op.Kind == fib.GroupReplace && !isGroup:
		return refusal{syscall.ENOENT, "Replace specified without create and no entry exists"}
	case m.named[op.ID] > 0 && m.hasIPv4(members) && m.namedByIPv6(op.ID):
		return errIPv4Hop
	}
	m.groups[op.ID] = object{protocol: k.owner.Protocol, members: members}
	m.emitNextHop(op.ID, false, k.pid)
	return refusal{}
}

var errIPv4Hop = refusal{syscall.EINVAL, "IPv6 routes can not use an IPv4 nexthop"}

func (m *Machine) hasIPv4(hops []uint32) bool {
	return slices.ContainsFunc(hops, func(id uint32) bool { return m.hops[id].leg.Gateway.Is4() })
}

func (m *Machine) namedByIPv6(group uint32) bool {
	for p, routes := range m.routes {
		if p.Addr().Is6() && slices.ContainsFunc(routes, func(r fib.Route) bool { return r.GroupID == group }) {
			return true
		}
	}
	return false
}

func (k *Kernel) setRoute(op fib.Op) refusal {
	m := k.m
	if !op.Prefix.IsValid() {
		return refusal{syscall.EINVAL, "invalid prefix"}
	}
	if r := m.checkTarget(op); r.errno != 0 {
		return r
	}
	_, taken := m.find(op.Prefix, k.owner.Table, k.owner.Metric)
	switch {
	case op.Kind == fib.RouteAdd && taken:
		return refusal{errno: syscall.EEXIST}
	case op.Kind == fib.RouteReplace && !taken:
		if op.Prefix.Addr().Is6() {
			return refusal{syscall.ENOENT, "Can not replace route - no match found"}
		}
		return refusal{errno: syscall.ENOENT}
	case taken:
		m.dropRoute(op.Prefix, k.owner.Table, k.owner.Metric) // a stranger's, too
	}
	r := fib.Route{
		Prefix: op.Prefix, Table: k.owner.Table, Metric: k.owner.Metric,
		Protocol: k.owner.Protocol, Type: typeUnicast, GroupID: op.ID,
	}
	if op.ID == 0 {
		r.Legs = slices.Clone(op.Legs)
		slices.SortFunc(r.Legs, compareLegs)
		if r.Legs[0] == fib.Blackhole {
			r.Type, r.Legs = typeBlackhole, nil
		}
	}
	m.putRoute(r)
	m.emitRoute(r, false, k.pid)
	return refusal{}
}

func (m *Machine) checkTarget(op fib.Op) refusal {
	is6 := op.Prefix.Addr().Is6()
	if op.ID != 0 {
		hops := []uint32{op.ID}
		if g, ok := m.groups[op.ID]; ok {
			hops = g.members
		} else if _, ok := m.hops[op.ID]; !ok {
			return refusal{syscall.EINVAL, "Nexthop id does not exist"}
		}
		if is6 && m.hasIPv4(hops) {
			return errIPv4Hop
		}
		return refusal{}
	}
	switch {
	case len(op.Legs) == 0:
		return refusal{syscall.EINVAL, "no next hop, or too many"}
	case len(op.Legs) > 1 && slices.Contains(op.Legs, fib.Blackhole):
		return refusal{syscall.EINVAL, "a blackhole among other next hops"}
	case op.Legs[0] == fib.Blackhole:
		return refusal{}
	}
	for _, l := range op.Legs {
		dev := m.links[l.IfIndex]
		switch {
		case is6 && l.Gateway.Is4():
			return refusal{syscall.EINVAL, "IPv6 does not support RTA_VIA attribute"}
		case dev == nil && is6:
			return refusal{errno: syscall.ENODEV}
		case dev == nil:
			return refusal{syscall.ENODEV, "Nexthop device required for onlink"}
		case !dev.Up:
			return refusal{syscall.ENETDOWN, "Nexthop device is not up"}
		}
		if r := m.checkGateway(l); r.errno != 0 {
			return r
		}
	}
	return refusal{}
}

// ours tells whether a route is ours, as Owner says.
func (k *Kernel) ours(r *fib.Route) bool {
	return r.Protocol == k.owner.Protocol && k.ourKey(r) &&
		(k.owner.OwnsID(r.GroupID) || r.GroupID == 0 && k.classic)
}

func (k *Kernel) ourKey(r *fib.Route) bool {
	return r.Table == k.owner.Table && r.Metric == k.owner.Metric
}

// Dump returns what is ours.
func (k *Kernel) Dump(urgent func() bool) (fib.Snapshot, error) {
	if urgent != nil && urgent() {
		return fib.Snapshot{}, fib.ErrUrgent
	}
	m := k.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := take(&k.dumpErr); err != nil {
		return fib.Snapshot{}, err
	}
	s := fib.Snapshot{
		NextHops: make(map[uint32]fib.Leg),
		Groups:   make(map[uint32][]uint32),
		Routes:   make(map[netip.Prefix]fib.SnapshotRoute),
	}
	for id, h := range m.hops {
		if k.owner.OwnsID(id) && h.protocol == k.owner.Protocol {
			s.NextHops[id] = h.leg
		}
	}
	for id, g := range m.groups {
		if k.owner.OwnsID(id) && g.protocol == k.owner.Protocol {
			s.Groups[id] = slices.Clone(g.members)
		}
	}
	for p, routes := range m.routes {
		for i := range routes {
			if r := &routes[i]; k.ours(r) {
				sr := fib.SnapshotRoute{GroupID: r.GroupID}
				switch {
				case r.GroupID != 0:
				case r.Type == typeUnicast:
					sr.Legs = slices.Clone(r.Legs)
				case r.Type == typeBlackhole:
					sr.Legs = []fib.Leg{fib.Blackhole}
				}
				s.Routes[p] = sr
			}
		}
	}
	return s, nil
}

// Lookup returns every route for exactly this prefix in the owner's table.
func (k *Kernel) Lookup(prefix netip.Prefix) ([]fib.Route, error) {
	k.m.mu.Lock()
	err := take(&k.lookupErr)
	k.m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return k.m.Routes(prefix.Masked(), k.owner.Table), nil
}

// Host returns links, addresses and all routes that are not ours.
func (k *Kernel) Host() (*fib.Host, error) {
	m := k.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := take(&k.hostErr); err != nil {
		return nil, err
	}
	h := &fib.Host{Links: make(map[int]fib.Link)}
	for i, l := range m.links {
		h.Links[i] = l.Link
		for _, a := range l.addrs {
			h.Addrs = append(h.Addrs, fib.Address{Prefix: a, IfIndex: i})
		}
	}
	for _, routes := range m.routes {
		for i := range routes {
			r := &routes[i]
			if k.ours(r) || r.Table != mainTable && r.Table != k.owner.Table {
				continue
			}
			h.Routes = append(h.Routes, fib.HostRoute{
				Prefix: r.Prefix, Table: r.Table, Metric: r.Metric, Protocol: r.Protocol, Type: r.Type, Legs: m.legs(r),
			})
		}
	}
	return h, nil
}
