package fib_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
)

func nth(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 0}), 24)
}

func benchTable(n int) (*fib.Table, []fib.Via) {
	t := fib.NewTable(fib.Options{Owner: owner, MaxPaths: 64})
	t.SetResolver(func(a netip.Addr) fib.Resolution { return fib.Resolution{Legs: []fib.Leg{{Gateway: a, IfIndex: 2}}} })
	vias := []fib.Via{{NextHop: a4, Source: 0}, {NextHop: b4, Source: 1}}
	for i := range n {
		t.Set(nth(i), vias)
	}
	return t, vias
}

// drain takes every write for done and returns their number.
func drain(t *fib.Table) (n int) {
	for t.Pending() {
		n += len(t.Plan(time.Time{}, 2048))
		t.Done(time.Time{}, nil)
	}
	return n
}

// Set, Plan and Done of 100,000 prefixes by two sources; figures are per prefix.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		t, _ := benchTable(n)
		drain(t)
	}
}

// Every prefix changes from two next hops to one; figures are per prefix.
func BenchmarkChange(b *testing.B) {
	const n = 100_000
	t, vias := benchTable(n)
	drain(t)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += n {
		for j := range n {
			t.Set(nth(j), vias[:1+i/n%2])
		}
		drain(t)
	}
}

// A source of 100,000 prefixes goes down and comes back: figures are per failover.
func BenchmarkFailover(b *testing.B) {
	const n = 100_000
	t, _ := benchTable(n)
	drain(t)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		t.SetSource(0, []fib.SourceState{fib.SourceStale, fib.SourceUp}[i%2])
		if len(t.Plan(time.Time{}, 0)) == 0 {
			b.Fatal("nothing to write")
		}
		t.Done(time.Time{}, nil)
	}
}

// The clean-up after a lost source: every prefix is Set to what it already has.
func BenchmarkCleanUp(b *testing.B) {
	const n = 100_000
	t, vias := benchTable(n)
	drain(t)
	t.SetSource(0, fib.SourceDown)
	drain(t)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		t.Set(nth(i%n), vias[1:])
	}
	b.StopTimer()
	if drain(t) != 0 {
		b.Fatal("the clean-up wrote something")
	}
}

// written takes every write for done and returns what the kernel then has.
func written(t *fib.Table) fib.Snapshot {
	s := fib.Snapshot{NextHops: map[uint32]fib.Leg{}, Groups: map[uint32][]uint32{}, Routes: map[netip.Prefix]fib.SnapshotRoute{}}
	for t.Pending() {
		for _, op := range t.Plan(time.Time{}, 2048) {
			switch op.Kind {
			case fib.NextHopAdd:
				s.NextHops[op.ID] = op.Leg
			case fib.GroupAdd:
				s.Groups[op.ID] = op.Members
			case fib.RouteAdd:
				s.Routes[op.Prefix] = fib.SnapshotRoute{GroupID: op.ID}
			}
		}
		t.Done(time.Time{}, nil)
	}
	return s
}

// A comparison of 100,000 routes that are as they should be; figures are per route.
func BenchmarkAgrees(b *testing.B) {
	const n = 100_000
	t, _ := benchTable(n)
	s := written(t)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += n {
		if same, err := t.Agrees(s, func() bool { return false }); !same || err != nil {
			b.Fatal("they differ")
		}
	}
}

// A Load of 100,000 routes that are as they should be; figures are per route.
func BenchmarkResync(b *testing.B) {
	const n = 100_000
	t, _ := benchTable(n)
	s := written(t)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += n {
		if drift := t.Load(s); drift != 0 {
			b.Fatalf("drift %d", drift)
		}
		if drain(t) != 0 {
			b.Fatal("a resync of what is in order wrote something")
		}
	}
}
