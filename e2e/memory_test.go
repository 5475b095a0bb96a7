package e2e_test

import (
	"fmt"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// What a peer's paths cost in memory, the figures of docs/resources.md: they bound what
// a peer can take, with its limit of prefixes. In a daemon that is at rest, after a
// garbage collection.
func TestMemoryOfPaths(t *testing.T) {
	b := newSeed(t, 4)
	peers := "peers:\n"
	for i := range 4 {
		peers += peer(fmt.Sprintf("nva%d", i+1), lab.SeedNVA(i), 65147+uint32(i), "passive: true")
	}
	d, err := lab.StartDaemon(within(t), b.Host, hostConfig+peers, "--pprof", pprofAt)
	must(t, err)
	b.d = d
	var sessions []*nva.Session
	for i := range 4 {
		o := nva4(i)
		o.ASN, o.IgnoreUpdates = 65147+uint32(i), true
		sessions = append(sessions, b.dial(t, b.NVAs[i], o))
	}
	const n = 3_900 // within the limit of a peer
	list := prefixes(nva.IPv4, 2*n+800)
	base := b.restingUsage(t)
	step := func(name string, most, paths int, send func()) {
		t.Helper()
		want := b.received(t) + paths
		send()
		poll(t, name, func() error {
			var st status.Status
			if err := b.d.Get(within(t), status.PathStatus, &st); err != nil {
				return err
			}
			if got := b.received(t); got != want || st.FIB.Desired != st.FIB.Installed {
				return fmt.Errorf("%d paths of %d, %d routes of %d", got, want, st.FIB.Installed, st.FIB.Desired)
			}
			return nil
		})
		now := b.restingUsage(t)
		per := (now.heapKB - base.heapKB) << 10 / paths
		t.Logf("%s: %d octets a path, %v", name, per, now)
		if per > most {
			t.Errorf("%s: %d octets a path, at most %d are documented", name, per, most)
		}
		base = now
	}
	step("a new prefix", 3000, n, func() { announce(t, sessions[0], nva.Attrs{ASPath: nva.Seq(65147)}, list[:n]...) })
	step("a second path for it", 2000, n, func() { announce(t, sessions[1], nva.Attrs{ASPath: nva.Seq(65148)}, list[:n]...) })
	step("a new prefix with attributes of its own", 4000, n, func() {
		for i, p := range list[n : 2*n] {
			announce(t, sessions[2], nva.Attrs{ASPath: nva.Seq(65149, uint32(i+1), 64512), Communities: []nva.Community{nva.Community(i), 1, 2}}, p)
		}
	})
	step("a new prefix with 3,900 octets of attributes of its own", 20_000, 800, func() {
		for i, p := range list[2*n:] {
			raw := nva.AppendAttr(nil, 0xc0, 200, append(make([]byte, 3898), byte(i>>8), byte(i)))
			announce(t, sessions[3], nva.Attrs{ASPath: nva.Seq(65150), Raw: raw}, p)
		}
	})
}

// received counts the paths of all peers.
func (b *bed) received(t *testing.T) int {
	t.Helper()
	n := 0
	for _, p := range b.everyPeer(t) {
		n += p.Received
	}
	return n
}
