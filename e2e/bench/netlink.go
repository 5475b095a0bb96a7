package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix lacks of linux/rtnetlink.h.
const rtaNHID = 30

const rtTableMain = unix.RT_TABLE_MAIN

// rtnetlink is a netlink socket of one namespace, for dumps and raw writes.
type rtnetlink struct {
	fd  int
	seq uint32
	buf []byte
}

// openNetlink opens a socket in the network namespace of the calling thread.
func openNetlink() (*rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	s := &rtnetlink{fd: fd, buf: make([]byte, 128<<10)}
	timeout := unix.NsecToTimeval(int64(10 * time.Second)) // an answer that got lost must not hang us
	err = errors.Join(
		// Strict checking: the kernel filters dumps by table instead of ignoring that.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
	)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return s, nil
}

func (s *rtnetlink) close() { _ = unix.Close(s.fd) }

// message encodes header and body.
func message(b []byte, typ, flags uint16, seq uint32, body []byte) []byte {
	b = native.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	return append(b, body...)
}

func attr(b []byte, typ uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(4+len(value)))
	b = native.AppendUint16(b, typ)
	return append(b, value...) // all of ours are multiples of four bytes long
}

func attrU32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, native.AppendUint32(nil, v))
}

// dump sends a request and calls each with every answer's body.
func (s *rtnetlink) dump(typ uint16, body []byte, each func(body []byte)) error {
	s.seq++
	request := message(nil, typ, unix.NLM_F_DUMP, s.seq, body)
	if err := unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		done, err := s.answers(func(typ uint16, body []byte) { each(body) })
		if done || err != nil {
			return err
		}
	}
}

// answers reads one datagram; done tells that the exchange is over.
func (s *rtnetlink) answers(each func(typ uint16, body []byte)) (done bool, err error) {
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	if err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("netlink: %w", err)
	}
	for b := s.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		size := int(native.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("netlink: message of %d bytes in %d", size, len(b))
		}
		typ, seq, body := native.Uint16(b[4:]), native.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:size]
		b = b[min((size+3)&^3, len(b)):]
		switch {
		case seq != s.seq: // of an exchange that was given up
		case typ == unix.NLMSG_DONE || typ == unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if code := int32(native.Uint32(body)); code != 0 {
					return true, fmt.Errorf("netlink: %w", unix.Errno(-code))
				}
			}
			return true, nil
		default:
			each(typ, body)
		}
	}
	return false, nil
}

// eachAttr calls f for every attribute.
func eachAttr(b []byte, f func(typ uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(native.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		f(native.Uint16(b[2:])&0x3fff, b[4:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

// hops is a set of next hops: bit i is NVA i, and other is all the rest.
type hops uint8

const (
	allNVAs hops = 1<<nvas - 1
	other   hops = 1 << 7
)

func hopOf(gateway []byte) hops {
	if a, ok := netip.AddrFromSlice(gateway); ok {
		for i := range nvas {
			if a == nvaAddr(i) {
				return 1 << i
			}
		}
	}
	return other
}

// objects are the kernel's next-hop objects.
type objects struct {
	hops   map[uint32]hops // of an object, through its members where it is a group
	groups map[uint32]bool // which of them are groups
}

func (s *rtnetlink) objects() (objects, error) {
	o := objects{map[uint32]hops{}, map[uint32]bool{}}
	members := map[uint32][]uint32{}
	err := s.dump(unix.RTM_GETNEXTHOP, make([]byte, 8), func(body []byte) {
		if len(body) < 8 {
			return
		}
		var id uint32
		h := other
		var group []uint32
		eachAttr(body[8:], func(typ uint16, v []byte) {
			switch typ {
			case unix.NHA_ID:
				id = native.Uint32(v)
			case unix.NHA_GATEWAY:
				h = hopOf(v)
			case unix.NHA_GROUP: // struct nexthop_grp
				for ; len(v) >= 8; v = v[8:] {
					group = append(group, native.Uint32(v))
				}
			}
		})
		if group != nil {
			members[id], o.groups[id] = group, true
		} else {
			o.hops[id] = h
		}
	})
	for id, group := range members {
		var h hops
		for _, m := range group {
			h |= o.hops[m]
		}
		o.hops[id] = h
	}
	return o, err
}

// fib is what one dump tells of the measured prefixes.
type fib struct {
	routes  int
	by      [256]int        // routes by the set of their next hops
	grouped int             // routes that name a group
	used    map[uint32]bool // the groups they name
}

// all tells whether there are n routes and all lead to exactly these next hops.
func (f fib) all(n int, h hops) bool { return f.routes == n && f.by[h] == n }

func (f fib) String() string {
	return fmt.Sprintf("%d routes: %d through both NVAs, %d through nva1, %d through nva2", f.routes, f.by[3], f.by[1], f.by[2])
}

// routes reads the main table's routes to what prefixes() makes. Legs that the kernel
// itself marks as dead do not count.
func (s *rtnetlink) routes() (f fib, err error) {
	o, err := s.objects()
	if err != nil {
		return f, err
	}
	f.used = map[uint32]bool{}
	group := uint32(0) // the latest put there
	request := []byte{unix.AF_INET, 0, 0, 0, rtTableMain, 0, 0, 0, 0, 0, 0, 0}
	request = attrU32(request, unix.RTA_TABLE, rtTableMain)
	err = s.dump(unix.RTM_GETROUTE, request, func(body []byte) {
		if len(body) < 12 || body[1] != 24 {
			return
		}
		var h hops
		var id uint32
		mine := false
		eachAttr(body[12:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				mine = len(v) == 4 && v[0] >= 20 && v[0] < 48
			case rtaNHID:
				id = native.Uint32(v)
			case unix.RTA_GATEWAY:
				h |= hopOf(v)
			case unix.RTA_MULTIPATH: // struct rtnexthop, then attributes
				for len(v) >= 8 {
					size := int(native.Uint16(v))
					if size < 8 || size > len(v) {
						return
					}
					if v[2]&unix.RTNH_F_DEAD == 0 {
						eachAttr(v[8:size], func(typ uint16, v []byte) {
							if typ == unix.RTA_GATEWAY {
								h |= hopOf(v)
							}
						})
					}
					v = v[min((size+3)&^3, len(v)):]
				}
			}
		})
		if !mine {
			return
		}
		if id != 0 {
			h = o.hops[id]
			if o.groups[id] {
				f.grouped++
				if id != group {
					f.used[id], group = true, id
				}
			}
		}
		f.routes++
		f.by[h]++
	})
	return f, err
}
