package fibtest

import (
	"context"

	"github.com/nexthopd/nexthopd/fib"
)

// watcher is one running Watch.
type watcher struct {
	k *Kernel
	// queue is guarded by Machine.mu. It has no bound: a test reads it to the end.
	queue []fib.Event
	poke  chan struct{} // one slot; full means that the reader will look anyway
}

// Watch calls each for every Event until ctx ends; the first one is Subscribed.
func (k *Kernel) Watch(ctx context.Context, each func(fib.Event)) error {
	w := &watcher{k: k, queue: []fib.Event{{Kind: fib.Subscribed}}, poke: make(chan struct{}, 1)}
	m := k.m
	m.mu.Lock()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	for {
		m.mu.Lock()
		events := w.queue
		w.queue = nil
		m.mu.Unlock()
		for _, e := range events {
			if ctx.Err() != nil {
				return nil
			}
			each(e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.poke:
		}
	}
}

// Emit sends an event of any kind to everybody: Overflow, NeighborFailed and such.
func (m *Machine) Emit(e fib.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.emit(e)
}

func (m *Machine) emit(e fib.Event) {
	for w := range m.watchers {
		w.send(e)
	}
}

func (w *watcher) send(e fib.Event) {
	w.queue = append(w.queue, e)
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (m *Machine) emitRoute(r fib.Route, deleted bool, pid uint32) {
	for w := range m.watchers {
		if w.k.pid == pid {
			continue // our own doing
		}
		e := fib.Event{Deleted: deleted, Prefix: r.Prefix, Table: r.Table, Protocol: r.Protocol, PID: pid}
		switch {
		case w.k.ours(&r):
			e.Kind = fib.OwnRouteChanged
		case w.k.ourKey(&r):
			e.Kind = fib.ForeignRoute
		case r.Table == w.k.owner.Table || r.Table == mainTable:
			e.Kind = fib.HostRouteChanged
		default:
			continue
		}
		w.send(e)
	}
}

func (m *Machine) emitNextHop(id uint32, deleted bool, pid uint32) {
	if pid == silent {
		return
	}
	for w := range m.watchers {
		if w.k.pid == pid {
			continue
		}
		e := fib.Event{Kind: fib.HostNextHopChanged, Deleted: deleted, ID: id, PID: pid}
		if w.k.owner.OwnsID(id) {
			e.Kind = fib.OwnNextHopChanged
		}
		w.send(e)
	}
}
