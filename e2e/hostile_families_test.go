package e2e_test

import (
	"bytes"
	"fmt"

	"github.com/nexthopd/nexthopd/e2e/nva"
)

// multi is an UPDATE with an MP_REACH_NLRI or MP_UNREACH_NLRI of whatever value.
func multi(flags, typ byte, value string) func(shot) []byte {
	return func(shot) []byte {
		return nva.UpdateMessage(nil, cat(nva.AppendAttr(nil, flags, typ, octets(value)), octets(goodOrigin+goodPath+goodMark)), nil)
	}
}

// multiAttacks are about MP_REACH_NLRI and MP_UNREACH_NLRI of the families that are spoken.
var multiAttacks = []attack{
	{name: "IPv6, MP_REACH_NLRI twice", rfc: "RFC 7606 3 g", want: resets("3/1"), send: func(x shot) []byte {
		return nva.UpdateMessage(nil, cat(x.reach6(), x.reach6(), octets(goodOrigin+goodPath)), nil)
	}},
	{name: "IPv6, MP_UNREACH_NLRI twice", rfc: "RFC 7606 3 g", want: resets("3/1"), send: func(x shot) []byte {
		un := nva.AppendAttr(nil, 0x80, 15, cat(octets("0002 01"), x.nlri6()))
		return nva.UpdateMessage(nil, cat(un, un), nil)
	}},
	{name: "IPv6, MP_REACH_NLRI of 0 octets", rfc: "RFC 7606 5.3", send: multi(0x80, 14, ""), want: resets("3/9 800e00")},
	{name: "IPv6, MP_REACH_NLRI of 4 octets", rfc: "RFC 7606 5.3", send: multi(0x80, 14, "0002 01 00"), want: resets("3/9")},
	{name: "IPv6, MP_UNREACH_NLRI of 2 octets", rfc: "RFC 7606 5.3", send: multi(0x80, 15, "0002"), want: resets("3/9")},
	{name: "IPv6, next hop of 0 octets", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 00 00 20 2a0f0000"), want: resets("3/9")},
	{name: "IPv6, next hop of 4 octets", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 04 0a010004 00 20 2a0f0000"), want: resets("3/9")},
	{name: "IPv6, next hop of 15 octets", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 0f"+zeros(15)+"00 20 2a0f0000"), want: resets("3/9")},
	{name: "IPv6, next hop of 24 octets", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 18"+zeros(24)+"00 20 2a0f0000"), want: resets("3/9")},
	{name: "IPv6, next hop of 48 octets", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 30"+zeros(48)+"00 20 2a0f0000"), want: resets("3/9")},
	{name: "IPv6, next hop overruns", rfc: "RFC 7606 7.11", send: multi(0x80, 14, "0002 01 ff"+hop6+"00"), want: resets("3/9")},
	{name: "IPv6, prefix of 129 bits", rfc: "RFC 7606 5.3", send: multi(0x80, 14, "0002 01 10"+hop6+"00 81"+zeros(17)), want: resets("3/9")},
	{name: "IPv6, prefix cut short", rfc: "RFC 7606 5.3", send: multi(0x80, 14, "0002 01 10"+hop6+"00 30 2a0f"), want: resets("3/9")},
	{name: "IPv6, withdrawn prefix of 129 bits", rfc: "RFC 7606 5.3", send: multi(0x80, 15, "0002 01 81"+zeros(17)), want: resets("3/9")},
	{name: "IPv6, withdrawn prefix cut short", rfc: "RFC 7606 5.3", send: multi(0x80, 15, "0002 01 40 2a0f"), want: resets("3/9")},
	{name: "IPv6, MP_REACH_NLRI transitive", rfc: "RFC 7606 3 c", want: withdrawn, send: func(x shot) []byte {
		r := x.reach6()
		r[0] = 0xc0
		return nva.UpdateMessage(nil, cat(r, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "IPv6, MP_REACH_NLRI well-known", rfc: "RFC 7606 3 c", want: withdrawn, send: func(x shot) []byte {
		r := x.reach6()
		r[0] = 0x40
		return nva.UpdateMessage(nil, cat(r, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "IPv6, MP_REACH_NLRI last", rfc: "RFC 7606 5.1", want: accepted, send: func(x shot) []byte {
		return nva.UpdateMessage(nil, cat(octets(goodOrigin+goodPath+goodMark), x.reach6()), nil)
	}},
	{name: "IPv6, two next hops", rfc: "RFC 2545 3", want: accepted, send: func(x shot) []byte {
		r := nva.AppendAttr(nil, 0x80, 14, cat(octets("0002 01 20"+hop6+"fe80 000000000000 0000000000000004 00"), x.nlri6()))
		return nva.UpdateMessage(nil, cat(r, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "IPv6, nothing announced in MP_REACH_NLRI", rfc: "RFC 4760 3", send: multi(0x80, 14, "0002 01 10"+hop6+"00"), want: untouched},
	{name: "both families in one UPDATE, ORIGIN broken", rfc: "RFC 7606 2", want: withdrawn, send: func(x shot) []byte {
		return nva.UpdateMessage(nil, cat(x.reach6(), octets("40 01 02 0000"+goodPath+goodHop)), x.nlri())
	}},
	{name: "IPv4 in MP_REACH_NLRI", rfc: "RFC 4760 3", want: accepted, send: func(x shot) []byte {
		r := nva.AppendAttr(nil, 0x80, 14, cat(octets("0001 01 04 0a010004 00"), x.nlri()))
		return nva.UpdateMessage(nil, cat(r, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "IPv4 withdrawn in MP_UNREACH_NLRI", rfc: "RFC 4760 4", want: outcome{path: "none"}, send: func(x shot) []byte {
		return nva.UpdateMessage(nil, nva.AppendAttr(nil, 0x80, 15, cat(octets("0001 01"), x.nlri())), nil)
	}},
	{name: "IPv4 with an IPv6 next hop, not agreed", rfc: "RFC 7606 7.11", want: resets("3/9"), send: func(x shot) []byte {
		r := nva.AppendAttr(nil, 0x80, 14, cat(octets("0001 01 10"+hop6+"00"), x.nlri()))
		return nva.UpdateMessage(nil, cat(r, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "IPv6 prefixes on a session for IPv4", rfc: "RFC 4760 7", open: func(o *nva.Options) { o.Families = []nva.Family{nva.IPv4} },
		send: func(x shot) []byte { return x.update6(goodOrigin, goodPath, goodMark) }, want: ignored},
	{name: "IPv4 prefixes on a session for IPv6", rfc: "RFC 4760 7", open: func(o *nva.Options) { o.Families = []nva.Family{nva.IPv6} },
		send: func(x shot) []byte { return x.update(goodOrigin, goodPath, goodHop, goodMark) }, want: ignored},
}

// foreign are the families that are never spoken, each with octets that pass for one of
// its prefixes at the first glance.
var foreign = []struct {
	name      string
	afi, safi int
	nlri      string
}{
	{"IPv4 multicast", 1, 2, "18 140000"},
	{"IPv6 multicast", 2, 2, "20 2a0f0000"},
	{"labelled IPv4", 1, 4, "30 000641 140000"},
	{"MCAST-VPN", 1, 5, "05 16" + "0000fc9a00000001" + "0000"},
	{"MUP", 1, 85, "01 0001 0c" + "0000fc9a00000001" + "18140000"},
	{"VPLS", 25, 65, "0011 0000fc9a00000001 0001 0001 0001 000641"},
	{"EVPN, type 2", 25, 70, "02 21" + zeros(33)},
	{"EVPN, type 5 cut short", 25, 70, "05 22 00"},
	{"EVPN, type 255", 25, 70, "ff ff"},
	{"BGP-LS", 16388, 71, "0001 ffff 03 0000000000000000"},
	{"SR policy", 1, 73, "60 00000001 00000001 0a010004"},
	{"VPNv4", 1, 128, "70 000641 0000fc9a00000001 140000"},
	{"VPNv6", 2, 128, "78 000641 0000fc9a00000001 2a0f0000"},
	{"route target", 1, 132, "60 0000fc9a 0002fc9a00000001"},
	{"FlowSpec", 1, 133, "07 01 18 140000 03 81 06"},
	{"FlowSpec of noise", 1, 133, "f0ff ffffffffffffffff"},
	{"FlowSpec IPv6", 2, 133, "08 01 20 00 2a0f0000 ff"},
	{"FlowSpec VPN", 1, 134, "0d 0000fc9a00000001 01 18 140000"},
	{"opaque", 16397, 241, "0001 ff"},
	{"AFI 0", 0, 1, "18 140000"},
	{"AFI 65535 SAFI 255", 65535, 255, "ffffffff"},
}

// foreignAttacks announce and withdraw in each of those families, on a session that
// did not offer it and on one that did.
func foreignAttacks() []attack {
	var list []attack
	for _, f := range foreign {
		family := fmt.Sprintf("%04x %02x", f.afi, f.safi)
		offered := nva.Capability{Code: 1, Value: []byte{byte(f.afi >> 8), byte(f.afi), 0, byte(f.safi)}}
		list = append(list,
			attack{name: f.name, rfc: "RFC 4760 7", send: multi(0x80, 14, family+"04 0a010004 00"+f.nlri), want: ignored},
			attack{name: f.name + ", withdrawn", rfc: "RFC 4760 7", send: multi(0x80, 15, family+f.nlri), want: ignored},
			attack{name: f.name + ", offered by the peer", rfc: "RFC 4760 8", open: func(o *nva.Options) { o.Caps = append(o.Caps, offered) },
				send: func(x shot) []byte {
					reach := nva.AppendAttr(nil, 0x80, 14, octets(family+"04 0a010004 00"+f.nlri))
					return nva.UpdateMessage(nil, cat(reach, octets(goodOrigin+goodPath+goodHop+goodMark)), x.nlri())
				}, want: accepted.counted("ignored")})
	}
	return list
}

// messageAttacks are NOTIFICATION and ROUTE-REFRESH.
var messageAttacks = []attack{
	{name: "NOTIFICATION Cease", rfc: "RFC 4271 6.4", send: just(nva.Notification{Code: 6}.Encode()), want: hungUp},
	{name: "NOTIFICATION Cease/Administrative Shutdown", rfc: "RFC 9003 2", send: just(nva.Notification{Code: 6, Subcode: 2, Data: []byte("\x05hello")}.Encode()), want: hungUp},
	{name: "NOTIFICATION whose communication overruns", rfc: "RFC 9003 2", send: just(nva.Notification{Code: 6, Subcode: 2, Data: []byte("\xffhello")}.Encode()), want: hungUp},
	{name: "NOTIFICATION whose communication is no UTF-8", rfc: "RFC 9003 2", send: just(nva.Notification{Code: 6, Subcode: 4, Data: []byte("\x06\xff\xfe\x1b[2J\n")}.Encode()), want: hungUp},
	{name: "NOTIFICATION Hard Reset without its inner code", rfc: "RFC 8538 3", send: just(nva.Notification{Code: 6, Subcode: 9}.Encode()), want: hungUp},
	{name: "NOTIFICATION of an unknown code", rfc: "RFC 4271 6.4", send: just(nva.Notification{Code: 99, Subcode: 99}.Encode()), want: hungUp},
	{name: "NOTIFICATION 0/0", rfc: "RFC 4271 6.4", send: just(nva.Notification{}.Encode()), want: hungUp},
	{name: "NOTIFICATION with 4,075 octets of data", rfc: "RFC 4271 6.4", send: just(nva.Notification{Code: 3, Subcode: 1, Data: make([]byte, 4075)}.Encode()), want: hungUp},
	{name: "NOTIFICATION and more after it", rfc: "RFC 4271 6.4", send: func(x shot) []byte {
		return cat(nva.Notification{Code: 6, Subcode: 3}.Encode(), x.update(goodOrigin, goodPath, goodHop, goodMark))
	}, want: hungUp},

	{name: "ROUTE-REFRESH", rfc: "RFC 2918 4", send: just(nva.RefreshRequest(nva.IPv4)), want: untouched},
	{name: "ROUTE-REFRESH of an unknown family", rfc: "RFC 2918 4", send: just(header(23, 5, 0xff, 0xff, 0, 0xff)), want: untouched},
	{name: "ROUTE-REFRESH of FlowSpec", rfc: "RFC 2918 4", send: just(header(23, 5, 0, 1, 0, 133)), want: untouched},
	{name: "ROUTE-REFRESH that marks a beginning", rfc: "RFC 7313 3.2", send: just(header(23, 5, 0, 1, 1, 1)), want: untouched},
	{name: "ROUTE-REFRESH with a reserved octet of 255", rfc: "RFC 2918 3", send: just(header(23, 5, 0, 1, 255, 1)), want: untouched},
	{name: "ROUTE-REFRESH that was not offered", rfc: "RFC 2918 4", open: func(o *nva.Options) { o.NoRouteRefresh = true }, send: just(nva.RefreshRequest(nva.IPv4)), want: untouched},
	{name: "ROUTE-REFRESH three times at once", rfc: "RFC 2918 4", send: just(bytes.Repeat(nva.RefreshRequest(nva.IPv6), 3)), want: untouched},
}
