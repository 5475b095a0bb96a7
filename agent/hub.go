package agent

import (
	"net/netip"
	"strconv"
	"sync"

	"github.com/nexthopd/nexthopd/agent/status"
)

// hub hands events to whoever watches. A watcher that is too slow loses events, and is
// told how many.
type hub struct {
	mu       sync.Mutex // guards watchers and closed
	watchers map[*watcher]bool
	closed   bool
}

// watcher is one `nexthopctl monitor`.
type watcher struct {
	// events has room for 1024; when it is full, events are dropped and counted.
	events chan status.Event
	lost   int
}

func (h *hub) init() { h.watchers = make(map[*watcher]bool) }

func (h *hub) watch() *watcher {
	w := &watcher{events: make(chan status.Event, 1024)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(w.events)
		return w
	}
	h.watchers[w] = true
	return w
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) > 0
}

func (h *hub) publish(e status.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		out := e
		if w.lost > 0 {
			out.Fields = map[string]string{"lost": strconv.Itoa(w.lost)}
			for k, v := range e.Fields {
				out.Fields[k] = v
			}
		}
		select {
		case w.events <- out:
			w.lost = 0
		default:
			w.lost++
		}
	}
}

// close ends every watch.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		close(w.events)
	}
	clear(h.watchers)
}

// pathEvent tells how a prefix that changed is forwarded now. The loop calls it.
func (a *Agent) pathEvent(p netip.Prefix) {
	e, ok := a.table.Entry(p)
	if !ok || len(e.Vias) == 0 {
		if why, rejected := a.rejected.why[p]; rejected {
			a.event("path", nil, p, "not installed", map[string]string{"reason": string(why)})
		} else {
			a.event("path", nil, p, "withdrawn by all peers", nil)
		}
		return
	}
	fields := map[string]string{"nexthops": a.legsText(e.Legs)}
	if len(e.Legs) == 0 {
		fields["nexthops"], fields["reason"] = "none", "next-hop-unreachable"
	}
	a.event("path", nil, p, "changed", fields)
}
