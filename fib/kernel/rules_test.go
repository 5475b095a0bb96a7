package kernel

import (
	"slices"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/internal/netnstest"
)

// The rules of a new namespace, and those that ip(8) adds to it.
func TestRules(t *testing.T) {
	netnstest.RequireRoot(t)
	h := newHost(t)
	k := openTest(h, testOwner, false)
	h.ip("rule add priority 100 from all lookup 4711")
	h.ip("rule add priority 101 from 10.0.0.0/8 lookup 4711")
	h.ip("rule add priority 102 fwmark 7 lookup 4711")
	h.ip("rule add priority 103 iif lo lookup 4711")
	h.ip("rule add priority 104 from all lookup main suppress_prefixlength 0")
	h.ip("rule add priority 105 not from 10.0.0.0/8 lookup 4711")
	h.ip("rule add priority 106 from all unreachable")
	h.ip("-6 rule add priority 200 from all lookup 99")
	got, err := k.Rules()
	if err != nil {
		t.Fatal(err)
	}
	want := []fib.Rule{
		{Priority: 0, Table: 255, Lookup: true, All: true},
		{Priority: 100, Table: 4711, Lookup: true, All: true},
		{Priority: 101, Table: 4711, Lookup: true},
		{Priority: 102, Table: 4711, Lookup: true},
		{Priority: 103, Table: 4711, Lookup: true},
		{Priority: 104, Table: 254, Lookup: true},
		{Priority: 105, Table: 4711, Lookup: true},
		{Priority: 106, All: true},
		{Priority: 32766, Table: 254, Lookup: true, All: true},
		{Priority: 32767, Table: 253, Lookup: true, All: true},
		{IPv6: true, Priority: 0, Table: 255, Lookup: true, All: true},
		{IPv6: true, Priority: 200, Table: 99, Lookup: true, All: true},
		{IPv6: true, Priority: 32766, Table: 254, Lookup: true, All: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("Rules = %+v\nwant    %+v", got, want)
	}
}

// A rule with a selector that this program does not know is not for all traffic.
func TestNewerRule(t *testing.T) {
	dscp := []byte{5, 0, 25, 0, 46, 0, 0, 0} // FRA_DSCP, of Linux 6.13
	rule := make([]byte, sizeofRuleHdr)
	for _, c := range []struct {
		b    []byte
		want bool
	}{{rule, true}, {append(rule, dscp...), false}} {
		if r, err := parseRule(c.b); err != nil || r.All != c.want {
			t.Errorf("% x: %+v, %v, want All %v", c.b, r, err, c.want)
		}
	}
}

func FuzzRule(f *testing.F) {
	f.Add(make([]byte, sizeofRuleHdr))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRule(b); err == nil && r.All && r.VRF {
			t.Errorf("%+v is for all and for a VRF", r)
		}
	})
}
