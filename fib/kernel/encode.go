package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix lacks of linux/rtnetlink.h, linux/nexthop.h and
// linux/if_link.h.
const (
	rtaNHID             = 30
	nhaFDB              = 11
	rtextFilterSkipStat = 8
	nexthopGrpTypeMPath = 0
	nlaTypeMask         = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

var native = binary.NativeEndian

// encoder writes rtnetlink messages one after the other into one buffer, which it
// reuses: a route costs no allocation.
type encoder struct {
	owner fib.Owner
	buf   []byte
	seq   uint32 // of the next message
}

// reset empties the buffer; the next message gets number seq.
func (e *encoder) reset(seq uint32) { e.buf, e.seq = e.buf[:0], seq }

// begin starts a message and returns where.
func (e *encoder) begin(typ, flags uint16) (at int) {
	at = len(e.buf)
	e.buf = native.AppendUint32(e.buf, 0) // length, by end
	e.buf = native.AppendUint16(e.buf, typ)
	e.buf = native.AppendUint16(e.buf, flags|unix.NLM_F_REQUEST)
	e.buf = native.AppendUint32(e.buf, e.seq)
	e.buf = native.AppendUint32(e.buf, 0) // our port id: the kernel fills it in
	e.seq++
	return at
}

// end closes the message that began at.
func (e *encoder) end(at int) { native.PutUint32(e.buf[at:], uint32(len(e.buf)-at)) }

// setFlags adds flags to the finished message at.
func (e *encoder) setFlags(at int, flags uint16) {
	native.PutUint16(e.buf[at+6:], native.Uint16(e.buf[at+6:])|flags)
}

// nhmsg appends struct nhmsg of linux/nexthop.h.
func (e *encoder) nhmsg(family, protocol uint8, flags uint32) {
	e.buf = append(e.buf, family, 0, protocol, 0)
	e.buf = native.AppendUint32(e.buf, flags)
}

// rtmsg appends struct rtmsg of linux/rtnetlink.h.
func (e *encoder) rtmsg(family, dstLen, protocol, scope, typ uint8, table uint32, flags uint32) {
	t := uint8(unix.RT_TABLE_UNSPEC) // numbers over 255 go into RTA_TABLE
	if table < 256 {
		t = uint8(table)
	}
	e.buf = append(e.buf, family, dstLen, 0, 0, t, protocol, scope, typ)
	e.buf = native.AppendUint32(e.buf, flags)
}

func (e *encoder) attrU32(typ uint16, v uint32) {
	e.buf = native.AppendUint16(e.buf, 8)
	e.buf = native.AppendUint16(e.buf, typ)
	e.buf = native.AppendUint32(e.buf, v)
}

// attrAddr appends an address. IPv6 zones are dropped: the interface is named elsewhere.
func (e *encoder) attrAddr(typ uint16, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		e.buf = native.AppendUint16(e.buf, 8)
		e.buf = native.AppendUint16(e.buf, typ)
		e.buf = append(e.buf, b[:]...)
		return
	}
	b := a.As16()
	e.buf = native.AppendUint16(e.buf, 20)
	e.buf = native.AppendUint16(e.buf, typ)
	e.buf = append(e.buf, b[:]...)
}

// attrVia appends RTA_VIA, a gateway of another family than the route's.
func (e *encoder) attrVia(a netip.Addr) {
	at := e.beginAttr(unix.RTA_VIA)
	e.buf = native.AppendUint16(e.buf, uint16(familyOf(a)))
	if a.Is4() {
		b := a.As4()
		e.buf = append(e.buf, b[:]...)
	} else {
		b := a.As16()
		e.buf = append(e.buf, b[:]...)
	}
	e.endAttr(at)
}

// beginAttr starts an attribute that is closed by endAttr.
func (e *encoder) beginAttr(typ uint16) (at int) {
	at = len(e.buf)
	e.buf = native.AppendUint16(e.buf, 0)
	e.buf = native.AppendUint16(e.buf, typ)
	return at
}

func (e *encoder) endAttr(at int) {
	native.PutUint16(e.buf[at:], uint16(len(e.buf)-at))
	for len(e.buf)%4 != 0 {
		e.buf = append(e.buf, 0)
	}
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// maxLegs bounds what fits into one attribute, whose length is a 16-bit number: 36
// bytes is the longest leg (rtnexthop and RTA_VIA). The kernel's own limits are lower.
const maxLegs = 0xff00 / 36

// op appends the message for one operation, whose last message flag is up to the
// caller, or says why there is no such message.
func (e *encoder) op(op *fib.Op) (reason string) {
	switch op.Kind {
	case fib.NextHopAdd:
		e.nextHopAdd(op.ID, op.Leg)
	case fib.GroupAdd, fib.GroupReplace:
		if len(op.Members) > maxLegs {
			return "too many members"
		}
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if op.Kind == fib.GroupReplace {
			flags = unix.NLM_F_REPLACE
		}
		e.group(op.ID, op.Members, flags)
	case fib.GroupDel, fib.NextHopDel:
		m := e.begin(unix.RTM_DELNEXTHOP, 0)
		e.nhmsg(unix.AF_UNSPEC, 0, 0)
		e.attrU32(unix.NHA_ID, op.ID)
		e.end(m)
	case fib.RouteAdd, fib.RouteReplace:
		if !op.Prefix.IsValid() {
			return "invalid prefix"
		}
		if op.ID == 0 && (len(op.Legs) == 0 || len(op.Legs) > maxLegs) {
			return "no next hop, or too many"
		}
		if len(op.Legs) > 1 && slices.Contains(op.Legs, fib.Blackhole) {
			return "a blackhole among other next hops"
		}
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if op.Kind == fib.RouteReplace {
			flags = unix.NLM_F_REPLACE
		}
		e.routeAdd(op, flags)
	case fib.RouteDel:
		if !op.Prefix.IsValid() {
			return "invalid prefix"
		}
		e.routeDel(op.Prefix)
	default:
		return "unknown operation"
	}
	return ""
}

// nextHopFamily is the family of a next-hop object. A leg without gateway, Blackhole
// too, gets AF_INET6: the kernel lets IPv4 and IPv6 routes use such an object, whereas an
// AF_INET one serves IPv4 only ("IPv6 routes can not use an IPv4 nexthop").
func nextHopFamily(l fib.Leg) uint8 {
	if !l.Gateway.IsValid() {
		return unix.AF_INET6
	}
	return familyOf(l.Gateway)
}

// onlink is set on every leg with a gateway. Next hops were resolved through the
// host's own routes already, and without it the kernel would resolve them again, through
// learned routes too; it also makes the kernel refuse our own addresses as gateway.
func onlink(l fib.Leg) uint32 {
	if l.Gateway.IsValid() {
		return unix.RTNH_F_ONLINK
	}
	return 0
}

func (e *encoder) nextHopAdd(id uint32, l fib.Leg) {
	m := e.begin(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	e.nhmsg(nextHopFamily(l), e.owner.Protocol, onlink(l))
	e.attrU32(unix.NHA_ID, id)
	if l == fib.Blackhole {
		e.endAttr(e.beginAttr(unix.NHA_BLACKHOLE))
		e.end(m)
		return
	}
	e.attrU32(unix.NHA_OIF, uint32(l.IfIndex))
	if l.Gateway.IsValid() {
		e.attrAddr(unix.NHA_GATEWAY, l.Gateway)
	}
	e.end(m)
}

func (e *encoder) group(id uint32, members []uint32, flags uint16) {
	m := e.begin(unix.RTM_NEWNEXTHOP, flags)
	e.nhmsg(unix.AF_UNSPEC, e.owner.Protocol, 0)
	e.attrU32(unix.NHA_ID, id)
	a := e.beginAttr(unix.NHA_GROUP)
	for _, member := range members {
		// struct nexthop_grp: the weight is sent less one.
		e.buf = native.AppendUint32(e.buf, member)
		e.buf = native.AppendUint32(e.buf, 0)
	}
	e.endAttr(a)
	e.end(m)
}

func (e *encoder) routeAdd(op *fib.Op, flags uint16) {
	var rtFlags uint32
	typ := uint8(unix.RTN_UNICAST)
	if op.ID == 0 && len(op.Legs) == 1 {
		rtFlags = onlink(op.Legs[0])
		if op.Legs[0] == fib.Blackhole {
			typ = unix.RTN_BLACKHOLE
		}
	}
	family := familyOf(op.Prefix.Addr())
	m := e.begin(unix.RTM_NEWROUTE, flags)
	e.rtmsg(family, uint8(op.Prefix.Bits()), e.owner.Protocol,
		unix.RT_SCOPE_UNIVERSE, typ, e.owner.Table, rtFlags)
	e.routeKey(op.Prefix)
	switch {
	case op.ID != 0:
		e.attrU32(rtaNHID, op.ID)
	case typ == unix.RTN_BLACKHOLE: // leads over no link
	case len(op.Legs) == 1:
		// Not RTA_MULTIPATH: IPv6 refuses a leg without gateway there.
		e.attrU32(unix.RTA_OIF, uint32(op.Legs[0].IfIndex))
		e.gateway(family, op.Legs[0].Gateway)
	default:
		e.multipath(family, op.Legs)
	}
	e.end(m)
}

func (e *encoder) routeDel(p netip.Prefix) {
	m := e.begin(unix.RTM_DELROUTE, 0)
	// Any scope and any type, but our protocol: the kernel answers ESRCH to another one.
	e.rtmsg(familyOf(p.Addr()), uint8(p.Bits()), e.owner.Protocol,
		unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC, e.owner.Table, 0)
	e.routeKey(p)
	e.end(m)
}

func (e *encoder) routeKey(p netip.Prefix) {
	e.attrAddr(unix.RTA_DST, p.Addr())
	e.attrU32(unix.RTA_TABLE, e.owner.Table)
	e.attrU32(unix.RTA_PRIORITY, e.owner.Metric)
}

func (e *encoder) gateway(family uint8, gw netip.Addr) {
	switch {
	case !gw.IsValid():
	case familyOf(gw) == family:
		e.attrAddr(unix.RTA_GATEWAY, gw)
	default:
		e.attrVia(gw)
	}
}

func (e *encoder) multipath(family uint8, legs []fib.Leg) {
	a := e.beginAttr(unix.RTA_MULTIPATH)
	for _, l := range legs {
		at := len(e.buf)
		// struct rtnexthop: length, flags, weight less one, interface.
		e.buf = native.AppendUint16(e.buf, 0)
		e.buf = append(e.buf, uint8(onlink(l)), 0)
		e.buf = native.AppendUint32(e.buf, uint32(l.IfIndex))
		e.gateway(family, l.Gateway)
		native.PutUint16(e.buf[at:], uint16(len(e.buf)-at))
	}
	e.endAttr(a)
}
