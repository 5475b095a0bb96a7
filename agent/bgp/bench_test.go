package bgp

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
				var learn, lose, early, destroyed time.Duration
				var mallocs uint64
				for b.Loop() {
					b.StopTimer()
					c := &counter{}
					var lost atomic.Int64
					s, _, _ := startSpeaker(b, func(o *Options) {
						o.Handler = c
						o.Logger = nil
						o.OnPeerDown = func(netip.Addr, DownReason, bool) { lost.Store(time.Now().UnixNano()) }
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
					gone := socketsGone(b)
					start = time.Now()
					f.conn.Close()
					within(b, time.Minute, "all withdrawn", func() bool {
						return c.paths.Load() == 0 && (g == nil || g.routes() == 0)
					})
					lose += time.Since(start)
					early += time.Unix(0, lost.Load()).Sub(start)
					destroyed += (<-gone).Sub(start)
					s.Stop(b.Context(), false)
					b.StartTimer()
				}
				b.ReportMetric(float64(learn.Nanoseconds())/float64(b.N)/n, "ns/path")
				b.ReportMetric(float64(mallocs)/float64(b.N)/n, "allocs/path")
				b.ReportMetric(float64(lose.Milliseconds())/float64(b.N), "ms-to-lose")
				b.ReportMetric(float64(early.Microseconds())/float64(b.N), "us-to-OnPeerDown")
				b.ReportMetric(float64(destroyed.Microseconds())/float64(b.N), "us-to-destroy")
			})
		}
	}
}

// socketsGone tells when the kernel next reports the end of a TCP socket with a peer's
// session (sock_diag(7), SKNLGRP_INET_TCP_DESTROY): the signal that OnPeerDown is
// compared with in docs/adr.
func socketsGone(b *testing.B) <-chan time.Time {
	b.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << 0})
	}
	if err != nil {
		b.Fatal(err)
	}
	at := make(chan time.Time, 1)
	go func() {
		defer unix.Close(fd)
		var buf [1024]byte
		for {
			n, _, err := unix.Recvfrom(fd, buf[:], 0)
			now := time.Now()
			// struct inet_diag_msg after the netlink header: the ports begin at byte 4.
			if err != nil || n > 22 && (buf[20] == 0 && buf[21] == 179) {
				at <- now
				return
			}
		}
	}()
	return at
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
