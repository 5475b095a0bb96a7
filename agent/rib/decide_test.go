package rib

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

const localASN = 65515

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

func seq(asns ...uint32) ASPath { return ASPath{{Type: ASSequence, ASNs: asns}} }

// from is a path of a source with a next hop and an AS path.
func from(src fib.Source, nh string, path ASPath, more ...func(*Attrs)) Path {
	a := &Attrs{NextHop: addr(nh), ASPath: path}
	for _, f := range more {
		f(a)
	}
	return Path{Source: src, Attrs: a}
}

func med(n uint32) func(*Attrs)    { return func(a *Attrs) { a.HasMED, a.MED = true, n } }
func origin(o Origin) func(*Attrs) { return func(a *Attrs) { a.Origin = o } }

func community(c uint32) func(*Attrs) {
	return func(a *Attrs) { a.Communities = append(a.Communities, c) }
}

// longLived is a path that is long-lived stale.
func longLived(x Path) Path {
	x.Stale, x.LongLived = true, true
	return x
}

// show writes a ranking as "nexthop/source@tier ...".
func show(vias []fib.Via) string {
	var out []string
	for _, v := range vias {
		out = append(out, fmt.Sprintf("%s/%d@%d", v.NextHop, v.Source, v.Tier))
	}
	return strings.Join(out, " ")
}

func TestRank(t *testing.T) {
	for _, tt := range []struct {
		name  string
		paths []Path
		want  string
	}{
		{"S15: two equal paths", []Path{from(0, "10.1.0.4", seq(65147)), from(1, "10.1.0.5", seq(65147))}, "10.1.0.4/0@0 10.1.0.5/1@0"},
		{"S15: one prepends twice", []Path{from(0, "10.1.0.4", seq(65147)), from(1, "10.1.0.5", seq(65147, 65147, 65147))}, "10.1.0.4/0@0 10.1.0.5/1@1"},
		{"S13: shortest AS path before origin and MED",
			[]Path{from(0, "10.1.0.4", seq(1, 2), origin(OriginIGP)), from(1, "10.1.0.5", seq(3), origin(OriginIncomplete), med(9))},
			"10.1.0.5/1@0 10.1.0.4/0@1"},
		{"S13: origin before MED",
			[]Path{from(0, "10.1.0.4", seq(1), origin(OriginEGP)), from(1, "10.1.0.5", seq(2), med(9)), from(2, "10.1.0.6", seq(2), origin(OriginIncomplete))},
			"10.1.0.5/1@0 10.1.0.4/0@1 10.1.0.6/2@2"},
		{"S13: MED, absent is 0, whatever the neighbouring AS",
			[]Path{from(0, "10.1.0.4", seq(1), med(1)), from(1, "10.1.0.5", seq(2)), from(2, "10.1.0.6", seq(3), med(0)), from(3, "10.1.0.7", seq(4), med(4294967295))},
			"10.1.0.5/1@0 10.1.0.6/2@0 10.1.0.4/0@1 10.1.0.7/3@2"},
		{"RFC 9494 section 4.3: long-lived stale is the last choice, before LOCAL_PREF",
			[]Path{longLived(from(0, "10.1.0.4", seq(1), func(a *Attrs) { a.LocalPref = 200 })), from(1, "10.1.0.5", seq(1, 2, 3), origin(OriginIncomplete)),
				longLived(from(2, "10.1.0.6", seq(1)))},
			"10.1.0.5/1@0 10.1.0.4/0@1 10.1.0.6/2@2"},
		{"RFC 9494 section 4.3: LLGR_STALE of somebody further away counts as much",
			[]Path{longLived(from(0, "10.1.0.4", seq(1))), from(1, "10.1.0.5", seq(1), community(65535<<16|6)), from(2, "10.1.0.6", seq(1, 2))},
			"10.1.0.6/2@0 10.1.0.4/0@1 10.1.0.5/1@1"},
		{"S14: equal length, other content", []Path{from(0, "10.1.0.4", seq(1, 2)), from(1, "10.1.0.5", seq(3, 4))}, "10.1.0.4/0@0 10.1.0.5/1@0"},
		{"S16: one next hop by two peers", []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.4", seq(2))}, "10.1.0.4/0@0 10.1.0.4/1@0"},
		{"S11: a third-party next hop", []Path{from(0, "10.1.0.100", seq(1))}, "10.1.0.100/0@0"},
		{"S8: own AS in the path", []Path{from(0, "10.1.0.4", seq(1, localASN, 2)), from(1, "10.1.0.5", seq(1, 2, 3, 4))}, "10.1.0.5/1@0"},
		{"S8: own AS in a set", []Path{from(0, "10.1.0.4", ASPath{{ASSequence, []uint32{1}}, {ASSet, []uint32{2, localASN}}})}, ""},
		{"S8: own AS in a confederation segment", []Path{from(0, "10.1.0.4", ASPath{{ASConfedSeq, []uint32{localASN}}})}, ""},
		{"S8: AS 0 (RFC 7607)", []Path{from(0, "10.1.0.4", seq(0))}, ""},
		{"S8: AS 0 within (RFC 7607)", []Path{from(0, "10.1.0.4", ASPath{{ASSequence, []uint32{1}}, {ASSet, []uint32{2, 0}}})}, ""},
		{"an AS_SET counts as one (RFC 4271 section 9.1.2.2 a)",
			[]Path{from(0, "10.1.0.4", ASPath{{ASSequence, []uint32{1}}, {ASSet, []uint32{2, 3, 4}}}), from(1, "10.1.0.5", seq(1, 2)), from(2, "10.1.0.6", seq(1, 2, 3))},
			"10.1.0.4/0@0 10.1.0.5/1@0 10.1.0.6/2@1"},
		{"two AS_SETs count as two", []Path{from(0, "10.1.0.4", ASPath{{ASSet, []uint32{2, 3}}, {ASSet, []uint32{4}}}), from(1, "10.1.0.5", seq(1, 2))}, "10.1.0.4/0@0 10.1.0.5/1@0"},
		{"confederation segments count nothing (RFC 5065 section 5.3)",
			[]Path{from(0, "10.1.0.4", ASPath{{ASConfedSeq, []uint32{5, 6}}, {ASConfedSet, []uint32{7}}, {ASSequence, []uint32{1}}}), from(1, "10.1.0.5", seq(1))},
			"10.1.0.4/0@0 10.1.0.5/1@0"},
		{"an empty AS path is the shortest", []Path{from(0, "10.1.0.4", nil), from(1, "10.1.0.5", seq(1))}, "10.1.0.4/0@0 10.1.0.5/1@1"},
		{"ordered by next hop within a tier", []Path{from(0, "10.1.0.9", seq(1)), from(1, "10.1.0.5", seq(1)), from(2, "10.1.0.10", seq(1))}, "10.1.0.5/1@0 10.1.0.9/0@0 10.1.0.10/2@0"},
		{"RFC 8950: an IPv6 next hop for an IPv4 prefix", []Path{from(0, "fd01::4", seq(1))}, "fd01::4/0@0"},
		{"none", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Policy{LocalASN: localASN}
			for range 2 { // and the paths' order must not matter
				got, why := p.Rank(nil, pfx("192.168.255.0/24"), tt.paths)
				if show(got) != tt.want || why != "" {
					t.Errorf("Rank = %s, %q, want %s", show(got), why, tt.want)
				}
				slices.Reverse(tt.paths)
			}
		})
	}
}

// An IPv4 next hop cannot serve an IPv6 prefix, and must not spoil the route for those
// that can.
func TestRankFamily(t *testing.T) {
	p := Policy{LocalASN: localASN}
	paths := []Path{from(0, "10.1.0.4", seq(1)), from(1, "fd01::5", seq(1, 2))}
	got, why := p.Rank(nil, pfx("2001:db8::/32"), paths)
	if show(got) != "fd01::5/1@0" || why != "" {
		t.Errorf("Rank = %s, %q, want the IPv6 next hop only", show(got), why)
	}
}

// Rank appends, and leaves the paths as they are.
func TestRankKeeps(t *testing.T) {
	p := Policy{LocalASN: localASN}
	var paths []Path
	for i := range 20 {
		paths = append(paths, from(fib.Source(i), fmt.Sprintf("10.1.0.%d", 200-i), seq(1)))
	}
	before := slices.Clone(paths)
	buf := []fib.Via{{Tier: 7}}
	if buf, _ = p.Rank(buf, pfx("10.0.0.0/8"), paths); len(buf) != 21 || buf[0].Tier != 7 {
		t.Errorf("Rank returned %d ways, want 1 and 20", len(buf))
	}
	if !slices.Equal(before, paths) {
		t.Error("Rank changed the paths")
	}
}

// More tiers than a Via can number: the rest is left out.
func TestRankTiers(t *testing.T) {
	p := Policy{LocalASN: localASN}
	var paths []Path
	for i := range 300 {
		paths = append(paths, from(fib.Source(i), "10.1.0.4", seq(1), med(uint32(i))))
	}
	got, _ := p.Rank(nil, pfx("10.0.0.0/8"), paths)
	if len(got) != 256 || got[255].Tier != 255 || got[255].Source != 255 {
		t.Errorf("%d ways, the last %+v, want 256", len(got), got[len(got)-1])
	}
}

func TestPolicyPrefix(t *testing.T) {
	p := Policy{
		LocalASN:    localASN,
		VNet:        []netip.Prefix{pfx("10.1.0.0/16"), pfx("fd01::/48")},
		AllowInside: []netip.Prefix{pfx("10.1.7.0/24")},
		Captures:    Captures{pfx("10.2.0.0/24"): addr("10.2.0.4")},
	}
	for _, tt := range []struct {
		name   string
		prefix string
		want   Reason
	}{
		{"S18: a VNet prefix itself", "10.1.0.0/16", InsideVNet},
		{"S18: inside one", "10.1.5.0/24", InsideVNet},
		{"S18: inside one, IPv6", "fd01:0:0:1::/64", InsideVNet},
		{"S18: a host route", "10.1.255.255/32", InsideVNet},
		{"S18: inside, and allowed", "10.1.7.0/24", ""},
		{"S18: inside what is allowed is not listed", "10.1.7.0/25", InsideVNet},
		{"S18: a supernet", "10.0.0.0/8", ""},
		{"S18: the next one of the same length", "10.2.0.0/16", ""},
		{"S10: the default route", "0.0.0.0/0", ""},
		{"S10: the default route, IPv6", "::/0", ""},
		{"S21: captures", "10.2.0.0/24", CoversNextHop},
		{"S21: does not capture", "10.2.1.0/24", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Prefix(pfx(tt.prefix)); got != tt.want {
				t.Errorf("Prefix(%s) = %q, want %q", tt.prefix, got, tt.want)
			}
			vias, why := p.Rank(nil, pfx(tt.prefix), []Path{from(0, "fd09::4", seq(1))})
			if why != tt.want || (len(vias) == 0) != (tt.want != "") {
				t.Errorf("Rank(%s) = %s, %q, want %q", tt.prefix, show(vias), why, tt.want)
			}
		})
	}
}

// host resolves next hops for the tests: 10.1.0.0/16 is connected, 10.9.0.0/16 leads over
// a link that is down, 10.1.0.1 is the host itself.
func host(extra ...fib.HostRoute) *fib.Resolver {
	return fib.NewResolver(&fib.Host{
		Links: map[int]fib.Link{1: {Up: true, Running: true}, 2: {Up: false}},
		Addrs: []fib.Address{{Prefix: pfx("10.1.0.1/16"), IfIndex: 1}, {Prefix: pfx("fd01::1/64"), IfIndex: 1}},
		Routes: append([]fib.HostRoute{
			{Prefix: pfx("10.1.0.0/16"), Type: 1, Legs: []fib.Leg{{IfIndex: 1}}},
			{Prefix: pfx("10.9.0.0/16"), Type: 1, Legs: []fib.Leg{{IfIndex: 2}}},
			{Prefix: pfx("fd01::/64"), Metric: 256, Type: 1, Legs: []fib.Leg{{IfIndex: 1}}},
		}, extra...),
	})
}

func TestCaptures(t *testing.T) {
	gateway := []fib.Leg{{Gateway: addr("10.1.0.254"), IfIndex: 1}}
	r := host(
		fib.HostRoute{Prefix: pfx("0.0.0.0/0"), Metric: 100, Type: 1, Legs: gateway},
		fib.HostRoute{Prefix: pfx("10.3.0.0/16"), Metric: 100, Type: 1, Legs: gateway},
		fib.HostRoute{Prefix: pfx("10.4.0.0/16"), Metric: 20, Type: 1, Legs: gateway},
	)
	c := NewCaptures([]netip.Addr{
		addr("10.1.0.4"), addr("10.1.0.5"), addr("10.3.0.4"), addr("10.4.0.4"), addr("192.0.2.1"), addr("10.1.0.1"),
		addr("fd01::4"), addr("2001:db8::4"), addr("10.9.0.4"),
	}, 20, r.Resolve)
	for _, tt := range []struct {
		name   string
		prefix string
		want   string // the address that would be captured
	}{
		{"longer than the connected route", "10.1.0.0/24", "10.1.0.4"},
		{"the address itself", "10.1.0.5/32", "10.1.0.5"},
		{"as long, with a worse metric than the connected route's 0", "10.1.0.0/16", ""},
		{"shorter", "10.0.0.0/8", ""},
		{"longer, beside the address", "10.1.1.0/24", ""},
		{"as long as the host's route, with a better metric", "10.3.0.0/16", "10.3.0.4"},
		{"as long as the host's route, with the same metric", "10.4.0.0/16", ""},
		{"longer than it", "10.4.0.0/17", "10.4.0.4"},
		{"the default route, with a better metric than the host's that leads to the address", "0.0.0.0/0", "192.0.2.1"},
		{"anything around what the default route leads to", "192.0.0.0/8", "192.0.2.1"},
		{"an IPv6 prefix as long as the connected one, whose metric is worse", "fd01::/64", "fd01::4"},
		{"what the host cannot reach has nothing to lose", "2001:db8::/32", ""},
		{"the host's own address is served by the local table", "10.1.0.1/32", ""},
		{"a way over a link that is down is protected", "10.9.0.0/24", "10.9.0.4"},
	} {
		t.Run("S21: "+tt.name, func(t *testing.T) {
			got, ok := c[pfx(tt.prefix)]
			if ok != (tt.want != "") || ok && got != addr(tt.want) {
				t.Errorf("captures[%s] = %v, %t, want %q", tt.prefix, got, ok, tt.want)
			}
		})
	}
	other := NewCaptures([]netip.Addr{addr("10.1.0.4"), addr("10.1.0.9")}, 20, host().Resolve)
	again := NewCaptures([]netip.Addr{addr("10.1.0.4")}, 20, host().Resolve)
	changed := other.Changed(again)
	slices.SortFunc(changed, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	if got := fmt.Sprint(changed); got != "[10.1.0.8/29 10.1.0.8/30 10.1.0.8/31 10.1.0.9/32]" {
		t.Errorf("Changed = %s", got)
	}
	if got := again.Changed(other); len(got) != 4 {
		t.Errorf("Changed the other way = %v", got)
	}
	if got := again.Changed(again); len(got) != 0 {
		t.Errorf("Changed with itself = %v", got)
	}
}

func TestJudge(t *testing.T) {
	prefix := pfx("192.168.255.0/24")
	for _, tt := range []struct {
		name   string
		paths  []Path
		states map[fib.Source]fib.SourceState
		max    int
		want   []string // by path: "used", or the reason
	}{
		{name: "S14: both", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2))}, want: []string{"used", "used"}},
		{name: "S13: longer", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2, 3))}, want: []string{"used", "as-path-longer"}},
		{name: "S13: origin", paths: []Path{from(0, "10.1.0.4", seq(1), origin(OriginEGP)), from(1, "10.1.0.5", seq(2))}, want: []string{"origin-worse", "used"}},
		{name: "S13: MED", paths: []Path{from(0, "10.1.0.4", seq(1), med(5)), from(1, "10.1.0.5", seq(2), med(4))}, want: []string{"med-higher", "used"}},
		{name: "S8: own AS", paths: []Path{from(0, "10.1.0.4", seq(localASN)), from(1, "10.1.0.5", seq(0)), from(2, "10.1.0.6", seq(1, 2))}, want: []string{"own-as-in-path", "as-zero-in-path", "used"}},
		{name: "S20: unreachable, and the next best serves", paths: []Path{from(0, "10.8.0.4", seq(1)), from(1, "10.9.0.4", seq(1)), from(2, "10.1.0.6", seq(1, 2))}, want: []string{"next-hop-unreachable", "next-hop-unreachable", "used"}},
		{name: "S21: self", paths: []Path{from(0, "10.1.0.1", seq(1)), from(1, "10.1.0.6", seq(1, 2))}, want: []string{"next-hop-is-self", "used"}},
		{name: "S17: a stale path beside a fresh one", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2))}, states: map[fib.Source]fib.SourceState{0: fib.SourceStale}, want: []string{"stale", "used"}},
		{name: "S17: a stale path alone in the best tier", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2, 3))}, states: map[fib.Source]fib.SourceState{0: fib.SourceStale}, want: []string{"used", "as-path-longer"}},
		{name: "S17: all stale", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2))}, states: map[fib.Source]fib.SourceState{0: fib.SourceStale, 1: fib.SourceStale}, want: []string{"used", "used"}},
		{name: "S17: beside a fresh one that cannot be reached", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.8.0.5", seq(2))}, states: map[fib.Source]fib.SourceState{0: fib.SourceStale}, want: []string{"used", "next-hop-unreachable"}},
		{name: "S24: down", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2, 3))}, states: map[fib.Source]fib.SourceState{0: fib.SourceDown}, want: []string{"peer-down", "used"}},
		{name: "S16: one next hop twice", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.4", seq(2))}, want: []string{"used", "used"}},
		{name: "S14: max-paths", paths: []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2)), from(2, "10.1.0.6", seq(2))}, max: 2, want: []string{"used", "used", "max-paths"}},
		{name: "none can be used", paths: []Path{from(0, "10.8.0.4", seq(1))}, want: []string{"next-hop-unreachable"}},
		{name: "RFC 8950: an IPv6 next hop", paths: []Path{from(0, "fd01::4", seq(1))}, want: []string{"used"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.max == 0 {
				tt.max = 64
			}
			got := judge(prefix, tt.paths, tt.states, tt.max)
			for i, v := range got {
				text := string(v.Reason)
				if v.Used {
					text += "used"
				}
				if text != tt.want[i] {
					t.Errorf("path %d: %s (%s), want %s", i, text, v.Detail, tt.want[i])
				}
				if (v.Detail == "") != (v.Reason == "") {
					t.Errorf("path %d: reason %q with detail %q", i, v.Reason, v.Detail)
				}
			}
		})
	}
}

// judge asks what became of paths in a table of their own.
func judge(prefix netip.Prefix, paths []Path, states map[fib.Source]fib.SourceState, maxPaths int) []Verdict {
	p := Policy{LocalASN: localASN}
	f := fib.NewTable(fib.Options{MaxPaths: maxPaths})
	f.SetResolver(host().Resolve)
	for src, state := range states {
		f.SetSource(src, state)
	}
	vias, _ := p.Rank(nil, prefix, paths)
	f.Set(prefix, vias)
	e, _ := f.Entry(prefix)
	return p.Judge(prefix, paths, e, f.State, host().Resolve)
}

// A prefix that is not installed has no path in use, and those that are best say so.
func TestJudgeRejectedPrefix(t *testing.T) {
	p := Policy{LocalASN: localASN, VNet: []netip.Prefix{pfx("192.168.0.0/16")}}
	paths := []Path{from(0, "10.1.0.4", seq(1)), from(1, "10.1.0.5", seq(2, 3))}
	f := fib.NewTable(fib.Options{MaxPaths: 64})
	got := p.Judge(pfx("192.168.255.0/24"), paths, fib.Entry{}, f.State, host().Resolve)
	if !got[0].Best || got[0].Used || got[0].Reason != "" || got[1].Reason != ASPathLonger {
		t.Errorf("Judge = %+v, want the first best and not used, the second longer", got)
	}
}

// A next hop that the kernel refuses loses to what it takes, and says why.
func TestJudgeRefusedNextHop(t *testing.T) {
	prefix := pfx("192.168.255.0/24")
	p := Policy{LocalASN: localASN}
	paths := []Path{from(0, "10.1.255.255", seq(1)), from(1, "10.1.0.5", seq(2, 3))}
	f := fib.NewTable(fib.Options{Owner: fib.Owner{FirstID: 1, LastID: 100}, MaxPaths: 64})
	f.SetResolver(host().Resolve)
	vias, _ := p.Rank(nil, prefix, paths)
	f.Set(prefix, vias)
	for f.Pending() {
		var refused []fib.OpError
		for i, op := range f.Plan(now, 10) {
			if op.Kind == fib.NextHopAdd && op.Leg.Gateway == addr("10.1.255.255") {
				refused = append(refused, fib.OpError{Index: i, Errno: 22, Text: "Nexthop has invalid gateway"})
			}
		}
		f.Done(now, refused)
	}
	e, _ := f.Entry(prefix)
	got := p.Judge(prefix, paths, e, f.State, host().Resolve)
	if got[0].Reason != Refused || !strings.Contains(got[0].Detail, "Nexthop has invalid gateway") || !got[1].Used || !got[1].Best {
		t.Errorf("Judge = %+v, want the first refused and the second used", got)
	}
}

func TestASPathText(t *testing.T) {
	for _, tt := range []struct {
		path         ASPath
		space, dash  string
		length       int
		contains, no uint32
	}{
		{nil, "", "", 0, 0, 1},
		{seq(65147), "65147", "65147", 1, 65147, 1},
		{seq(65001, 4200000000), "65001 4200000000", "65001-4200000000", 2, 4200000000, 1},
		{ASPath{{ASSequence, []uint32{1, 2}}, {ASSet, []uint32{3, 4}}}, "1 2 {3,4}", "1-2-{3,4}", 3, 4, 5},
		{ASPath{{ASConfedSeq, []uint32{7, 8}}, {ASConfedSet, []uint32{9, 10}}, {ASSequence, []uint32{1}}}, "(7 8) [9,10] 1", "(7 8)-[9,10]-1", 1, 9, 2},
	} {
		if got := tt.path.String(); got != tt.space {
			t.Errorf("String(%v) = %q, want %q", tt.path, got, tt.space)
		}
		if got := tt.path.Join("-"); got != tt.dash {
			t.Errorf("Join(%v, -) = %q, want %q (S32)", tt.path, got, tt.dash)
		}
		if got := tt.path.Len(); got != tt.length {
			t.Errorf("Len(%v) = %d, want %d", tt.path, got, tt.length)
		}
		if len(tt.path) > 0 && !tt.path.Contains(tt.contains) || tt.path.Contains(tt.no) {
			t.Errorf("Contains(%v) is wrong", tt.path)
		}
	}
	for o, want := range map[Origin]string{OriginIGP: "igp", OriginEGP: "egp", OriginIncomplete: "incomplete", 9: "origin-9"} {
		if o.String() != want {
			t.Errorf("Origin(%d) = %q, want %q", uint8(o), o, want)
		}
	}
}
