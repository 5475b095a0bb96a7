package bgp

import (
	"fmt"
	"net/netip"
	"testing"
)

// S25: a stop after which the peers are to keep everything withdraws from none of them what
// another one announced, though GoBGP takes its peers away one by one.
func TestStopWithdrawsNothing(t *testing.T) {
	const peers, each = 3, 2000
	s, r, _ := startSpeaker(t, nil)
	var fakes []*fake
	for n := range peers {
		mustAdd(t, s, peerConf(4+n, uint32(65100+n)))
		f := connect(t, peerAddr(4+n), fakeOptions{asn: uint32(65100 + n)})
		prefixes := make([]netip.Prefix, each)
		for i := range prefixes {
			prefixes[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + n), byte(i >> 8), byte(i), 0}), 24)
		}
		f.announceAll(announce{asPath: fmt.Sprint(65100 + n), nextHop: peerAddr(4 + n).String()}, prefixes)
		fakes = append(fakes, f)
	}
	for n, f := range fakes {
		eventually(t, "all routes", func() bool { return f.routes() == (peers-1)*each && r.count(peerAddr(4+n)) == each })
	}
	s.Stop(t.Context(), true)
	for n, f := range fakes {
		eventually(t, "the end of the connection", f.isClosed)
		if got, heard := f.routes(), f.received(); got != (peers-1)*each || heard != "" {
			t.Errorf("peer %d: %d routes left, NOTIFICATION %q; want all %d, and none", n, got, heard, (peers-1)*each)
		}
	}
}
