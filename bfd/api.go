package bfd

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"
)

// lateBounds is LateBounds without the copy.
var lateBounds = LateBounds()

// Add starts a session. It begins to send at once, if it can: a missing interface,
// address or route is not an error, but looked for again with every packet, and told by
// Info.SocketError. An error is about the Config, about a session that exists, or about
// the port, which another BFD daemon may hold.
func (e *Engine) Add(c Config) (ID, error) {
	var id ID
	n, err := c.normal()
	if err == nil {
		if stopped := e.do(func() { id, err = e.add(n) }); stopped != nil {
			err = stopped
		}
	}
	if err != nil {
		return 0, fmt.Errorf("add BFD session with %s: %w", c.Peer, err)
	}
	return id, nil
}

func (e *Engine) add(c Config) (ID, error) {
	for _, en := range e.byPeer[peerKey{c.Peer, c.Multihop}] {
		if en.cfg.identity() != c.identity() {
			continue
		}
		if !en.leaving {
			return 0, ErrExists
		}
		e.remove(en) // its goodbye is void
	}
	index := receiverIndex(&c)
	if e.receivers[index] == nil {
		r, err := openReceiver(c.Peer.Is6(), c.Multihop)
		if err != nil {
			return 0, err
		}
		r.emptyAt = e.now()
		e.receivers[index] = r
		e.listen()
	}
	id := e.freeID()
	en := &entry{id: id, cfg: c, s: newSession(c.params(), uint32(id), random32(), mathrand.Float64)}
	// Before the first packet, so that one that comes first finds the interface.
	en.sockErr = e.open(en)
	e.entries[id] = en
	k := en.peerKey()
	e.byPeer[k] = append(e.byPeer[k], en)
	e.timers.add(en)
	e.refilter(index)
	e.reschedule(en, e.now())
	return id, nil
}

// freeID makes a discriminator: random, for whoever guesses it could send us packets
// that we take for the peer's (RFC 5880 section 6.8.1).
func (e *Engine) freeID() ID {
	for {
		id := ID(random32())
		if _, taken := e.entries[id]; id != 0 && !taken {
			return id
		}
	}
}

func random32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint32(b[:])
}

// Update changes a session's intervals, multiplier, minimum TTL and authentication, and
// leaves it in its state. Longer intervals come into force when the peer has agreed
// (RFC 5880 section 6.8.3); other authentication at once, so the peer must follow
// within its Detection Time. An error leaves the session as it was.
func (e *Engine) Update(id ID, c Config) error {
	n, err := c.normal()
	if err == nil {
		err = e.with(id, func(en *entry) error {
			if err := en.cfg.updatable(n); err != nil {
				return err
			}
			en.cfg = n
			en.s.configure(n.params())
			e.refilter(receiverIndex(&n))
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("update BFD session with %s: %w", c.Peer, err)
	}
	return nil
}

// Remove ends a session without an Event. Its peer is told AdminDown, in the background.
func (e *Engine) Remove(id ID) error {
	err := e.with(id, func(en *entry) error {
		e.leave(en)
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove BFD session: %w", err)
	}
	return nil
}

// SetAdmin takes a session down, telling the peer that it is on purpose, or lets it come
// up again.
func (e *Engine) SetAdmin(id ID, down bool) error {
	err := e.with(id, func(en *entry) error {
		if c := en.s.setAdmin(down); c.happened() {
			e.changed(en, c, e.now(), 0)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set BFD session's administrative state: %w", err)
	}
	return nil
}

// with calls f in the loop with a session that is not leaving.
func (e *Engine) with(id ID, f func(*entry) error) error {
	var err error
	stopped := e.do(func() {
		en := e.entries[id]
		if en == nil || en.leaving {
			err = ErrUnknown
			return
		}
		if err = f(en); e.entries[id] == en {
			e.reschedule(en, e.now())
		}
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// Sessions returns all sessions, by peer.
func (e *Engine) Sessions() ([]Info, error) {
	var all []Info
	err := e.do(func() {
		for _, en := range e.entries {
			if !en.leaving {
				all = append(all, e.info(en))
			}
		}
	})
	sortInfos(all)
	return all, err
}

func sortInfos(all []Info) {
	slices.SortFunc(all, func(a, b Info) int {
		return cmp.Or(a.Config.Peer.Compare(b.Config.Peer), a.Config.Local.Compare(b.Config.Local),
			cmp.Compare(a.Config.Interface, b.Config.Interface), cmp.Compare(a.ID, b.ID))
	})
}

func (e *Engine) info(en *entry) Info {
	s := en.s
	i := Info{
		ID: en.id, Config: en.cfg.withoutKey(), LocalDiscriminator: s.local, RemoteDiscriminator: s.remote,
		State: s.state, RemoteState: s.remoteState, Diag: s.diag, RemoteDiag: s.remoteDiag,
		LastDown: en.lastDown, EverUp: s.everUp, ControlPlaneIndependent: s.remoteCPI, RemoteDemand: s.remoteDemand,
		LastChange: en.lastChange, Changes: en.changes,
		TXInterval: s.txInterval(), RemoteMultiplier: s.remoteMult, Polling: s.poll == pollActive || s.held,
		Sent: en.sent, Received: en.received, SendErrors: en.sendErrors, Dropped: dropped(&en.drops),
		LastDropAt: en.lastDropAt, Jitter: en.gaps.jitter, MaxGap: en.gaps.worst, MaxLate: en.maxLate,
	}
	if en.received > 0 {
		i.RXInterval, i.DetectionTime = max(s.rxInUse, s.remoteMinTX), s.detectionTime()
		i.LastReceived = e.wall(s.lastRX)
	}
	if en.lastDrop != nil {
		i.LastDrop = en.lastDrop.Error()
	}
	if en.sockErr != nil {
		i.SocketError = en.sockErr.Error()
	}
	return i
}

func dropped(counts *[numDrops]uint64) map[Drop]uint64 {
	m := map[Drop]uint64{}
	for d, n := range counts {
		if n > 0 {
			m[Drop(d)] = n
		}
	}
	return m
}

// Stats returns the engine's counters.
func (e *Engine) Stats() (Stats, error) {
	var s Stats
	err := e.do(func() {
		s = e.stats
		s.Dropped = dropped(&e.drops)
		s.KernelDrops = e.goneDrops
		for _, r := range e.receivers {
			if r != nil {
				s.KernelDrops += r.drops()
			}
		}
	})
	return s, err
}

// LateBounds are the upper bounds of Stats.Late, whose last element counts the rest.
func LateBounds() []time.Duration {
	return []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
		20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}
}
