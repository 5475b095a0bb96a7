package fibtest

import (
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// Harness is a host on which the contract is tried out: a Machine, or a real kernel in a
// network namespace of its own. Whatever it cannot do fails the test.
type Harness interface {
	// Open returns a program's hold on the host; it also has a Watch method.
	Open(owner fib.Owner, classic bool) fib.Kernel
	// AddLink adds an interface, up and with carrier, and without IPv6 link-local address.
	AddLink(name string, addrs ...netip.Prefix) (index int)
	SetLink(index int, up bool)
	SetCarrier(index int, on bool)
	DelLink(index int)
	// AddRoute, ReplaceRoute and DelRoute do what `ip route` does, in somebody else's name.
	AddRoute(r fib.Route)
	ReplaceRoute(r fib.Route)
	DelRoute(r fib.Route)
	// AddNextHop and DelNextHop do what `ip nexthop` does.
	AddNextHop(id uint32, leg fib.Leg, protocol uint8)
	DelNextHop(id uint32)
}

// owner of the contract's routes.
var owner = fib.Owner{
	Table: mainTable, Metric: 20, Protocol: 165,
	FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID,
}

// env is a host with two links, v0 and v1, and two ways out per family.
type env struct {
	*testing.T
	Harness
	k      fib.Kernel
	v0, v1 int
}

const first = fib.DefaultFirstID // ids in the contract are first plus something

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// family is what differs between IPv4 and IPv6 in the contract.
type family struct {
	name string
	gw   [2]string // on v0 and v1
	base string    // of generated prefixes
	any  string
}

var families = [...]family{
	{"IPv4", [2]string{"10.0.0.2", "10.0.1.2"}, "10.128.0.0", "0.0.0.0/0"},
	{"IPv6", [2]string{"2001:db8::2", "2001:db8:1::2"}, "2001:db9::", "::/0"},
}

// prefix returns the ith /24 or /48.
func (f family) prefix(i int) netip.Prefix {
	if f.base[0] == '1' {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb9, byte(i >> 8), byte(i)}), 48)
}

func (f family) leg(e *env, i int) fib.Leg {
	return fib.Leg{Gateway: addr(f.gw[i]), IfIndex: [2]int{e.v0, e.v1}[i]}
}

// apply carries operations out, all of which must succeed.
func (e *env) apply(ops ...fib.Op) {
	e.Helper()
	refused, err := e.k.Apply(ops)
	if err != nil {
		e.Fatalf("Apply: %v", err)
	}
	for _, r := range refused {
		e.Fatalf("Apply: %+v: %v", ops[r.Index], r)
	}
}

// refuse carries one operation out, which must fail as told.
func (e *env) refuse(op fib.Op, errno syscall.Errno, text string) {
	e.Helper()
	refused, err := e.k.Apply([]fib.Op{op})
	want := []fib.OpError{{Index: 0, Errno: errno, Text: text}}
	if err != nil || !slices.Equal(refused, want) {
		e.Errorf("%+v: refused %+v, err %v, want %+v", op, refused, err, want)
	}
}

func (e *env) dump() fib.Snapshot {
	e.Helper()
	s, err := e.k.Dump(nil)
	if err != nil {
		e.Fatalf("Dump: %v", err)
	}
	return s
}

// want compares what is ours with what should be.
func (e *env) want(what string, want fib.Snapshot) {
	e.Helper()
	if want.NextHops == nil {
		want.NextHops = map[uint32]fib.Leg{}
	}
	if want.Groups == nil {
		want.Groups = map[uint32][]uint32{}
	}
	if want.Routes == nil {
		want.Routes = map[netip.Prefix]fib.SnapshotRoute{}
	}
	if got := e.dump(); !reflect.DeepEqual(got, want) {
		e.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// lookup returns the routes for a prefix, lowest metric first.
func (e *env) lookup(p netip.Prefix) []fib.Route {
	e.Helper()
	routes, err := e.k.Lookup(p)
	if err != nil {
		e.Fatalf("Lookup(%s): %v", p, err)
	}
	slices.SortFunc(routes, func(a, b fib.Route) int { return int(a.Metric) - int(b.Metric) })
	return routes
}

// objects adds next hops 1 (v0) and 2 (v1) and group 10 of both.
func (e *env) objects(f family) {
	e.Helper()
	e.apply(
		fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)},
		fib.Op{Kind: fib.NextHopAdd, ID: first + 2, Leg: f.leg(e, 1)},
		fib.Op{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1, first + 2}},
	)
}

func route(kind fib.OpKind, p netip.Prefix, group uint32) fib.Op {
	return fib.Op{Kind: kind, Prefix: p, ID: group}
}

// foreign is an operator's route with the given metric.
func (e *env) foreign(f family, p netip.Prefix, metric uint32, protocol uint8) fib.Route {
	return fib.Route{
		Prefix: p, Table: mainTable, Metric: metric, Protocol: protocol, Type: typeUnicast,
		Legs: []fib.Leg{f.leg(e, 0)},
	}
}

// RunContract runs the suite. newHarness makes a fresh host for the test it is given, on
// that test's goroutine.
func RunContract(t *testing.T, newHarness func(t *testing.T) Harness) {
	open := func(t *testing.T, classic bool) *env {
		h := newHarness(t)
		e := &env{T: t, Harness: h}
		e.v0 = h.AddLink("v0", prefix("10.0.0.1/24"), prefix("2001:db8::1/64"))
		e.v1 = h.AddLink("v1", prefix("10.0.1.1/24"), prefix("2001:db8:1::1/64"))
		e.k = h.Open(owner, classic)
		return e
	}
	for _, c := range []struct {
		name string
		run  func(*env, family)
	}{
		{"Objects", testObjects},
		{"Routes", testRoutes},
		{"EdgePrefixes", testEdgePrefixes},
		{"MidBatch", testMidBatch},
		{"BigBatch", testBigBatch},
		{"ReplaceIsAtomic", testReplaceIsAtomic},
		{"MemberGone", testMemberGone},
		{"GroupGone", testGroupGone},
		{"LinkDown", testLinkDown},
		{"CarrierLost", testCarrierLost},
		{"LinkGone", testLinkGone},
		{"ForeignStays", testForeignStays},
		{"ForeignSameProtocol", testForeignSameProtocol},
		{"ReplaceTakesOver", testReplaceTakesOver},
		{"ForeignIDs", testForeignIDs},
		{"Adoption", testAdoption},
		{"OtherTable", testOtherTable},
		{"Host", testHost},
		{"Events", testEvents},
	} {
		for _, f := range families {
			t.Run(c.name+f.name, func(t *testing.T) { c.run(open(t, false), f) })
		}
	}
	for _, f := range families {
		t.Run("Classic"+f.name, func(t *testing.T) { testClassic(open(t, true), f) })
		t.Run("Blackhole"+f.name, func(t *testing.T) { testBlackhole(open(t, false), f) })
		t.Run("BlackholeClassic"+f.name, func(t *testing.T) { testBlackholeClassic(open(t, true), f) })
		t.Run("ClassicAfterObjects"+f.name, func(t *testing.T) { testClassicAfterObjects(open(t, false), f) })
	}
	t.Run("Refusals", func(t *testing.T) { testRefusals(open(t, false)) })
	t.Run("RefusalsClassic", func(t *testing.T) { testRefusalsClassic(open(t, true)) })
	t.Run("MixedFamilies", func(t *testing.T) { testMixedFamilies(open(t, false)) })
}

func testObjects(e *env, f family) {
	e.want("fresh host", fib.Snapshot{})
	e.objects(f)
	hops := map[uint32]fib.Leg{first + 1: f.leg(e, 0), first + 2: f.leg(e, 1)}
	e.want("after the adds", fib.Snapshot{NextHops: hops, Groups: map[uint32][]uint32{first + 10: {first + 1, first + 2}}})

	replace := fib.Op{Kind: fib.GroupReplace, ID: first + 10, Members: []uint32{first + 2}}
	e.apply(replace)
	e.apply(replace) // the same again is no error
	e.want("after the replace", fib.Snapshot{NextHops: hops, Groups: map[uint32][]uint32{first + 10: {first + 2}}})

	del := []fib.Op{
		{Kind: fib.GroupDel, ID: first + 10},
		{Kind: fib.NextHopDel, ID: first + 1},
		{Kind: fib.NextHopDel, ID: first + 2},
	}
	e.apply(del...)
	e.want("after the deletes", fib.Snapshot{})
	e.apply(del...) // what is gone is no error
}

func testRoutes(e *env, f family) {
	e.objects(f)
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}})
	p := f.prefix(1)
	e.apply(route(fib.RouteAdd, p, first+10))
	want := fib.Route{
		Prefix: p, Table: mainTable, Metric: owner.Metric, Protocol: owner.Protocol, Type: typeUnicast,
		GroupID: first + 10, Legs: []fib.Leg{f.leg(e, 0), f.leg(e, 1)},
	}
	if got := e.lookup(p); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		e.Errorf("Lookup after the add: got %+v, want %+v", got, want)
	}
	e.apply(route(fib.RouteReplace, p, first+11))
	e.apply(route(fib.RouteReplace, p, first+11))
	want.GroupID, want.Legs = first+11, want.Legs[:1]
	if got := e.lookup(p); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		e.Errorf("Lookup after the replace: got %+v, want %+v", got, want)
	}
	if got := e.dump().Routes; len(got) != 1 || got[p].GroupID != first+11 {
		e.Errorf("routes after the replace: %v", got)
	}
	e.apply(route(fib.RouteDel, p, 0))
	e.apply(route(fib.RouteDel, p, 0))
	if got := e.lookup(p); len(got) != 0 {
		e.Errorf("Lookup after the delete: got %+v", got)
	}
}

func testEdgePrefixes(e *env, f family) {
	e.objects(f)
	host := f.prefix(9).Addr()
	want := map[netip.Prefix]fib.SnapshotRoute{
		prefix(f.any):                              {GroupID: first + 10},
		netip.PrefixFrom(host, host.BitLen()):      {GroupID: first + 10},
		netip.PrefixFrom(host, host.BitLen()-1):    {GroupID: first + 10},
		netip.PrefixFrom(host, 1).Masked():         {GroupID: first + 10},
		netip.PrefixFrom(host, f.prefix(9).Bits()): {GroupID: first + 10},
	}
	for p := range want {
		e.apply(route(fib.RouteAdd, p, first+10))
	}
	if got := e.dump().Routes; !reflect.DeepEqual(got, want) {
		e.Errorf("routes: got %v, want %v", got, want)
	}
	for p := range want {
		e.apply(route(fib.RouteDel, p, 0))
	}
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("routes after the deletes: %v", got)
	}
}

// Errors in the middle stop nothing, and are told apart by index and text.
func testMidBatch(e *env, f family) {
	e.objects(f)
	ops := []fib.Op{
		route(fib.RouteAdd, f.prefix(1), first+10),
		route(fib.RouteAdd, f.prefix(2), first+99),
		route(fib.RouteAdd, f.prefix(1), first+10),
		{Kind: fib.RouteAdd}, // never gets as far as the kernel
		{Kind: fib.GroupReplace, ID: first + 98, Members: []uint32{first + 1}},
		route(fib.RouteDel, f.prefix(5), 0), // absent: no error
		route(fib.RouteAdd, f.prefix(6), first+10),
		route(fib.RouteAdd, f.prefix(6), first+10),
	}
	refused, err := e.k.Apply(ops)
	want := []fib.OpError{
		{Index: 1, Errno: syscall.EINVAL, Text: "Nexthop id does not exist"},
		{Index: 2, Errno: syscall.EEXIST},
		{Index: 3, Errno: syscall.EINVAL, Text: "invalid prefix"},
		{Index: 4, Errno: syscall.ENOENT, Text: "Replace specified without create and no entry exists"},
		{Index: 7, Errno: syscall.EEXIST},
	}
	if err != nil || !slices.Equal(refused, want) {
		e.Errorf("refused %+v, err %v, want %+v", refused, err, want)
	}
	if got := e.dump().Routes; len(got) != 2 {
		e.Errorf("routes = %v, want those for %s and %s", got, f.prefix(1), f.prefix(6))
	}
	if refused, err := e.k.Apply(nil); refused != nil || err != nil {
		e.Errorf("Apply of nothing: refused %v, err %v", refused, err)
	}
}

func testBigBatch(e *env, f family) {
	const n = 10000
	e.objects(f)
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}})
	batch := func(kind fib.OpKind, group uint32) (ops []fib.Op) {
		for i := range n {
			ops = append(ops, route(kind, f.prefix(i), group))
			if i%100 == 0 {
				ops[i].ID = first + 99
			}
		}
		return ops
	}
	refused, err := e.k.Apply(batch(fib.RouteAdd, first+10))
	if err != nil || len(refused) != n/100 {
		e.Fatalf("add: %d refused, err %v, want %d", len(refused), err, n/100)
	}
	for i, r := range refused {
		if r.Index != i*100 || r.Errno != syscall.EINVAL || r.Text != "Nexthop id does not exist" {
			e.Fatalf("refusal %d = %+v", i, r)
		}
	}
	check := func(what string, group uint32, count int) {
		e.Helper()
		routes := e.dump().Routes
		if len(routes) != count {
			e.Errorf("%s: %d routes, want %d", what, len(routes), count)
		}
		for p, r := range routes {
			if r.GroupID != group {
				e.Fatalf("%s: %s = %+v, want group %d", what, p, r, group)
			}
		}
	}
	check("after the add", first+10, n-n/100)
	if refused, err = e.k.Apply(batch(fib.RouteReplace, first+11)); err != nil || len(refused) != n/100 {
		e.Fatalf("replace: %d refused, err %v, want %d", len(refused), err, n/100)
	}
	check("after the replace", first+11, n-n/100)
	e.apply(batch(fib.RouteDel, 0)...)
	check("after the delete", 0, 0)
}

// S22: while routes and groups are replaced, a reader sees the route at all times, and
// only once.
func testReplaceIsAtomic(e *env, f family) {
	e.twoRoutes(f)
	p := f.prefix(1)
	ops := make([]fib.Op, 0, 400)
	for range 100 {
		ops = append(ops,
			route(fib.RouteReplace, p, first+11),
			fib.Op{Kind: fib.GroupReplace, ID: first + 11, Members: []uint32{first + 1, first + 2}},
			route(fib.RouteReplace, p, first+10),
			fib.Op{Kind: fib.GroupReplace, ID: first + 11, Members: []uint32{first + 1}},
		)
	}
	reader := e.Open(owner, false)
	type result struct {
		refused []fib.OpError
		err     error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for range 10 {
			if r.refused, r.err = e.k.Apply(ops); r.refused != nil || r.err != nil {
				break
			}
		}
		done <- r
	}()
	for {
		routes, err := reader.Lookup(p)
		if err != nil || len(routes) != 1 || len(routes[0].Legs) == 0 {
			e.Errorf("Lookup during replaces: %+v, err %v, want one route", routes, err)
		}
		select {
		case r := <-done:
			if r.refused != nil || r.err != nil {
				e.Errorf("Apply: refused %+v, err %v", r.refused, r.err)
			}
			return
		default:
		}
	}
}

// A deleted next hop leaves its groups; a group's last one takes it and its routes along.
func testMemberGone(e *env, f family) {
	e.objects(f)
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}})
	e.apply(route(fib.RouteAdd, f.prefix(1), first+10), route(fib.RouteAdd, f.prefix(2), first+11))
	e.apply(fib.Op{Kind: fib.NextHopDel, ID: first + 1})
	e.want("after the delete", fib.Snapshot{
		NextHops: map[uint32]fib.Leg{first + 2: f.leg(e, 1)},
		Groups:   map[uint32][]uint32{first + 10: {first + 2}},
		Routes:   map[netip.Prefix]fib.SnapshotRoute{f.prefix(1): {GroupID: first + 10}},
	})
}

func testGroupGone(e *env, f family) {
	e.objects(f)
	e.apply(route(fib.RouteAdd, f.prefix(1), first+10))
	e.apply(fib.Op{Kind: fib.GroupDel, ID: first + 10})
	if s := e.dump(); len(s.Routes) != 0 || len(s.Groups) != 0 || len(s.NextHops) != 2 {
		e.Errorf("after the group's deletion: %+v, want the two next hops", s)
	}
}

// oneLegLeft is what remains of testLinkDown and its like.
func (e *env) oneLegLeft(f family) fib.Snapshot {
	return fib.Snapshot{
		NextHops: map[uint32]fib.Leg{first + 2: f.leg(e, 1)},
		Groups:   map[uint32][]uint32{first + 10: {first + 2}},
		Routes:   map[netip.Prefix]fib.SnapshotRoute{f.prefix(1): {GroupID: first + 10}},
	}
}

func (e *env) twoRoutes(f family) {
	e.Helper()
	e.objects(f)
	e.apply(fib.Op{Kind: fib.GroupAdd, ID: first + 11, Members: []uint32{first + 1}})
	e.apply(route(fib.RouteAdd, f.prefix(1), first+10), route(fib.RouteAdd, f.prefix(2), first+11))
}

func testLinkDown(e *env, f family) {
	e.twoRoutes(f)
	e.SetLink(e.v0, false)
	e.want("link down", e.oneLegLeft(f))
	e.refuse(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)}, syscall.ENETDOWN, "Nexthop device is not up")
	e.SetLink(e.v0, true)
	e.want("link up again: nothing comes back", e.oneLegLeft(f))
	e.apply(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)})
}

func testCarrierLost(e *env, f family) {
	e.twoRoutes(f)
	e.SetCarrier(e.v0, false)
	e.want("carrier lost", e.oneLegLeft(f))
	if h := e.host(); h.Links[e.v0].Running || !h.Links[e.v0].Up {
		e.Errorf("link without carrier = %+v", h.Links[e.v0])
	}
	e.refuse(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)}, syscall.ENETDOWN, "Carrier for nexthop device is down")
	e.SetCarrier(e.v0, true)
	e.want("carrier back: nothing comes back", e.oneLegLeft(f))
}

func testLinkGone(e *env, f family) {
	e.twoRoutes(f)
	e.DelLink(e.v0)
	e.want("link gone", e.oneLegLeft(f))
	e.refuse(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 0)}, syscall.EINVAL, "Invalid device index")
}

// S19: other routes for the same prefix stay, whatever we do with ours.
func testForeignStays(e *env, f family) {
	e.objects(f)
	p := f.prefix(1)
	strangers := []fib.Route{
		e.foreign(f, p, owner.Metric+1, 4),
		e.foreign(f, p, owner.Metric+2, owner.Protocol), // our number, another metric
	}
	for _, r := range strangers {
		e.AddRoute(r)
	}
	e.apply(route(fib.RouteAdd, p, first+10))
	if got := e.lookup(p); len(got) != 3 {
		e.Errorf("Lookup = %+v, want 3 routes", got)
	}
	if got := e.dump().Routes; len(got) != 1 || got[p].GroupID != first+10 {
		e.Errorf("Dump = %+v, want ours only", got)
	}
	e.apply(route(fib.RouteReplace, p, first+10))
	e.apply(route(fib.RouteDel, p, 0))
	e.apply(route(fib.RouteDel, p, 0))
	if got := e.lookup(p); !reflect.DeepEqual(got, strangers) {
		e.Errorf("strangers' routes after all: %+v, want %+v", got, strangers)
	}

	// The very key, another protocol: refused, and not deleted.
	q := f.prefix(2)
	stranger := e.foreign(f, q, owner.Metric, 4)
	e.AddRoute(stranger)
	e.refuse(route(fib.RouteAdd, q, first+10), syscall.EEXIST, "")
	e.apply(route(fib.RouteDel, q, 0))
	if got := e.lookup(q); len(got) != 1 || !reflect.DeepEqual(got[0], stranger) {
		e.Errorf("stranger's route = %+v, want %+v", got, stranger)
	}
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("Dump takes a stranger's route for ours: %v", got)
	}
}

// Our protocol and metric, but no group of ours: not ours where routes name groups.
func testForeignSameProtocol(e *env, f family) {
	e.objects(f)
	p := f.prefix(1)
	e.AddRoute(e.foreign(f, p, owner.Metric, owner.Protocol))
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("Dump = %v, want nothing", got)
	}
	e.refuse(route(fib.RouteAdd, p, first+10), syscall.EEXIST, "")
}

// The danger the callers of RouteReplace must know: the protocol is no part of the key.
func testReplaceTakesOver(e *env, f family) {
	e.objects(f)
	p := f.prefix(1)
	e.AddRoute(e.foreign(f, p, owner.Metric, 4))
	e.apply(route(fib.RouteReplace, p, first+10))
	if got := e.lookup(p); len(got) != 1 || got[0].GroupID != first+10 || got[0].Protocol != owner.Protocol {
		e.Errorf("Lookup = %+v, want our route alone", got)
	}
	// And somebody else's replace takes ours.
	e.ReplaceRoute(e.foreign(f, p, owner.Metric, 4))
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("Dump after a stranger's replace = %v", got)
	}
	e.DelRoute(e.foreign(f, p, owner.Metric, 4))
	e.refuse(route(fib.RouteReplace, p, first+10), syscall.ENOENT, f.noMatch())
}

func (f family) noMatch() string {
	if f.name == "IPv6" {
		return "Can not replace route - no match found"
	}
	return ""
}

func testForeignIDs(e *env, f family) {
	e.AddNextHop(77, f.leg(e, 0), 4)              // out of our range
	e.AddNextHop(first+1, f.leg(e, 0), 4)         // in it, of another protocol
	e.AddNextHop(78, f.leg(e, 0), owner.Protocol) // our protocol, out of our range
	e.want("only strangers' next hops", fib.Snapshot{})
	e.refuse(fib.Op{Kind: fib.NextHopAdd, ID: first + 1, Leg: f.leg(e, 1)}, syscall.EEXIST, "")
}

func testAdoption(e *env, f family) {
	e.objects(f)
	e.apply(route(fib.RouteAdd, f.prefix(1), first+10))
	want := e.dump()
	e.k = e.Open(owner, false)
	e.want("second handle", want)
	e.apply(route(fib.RouteDel, f.prefix(1), 0), fib.Op{Kind: fib.GroupDel, ID: first + 10})
	other := owner
	other.Metric++
	e.k = e.Open(other, false)
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("handle of another metric sees %v", got)
	}
}

func testOtherTable(e *env, f family) {
	e.objects(f)
	o := owner
	o.Table = 1000 // does not fit into the message header
	e.k = e.Open(o, false)
	p := f.prefix(1)
	if got := e.dump().Routes; len(got) != 0 {
		e.Errorf("a table that does not exist holds %v", got)
	}
	e.apply(route(fib.RouteDel, p, 0))
	e.apply(route(fib.RouteAdd, p, first+10))
	if got := e.dump().Routes; len(got) != 1 || got[p].GroupID != first+10 {
		e.Errorf("Dump = %v", got)
	}
	if got := e.lookup(p); len(got) != 1 || got[0].Table != 1000 {
		e.Errorf("Lookup = %v", got)
	}
	e.k = e.Open(owner, false)
	if got := e.lookup(p); len(got) != 0 {
		e.Errorf("Lookup in the main table = %v", got)
	}
}
