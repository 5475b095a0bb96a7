package rib

import (
	"testing"
)

// RFC 2439: a path that flaps is held back when it is announced again, until its penalty
// has decayed.
func TestDamping(t *testing.T) {
	const src, half = 3, 900
	p, q := pfx("192.168.1.0/24"), pfx("192.168.2.0/24")
	d := Damping{HalfLife: half, Suppress: 2500, Reuse: 750, Most: 12000}
	a, b := &Attrs{}, &Attrs{MED: 1}
	now := int64(1_000_000)
	table := NewTable()
	table.SetDamping(src, &d)
	do := func(at *Attrs) {
		t.Helper()
		changes := []Change{{p, at}}
		table.Flapped(src, changes, now)
		table.Update(src, changes, now)
		table.Next(nil, 10)
	}
	want := func(when string, damped bool) {
		t.Helper()
		paths := table.Paths(p)
		if len(paths) != 1 || paths[0].Damped != damped {
			t.Errorf("%s: %+v, want damped %t", when, paths, damped)
		}
		_, left := table.DampedFor(src, p, now)
		if (left > 0) != damped {
			t.Errorf("%s: damped for %d s more", when, left)
		}
	}
	do(a)
	want("new", false)
	for range 20 {
		do(b)
		do(a)
	}
	want("replaced many times", false)
	if table.Flapping() {
		t.Error("an implicit replace counts as a flap")
	}
	for range 2 {
		do(nil)
		do(a)
		want("two flaps", false)
	}
	do(nil)
	do(nil) // of what is not there
	do(a)
	want("three flaps", true)
	if penalty, left := table.DampedFor(src, p, now); penalty != 3000 || left != 2*half {
		t.Errorf("penalty %d, damped for %d s, want 3000, %d", penalty, left, 2*half)
	}
	do(b) // takes the place of the one held back, and is held back
	want("replaced while damped", true)
	if table.Paths(p)[0].Attrs != b {
		t.Error("the replacement is delayed")
	}

	now += 2*half - 10
	if !table.Reuse(now) || table.Dirty() != 0 {
		t.Error("used again too early")
	}
	want("nearly", true)
	now += 20
	table.Reuse(now)
	want("decayed", false)
	if got := table.Next(nil, 10); len(got) != 1 || got[0].Prefix != p {
		t.Errorf("dirty: %v", got)
	}
	now += 10 * half
	if table.Reuse(now) || table.Flapping() {
		t.Error("remembered for ever")
	}

	// The penalty has a ceiling, so that the wait has one.
	for range 50 {
		do(nil)
		do(b)
	}
	if penalty, left := table.DampedFor(src, p, now); penalty != 12000 || left != 4*half {
		t.Errorf("penalty %d, damped for %d s, want 12000, %d", penalty, left, 4*half)
	}
	table.SetDamping(src, nil)
	want("switched off", false)
	if table.Dirty() != 1 {
		t.Error("not looked at again")
	}

	// Other sources and prefixes are nobody's business.
	table.SetDamping(src, &d)
	table.Flapped(src+1, []Change{{q, nil}}, now)
	table.Flapped(src, []Change{{q, nil}}, now)
	if table.Flapping() {
		t.Error("a withdrawal of nothing is remembered")
	}
}
