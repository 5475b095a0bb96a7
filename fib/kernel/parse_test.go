package kernel

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// The seeds in testdata are messages of Linux 6.18.

func FuzzRoute(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var r routeMsg
		if parseRoute(b, &r) != nil || !isIP(r.family) {
			return
		}
		if !r.prefix.IsValid() || r.prefix != r.prefix.Masked() {
			t.Errorf("prefix %v", r.prefix)
		}
		if r.prefix.Addr().Is4() != (r.family == unix.AF_INET) {
			t.Errorf("family %d with prefix %v", r.family, r.prefix)
		}
		legs, plain, err := r.appendLegs(nil)
		if err == nil && plain && len(legs) == 0 && len(r.multipath) > 0 {
			t.Error("a plain multipath without legs")
		}
		if sr, err := snapshotRoute(&r); err == nil && sr.GroupID != 0 && sr.Legs != nil {
			t.Errorf("%+v has a group and legs", sr)
		}
	})
}

func FuzzNextHop(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var n nextHopMsg
		if parseNextHop(b, &n) != nil {
			return
		}
		members := n.appendMembers(nil)
		if (len(members) == 0) != (n.group == nil) {
			t.Errorf("group of %d bytes has %d members", len(n.group), len(members))
		}
		if n.plain && n.group == nil && !n.leads && n.leg != fib.Blackhole {
			t.Errorf("%+v is plain but leads nowhere", n)
		}
	})
}

func FuzzLink(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, l, err := parseLink(b); err == nil && len(l.Name) > len(b) {
			t.Errorf("name %q", l.Name)
		}
	})
}

func FuzzAddr(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok, err := parseAddr(b); err == nil && ok && !a.Prefix.IsValid() {
			t.Errorf("address %v", a)
		}
	})
}

func FuzzNeigh(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if addr, _, _, err := parseNeigh(b); err == nil && addr.IsValid() && !isIP(b[0]) {
			t.Errorf("address %v of family %d", addr, b[0])
		}
	})
}

// FuzzDatagram is what Watch and the readers of replies do to what they read.
func FuzzDatagram(f *testing.F) {
	h := &Handle{owner: testOwner, objects: true}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = h.report(b, func(e fib.Event) {
			if e.Kind == 0 {
				t.Error("an event without kind")
			}
		})
		for len(b) > 0 {
			m, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			if _, text, err := parseError(m); err == nil && len(text) > len(b) {
				t.Errorf("text %q", text)
			}
			_ = doneError(m)
			b = rest
		}
	})
}

// What the encoder writes, the parsers read back.
func TestEncodeParse(t *testing.T) {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6 := netip.MustParseAddr("2001:db8::1")
	p4, p6 := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("2001:db9::/48")
	owner := testOwner
	for _, table := range []uint32{unix.RT_TABLE_MAIN, 1 << 20} {
		owner.Table = table
		h := &Handle{owner: owner}
		h.enc.owner = owner
		for name, op := range map[string]fib.Op{
			"IPv4":                 {Kind: fib.RouteAdd, Prefix: p4, Legs: []fib.Leg{{Gateway: a4, IfIndex: 7}}},
			"IPv4 two legs":        {Kind: fib.RouteAdd, Prefix: p4, Legs: []fib.Leg{{Gateway: a4, IfIndex: 7}, {Gateway: b4, IfIndex: 8}}},
			"IPv4 over IPv6":       {Kind: fib.RouteReplace, Prefix: p4, Legs: []fib.Leg{{Gateway: a6, IfIndex: 7}}},
			"IPv4 over both":       {Kind: fib.RouteReplace, Prefix: p4, Legs: []fib.Leg{{Gateway: a4, IfIndex: 7}, {Gateway: a6, IfIndex: 7}}},
			"IPv6":                 {Kind: fib.RouteAdd, Prefix: p6, Legs: []fib.Leg{{Gateway: a6, IfIndex: 7}}},
			"IPv6 two legs":        {Kind: fib.RouteAdd, Prefix: p6, Legs: []fib.Leg{{Gateway: a6, IfIndex: 7}, {Gateway: a6, IfIndex: 8}}},
			"leg without gateway":  {Kind: fib.RouteAdd, Prefix: p6, Legs: []fib.Leg{{IfIndex: 7}}},
			"group":                {Kind: fib.RouteAdd, Prefix: p4, ID: first + 1},
			"group IPv6":           {Kind: fib.RouteReplace, Prefix: p6, ID: first + 1},
			"default route":        {Kind: fib.RouteAdd, Prefix: netip.MustParsePrefix("0.0.0.0/0"), ID: first + 1},
			"prefix of length 127": {Kind: fib.RouteAdd, Prefix: netip.PrefixFrom(a6, 127).Masked(), ID: first + 1},
		} {
			h.enc.reset(1)
			if reason := h.enc.op(&op); reason != "" {
				t.Fatalf("%s: %s", name, reason)
			}
			m, rest, err := nextMessage(h.enc.buf)
			if err != nil || len(rest) != 0 {
				t.Fatalf("%s: %v, %d bytes left", name, err, len(rest))
			}
			var r routeMsg
			if err := parseRoute(m.body, &r); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := snapshotRoute(&r)
			want := fib.SnapshotRoute{GroupID: op.ID, Legs: op.Legs}
			if err != nil || !reflect.DeepEqual(got, want) || r.prefix != op.Prefix || !h.ours(&r) || m.typ != unix.RTM_NEWROUTE {
				t.Errorf("%s: %s %+v, err %v, want %s %+v", name, r.prefix, got, err, op.Prefix, want)
			}
		}
		h.enc.reset(1)
		h.enc.op(&fib.Op{Kind: fib.GroupAdd, ID: first + 1, Members: []uint32{3, 5}})
		h.enc.op(&fib.Op{Kind: fib.NextHopAdd, ID: first + 2, Leg: fib.Leg{Gateway: a6, IfIndex: 9}})
		var n nextHopMsg
		m, rest, err := nextMessage(h.enc.buf)
		if err != nil || parseNextHop(m.body, &n) != nil || !n.plain || n.id != first+1 || !slices.Equal(n.appendMembers(nil), []uint32{3, 5}) {
			t.Errorf("group: %+v, %v", n, err)
		}
		m, _, err = nextMessage(rest)
		if err != nil || parseNextHop(m.body, &n) != nil || !n.plain || n.id != first+2 || n.leg != (fib.Leg{Gateway: a6, IfIndex: 9}) {
			t.Errorf("next hop: %+v, %v", n, err)
		}
	}
}

// Kernels without NETLINK_CAP_ACK repeat the request before the text.
func TestParseError(t *testing.T) {
	text := []byte("no such luck\x00")
	attr := native.AppendUint16(nil, uint16(4+len(text)))
	attr = native.AppendUint16(attr, unix.NLMSGERR_ATTR_MSG)
	attr = append(attr, text...)
	header := func(payload int) []byte {
		b := native.AppendUint32(nil, ^uint32(unix.ENOENT)+1)
		b = native.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+payload))
		return append(b, make([]byte, 12)...)
	}
	for name, m := range map[string]message{
		"capped": {flags: unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, body: append(header(40), attr...)},
		"whole":  {flags: unix.NLM_F_ACK_TLVS, body: slices.Concat(header(7), make([]byte, 8), attr)},
	} {
		errno, got, err := parseError(m)
		if errno != unix.ENOENT || string(got) != "no such luck" || err != nil {
			t.Errorf("%s: %v %q %v", name, errno, got, err)
		}
	}
	if errno, got, err := parseError(message{body: header(0)}); errno != unix.ENOENT || got != nil || err != nil {
		t.Errorf("without text: %v %q %v", errno, got, err)
	}
	if _, _, err := parseError(message{body: header(0)[:10]}); err == nil {
		t.Error("a short message was read")
	}
}
