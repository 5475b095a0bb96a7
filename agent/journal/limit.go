package journal

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// The limits: of one kind of record about one peer or prefix, and of one kind of record
// about any prefix or next hop. Peers are few and configured; prefixes and next hops are
// chosen by peers, so a million of them refused must not be a million lines.
const (
	limitInterval = 30 * time.Second
	limitSame     = 5
	limitKind     = 50
	// limitKeys bounds the memory. Messages are constants and peers are configured, so
	// this many at once is unheard of; those beyond it share one window.
	limitKeys = 4096
)

// limitKey says which records count as repetitions of each other.
type limitKey struct {
	kind    string // the event, or the message where there is none
	peer    string
	subject string // prefix and next hop
	whole   bool   // the window of a whole kind, whatever the peer and the subject
}

// window counts one key's records since start.
type window struct {
	start      time.Time
	passed     int
	suppressed uint64
	last       slog.Record // the last that was held back, and where it would have gone
	to         slog.Handler
}

// limiter is the state that all handlers derived from one share.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex // guards windows
	windows map[limitKey]*window
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, windows: make(map[limitKey]*window)}
}

// limited is a slog.Handler that passes the first few of equal records and holds back
// the rest for a while. What was held back is counted in the attribute "suppressed" of
// the next one that is written. Debug records all pass: who asks for them wants all.
type limited struct {
	*limiter
	next    slog.Handler
	key     limitKey // from WithAttrs
	grouped bool     // attributes of a group are not ours to interpret
}

// Enabled implements slog.Handler.
func (h *limited) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *limited) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return h.next.Handle(ctx, r)
	}
	key := h.key
	if !h.grouped {
		r.Attrs(func(a slog.Attr) bool {
			key.take(a)
			return true
		})
	}
	if key.kind == "" {
		key.kind = r.Message
	}
	suppressed, pass := h.admit(key, r, h.next)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64(keySuppressed, suppressed))
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	if !h.grouped {
		for _, a := range attrs {
			c.key.take(a)
		}
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *limited) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	c.grouped = h.grouped || name != ""
	return &c
}

func (k *limitKey) take(a slog.Attr) {
	switch a.Key {
	case keyEvent:
		k.kind = a.Value.String()
	case keyPeer:
		k.peer = text(plain(a.Value))
	case keyPrefix, keyNextHop:
		k.subject += " " + text(plain(a.Value))
	}
}

// admit decides on one record; suppressed is how many like it were held back before.
func (l *limiter) admit(key limitKey, r slog.Record, to slog.Handler) (suppressed uint64, pass bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	own := l.windows[key]
	if own == nil && len(l.windows) >= limitKeys {
		key = limitKey{whole: true} // of no kind: what there is no room for
		own = l.windows[key]
	}
	if own != nil && !own.open(now, limitSame) {
		own.hold(r, to)
		return 0, false
	}
	// Only what has room of its own uses up the kind's: one restless prefix must not
	// silence the others.
	if key.subject != "" {
		kind := l.window(limitKey{kind: key.kind, whole: true})
		if !kind.open(now, limitKind) {
			kind.hold(r, to)
			return 0, false
		}
		kind.passed++
		suppressed += kind.taken()
	}
	if own == nil {
		own = l.window(key)
		own.open(now, limitSame)
	}
	own.passed++
	return suppressed + own.taken(), true
}

func (l *limiter) window(key limitKey) *window {
	w := l.windows[key]
	if w == nil {
		w = &window{}
		l.windows[key] = w
	}
	return w
}

// open tells whether a record may pass now, and begins a new window when the old one is over.
func (w *window) open(now time.Time, limit int) bool {
	if now.Sub(w.start) >= limitInterval {
		w.start, w.passed = now, 0
	}
	return w.passed < limit
}

func (w *window) hold(r slog.Record, to slog.Handler) {
	w.suppressed++
	w.last, w.to = r.Clone(), to
}

// taken returns the count of what was held back, which the caller writes.
func (w *window) taken() uint64 {
	n := w.suppressed
	w.suppressed, w.last, w.to = 0, slog.Record{}, nil
	return n
}

// flush writes the last record of each window that held some back and is over (or of
// all), so that the count comes out although nothing like it happens again, and forgets
// windows that are over.
func (l *limiter) flush(ctx context.Context, all bool) {
	type held struct {
		r  slog.Record
		to slog.Handler
	}
	var out []held
	l.mu.Lock()
	now := l.now()
	for key, w := range l.windows {
		if !all && now.Sub(w.start) < limitInterval {
			continue
		}
		if r, to := w.last, w.to; w.suppressed > 0 {
			if n := w.taken() - 1; n > 0 { // this one is written after all
				r.AddAttrs(slog.Uint64(keySuppressed, n))
			}
			out = append(out, held{r, to})
		}
		delete(l.windows, key)
	}
	l.mu.Unlock()
	for _, h := range out {
		// A handler's error has nowhere to go: slog ignores it too.
		_ = h.to.Handle(ctx, h.r)
	}
}

// run flushes until ctx ends, and then everything.
func (l *limiter) run(ctx context.Context) {
	t := time.NewTicker(limitInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush(context.WithoutCancel(ctx), true)
			return
		case <-t.C:
			l.flush(ctx, false)
		}
	}
}
