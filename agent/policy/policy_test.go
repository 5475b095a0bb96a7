package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/rib"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRange(t *testing.T) {
	for _, tt := range []struct{ text, in, out, written string }{
		{"10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9 10.0.0.0/7 11.0.0.0/8 ::/8", ""},
		{"10.0.0.0/8 le 24", "10.0.0.0/8 10.1.2.0/24", "10.1.2.0/25 10.0.0.0/7", ""},
		{"10.0.0.0/8 ge 16", "10.1.0.0/16 10.1.2.3/32", "10.0.0.0/15 10.0.0.0/8 11.1.0.0/16", ""},
		{"10.0.0.0/8 ge 16 le 24", "10.1.0.0/16 10.1.2.0/24", "10.0.0.0/15 10.1.2.0/25", ""},
		{"10.0.0.0/8 le 24 ge 16", "10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8 ge 16 le 24"},
		{"10.0.0.0/8 ge 8", "10.0.0.0/8 10.1.2.3/32", "0.0.0.0/0", "10.0.0.0/8 le 32"},
		{"10.0.0.0/8 le 8", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/8"},
		{"10.0.0.0/8 ge 32", "10.1.2.3/32", "10.1.2.2/31", ""},
		{"0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/1 ::/0", ""},
		{"0.0.0.0/0 le 32", "0.0.0.0/0 255.255.255.255/32", "::/0 2001:db8::/32", ""},
		{"::/0 ge 128", "2001:db8::1/128", "::/0 10.0.0.1/32", ""},
		{"2001:db8::/32 le 48", "2001:db8::/32 2001:db8:1::/48", "2001:db8:1::/49 2001:db9::/48", ""},
	} {
		r := must(ParseRange(tt.text))
		for _, p := range strings.Fields(tt.in) {
			if !r.Contains(pfx(p)) {
				t.Errorf("%s does not contain %s", tt.text, p)
			}
		}
		for _, p := range strings.Fields(tt.out) {
			if r.Contains(pfx(p)) {
				t.Errorf("%s contains %s", tt.text, p)
			}
		}
		if want := strings.TrimSpace(tt.written); want == "" && r.String() != tt.text || want != "" && r.String() != want {
			t.Errorf("%s is written %s", tt.text, r)
		}
	}
	for _, bad := range []string{"", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/8 ge", "10.0.0.0/8 ge x", "10.0.0.0/8 16", "10.0.0.0/8 ge 7",
		"10.0.0.0/8 le 33", "10.0.0.0/8 ge 24 le 16", "10.0.0.0/8 le 16 le 24", "10.0.0.0/8 ge 016", "::ffff:10.0.0.0/104", "10.0.0.0/33"} {
		if r, err := ParseRange(bad); err == nil {
			t.Errorf("ParseRange(%q) = %s", bad, r)
		}
	}
}

// A long list finds what a short one finds.
func TestRangesIndex(t *testing.T) {
	var list []Range
	for _, s := range []string{"10.0.0.0/8 ge 16 le 20", "10.1.0.0/16", "10.1.0.0/16 ge 30", "0.0.0.0/0", "2001:db8::/32 le 48", "192.168.0.0/16 le 24"} {
		list = append(list, must(ParseRange(s)))
	}
	for i := range 40 {
		list = append(list, must(ParseRange(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24).String())))
	}
	short, long := NewRanges(list[:6]), NewRanges(list)
	if short.index != nil || long.index == nil {
		t.Fatal("the short list has an index, or the long one none")
	}
	for _, p := range strings.Fields("10.0.0.0/8 10.0.0.0/16 10.1.0.0/16 10.1.0.0/21 10.1.2.0/30 10.2.0.0/20 10.2.0.0/21 0.0.0.0/0 0.0.0.0/1 2001:db8:1::/48 2001:db8::/49 192.168.3.0/24 192.168.3.0/25") {
		if got, want := long.Contain(pfx(p)), short.Contain(pfx(p)); got != want {
			t.Errorf("%s: %v with the index, %v without", p, got, want)
		}
	}
	if !long.Contain(pfx("172.16.39.0/24")) || long.Contain(pfx("172.16.40.0/24")) || long.Contain(pfx("172.16.0.0/16")) {
		t.Error("the last of the list is not found, or one that is not in it is")
	}
}

func path(text string) rib.ASPath {
	var p rib.ASPath
	for _, word := range strings.Fields(text) {
		kind, body := uint8(rib.ASSequence), word
		switch word[0] {
		case '{':
			kind, body = rib.ASSet, strings.Trim(word, "{}")
		case '(':
			kind, body = rib.ASConfedSeq, strings.Trim(word, "()")
		case '[':
			kind, body = rib.ASConfedSet, strings.Trim(word, "[]")
		}
		var asns []uint32
		for n := range strings.SplitSeq(body, ",") {
			var v uint32
			for _, d := range n {
				v = v*10 + uint32(d-'0')
			}
			asns = append(asns, v)
		}
		if last := len(p) - 1; kind == rib.ASSequence && last >= 0 && p[last].Type == kind {
			p[last].ASNs = append(p[last].ASNs, asns...)
			continue
		}
		p = append(p, rib.Segment{Type: kind, ASNs: asns})
	}
	return p
}

func TestASPath(t *testing.T) {
	regexps := map[string][2]string{ // what matches; what doesn't
		"^65001_":          {"65001|65001 65002", "|65002 65001|650011|{65001} 65002"},
		"_65001_":          {"65001|65002 65001 65003|65002 {65001,65003}|65002 {65003,65001}", "|165001|650010"},
		"_65001$":          {"65001|65002 65001", "65001 65002|65002 {65001}"},
		"^$":               {"", "65001"},
		"^65001(_65001)*$": {"65001|65001 65001", "65001 65002"},
		"_6500[12]_":       {"65002 7", "65003"},
		".*":               {"|1", ""},
	}
	for text, c := range regexps {
		check(t, must(ParseRegexp(text)), c[0], c[1])
	}
	for _, tt := range []struct {
		p       Pattern
		in, out string
	}{
		{Pattern{Contains: 65001}, "65001|65002 {65001}|65002 65001 7", "|165001|65002"},
		{Pattern{Starts: 65001}, "65001|65001 2", "2 65001|{65001}|(65001) 2|"},
		{Pattern{Ends: 65001}, "65001|2 65001", "65001 2|2 {65001}|"},
		{Pattern{Contains: 2, Starts: 1, Ends: 3}, "1 2 3|1 9 2 3", "1 3|2 3|1 2|2 1 3"},
		{Pattern{Length: Length{"eq", 2}}, "1 2|1 {2,3}|(9) 1 2", "1|1 2 3|"},
		{Pattern{Length: Length{"ge", 2}}, "1 2|1 2 3", "1|"},
		{Pattern{Length: Length{"le", 1}}, "|1|{1,2,3}", "1 2"},
		{Pattern{Length: Length{"eq", 0}}, "|(1)", "1"},
	} {
		check(t, tt.p, tt.in, tt.out)
	}
	for _, bad := range []string{"", "(", "[", "a{2000}"} {
		if _, err := ParseRegexp(bad); err == nil {
			t.Errorf("ParseRegexp(%q) has no error", bad)
		}
	}
}

func check(t *testing.T, p Pattern, in, out string) {
	t.Helper()
	for text := range strings.SplitSeq(in, "|") {
		if !p.Matches(path(text)) {
			t.Errorf("%s does not match %q", p, text)
		}
	}
	if out == "" {
		return
	}
	for text := range strings.SplitSeq(out, "|") {
		if p.Matches(path(text)) {
			t.Errorf("%s matches %q", p, text)
		}
	}
}

func TestCommunity(t *testing.T) {
	for text, want := range map[string]uint32{"65147:100": 65147<<16 | 100, "0:0": 0, "no-export": 0xffffff01, "blackhole": 0xffff029a, "graceful-shutdown": 0xffff0000} {
		c := must(ParseCommunity(text))
		if v, one := c.Value(); v != want || !one || !c.Matches(want) || c.Matches(want+1) {
			t.Errorf("ParseCommunity(%q) = %s", text, c)
		}
	}
	if c := must(ParseCommunity("65147:*")); !c.Matches(65147<<16|5) || c.Matches(65148<<16|5) {
		t.Errorf("%s matches the wrong ones", c)
	}
	if c := must(ParseLargeCommunity("1:*:3")); !c.Matches([3]uint32{1, 9, 3}) || c.Matches([3]uint32{1, 9, 4}) {
		t.Errorf("%s matches the wrong ones", c)
	}
	for _, bad := range []string{"", "1", "1:2:3", "65536:1", "1:65536", "a:b", "01:2", "-1:2", "no-way"} {
		if c, err := ParseCommunity(bad); err == nil {
			t.Errorf("ParseCommunity(%q) = %s", bad, c)
		}
	}
	for _, bad := range []string{"1:2", "1:2:3:4", "1:2:4294967296"} {
		if c, err := ParseLargeCommunity(bad); err == nil {
			t.Errorf("ParseLargeCommunity(%q) = %s", bad, c)
		}
	}
}

// The first rule that matches decides, and says so; all conditions of it must hold.
func TestApply(t *testing.T) {
	attrs := &rib.Attrs{NextHop: netip.MustParseAddr("10.1.0.4"), ASPath: path("65147 65001"), Communities: []uint32{65147<<16 | 1}, LargeCommunities: [][3]uint32{{1, 2, 3}}}
	private := NewRanges([]Range{must(ParseRange("10.0.0.0/8 le 32"))})
	hop := []netip.Addr{netip.MustParseAddr("10.1.0.4")}
	ours := []Community{must(ParseCommunity("65147:*"))}
	f := &Filter{Default: Reject, Rules: []Rule{
		{Name: "v6", Match: Match{Family: IPv6}, Action: Accept},
		{Name: "all-of-it", Match: Match{Prefixes: private, Communities: ours, NextHops: hop, Large: []LargeCommunity{must(ParseLargeCommunity("1:2:3"))},
			ASPaths: []Pattern{{Ends: 7}, {Ends: 65001}}}, Action: Accept, Set: Set{LocalPref: 200}},
		{Name: "private", Match: Match{Prefixes: private}, Action: Reject},
		{Name: "hop", Match: Match{NextHops: hop, Prefixes: NewRanges([]Range{must(ParseRange("192.168.0.0/16 le 32"))})}, Action: Accept},
	}}
	f.Compile()
	other := *attrs
	other.Communities = nil
	for _, tt := range []struct {
		prefix string
		attrs  *rib.Attrs
		rule   int
		ok     bool
		text   string
	}{
		{"2001:db8::/32", attrs, 0, true, `rule "v6" (ipv6)`},
		{"10.1.0.0/16", attrs, 1, true, `rule "all-of-it" (prefix 10.0.0.0/8 le 32, next-hop 10.1.0.4, community 65147:*, large-community 1:2:3, as-path {ends: 7} or {ends: 65001}: set local-pref 200)`},
		{"10.1.0.0/16", &other, 2, false, `rule "private" (prefix 10.0.0.0/8 le 32)`},
		{"192.168.1.0/24", attrs, 3, true, `rule "hop" (prefix 192.168.0.0/16 le 32, next-hop 10.1.0.4)`},
		{"172.16.0.0/12", attrs, -1, false, "no rule matches, and the default is reject"},
	} {
		v := f.Apply(pfx(tt.prefix), tt.attrs)
		if v.Rule != tt.rule || v.Accepted != tt.ok || v.Text != tt.text {
			t.Errorf("%s: %+v, want rule %d, accepted %v, %s", tt.prefix, v, tt.rule, tt.ok, tt.text)
		}
	}
	if v := f.Apply(pfx("10.1.0.0/16"), attrs); v.Attrs.LocalPref != 200 || attrs.LocalPref != 0 {
		t.Errorf("local-pref %d, of what was given %d", v.Attrs.LocalPref, attrs.LocalPref)
	}
}

func TestSet(t *testing.T) {
	base := rib.Attrs{NextHop: netip.MustParseAddr("10.1.0.4"), ASPath: path("65147 65001"), Communities: []uint32{1<<16 | 1, 2<<16 | 2}, LargeCommunities: [][3]uint32{{1, 1, 1}}}
	one := func(s string) []Community { return []Community{must(ParseCommunity(s))} }
	large := func(s string) []LargeCommunity { return []LargeCommunity{must(ParseLargeCommunity(s))} }
	for _, tt := range []struct {
		name, prefix string
		set          Set
		want         func(*rib.Attrs)
	}{
		{"nothing", "10.0.0.0/8", Set{}, func(*rib.Attrs) {}},
		{"med 0", "10.0.0.0/8", Set{HasMED: true}, func(a *rib.Attrs) { a.HasMED = true }},
		{"prepend", "10.0.0.0/8", Set{Prepend: 2}, func(a *rib.Attrs) { a.ASPath = path("65147 65147 65147 65001") }},
		{"next hop", "10.0.0.0/8", Set{NextHop: netip.MustParseAddr("10.1.0.9")}, func(a *rib.Attrs) { a.NextHop = netip.MustParseAddr("10.1.0.9") }},
		{"next hop of the other family", "2001:db8::/32", Set{NextHop: netip.MustParseAddr("10.1.0.9")}, func(*rib.Attrs) {}},
		{"what is removed goes first", "10.0.0.0/8", Set{Remove: one("1:*"), Add: one("1:1")}, func(a *rib.Attrs) { a.Communities = []uint32{2<<16 | 2, 1<<16 | 1} }},
		{"large", "10.0.0.0/8", Set{RemoveLarge: large("*:*:*"), AddLarge: large("9:9:9")}, func(a *rib.Attrs) { a.LargeCommunities = [][3]uint32{{9, 9, 9}} }},
	} {
		a, want := base, base
		tt.want(&want)
		got := tt.set.apply(pfx(tt.prefix), &a)
		if g, w := show(got), show(&want); g != w || show(&a) != show(&base) {
			t.Errorf("%s: %s, want %s (what was given: %s)", tt.name, g, w, show(&a))
		}
	}
	for in, want := range map[string]string{"": "", "{1,2} 3": "{1,2} 3", "0 1": "0 1"} {
		if got := prepend(path(in), 3).String(); got != want {
			t.Errorf("prepend to %q: %q", in, got)
		}
	}
	long := rib.ASPath{{Type: rib.ASSequence, ASNs: make([]uint32, 254)}}
	for i := range long[0].ASNs {
		long[0].ASNs[i] = 7
	}
	if got := prepend(long, 3); len(got) != 2 || got.Len() != 257 || len(got[1].ASNs) != 255 {
		t.Errorf("a segment of %d and one of %d", len(got[0].ASNs), len(got[len(got)-1].ASNs))
	}
}

func show(a *rib.Attrs) string {
	var s strings.Builder
	for _, c := range a.LargeCommunities {
		s.WriteString(LargeCommunity{[3]part{{n: c[0]}, {n: c[1]}, {n: c[2]}}}.String() + " ")
	}
	for _, c := range a.Communities {
		s.WriteString(exactly(c).String() + " ")
	}
	return s.String() + a.NextHop.String() + " " + a.ASPath.String() + " " + map[bool]string{true: "med"}[a.HasMED]
}

// FuzzParse: no text panics; what is read is written so that it reads the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8 ge 16 le 24", "::/0 le 128", "65147:*", "no-export", "1:*:3", "^65001_", "ge 3", "le", "0.0.0.0/0 ge 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseRange(text); err == nil {
			if again, err := ParseRange(r.String()); err != nil || again != r || !r.Contains(netip.PrefixFrom(r.Prefix.Addr(), r.Min)) {
				t.Errorf("%q: %+v, written %s, read %+v, %v", text, r, r, again, err)
			}
		}
		if c, err := ParseCommunity(text); err == nil {
			if again, err := ParseCommunity(c.String()); err != nil || again != c {
				t.Errorf("%q: %+v, read again %+v, %v", text, c, again, err)
			}
		}
		if c, err := ParseLargeCommunity(text); err == nil {
			if again, err := ParseLargeCommunity(c.String()); err != nil || again != c {
				t.Errorf("%q: %+v, read again %+v, %v", text, c, again, err)
			}
		}
		if l, err := ParseLength(text); err == nil {
			if again, err := ParseLength(l.String()); err != nil || again != l {
				t.Errorf("%q: %+v, read again %+v, %v", text, l, again, err)
			}
		}
		if p, err := ParseRegexp(text); err == nil {
			p.Matches(path("65147 {1,2}"))
		}
	})
}
