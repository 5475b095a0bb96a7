package fibtest

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
)

// harness adapts a Machine's Open to the Harness interface.
type harness struct{ *Machine }

func (h harness) Open(owner fib.Owner, classic bool) fib.Kernel {
	return h.Machine.Open(owner, classic)
}

func TestContract(t *testing.T) {
	RunContract(t, func(*testing.T) Harness { return harness{NewMachine()} })
}

func newKernel() (*Machine, *Kernel, []fib.Op) {
	m := NewMachine()
	v0 := m.AddLink("v0", netip.MustParsePrefix("10.0.0.1/24"))
	ops := []fib.Op{
		{Kind: fib.NextHopAdd, ID: first + 1, Leg: fib.Leg{Gateway: addr("10.0.0.2"), IfIndex: v0}},
		{Kind: fib.GroupAdd, ID: first + 10, Members: []uint32{first + 1}},
		route(fib.RouteAdd, prefix("10.9.0.0/24"), first+10),
	}
	return m, m.Open(owner, false), ops
}

func TestFailOp(t *testing.T) {
	_, k, ops := newKernel()
	k.FailOp(1, syscall.ENOMEM, "no luck")
	refused, err := k.Apply(ops)
	want := []fib.OpError{
		{Index: 1, Errno: syscall.ENOMEM, Text: "no luck"},
		{Index: 2, Errno: syscall.EINVAL, Text: "Nexthop id does not exist"}, // a consequence
	}
	if err != nil || !slices.Equal(refused, want) {
		t.Errorf("refused %+v, err %v, want %+v", refused, err, want)
	}
	if refused, err = k.Apply(ops[1:]); err != nil || refused != nil {
		t.Errorf("second time: refused %+v, err %v", refused, err)
	}
	if got := k.TakeOps(); len(got) != 5 || len(k.TakeOps()) != 0 {
		t.Errorf("%d operations logged, want 5, once", len(got))
	}
	k.FailOps(func(_ int, op fib.Op) *fib.OpError {
		if op.Kind == fib.RouteDel {
			return &fib.OpError{Errno: syscall.EBUSY}
		}
		return nil
	})
	for range 2 {
		if refused, _ = k.Apply([]fib.Op{route(fib.RouteDel, prefix("10.9.0.0/24"), 0)}); len(refused) != 1 {
			t.Errorf("refused %+v, want every delete to fail", refused)
		}
	}
}

func TestBreakAfter(t *testing.T) {
	_, k, ops := newKernel()
	broken := errors.New("broken")
	k.BreakAfter(2, broken)
	if _, err := k.Apply(ops); err != broken {
		t.Fatalf("err = %v, want %v", err, broken)
	}
	s, err := k.Dump(nil)
	if err != nil || len(s.NextHops) != 1 || len(s.Groups) != 1 || len(s.Routes) != 0 {
		t.Errorf("after two operations: %+v, err %v", s, err)
	}
	if refused, err := k.Apply(ops[2:]); err != nil || refused != nil {
		t.Errorf("second time: refused %+v, err %v", refused, err)
	}
}

func TestReadErrors(t *testing.T) {
	_, k, _ := newKernel()
	broken := errors.New("broken")
	k.FailDump(broken)
	k.FailHost(broken)
	k.FailLookup(broken)
	for i, want := range []error{broken, nil} {
		if _, err := k.Dump(nil); err != want {
			t.Errorf("Dump, call %d: %v", i, err)
		}
		if _, err := k.Host(); err != want {
			t.Errorf("Host, call %d: %v", i, err)
		}
		if _, err := k.Lookup(prefix("10.9.0.0/24")); err != want {
			t.Errorf("Lookup, call %d: %v", i, err)
		}
	}
}
