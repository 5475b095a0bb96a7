package bfd

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// entry is a session with what an Engine needs to run it.
type entry struct {
	id   ID
	cfg  Config
	s    *session
	tx   *sender // nil: could not be opened, see sockErr
	port uint16  // 0: none yet

	deadline time.Duration // of the next call of fire
	index    int           // in timers

	graceFor, graceUntil time.Duration // see mayExpire

	leaving bool // only says goodbye, until leaveBy
	leaveBy time.Duration

	sent, received, sendErrors, changes uint64
	drops                               [numDrops]uint64
	lastDrop                            error
	lastDropAt, lastChange              time.Time
	lastDown                            Diag
	sockErr                             error
	gaps                                gaps
	maxLate                             time.Duration
	buf                                 [maxPacketLen]byte
}

// gaps measures the times between the peer's packets while the session is Up.
type gaps struct {
	last          time.Duration // arrival of the last packet; valid once n > 0
	n             int
	gap           time.Duration // between the last two
	jitter, worst time.Duration
}

func (g *gaps) packet(at time.Duration) {
	g.n++
	if g.n > 1 {
		gap := at - g.last
		g.worst = max(g.worst, gap)
		if g.n > 2 {
			g.jitter += ((gap - g.gap).Abs() - g.jitter) / 16 // RFC 3550 section 6.4.1
		}
		g.gap = gap
	}
	g.last = at
}

// mayExpire tells whether an expiry that was due at x may be acted on. Where we come
// late to it, it waits once, for what the same delay may have kept from the socket.
func (en *entry) mayExpire(x, now time.Duration) bool {
	if now-x > lateWake && en.graceFor != x {
		en.graceFor, en.graceUntil = x, now+lateGrace
	}
	return en.graceFor != x || now >= en.graceUntil
}

// transmit is the session's, with how late it comes.
func (en *entry) transmit(now time.Duration) (packet, bool) {
	due := en.s.nextTX
	p, ok := en.s.transmit(now)
	if ok && en.s.state == Up && en.sent > 0 {
		en.maxLate = max(en.maxLate, now-due)
	}
	return p, ok
}

// next is the time at which fire has something to do for the entry.
func (en *entry) next() time.Duration {
	x := en.s.expiry()
	if en.graceFor == x {
		x = max(x, en.graceUntil)
	}
	at := min(x, en.s.due())
	if en.leaving {
		at = min(at, en.leaveBy)
	}
	return at
}

// gone tells whether an entry that is leaving has nothing left to say: the peer knows,
// or had its time to (RFC 5880 section 6.8.16).
func (en *entry) gone(now time.Duration) bool {
	return en.leaving && (now >= en.leaveBy || !en.s.changed && en.s.remoteState != Up)
}

// reschedule puts the entry where it belongs in the heap, or removes it.
func (e *Engine) reschedule(en *entry, now time.Duration) {
	if en.gone(now) {
		e.remove(en)
		return
	}
	en.deadline = en.next()
	e.timers.fix(en)
}

// leave has the entry say AdminDown to its peer, and then remove itself.
func (e *Engine) leave(en *entry) {
	if en.leaving {
		return
	}
	now := e.now()
	en.leaving, en.leaveBy = true, now+min(maxLinger, en.s.remoteDetectionTime())
	if !en.s.heard {
		en.leaveBy = now // nobody listens
	}
	en.s.setAdmin(true)
	e.reschedule(en, now)
}

func (e *Engine) remove(en *entry) {
	if en.tx != nil {
		en.tx.close()
	}
	if en.port != 0 {
		delete(e.ports, en.port)
	}
	delete(e.entries, en.id)
	k := en.peerKey()
	var rest []*entry
	for _, o := range e.byPeer[k] {
		if o != en {
			rest = append(rest, o)
		}
	}
	if e.byPeer[k] = rest; len(rest) == 0 {
		delete(e.byPeer, k)
	}
	e.timers.remove(en)
	e.refilter(receiverIndex(&en.cfg))
}

func (en *entry) peerKey() peerKey { return peerKey{en.cfg.Peer, en.cfg.Multihop} }

func receiverIndex(c *Config) int {
	i := 0
	if c.Peer.Is6() {
		i |= 1
	}
	if c.Multihop {
		i |= 2
	}
	return i
}

// refilter makes a receiver accept what its sessions want, and closes it without any.
func (e *Engine) refilter(index int) {
	r := e.receivers[index]
	if r == nil {
		return
	}
	least := map[netip.Addr]uint8{}
	for k, list := range e.byPeer {
		for _, en := range list {
			if receiverIndex(&en.cfg) != index {
				continue
			}
			if ttl, ok := least[k.peer]; !ok || en.cfg.MinTTL < ttl {
				least[k.peer] = en.cfg.MinTTL
			}
		}
	}
	if len(least) == 0 {
		e.goneDrops += r.drops()
		_ = unix.Close(r.fd)
		e.receivers[index] = nil
		e.listen()
		return
	}
	sources := make([]source, 0, len(least))
	for addr, ttl := range least {
		sources = append(sources, source{addr, ttl})
	}
	r.setFilter(sources)
}

// listen renews the list of sockets to wait on.
func (e *Engine) listen() {
	e.fds = e.fds[:1]
	for _, r := range e.receivers {
		if r != nil {
			e.fds = append(e.fds, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
		}
	}
}

// send sends a packet, and opens the socket where there is none. A failure is not the
// session's: the peer's silence about what it does not get is.
func (e *Engine) send(en *entry, p *packet) {
	var err error
	if en.tx == nil {
		err = e.open(en)
	}
	if err == nil {
		err = en.tx.send(p.appendTo(en.buf[:0]))
	}
	switch err {
	case nil:
		en.sent++
		en.sockErr = nil
		return
	case unix.ECONNREFUSED, unix.EAGAIN, unix.ENOBUFS, unix.EPERM:
		// Nobody listens there yet, a queue is full, a packet filter refuses it: the
		// socket is good.
	default:
		// Its interface, route or source address is gone, for good perhaps: the next
		// packet tries with another socket.
		if en.tx != nil {
			en.tx.close()
			en.tx = nil
		}
	}
	en.sendErrors++
	en.sockErr = err
}

func (e *Engine) open(en *entry) (err error) {
	if en.port == 0 {
		en.tx, en.port, err = e.ports.openWithPort(&en.cfg)
		return err
	}
	en.tx, err = openSender(&en.cfg, en.port)
	return err
}

// changed notes a transition and reports it.
func (e *Engine) changed(en *entry, c change, now, since time.Duration) {
	en.changes++
	en.lastChange = e.wall(now)
	switch {
	case c.to == Up:
		en.gaps, en.maxLate = gaps{}, 0
	case c.from == Up:
		en.lastDown = c.diag
	}
	if en.leaving || e.options.OnChange == nil {
		return
	}
	e.options.OnChange(Event{
		ID: en.id, Peer: en.cfg.Peer, Local: en.cfg.Local, Interface: en.cfg.Interface, Multihop: en.cfg.Multihop,
		From: c.from, To: c.to, Diag: c.diag,
		RemoteState: en.s.remoteState, RemoteDiag: en.s.remoteDiag, ControlPlaneIndependent: en.s.remoteCPI,
		At: en.lastChange, DetectedIn: since,
	})
}
