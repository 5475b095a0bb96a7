package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// monitorBuffer holds events while the reader is busy: some 10,000 route messages.
const monitorBuffer = 16 << 20

// monitorGroups are the multicast groups Watch listens to.
var monitorGroups = [...]int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// openMonitor opens the socket for Watch, not listening yet.
func openMonitor(writer uint32) (*os.File, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("fib/kernel: netlink socket: %w", err)
	}
	defer s.Close()
	fd := s.GetFd()
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, monitorBuffer)
	filter := echoFilter(writer)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return nil, fmt.Errorf("fib/kernel: attach the filter of own changes: %w", err)
	}
	// A descriptor of our own, for the library keeps its poller to itself and allocates
	// 64 kB per read.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fib/kernel: dup: %w", err)
	}
	return os.NewFile(uintptr(dup), "netlink monitor"), nil
}

// echoFilter is a classic BPF program that drops route and next-hop notifications whose
// sender is the given port id: our own writes. Without it a load loses a tenth of its
// speed and overruns the buffer. Link and address messages are never dropped.
func echoFilter(writer uint32) []unix.SockFilter {
	const typeAt, portAt = 4, 12 // in struct nlmsghdr
	const (
		loadHalf = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jumpEq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret      = unix.BPF_RET | unix.BPF_K
	)
	// BPF loads are big-endian, netlink is not.
	half := func(v uint16) uint32 {
		var b [2]byte
		native.PutUint16(b[:], v)
		return uint32(binary.BigEndian.Uint16(b[:]))
	}
	var port [4]byte
	native.PutUint32(port[:], writer)
	return []unix.SockFilter{
		0: {Code: loadHalf, K: typeAt},
		1: {Code: jumpEq, K: half(unix.RTM_NEWROUTE), Jt: 3},
		2: {Code: jumpEq, K: half(unix.RTM_DELROUTE), Jt: 2},
		3: {Code: jumpEq, K: half(unix.RTM_NEWNEXTHOP), Jt: 1},
		4: {Code: jumpEq, K: half(unix.RTM_DELNEXTHOP), Jf: 2},
		5: {Code: loadWord, K: portAt},
		6: {Code: jumpEq, K: binary.BigEndian.Uint32(port[:]), Jt: 1},
		7: {Code: ret, K: 0xffffffff}, // keep
		8: {Code: ret, K: 0},          // drop
	}
}

// Watch calls each for every Event until ctx ends or the Handle is closed, which is
// no error. The first one is Subscribed; when events were lost, Overflow follows as soon
// as the queue is empty again. each is called by one goroutine and must not block: while
// it runs, events wait in the socket's buffer. One Watch at a time.
func (h *Handle) Watch(ctx context.Context, each func(fib.Event)) error {
	if err := h.watch(ctx, each); err != nil && ctx.Err() == nil && !h.closed.Load() {
		return fmt.Errorf("fib/kernel: watch: %w", err)
	}
	return nil
}

func (h *Handle) watch(ctx context.Context, each func(fib.Event)) error {
	if err := h.monitor.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.monitor.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := h.monitor.SyscallConn()
	if err != nil {
		return err
	}
	if err := listen(conn, unix.NETLINK_ADD_MEMBERSHIP); err != nil {
		return err
	}
	defer func() { _ = listen(conn, unix.NETLINK_DROP_MEMBERSHIP) }() // lest an unread queue fills up
	each(fib.Event{Kind: fib.Subscribed})

	buf := make([]byte, readBuffer)
	var n int
	var recvErr error
	lost := false
	recv := func(fd uintptr) bool {
		n, _, recvErr = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
		if recvErr != unix.EAGAIN {
			return true
		}
		// After an overrun the kernel drops every message until the queue is empty
		// (net/netlink/af_netlink.c, NETLINK_S_CONGESTED), without saying so again:
		// what is read before that is out of date when it is read.
		if lost {
			lost = false
			each(fib.Event{Kind: fib.Overflow})
		}
		return false
	}
	for {
		if err := conn.Read(recv); err != nil {
			return err
		}
		switch {
		case recvErr == unix.EINTR:
		case recvErr == unix.ENOBUFS || recvErr == nil && n > len(buf):
			lost = true
		case recvErr != nil:
			return recvErr
		case !lost && h.report(buf[:n], each) != nil:
			lost = true // not understood: what it said has to be read elsewhere
		}
	}
}

// listen joins or leaves the multicast groups.
func listen(conn syscall.RawConn, option int) error {
	var err error
	ctrl := conn.Control(func(fd uintptr) {
		for _, g := range monitorGroups {
			e := unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, option, g)
			// EINVAL: a kernel too old to know next-hop objects has no such group.
			if e != nil && !(g == unix.RTNLGRP_NEXTHOP && e == unix.EINVAL) {
				err = errors.Join(err, fmt.Errorf("multicast group %d: %w", g, e))
			}
		}
	})
	return errors.Join(ctrl, err)
}

// report turns a datagram into events.
func (h *Handle) report(b []byte, each func(fib.Event)) error {
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			return err
		}
		e, err := h.event(m)
		if err != nil {
			return err
		}
		if e.Kind != 0 {
			each(e)
		}
		b = rest
	}
	return nil
}

// event turns a notification into an event; Kind 0 means that it concerns nobody.
func (h *Handle) event(m message) (e fib.Event, err error) {
	e.PID = m.port
	switch m.typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		e.Kind, e.Deleted = fib.LinkChanged, m.typ == unix.RTM_DELLINK
		e.IfIndex, e.Link, err = parseLink(m.body)
		if len(m.body) > 0 && m.body[0] != unix.AF_UNSPEC {
			e.Kind = 0 // a bridge port's settings, or IPv6's: DELLINK there is no end of the link
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		var a fib.Address
		e.Kind, e.Deleted = fib.AddrChanged, m.typ == unix.RTM_DELADDR
		a, _, err = parseAddr(m.body)
		e.IfIndex = a.IfIndex
	case unix.RTM_NEWNEIGH:
		var state uint16
		e.Addr, e.IfIndex, state, err = parseNeigh(m.body)
		switch {
		case !e.Addr.IsValid():
		case state&unix.NUD_FAILED != 0:
			e.Kind = fib.NeighborFailed
		case state&(unix.NUD_REACHABLE|unix.NUD_PERMANENT) != 0:
			e.Kind = fib.NeighborReachable
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		var n nextHopMsg
		err = parseNextHop(m.body, &n)
		e.Kind, e.Deleted, e.ID = fib.HostNextHopChanged, m.typ == unix.RTM_DELNEXTHOP, n.id
		if h.owner.OwnsID(n.id) {
			e.Kind = fib.OwnNextHopChanged
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		var r routeMsg
		err = parseRoute(m.body, &r)
		e.Deleted = m.typ == unix.RTM_DELROUTE
		e.Prefix, e.Table, e.Protocol = r.prefix, r.table, r.protocol
		switch {
		case !isIP(r.family) || r.flags&unix.RTM_F_CLONED != 0:
		case h.ours(&r):
			e.Kind = fib.OwnRouteChanged
		case h.ourKey(&r):
			e.Kind = fib.ForeignRoute
		case r.table == h.owner.Table || r.table == unix.RT_TABLE_MAIN:
			e.Kind = fib.HostRouteChanged
		}
	}
	return e, err
}
