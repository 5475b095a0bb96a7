package bfd

import (
	"math"
	"time"
)

const (
	// slowInterval is the least between packets while a session is not Up (RFC 5880
	// section 6.8.3).
	slowInterval = time.Second
	// minGap is the least between packets that answer something: a Final, a state. It
	// bounds what a flood of well-formed Polls makes us send.
	minGap = time.Millisecond

	never = time.Duration(math.MaxInt64)
)

// params is what a session is configured to do.
type params struct {
	interval   time.Duration // both to send and to receive
	multiplier uint8
	auth       *Auth // never written to
}

// change is a transition; none where from and to are equal.
type change struct {
	from, to State
	diag     Diag
}

func (c change) happened() bool { return c.from != c.to }

// pollState is where our own Poll Sequence stands (RFC 5880 section 6.5).
type pollState uint8

const (
	pollIdle pollState = iota
	pollActive
	// pollSettling: Final has come, but no packet without it since. Another sequence
	// must wait, or a late Final of the last would end it (section 6.8.3).
	pollSettling
)

// session is the state machine of RFC 5880 section 6.8. It has no clock: now is the
// reading of one that only goes forward, and the caller calls expire and transmit when
// expiry and due say so. Nor does it decide whom a packet belongs to.
type session struct {
	params
	rand func() float64 // in [0, 1)

	local, remote      uint32 // bfd.LocalDiscr and bfd.RemoteDiscr
	state, remoteState State
	diag, remoteDiag   Diag
	everUp             bool

	// What we announce, and what is in force of it: the same, except while Up and
	// until the peer has answered our Poll (section 6.8.3).
	desiredTX, txInUse  time.Duration
	requiredRX, rxInUse time.Duration
	poll                pollState
	pollSent            bool // at least one packet with P went out
	held                bool // params.interval waits for the Poll Sequence to end

	// What the peer last announced.
	remoteMinTX, remoteMinRX time.Duration
	remoteMult               uint8
	remoteDemand, remoteCPI  bool

	heard  bool          // within the last Detection Time
	lastRX time.Duration // valid once heard or seqKnown

	seqKnown bool   // bfd.AuthSeqKnown
	rcvSeq   uint32 // bfd.RcvAuthSeq
	xmitSeq  uint32 // bfd.XmitAuthSeq

	sent    bool          // ever
	lastTX  time.Duration // valid once sent
	nextTX  time.Duration // of the periodic packets
	final   bool          // owed for a Poll
	changed bool          // what we'd send differs from what we sent last
}

// newSession makes a session in Down that sends its first packet at once. The
// discriminator must be the caller's only one, and random as the sequence number.
func newSession(p params, discriminator, sequence uint32, rand func() float64) *session {
	s := &session{
		params: p, rand: rand, local: discriminator, xmitSeq: sequence,
		state: Down, remoteState: Down,
		remoteMinRX: time.Microsecond, // section 6.8.1
	}
	s.desiredTX = max(p.interval, slowInterval)
	s.requiredRX = p.interval
	s.txInUse, s.rxInUse = s.desiredTX, s.requiredRX
	return s
}

// detectionTime is for how long the peer may be silent (section 6.8.4); 0 before its
// first packet.
func (s *session) detectionTime() time.Duration {
	return time.Duration(s.remoteMult) * max(s.rxInUse, s.remoteMinTX)
}

// txInterval is what was agreed for our packets, without jitter (section 6.8.2).
func (s *session) txInterval() time.Duration { return max(s.txInUse, s.remoteMinRX) }

// remoteDetectionTime is for how long we may be silent: detectionTime as the peer
// computes it.
func (s *session) remoteDetectionTime() time.Duration {
	return time.Duration(s.multiplier) * s.txInterval()
}

// receive takes a packet that the session was found for, and the time of its arrival.
// A cause other than accepted says that the packet changed nothing, err which rule it
// broke. The packet counts even if the Detection Time was over when it came: the caller
// did not get round to declare the session down, and now there is proof of the contrary.
func (s *session) receive(at time.Duration, p *packet) (change, Drop, error) {
	if err := s.auth.verify(p); err != nil {
		return change{}, DropAuth, err
	}
	if s.auth != nil {
		// "Detect Mult" of section 6.7.4 is the packet's: its sender's losses are
		// what the window must span. Checked after the digest, so that only the
		// peer can move the window.
		if s.seqKnown && !inWindow(s.auth.Type, s.rcvSeq, p.Auth.Sequence, p.Multiplier) {
			return change{}, DropAuthSequence, errAuthSequence
		}
		s.seqKnown, s.rcvSeq = true, p.Auth.Sequence
	}
	if s.heard || s.seqKnown {
		at = max(at, s.lastRX) // arrival times come from a clock that may be set
	}
	s.heard, s.lastRX = true, at

	before := s.txInterval()
	if s.remote != p.Mine {
		s.remote, s.changed = p.Mine, true // it is our next Your Discriminator
	}
	s.remoteState, s.remoteDiag = p.State, p.Diag
	s.remoteMinTX, s.remoteMinRX, s.remoteMult = p.DesiredMinTX, p.RequiredMinRX, p.Multiplier
	s.remoteDemand = p.Demand
	if p.State == Up {
		// Kept as it was while the path worked: a peer that restarts and says so may
		// not know yet whether its forwarding survived (RFC 5882 section 4.3).
		s.remoteCPI = p.CPI
	}
	s.pollAnswer(p.Final)

	if s.state == AdminDown { // section 6.8.6: discard, with nothing owed for a Poll
		s.shorten(before)
		return change{}, accepted, nil
	}
	c := s.next(p.State)
	if p.Poll {
		s.final = true
	}
	s.shorten(before)
	return c, accepted, nil
}

// next is the state machine proper (section 6.8.6).
func (s *session) next(remote State) change {
	if remote == AdminDown {
		if s.state != Down {
			return s.enter(Down, DiagNeighborDown)
		}
		return change{}
	}
	switch s.state {
	case Down:
		switch remote {
		case Down:
			return s.enter(Init, DiagNone)
		case Init:
			return s.enter(Up, DiagNone)
		}
	case Init:
		if remote == Init || remote == Up {
			return s.enter(Up, DiagNone)
		}
	case Up:
		if remote == Down {
			return s.enter(Down, DiagNeighborDown)
		}
	}
	return change{}
}

func (s *session) enter(to State, why Diag) change {
	c := change{s.state, to, why}
	s.state, s.diag = to, why
	s.changed = true
	if to == Up || c.from == Up {
		// Nothing is held back outside Up, and in Up nothing is yet: what an older
		// Poll asked for is in force, or is replaced here.
		s.held = false
		s.announce()
	}
	s.everUp = s.everUp || to == Up
	return c
}

// announce makes the configured intervals those that we announce, and puts into force
// what may be at once. The rest waits for the answer to a Poll: the peer must have
// lengthened its Detection Time before we send more slowly, and must send faster before
// we shorten ours (section 6.8.3).
func (s *session) announce() {
	before := s.txInterval()
	defer func() { s.shorten(before) }()
	tx, rx := s.interval, s.interval
	if s.state != Up {
		tx = max(tx, slowInterval)
		// What waited for an answer in Up waits no longer.
		s.txInUse, s.rxInUse = tx, rx
	}
	if tx == s.desiredTX && rx == s.requiredRX {
		return
	}
	s.desiredTX, s.requiredRX = tx, rx
	s.txInUse = min(s.txInUse, tx)
	s.rxInUse = max(s.rxInUse, rx)
	s.poll, s.pollSent, s.changed = pollActive, false, true
}

// pollAnswer ends our Poll Sequence, and lets the next begin.
func (s *session) pollAnswer(final bool) {
	switch {
	case final && s.poll == pollActive && s.pollSent:
		s.poll = pollSettling
		s.txInUse, s.rxInUse = s.desiredTX, s.requiredRX
	case !final && s.poll == pollSettling:
		s.poll = pollIdle
		if s.held {
			s.held = false
			s.announce()
		}
	}
}

// shorten brings the next periodic packet forward when the interval has become shorter
// than before: section 6.8.3 allows no longer wait than the new one.
func (s *session) shorten(before time.Duration) {
	if s.txInterval() < before && s.sent {
		s.nextTX = min(s.nextTX, s.lastTX+s.jittered())
	}
}

// jittered is the agreed interval less a random part: up to a quarter, and at least a
// tenth when one lost packet ends the session (section 6.8.7).
func (s *session) jittered() time.Duration {
	share := 0.75 + 0.25*s.rand()
	if s.multiplier == 1 {
		share = 0.75 + 0.15*s.rand()
	}
	return time.Duration(share * float64(s.txInterval()))
}

// quiet tells whether no periodic packets may be sent: the peer wants none, or is in
// demand mode, which our own Polls suspend (sections 6.6 and 6.8.7).
func (s *session) quiet() bool {
	return s.remoteMinRX == 0 ||
		s.remoteDemand && s.state == Up && s.remoteState == Up && s.poll != pollActive
}

// due is when transmit has a packet to send.
func (s *session) due() time.Duration {
	at := never
	if !s.quiet() {
		at = s.nextTX
	}
	if s.final || s.changed {
		soon := time.Duration(math.MinInt64)
		if s.sent {
			soon = s.lastTX + minGap
		}
		at = min(at, soon)
	}
	return at
}

// transmit returns the packet to send now, if one is due.
func (s *session) transmit(now time.Duration) (packet, bool) {
	if s.due() > now {
		return packet{}, false
	}
	p := packet{
		Diag: s.diag, State: s.state,
		Poll: s.poll == pollActive && !s.final, Final: s.final,
		Multiplier: s.multiplier, Mine: s.local, Yours: s.remote,
		DesiredMinTX: s.desiredTX, RequiredMinRX: s.requiredRX,
	}
	s.pollSent = s.pollSent || p.Poll
	s.final, s.changed = false, false
	s.sent, s.lastTX = true, now
	s.nextTX = now + s.jittered()
	if a := s.auth; a != nil {
		// Another number for each packet, of the keyed type too, which may do so: it
		// leaves less to replay.
		p.Auth = authSection{Type: a.Type, KeyID: a.KeyID, Sequence: s.xmitSeq}
		p.Auth.Digest = digest(&p, a.Key)
		s.xmitSeq++
	}
	return p, true
}

// expiry is when expire has something to do unless a packet comes.
func (s *session) expiry() time.Duration {
	switch {
	case s.heard:
		return s.lastRX + s.detectionTime()
	case s.seqKnown:
		return s.lastRX + 2*s.detectionTime()
	}
	return never
}

// expire does what the peer's silence demands: the session goes Down and forgets the
// peer's discriminator after a Detection Time, and its sequence number after two
// (sections 6.8.1 and 6.8.4).
func (s *session) expire(now time.Duration) change {
	if !s.heard && !s.seqKnown {
		return change{}
	}
	silence := now - s.lastRX
	if s.seqKnown && silence >= 2*s.detectionTime() {
		s.seqKnown = false
	}
	if !s.heard || silence < s.detectionTime() {
		return change{}
	}
	s.heard, s.remote = false, 0
	if s.state == Init || s.state == Up {
		return s.enter(Down, DiagTimeExpired)
	}
	return change{}
}

// configure replaces the parameters. The session stays in its state.
func (s *session) configure(p params) {
	if !sameAuth(s.auth, p.auth) {
		s.seqKnown = false
	}
	s.changed = s.changed || s.multiplier != p.multiplier
	s.params = p
	// Two changes under one Poll would leave open which of them a Final answers
	// (section 6.8.3).
	if s.state == Up && s.poll != pollIdle {
		s.held = true
		return
	}
	s.announce()
}

// setAdmin puts the session into AdminDown, or back to work (section 6.8.16).
func (s *session) setAdmin(down bool) change {
	switch {
	case down && s.state != AdminDown:
		return s.enter(AdminDown, DiagAdminDown)
	case !down && s.state == AdminDown:
		return s.enter(Down, DiagNone)
	}
	return change{}
}

func sameAuth(a, b *Auth) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && a.KeyID == b.KeyID && string(a.Key) == string(b.Key)
}
