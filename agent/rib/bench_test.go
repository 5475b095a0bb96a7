package rib

import (
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

func nth(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 0}), 24)
}

func BenchmarkRank(b *testing.B) {
	p := Policy{
		LocalASN: localASN, VNet: []netip.Prefix{pfx("10.1.0.0/16"), pfx("10.2.0.0/16")},
		Captures: NewCaptures([]netip.Addr{addr("10.1.0.4"), addr("10.1.0.5")}, 20, host().Resolve),
	}
	for _, bm := range []struct {
		name  string
		paths int
	}{{"2 paths", 2}, {"8 paths", 8}, {"64 paths", 64}} {
		b.Run(bm.name, func(b *testing.B) {
			var paths []Path
			for i := range bm.paths {
				paths = append(paths, from(fib.Source(i), "10.1.0.4", seq(65147, 65001, 65002)))
			}
			var vias []fib.Via
			b.ReportAllocs()
			for b.Loop() {
				vias, _ = p.Rank(vias[:0], pfx192, paths)
			}
		})
	}
}

var pfx192 = pfx("192.168.255.0/24")

// BenchmarkTableLoad is the way in: two sources announce 100,000 prefixes, which are
// ranked, and withdraw them. Figures are per prefix.
func BenchmarkTableLoad(b *testing.B) {
	const n = 100_000
	policy := Policy{LocalASN: localASN}
	attrs := []*Attrs{{NextHop: addr("10.1.0.4"), ASPath: seq(65147)}, {NextHop: addr("10.1.0.5"), ASPath: seq(65147)}}
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		tab := NewTable()
		var batch []Changed
		var vias []fib.Via
		drain := func() {
			for tab.Dirty() > 0 {
				batch = tab.Next(batch[:0], 2048)
				for _, c := range batch {
					vias, _ = policy.Rank(vias[:0], c.Prefix, c.Paths)
				}
			}
		}
		changes := make([]Change, 500)
		for _, with := range []bool{true, false} {
			for src := range fib.Source(2) {
				for at := 0; at < n; at += len(changes) {
					for j := range changes {
						changes[j] = Change{Prefix: nth(at + j)}
						if with {
							changes[j].Attrs = attrs[src]
						}
					}
					tab.Update(src, changes, 1)
				}
			}
			drain()
		}
	}
}
