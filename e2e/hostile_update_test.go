package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// What an attack leads to. Before it, the hostile peer has announced a prefix; the
// attack's UPDATE announces it again, with a community.
type outcome struct {
	path string // of the prefix, at the witness: old, new or none
	// reset is the NOTIFICATION of a reset, "3/1" or with its data in hexadecimal "1/2 0012";
	// hangup says that the connection ends without one.
	reset  string
	hangup bool
	fault  string // what the daemon counts: a reaction, or nothing
}

var (
	accepted  = outcome{path: "new"}
	discarded = outcome{path: "new", fault: "attribute-discard"}
	withdrawn = outcome{path: "none", fault: "treat-as-withdraw"}
	ignored   = outcome{path: "old", fault: "ignored"}
	untouched = outcome{path: "old"}
	hungUp    = outcome{path: "none", hangup: true}
)

func resets(notification string) outcome {
	return outcome{path: "none", reset: notification, fault: "session-reset"}
}

// counted is o with another count.
func (o outcome) counted(fault string) outcome {
	o.fault = fault
	return o
}

// attack is a case on an established session. Exactly one of send, attribute and
// attribute6 is set.
type attack struct {
	name, rfc string // a name that begins with "IPv6, " says which prefix it is about
	// attribute is sent in an UPDATE that is fine otherwise, in the place of the good one of
	// its type where there is one. Of attribute6 the UPDATE is for an IPv6 prefix.
	attribute, attribute6 string
	send                  func(shot) []byte
	open                  func(*nva.Options) // what the session offers, where it matters
	want                  outcome
}

// shot is what an attack aims at: a prefix of either family.
type shot struct {
	four, six netip.Prefix
	i         int
}

func (x shot) prefix(six bool) netip.Prefix {
	if six {
		return x.six
	}
	return x.four
}

// Attributes, in hexadecimal. The next hops are the good appliance's: of a third party,
// and reachable (S11).
const (
	goodOrigin = "40 01 01 00"
	goodPath   = "40 02 06 02 01 0000fc9a"
	goodHop    = "40 03 04 0a010004"
	goodMark   = "c0 08 04 fc9a0007"
	hop6       = "20010db8 00010000 00000000 00000004"
)

// mark is the community in goodMark.
const mark = nva.Community(0xfc9a0007)

func (x shot) nlri() []byte  { return nva.AppendPrefix(nil, x.four) }
func (x shot) nlri6() []byte { return nva.AppendPrefix(nil, x.six) }

// reach6 is MP_REACH_NLRI for the IPv6 prefix.
func (x shot) reach6() []byte {
	return nva.AppendAttr(nil, 0x80, 14, cat(octets("0002 01 10"+hop6+"00"), x.nlri6()))
}

// update is an UPDATE for the IPv4 prefix with attributes in hexadecimal.
func (x shot) update(attributes ...string) []byte {
	return nva.UpdateMessage(nil, octets(strings.Join(attributes, "")), x.nlri())
}

// update6 is the same for the IPv6 prefix, with MP_REACH_NLRI first.
func (x shot) update6(attributes ...string) []byte {
	return nva.UpdateMessage(nil, cat(x.reach6(), octets(strings.Join(attributes, ""))), nil)
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// with puts an attribute in the place of the good one of its type, or at the end.
func with(attribute string, good ...string) []string {
	typ := strings.ReplaceAll(attribute, " ", "")[2:4]
	for i, g := range good {
		if strings.ReplaceAll(g, " ", "")[2:4] == typ {
			good[i] = attribute
			return good
		}
	}
	return append(good, attribute)
}

// bytes is what the attack sends.
func (a attack) bytes(x shot) []byte {
	switch {
	case a.send != nil:
		return a.send(x)
	case a.attribute6 != "":
		return x.update6(with(a.attribute6, goodOrigin, goodPath, goodMark)...)
	}
	return x.update(with(a.attribute, goodOrigin, goodPath, goodHop, goodMark)...)
}

// launch runs one attack: announce, attack, and see what became of it.
func (h *besieged) launch(t *testing.T, i int, a attack, e *evil) {
	x := shot{four: casePrefix(i), six: casePrefix6(i), i: i}
	target := x.prefix(a.attribute6 != "" || strings.HasPrefix(a.name, "IPv6, "))
	h.establish(t, e, a.open)
	if a.open != nil {
		defer h.leave(e)
	}
	before := h.peerOf(t, e.name).Faults
	seen := h.witness.Received()
	first := nva.Attrs{ASPath: nva.Seq(evilASN), NextHop: lab.SeedNVA(0)}
	if target.Addr().Is6() {
		first.NextHop = netip.MustParseAddr("2001:db8:1::4")
	}
	if a.open == nil || h.negotiated(e, target) {
		must(t, e.s.Announce(first, target))
		value(seen.WaitPath(within(t), target, nil))(t)
	} else if a.want.path == "old" {
		a.want.path = "none" // it never was
	}

	if err := e.s.Write(a.bytes(x)); err != nil && a.want.reset == "" {
		t.Fatalf("%s: send: %v", a.rfc, err)
	}
	if a.want.reset != "" || a.want.hangup {
		h.wantEnd(t, a, e)
		h.leave(e)
	} else {
		h.settle(t, a, e, i)
	}
	h.wantPath(t, a, target)
	h.wantFaults(t, a, e, before)
	if e.s != nil {
		for _, p := range []netip.Prefix{x.four, x.six} {
			if h.negotiated(e, p) {
				must(t, e.s.Withdraw(p))
			}
		}
		must(t, errors.Join(seen.WaitGone(within(t), x.four), seen.WaitGone(within(t), x.six)))
	}
}

// negotiated tells whether the session is for prefixes of that family.
func (h *besieged) negotiated(e *evil, p netip.Prefix) bool {
	for _, f := range e.families() {
		if f == nva.FamilyOf(p) {
			return true
		}
	}
	return false
}

// settle waits until all that was sent has been dealt with, and what came of it is at the
// witness: another prefix comes and goes after it. Sessions keep the order.
func (h *besieged) settle(t *testing.T, a attack, e *evil, i int) {
	t.Helper()
	marker, seen := markerPrefix(i), h.witness.Received()
	if !h.negotiated(e, marker) {
		return // wantFaults waits
	}
	attrs := nva.Attrs{ASPath: nva.Seq(evilASN), NextHop: lab.SeedNVA(0)}
	err := e.s.Announce(attrs, marker)
	if err == nil {
		_, err = seen.WaitPath(within(t), marker, nil)
	}
	if err == nil {
		err = e.s.Withdraw(marker)
	}
	if err == nil {
		err = seen.WaitGone(within(t), marker)
	}
	if err != nil {
		select {
		case <-e.s.Done():
			err = errors.Join(err, e.s.Err())
		default:
		}
		t.Fatalf("%s: the session is to stay: %v", a.rfc, err)
	}
}

func (h *besieged) wantEnd(t *testing.T, a attack, e *evil) {
	t.Helper()
	select {
	case <-e.s.Done():
	case <-within(t).Done():
		t.Fatalf("%s: the session stays, want NOTIFICATION %s", a.rfc, a.want.reset)
	}
	n, ok := notification(e.s.Err())
	got := fmt.Sprintf("%d/%d", n.Code, n.Subcode)
	if strings.Contains(a.want.reset, " ") {
		got += fmt.Sprintf(" %x", n.Data)
	}
	if ok == a.want.hangup || !a.want.hangup && got != a.want.reset {
		t.Errorf("%s: the session ended with %v, want %+v", a.rfc, e.s.Err(), a.want)
	}
}

func (h *besieged) wantPath(t *testing.T, a attack, p netip.Prefix) {
	t.Helper()
	poll(t, a.rfc+": the path is "+a.want.path, func() error {
		path, ok := h.witness.Received().Path(p)
		got := "none"
		if ok {
			got = "old"
			for _, c := range path.Attrs.Communities {
				if c == mark {
					got = "new"
				}
			}
		}
		if got != a.want.path {
			return fmt.Errorf("the witness has %s: %+v", got, path.Attrs)
		}
		return nil
	})
}

// wantFaults waits until the daemon counts what was wrong: that, and nothing else.
func (h *besieged) wantFaults(t *testing.T, a attack, e *evil, before map[string]uint64) {
	t.Helper()
	poll(t, a.rfc+": count of faults", func() error {
		var got []string
		for reaction, n := range h.peerOf(t, e.name).Faults {
			if n > before[reaction] {
				got = append(got, fmt.Sprintf("%s %d", reaction, n-before[reaction]))
			}
		}
		want := []string(nil)
		if a.want.fault != "" {
			want = []string{a.want.fault + " 1"}
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			return fmt.Errorf("counted %q, want %q", got, want)
		}
		return nil
	})
}

// families are those of the present session.
func (e *evil) families() []nva.Family { return e.s.Offered().Families }
