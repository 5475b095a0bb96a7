package bfd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wire joins two sessions in virtual time.
type wire struct {
	t     *testing.T
	ends  [2]*session
	now   time.Duration
	delay time.Duration
	lost  func(to int) bool
	air   []flight
	log   []string
	gaps  [2]time.Duration // the longest between packets sent while Up
}

type flight struct {
	at time.Duration
	to int
	b  []byte
}

func newWire(t *testing.T, a, b params, rnd func() float64) *wire {
	return &wire{t: t, ends: [2]*session{newSession(a, 11, 100, rnd), newSession(b, 22, 200, rnd)}, delay: 5 * ms, lost: func(int) bool { return false }}
}

func (w *wire) note(end int, c change) {
	if c.happened() {
		w.log = append(w.log, fmt.Sprintf("%d %s>%s (%d)", end, c.from, c.to, c.diag))
	}
}

// run lets the time pass until then.
func (w *wire) run(until time.Duration) {
	w.t.Helper()
	for steps := 0; ; steps++ {
		if steps > 1_000_000 {
			w.t.Fatal("time stands still")
		}
		next := until
		for _, s := range w.ends {
			next = min(next, max(w.now, min(s.due(), s.expiry())))
		}
		if len(w.air) > 0 {
			next = min(next, w.air[0].at)
		}
		w.now = next
		for len(w.air) > 0 && w.air[0].at <= w.now {
			f := w.air[0]
			w.air = w.air[1:]
			p, err := parse(f.b)
			if err != nil {
				w.t.Fatalf("parse %x: %v", f.b, err)
			}
			s := w.ends[f.to]
			if p.Yours != 0 && p.Yours != s.local {
				continue
			}
			c, drop, err := s.receive(w.now, &p)
			if drop != accepted && drop != DropAuthSequence { // that is how a restart looks at first
				w.t.Fatalf("%d dropped %+v: %v", f.to, p, err)
			}
			w.note(f.to, c)
		}
		for i, s := range w.ends {
			w.note(i, s.expire(w.now))
			last, wasUp := s.lastTX, s.state == Up && s.sent
			if p, ok := s.transmit(w.now); ok {
				if wasUp {
					w.gaps[i] = max(w.gaps[i], w.now-last)
				}
				if !w.lost(1 - i) {
					w.air = append(w.air, flight{w.now + w.delay, 1 - i, p.appendTo(nil)})
				}
			}
		}
		if w.now >= until {
			return
		}
	}
}

func (w *wire) want(log ...string) {
	w.t.Helper()
	slices.Sort(w.log) // both act at the same moment
	slices.Sort(log)
	if !slices.Equal(w.log, log) {
		w.t.Errorf("at %s: %q, want %q", w.now, w.log, log)
	}
	w.log = nil
}

func TestTwoSessions(t *testing.T) {
	auth := &Auth{Type: MeticulousSHA1, KeyID: 1, Key: []byte("k")}
	w := newWire(t, params{300 * ms, 3, auth}, params{50 * ms, 5, auth}, rand.New(rand.NewPCG(3, 4)).Float64)
	a, b := w.ends[0], w.ends[1]
	w.run(3 * time.Second)
	w.want("0 down>init (0)", "1 down>init (0)", "1 init>up (0)", "0 init>up (0)")
	if a.detectionTime() != 5*300*ms || b.detectionTime() != 3*300*ms || a.poll != pollIdle || b.poll != pollIdle {
		t.Errorf("detection times %s and %s, polls %d and %d", a.detectionTime(), b.detectionTime(), a.poll, b.poll)
	}

	// Shorter and longer, many times, without losing the session. Packets get lost, too.
	n := 0
	w.lost = func(int) bool { n++; return n%7 == 0 }
	for i, interval := range []time.Duration{50 * ms, 2 * time.Second, 10 * ms, 10 * time.Second, 100 * ms} {
		a.configure(params{interval, 4, auth})
		w.run(w.now + time.Duration(50+i)*time.Second)
		if a.txInterval() != max(interval, 50*ms) || a.detectionTime() != 5*max(interval, 50*ms) || b.detectionTime() != 4*max(interval, 50*ms) {
			t.Errorf("%s: sends every %s, detects in %s and %s", interval, a.txInterval(), a.detectionTime(), b.detectionTime())
		}
	}
	w.want()
	w.lost = func(int) bool { return false }

	// One way is cut: who hears nothing says so, and the other believes it.
	w.lost = func(to int) bool { return to == 1 }
	start := w.now
	w.run(start + 4*100*ms + w.delay)
	w.run(start + time.Second)
	w.want("1 up>down (1)", "0 up>down (3)")
	w.lost = func(int) bool { return false }
	w.run(w.now + 5*time.Second)
	if a.state != Up || b.state != Up {
		t.Errorf("%s and %s after the cut: %q", a.state, b.state, w.log)
	}

	// The peer restarts with another discriminator, and is found again.
	w.ends[1] = newSession(params{50 * ms, 5, auth}, 33, 5_000_000, half)
	w.run(w.now + 5*time.Second)
	if a.state != Up || w.ends[1].state != Up || a.remote != 33 {
		t.Errorf("after the restart: %s and %s, remote %d; %q", a.state, w.ends[1].state, a.remote, w.log)
	}
}

// A session that stays Up never pauses for longer than the interval that its peer counts
// with, whatever is reconfigured when: else the peer would see a failure.
func TestReconfiguringAtRandomKeepsTheSession(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		w := newWire(t, params{300 * ms, 1, nil}, params{300 * ms, 1, nil}, rng.Float64)
		w.run(5 * time.Second)
		w.log = nil
		for range 200 {
			s := w.ends[rng.IntN(2)]
			s.configure(params{time.Duration(50+rng.IntN(3000)) * ms, 1, nil})
			w.run(w.now + time.Duration(rng.IntN(3000))*ms)
		}
		if len(w.log) > 0 {
			t.Errorf("seed %d: %q", seed, w.log)
		}
	}
}
