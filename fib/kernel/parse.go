package kernel

import (
	"bytes"
	"net/netip"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// message is one netlink message; body follows the header.
type message struct {
	typ   uint16
	flags uint16
	seq   uint32
	port  uint32
	body  []byte
}

func align4(n int) int { return (n + 3) &^ 3 }

// nextMessage cuts the first message off a datagram.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil, errBadMessage
	}
	n := native.Uint32(b)
	if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
		return m, nil, errBadMessage
	}
	m = message{
		typ:   native.Uint16(b[4:]),
		flags: native.Uint16(b[6:]),
		seq:   native.Uint32(b[8:]),
		port:  native.Uint32(b[12:]),
		body:  b[unix.NLMSG_HDRLEN:n],
	}
	return m, b[min(align4(int(n)), len(b)):], nil
}

// parseError reads an NLMSG_ERROR: the error number (0: an acknowledgement) and the
// kernel's text, if any.
func parseError(m message) (errno unix.Errno, text []byte, err error) {
	const sizeofErr = 4 + unix.NLMSG_HDRLEN // struct nlmsgerr
	if len(m.body) < sizeofErr {
		return 0, nil, errBadMessage
	}
	errno = unix.Errno(-int32(native.Uint32(m.body)))
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return errno, nil, nil
	}
	b := m.body[sizeofErr:]
	if m.flags&unix.NLM_F_CAPPED == 0 {
		// The request's payload is repeated before the attributes.
		n := uint64(native.Uint32(m.body[4:]))
		if n < unix.NLMSG_HDRLEN || n-unix.NLMSG_HDRLEN > uint64(len(b)) {
			return 0, nil, errBadMessage
		}
		b = b[min(align4(int(n-unix.NLMSG_HDRLEN)), len(b)):]
	}
	text, err = errorText(b)
	return errno, text, err
}

func errorText(b []byte) (text []byte, err error) {
	a := attrs{b: b}
	for a.next() {
		if a.typ == unix.NLMSGERR_ATTR_MSG {
			text = bytes.TrimRight(a.val, "\x00")
		}
	}
	return text, a.err
}

// attrs iterates over netlink attributes.
type attrs struct {
	b   []byte
	typ uint16
	val []byte
	err error
}

func (a *attrs) next() bool {
	if len(a.b) == 0 || a.err != nil {
		return false
	}
	if len(a.b) < unix.NLA_HDRLEN {
		a.err = errBadMessage
		return false
	}
	n := int(native.Uint16(a.b))
	if n < unix.NLA_HDRLEN || n > len(a.b) {
		a.err = errBadMessage
		return false
	}
	a.typ = native.Uint16(a.b[2:]) & nlaTypeMask
	a.val = a.b[unix.NLA_HDRLEN:n]
	a.b = a.b[min(align4(n), len(a.b)):]
	return true
}

// u32 returns the attribute as a number.
func (a *attrs) u32() uint32 {
	if len(a.val) != 4 {
		a.err = errBadMessage
		return 0
	}
	return native.Uint32(a.val)
}

// addr returns the attribute as an address of the family.
func (a *attrs) addr(family uint8) netip.Addr {
	ip, ok := parseAddrBytes(family, a.val)
	if !ok {
		a.err = errBadMessage
	}
	return ip
}

// via returns an RTA_VIA.
func (a *attrs) via() netip.Addr {
	if len(a.val) < 2 {
		a.err = errBadMessage
		return netip.Addr{}
	}
	ip, ok := parseAddrBytes(uint8(native.Uint16(a.val)), a.val[2:])
	if !ok {
		a.err = errBadMessage
	}
	return ip
}

func parseAddrBytes(family uint8, b []byte) (netip.Addr, bool) {
	switch {
	case family == unix.AF_INET && len(b) == 4:
		return netip.AddrFrom4([4]byte(b)), true
	case family == unix.AF_INET6 && len(b) == 16:
		return netip.AddrFrom16([16]byte(b)), true
	}
	return netip.Addr{}, false
}

func isIP(family uint8) bool { return family == unix.AF_INET || family == unix.AF_INET6 }

// routeMsg is an RTM_NEWROUTE or RTM_DELROUTE of family IPv4 or IPv6.
type routeMsg struct {
	family   uint8
	protocol uint8
	typ      uint8
	narrow   bool // for packets of one TOS or from one source only: part of the kernel's key
	flags    uint32
	table    uint32
	prefix   netip.Prefix
	metric   uint32
	group    uint32 // RTA_NH_ID
	leg      fib.Leg
	// odd: it has properties that we never give a route (a source address, a realm, an
	// encapsulation), apart from those of its legs in multipath.
	odd       bool
	metrics   bool // it has an MTU or such, which we never give either
	encap     bool
	multipath []byte // RTA_MULTIPATH; shares the message's memory
}

// parseRoute reads a message of family IPv4 or IPv6; of other families (multicast
// routing, MPLS) it reads the family only.
func parseRoute(b []byte, r *routeMsg) error {
	if len(b) < unix.SizeofRtMsg {
		return errBadMessage
	}
	*r = routeMsg{
		family: b[0], narrow: b[2] != 0 || b[3] != 0, table: uint32(b[4]),
		protocol: b[5], typ: b[7], flags: native.Uint32(b[8:]),
	}
	if !isIP(r.family) {
		return nil
	}
	dst := netip.IPv4Unspecified()
	if r.family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	a := attrs{b: b[unix.SizeofRtMsg:]}
	for a.next() {
		switch a.typ {
		case unix.RTA_DST:
			dst = a.addr(r.family)
		case unix.RTA_TABLE:
			r.table = a.u32()
		case unix.RTA_PRIORITY:
			r.metric = a.u32()
		case unix.RTA_OIF:
			r.leg.IfIndex = int(a.u32())
		case unix.RTA_GATEWAY:
			r.leg.Gateway = a.addr(r.family)
		case unix.RTA_VIA:
			r.leg.Gateway = a.via()
		case unix.RTA_MULTIPATH:
			r.multipath = a.val
		case rtaNHID:
			r.group = a.u32()
		case unix.RTA_ENCAP:
			r.odd, r.encap = true, true
		case unix.RTA_PREFSRC, unix.RTA_FLOW:
			r.odd = true
		case unix.RTA_METRICS:
			r.metrics = true
		}
	}
	if a.err != nil {
		return a.err
	}
	r.prefix = netip.PrefixFrom(dst, int(b[1])).Masked()
	if !r.prefix.IsValid() || r.prefix.Addr() != dst {
		return errBadMessage
	}
	return nil
}

// appendLegs appends the route's legs, whether it names a group or not. Legs through
// an encapsulation are left out: a Leg cannot tell what they do. plain tells whether
// all legs are such as we write: onlink where there is a gateway, of weight one.
func (r *routeMsg) appendLegs(to []fib.Leg) (_ []fib.Leg, plain bool, err error) {
	const sizeofRtNexthop = 8
	if r.multipath == nil {
		if r.leg.IfIndex == 0 || r.encap {
			return to, false, nil
		}
		return append(to, r.leg), r.flags&unix.RTNH_F_ONLINK == onlink(r.leg), nil
	}
	plain = true
	for b := r.multipath; len(b) > 0; {
		if len(b) < sizeofRtNexthop {
			return nil, false, errBadMessage
		}
		n := int(native.Uint16(b))
		if n < sizeofRtNexthop || n > len(b) {
			return nil, false, errBadMessage
		}
		flags, weight := uint32(b[2]), b[3]
		l := fib.Leg{IfIndex: int(native.Uint32(b[4:]))}
		a := attrs{b: b[sizeofRtNexthop:n]}
		encap := false
		for a.next() {
			switch a.typ {
			case unix.RTA_GATEWAY:
				l.Gateway = a.addr(r.family)
			case unix.RTA_VIA:
				l.Gateway = a.via()
			case unix.RTA_ENCAP:
				encap = true
			case unix.RTA_FLOW:
				plain = false
			}
		}
		if a.err != nil {
			return nil, false, a.err
		}
		if encap {
			plain = false
		} else {
			plain = plain && weight == 0 && flags&unix.RTNH_F_ONLINK == onlink(l)
			to = append(to, l)
		}
		b = b[min(align4(n), len(b)):]
	}
	return to, plain, nil
}

// nextHopMsg is an RTM_NEWNEXTHOP or RTM_DELNEXTHOP.
type nextHopMsg struct {
	id       uint32
	protocol uint8
	leg      fib.Leg
	group    []byte // NHA_GROUP, nil for a next hop; shares the message's memory
	// plain: just as we write them. A next hop that is not has other flags, another
	// family or an encapsulation; a group has weights or another type.
	plain bool
	// leads: a next hop that leads to leg and does nothing else.
	leads bool
}

const sizeofNexthopGrp = 8

func parseNextHop(b []byte, n *nextHopMsg) error {
	if len(b) < unix.SizeofNhmsg {
		return errBadMessage
	}
	family, flags := b[0], native.Uint32(b[4:])
	*n = nextHopMsg{protocol: b[2], plain: true}
	special, blackhole := false, false
	a := attrs{b: b[unix.SizeofNhmsg:]}
	for a.next() {
		switch a.typ {
		case unix.NHA_ID:
			n.id = a.u32()
		case unix.NHA_OIF:
			n.leg.IfIndex = int(a.u32())
		case unix.NHA_GATEWAY:
			n.leg.Gateway = a.addr(family)
		case unix.NHA_GROUP:
			if len(a.val) == 0 || len(a.val)%sizeofNexthopGrp != 0 {
				return errBadMessage
			}
			n.group = a.val
		case unix.NHA_GROUP_TYPE:
			if len(a.val) != 2 {
				return errBadMessage
			}
			n.plain = n.plain && native.Uint16(a.val) == nexthopGrpTypeMPath
		case unix.NHA_BLACKHOLE:
			blackhole = true
		case unix.NHA_ENCAP, nhaFDB:
			special = true
		}
	}
	if a.err != nil {
		return a.err
	}
	if n.group == nil {
		if blackhole {
			n.leg = fib.Blackhole
			n.plain = family == nextHopFamily(n.leg) && !special
			return nil
		}
		n.leads = n.leg.IfIndex != 0 && !special
		n.plain = n.leads &&
			family == nextHopFamily(n.leg) && flags&unix.RTNH_F_ONLINK == onlink(n.leg)
		return nil
	}
	n.plain = n.plain && !special && !blackhole
	for g := n.group; len(g) > 0; g = g[sizeofNexthopGrp:] {
		// Weight less one: 8 bits, and their upper half since Linux 6.12.
		if g[4] != 0 || g[5] != 0 {
			n.plain = false
		}
	}
	return nil
}

// appendMembers appends the ids of the group's members.
func (n *nextHopMsg) appendMembers(to []uint32) []uint32 {
	for g := n.group; len(g) > 0; g = g[sizeofNexthopGrp:] {
		to = append(to, native.Uint32(g))
	}
	return to
}

// parseLink reads an RTM_NEWLINK or RTM_DELLINK.
func parseLink(b []byte) (index int, l fib.Link, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, l, errBadMessage
	}
	flags := native.Uint32(b[8:])
	l.Up = flags&unix.IFF_UP != 0
	// The carrier, which is what the kernel asks for when a next hop is made; IFF_RUNNING
	// is the operational state (RFC 2863) and may lag behind.
	l.Running = flags&unix.IFF_LOWER_UP != 0
	a := attrs{b: b[unix.SizeofIfInfomsg:]}
	for a.next() {
		switch a.typ {
		case unix.IFLA_IFNAME:
			l.Name = string(bytes.TrimRight(a.val, "\x00"))
		case unix.IFLA_MTU:
			l.MTU = int(a.u32())
		}
	}
	return int(native.Uint32(b[4:])), l, a.err
}

// parseAddr reads an RTM_NEWADDR or RTM_DELADDR; ok is false for what is no usable
// address of this host.
func parseAddr(b []byte) (addr fib.Address, ok bool, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return addr, false, errBadMessage
	}
	family, bits, flags := b[0], int(b[1]), uint32(b[2])
	addr.IfIndex = int(native.Uint32(b[4:]))
	if !isIP(family) {
		return addr, false, nil
	}
	var local, address netip.Addr
	a := attrs{b: b[unix.SizeofIfAddrmsg:]}
	for a.next() {
		switch a.typ {
		case unix.IFA_LOCAL:
			local = a.addr(family)
		case unix.IFA_ADDRESS:
			address = a.addr(family)
		case unix.IFA_FLAGS:
			flags = a.u32()
		}
	}
	if a.err != nil {
		return addr, false, a.err
	}
	if !local.IsValid() {
		local = address // IPv6; where both are given, IFA_ADDRESS is the far end
	}
	if addr.Prefix = netip.PrefixFrom(local, bits); !addr.Prefix.IsValid() {
		return addr, false, errBadMessage
	}
	// An address that failed duplicate detection (RFC 4862 section 5.4.5) is somebody
	// else's.
	return addr, flags&unix.IFA_F_DADFAILED == 0, nil
}

// parseNeigh reads an RTM_NEWNEIGH; addr is invalid for what is no IP neighbour.
func parseNeigh(b []byte) (addr netip.Addr, index int, state uint16, err error) {
	if len(b) < unix.SizeofNdMsg {
		return addr, 0, 0, errBadMessage
	}
	family := b[0]
	index, state = int(native.Uint32(b[4:])), native.Uint16(b[8:])
	if !isIP(family) {
		return addr, index, state, nil // a bridge's forwarding table
	}
	a := attrs{b: b[unix.SizeofNdMsg:]}
	for a.next() {
		if a.typ == unix.NDA_DST {
			addr = a.addr(family)
		}
	}
	return addr, index, state, a.err
}
