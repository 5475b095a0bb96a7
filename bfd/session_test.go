package bfd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

// half is a source of randomness without any.
func half() float64 { return 0.5 }

// peerPacket is what a peer with 300 ms x 3 would send.
func peerPacket(state State) packet {
	return packet{State: state, Multiplier: 3, Mine: 99, Yours: 1, DesiredMinTX: 300 * ms, RequiredMinRX: 300 * ms}
}

// in brings a new session into a state. The time is 0, nothing is due.
func in(t *testing.T, state State, p params) *session {
	t.Helper()
	s := newSession(p, 1, 1000, half)
	script := map[State][]State{Down: nil, Init: {Down}, Up: {Down, Init}, AdminDown: nil}[state]
	for _, remote := range script {
		give(t, s, 0, remote)
	}
	if state == AdminDown {
		s.setAdmin(true)
	}
	s.remote = 99
	s.transmit(0)
	for now := minGap; s.changed || s.final; now += minGap {
		s.transmit(now)
	}
	if s.state != state {
		t.Fatalf("brought to %s, is %s", state, s.state)
	}
	return s
}

func give(t *testing.T, s *session, at time.Duration, state State, edits ...func(*packet)) change {
	t.Helper()
	p := peerPacket(state)
	for _, e := range edits {
		e(&p)
	}
	if s.auth != nil && p.Auth.Type == 0 {
		p.Auth = authSection{Type: s.auth.Type, KeyID: s.auth.KeyID, Sequence: s.rcvSeq + 1}
		p.Auth.Digest = digest(&p, s.auth.Key)
	}
	c, drop, err := s.receive(at, &p)
	if drop != accepted {
		t.Fatalf("%s dropped: %s, %v", state, drop, err)
	}
	return c
}

// RFC 5880 section 6.8.6, the state machine; section 6.2 draws it.
func TestStateTable(t *testing.T) {
	tests := []struct {
		local, remote, want State
		diag                Diag
	}{
		{Down, AdminDown, Down, DiagNone},
		{Down, Down, Init, DiagNone},
		{Down, Init, Up, DiagNone},
		{Down, Up, Down, DiagNone},
		{Init, AdminDown, Down, DiagNeighborDown},
		{Init, Down, Init, DiagNone},
		{Init, Init, Up, DiagNone},
		{Init, Up, Up, DiagNone},
		{Up, AdminDown, Down, DiagNeighborDown},
		{Up, Down, Down, DiagNeighborDown},
		{Up, Init, Up, DiagNone},
		{Up, Up, Up, DiagNone},
		{AdminDown, AdminDown, AdminDown, DiagAdminDown},
		{AdminDown, Down, AdminDown, DiagAdminDown},
		{AdminDown, Init, AdminDown, DiagAdminDown},
		{AdminDown, Up, AdminDown, DiagAdminDown},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s receives %s", tt.local, tt.remote), func(t *testing.T) {
			s := in(t, tt.local, params{interval: 300 * ms, multiplier: 3})
			c := give(t, s, 10*ms, tt.remote)
			if s.state != tt.want || s.diag != tt.diag {
				t.Errorf("is %s (%s), want %s (%s)", s.state, s.diag, tt.want, tt.diag)
			}
			if c.happened() != (tt.local != tt.want) || c.happened() && (c.from != tt.local || c.to != tt.want) {
				t.Errorf("reported %+v", c)
			}
			// Section 6.8.7: a change is told at once, not with the next periodic packet.
			if p, ok := s.transmit(10 * ms); ok != c.happened() || ok && (p.State != tt.want || p.Diag != tt.diag || p.Yours != 99) {
				t.Errorf("sent %+v, %v", p, ok)
			}
			if s.remote != 99 || s.remoteState != tt.remote {
				t.Errorf("remote %d %s, want 99 %s", s.remote, s.remoteState, tt.remote)
			}
		})
	}
}

// Section 6.8.4: in Init and Up the session goes Down with diagnostic 1; section 6.8.1:
// in any state the peer's discriminator is forgotten.
func TestDetection(t *testing.T) {
	for _, state := range []State{Init, Up, AdminDown, Down} {
		s := in(t, state, params{interval: 100 * ms, multiplier: 5})
		if state == AdminDown || state == Down {
			give(t, s, 0, AdminDown)
		}
		// The peer's multiplier times the slower of our wish and its own.
		const want = 3 * 300 * ms
		if got := s.expiry(); got != want {
			t.Errorf("%s: expires at %s, want %s", state, got, want)
		}
		if c := s.expire(want - 1); c.happened() || s.remote != 99 {
			t.Errorf("%s: %+v before the Detection Time, remote %d", state, c, s.remote)
		}
		c := s.expire(want)
		if s.remote != 0 {
			t.Errorf("%s: remote discriminator %d after the Detection Time, want 0", state, s.remote)
		}
		if state == Init || state == Up {
			if c != (change{state, Down, DiagTimeExpired}) {
				t.Errorf("%s: expire: %+v", state, c)
			}
		} else if c.happened() || s.state != state {
			t.Errorf("%s: expire: %+v, is %s", state, c, s.state)
		}
		if s.expiry() != never {
			t.Errorf("%s: expires again at %s", state, s.expiry())
		}
	}
}

// A packet that was there before the expiry was acted on is proof of life, and its own
// time of arrival counts from then on.
func TestDetectionCountsFromArrival(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	give(t, s, 950*ms, Up) // due at 900, and late
	if c := s.expire(1800 * ms); c.happened() {
		t.Errorf("expire: %+v", c)
	}
	if got, want := s.expiry(), 1850*ms; got != want {
		t.Errorf("expires at %s, want %s", got, want)
	}
	give(t, s, 500*ms, Up) // the clock of arrivals was set back
	if got, want := s.expiry(), 1850*ms; got != want {
		t.Errorf("expires at %s after an older packet, want %s", got, want)
	}
}

// Section 6.8.3: at least a second between packets while not Up, and the configured
// interval from the moment it is; jitter as section 6.8.7 says.
func TestIntervalsAndJitter(t *testing.T) {
	tests := []struct {
		multiplier uint8
		low, high  float64
	}{{1, 0.75, 0.90}, {2, 0.75, 1}, {3, 0.75, 1}}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tt := range tests {
		for _, state := range []State{Down, Init, Up, AdminDown} {
			s := in(t, state, params{interval: 300 * ms, multiplier: tt.multiplier})
			interval := time.Second
			if state == Up {
				interval = 300 * ms
			}
			s.rand = rng.Float64
			now, least, most := s.due(), never, time.Duration(0)
			s.transmit(now)
			for range 2000 {
				gap := s.due() - now
				least, most = min(least, gap), max(most, gap)
				now = s.due()
				if p, ok := s.transmit(now); !ok || p.DesiredMinTX != interval || p.RequiredMinRX != 300*ms {
					t.Fatalf("%s: sent %+v, %v", state, p, ok)
				}
			}
			low, high := time.Duration(tt.low*float64(interval)), time.Duration(tt.high*float64(interval))
			spread := (high - low) / 20
			if least < low || least > low+spread || most > high || most < high-spread {
				t.Errorf("%s, multiplier %d: gaps from %s to %s, want %s to %s", state, tt.multiplier, least, most, low, high)
			}
		}
	}
}

// Section 6.8.2: each direction at the pace of its slower side, at once.
func TestNegotiation(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	answer(t, s, 10*ms)
	slower := func(p *packet) { p.RequiredMinRX, p.DesiredMinTX, p.Multiplier = 500*ms, 700*ms, 4 }
	give(t, s, 20*ms, Up, slower)
	if s.txInterval() != 500*ms || s.detectionTime() != 4*700*ms {
		t.Errorf("sends every %s, detects in %s", s.txInterval(), s.detectionTime())
	}
	due := s.due()
	give(t, s, 30*ms, Up, func(p *packet) { p.RequiredMinRX = 100 * ms })
	if s.txInterval() != 300*ms {
		t.Errorf("sends every %s, want its own 300 ms", s.txInterval())
	}
	// Section 6.8.3: no longer wait than the new interval since the last packet.
	s.transmit(due) // at whatever had been planned
	give(t, s, due, Up, func(p *packet) { p.RequiredMinRX = 900 * ms })
	s.transmit(s.due())
	last := s.lastTX
	give(t, s, last+ms, Up)
	if got := s.due(); got > last+300*ms {
		t.Errorf("next packet at %s after the last, want at most 300 ms", got-last)
	}
	// Section 6.8.7: none at all.
	give(t, s, last+2*ms, Up, func(p *packet) { p.RequiredMinRX = 0 })
	if s.due() != never {
		t.Errorf("next packet at %s with Required Min RX 0", s.due())
	}
	give(t, s, last+3*ms, Up, func(p *packet) { p.RequiredMinRX, p.Poll = 0, true })
	if p, ok := s.transmit(last + 3*ms); !ok || !p.Final {
		t.Errorf("answer to a Poll with Required Min RX 0: %+v, %v", p, ok)
	}
}

// answer lets the peer answer our Poll, and send a packet without Final after it.
func answer(t *testing.T, s *session, at time.Duration) {
	t.Helper()
	if p, ok := s.transmit(max(s.due(), at)); !ok || !p.Poll {
		t.Fatalf("sent %+v, %v, want a Poll", p, ok)
	}
	give(t, s, at, Up, func(p *packet) { p.Final = true })
	give(t, s, at, Up)
}

// Section 6.8.3: an increased Desired Min TX, and a reduced Required Min RX, are
// announced in a Poll Sequence and come into force with its Final; the other way round,
// at once.
func TestPollSequence(t *testing.T) {
	tests := []struct {
		name                  string
		from, to              time.Duration
		txBefore, detectFirst time.Duration // until the Final
	}{
		{"slower", 300 * ms, 900 * ms, 300 * ms, 3 * 900 * ms},
		{"faster", 900 * ms, 300 * ms, 300 * ms, 3 * 900 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := in(t, Up, params{interval: tt.from, multiplier: 3})
			answer(t, s, 10*ms)
			s.configure(params{interval: tt.to, multiplier: 5})
			if s.state != Up || s.txInterval() != tt.txBefore || s.detectionTime() != tt.detectFirst {
				t.Errorf("before Final: %s, sends every %s, detects in %s; want %s and %s", s.state, s.txInterval(), s.detectionTime(), tt.txBefore, tt.detectFirst)
			}
			give(t, s, 20*ms, Up, func(p *packet) { p.Final = true }) // no Poll was sent yet
			if s.poll != pollActive {
				t.Error("a Final without a Poll has ended the Poll Sequence")
			}
			for range 2 { // repeated until answered
				if p, ok := s.transmit(s.due() + 50*ms); !ok || !p.Poll || p.Final || p.DesiredMinTX != tt.to || p.RequiredMinRX != tt.to || p.Multiplier != 5 {
					t.Errorf("sent %+v, %v", p, ok)
				}
			}
			// A Final and a Poll are never in one packet (section 6.5).
			give(t, s, 400*ms, Up, func(p *packet) { p.Poll = true })
			if p, ok := s.transmit(s.lastTX + minGap); !ok || !p.Final || p.Poll {
				t.Errorf("answer to the peer's Poll during ours: %+v, %v", p, ok)
			}
			if p, ok := s.transmit(s.due()); !ok || !p.Poll {
				t.Errorf("after it: %+v, %v; want our Poll again", p, ok)
			}
			give(t, s, 500*ms, Up, func(p *packet) { p.Final = true })
			if s.txInterval() != max(tt.to, 300*ms) || s.detectionTime() != 3*tt.to {
				t.Errorf("after Final: sends every %s, detects in %s", s.txInterval(), s.detectionTime())
			}
			if p, ok := s.transmit(s.due()); !ok || p.Poll {
				t.Errorf("after Final: %+v, %v", p, ok)
			}
		})
	}
}

// Section 6.8.3 on changes spread over several packets: a second Poll Sequence waits for
// the end of the first, and for a packet without Final.
func TestSecondPollSequenceWaits(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	answer(t, s, 10*ms)
	s.configure(params{interval: 500 * ms, multiplier: 3})
	s.transmit(s.due() + 10*ms)
	s.configure(params{interval: 700 * ms, multiplier: 3})
	if p, _ := s.transmit(s.due()); p.DesiredMinTX != 500*ms {
		t.Errorf("sent %s during the first Poll Sequence, want 500 ms still", p.DesiredMinTX)
	}
	give(t, s, 800*ms, Up, func(p *packet) { p.Final = true })
	s.configure(params{interval: 800 * ms, multiplier: 3})
	if s.desiredTX != 500*ms || s.txInterval() != 500*ms {
		t.Errorf("announces %s, sends every %s before a packet without Final; want 500 ms", s.desiredTX, s.txInterval())
	}
	give(t, s, 900*ms, Up)
	if s.desiredTX != 800*ms || s.txInterval() != 500*ms || s.poll != pollActive {
		t.Errorf("announces %s, sends every %s; want 800 ms and 500 ms", s.desiredTX, s.txInterval())
	}
	// What waits is void when the session goes down.
	s.configure(params{interval: 900 * ms, multiplier: 3})
	give(t, s, 950*ms, Down)
	if s.held || s.desiredTX != time.Second || s.txInterval() != time.Second || s.rxInUse != 900*ms {
		t.Errorf("down: held %v, announces %s, sends every %s, receives every %s", s.held, s.desiredTX, s.txInterval(), s.rxInUse)
	}
}

// Section 6.6: a peer in demand mode gets no periodic packets while both are Up, save
// our own Polls.
func TestRemoteDemand(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	demand := func(p *packet) { p.Demand = true }
	give(t, s, 10*ms, Up, demand)
	if s.due() == never {
		t.Error("our Poll Sequence has stopped")
	}
	s.transmit(s.due())
	give(t, s, 20*ms, Up, demand, func(p *packet) { p.Final = true })
	if s.due() != never {
		t.Errorf("next packet at %s", s.due())
	}
	give(t, s, 30*ms, Init, demand)
	if s.due() == never {
		t.Error("no packets to a peer that is not Up")
	}
}

// Section 6.8.16, both ways.
func TestAdminDown(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	if c := s.setAdmin(true); c != (change{Up, AdminDown, DiagAdminDown}) {
		t.Errorf("setAdmin: %+v", c)
	}
	if c := s.setAdmin(true); c.happened() {
		t.Errorf("again: %+v", c)
	}
	give(t, s, ms, Up, func(p *packet) { p.Poll = true })
	if p, ok := s.transmit(s.due() + ms); !ok || p.State != AdminDown || p.Diag != DiagAdminDown || p.Final || p.DesiredMinTX != time.Second {
		t.Errorf("sent %+v, %v", p, ok)
	}
	if s.due() == never {
		t.Error("says nothing more; a lost packet would make it a failure")
	}
	if c := s.setAdmin(false); c != (change{AdminDown, Down, DiagNone}) {
		t.Errorf("setAdmin: %+v", c)
	}
}

func TestAuthentication(t *testing.T) {
	for _, kind := range []AuthType{KeyedSHA1, MeticulousSHA1} {
		auth := &Auth{Type: kind, KeyID: 3, Key: []byte("secret")}
		s := in(t, Up, params{interval: 300 * ms, multiplier: 3, auth: auth})
		numbered := func(seq uint32) packet {
			p := peerPacket(Up)
			p.Auth = authSection{Type: kind, KeyID: 3, Sequence: seq}
			p.Auth.Digest = digest(&p, auth.Key)
			return p
		}
		check := func(at time.Duration, seq uint32, want Drop) {
			t.Helper()
			p := numbered(seq)
			if _, drop, err := s.receive(at, &p); drop != want {
				t.Errorf("%s, %d after %d: %s (%v), want %s", kind, seq, s.rcvSeq, drop, err, want)
			}
		}
		check(ms, 9, accepted)
		check(2*ms, 8, DropAuthSequence)
		again := accepted
		if kind == MeticulousSHA1 {
			again = DropAuthSequence
		}
		check(3*ms, 9, again)
		check(4*ms, 18, accepted)
		check(5*ms, 28, DropAuthSequence)
		forged := numbered(19)
		forged.State = Down
		if c, drop, _ := s.receive(6*ms, &forged); drop != DropAuth || c.happened() || s.rcvSeq != 18 {
			t.Errorf("forged packet: %s, %+v, sequence %d", drop, c, s.rcvSeq)
		}
		// Section 6.8.1: after two Detection Times any number is good again.
		detection := s.detectionTime()
		s.expire(4*ms + detection)
		if s.state != Down || s.expiry() != 4*ms+2*detection {
			t.Fatalf("%s, expires at %s", s.state, s.expiry())
		}
		check(4*ms+detection, 4000, DropAuthSequence)
		s.expire(4*ms + 2*detection)
		check(4*ms+2*detection, 4000, accepted)

		p, ok := s.transmit(s.due() + 10*time.Second)
		q, ok2 := s.transmit(s.due())
		if !ok || !ok2 || q.Auth.Sequence != p.Auth.Sequence+1 || auth.verify(&p) != nil || auth.verify(&q) != nil {
			t.Errorf("sent %+v and %+v", p, q)
		}
		// Another key starts anew.
		s.configure(params{interval: 300 * ms, multiplier: 3})
		p = peerPacket(Down)
		if _, drop, err := s.receive(20*time.Second, &p); drop != accepted {
			t.Errorf("without authentication: %s, %v", drop, err)
		}
		p = numbered(5000)
		if _, drop, _ := s.receive(20*time.Second, &p); drop != DropAuth {
			t.Errorf("surplus authentication: %s", drop)
		}
	}
}

// However often the peer polls, or changes its discriminator, we answer no more than
// once in minGap.
func TestAnswersAreBounded(t *testing.T) {
	s := in(t, Up, params{interval: 300 * ms, multiplier: 3})
	sent := 0
	start := s.lastTX + minGap
	for i := range 10000 {
		now := start + time.Duration(i)*10*time.Microsecond
		give(t, s, now, Up, func(p *packet) { p.Poll, p.Mine = true, uint32(i+1) })
		if _, ok := s.transmit(now); ok {
			sent++
		}
	}
	if sent < 90 || sent > 101 {
		t.Errorf("%d packets in 100 ms", sent)
	}
}

// Any packets at any time leave a session that obeys its invariants.
func FuzzSession(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := newSession(params{300 * ms, 3, nil}, 1, 1, half)
		now, lastSent := time.Duration(0), time.Duration(-1)
		for len(script) >= 4 {
			op, x, y, z := script[0], script[1], script[2], script[3]
			script = script[4:]
			now += time.Duration(x) * 10 * ms
			switch op % 5 {
			case 0:
				s.configure(params{time.Duration(int(y)+1) * 10 * ms, z%4 + 1, nil})
			case 1:
				s.setAdmin(y%2 == 0)
			default:
				p := packet{State: State(y % 4), Multiplier: z%5 + 1, Mine: uint32(z) + 1, Yours: 1,
					DesiredMinTX: time.Duration(y) * ms, RequiredMinRX: time.Duration(z) * ms,
					Poll: op&8 != 0, Final: op&16 != 0, Demand: op&32 != 0}
				s.receive(now, &p)
			}
			s.expire(now)
			if s.heard && s.expiry() <= now {
				t.Fatalf("expired, and still heard: %+v", s)
			}
			if p, ok := s.transmit(now); ok {
				if lastSent >= 0 && now-lastSent < minGap {
					t.Fatalf("two packets within %s", now-lastSent)
				}
				lastSent = now
				if b := p.appendTo(nil); p.State != AdminDown && p.State != Down && p.Yours == 0 {
					t.Fatalf("sent %x: %s without Your Discriminator", b, p.State)
				}
				if p.State != Up && p.DesiredMinTX < slowInterval {
					t.Fatalf("announces %s in %s", p.DesiredMinTX, p.State)
				}
				if p.Poll && p.Final {
					t.Fatal("poll and final")
				}
			}
			if s.due() <= now {
				t.Fatalf("due at %s after sending at %s", s.due(), now)
			}
			if s.state != Up && (s.txInUse != s.desiredTX || s.rxInUse != s.requiredRX) {
				t.Fatalf("%s with held intervals: %+v", s.state, s)
			}
		}
	})
}

// The engine's thread must not be drawn into the garbage collector's work.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	auth := &Auth{Type: MeticulousSHA1, KeyID: 1, Key: []byte("k")}
	a, b := in(t, Up, params{300 * ms, 3, auth}), in(t, Up, params{300 * ms, 3, auth})
	a.local, b.local = 99, 99
	now := time.Second
	buf := make([]byte, 0, maxPacketLen)
	a.xmitSeq, b.seqKnown = 1, false
	var e Engine
	if n := testing.AllocsPerRun(1000, func() {
		now += 300 * ms
		p, ok := a.transmit(now)
		if !ok {
			t.Fatal("nothing to send")
		}
		q, err := parse(p.appendTo(buf))
		if err != nil {
			t.Fatal(err)
		}
		q.Mine = 99
		q.Auth.Digest = digest(&q, auth.Key)
		if _, drop, err := b.receive(now, &q); drop != accepted {
			t.Fatal(err)
		}
		b.expire(now)
		e.noteLate(time.Millisecond)
	}); n != 0 {
		t.Errorf("%v allocations for a packet sent and received", n)
	}
}
