package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

var both = Session{IPv4: true, IPv6: true}

// octets reads hexadecimal digits, whose blanks only help the reader.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// body makes the body of an UPDATE.
func body(t testing.TB, withdrawn, attrs, nlri string) []byte {
	t.Helper()
	w, a := octets(t, withdrawn), octets(t, attrs)
	b := append([]byte{byte(len(w) >> 8), byte(len(w))}, w...)
	b = append(append(b, byte(len(a)>>8), byte(len(a))), a...)
	return append(b, octets(t, nlri)...)
}

// Attributes in hexadecimal, and a prefix of each family.
const (
	origin   = "40 01 01 00 "
	path     = "40 02 06 02 01 0000fe7b "
	hop      = "40 03 04 0a010004 "
	good     = origin + path + hop
	p4       = "18 c0a8ff"   // 192.168.255.0/24
	q4       = "08 0a"       // 10.0.0.0/8
	p6       = "20 20010db8" // 2001:db8::/32
	hop6     = "fd00" + "00000000" + "0000000000000000" + "0004"
	reach6   = "80 0e 1a 0002 01 10 " + hop6 + " 00 " + p6 + " "
	unreach6 = "80 0f 08 0002 01 " + p6 + " "
)

func TestUpdate(t *testing.T) {
	type message struct{ withdrawn, attrs, nlri string }
	tests := []struct {
		name    string
		in      message
		session Session   // both when empty
		want    []message // nil: the same; an empty message is a KEEPALIVE
		fault   Reaction
		code    string // of a reset
	}{
		{name: "clean", in: message{q4, good, p4}},
		{name: "clean, IPv6", in: message{"", reach6 + origin + path, ""}},
		{name: "End-of-RIB", in: message{}},
		{name: "End-of-RIB, IPv6", in: message{"", "80 0f 03 0002 01", ""}},
		{name: "extended length", in: message{"", "50 01 0001 00 " + path + hop, p4}},
		{name: "withdrawn and announced", in: message{p4 + q4, good, p4}, want: []message{{q4, good, p4}}},
		{name: "withdrawn and announced, IPv6", in: message{"", unreach6 + reach6 + origin + path, ""}, want: []message{{"", reach6 + origin + path, ""}}},

		{name: "origin 3", in: message{q4, "40 01 01 03" + path + hop, p4}, fault: Withdraw, want: []message{{q4 + p4, "", ""}}},
		{name: "both families", in: message{q4, unreach6 + reach6 + "40 01 02 0000" + path + hop, p4}, fault: Withdraw,
			want: []message{{q4 + p4, "", ""}, {"", unreach6, ""}, {"", unreach6, ""}}},
		{name: "overrun", in: message{"", good + "80 04 05 00000001", p4}, fault: Withdraw, want: []message{{p4, "", ""}}},
		{name: "one octet left", in: message{"", good + "80", p4}, fault: Withdraw, want: []message{{p4, "", ""}}},
		{name: "extended header cut", in: message{"", good + "90 04 00", p4}, fault: Withdraw, want: []message{{p4, "", ""}}},
		{name: "overrun without prefixes", in: message{"", good + "80 0f ff 0002", ""}, fault: Reset, code: "3/5"},
		{name: "missing NEXT_HOP", in: message{"", origin + path, p4}, fault: Withdraw, want: []message{{p4, "", ""}}},
		{name: "missing ORIGIN, IPv6", in: message{"", reach6 + path, ""}, fault: Withdraw, want: []message{{"", unreach6, ""}}},

		{name: "AGGREGATOR of 6", in: message{"", good + "c0 07 06 fe7b 0a010004", p4}, fault: Discard, want: []message{{"", good, p4}}},
		{name: "AGGREGATOR of 6, 2-byte AS", session: Session{IPv4: true, TwoByteAS: true}, in: message{"", origin + "40 02 04 02 01 fe7b" + hop + "c0 07 06 fe7b 0a010004", p4}},
		{name: "twice", in: message{"", good + "80 04 04 00000001 80 04 04 00000002", p4}, fault: Discard, want: []message{{"", good + "80 04 04 00000001", p4}}},
		{name: "twice, the second broken", in: message{"", good + origin + "40 01 00", p4}, fault: Discard, want: []message{{"", good, p4}}},
		{name: "LOCAL_PREF", in: message{"", good + "40 05 04 00000fff", p4}, want: []message{{"", good, p4}}},
		{name: "NEXT_HOP for MP_REACH_NLRI only", in: message{"", reach6 + origin + path + "40 03 01 00", ""}, fault: Withdraw, want: []message{{"", unreach6, ""}}},
		{name: "good NEXT_HOP for MP_REACH_NLRI only", in: message{"", reach6 + origin + path + hop, ""}, want: []message{{"", reach6 + origin + path, ""}}},
		{name: "unknown transitive", in: message{"", good + "c0 c8 01 ff", p4}, want: []message{{"", good + "e0 c8 01 ff", p4}}},
		{name: "unknown non-transitive", in: message{"", good + "80 c8 01 ff", p4}, want: []message{{"", good, p4}}},
		{name: "unknown well-known", in: message{"", good + "40 c8 01 ff", p4}, fault: Reset, code: "3/2 40c801ff"},
		{name: "unused bits", in: message{"", "4f 01 01 00" + path + hop, p4}, want: []message{{"", good, p4}}},
		{name: "partial ORIGIN", in: message{"", "60 01 01 00" + path + hop, p4}, want: []message{{"", good, p4}}},
		{name: "optional ORIGIN", in: message{"", "c0 01 01 00" + path + hop, p4}, fault: Withdraw, want: []message{{p4, "", ""}}},

		{name: "MP_REACH_NLRI twice", in: message{"", reach6 + reach6 + origin + path, ""}, fault: Reset, code: "3/1"},
		{name: "next hop of 12", in: message{"", "80 0e 11 0002 01 0c 000000000000000000000000 00" + origin + path, ""}, fault: Reset, code: "3/9 800e110002010c00000000000000000000000000"},
		{name: "IPv6 next hop for IPv4", session: Session{IPv4: true, ExtendedNextHop: true}, in: message{"", "80 0e 19 0001 01 10 " + hop6 + " 00" + p4 + origin + path, ""}},
		{name: "IPv6 next hop for IPv4, not agreed", in: message{"", "80 0e 19 0001 01 10 " + hop6 + " 00" + p4 + origin + path, ""}, fault: Reset, code: "3/9 800e1900010110" + hop6 + "0018c0a8ff"},
		{name: "FlowSpec", in: message{"", "80 0e 09 0001 85 00 00 04 01 18 0a" + origin + path, ""}, fault: Ignore, want: []message{{}}},
		{name: "FlowSpec withdrawn", in: message{"", "80 0f 08 0001 85 04 01 18 0a 00", ""}, fault: Ignore, want: []message{{}}},
		{name: "FlowSpec beside IPv4", in: message{"", "80 0e 09 0001 85 00 00 04 01 18 0a" + good, p4}, fault: Ignore, want: []message{{"", good, p4}}},
		{name: "IPv4 not negotiated", session: Session{IPv6: true}, in: message{q4, good, p4}, fault: Ignore, want: []message{{}}},
		{name: "broken IPv4, not negotiated", session: Session{IPv6: true}, in: message{q4, origin, p4}, fault: Ignore, want: []message{{}}},
		{name: "/33", in: message{"", good, "21 c0a8ff0000"}, fault: Reset, code: "3/10"},
		{name: "withdrawn cut", in: message{"18 c0a8", "", ""}, fault: Reset, code: "3/10"},
		{name: "IPv6 /129", in: message{"", "80 0f 04 0002 01 81", ""}, fault: Reset, code: "3/9 800f0400020181"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			session := tt.session
			if session == (Session{}) {
				session = both
			}
			in := body(t, tt.in.withdrawn, tt.in.attrs, tt.in.nlri)
			got, f := session.Update(nil, in)
			if f.Reaction != tt.fault {
				t.Errorf("fault %v (%s), want %v", f.Reaction, f.Text, tt.fault)
			}
			if f.Reaction == Reset {
				if text := strings.TrimSpace(hexCode(f)); text != tt.code || len(got) > 0 {
					t.Errorf("NOTIFICATION %s and %d octets, want %s and none", text, len(got), tt.code)
				}
				return
			}
			want := tt.want
			if want == nil {
				want = []message{tt.in}
			}
			var all []byte
			for _, m := range want {
				if m == (message{}) && tt.want != nil {
					all = appendKeepalive(all)
					continue
				}
				start := len(all)
				all = finish(append(appendHeader(all, typeUpdate), body(t, m.withdrawn, m.attrs, m.nlri)...), start)
			}
			if !bytes.Equal(got, all) {
				t.Errorf("passed on\n%x, want\n%x", got, all)
			}
		})
	}
}

func hexCode(f Fault) string {
	return strings.TrimSpace(string(appendDecimal(appendDecimal(nil, f.Code, '/'), f.Subcode, ' ')) + hex.EncodeToString(f.Data))
}

func appendDecimal(b []byte, n uint8, sep byte) []byte {
	if n >= 10 {
		b = append(b, '0'+n/10)
	}
	return append(b, '0'+n%10, sep)
}

// Every value of the attributes that have rules: right and wrong ones.
func TestAttributes(t *testing.T) {
	tests := []struct {
		attr  string
		fault Reaction
	}{
		{"80 04 04 00000001", None}, {"80 04 03 000000", Withdraw}, {"80 04 05 0000000000", Withdraw},
		{"40 06 00", None}, {"40 06 01 00", Discard},
		{"c0 07 08 0000fe7b 0a010004", None}, {"c0 07 00", Discard},
		{"c0 08 04 fe7b0001", None}, {"c0 08 00", Withdraw}, {"c0 08 06 fe7b0001fe7b", Withdraw},
		{"80 09 04 0a010004", None}, {"80 09 01 00", None}, {"80 0a 05 0000000000", None}, // left out unseen
		{"c0 10 08 0002fe7b00000001", None}, {"c0 10 07 0002fe7b000000", Withdraw}, {"c0 10 00", Withdraw},
		{"c0 11 06 02 01 0000fe7b", None}, // from a peer with 4-octet AS: left out unseen
		{"c0 19 14 " + strings.Repeat("00", 20), None}, {"c0 19 08 0000000000000000", Withdraw},
		{"c0 20 0c 0000fe7b 00000001 00000002", None}, {"c0 20 0b 0000fe7b 00000001 000000", Withdraw}, {"c0 20 00", Withdraw},
		{"c0 23 04 0000fe7b", None}, {"c0 23 03 00fe7b", Withdraw},
		{"c0 17 03 000000", None}, {"c0 16 01 00", None}, {"c0 28 02 0000", None}, {"80 1a 01 01", None}, {"80 1d 04 00000000", None},
		{"80 08 04 fe7b0001", Withdraw}, {"40 04 04 00000001", Withdraw}, {"c0 06 00", Withdraw},
	}
	for _, tt := range tests {
		if _, f := both.Update(nil, body(t, "", good+tt.attr, p4)); f.Reaction != tt.fault {
			t.Errorf("%s: %v (%s), want %v", tt.attr, f.Reaction, f.Text, tt.fault)
		}
	}
	two := Session{IPv4: true, TwoByteAS: true}
	for attr, want := range map[string]Reaction{
		"c0 11 06 02 01 0000fe7b": None, "c0 11 05 02 01 0000fe": Discard, "c0 11 00": Discard,
		"c0 12 08 0000fe7b 0a010004": None, "c0 12 06 fe7b 0a010004": Discard,
	} {
		if _, f := two.Update(nil, body(t, "", origin+"40 02 04 02 01 fe7b"+hop+attr, p4)); f.Reaction != want {
			t.Errorf("2-byte AS, %s: %v (%s), want %v", attr, f.Reaction, f.Text, want)
		}
	}
	for value, want := range map[string]Reaction{
		"00": None, "06 02 01 0000fe7b": None, "06 01 01 0000fe7b": None,
		"06 03 01 0000fe7b": Withdraw, "06 04 01 0000fe7b": Withdraw, "06 05 01 0000fe7b": Withdraw, "06 00 01 0000fe7b": Withdraw,
		"02 02 00": Withdraw, "01 02": Withdraw, "05 02 01 0000fe": Withdraw, "06 02 02 0000fe7b": Withdraw, "07 02 01 0000fe7b 02": Withdraw,
	} {
		if _, f := both.Update(nil, body(t, "", origin+"40 02 "+value+hop, p4)); f.Reaction != want {
			t.Errorf("AS_PATH %s: %v (%s), want %v", value, f.Reaction, f.Text, want)
		}
	}
}

// What passes is clean: judged again it passes as it is, and it never says End-of-RIB
// where the peer did not.
func FuzzUpdate(f *testing.F) {
	for _, m := range [][3]string{
		{q4, good, p4}, {"", reach6 + unreach6 + origin + path, ""}, {"", good + "80 04 05 00000001", p4}, {},
		{"", good + "c0 07 06 fe7b 0a010004 40 05 04 00000001 c0 c8 01 ff", p4}, {"", "80 0e 09 0001 85 00 00 04 01 18 0a" + good, p4},
		{"", good + "c0 08 04 fe7b0001 c0 20 0c 0000fe7b 00000001 00000002 c0 10 08 0002fe7b00000001", p4 + q4},
	} {
		f.Add(body(f, m[0], m[1], m[2]), uint8(0x03))
		f.Add(body(f, m[0], m[1], m[2]), uint8(0x0f))
	}
	f.Fuzz(func(t *testing.T, in []byte, flags uint8) {
		if len(in) < 4 || len(in) > maxExtendedLen-headerLen {
			return
		}
		s := Session{IPv4: flags&1 != 0, IPv6: flags&2 != 0, TwoByteAS: flags&4 != 0, ExtendedNextHop: flags&8 != 0, ExtendedMessage: len(in) > maxLen-headerLen}
		before := bytes.Clone(in)
		out, fault := s.Update(nil, in)
		if !bytes.Equal(in, before) {
			t.Fatalf("it changed what it was given")
		}
		if fault.Reaction == Reset {
			if len(out) > 0 || fault.Code == 0 || fault.Subcode == 0 {
				t.Fatalf("reset with %+v and %d octets", fault, len(out))
			}
			return
		}
		if len(out) < headerLen {
			t.Fatalf("nothing passed on after %+v", fault)
		}
		total := 0
		for rest := out; len(rest) > 0; {
			n, bad := s.header(rest[:headerLen])
			if bad.Reaction != None && len(in) <= maxLen-headerLen {
				t.Fatalf("passed on a bad header: %s", bad.Text)
			}
			if bad.Reaction != None {
				return
			}
			body := rest[headerLen : headerLen+n]
			if rest[18] == typeUpdate {
				again, f := s.Update(nil, body)
				if f.Reaction != None || !bytes.Equal(again, rest[:headerLen+n]) {
					t.Fatalf("not clean: %v %s\nin   %x\nout  %x\nthen %x", f.Reaction, f.Text, in, rest[:headerLen+n], again)
				}
				if n == 4 && !bytes.Equal(in, []byte{0, 0, 0, 0}) {
					t.Fatalf("an End-of-RIB from %x", in)
				}
			}
			total++
			rest = rest[headerLen+n:]
		}
		if total > 3 {
			t.Fatalf("%d messages from one", total)
		}
	})
}
