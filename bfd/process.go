package bfd

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Process is an Engine in a process of its own, with the same methods. The means against
// false alarms: a goroutine that a timer has woken waits for one of GOMAXPROCS slots, in
// a queue with every goroutine that has work. Measured on two cores: with eight busy
// goroutines in the process, 5 ms became up to 500 ms, and 313 ms still when the thread
// had SCHED_RR; with the same eight in another process, 5.1 ms late at most without any
// privilege, and 0.9 ms with SCHED_RR. On a machine that is even busier a process
// without SCHED_RR was kept waiting for 750 ms.
//
// A worker that dies is started again with all sessions; they begin in Down, without an
// Event for what had been Up: our own failure says nothing about the path. A worker
// whose Process dies says AdminDown to the peers and ends.
type Process struct {
	options Options
	command func() *exec.Cmd
	log     *slog.Logger
	first   chan struct{} // one slot: a session is wanted

	mu     sync.Mutex // guards what follows
	wanted []*wantedSession
	// refused are those of wanted that the worker could not start, and why. They are
	// tried again every retryPause.
	refused map[ID]error
	lastID  ID
	link    *link // nil: no worker runs
	ended   bool

	// order is held from changing wanted until the worker has answered, so that it
	// gets the changes in the same order.
	order sync.Mutex
}

// wantedSession is what the worker is to run, and gets again after a restart.
type wantedSession struct {
	id   ID
	cfg  Config
	down bool
}

// link is the connection to one worker.
type link struct {
	conn net.Conn
	done chan struct{} // closed when nothing more is read from it

	mu      sync.Mutex // guards what follows
	enc     *gob.Encoder
	seq     uint64
	waiting map[uint64]chan message // each has room for its reply
}

var errNoWorker = errors.New("bfd worker is not running; it is being started")

const (
	restartFirst, restartMost = 100 * time.Millisecond, 10 * time.Second
	// A worker says goodbye within maxLinger.
	stopTimeout = maxLinger + 2*time.Second
	// A worker that takes so long to answer is replaced.
	callTimeout = 5 * time.Second
	retryPause  = 10 * time.Second
)

// NewProcess makes a Process. The command must call RunWorker in a process of the
// caller's program; a file descriptor and nothing else is added to it. OnChange is
// called by one goroutine, and delays later events only.
func NewProcess(o Options, log *slog.Logger, command func() *exec.Cmd) *Process {
	return &Process{options: o, command: command, log: log, first: make(chan struct{}, 1), refused: map[ID]error{}}
}

// Run keeps a worker running from the first session until ctx ends, and then waits for
// its end. The worker lives in the network namespace of the thread that calls Run.
func (p *Process) Run(ctx context.Context) error {
	defer func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-p.first:
	}
	for pause := restartFirst; ; pause = min(2*pause, restartMost) {
		started := time.Now()
		err := p.runWorker(ctx)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(started) > restartMost {
			pause = restartFirst
		}
		p.log.Error("bfd worker ended, starting another", "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// runWorker runs one worker to its end; without an error only when ctx ended it.
func (p *Process) runWorker(ctx context.Context) error {
	cmd, conn, err := p.start()
	if err != nil {
		return fmt.Errorf("start bfd worker: %w", err)
	}
	l := &link{conn: conn, enc: gob.NewEncoder(conn), waiting: map[uint64]chan message{}, done: make(chan struct{})}
	go p.read(l)
	exited := make(chan error, 1) // the one result of Wait
	go func() { exited <- cmd.Wait() }()
	defer func() {
		_ = conn.Close()
		<-l.done
	}()

	err = p.join(l)
	retry := time.NewTicker(retryPause)
	defer retry.Stop()
	for err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-l.done:
			err = errors.New("connection closed")
		case <-retry.C:
			err = p.retry(l)
		}
	}
	p.mu.Lock()
	p.link = nil
	p.mu.Unlock()
	// Half-closed: the worker may still report how its sessions end.
	_ = conn.(*net.UnixConn).CloseWrite()
	select {
	case exit := <-exited:
		if err != nil || exit != nil {
			err = errors.Join(err, exit)
		}
	case <-time.After(stopTimeout):
		_ = cmd.Process.Kill()
		<-exited
		err = errors.Join(err, fmt.Errorf("worker killed, it had not ended after %s", stopTimeout))
	}
	return err
}

// start starts the worker with one end of a socket pair.
func (p *Process) start() (*exec.Cmd, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "bfd worker socket")
	defer func() { _ = theirs.Close() }()
	ours := os.NewFile(uintptr(fds[0]), "bfd worker socket")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, nil, err
	}
	cmd := p.command()
	if len(cmd.ExtraFiles) != 0 {
		panic("bug: the worker's command has files of its own")
	}
	cmd.ExtraFiles = []*os.File{theirs} // becomes workerFD
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return cmd, conn, nil
}

// join gives a new worker its sessions, and calls to it from then on.
func (p *Process) join(l *link) error {
	if err := l.enc.Encode(hello{p.options.Priority}); err != nil {
		return err
	}
	p.order.Lock()
	defer p.order.Unlock()
	p.mu.Lock()
	wanted := slices.Clone(p.wanted)
	clear(p.refused)
	p.mu.Unlock()
	for _, s := range wanted {
		if err := p.startSession(l, s); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.link = l
	p.mu.Unlock()
	return nil
}

// retry starts what the worker has refused.
func (p *Process) retry(l *link) error {
	p.order.Lock()
	defer p.order.Unlock()
	p.mu.Lock()
	var again []*wantedSession
	for _, s := range p.wanted {
		if p.refused[s.id] != nil {
			again = append(again, s)
		}
	}
	p.mu.Unlock()
	for _, s := range again {
		if err := p.startSession(l, s); err != nil {
			return err
		}
	}
	return nil
}

// startSession makes the worker run a session, or notes why it won't; an error is the
// worker's own.
func (p *Process) startSession(l *link, s *wantedSession) error {
	_, err := l.call(request{Op: opAdd, ID: s.id, Config: s.cfg})
	if err == nil && s.down {
		_, err = l.call(request{Op: opAdmin, ID: s.id, Down: true})
	}
	var refusal refusal
	if err != nil && !errors.As(err, &refusal) {
		return err
	}
	p.mu.Lock()
	known := p.refused[s.id] != nil
	delete(p.refused, s.id)
	if err != nil {
		p.refused[s.id] = err
	}
	p.mu.Unlock()
	if err != nil && !known {
		p.log.Error("bfd session refused, trying again", "peer", s.cfg.Peer, "err", err, "pause", retryPause)
	}
	return nil
}

// read serves what the worker says until it says no more.
func (p *Process) read(l *link) {
	defer close(l.done)
	dec := gob.NewDecoder(l.conn)
	for {
		var m message
		if dec.Decode(&m) != nil {
			return
		}
		if m.Event == nil {
			l.mu.Lock()
			if reply := l.waiting[m.Seq]; reply != nil {
				reply <- m
				delete(l.waiting, m.Seq)
			}
			l.mu.Unlock()
			continue
		}
		e := *m.Event
		want := p.find(func(s *wantedSession) bool {
			return s.cfg.identity() == identity{e.Peer, e.Local, e.Interface, e.Multihop}
		})
		if want != nil && p.options.OnChange != nil { // nil: removed meanwhile
			e.ID = want.id
			p.options.OnChange(e)
		}
	}
}

// refusal is a worker's answer; other errors of call say that there was none.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

func (l *link) call(r request) (message, error) {
	reply := make(chan message, 1)
	l.mu.Lock()
	l.seq++
	r.Seq = l.seq
	l.waiting[r.Seq] = reply
	err := l.enc.Encode(r)
	l.mu.Unlock()
	if err != nil {
		return message{}, fmt.Errorf("bfd worker: %w", err)
	}
	select {
	case m := <-reply:
		if m.Err != "" {
			err = refusal(m.Err)
		}
		return m, err
	case <-l.done:
		return message{}, errNoWorker
	case <-time.After(callTimeout):
		_ = l.conn.Close() // ends it; the next one gets what is wanted then
		return message{}, fmt.Errorf("bfd worker has not answered for %s", callTimeout)
	}
}

func (p *Process) find(is func(*wantedSession) bool) *wantedSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.wanted, is); i >= 0 {
		return p.wanted[i]
	}
	return nil
}

// call is for what only a running worker can answer.
func (p *Process) call(r request) (message, error) {
	p.mu.Lock()
	l, ended := p.link, p.ended
	p.mu.Unlock()
	switch {
	case ended:
		return message{}, ErrStopped
	case l == nil:
		return message{}, errNoWorker
	}
	return l.call(r)
}

// tell is call for what a worker that is not running gets when it is started.
func (p *Process) tell(r request) error {
	_, err := p.call(r)
	if errors.Is(err, errNoWorker) {
		return nil
	}
	return err
}

// Add is Engine.Add, save that no worker need run yet.
func (p *Process) Add(c Config) (ID, error) {
	id, err := p.add(c)
	if err != nil {
		return 0, fmt.Errorf("add BFD session with %s: %w", c.Peer, err)
	}
	return id, nil
}

func (p *Process) add(c Config) (ID, error) {
	n, err := c.normal()
	if err != nil {
		return 0, err
	}
	p.order.Lock()
	defer p.order.Unlock()
	if p.find(func(s *wantedSession) bool { return s.cfg.identity() == n.identity() }) != nil {
		return 0, ErrExists
	}
	p.mu.Lock()
	p.lastID++
	s := &wantedSession{id: p.lastID, cfg: n}
	p.wanted = append(p.wanted, s) // before the first event can come
	p.mu.Unlock()
	select {
	case p.first <- struct{}{}:
	default:
	}
	if err := p.tell(request{Op: opAdd, ID: s.id, Config: n}); err != nil {
		p.forget(s.id)
		return 0, err
	}
	return s.id, nil
}

// forget takes a session off the lists, and tells whether the worker had refused it.
func (p *Process) forget(id ID) (refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = slices.DeleteFunc(p.wanted, func(s *wantedSession) bool { return s.id == id })
	refused = p.refused[id] != nil
	delete(p.refused, id)
	return refused
}

// change replaces a wanted session by another with the same id, and tells the worker.
func (p *Process) change(id ID, edit func(*wantedSession) (request, error)) error {
	p.order.Lock()
	defer p.order.Unlock()
	s := p.find(func(s *wantedSession) bool { return s.id == id })
	if s == nil {
		return ErrUnknown
	}
	n := *s
	r, err := edit(&n)
	if err != nil {
		return err
	}
	r.ID = id
	p.mu.Lock()
	refused := p.refused[id] != nil
	p.mu.Unlock()
	if !refused { // else it is for the next try
		if err := p.tell(r); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.wanted[slices.Index(p.wanted, s)] = &n
	p.mu.Unlock()
	return nil
}

// Update is Engine.Update.
func (p *Process) Update(id ID, c Config) error {
	err := p.change(id, func(s *wantedSession) (request, error) {
		n, err := c.normal()
		if err == nil {
			err = s.cfg.updatable(n)
		}
		s.cfg = n
		return request{Op: opUpdate, Config: n}, err
	})
	if err != nil {
		return fmt.Errorf("update BFD session with %s: %w", c.Peer, err)
	}
	return nil
}

// Remove is Engine.Remove.
func (p *Process) Remove(id ID) error {
	p.order.Lock()
	defer p.order.Unlock()
	if p.find(func(s *wantedSession) bool { return s.id == id }) == nil {
		return fmt.Errorf("remove BFD session: %w", ErrUnknown)
	}
	if p.forget(id) {
		return nil
	}
	return p.tell(request{Op: opRemove, ID: id})
}

// SetAdmin is Engine.SetAdmin.
func (p *Process) SetAdmin(id ID, down bool) error {
	err := p.change(id, func(s *wantedSession) (request, error) {
		s.down = down
		return request{Op: opAdmin, Down: down}, nil
	})
	if err != nil {
		return fmt.Errorf("set BFD session's administrative state: %w", err)
	}
	return nil
}

// Sessions is Engine.Sessions; an error while no worker runs. A session that the worker
// could not start is Down, with the reason in SocketError.
func (p *Process) Sessions() ([]Info, error) {
	m, err := p.call(request{Op: opSessions})
	if err != nil {
		return nil, err
	}
	known := m.Sessions[:0]
	for _, i := range m.Sessions {
		if s := p.find(func(s *wantedSession) bool { return s.cfg.identity() == i.Config.identity() }); s != nil {
			i.ID = s.id
			known = append(known, i)
		}
	}
	p.mu.Lock()
	for _, s := range p.wanted {
		if why := p.refused[s.id]; why != nil {
			known = append(known, Info{ID: s.id, Config: s.cfg.withoutKey(), State: Down, RemoteState: Down, SocketError: why.Error()})
		}
	}
	p.mu.Unlock()
	sortInfos(known)
	return known, nil
}

// Stats is Engine.Stats; an error while no worker runs.
func (p *Process) Stats() (Stats, error) {
	m, err := p.call(request{Op: opStats})
	return m.Stats, err
}
