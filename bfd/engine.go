package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnknown is for an ID that is of no session.
	ErrUnknown = errors.New("no such session")
	// ErrExists is for a second session of the same peer, local address, interface and mode.
	ErrExists = errors.New("session exists")
	// ErrStopped is for calls after Run has ended.
	ErrStopped = errors.New("bfd has stopped")
)

const (
	// maxLinger bounds how long AdminDown is repeated to a peer that doesn't answer it.
	maxLinger = time.Second
	// A timer served later than lateWake says that this thread was kept from running,
	// and perhaps the kernel's receive path with it (a virtual CPU taken away stops
	// both). Expiry then waits for lateGrace, in which packets may still arrive.
	lateWake  = 5 * time.Millisecond
	lateGrace = 5 * time.Millisecond
	// floodPause is how long the sockets are left alone after a read that met a bad
	// packet: a flood costs 500 wake-ups a second at most, however fast it is.
	floodPause = 2 * time.Millisecond
)

// Options are what an Engine is made with.
type Options struct {
	// OnChange is called for each change, in order and at once, on the thread that
	// also sends: it must not block, nor call the Engine.
	OnChange func(Event)
	// Priority is the SCHED_RR priority that Run asks for, 1 to 99; 0 for none. Not to
	// get it is not an error: Stats.Scheduling tells.
	Priority int
}

// Engine runs sessions in the network namespace of the thread that calls Run. Its other
// methods may be called from any goroutine but OnChange's, and wait until Run has
// served them.
type Engine struct {
	options Options
	epoch   time.Time
	calls   chan call     // 16 wait for the loop; who finds it full waits too
	done    chan struct{} // closed when Run has ended

	mu   sync.Mutex // guards wake
	wake int        // eventfd; -1 once closed

	// The rest belongs to Run's goroutine.
	entries    map[ID]*entry
	byPeer     map[peerKey][]*entry
	timers     timers
	ports      ports
	receivers  [4]*receiver // by receiverIndex; nil without sessions
	fds        []unix.PollFd
	batch      *batch
	timeout    unix.Timespec // wait's
	quietUntil time.Duration // the sockets are left alone; see floodPause
	stats      Stats
	drops      [numDrops]uint64
	goneDrops  uint64 // KernelDrops of receivers that were closed
}

// peerKey is what finds the sessions that a packet may be for, and whom to blame else.
type peerKey struct {
	peer     netip.Addr
	multihop bool
}

type call struct {
	run  func()
	done chan struct{}
}

// New makes an Engine. It sends and receives nothing until Run is called.
func New(o Options) (*Engine, error) {
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	e := &Engine{
		options: o, epoch: time.Now(), wake: wake,
		calls: make(chan call, 16), done: make(chan struct{}),
		entries: map[ID]*entry{}, byPeer: map[peerKey][]*entry{}, ports: ports{}, batch: newBatch(),
	}
	e.fds = []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}
	return e, nil
}

// Run serves the sessions until ctx ends, and then tells every peer AdminDown, so that
// none takes our leaving for a failure; it waits for their answers, up to a second. It
// is called once.
func (e *Engine) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	got, undo := scheduleThread(e.options.Priority)
	defer undo()
	e.stats.Scheduling = got
	defer e.close()
	stop := context.AfterFunc(ctx, e.poke)
	defer stop()
	for {
		e.serveCalls()
		leaving := ctx.Err() != nil
		if leaving {
			for _, en := range e.entries { // those, too, that were added meanwhile
				e.leave(en)
			}
		}
		e.fire()
		if leaving && len(e.entries) == 0 {
			return nil
		}
		if err := e.wait(); err != nil {
			return fmt.Errorf("bfd: wait for packets: %w", err)
		}
		if err := e.drain(); err != nil {
			return fmt.Errorf("bfd: receive: %w", err)
		}
	}
}

// now reads the clock of sessions: monotonic, from the engine's making.
func (e *Engine) now() time.Duration { return time.Since(e.epoch) }

// wall converts a reading of now into the time of day.
func (e *Engine) wall(at time.Duration) time.Time {
	return time.Now().Add(at - e.now()).Round(0)
}

// close gives back what the kernel holds for us.
func (e *Engine) close() {
	for _, en := range e.entries {
		e.remove(en)
	}
	e.mu.Lock()
	_ = unix.Close(e.wake)
	e.wake = -1
	e.mu.Unlock()
	close(e.done)
}

// poke makes wait return.
func (e *Engine) poke() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.wake >= 0 {
		one := [8]byte{0: 1, 7: 1} // any number but 0, in either byte order
		_, _ = unix.Write(e.wake, one[:])
	}
}

// do has the loop call f, and waits for that.
func (e *Engine) do(f func()) error {
	c := call{f, make(chan struct{})}
	select {
	case e.calls <- c:
	case <-e.done:
		return ErrStopped
	}
	e.poke()
	select {
	case <-c.done:
		return nil
	case <-e.done:
	}
	select {
	case <-c.done: // both had happened
		return nil
	default:
		return ErrStopped
	}
}

func (e *Engine) serveCalls() {
	for {
		select {
		case c := <-e.calls:
			c.run()
			close(c.done)
		default:
			return
		}
	}
}

// wait blocks until a packet, a call or the next timer, and notes how late it returned.
func (e *Engine) wait() error {
	now := e.now()
	fds, until := e.fds, never
	if len(e.timers) > 0 {
		until = e.timers[0].deadline
	}
	if now < e.quietUntil {
		fds, until = fds[:1], min(until, e.quietUntil)
	}
	var timeout *unix.Timespec
	if until != never {
		timeout = &e.timeout
		*timeout = unix.NsecToTimespec(int64(max(until-now, 0)))
	}
	n, err := unix.Ppoll(fds, timeout, nil)
	if err != nil && err != unix.EINTR { // EINTR: the Go runtime preempts with signals
		return err
	}
	if until != never && until >= now {
		e.noteLate(e.now() - until)
	}
	if n > 0 && fds[0].Revents != 0 {
		var counter [8]byte
		if _, err := unix.Read(e.wake, counter[:]); err != nil && err != unix.EAGAIN {
			return err
		}
	}
	return nil
}

func (e *Engine) noteLate(late time.Duration) {
	if late < 0 {
		return
	}
	e.stats.MaxLate = max(e.stats.MaxLate, late)
	i := 0
	for i < len(lateBounds) && late > lateBounds[i] {
		i++
	}
	e.stats.Late[i]++
}

// drain reads all packets that arrived before it began. What comes meanwhile can wait:
// no flood keeps it here.
func (e *Engine) drain() error {
	start, bad := e.now(), false
	for i, r := range e.receivers {
		for r != nil && e.receivers[i] == r { // the last session's goodbye closes it
			now := e.now()
			wall := time.Now().UnixNano()
			n, err := e.batch.read(r.fd)
			if err != nil {
				return err
			}
			at := now
			for k := range n {
				d := e.batch.datagram(k)
				at = r.arrival(d.stamp, wall, now)
				bad = !e.handle(r, &d, at, now) || bad
			}
			if n < batchSize {
				r.emptyAt = now
				break
			}
			if at >= start {
				break
			}
		}
	}
	if bad {
		e.quietUntil = start + floodPause
	}
	return nil
}

// fire serves the timers that are due.
func (e *Engine) fire() {
	for len(e.timers) > 0 {
		now := e.now()
		en := e.timers[0]
		if en.deadline > now {
			return
		}
		if x := en.s.expiry(); x <= now && en.mayExpire(x, now) {
			silence := now - en.s.lastRX
			if c := en.s.expire(now); c.happened() {
				e.changed(en, c, now, silence)
			}
		}
		if p, ok := en.transmit(now); ok {
			e.send(en, &p)
		}
		e.reschedule(en, now)
	}
}
