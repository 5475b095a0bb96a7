package bfd

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// workerFD is where a worker finds its socket to the Process that started it.
const workerFD = 3

// What goes over the socket, in gob: one hello, then requests; back come messages.
type hello struct{ Priority int }

type request struct {
	Seq    uint64
	Op     op
	ID     ID // the Process's, which the worker translates
	Config Config
	Down   bool
}

type op uint8

const (
	opAdd op = iota
	opUpdate
	opRemove
	opAdmin
	opSessions
	opStats
)

// message is either an event or the reply to a request.
type message struct {
	Event    *Event
	Seq      uint64
	Err      string
	Sessions []Info
	Stats    Stats
}

// RunWorker is the whole of a worker's main: it runs an Engine as the Process says that
// started it, and returns when that one closes the socket or dies. Signals that are
// meant for the Process, which may come to the whole control group or terminal, are
// ignored.
func RunWorker() error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	f := os.NewFile(workerFD, "bfd worker socket")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("bfd worker: file descriptor %d: %w; only nexthopd itself starts this", workerFD, err)
	}
	defer func() { _ = conn.Close() }()
	// The first collection at 40 MB, not at 4: what Sessions and events leave behind
	// takes hours to get there.
	debug.SetGCPercent(1000)
	return serve(conn)
}

// worker serves one Process.
type worker struct {
	engine *Engine
	ids    map[ID]ID // the Process's to the engine's; serveRequests alone uses it

	mu  sync.Mutex // guards enc
	enc *gob.Encoder
}

// maxBacklog is how many events may wait for the Process. One that is further behind
// does not act on them any more, so the worker ends, and the peers see that.
const maxBacklog = 4096

func serve(conn io.ReadWriter) error {
	dec := gob.NewDecoder(conn)
	var h hello
	if err := dec.Decode(&h); err != nil {
		return fmt.Errorf("bfd worker: read the options: %w", err)
	}
	if err := scheduleProcess(h.Priority); err != nil {
		return fmt.Errorf("bfd worker: schedule threads: %w", err)
	}
	g, ctx := errgroup.WithContext(context.Background())
	ctx, cancel := context.WithCancelCause(ctx)
	events := make(chan Event, maxBacklog)
	engine, err := New(Options{Priority: h.Priority, OnChange: func(e Event) {
		select {
		case events <- e:
		default:
			cancel(fmt.Errorf("bfd worker: %d events wait for the main process", maxBacklog))
		}
	}})
	if err != nil {
		return err
	}
	w := &worker{engine: engine, ids: map[ID]ID{}, enc: gob.NewEncoder(conn)}
	// The reader is blocked in the socket when the engine fails; the process ends then,
	// and takes it along.
	go func() {
		err := w.serveRequests(dec)
		if err == errProcessGone {
			time.Sleep(goodbyeDelay)
		}
		cancel(err)
	}()
	g.Go(func() error {
		for {
			select {
			case e := <-events:
				if err := w.write(&message{Event: &e}); err != nil {
					cancel(err)
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error { return engine.Run(ctx) })
	err = g.Wait()
	if cause := context.Cause(ctx); err == nil && cause != errProcessGone {
		err = cause
	}
	return err
}

// goodbyeDelay is how long the sessions go on when the Process has ended or died. Its other
// connections end with it, and that has to be noticed before AdminDown: FRR 8.4 and BIRD 2
// take that for a failure of the path, and end a BGP session that is up still for good,
// instead of waiting for its graceful restart.
const goodbyeDelay = 250 * time.Millisecond

// errProcessGone is the normal end.
var errProcessGone = errors.New("main process closed the socket")

func (w *worker) serveRequests(dec *gob.Decoder) error {
	for {
		var r request
		if err := dec.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
				return errProcessGone
			}
			return fmt.Errorf("bfd worker: read a request: %w", err)
		}
		m := message{Seq: r.Seq}
		if err := w.do(&r, &m); err != nil {
			if inner := errors.Unwrap(err); inner != nil {
				err = inner // the Process says itself what was tried
			}
			m.Err = err.Error()
		}
		if err := w.write(&m); err != nil {
			return err
		}
	}
}

func (w *worker) do(r *request, m *message) (err error) {
	switch r.Op {
	case opAdd:
		var id ID
		if id, err = w.engine.Add(r.Config); err == nil {
			w.ids[r.ID] = id
		}
	case opUpdate:
		err = w.engine.Update(w.ids[r.ID], r.Config)
	case opRemove:
		err = w.engine.Remove(w.ids[r.ID])
		delete(w.ids, r.ID)
	case opAdmin:
		err = w.engine.SetAdmin(w.ids[r.ID], r.Down)
	case opSessions:
		m.Sessions, err = w.engine.Sessions()
	case opStats:
		m.Stats, err = w.engine.Stats()
	default:
		err = fmt.Errorf("bug: operation %d", r.Op)
	}
	return err
}

func (w *worker) write(m *message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enc.Encode(m); err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return errProcessGone
		}
		return fmt.Errorf("bfd worker: write: %w", err)
	}
	return nil
}
