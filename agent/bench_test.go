package agent

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

// nullKernel takes everything and does nothing, so that what is measured is the agent.
type nullKernel struct{ host *fib.Host }

func (nullKernel) HasNextHopObjects() bool                    { return true }
func (nullKernel) Dump(func() bool) (fib.Snapshot, error)     { return fib.Snapshot{}, nil }
func (nullKernel) Apply([]fib.Op) ([]fib.OpError, error)      { return nil, nil }
func (k nullKernel) Host() (*fib.Host, error)                 { return k.host, nil }
func (nullKernel) Lookup(p netip.Prefix) ([]fib.Route, error) { return nil, nil }

// benchAgent runs an agent with both NVAs up.
func benchAgent(b *testing.B) *Agent {
	m, _ := newHost()
	host, err := m.Open(owner, false).Host()
	if err != nil {
		b.Fatal(err)
	}
	a := newAgent(testConfig(), nullKernel{host})
	if _, err := a.Adopt(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = a.Run(ctx) })
	b.Cleanup(func() { cancel(); loop.Wait() })
	for _, p := range a.cfg.Peers {
		a.Session(session.Event{Peer: p.Address, State: session.Established, Previous: session.OpenConfirm, At: time.Now()})
	}
	return a
}

// waitSettled waits until the agent has done everything.
func (a *Agent) waitSettled(b *testing.B, routes int) {
	for range 10_000 {
		done := false
		if err := a.do(b.Context(), func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			done = a.rib.Dirty() == 0 && !a.table.Pending() && a.inbox.empty() && a.table.Counts().Present == routes
		}); err != nil {
			b.Fatal(err)
		}
		if done {
			return
		}
		time.Sleep(time.Millisecond)
	}
	b.Fatalf("not done: %+v", a.FIB())
}

func feed(a *Agent, changes []rib.Change, peer netip.Addr) {
	for part := range slices.Chunk(changes, 2000) {
		a.Learned(peer, part)
	}
}

const benchPrefixes = 100_000

// BenchmarkLoad is a table of 100,000 prefixes from two NVAs, from the speaker's word to
// the kernel's.
func BenchmarkLoad(b *testing.B) {
	var both [2][]rib.Change
	for i, p := range []netip.Addr{quagga, bird} {
		at := attrs(p, 1)
		for _, x := range many(benchPrefixes) {
			both[i] = append(both[i], rib.Change{Prefix: x, Attrs: at})
		}
	}
	var before, after runtime.MemStats
	var allocs, bytes uint64
	for b.Loop() {
		a := benchAgent(b)
		runtime.GC()
		runtime.ReadMemStats(&before)
		var peers sync.WaitGroup
		peers.Go(func() { feed(a, both[0], quagga) })
		peers.Go(func() { feed(a, both[1], bird) })
		peers.Wait()
		a.waitSettled(b, benchPrefixes)
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		runtime.GC()
		runtime.ReadMemStats(&after)
		bytes += after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
	}
	n := float64(b.N * benchPrefixes)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/prefix")
	b.ReportMetric(float64(allocs)/n, "allocs/prefix")
	b.ReportMetric(float64(bytes)/n, "live-B/prefix")
}

// BenchmarkFailover is the loss of one of two NVAs with 100,000 prefixes: from the first
// word of it to the write of the groups.
func BenchmarkFailover(b *testing.B) {
	a := benchAgent(b)
	for _, p := range []netip.Addr{quagga, bird} {
		at := attrs(p, 1)
		var changes []rib.Change
		for _, x := range many(benchPrefixes) {
			changes = append(changes, rib.Change{Prefix: x, Attrs: at})
		}
		feed(a, changes, p)
	}
	a.waitSettled(b, benchPrefixes)
	b.ResetTimer()
	for range b.N {
		a.PeerDown(quagga, accident, false)
		if err := a.do(b.Context(), func() {}); err != nil { // the cycle is over
			b.Fatal(err)
		}
		b.StopTimer()
		a.Session(session.Event{Peer: quagga, State: session.Established, Previous: session.Idle, At: time.Now()})
		a.waitSettled(b, benchPrefixes)
		b.StartTimer()
	}
}
