package rib

import (
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// RFC 7999: only host routes of peers that may, and all that is refused otherwise still is.
func TestBlackhole(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string
		may          bool
		communities  []uint32
		want         bool
		why          Reason
	}{
		{"IPv4", "192.168.255.9/32", true, []uint32{1, blackhole}, true, ""},
		{"IPv6", "2001:db8::9/128", true, []uint32{blackhole}, true, ""},
		{"not allowed", "192.168.255.9/32", false, []uint32{blackhole}, false, ""},
		{"without the community", "192.168.255.9/32", true, []uint32{65535<<16 | 667}, false, ""},
		{"no host route", "192.168.255.8/31", true, []uint32{blackhole}, false, ""},
		{"a default route", "0.0.0.0/0", true, []uint32{blackhole}, false, ""},
		{"martian", "169.254.169.254/32", true, []uint32{blackhole}, false, MartianPrefix},
	} {
		p := Policy{Guards: []Guards{{}, {ASN: 65147, Martian: true, Blackhole: tt.may}}}
		nh := netip.MustParseAddr("fd01::4")
		announced := &Attrs{NextHop: nh, Communities: tt.communities}
		used, why, _ := p.Import(netip.MustParsePrefix(tt.prefix), Path{Source: 1, Attrs: announced})
		if got := used.Attrs.NextHop == fib.Discard; got != tt.want || why != tt.why {
			t.Errorf("%s: blackhole %t, reason %q, want %t, %q", tt.name, got, why, tt.want, tt.why)
		}
		if announced.NextHop != nh {
			t.Errorf("%s: what was announced was changed", tt.name)
		}
	}
}
