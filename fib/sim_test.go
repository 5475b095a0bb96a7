package fib_test

import (
	"errors"
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

const (
	table    = 254
	metric   = 20
	protocol = 165
	maxPaths = 3
)

var owner = fib.Owner{Table: table, Metric: metric, Protocol: protocol, FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

// path is what a source offers for a prefix: lower classes are preferred.
type path struct {
	nh    netip.Addr
	class int
}

// sim is a Table, the kernel it writes to, and what the two should come down to by a
// reckoning of its own.
type sim struct {
	t       testing.TB
	m       *fibtest.Machine
	k       *fibtest.Kernel
	tab     *fib.Table
	classic bool
	compat  bool
	avoid   map[fib.Leg]bool // legs whose neighbour does not answer, as the table was told
	now     time.Time
	links   [2]int // interfaces: 10.1.0.0/16 and fd01::/64, 10.2.0.0/16 and fd02::/64
	down    [2]bool
	seen    [2]bool // down, as the table was told last

	paths   map[netip.Prefix]map[fib.Source]path
	set     map[netip.Prefix][]fib.Via // as last Set
	states  map[fib.Source]fib.SourceState
	foreign map[netip.Prefix]fib.Route
	bad     map[netip.Addr]bool // gateways that the kernel refuses as next hop
	adopted map[netip.Prefix]bool
	counts  map[fib.OpKind]int

	// refuse says whether an operation fails, beside those that the kernel refuses.
	refuse func(op fib.Op) syscall.Errno
	// stop makes Apply give up before the operation, its outcome unknown.
	stop func(n int) bool
	log  []string
}

func newSim(t testing.TB, classic bool) *sim {
	s := &sim{
		t: t, m: fibtest.NewMachine(), classic: classic,
		now:   time.Unix(1e9, 0),
		paths: map[netip.Prefix]map[fib.Source]path{}, set: map[netip.Prefix][]fib.Via{},
		states: map[fib.Source]fib.SourceState{}, foreign: map[netip.Prefix]fib.Route{},
		bad: map[netip.Addr]bool{}, counts: map[fib.OpKind]int{},
	}
	for i := range s.links {
		s.links[i] = s.m.AddLink(fmt.Sprintf("v%d", i+1), pfx(fmt.Sprintf("10.%d.0.1/16", i+1)), pfx(fmt.Sprintf("fd0%d::1/64", i+1)))
	}
	s.k = s.m.Open(owner, classic)
	s.start(false)
	return s
}

// start begins a run of the program: adopt what is in the kernel.
func (s *sim) start(hold bool) {
	s.tab = fib.NewTable(fib.Options{Owner: owner, Classic: s.classic, Compat: s.compat, MaxPaths: maxPaths, Hold: hold})
	s.avoid = map[fib.Leg]bool{}
	clear(s.paths)
	clear(s.set)
	clear(s.states)
	s.adopted = map[netip.Prefix]bool{}
	s.load()
	s.resolve()
	if hold {
		for p := range s.dump().Routes {
			s.adopted[p] = true
		}
	}
}

func (s *sim) dump() fib.Snapshot {
	snap, err := s.k.Dump(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return snap
}

func (s *sim) load() int {
	snap := s.dump()
	same, err := s.tab.Agrees(snap, func() bool { return false })
	drift := s.tab.Load(snap)
	if err != nil || same && drift > 0 {
		s.t.Errorf("%d routes are other than believed, Agrees = %v, %v", drift, same, err)
	}
	return drift
}

func (s *sim) resolve() {
	h, err := s.k.Host()
	if err != nil {
		s.t.Fatal(err)
	}
	s.tab.SetResolver(fib.NewResolver(h).Resolve)
	s.seen = s.down
}

// nhs are next hops by source: the first half behind link 0, the others behind link 1.
func nhs(p netip.Prefix, n int) netip.Addr {
	if p.Addr().Is6() {
		return addr(fmt.Sprintf("fd0%d::%d", 1+n%2, 4+n))
	}
	return addr(fmt.Sprintf("10.%d.0.%d", 1+n%2, 4+n))
}

// rank orders what the sources offer.
func (s *sim) rank(p netip.Prefix) []fib.Via {
	var classes []int
	for _, x := range s.paths[p] {
		classes = append(classes, x.class)
	}
	slices.Sort(classes)
	classes = slices.Compact(classes)
	var vias []fib.Via
	for src, x := range s.paths[p] {
		vias = append(vias, fib.Via{NextHop: x.nh, Source: src, Tier: uint8(slices.Index(classes, x.class))})
	}
	slices.SortFunc(vias, func(a, b fib.Via) int {
		if c := int(a.Tier) - int(b.Tier); c != 0 {
			return c
		}
		if c := a.NextHop.Compare(b.NextHop); c != 0 {
			return c
		}
		return int(a.Source) - int(b.Source)
	})
	return vias
}

func (s *sim) push(p netip.Prefix) {
	vias := s.rank(p)
	s.set[p] = vias
	if len(vias) > 0 {
		delete(s.adopted, p) // perhaps confirmed
	}
	s.tab.Set(p, slices.Clone(vias))
}

func (s *sim) announce(p netip.Prefix, src fib.Source, nh netip.Addr, class int) {
	if s.paths[p] == nil {
		s.paths[p] = map[fib.Source]path{}
	}
	s.paths[p][src] = path{nh, class}
	s.push(p)
}

func (s *sim) withdraw(p netip.Prefix, src fib.Source) {
	delete(s.paths[p], src)
	s.push(p)
}

func (s *sim) source(src fib.Source, state fib.SourceState) {
	s.states[src] = state
	s.tab.SetSource(src, state)
}

// link plugs a link in or pulls it out; the table is not told.
func (s *sim) link(i int, up bool) {
	s.down[i] = !up
	s.m.SetCarrier(s.links[i], up)
}

func (s *sim) leg(nh netip.Addr) (fib.Leg, bool) {
	if nh == fib.Discard {
		return fib.Blackhole, true
	}
	for i, index := range s.links {
		if pfx(fmt.Sprintf("10.%d.0.0/16", i+1)).Contains(nh) || pfx(fmt.Sprintf("fd0%d::/64", i+1)).Contains(nh) {
			return fib.Leg{Gateway: nh, IfIndex: index}, !s.down[i] && !s.seen[i]
		}
	}
	return fib.Leg{}, false
}

// expect reckons the legs of a prefix, and whether any could be used if the kernel took
// all of them.
func (s *sim) expect(p netip.Prefix) (legs []fib.Leg, usable bool) {
	legs, usable = s.expectBut(p, s.avoid)
	if len(legs) == 0 {
		legs, usable = s.expectBut(p, nil) // better than none
	}
	return legs, usable
}

func (s *sim) expectBut(p netip.Prefix, avoid map[fib.Leg]bool) (legs []fib.Leg, usable bool) {
	vias := s.set[p]
	for tier := 0; tier < 256 && len(legs) == 0; tier++ {
		for _, state := range []fib.SourceState{fib.SourceUp, fib.SourceStale} {
			if len(legs) > 0 {
				break
			}
			for _, v := range vias {
				leg, ok := s.leg(v.NextHop)
				if int(v.Tier) != tier || s.states[v.Source] != state || !ok || avoid[leg] {
					continue
				}
				usable = true
				if !s.bad[v.NextHop] && !slices.Contains(legs, leg) {
					legs = append(legs, leg)
				}
			}
		}
	}
	if slices.Contains(legs, fib.Blackhole) {
		legs = []fib.Leg{fib.Blackhole}
	}
	slices.SortFunc(legs, func(a, b fib.Leg) int { return a.Gateway.Compare(b.Gateway) })
	return legs[:min(len(legs), maxPaths)], usable
}

var errUnknown = errors.New("outcome unknown")

// apply does what Kernel.Apply does, one operation at a time, and looks at the kernel
// after each.
func (s *sim) apply(ops []fib.Op) (refused []fib.OpError, err error) {
	for i, op := range ops {
		if s.stop != nil && s.stop(i) {
			return nil, errUnknown
		}
		s.counts[op.Kind]++
		s.logf("  %s id %x %s members %x legs %v leg %v", op.Kind, op.ID&0xfff, op.Prefix, op.Members, op.Legs, op.Leg)
		var errno syscall.Errno
		if s.refuse != nil {
			errno = s.refuse(op)
		}
		if errno == 0 && op.Kind == fib.NextHopAdd && s.bad[op.Leg.Gateway] {
			errno = syscall.EINVAL
		}
		if errno != 0 {
			s.logf("    refused: %v", errno)
			refused = append(refused, fib.OpError{Index: i, Errno: errno})
			continue
		}
		before := s.dump().Routes
		r, err := s.k.Apply(ops[i : i+1])
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range r {
			s.logf("    refused: %v", e)
			e.Index = i
			refused = append(refused, e)
		}
		s.invariants(op, before)
	}
	return refused, nil
}

// invariants holds after every operation.
func (s *sim) invariants(op fib.Op, before map[netip.Prefix]fib.SnapshotRoute) {
	after := s.dump().Routes
	for p := range before {
		if _, ok := after[p]; ok {
			continue
		}
		if _, usable := s.expect(p); usable {
			s.fatalf("S22: %s took %s away, which has usable paths", op.Kind, p)
		}
		if s.tab.Held() && s.adopted[p] {
			s.fatalf("S25: %s took %s away during the hold", op.Kind, p)
		}
	}
	for p := range after {
		if _, ok := before[p]; !ok {
			delete(s.adopted, p) // our own
		}
	}
	for p, want := range s.foreign {
		found := false
		for _, r := range s.m.Routes(p, table) {
			found = found || r.Protocol == want.Protocol && r.Metric == want.Metric && slices.Equal(r.Legs, want.Legs)
		}
		if !found {
			s.fatalf("S19: %s touched the foreign route %s", op.Kind, p)
		}
	}
}

// cycle does one Plan, Apply, Done; ok is false when the outcome is unknown.
func (s *sim) cycle(max int) (wrote int, ok bool) {
	ops := s.tab.Plan(s.now, max)
	if len(ops) == 0 {
		return 0, true
	}
	refused, err := s.apply(ops)
	if err != nil {
		s.logf("  outcome unknown")
		return len(ops), false
	}
	s.tab.Done(s.now, refused)
	return len(ops), true
}

// run does cycles until nothing is pending, and returns the writes.
func (s *sim) run() (wrote int) {
	s.t.Helper()
	for n := 0; s.tab.Pending(); n++ {
		w, _ := s.cycle(1000)
		if wrote += w; n > 200 {
			s.fatalf("busy loop: still pending after %d cycles", n)
		}
	}
	return wrote
}

// settle lets time pass until only foreign routes and impossible next hops are waited for.
func (s *sim) settle() {
	s.t.Helper()
	s.refuse, s.stop = nil, nil
	s.resolve()
	for range 20 {
		s.now = s.now.Add(time.Minute)
		s.tab.RetryDue(s.now)
		s.run()
		if s.tab.Suspect() {
			s.load()
			s.run()
		}
	}
	if s.tab.Suspect() {
		s.fatalf("still suspect")
	}
}

// check compares the kernel with what it should hold, exactly.
func (s *sim) check() {
	s.t.Helper()
	snap := s.dump()
	usedGroups, usedHops := map[uint32]bool{}, map[uint32]bool{}
	for p, r := range snap.Routes {
		if len(s.set[p]) == 0 {
			s.fatalf("%s is in the kernel, and nobody wants it", p)
		}
		usedGroups[r.GroupID] = true
	}
	waiting := 0 // groups of routes that cannot be written at present
	for p, vias := range s.set {
		if _, taken := s.foreign[p]; taken && len(vias) > 0 {
			waiting++
		}
	}
	for id, members := range snap.Groups {
		if !usedGroups[id] {
			if waiting--; waiting < 0 {
				s.fatalf("leaked group %x", id)
			}
		}
		for _, m := range members {
			usedHops[m] = true
		}
	}
	for id, leg := range snap.NextHops {
		if !usedHops[id] {
			s.fatalf("leaked next hop %x (%s)", id, leg)
		}
	}
	for p := range s.set {
		want, usable := s.expect(p)
		if usable && len(want) == 0 {
			continue // the kernel refuses every leg: there or not, as it was
		}
		r, ok := snap.Routes[p]
		_, taken := s.foreign[p]
		if ok != (len(want) > 0 && !taken) {
			s.fatalf("%s in the kernel: %t, want legs %v, foreign %t", p, ok, want, taken)
		}
		if !ok {
			continue
		}
		if got := s.legs(snap, r); !slices.Equal(got, want) {
			s.fatalf("%s has legs %v, want %v", p, got, want)
		}
		e, _ := s.tab.Entry(p)
		if !e.InSync || !slices.Equal(e.Kernel, want) || e.Failure != nil {
			s.fatalf("Entry(%s) = %+v, want in sync with %v", p, e, want)
		}
	}
	if c := s.tab.Counts(); c.Present != len(snap.Routes) || c.Groups < len(snap.Groups) || c.NextHops != len(snap.NextHops) || c.Pending != 0 {
		s.fatalf("Counts() = %+v, the kernel has %d routes, %d groups, %d next hops", c, len(snap.Routes), len(snap.Groups), len(snap.NextHops))
	}
	if n := s.run(); n != 0 {
		s.fatalf("%d writes to what is in order", n)
	}
	if drift := s.load(); drift != 0 {
		s.fatalf("Load found %d routes other than believed", drift)
	}
	if n := s.run(); n != 0 {
		s.fatalf("%d writes after a Load of what is in order", n)
	}
}

func (s *sim) legs(snap fib.Snapshot, r fib.SnapshotRoute) []fib.Leg {
	legs := slices.Clone(r.Legs)
	for _, m := range snap.Groups[r.GroupID] {
		legs = append(legs, snap.NextHops[m])
	}
	slices.SortFunc(legs, func(a, b fib.Leg) int { return a.Gateway.Compare(b.Gateway) })
	return legs
}

func (s *sim) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *sim) fatalf(format string, args ...any) {
	s.t.Helper()
	if len(s.log) > 300 {
		s.log = s.log[len(s.log)-300:]
	}
	s.t.Fatalf("%s\nclassic: %t\n%s", fmt.Sprintf(format, args...), s.classic, strings.Join(s.log, "\n"))
}

// foreignRoute makes somebody else's route with our table and metric.
func (s *sim) addForeign(p netip.Prefix) {
	r := fib.Route{Prefix: p, Table: table, Metric: metric, Protocol: 4, Type: 1, Legs: []fib.Leg{{Gateway: nhs(p, 90), IfIndex: s.links[0]}}}
	s.foreign[p] = r
	s.m.ReplaceRoute(r) // takes ours over, if it is there
	s.tab.Lost(p)
	s.tab.Retry(p)
}

func (s *sim) delForeign(p netip.Prefix) {
	if r, ok := s.foreign[p]; ok {
		delete(s.foreign, p)
		s.m.DelRoute(r)
		s.tab.Lost(p)
		s.tab.Retry(p)
	}
}

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.Intn(n) == 0 }
