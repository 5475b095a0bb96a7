package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

const (
	ourASN  = 65515
	peerASN = 65147
	marked  = "c0 23 04 0000fe7b" // by AS 65147
	ourMark = "c0 23 04 0000ffeb"
)

// as is a session with a peer of a role.
func as(r Role) Session {
	s := both
	s.Relation = r.Relation(ourASN, peerASN)
	return s
}

// RFC 9234 section 5, the rules for what is sent.
func TestOutgoing(t *testing.T) {
	type parts struct{ withdrawn, attrs, nlri string }
	tests := []struct {
		name  string
		roles []Role
		in    parts
		want  []parts // nil: the same
	}{
		{"marked by us", []Role{Customer, Peer, RouteServerClient}, parts{q4, good, p4}, []parts{{q4, good + ourMark, p4}}},
		{"marked by us, IPv6", []Role{Customer, Peer, RouteServerClient}, parts{"", reach6 + origin + path, ""}, []parts{{"", reach6 + origin + path + ourMark, ""}}},
		{"in the order of the types", []Role{Customer}, parts{"", good + "c0 08 04 fe7b0001 e0 c8 01 ff", p4}, []parts{{"", good + "c0 08 04 fe7b0001" + ourMark + "e0 c8 01 ff", p4}}},
		{"marked before", []Role{Customer, RouteServerClient}, parts{q4, good + marked, p4}, nil},
		{"withheld", []Role{Provider, Peer, RouteServer}, parts{q4, good + marked, p4}, []parts{{q4 + p4, "", ""}}},
		{"withheld, IPv6", []Role{Provider, Peer, RouteServer}, parts{"", reach6 + origin + path + marked, ""}, []parts{{"", unreach6, ""}}},
		{"not marked", []Role{Provider, RouteServer}, parts{q4, good, p4}, nil},
		{"withdrawal", []Role{Provider, Customer, Peer}, parts{p4, "", ""}, nil},
		{"withdrawal, IPv6", []Role{Provider, Customer, Peer}, parts{"", unreach6, ""}, nil},
		{"End-of-RIB", []Role{Provider, Customer, Peer}, parts{}, nil},
		{"End-of-RIB, IPv6", []Role{Provider, Customer, Peer}, parts{"", "80 0f 03 0002 01", ""}, nil},
		{"of no form", []Role{Customer}, parts{"", good, "21 c0a8ff0000"}, nil},
	}
	for _, tt := range tests {
		for _, r := range tt.roles {
			t.Run(fmt.Sprintf("%s to a %s", tt.name, r), func(t *testing.T) {
				in := message(body(t, tt.in.withdrawn, tt.in.attrs, tt.in.nlri))
				got, lost := as(r).Outgoing(nil, in)
				var want []byte
				for _, m := range tt.want {
					want = append(want, message(body(t, m.withdrawn, m.attrs, m.nlri))...)
				}
				if tt.want == nil {
					want = in
				}
				if !bytes.Equal(got, want) || lost != 0 {
					t.Errorf("sent\n%x, %d lost, want\n%x", got, lost, want)
				}
			})
		}
	}
}

// RFC 9234 section 5: what a Provider, a Peer or a Route Server announces without a mark
// is marked with its ASN when it arrives.
func TestArriving(t *testing.T) {
	for r := Provider; r <= Peer; r++ {
		want := good
		if r == Provider || r == RouteServer || r == Peer {
			want += marked
		}
		for _, tt := range []struct{ attrs, want string }{{good, want}, {good + ourMark, good + ourMark}} {
			got, f := as(r).Update(nil, body(t, q4, tt.attrs, p4))
			if f.Reaction != None || !bytes.Equal(got, message(body(t, q4, tt.want, p4))) {
				t.Errorf("from a %s: %x (%s), want attributes %s", r, got, f.Text, tt.want)
			}
		}
		in := body(t, p4, "", "")
		if got, _ := as(r).Update(nil, in); !bytes.Equal(got, message(in)) {
			t.Errorf("withdrawal from a %s: %x", r, got)
		}
	}
}

// What grows beyond the limit is cut, and says the same.
func TestOutgoingIsCut(t *testing.T) {
	nlri := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "18 0a%02x%02x", i>>8, i&0xff)
		}
		return b.String()
	}
	six := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "30 20010db8%04x", i)
		}
		return b.String()
	}
	reach := func(n int) string {
		return fmt.Sprintf("90 0e %04x 0002 01 10 %s 00 %s", 5+16+7*n, hop6, six(n))
	}
	noise := func(n int) string {
		return fmt.Sprintf("d0 20 %04x %s", 12*n, strings.Repeat("0000fe7b0000000100000002", n))
	}
	tests := []struct {
		name                    string
		extended                bool
		withdrawn, attrs, nlri  string
		messages, prefixes, out int // prefixes announced, withdrawn
		lost                    int
	}{
		{name: "just fits", attrs: good, nlri: nlri(1011), messages: 1, prefixes: 1011},
		{name: "one too many", attrs: good, nlri: nlri(1012), messages: 2, prefixes: 1012},
		{name: "with withdrawals", withdrawn: nlri(500), attrs: good, nlri: nlri(512), messages: 2, prefixes: 512, out: 500},
		{name: "IPv6", attrs: reach(576) + origin + path, messages: 2, prefixes: 576},
		{name: "both families", withdrawn: nlri(3), attrs: reach(280) + good, nlri: nlri(514), messages: 3, prefixes: 794, out: 3},
		{name: "extended", extended: true, attrs: good, nlri: nlri(16373), messages: 2, prefixes: 16373},
		{name: "no room", attrs: good + noise(337), nlri: "18 0a0000", messages: 1, out: 1, lost: 1},
		{name: "no room, IPv6", attrs: reach(1) + origin + path + noise(335), messages: 1, out: 1, lost: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := as(Customer)
			s.ExtendedMessage = tt.extended
			in := message(body(t, tt.withdrawn, tt.attrs, tt.nlri))
			if len(in) > s.limit() {
				t.Fatalf("bug: the test's message has %d octets", len(in))
			}
			out, lost := s.Outgoing(nil, in)
			messages, announced, withdrawn := 0, 0, 0
			for len(out) > 0 {
				n, f := s.header(out)
				if f.Reaction != None {
					t.Fatalf("message %d: %s", messages+1, f.Text)
				}
				u, ok := both.parse(out[headerLen : headerLen+n])
				both.missing(u)
				if !ok || u.fault.Reaction != None || u.announces() && !u.seen[attrOTC] {
					t.Fatalf("message %d: %s, marked %t", messages+1, u.fault.Text, u.seen[attrOTC])
				}
				gone, _ := prefixes(u.withdrawn, false, nil)
				messages, announced, withdrawn = messages+1, announced+u.announced+u.reach.n, withdrawn+gone+u.unreach.n
				out = out[headerLen+n:]
			}
			if messages != tt.messages || announced != tt.prefixes || withdrawn != tt.out || lost != tt.lost {
				t.Errorf("%d messages announce %d and withdraw %d, %d lost; want %d, %d, %d, %d",
					messages, announced, withdrawn, lost, tt.messages, tt.prefixes, tt.out, tt.lost)
			}
		})
	}
}

// RFC 9234 section 4.2, table 2.
func TestCheckRoles(t *testing.T) {
	one := func(r Role) [][]byte { return [][]byte{{byte(r)}} }
	for r := Provider; r <= Peer; r++ {
		if r.Opposite().Opposite() != r {
			t.Errorf("%s and %s", r, r.Opposite())
		}
		for said := Provider; said <= Peer+1; said++ {
			if why := CheckRoles(r, one(said), false); (why == "") != (said == r) {
				t.Errorf("%s says %s: %q", r, said, why)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		values [][]byte
		strict bool
		want   string
	}{
		{"none", nil, false, ""},
		{"none, strict", nil, true, "role-strict"},
		{"same twice", [][]byte{{3}, {3}}, true, ""},
		{"two", [][]byte{{3}, {0}}, false, "says that it is our provider"},
		{"two, the other way round", [][]byte{{0}, {3}}, false, "says that it is our provider"},
		{"no octet", [][]byte{{}}, false, ""},
		{"no octet, strict", [][]byte{{}}, true, "role-strict"},
		{"two octets", [][]byte{{0, 0}}, false, ""},
		{"unknown", [][]byte{{9}}, false, "role 9"},
	} {
		got := CheckRoles(Customer, tt.values, tt.strict)
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

// Messages go out in order and whole, however GoBGP cuts them.
func TestConnWrites(t *testing.T) {
	in := bytes.Join([][]byte{appendKeepalive(nil), message(body(t, q4, good, p4)), message(body(t, "", "", "")), appendKeepalive(nil)}, nil)
	want := bytes.Join([][]byte{appendKeepalive(nil), message(body(t, q4, good+ourMark, p4)), message(body(t, "", "", "")), appendKeepalive(nil)}, nil)
	for _, size := range []int{1, 7, 19, 20, 64, len(in)} {
		ours, peers := ends(t)
		o := options()
		o.Session = as(Customer)
		c := NewConn(ours, o)
		for rest := in; len(rest) > 0; {
			n, err := c.Write(rest[:min(size, len(rest))])
			if err != nil || n != min(size, len(rest)) {
				t.Fatalf("write %d: %d, %v", size, n, err)
			}
			rest = rest[n:]
		}
		ours.CloseWrite()
		if got, err := io.ReadAll(peers); err != nil || !bytes.Equal(got, want) {
			t.Errorf("cut at %d: sent\n%x (%v), want\n%x", size, got, err, want)
		}
	}
}

// Of a session that is refused, the NOTIFICATION goes out, and nothing comes in.
func TestConnRefused(t *testing.T) {
	ours, peers := ends(t)
	o := options()
	o.Refused = true
	c := NewConn(ours, o)
	notification := finish(append(appendHeader(nil, typeNotification), CodeOpen, RoleMismatch), 0)
	for _, m := range [][]byte{message(body(t, q4, good, p4)), appendKeepalive(nil), notification} {
		if n, err := c.Write(m); n != len(m) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	_, _ = peers.Write(message(body(t, q4, good, p4)))
	_ = peers.CloseWrite()
	if n, err := c.Read(make([]byte, 100)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d octets, %v; want the end only", n, err)
	}
	ours.CloseWrite()
	if got, err := io.ReadAll(peers); err != nil || !bytes.Equal(got, notification) {
		t.Errorf("sent %x (%v), want the NOTIFICATION", got, err)
	}
}

// Whatever goes out: it is clean in the eyes of the judge, announces or withdraws the
// same prefixes, and what is announced has the mark that the relation asks for.
func FuzzOutgoing(f *testing.F) {
	for _, m := range [][3]string{
		{q4, good, p4}, {q4, good + marked, p4}, {"", reach6 + unreach6 + origin + path, ""}, {"", reach6 + good + marked, p4}, {},
		{"", good + "c0 07 08 0000fe7b 0a010004 c0 c8 01 ff", p4 + q4},
	} {
		for r := Provider; r <= Peer; r++ {
			f.Add(body(f, m[0], m[1], m[2]), uint8(r), uint8(3))
			f.Add(body(f, m[0], m[1], m[2]), uint8(r), uint8(0x4f))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, role, flags uint8) {
		if len(in) < 4 || len(in) > maxLen-headerLen {
			return
		}
		s := Session{IPv4: flags&1 != 0, IPv6: flags&2 != 0, TwoByteAS: flags&4 != 0, ExtendedNextHop: flags&8 != 0}
		plain := s
		clean, fault := s.Update(nil, in) // as all that GoBGP sends
		if fault.Reaction == Reset || len(clean) < headerLen+4 || int(clean[16])<<8|int(clean[17]) != len(clean) {
			return
		}
		s.Relation = Role(role%5).Relation(ourASN, peerASN)
		before := bytes.Clone(clean)
		out, lost := s.Outgoing(nil, clean)
		if !bytes.Equal(clean, before) {
			t.Fatal("it changed what it was given")
		}
		was, _ := plain.parse(clean[headerLen:])
		announced, withdrawn := 0, 0
		for rest := out; len(rest) > 0; {
			n, bad := s.header(rest)
			if bad.Reaction != None {
				t.Fatalf("bad header: %s\nin  %x\nout %x", bad.Text, clean, out)
			}
			m := rest[:headerLen+n]
			again, f := plain.Update(nil, m[headerLen:])
			if f.Reaction != None || !bytes.Equal(again, m) {
				t.Fatalf("not clean: %v %s\nin   %x\nout  %x\nthen %x", f.Reaction, f.Text, clean, m, again)
			}
			u, _ := plain.parse(m[headerLen:])
			if u.announces() && (s.Relation.Below && !u.seen[attrOTC] || s.Relation.Above && was.seen[attrOTC]) {
				t.Fatalf("to a %s, marked %t: %x", Role(role%5), u.seen[attrOTC], m)
			}
			gone, _ := prefixes(u.withdrawn, false, nil)
			announced, withdrawn = announced+u.announced+u.reach.n, withdrawn+gone+u.unreach.n
			rest = rest[headerLen+n:]
		}
		gone, _ := prefixes(was.withdrawn, false, nil)
		if total := was.announced + was.reach.n + gone + was.unreach.n; announced+withdrawn != total {
			t.Fatalf("%d announced and %d withdrawn of %d (%d lost)\nin  %x\nout %x", announced, withdrawn, total, lost, clean, out)
		}
	})
}
