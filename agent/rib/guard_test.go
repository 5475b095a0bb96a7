package rib

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// allGuards are those of a peer of AS 65147 with everything on.
func allGuards() Guards {
	return Guards{
		ASN: 65147, Martian: true, OwnAddress: true, EmptyASPath: true, FirstAS: true, Confederation: true, ASSet: true,
		PrivateAS: true, MaxASPath: 5, IPv4: Lengths{0, 28}, IPv6: Lengths{16, 64},
	}
}

func otc(asn uint32) func(*Attrs) { return func(a *Attrs) { a.HasOTC, a.OTC = true, asn } }

func TestGuards(t *testing.T) {
	good, set := seq(65147), ASPath{{ASSequence, []uint32{65147}}, {ASSet, []uint32{1, 2}}}
	for _, tt := range []struct {
		prefix, nextHop string
		path            ASPath
		want            Reason
		more            []func(*Attrs)
	}{
		{"0.0.0.0/0", "10.1.0.4", good, "", nil}, // S10
		{"0.0.0.0/1", "10.1.0.4", good, "", nil},
		{"192.168.0.0/16", "10.1.0.4", good, "", nil},
		{"0.1.0.0/16", "10.1.0.4", good, MartianPrefix, nil},
		{"127.0.0.0/8", "10.1.0.4", good, MartianPrefix, nil},
		{"127.0.0.1/32", "10.1.0.4", good, MartianPrefix, nil},
		{"126.0.0.0/7", "10.1.0.4", good, "", nil}, // around it
		{"169.254.169.254/32", "10.1.0.4", good, MartianPrefix, nil},
		{"224.0.0.0/4", "10.1.0.4", good, MartianPrefix, nil},
		{"239.1.1.0/24", "10.1.0.4", good, MartianPrefix, nil},
		{"240.0.0.0/8", "10.1.0.4", good, MartianPrefix, nil},
		{"255.255.255.255/32", "10.1.0.4", good, MartianPrefix, nil},
		{"2001:db8::/32", "fd01::4", good, "", nil},
		{"64:ff9b::/64", "fd01::4", good, "", nil}, // NAT64
		{"::1/128", "fd01::4", good, MartianPrefix, nil},
		{"::ffff:a00:0/104", "fd01::4", good, MartianPrefix, nil},
		{"fe80::/64", "fd01::4", good, MartianPrefix, nil},
		{"ff02::/16", "fd01::4", good, MartianPrefix, nil},

		{"192.168.0.0/16", "0.0.0.0", good, MartianNextHop, nil},
		{"192.168.0.0/16", "127.0.0.1", good, MartianNextHop, nil},
		{"192.168.0.0/16", "169.254.1.1", good, MartianNextHop, nil},
		{"192.168.0.0/16", "224.0.0.5", good, MartianNextHop, nil},
		{"192.168.0.0/16", "255.255.255.255", good, MartianNextHop, nil},
		{"2001:db8::/32", "::1", good, MartianNextHop, nil},
		{"2001:db8::/32", "fe80::4", good, MartianNextHop, nil},
		{"2001:db8::/32", "ff02::1", good, MartianNextHop, nil},

		{"198.51.100.7/32", "10.1.0.4", good, OwnAddress, nil},
		{"198.51.100.0/24", "10.1.0.4", good, "", nil},
		{"198.51.100.8/32", "10.1.0.4", good, PrefixLength, nil},
		{"198.51.100.16/28", "10.1.0.4", good, "", nil},
		{"::/0", "fd01::4", good, PrefixLength, nil}, // as written
		{"2001:db8::/65", "fd01::4", good, PrefixLength, nil},

		{"192.168.0.0/16", "10.1.0.4", nil, EmptyASPath, nil},
		{"192.168.0.0/16", "10.1.0.4", ASPath{{ASSequence, nil}}, EmptyASPath, nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65148), FirstAS, nil}, // RFC 4271 section 6.3
		{"192.168.0.0/16", "10.1.0.4", seq(3356, 65147), FirstAS, nil},
		{"192.168.0.0/16", "10.1.0.4", set, ASSetInPath, nil}, // RFC 9774
		{"192.168.0.0/16", "10.1.0.4", ASPath{{ASConfedSeq, []uint32{65147}}}, ConfedInPath, nil},
		{"192.168.0.0/16", "10.1.0.4", ASPath{{ASSequence, []uint32{65147}}, {ASConfedSet, []uint32{1}}}, ConfedInPath, nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65147, 65147, 65147, 65147, 65147), "", nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65147, 1, 2, 3, 4, 5), ASPathTooLong, nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65147, 65535, 64511, 3356), "", nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65147, 64512), PrivateAS, nil},
		{"192.168.0.0/16", "10.1.0.4", seq(65147, 4200000000), PrivateAS, nil},
	} {
		x := from(0, tt.nextHop, tt.path, tt.more...)
		self := addr("198.51.100.7")
		p := Policy{LocalASN: localASN, Guards: []Guards{allGuards()}, IsSelf: func(a netip.Addr) bool { return a == self }}
		if got := p.Path(pfx(tt.prefix), x); got != tt.want {
			t.Errorf("%s via %s, AS path %s: %q, want %q", tt.prefix, tt.nextHop, tt.path, got, tt.want)
		}
		if tt.want != "" {
			v := p.Judge(pfx(tt.prefix), []Path{x}, fib.Entry{}, func(fib.Source) fib.SourceState { return fib.SourceUp }, nil)[0]
			if v.Reason != tt.want || len(v.Detail) < 20 || strings.Contains(v.Detail, "%!") {
				t.Errorf("%s via %s, AS path %s: Judge = %q, %q", tt.prefix, tt.nextHop, tt.path, v.Reason, v.Detail)
			}
		}
		for name, off := range map[string]Policy{
			"no guards":      {LocalASN: localASN, Guards: []Guards{{}}},
			"another source": {LocalASN: localASN, Guards: []Guards{{}, allGuards()}},
			"none known":     {LocalASN: localASN},
		} {
			if got := off.Path(pfx(tt.prefix), x); got != "" {
				t.Errorf("%s: %s via %s, AS path %s: %q", name, tt.prefix, tt.nextHop, tt.path, got)
			}
		}
	}
}

// RFC 9234 section 5: who must not pass on what is only for customers.
func TestRouteLeak(t *testing.T) {
	for _, tt := range []struct {
		role Role
		more func(*Attrs)
		want Reason
	}{
		{0, otc(1), ""},
		{RoleProvider, otc(1), ""},
		{RoleServer, otc(1), ""},
		{RoleCustomer, otc(1), RouteLeak},
		{RoleCustomer, otc(65147), RouteLeak},
		{RoleCustomer, func(*Attrs) {}, ""},
		{RoleClient, otc(65147), RouteLeak},
		{RolePeer, otc(1), RouteLeak},
		{RolePeer, otc(65147), ""},
		{RolePeer, func(*Attrs) {}, ""},
	} {
		p := Policy{LocalASN: localASN, Guards: []Guards{{ASN: 65147, Role: tt.role}}}
		x := from(0, "10.1.0.4", seq(65147), tt.more)
		if got := p.Path(pfx("192.168.0.0/16"), x); got != tt.want {
			t.Errorf("from role %d with OTC %d: %q, want %q", tt.role, x.Attrs.OTC, got, tt.want)
		}
	}
}
