package bgp

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// counter is a Handler that costs nothing.
type counter struct{ paths atomic.Int64 }

func (c *counter) Learned(_ netip.Addr, changes []rib.Change) {
	n := int64(0)
	for _, ch := range changes {
		if ch.Attrs != nil {
			n++
		} else {
			n--
		}
	}
	c.paths.Add(n)
}

func (c *counter) EndOfRIB(netip.Addr, Family) {}
func (c *counter) Session(SessionEvent)        {}

func manyPrefixes(n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 0}), 24)
	}
	return list
}

// BenchmarkLearn is GoBGP and the conversion together: one operation is 100,000 prefixes
// of one peer, learned and, with a second peer, announced on; then the session is lost.
func BenchmarkLearn(b *testing.B) {
	const n = 100_000
	for _, others := range []int{0, 1} {
		for _, per := range []int{700, 10} {
			b.Run(fmt.Sprintf("others=%d/prefixes-per-update=%d", others, per), func(b *testing.B) {
				var learn, lose, early time.Duration
				var mallocs uint64
				for b.Loop() {
					b.StopTimer()
					c := &counter{}
					var lost atomic.Int64
					s, _, _ := startSpeaker(b, func(o *Options) {
						o.Handler = c
						o.Logger = nil
						o.OnPeerDown = func(netip.Addr, bool) { lost.Store(time.Now().UnixNano()) }
					})
					mustAdd(b, s, peerConf(4, 65147), peerConf(5, 65148))
					f := connect(b, peerAddr(4), fakeOptions{asn: 65147, noRestart: true})
					var g *fake
					if others > 0 {
						g = connect(b, peerAddr(5), fakeOptions{asn: 65148, noRestart: true})
						time.Sleep(2 * gapAfter) // so that nothing is sent twice
					}
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					b.StartTimer()
					start := time.Now()
					for batch := range slices.Chunk(manyPrefixes(n), per) {
						f.announceAll(announce{asPath: "65147", nextHop: "10.1.0.4"}, batch)
					}
					within(b, time.Minute, "all learned", func() bool {
						return c.paths.Load() == n && (g == nil || g.routes() == n)
					})
					learn += time.Since(start)
					b.StopTimer()
					runtime.ReadMemStats(&after)
					mallocs += after.Mallocs - before.Mallocs
					start = time.Now()
					f.conn.Close()
					within(b, time.Minute, "all withdrawn", func() bool {
						return c.paths.Load() == 0 && (g == nil || g.routes() == 0)
					})
					lose += time.Since(start)
					early += time.Unix(0, lost.Load()).Sub(start)
					s.Stop(b.Context(), false)
					b.StartTimer()
				}
				b.ReportMetric(float64(learn.Nanoseconds())/float64(b.N)/n, "ns/path")
				b.ReportMetric(float64(mallocs)/float64(b.N)/n, "allocs/path")
				b.ReportMetric(float64(lose.Milliseconds())/float64(b.N), "ms-to-lose")
				b.ReportMetric(float64(early.Microseconds())/float64(b.N), "us-to-OnPeerDown")
			})
		}
	}
}

// BenchmarkConvert is the conversion alone, for one UPDATE of 700 prefixes.
func BenchmarkConvert(b *testing.B) {
	hop, _ := bgp.NewPathAttributeNextHop(netip.MustParseAddr("10.1.0.4"))
	attrs := []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0),
		bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65147, 65001})}),
		hop,
	}
	var paths []*apiutil.Path
	for _, p := range manyPrefixes(700) {
		paths = append(paths, &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: mustNLRI(p), Attrs: slices.Clone(attrs), PeerAddress: peerAddr(4)})
	}
	s := New(Options{Handler: &counter{}})
	s.ctx = b.Context()
	s.peers[peerAddr(4)] = &peer{}
	b.ReportAllocs()
	for b.Loop() {
		s.onPaths(paths, time.Time{})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(paths)), "ns/path")
}
