package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/nexthopd/nexthopd/e2e/nva"
)

// The cases on established sessions. Octets are written by hand or by e2e/nva, which
// shares no code with the daemon.

// header frames a body with whatever length and type.
func header(length, typ int, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(bytes.Repeat([]byte{0xff}, 16), uint16(length))
	return append(append(b, byte(typ)), body...)
}

// just sends octets that aim at nothing.
func just(b []byte) func(shot) []byte { return func(shot) []byte { return b } }

// zeros are n octets in hexadecimal.
func zeros(n int) string { return strings.Repeat("00", n) }

var headerAttacks = []attack{
	{name: "marker begins with 0", rfc: "RFC 4271 6.1", send: just(append([]byte{0}, header(19, 4)[1:]...)), want: resets("1/1")},
	{name: "marker ends with fe", rfc: "RFC 4271 6.1", send: just(cat(bytes.Repeat([]byte{0xff}, 15), octets("fe 0013 04"))), want: resets("1/1")},
	{name: "marker of zeros", rfc: "RFC 4271 6.1", send: just(octets(zeros(16) + "0013 04")), want: resets("1/1")},
	{name: "HTTP request", rfc: "RFC 4271 6.1", send: just([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")), want: resets("1/1")},
	{name: "TLS hello", rfc: "RFC 4271 6.1", send: just(octets("16030100c8010000c40303" + zeros(190))), want: resets("1/1")},
	{name: "64 KiB of noise", rfc: "RFC 4271 6.1", send: just(bytes.Repeat([]byte{0xa5, 0x5a, 0x17}, 21845)), want: resets("1/1")},
	{name: "length 0", rfc: "RFC 4271 6.1", send: just(header(0, 4)), want: resets("1/2 0000")},
	{name: "length 18", rfc: "RFC 4271 6.1", send: just(header(18, 4)), want: resets("1/2 0012")},
	{name: "length 4097", rfc: "RFC 4271 6.1", send: just(header(4097, 2, make([]byte, 4078)...)), want: resets("1/2 1001")},
	{name: "length 65535, extended messages not offered", rfc: "RFC 8654 4", send: just(header(65535, 2)), want: resets("1/2 ffff")},
	{name: "KEEPALIVE of 20", rfc: "RFC 4271 6.1", send: just(header(20, 4, 0)), want: resets("1/2 0014")},
	{name: "UPDATE of 22", rfc: "RFC 4271 6.1", send: just(header(22, 2, 0, 0, 0)), want: resets("1/2 0016")},
	{name: "NOTIFICATION of 20", rfc: "RFC 4271 6.1", send: just(header(20, 3, 6)), want: resets("1/2 0014")},
	{name: "ROUTE-REFRESH of 22", rfc: "RFC 4271 6.1", send: just(header(22, 5, 0, 1, 0)), want: resets("1/2 0016")},
	{name: "ROUTE-REFRESH of 24", rfc: "RFC 4271 6.1", send: just(header(24, 5, 0, 1, 0, 1, 0)), want: resets("1/2 0018")},
	{name: "type 0", rfc: "RFC 4271 6.1", send: just(header(19, 0)), want: resets("1/3 00")},
	{name: "type 6", rfc: "RFC 4271 6.1", send: just(header(19, 6)), want: resets("1/3 06")},
	{name: "type 128, Cisco's old refresh", rfc: "RFC 4271 6.1", send: just(header(23, 128, 0, 1, 0, 1)), want: resets("1/3 80")},
	{name: "type 255", rfc: "RFC 4271 6.1", send: just(header(19, 255)), want: resets("1/3 ff")},
	{name: "OPEN on an established session", rfc: "RFC 6608 4", send: just(header(29, 1, octets("04 fc9a 00b4 0a010064 00")...)), want: resets("5/3")},
	{name: "1,000 KEEPALIVEs at once", rfc: "RFC 4271 4.4", send: just(bytes.Repeat(nva.Keepalive(), 1000)), want: untouched},
	{name: "UPDATE of 4,096", rfc: "RFC 4271 4.1", want: accepted, send: func(x shot) []byte {
		attrs := octets(goodOrigin + goodPath + goodHop + goodMark)
		nlri := bytes.Repeat(x.nlri(), (4096-23-len(attrs))/4)
		return nva.UpdateMessage(nil, attrs, nlri)
	}},
	{name: "extended message, offered by both", rfc: "RFC 8654 4", want: accepted,
		open: func(o *nva.Options) { o.Caps = append(o.Caps, nva.Capability{Code: 6}) },
		send: func(x shot) []byte {
			return nva.UpdateMessage(nil, octets(goodOrigin+goodPath+goodHop+goodMark), bytes.Repeat(x.nlri(), 12000))
		}},
}

var updateAttacks = []attack{
	{name: "withdrawn routes overrun the message", rfc: "RFC 7606 3 b", send: just(header(23, 2, 0, 1, 0, 0)), want: resets("3/1")},
	{name: "withdrawn routes of 65535", rfc: "RFC 7606 3 b", send: just(header(23, 2, 0xff, 0xff, 0, 0)), want: resets("3/1")},
	{name: "attributes overrun the message by 1", rfc: "RFC 7606 3 b", send: just(header(27, 2, 0, 0, 0, 5, 0x40, 1, 1, 0)), want: resets("3/1")},
	{name: "attributes of 65535", rfc: "RFC 7606 3 b", send: just(header(23, 2, 0, 0, 0xff, 0xff)), want: resets("3/1")},
	{name: "End-of-RIB again", rfc: "RFC 4724 2", send: just(nva.EndOfRIB(nva.IPv4)), want: untouched},
	{name: "ORIGIN and nothing to announce", rfc: "RFC 7606 5.2", send: just(nva.UpdateMessage(nil, octets(goodOrigin), nil)), want: untouched},
	{name: "LOCAL_PREF and nothing to announce", rfc: "RFC 7606 7.5", send: just(nva.UpdateMessage(nil, octets("40 05 04 00000001"), nil)), want: untouched},
	{name: "bad ORIGIN and nothing to announce", rfc: "RFC 7606 5.2", send: just(nva.UpdateMessage(nil, octets("40 01 01 09"), nil)), want: resets("3/6")},

	{name: "overrun by 1", rfc: "RFC 7606 4", attribute: "80 04 05 00000001", want: withdrawn},
	{name: "overrun by 251", rfc: "RFC 7606 4", attribute: "80 04 ff 00000001", want: withdrawn},
	{name: "overrun, extended length", rfc: "RFC 7606 4", attribute: "90 04 ffff 00000001", want: withdrawn},
	{name: "overrun of an unknown attribute", rfc: "RFC 7606 4", attribute: "c0 c8 09 00", want: withdrawn},
	{name: "overrun of a well-known attribute that is not known", rfc: "RFC 7606 4", attribute: "40 c8 09 00", want: withdrawn},
	{name: "1 octet left", rfc: "RFC 7606 4", want: withdrawn, send: func(x shot) []byte { return x.update(goodOrigin, goodPath, goodHop, goodMark, "80") }},
	{name: "2 octets left", rfc: "RFC 7606 4", want: withdrawn, send: func(x shot) []byte { return x.update(goodOrigin, goodPath, goodHop, goodMark, "80 04") }},
	{name: "3 octets left of an extended header", rfc: "RFC 7606 4", want: withdrawn, send: func(x shot) []byte { return x.update(goodOrigin, goodPath, goodHop, goodMark, "90 04 00") }},
	{name: "IPv6, overrun", rfc: "RFC 7606 4", attribute6: "80 04 05 00000001", want: withdrawn},
	{name: "IPv6, 1 octet left", rfc: "RFC 7606 4", want: withdrawn, send: func(x shot) []byte { return x.update6(goodOrigin, goodPath, goodMark, "80") }},
	{name: "overrun with nothing to announce", rfc: "RFC 7606 5.2", send: just(nva.UpdateMessage(nil, octets(goodOrigin+"80 04 05 00000001"), nil)), want: resets("3/5")},
	{name: "overrun that may hide MP_REACH_NLRI", rfc: "RFC 7606 5.2", want: resets("3/5"), send: func(x shot) []byte {
		return nva.UpdateMessage(nil, cat(octets(goodOrigin+goodPath+"80 04 f4 00000001"), x.reach6()), nil)
	}},
	{name: "withdrawal beside an overrun", rfc: "RFC 7606 5.2", want: resets("3/5"), send: func(x shot) []byte {
		return nva.UpdateMessage(x.nlri(), octets("80 04 05 00000001"), nil)
	}},

	{name: "NLRI of 33 bits", rfc: "RFC 7606 5.3", send: func(x shot) []byte { return badNLRI("21 1400000000") }, want: resets("3/10")},
	{name: "NLRI of 255 bits", rfc: "RFC 7606 5.3", send: func(x shot) []byte { return badNLRI("ff" + zeros(32)) }, want: resets("3/10")},
	{name: "NLRI cut short", rfc: "RFC 7606 5.3", send: func(x shot) []byte { return badNLRI("18 1400") }, want: resets("3/10")},
	{name: "good and bad NLRI", rfc: "RFC 7606 5.3", want: resets("3/10"), send: func(x shot) []byte {
		return nva.UpdateMessage(nil, octets(goodOrigin+goodPath+goodHop), cat(x.nlri(), octets("20 1400")))
	}},
	{name: "withdrawn route of 33 bits", rfc: "RFC 7606 3 i", send: just(nva.UpdateMessage(octets("21 1400000000"), nil, nil)), want: resets("3/10")},
	{name: "withdrawn route cut short", rfc: "RFC 7606 3 i", send: just(nva.UpdateMessage(octets("18 14"), nil, nil)), want: resets("3/10")},
	{name: "bits beyond the prefix's length", rfc: "RFC 4271 4.3", want: accepted, send: func(x shot) []byte {
		p := x.nlri()
		return nva.UpdateMessage(nil, octets(goodOrigin+goodPath+goodHop+goodMark), []byte{23, p[1], p[2], p[3] | 1, 24, p[1], p[2], p[3]})
	}},
	{name: "withdrawn and announced at once", rfc: "RFC 4271 4.3", want: accepted, send: func(x shot) []byte {
		return nva.UpdateMessage(x.nlri(), octets(goodOrigin+goodPath+goodHop+goodMark), x.nlri())
	}},
	{name: "IPv6, withdrawn and announced at once", rfc: "RFC 4271 4.3", want: accepted, send: func(x shot) []byte {
		un := nva.AppendAttr(nil, 0x80, 15, cat(octets("0002 01"), x.nlri6()))
		return nva.UpdateMessage(nil, cat(x.reach6(), un, octets(goodOrigin+goodPath+goodMark)), nil)
	}},
	{name: "the same prefix 900 times", rfc: "RFC 4271 4.3", want: accepted, send: func(x shot) []byte {
		return nva.UpdateMessage(nil, octets(goodOrigin+goodPath+goodHop+goodMark), bytes.Repeat(x.nlri(), 900))
	}},
	{name: "withdrawal of what was never announced", rfc: "RFC 4271 3.1", send: just(nva.UpdateMessage(octets("18 160102 20 16010203 00"), nil, nil)), want: untouched},
	{name: "withdrawal of the good appliance's prefix", rfc: "RFC 4271 3.1", send: just(nva.UpdateMessage(octets("18 c0a8ff"), nil, nil)), want: untouched},
	{name: "a broken UPDATE for the good appliance's prefix", rfc: "RFC 7606 2", send: just(nva.UpdateMessage(nil, octets("40 01 01 09"+goodPath+goodHop), octets("18 c0a8ff"))),
		want: untouched.counted("treat-as-withdraw")},
}

func badNLRI(nlri string) []byte {
	return nva.UpdateMessage(nil, octets(goodOrigin+goodPath+goodHop), octets(nlri))
}

// left is an UPDATE without one of the attributes.
func left(attributes ...string) func(shot) []byte {
	return func(x shot) []byte { return x.update(attributes...) }
}

func left6(attributes ...string) func(shot) []byte {
	return func(x shot) []byte { return x.update6(attributes...) }
}

// old leaves the 4-octet AS capability out, so that AS numbers have two octets.
func old(o *nva.Options) { o.TwoOctetAS = true }

// oldPath is AS_PATH on such a session.
const oldPath = "40 02 04 02 01 fc9a"

// attributeAttacks are about one attribute each; a prefix is announced with it.
var attributeAttacks = []attack{
	{name: "ORIGIN missing", rfc: "RFC 7606 3 d", send: left(goodPath, goodHop), want: withdrawn},
	{name: "ORIGIN of 0 octets", rfc: "RFC 7606 7.1", attribute: "40 01 00", want: withdrawn},
	{name: "ORIGIN of 2 octets", rfc: "RFC 7606 7.1", attribute: "40 01 02 0000", want: withdrawn},
	{name: "ORIGIN 3", rfc: "RFC 7606 7.1", attribute: "40 01 01 03", want: withdrawn},
	{name: "ORIGIN 255", rfc: "RFC 7606 7.1", attribute: "40 01 01 ff", want: withdrawn},
	{name: "ORIGIN optional", rfc: "RFC 7606 3 c", attribute: "c0 01 01 00", want: withdrawn},
	{name: "ORIGIN not transitive", rfc: "RFC 7606 3 c", attribute: "00 01 01 00", want: withdrawn},
	{name: "ORIGIN partial", rfc: "RFC 7606 3 c", attribute: "60 01 01 00", want: accepted},
	{name: "ORIGIN with unused flags", rfc: "RFC 4271 4.3", attribute: "4f 01 01 00", want: accepted},
	{name: "ORIGIN with extended length", rfc: "RFC 4271 4.3", attribute: "50 01 0001 00", want: accepted},
	{name: "ORIGIN twice", rfc: "RFC 7606 3 g", send: left(goodOrigin, "40 01 01 02", goodPath, goodHop, goodMark), want: discarded},
	{name: "ORIGIN twice, the second broken", rfc: "RFC 7606 3 g", send: left(goodOrigin, "40 01 00", goodPath, goodHop, goodMark), want: discarded},
	{name: "IPv6, ORIGIN missing", rfc: "RFC 7606 3 d", send: left6(goodPath), want: withdrawn},
	{name: "IPv6, ORIGIN 3", rfc: "RFC 7606 7.1", attribute6: "40 01 01 03", want: withdrawn},

	{name: "AS_PATH missing", rfc: "RFC 7606 3 d", send: left(goodOrigin, goodHop), want: withdrawn},
	{name: "AS_PATH segment of type 0", rfc: "RFC 7606 7.2", attribute: "40 02 06 00 01 0000fc9a", want: withdrawn},
	{name: "AS_PATH segment of type 5", rfc: "RFC 7606 7.2", attribute: "40 02 06 05 01 0000fc9a", want: withdrawn},
	{name: "AS_PATH segment of type 255", rfc: "RFC 7606 7.2", attribute: "40 02 06 ff 01 0000fc9a", want: withdrawn},
	{name: "AS_PATH segment of 0 ASNs", rfc: "RFC 7606 7.2", attribute: "40 02 02 02 00", want: withdrawn},
	{name: "AS_PATH segment of 0 ASNs at the end", rfc: "RFC 7606 7.2", attribute: "40 02 08 02 01 0000fc9a 02 00", want: withdrawn},
	{name: "AS_PATH segment overruns", rfc: "RFC 7606 7.2", attribute: "40 02 06 02 02 0000fc9a", want: withdrawn},
	{name: "AS_PATH segment of 255 overruns", rfc: "RFC 7606 7.2", attribute: "40 02 06 02 ff 0000fc9a", want: withdrawn},
	{name: "AS_PATH with 1 octet left", rfc: "RFC 7606 7.2", attribute: "40 02 07 02 01 0000fc9a 02", want: withdrawn},
	{name: "AS_PATH of 1 octet", rfc: "RFC 7606 7.2", attribute: "40 02 01 02", want: withdrawn},
	{name: "AS_PATH with half an ASN", rfc: "RFC 7606 7.2", attribute: "40 02 04 02 01 fc9a", want: withdrawn},
	{name: "AS_PATH with a confederation's sequence", rfc: "RFC 5065 5", attribute: "40 02 0c 03 01 0000fc9a 02 01 0000fc9a", want: withdrawn},
	{name: "AS_PATH with a confederation's set", rfc: "RFC 5065 5", attribute: "40 02 0c 02 01 0000fc9a 04 01 00000001", want: withdrawn},
	{name: "AS_PATH optional", rfc: "RFC 7606 3 c", attribute: "c0 02 06 02 01 0000fc9a", want: withdrawn},
	{name: "AS_PATH twice", rfc: "RFC 7606 3 g", send: left(goodOrigin, goodPath, "40 02 00", goodHop, goodMark), want: discarded},
	{name: "AS_PATH with AS 0", rfc: "RFC 7607 2", attribute: "40 02 0a 02 02 0000fc9a 00000000", want: withdrawn.counted("")},
	{name: "AS_PATH with 4-octet ASNs on a 2-octet session", rfc: "RFC 7607 2", open: old, send: left(goodOrigin, "40 02 06 02 02 0000fc9a", goodHop, goodMark), want: withdrawn.counted("")},
	{name: "AS_PATH with 2-octet ASNs cut short", rfc: "RFC 7606 7.2", open: old, send: left(goodOrigin, "40 02 05 02 02 fc9a fc", goodHop, goodMark), want: withdrawn},
	{name: "IPv6, AS_PATH missing", rfc: "RFC 7606 3 d", send: left6(goodOrigin), want: withdrawn},
	{name: "IPv6, AS_PATH segment overruns", rfc: "RFC 7606 7.2", attribute6: "40 02 06 02 02 0000fc9a", want: withdrawn},

	{name: "NEXT_HOP missing", rfc: "RFC 7606 3 d", send: left(goodOrigin, goodPath), want: withdrawn},
	{name: "NEXT_HOP of 0 octets", rfc: "RFC 7606 7.3", attribute: "40 03 00", want: withdrawn},
	{name: "NEXT_HOP of 3 octets", rfc: "RFC 7606 7.3", attribute: "40 03 03 0a0100", want: withdrawn},
	{name: "NEXT_HOP of 5 octets", rfc: "RFC 7606 7.3", attribute: "40 03 05 0a01000400", want: withdrawn},
	{name: "NEXT_HOP of IPv6", rfc: "RFC 7606 7.3", attribute: "40 03 10" + hop6, want: withdrawn},
	{name: "NEXT_HOP 0.0.0.0", rfc: "RFC 7606 3 e", attribute: "40 03 04 00000000", want: withdrawn},
	{name: "NEXT_HOP 127.0.0.1", rfc: "RFC 7606 3 e", attribute: "40 03 04 7f000001", want: withdrawn.counted("")},
	{name: "NEXT_HOP of multicast", rfc: "RFC 7606 3 e", attribute: "40 03 04 e0000005", want: withdrawn},
	{name: "NEXT_HOP of class E", rfc: "RFC 7606 3 e", attribute: "40 03 04 f0000001", want: withdrawn},
	{name: "NEXT_HOP broadcast", rfc: "RFC 7606 3 e", attribute: "40 03 04 ffffffff", want: withdrawn},
	{name: "NEXT_HOP optional", rfc: "RFC 7606 3 c", attribute: "80 03 04 0a010004", want: withdrawn},
	{name: "NEXT_HOP twice", rfc: "RFC 7606 3 g", send: left(goodOrigin, goodPath, goodHop, "40 03 04 0a010063", goodMark), want: discarded},
	{name: "IPv6, a NEXT_HOP beside", rfc: "RFC 4760 3", attribute6: goodHop, want: accepted},

	{name: "MULTI_EXIT_DISC of 0 octets", rfc: "RFC 7606 7.4", attribute: "80 04 00", want: withdrawn},
	{name: "MULTI_EXIT_DISC of 3 octets", rfc: "RFC 7606 7.4", attribute: "80 04 03 000001", want: withdrawn},
	{name: "MULTI_EXIT_DISC of 5 octets", rfc: "RFC 7606 7.4", attribute: "80 04 05 0000000001", want: withdrawn},
	{name: "MULTI_EXIT_DISC transitive", rfc: "RFC 7606 3 c", attribute: "c0 04 04 00000001", want: withdrawn},
	{name: "MULTI_EXIT_DISC well-known", rfc: "RFC 7606 3 c", attribute: "40 04 04 00000001", want: withdrawn},
	{name: "MULTI_EXIT_DISC twice", rfc: "RFC 7606 3 g", attribute: "80 04 04 00000001 80 04 04 00000002", want: discarded},
	{name: "LOCAL_PREF", rfc: "RFC 7606 7.5", attribute: "40 05 04 ffffffff", want: accepted},
	{name: "LOCAL_PREF of 3 octets", rfc: "RFC 7606 7.5", attribute: "40 05 03 ffffff", want: accepted},
	{name: "LOCAL_PREF optional", rfc: "RFC 7606 7.5", attribute: "c0 05 04 ffffffff", want: accepted},
	{name: "ATOMIC_AGGREGATE of 1 octet", rfc: "RFC 7606 7.6", attribute: "40 06 01 00", want: discarded},
	{name: "ATOMIC_AGGREGATE optional", rfc: "RFC 7606 3 c", attribute: "c0 06 00", want: withdrawn},
	{name: "AGGREGATOR of 0 octets", rfc: "RFC 7606 7.7", attribute: "c0 07 00", want: discarded},
	{name: "AGGREGATOR of 6 octets", rfc: "RFC 7606 7.7", attribute: "c0 07 06 fc9a 0a010004", want: discarded},
	{name: "AGGREGATOR of 9 octets", rfc: "RFC 7606 7.7", attribute: "c0 07 09 0000fc9a 0a01000400", want: discarded},
	{name: "AGGREGATOR of AS 0", rfc: "RFC 7607 2", attribute: "c0 07 08 00000000 0a010004", want: discarded},
	{name: "AGGREGATOR not transitive", rfc: "RFC 7606 3 c", attribute: "80 07 08 0000fc9a 0a010004", want: withdrawn},
	{name: "AGGREGATOR of 8 octets on a 2-octet session", rfc: "RFC 7606 7.7", open: old, send: left(goodOrigin, oldPath, goodHop, goodMark, "c0 07 08 0000fc9a 0a010004"), want: discarded},

	{name: "COMMUNITIES of 0 octets", rfc: "RFC 7606 7.8", attribute: "c0 08 00", want: withdrawn},
	{name: "COMMUNITIES of 3 octets", rfc: "RFC 7606 7.8", attribute: "c0 08 03 fc9a00", want: withdrawn},
	{name: "COMMUNITIES of 6 octets", rfc: "RFC 7606 7.8", attribute: "c0 08 06 fc9a0007fc9a", want: withdrawn},
	{name: "COMMUNITIES not transitive", rfc: "RFC 7606 3 c", attribute: "80 08 04 fc9a0007", want: withdrawn},
	{name: "COMMUNITIES well-known", rfc: "RFC 7606 3 c", attribute: "40 08 04 fc9a0007", want: withdrawn},
	{name: "COMMUNITIES twice", rfc: "RFC 7606 3 g", send: left(goodOrigin, goodPath, goodHop, goodMark, "c0 08 00"), want: discarded},
	{name: "ORIGINATOR_ID", rfc: "RFC 7606 7.9", attribute: "80 09 04 0a010204", want: accepted},
	{name: "ORIGINATOR_ID of 0 octets", rfc: "RFC 7606 7.9", attribute: "80 09 00", want: accepted},
	{name: "CLUSTER_LIST of 3 octets", rfc: "RFC 7606 7.10", attribute: "80 0a 03 0a0102", want: accepted},
	{name: "EXTENDED_COMMUNITIES of 0 octets", rfc: "RFC 7606 7.14", attribute: "c0 10 00", want: withdrawn},
	{name: "EXTENDED_COMMUNITIES of 7 octets", rfc: "RFC 7606 7.14", attribute: "c0 10 07 0002fc9a000000", want: withdrawn},
	{name: "EXTENDED_COMMUNITIES of 9 octets", rfc: "RFC 7606 7.14", attribute: "c0 10 09 0002fc9a0000000100", want: withdrawn},
	{name: "EXTENDED_COMMUNITIES of every kind", rfc: "RFC 4360 2", attribute: everyExtended(), want: accepted},
	{name: "IPv6 extended communities of 8 octets", rfc: "RFC 7606 7.15", attribute: "c0 19 08" + zeros(8), want: withdrawn},
	{name: "IPv6 extended communities of 0 octets", rfc: "RFC 7606 7.15", attribute: "c0 19 00", want: withdrawn},
	{name: "LARGE_COMMUNITY of 0 octets", rfc: "RFC 8092 6", attribute: "c0 20 00", want: withdrawn},
	{name: "LARGE_COMMUNITY of 11 octets", rfc: "RFC 8092 6", attribute: "c0 20 0b" + zeros(11), want: withdrawn},
	{name: "LARGE_COMMUNITY of 16 octets", rfc: "RFC 8092 6", attribute: "c0 20 10" + zeros(16), want: withdrawn},
	{name: "OTC of 3 octets", rfc: "RFC 9234 5", attribute: "c0 23 03 00fc9a", want: withdrawn},
	{name: "AS4_PATH on a 4-octet session", rfc: "RFC 6793 4.1", attribute: "c0 11 03 ffffff", want: accepted},
	{name: "AS4_AGGREGATOR on a 4-octet session", rfc: "RFC 6793 4.1", attribute: "c0 12 01 ff", want: accepted},
	{name: "AS4_PATH malformed", rfc: "RFC 6793 6", open: old, send: left(goodOrigin, oldPath, goodHop, goodMark, "c0 11 05 02 01 0000fc"), want: discarded},
	{name: "AS4_AGGREGATOR of 6 octets", rfc: "RFC 6793 6", open: old, send: left(goodOrigin, oldPath, goodHop, goodMark, "c0 12 06 fc9a 0a010004"), want: discarded},
	{name: "AS4_PATH longer than AS_PATH", rfc: "RFC 6793 4.2.3", open: old, send: left(goodOrigin, oldPath, goodHop, goodMark, "c0 11 12 02 04 0000fc9a 0000fc9b 0000fc9c 0000fc9d"), want: accepted},

	{name: "unknown attribute", rfc: "RFC 4271 5", attribute: "c0 c8 03 010203", want: accepted},
	{name: "unknown attribute of 0 octets", rfc: "RFC 4271 5", attribute: "c0 c8 00", want: accepted},
	{name: "unknown attribute, not transitive", rfc: "RFC 4271 5", attribute: "80 c8 03 010203", want: accepted},
	{name: "unknown attribute twice", rfc: "RFC 7606 3 g", attribute: "c0 c8 01 01 c0 c8 01 02", want: discarded},
	{name: "unknown attribute of 3,900 octets", rfc: "RFC 4271 5", attribute: "d0 c8 0f3c" + zeros(3900), want: accepted},
	{name: "150 unknown attributes", rfc: "RFC 4271 5", attribute: manyUnknown(), want: accepted},
	{name: "well-known attribute that is not known", rfc: "RFC 4271 6.3", attribute: "40 c8 02 0102", want: resets("3/2 40c8020102")},
	{name: "attribute 0, well-known", rfc: "RFC 4271 6.3", attribute: "40 00 00", want: resets("3/2 400000")},
	{name: "attribute 255", rfc: "RFC 4271 5", attribute: "c0 ff 04 deadbeef", want: accepted},
	{name: "ATTR_SET", rfc: "RFC 6368", attribute: "c0 80 05 0000fc9a ff", want: accepted},
	{name: "TUNNEL_ENCAP of noise", rfc: "RFC 9012 11", attribute: "c0 17 08 000fffff01ff0000", want: accepted},
	{name: "PMSI_TUNNEL of 1 octet", rfc: "RFC 6514 5", attribute: "c0 16 01 ff", want: accepted},
	{name: "PREFIX_SID of noise", rfc: "RFC 8669 5", attribute: "c0 28 06 05ffff00ff01", want: accepted},
	{name: "BGP-LS attribute of noise", rfc: "RFC 9552 5.3", attribute: "80 1d 06 0400ffff0000", want: accepted},
	{name: "AIGP", rfc: "RFC 7311 3.1", attribute: "80 1a 0b 01 000b 0000000000000000", want: accepted},
	{name: "AIGP of 0 octets", rfc: "RFC 7311 3.1", attribute: "80 1a 00", want: accepted},
	{name: "BGPsec path", rfc: "RFC 8205 3", attribute: "80 21 04 00000000", want: accepted},
}

// everyExtended is one extended community of each type and of each sub-type of the first.
func everyExtended() string {
	var v []byte
	for i := range 256 {
		v = append(v, byte(i), 0, 0xfc, 0x9a, 0, 0, 0, byte(i))
		v = append(v, 0x80, byte(i), 0xff, 0xff, 0, 0, 0, byte(i))
	}
	return fmt.Sprintf("%x", nva.AppendAttr(nil, 0xd0, 16, v[:3200]))
}

func manyUnknown() string {
	var b []byte
	for typ := 100; typ < 250; typ++ {
		if typ != 128 {
			b = nva.AppendAttr(b, 0xc0, byte(typ), []byte{byte(typ), 0xff})
		}
	}
	return fmt.Sprintf("%x", b)
}
