package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/rib"
)

// chooser makes rules and paths of a small world, so that they meet often.
type chooser struct{ *rand.Rand }

func pick[V any](c chooser, list ...V) V { return list[c.IntN(len(list))] }

// some returns up to three of what f makes, and often nothing.
func some[V any](c chooser, f func() V) (list []V) {
	for range max(0, c.IntN(6)-2) {
		list = append(list, f())
	}
	return list
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func (c chooser) prefix() netip.Prefix {
	if c.IntN(4) == 0 {
		return must(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(c.IntN(2)), byte(c.IntN(3))}).Prefix(32 + c.IntN(33)))
	}
	return must(netip.AddrFrom4([4]byte{byte(11 + c.IntN(2)), byte(c.IntN(3)), byte(c.IntN(3) * 64), 0}).Prefix(8 + c.IntN(19)))
}

func (c chooser) rng() policy.Range {
	p := c.prefix()
	p = must(p.Addr().Prefix(p.Bits() / 2 * pick(c, 1, 1, 2)))
	r := policy.Range{Prefix: p, Min: p.Bits() + c.IntN(5)}
	r.Max = min(r.Min+c.IntN(20), p.Addr().BitLen())
	return r
}

func (c chooser) community() policy.Community {
	return must(policy.ParseCommunity(pick(c, "1:1", "1:2", "2:1", "1:*", "*:2", "*:*", "65147:100")))
}

func (c chooser) large() policy.LargeCommunity {
	return must(policy.ParseLargeCommunity(pick(c, "1:1:1", "1:2:3", "1:*:3", "*:*:*", "*:2:*", "4294967295:*:1")))
}

func (c chooser) pattern() policy.Pattern {
	if c.IntN(2) == 0 {
		return must(policy.ParseRegexp(pick(c, "^65147_", "_65001_", "_65001$", "^65147$", "_6500[12]_", "^65147( 65147)+$", "{", "65001-65002", ".", "_(65002|65003)$", "5100")))
	}
	asn := func() uint32 { return pick[uint32](c, 0, 0, 65147, 65001, 65002, 65003) }
	p := policy.Pattern{Contains: asn(), Starts: asn(), Ends: asn()}
	if c.IntN(2) == 0 || p == (policy.Pattern{}) {
		p.Length = policy.Length{Op: pick(c, "eq", "ge", "le"), N: 1 + c.IntN(5)}
	}
	return p
}

func (c chooser) filter(export bool) *policy.Filter {
	f := &policy.Filter{Default: pick(c, policy.Accept, policy.Accept, policy.Reject)}
	for i := range c.IntN(5) {
		r := policy.Rule{Name: fmt.Sprint(i), Action: pick(c, policy.Accept, policy.Reject)}
		r.Match = policy.Match{
			Prefixes:    policy.NewRanges(some(c, c.rng)),
			Communities: some(c, c.community), Large: some(c, c.large), ASPaths: some(c, c.pattern),
			NextHops: some(c, func() netip.Addr {
				return netip.MustParseAddr(pick(c, "10.1.0.4", "10.1.0.9", "fd00:1::4"))
			}),
			Family: pick(c, "", "", policy.IPv4, policy.IPv6),
		}
		if r.Action == policy.Accept && c.IntN(3) > 0 {
			single := func() policy.Community { return must(policy.ParseCommunity(pick(c, "1:2", "65515:7"))) }
			r.Set = policy.Set{
				Prepend: c.IntN(3), Add: some(c, single), Remove: some(c, c.community), RemoveLarge: some(c, c.large),
				AddLarge: some(c, func() policy.LargeCommunity {
					return must(policy.ParseLargeCommunity(pick(c, "1:2:3", "9:9:9")))
				}),
				NextHop: pick(c, netip.Addr{}, netip.Addr{}, netip.MustParseAddr("10.1.0.77"), netip.MustParseAddr("fd00:1::77")),
			}
			r.Set.HasMED, r.Set.MED = c.IntN(3) == 0, c.Uint32N(5)
			if !export && c.IntN(3) == 0 {
				r.Set.LocalPref = 1 + c.Uint32N(300)
			}
		}
		f.Rules = append(f.Rules, r)
	}
	f.Compile()
	return f
}

func (c chooser) path(p netip.Prefix) announce {
	a := announce{prefixes: []string{p.String()}, nextHop: pick(c, "10.1.0.4", "10.1.0.9", "10.9.3.3"), origin: uint8(c.IntN(3)), med: c.IntN(3)}
	if p.Addr().Is6() {
		a.nextHop = pick(c, "fd00:1::4", "fd00:2::4")
	}
	a.asPath = strings.Join(append([]string{"65147"}, some(c, func() string {
		return pick(c, "65147", "65001", "65002", "165001", "{65001,65003}", "{65002}")
	})...), " ")
	a.communities = some(c, func() uint32 { return pick[uint32](c, 1<<16|1, 1<<16|2, 2<<16|1, 65147<<16|100, 1<<16|11) })
	a.large = some(c, func() [3]uint32 { return pick(c, [3]uint32{1, 1, 1}, [3]uint32{1, 2, 3}, [3]uint32{1, 4000000000, 3}) })
	return a
}

// written writes attributes as a peer sees them.
func written(asPath string, hop netip.Addr, origin, med string, communities []uint32, large []string) string {
	slices.Sort(communities)
	slices.Sort(large)
	return fmt.Sprintf("%s via %s [%s] med %s %v %v", asPath, hop, origin, med, communities, large)
}

func (f *fake) all() map[netip.Prefix]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[netip.Prefix]string{}
	for p, r := range f.table {
		out[p] = written(r.asPath, r.nextHop, r.origin, r.med, slices.Clone(r.communities), slices.Clone(r.large))
	}
	return out
}

// announced is what we expect of attributes that pass a filter to a peer; sent is false
// where the filter stops them.
func announced(p netip.Prefix, a *rib.Attrs, export *policy.Filter) (text string, sent bool) {
	out := *a
	out.HasMED = false // RFC 4271 section 5.1.4
	out.ASPath = append(rib.ASPath{{Type: rib.ASSequence, ASNs: append([]uint32{ourASN}, a.ASPath[0].ASNs...)}}, a.ASPath[1:]...)
	if export != nil {
		v := export.Apply(p, &out)
		if !v.Accepted {
			return "", false
		}
		out = *v.Attrs
	}
	med := "-"
	if out.HasMED {
		med = fmt.Sprint(out.MED)
	}
	var large []string
	for _, l := range out.LargeCommunities {
		large = append(large, fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]))
	}
	return written(out.ASPath.String(), out.NextHop, out.Origin.String(), med, slices.Clone(out.Communities), large), true
}

// GoBGP decides what others hear by the rules that decide what the kernel gets: whatever
// the rules and the paths, it reads them as agent/policy does. Each round changes the
// filters of running sessions, which must not reset them.
func TestFiltersAreReadAlike(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	c := chooser{rand.New(rand.NewPCG(seed, 0))}
	s, r, _ := startSpeaker(t, nil)
	from, filtered := peerConf(4, 65147), peerConf(5, 65148)
	mustAdd(t, s, from, filtered, peerConf(6, 65149))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	plain := connect(t, peerAddr(6), fakeOptions{asn: 65149})
	var prefixes []netip.Prefix
	for len(prefixes) < 150 {
		if p := c.prefix(); !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
			a.announce(c.path(p))
		}
	}
	eventually(t, "what a announces", func() bool { return r.count(peerAddr(4)) == len(prefixes) })
	for round := range 25 {
		if round > 0 {
			from.Import, filtered.Export = c.filter(false), c.filter(true)
		}
		if err := s.UpdatePeer(from); err != nil {
			t.Fatal(err)
		}
		if err := s.UpdatePeer(filtered); err != nil {
			t.Fatal(err)
		}
		want := map[*fake]map[netip.Prefix]string{b: {}, plain: {}}
		for _, p := range prefixes {
			at := r.path(peerAddr(4), p.String())
			if from.Import != nil {
				if at, _ = from.Import.Import(p, at); at == nil {
					continue
				}
			}
			for f, export := range map[*fake]*policy.Filter{b: filtered.Export, plain: nil} {
				if text, sent := announced(p, at, export); sent {
					want[f][p] = text
				}
			}
		}
		for f, name := range map[*fake]string{b: "the peer with the export filter", plain: "the other peer"} {
			deadline := time.Now().Add(time.Minute)
			for !equalMaps(f.all(), want[f]) {
				if time.Sleep(5 * time.Millisecond); time.Now().After(deadline) {
					report(t, name, f.all(), want[f])
					t.Fatalf("%d of %d, seed %d, round %d\nimport: %s\nexport: %s", len(f.all()), len(want[f]), seed, round, from.Import, filtered.Export)
				}
			}
		}
	}
	if a.isClosed() || b.isClosed() || plain.isClosed() {
		t.Error("a change of a filter reset a session")
	}
}

func equalMaps(a, b map[netip.Prefix]string) bool {
	if len(a) != len(b) {
		return false
	}
	for p, x := range a {
		if b[p] != x {
			return false
		}
	}
	return true
}

func report(t *testing.T, name string, got, want map[netip.Prefix]string) {
	n := 0
	for p, x := range want {
		if got[p] != x && n < 5 {
			t.Errorf("%s at %s:\ngot  %q\nwant %q", p, name, got[p], x)
			n++
		}
	}
	for p, x := range got {
		if _, ok := want[p]; !ok && n < 5 {
			t.Errorf("%s at %s:\ngot  %q\nwant nothing", p, name, x)
			n++
		}
	}
}
