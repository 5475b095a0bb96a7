package kernel

import (
	"net/netip"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// eachOp is one operation of every kind and family.
func eachOp() []fib.Op {
	a4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	p4, p6 := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("2001:db9::/48")
	return []fib.Op{
		{Kind: fib.NextHopAdd, ID: first + 1, Leg: fib.Leg{Gateway: a4, IfIndex: 7}},
		{Kind: fib.NextHopAdd, ID: first + 2, Leg: fib.Leg{Gateway: a6, IfIndex: 7}},
		{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1, first + 2}},
		{Kind: fib.GroupReplace, ID: first + 10, Members: []uint32{first + 1, first + 2}},
		{Kind: fib.RouteAdd, Prefix: p4, ID: first + 10},
		{Kind: fib.RouteReplace, Prefix: p6, ID: first + 10},
		{Kind: fib.RouteAdd, Prefix: p4, Legs: []fib.Leg{{Gateway: a4, IfIndex: 7}, {Gateway: a6, IfIndex: 8}}},
		{Kind: fib.RouteAdd, Prefix: p6, Legs: []fib.Leg{{Gateway: a6, IfIndex: 7}}},
		{Kind: fib.RouteDel, Prefix: p4},
		{Kind: fib.RouteDel, Prefix: p6},
		{Kind: fib.GroupDel, ID: first + 10},
		{Kind: fib.NextHopDel, ID: first + 1},
	}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	e := encoder{owner: testOwner, buf: make([]byte, 0, maxBatchBytes)}
	for _, op := range eachOp() {
		if n := testing.AllocsPerRun(100, func() { e.reset(1); e.op(&op) }); n != 0 {
			t.Errorf("encoding %+v: %v allocations", op, n)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	e := encoder{owner: testOwner}
	e.op(&fib.Op{Kind: fib.RouteAdd, Prefix: netip.MustParsePrefix("2001:db9::/48"), ID: first + 10})
	body := e.buf[unix.NLMSG_HDRLEN:]
	var r routeMsg
	if n := testing.AllocsPerRun(100, func() {
		if err := parseRoute(body, &r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("parsing a route: %v allocations", n)
	}
}

func BenchmarkEncodeRoute(b *testing.B) {
	e := encoder{owner: testOwner}
	op := fib.Op{Kind: fib.RouteAdd, Prefix: netip.MustParsePrefix("10.9.0.0/24"), ID: first + 10}
	b.ReportAllocs()
	for b.Loop() {
		if len(e.buf) > maxBatchBytes {
			e.reset(1)
		}
		e.op(&op)
	}
}

func BenchmarkParseRoute(b *testing.B) {
	e := encoder{owner: testOwner}
	e.op(&fib.Op{Kind: fib.RouteAdd, Prefix: netip.MustParsePrefix("10.9.0.0/24"), ID: first + 10})
	body := e.buf[unix.NLMSG_HDRLEN:]
	var r routeMsg
	b.ReportAllocs()
	for b.Loop() {
		if err := parseRoute(body, &r); err != nil {
			b.Fatal(err)
		}
	}
}

const benchRoutes = 100_000

// benchHandle is a Handle in a fresh namespace with group 10 of two legs.
func benchHandle(b *testing.B) *Handle {
	h := newHost(b)
	v0 := h.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	k := openTest(b, testOwner, false)
	mustApply(b, k,
		fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: hop(0, v0)},
		fib.Op{Kind: fib.NextHopAdd, ID: first + 2, Leg: hop(1, v0)},
		fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1, first + 2}},
	)
	return k
}

func rate(b *testing.B) {
	b.ReportMetric(float64(benchRoutes)*float64(b.N)/b.Elapsed().Seconds(), "routes/s")
}

// BenchmarkKernelInsert writes 100,000 routes into the kernel.
func BenchmarkKernelInsert(b *testing.B) {
	k := benchHandle(b)
	add, del := routeOps(fib.RouteAdd, prefixes(benchRoutes), first+10), routeOps(fib.RouteDel, prefixes(benchRoutes), 0)
	b.ReportAllocs()
	for b.Loop() {
		mustApply(b, k, add...)
		b.StopTimer()
		mustApply(b, k, del...)
		b.StartTimer()
	}
	rate(b)
}

// BenchmarkKernelInsertFloor is the same with messages encoded before and replies not
// looked at: what the kernel itself takes.
func BenchmarkKernelInsertFloor(b *testing.B) {
	k := benchHandle(b)
	ps := prefixes(benchRoutes)
	var batches [][]byte
	e := encoder{owner: testOwner}
	for i, p := range ps {
		e.op(&fib.Op{Kind: fib.RouteAdd, Prefix: p, ID: first + 10})
		if (i+1)%maxBatch == 0 || i == len(ps)-1 {
			batches = append(batches, append([]byte(nil), e.buf...))
			e.reset(1)
		}
	}
	del := routeOps(fib.RouteDel, ps, 0)
	for b.Loop() {
		for _, batch := range batches {
			if err := k.w.send(batch); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		mustApply(b, k, del...)
		b.StartTimer()
	}
	rate(b)
}

func BenchmarkKernelDump(b *testing.B) {
	k := benchHandle(b)
	mustApply(b, k, routeOps(fib.RouteAdd, prefixes(benchRoutes), first+10)...)
	b.ReportAllocs()
	for b.Loop() {
		if s, err := k.Dump(nil); err != nil || len(s.Routes) != benchRoutes {
			b.Fatalf("%d routes, err %v", len(s.Routes), err)
		}
	}
	rate(b)
}

// BenchmarkKernelHost reads the host's state past 100,000 routes of ours (own) and of
// somebody else (foreign) in the main table.
func BenchmarkKernelHost(b *testing.B) {
	for _, c := range []struct {
		name  string
		owner func(fib.Owner) fib.Owner
	}{
		{"own", func(o fib.Owner) fib.Owner { return o }},
		{"foreign", func(o fib.Owner) fib.Owner { o.Metric++; return o }},
	} {
		b.Run(c.name, func(b *testing.B) {
			k := benchHandle(b)
			mustApply(b, k, routeOps(fib.RouteAdd, prefixes(benchRoutes), first+10)...)
			k = openTest(b, c.owner(testOwner), false)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Host(); err != nil {
					b.Fatal(err)
				}
			}
			rate(b)
		})
	}
}
