package nva

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func ptr[T any](v T) *T { return &v }

const marker = "ffffffffffffffffffffffffffffffff"

// The bytes below were put together by hand from the RFCs' figures.
func TestEncode(t *testing.T) {
	v4 := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("10.1.0.4")}
	v6 := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("2001:db8::4")}
	rich := Attrs{
		Origin: Incomplete, ASPath: []Segment{{ASSequence, []uint32{70000}}, {ASSet, []uint32{1, 2}}},
		NextHop: netip.MustParseAddr("10.1.0.4"), MED: ptr(uint32(7)), LocalPref: ptr(uint32(100)),
		Communities: []Community{65535<<16 | 65282}, LargeCommunities: []LargeCommunity{{1, 2, 3}},
		Raw: []byte{0xc0, 99, 1, 42},
	}
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"keepalive, RFC 4271 4.4", Keepalive(), marker + "0013 04"},
		{"notification, RFC 4271 4.5", Notification{6, 2, []byte{1}}.Encode(), marker + "0016 03 06 02 01"},
		{"route refresh, RFC 2918", RefreshRequest(IPv6), marker + "0017 05 0002 00 01"},
		{"end of RIB v4, RFC 4724 2", EndOfRIB(IPv4), marker + "0017 02 0000 0000"},
		{"end of RIB v6, RFC 4724 2", EndOfRIB(IPv6), marker + "001d 02 0000 0006 80 0f 03 0002 01"},
		{"open", Options{ASN: 65147, ID: netip.MustParseAddr("10.1.0.4"), Hold: 180e9, Families: []Family{IPv4, IPv6},
			GR: &GracefulRestart{Restarting: true, Time: 120, Forwarding: true, Families: []Family{IPv4}}}.OpenMessage().Encode(),
			marker + "0043 01 04 fe7b 00b4 0a010004 26" +
				"0206 0104 00010001 0206 0104 00020001 0202 0200 0206 4104 0000fe7b 0208 4006 8078 00010180"},
		{"open with a large ASN, RFC 6793", Options{ASN: 70000, ID: netip.MustParseAddr("10.1.0.4"), NoRouteRefresh: true}.OpenMessage().Encode(),
			marker + "0025 01 04 5ba0 0000 0a010004 08 0206 4104 00011170"},
		{"announce v4", EncodeAnnounce(prefixes("192.168.255.0/24", "0.0.0.0/0"), v4, true),
			marker + "0030 02 0000 0014 400101 00 400206 02 01 0000fe7b 400304 0a010004 18c0a8ff 00"},
		{"announce v4 to a two-octet speaker", EncodeAnnounce(prefixes("10.0.0.0/9"), Attrs{ASPath: Seq(70000, 65147), NextHop: v4.NextHop}, false),
			marker + "002e 02 0000 0014 400101 00 400206 02 02 5ba0 fe7b 400304 0a010004 090a00"},
		{"announce v6", EncodeAnnounce(prefixes("2001:db8:1::/48"), v6, true),
			marker + "0043 02 0000 002c 800e1c 0002 01 10 20010db8000000000000000000000004 00 3020010db80001" +
				"400101 00 400206 02 01 0000fe7b"},
		{"all attributes", EncodeAnnounce(prefixes("10.0.0.0/8"), rich, true),
			marker + "005f 02 0000 0046 400101 02 400210 02 01 00011170 01 02 00000001 00000002 400304 0a010004" +
				"800404 00000007 400504 00000064 c00804 ffffff02 c0200c 000000010000000200000003 c06301 2a 080a"},
		{"withdraw v4", EncodeWithdraw(prefixes("192.168.255.0/24")), marker + "001b 02 0004 18c0a8ff 0000"},
		{"withdraw v6", EncodeWithdraw(prefixes("2001:db8:1::/48")),
			marker + "0024 02 0000 000d 800f0a 0002 01 3020010db80001"},
		{"nothing", EncodeAnnounce(nil, v4, true), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(tt.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(tt.got, want) {
				t.Errorf("got  %x\nwant %x", tt.got, want)
			}
		})
	}
}

// decodeAll reads a stream of UPDATEs.
func decodeAll(t *testing.T, stream []byte) (updates []Update) {
	t.Helper()
	r := bytes.NewReader(stream)
	for r.Len() > 0 {
		typ, body, err := ReadMessage(r, nil)
		if err != nil || typ != TypeUpdate {
			t.Fatalf("message type %d: %v", typ, err)
		}
		u, err := DecodeUpdate(body, true)
		if err != nil {
			t.Fatal(err)
		}
		updates = append(updates, u)
	}
	return updates
}

func TestUpdateRoundTrip(t *testing.T) {
	attrs := Attrs{
		Origin: EGP, ASPath: Seq(65515, 65147), NextHop: netip.MustParseAddr("2001:db8::4"), MED: ptr(uint32(0)),
		LocalPref: ptr(uint32(5)), Communities: []Community{1, 2}, LargeCommunities: []LargeCommunity{{1, 2, 3}},
		Raw: []byte{0xc0, 99, 1, 42},
	}
	for _, list := range [][]netip.Prefix{
		prefixes("2001:db8:1::/48", "::/0", "2001:db8::1/128"),
		prefixes("10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32"),
	} {
		a := attrs
		if list[0].Addr().Is4() {
			a.NextHop = netip.MustParseAddr("10.1.0.4")
		}
		got := decodeAll(t, EncodeAnnounce(list, a, true))
		if want := []Update{{Announced: list, Attrs: a}}; !reflect.DeepEqual(got, want) {
			t.Errorf("announce: got %+v\nwant %+v", got, want)
		}
		got = decodeAll(t, EncodeWithdraw(list))
		if want := []Update{{Withdrawn: list}}; !reflect.DeepEqual(got, want) {
			t.Errorf("withdraw: got %+v\nwant %+v", got, want)
		}
		f := FamilyOf(list[0])
		got = decodeAll(t, EndOfRIB(f))
		if want := []Update{{EndOfRIB: f}}; !reflect.DeepEqual(got, want) {
			t.Errorf("End-of-RIB: got %+v\nwant %+v", got, want)
		}
	}
}

func TestOpenRoundTrip(t *testing.T) {
	want := Options{ASN: 4200000000, ID: netip.MustParseAddr("10.1.0.4"), Hold: 9e9, Families: []Family{IPv4},
		Caps: []Capability{{73, []byte("host")}}}.OpenMessage()
	got, err := DecodeOpen(want.Encode()[HeaderLen:])
	if err != nil {
		t.Fatal(err)
	}
	if asn, four := got.ASN(); asn != 4200000000 || !four || got.AS != ASTrans {
		t.Errorf("ASN %d (four octets %t, field %d), want 4200000000", asn, four, got.AS)
	}
	if !got.Has(73) || got.Has(74) || got.HoldTime != 9 || got.ID != want.ID {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// As many prefixes as fit go in a message, and never more: RFC 4271 section 4.
func TestPacking(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6} {
		var list []netip.Prefix
		for i := range 5000 {
			p := fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)
			if family == IPv6 {
				p = fmt.Sprintf("2001:db8:%x::/48", i)
			}
			list = append(list, netip.MustParsePrefix(p))
		}
		a := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("10.1.0.4")}
		if family == IPv6 {
			a.NextHop = netip.MustParseAddr("2001:db8::4")
		}
		for what, stream := range map[string][]byte{"announce": EncodeAnnounce(list, a, true), "withdraw": EncodeWithdraw(list)} {
			var got []netip.Prefix
			updates := decodeAll(t, stream) // which refuses a message over 4096 bytes
			for _, u := range updates {
				got = append(append(got, u.Announced...), u.Withdrawn...)
			}
			if !reflect.DeepEqual(got, list) {
				t.Errorf("family %d: %s: %d prefixes came out of %d, or others", family, what, len(got), len(list))
			}
			if most := len(stream)/4000 + 1; len(updates) > most {
				t.Errorf("family %d: %s: %d messages for %d bytes, want at most %d", family, what, len(updates), len(stream), most)
			}
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	open := Options{ASN: 1, ID: netip.MustParseAddr("10.1.0.4")}.OpenMessage().Encode()[HeaderLen:]
	a := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("10.1.0.4")}
	update := EncodeAnnounce(prefixes("10.0.0.0/8"), a, true)[HeaderLen:]
	attr := func(typ uint8, value ...byte) []byte {
		return UpdateMessage(nil, AppendAttr(nil, FlagTransitive, typ, value), nil)[HeaderLen:]
	}
	decodeUpdate := func(b []byte) error { _, err := DecodeUpdate(b, true); return err }
	decodeOpen := func(b []byte) error { _, err := DecodeOpen(b); return err }
	decodeHeader := func(b []byte) error { _, _, err := DecodeHeader(b); return err }
	tests := []struct {
		name   string
		decode func([]byte) error
		b      []byte
	}{
		{"header too short", decodeHeader, make([]byte, 18)},
		{"header without marker", decodeHeader, make([]byte, 19)},
		{"header with length 18", decodeHeader, append(bytes.Repeat([]byte{0xff}, 16), 0, 18, 4)},
		{"header with length 4097", decodeHeader, append(bytes.Repeat([]byte{0xff}, 16), 0x10, 1, 2)},
		{"open cut", decodeOpen, open[:len(open)-1]},
		{"open with a tail", decodeOpen, append(bytes.Clone(open), 0)},
		{"open, capability longer than its parameter", decodeOpen, append(bytes.Clone(open[:9]), 4, 2, 2, 65, 9)},
		{"open, parameter longer than all", decodeOpen, append(bytes.Clone(open[:9]), 2, 2, 9)},
		{"notification of one byte", func(b []byte) error { _, err := DecodeNotification(b); return err }, []byte{6}},
		{"update cut in the attributes", decodeUpdate, update[:10]},
		{"update cut in the NLRI", decodeUpdate, append(bytes.Clone(update), 24, 10)},
		{"prefix of 33 bits", decodeUpdate, append(bytes.Clone(update), 33, 10, 0, 0, 0, 0)},
		{"withdrawn prefix of 33 bits", decodeUpdate, UpdateMessage([]byte{33, 1, 1, 1, 1, 1}, nil, nil)[HeaderLen:]},
		{"attribute longer than all", decodeUpdate, UpdateMessage(nil, []byte{0x40, 1, 9, 0}, nil)[HeaderLen:]},
		{"empty origin", decodeUpdate, attr(AttrOrigin)},
		{"next hop of 3 bytes", decodeUpdate, attr(AttrNextHop, 1, 2, 3)},
		{"AS path cut", decodeUpdate, attr(AttrASPath, 2, 255, 0, 0, 0, 1)},
		{"communities cut", decodeUpdate, attr(AttrCommunities, 1, 2, 3, 4, 5)},
		{"MP_REACH_NLRI of family 25/70", decodeUpdate, attr(AttrMPReach, 0, 25, 70, 0, 0)},
		{"MP_REACH_NLRI, next hop of 5 bytes", decodeUpdate, attr(AttrMPReach, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0)},
		{"MP_REACH_NLRI cut", decodeUpdate, attr(AttrMPReach, 0, 2, 1, 16, 1)},
		{"MP_UNREACH_NLRI of family 25/70", decodeUpdate, attr(AttrMPUnreach, 0, 25, 70)},
	}
	for _, tt := range tests {
		if err := tt.decode(tt.b); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

// Whatever decodes without error and without an attribute that is only kept, must
// come out the same when it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	a := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("10.1.0.4"), Communities: []Community{1}}
	a6 := a
	a6.NextHop = netip.MustParseAddr("2001:db8::4")
	for _, m := range [][]byte{
		Options{ASN: 1, ID: a.NextHop, GR: &GracefulRestart{Families: []Family{IPv4}}}.OpenMessage().Encode(),
		Notification{6, 2, nil}.Encode(), EndOfRIB(IPv4), EndOfRIB(IPv6), RefreshRequest(IPv4),
		EncodeAnnounce(prefixes("10.0.0.0/8", "10.1.0.0/17"), a, true), EncodeWithdraw(prefixes("10.0.0.0/8")),
		EncodeAnnounce(prefixes("2001:db8::/32"), a6, true), EncodeWithdraw(prefixes("2001:db8::/32")),
	} {
		f.Add(m[18], m[HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		switch typ {
		case TypeOpen:
			if o, err := DecodeOpen(body); err == nil && len(o.Caps) > 0 {
				o.ASN()
			}
		case TypeNotification:
			_, _ = DecodeNotification(body)
		case TypeUpdate:
			_, _ = DecodeUpdate(body, false)
			u, err := DecodeUpdate(body, true)
			if err != nil || len(u.Announced) == 0 || u.Attrs.Raw != nil || len(body) > MaxMessage/2 {
				return // larger ones may not fit in a message with the attributes we always add
			}
			family := FamilyOf(u.Announced[0])
			for _, p := range u.Announced {
				if FamilyOf(p) != family {
					return // one UPDATE of both families, which we never make
				}
			}
			if u.Attrs.NextHop.Is4() != (family == IPv4) {
				return // RFC 8950, which we never make
			}
			stream := EncodeAnnounce(u.Announced, u.Attrs, true)
			var got []netip.Prefix
			for _, again := range decodeAll(t, stream) {
				if PathString(again.Attrs.ASPath) != PathString(u.Attrs.ASPath) || again.Attrs.NextHop != u.Attrs.NextHop {
					t.Errorf("attributes %+v became %+v", u.Attrs, again.Attrs)
				}
				got = append(got, again.Announced...)
			}
			if !reflect.DeepEqual(got, u.Announced) {
				t.Errorf("prefixes %v became %v", u.Announced, got)
			}
		}
	})
}
