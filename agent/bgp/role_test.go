package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
)

func withRole(n int, asn uint32, r config.Role) config.Peer {
	c := peerConf(n, asn)
	c.Role = r
	return c
}

// otcOf is the attribute Only to Customer that we announced for the prefix: its flags and
// value in hexadecimal, "" for none, and whether we announced it at all.
func (f *fake) otcOf(prefix string) (otc string, announced bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.table[netip.MustParsePrefix(prefix)]
	return r.otc, ok
}

// RFC 9234 section 5, in both directions, and what is said of it.
func TestOnlyToCustomer(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	mustAdd(t, s, withRole(4, 65147, config.RoleProvider), withRole(5, 65148, config.RoleCustomer),
		withRole(6, 65149, config.RolePeer), peerConf(7, 65150), withRole(8, 65151, config.RoleProvider))
	mustSetVNet(t, s, "10.1.0.0/16")
	peers := map[int]*fake{}
	for n := 4; n <= 8; n++ {
		peers[n] = connect(t, peerAddr(n), fakeOptions{asn: uint32(65143 + n)})
	}
	const by4, by6, byUs = "c0 0000fe7b", "c0 0000fe7d", "c0 0000ffeb"
	const four, five, six, seven, v6 = "192.168.4.0/24", "192.168.5.0/24", "192.168.6.0/24", "192.168.7.0/24", "2001:db8:4::/48"
	say := func(n int, prefix, hop string, otc uint32) {
		peers[n].announce(announce{prefixes: []string{prefix}, asPath: fmt.Sprint(peers[n].asn), nextHop: hop, otc: otc})
	}
	say(4, four, "10.1.0.4", 0)
	say(4, v6, "fd00:1::4", 0)
	say(5, five, "10.1.0.5", 0)
	say(6, six, "10.1.0.6", 0)
	say(7, seven, "10.1.0.7", 0)
	const nothing = "nothing"
	want := func(n int, prefix, otc string) {
		t.Helper()
		got := ""
		eventually(t, prefix+" at peer "+peerAddr(n).String()+" with "+otc, func() bool {
			var announced bool
			if got, announced = peers[n].otcOf(prefix); !announced {
				got = nothing
			}
			return got == otc
		})
	}
	for n, otc := range map[int]string{4: "", 5: byUs, 6: byUs, 7: "", 8: ""} {
		want(n, "10.1.0.0/16", otc)
	}
	want(5, four, by4)
	want(5, v6, by4)
	want(5, six, by6)
	want(5, seven, byUs)
	want(7, four, by4)
	want(4, five, "")
	want(8, five, "")
	want(6, five, byUs)
	want(6, seven, byUs)
	// What those got came after what others must not get.
	want(8, seven, "")
	for _, n := range []int{6, 8} {
		for _, prefix := range []string{four, v6} {
			want(n, prefix, nothing)
		}
	}
	want(8, six, nothing)
	eventually(t, "the mark of AS 65147 in what is learned from the provider", func() bool {
		a := r.path(peerAddr(4), four)
		return a != nil && a.HasOTC && a.OTC == 65147
	})

	// A route that is marked now takes the place of one that was not.
	say(7, seven, "10.1.0.7", 1)
	want(5, seven, "c0 00000001")
	want(8, seven, nothing)
	want(6, seven, nothing)

	list, err := s.Advertised(peerAddr(8))
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, a := range list {
		told = append(told, a.Prefix.String())
	}
	if got := strings.Join(told, " "); got != "10.1.0.0/16 192.168.5.0/24" {
		t.Errorf("advertised to the second provider: %s", got)
	}
	eventually(t, "the count of what is withheld from it", func() bool {
		i := info(t, s, 8)
		return i.OnlyToCustomers == 4 && i.Advertised[IPv4] == 2 && i.Advertised[IPv6] == 0
	})
	if list, err = s.Advertised(peerAddr(5)); err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if !a.Attrs.HasOTC {
			t.Errorf("advertised to the customer: %s without a mark", a.Prefix)
		}
	}
}

// GoBGP fills its messages; with the mark in them they take more, and nothing is lost.
func TestMarkedMessagesAreCut(t *testing.T) {
	s, _, log := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), withRole(5, 65148, config.RoleCustomer))
	a, b := connect(t, peerAddr(4), fakeOptions{asn: 65147}), connect(t, peerAddr(5), fakeOptions{asn: 65148})
	var list []netip.Prefix
	for i := range 3000 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 8), byte(i), 0}), 24))
	}
	a.announceAll(announce{asPath: "65147", nextHop: "10.1.0.4"}, list)
	eventually(t, "all prefixes", func() bool { return b.routes() == len(list) })
	for _, p := range list {
		if otc, _ := b.otcOf(p.String()); otc != "c0 0000ffeb" {
			t.Fatalf("%s has the mark %q", p, otc)
		}
	}
	if b.isClosed() || strings.Contains(log.String(), "has no room") {
		t.Error("the session ended, or prefixes were lost")
	}
}

// RFC 9234 section 4.2: what the peer says of itself must go with what it is here.
func TestRoleMismatch(t *testing.T) {
	const provider, rs, customer = 0, 1, 3
	for _, tt := range []struct {
		name   string
		role   config.Role
		strict bool
		says   []byte
		want   string // "" : the session stays
	}{
		{"same", config.RoleProvider, true, []byte{provider}, ""},
		{"same twice", config.RoleCustomer, true, []byte{customer, customer}, ""},
		{"nothing", config.RoleProvider, false, nil, ""},
		{"no role here", config.RoleNone, false, []byte{rs}, ""},
		{"other", config.RoleProvider, false, []byte{customer}, "the peer says that it is our customer, and is configured here as our provider (RFC 9234)"},
		{"two", config.RoleProvider, false, []byte{provider, rs}, "the peer says that it is our rs, and is configured here as our provider (RFC 9234)"},
		{"nothing, strict", config.RolePeer, true, nil, "the peer does not say what it is to us, and role-strict wants it to say peer (RFC 9234)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r, _ := startSpeaker(t, nil)
			c := withRole(4, 65147, tt.role)
			c.RoleStrict = tt.strict
			mustAdd(t, s, c)
			mustSetVNet(t, s, "10.1.0.0/16")
			f := connect(t, peerAddr(4), fakeOptions{asn: 65147, roles: tt.says, notifies: true})
			if tt.want == "" {
				f.wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
				if i := info(t, s, 4); i.RoleConfirmed != (len(tt.says) > 0 && tt.role != config.RoleNone) {
					t.Errorf("the peer said %v, confirmed %t", tt.says, i.RoleConfirmed)
				}
				return
			}
			f.announce(announce{prefixes: []string{"192.168.1.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
			eventually(t, "the NOTIFICATION", func() bool { return f.received() == "2/11" })
			eventually(t, "the reason", func() bool { return r.lastDown(peerAddr(4)).Down.Cause == "role-mismatch" })
			eventually(t, "a pause", func() bool {
				i := info(t, s, 4)
				return i.LastDown.Text == tt.want && strings.HasPrefix(i.Warning, tt.want+"; the next attempt is at ")
			})
			if n := r.count(peerAddr(4)); n != 0 || f.routes() != 0 {
				t.Errorf("%d paths learned, %d announced, want none", n, f.routes())
			}
			// Who mends the configuration does not wait.
			c.Role, c.RoleStrict = config.RoleNone, false
			if err := s.UpdatePeer(c); err != nil {
				t.Fatal(err)
			}
			connect(t, peerAddr(4), fakeOptions{asn: 65147, roles: tt.says}).wantRoute("10.1.0.0/16", "65515 via 10.1.2.4 [igp] med - []")
		})
	}
}
