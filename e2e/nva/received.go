package nva

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Path is a prefix that the peer announced, and how.
type Path struct {
	Prefix netip.Prefix
	Attrs  *Attrs // shared by the prefixes of one UPDATE: read only
	At     time.Time
}

// String writes the path in one line: prefix, next hop, AS path, origin, and the
// attributes that are there.
func (p Path) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s next-hop %s as-path %s origin %s", p.Prefix, p.Attrs.NextHop, PathString(p.Attrs.ASPath), p.Attrs.Origin)
	if p.Attrs.MED != nil {
		fmt.Fprintf(&b, " med %d", *p.Attrs.MED)
	}
	for i, c := range p.Attrs.Communities {
		if i == 0 {
			b.WriteString(" community ")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(c.String())
	}
	return b.String()
}

// Received is the table of what a peer announced on one session.
type Received struct {
	mu        sync.Mutex
	changed   *sync.Cond // on mu; broadcast at every message
	paths     map[netip.Prefix]Path
	endOfRIB  map[Family]bool
	updates   int
	refreshes int
	ended     bool
	err       error
}

func newReceived() *Received {
	r := &Received{paths: map[netip.Prefix]Path{}, endOfRIB: map[Family]bool{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *Received) update(u Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, p := range u.Withdrawn {
		delete(r.paths, p)
	}
	for _, p := range u.Announced {
		r.paths[p] = Path{p, &u.Attrs, now}
	}
	if u.EndOfRIB != 0 {
		r.endOfRIB[u.EndOfRIB] = true
	}
	r.updates++
	r.changed.Broadcast()
}

func (r *Received) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refreshes++
	r.changed.Broadcast()
}

func (r *Received) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended, r.err = true, err
	r.changed.Broadcast()
}

// Len is the number of prefixes announced and not withdrawn.
func (r *Received) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.paths)
}

// Path is the present path of a prefix.
func (r *Received) Path(p netip.Prefix) (Path, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, ok := r.paths[p]
	return path, ok
}

// Paths lists all present paths, ordered by prefix.
func (r *Received) Paths() []Path {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Path, 0, len(r.paths))
	for _, p := range r.paths {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Path) int { return a.Prefix.Compare(b.Prefix) })
	return list
}

// Updates counts the UPDATEs so far, End-of-RIB markers included.
func (r *Received) Updates() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.updates
}

// Refreshes counts the ROUTE-REFRESH messages so far.
func (r *Received) Refreshes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshes
}

// WaitPath waits until prefix is announced and ok says yes to its path; a nil ok
// takes any.
func (r *Received) WaitPath(ctx context.Context, prefix netip.Prefix, ok func(Path) bool) (Path, error) {
	var got Path
	err := r.wait(ctx, prefix.String(), func() bool {
		p, have := r.paths[prefix]
		got = p
		return have && (ok == nil || ok(p))
	})
	return got, err
}

// WaitGone waits until prefix is not announced.
func (r *Received) WaitGone(ctx context.Context, prefix netip.Prefix) error {
	return r.wait(ctx, "withdrawal of "+prefix.String(), func() bool {
		_, have := r.paths[prefix]
		return !have
	})
}

// WaitLen waits until exactly n prefixes are announced.
func (r *Received) WaitLen(ctx context.Context, n int) error {
	return r.wait(ctx, fmt.Sprintf("%d prefixes", n), func() bool { return len(r.paths) == n })
}

// WaitEndOfRIB waits for the End-of-RIB marker of a family.
func (r *Received) WaitEndOfRIB(ctx context.Context, f Family) error {
	return r.wait(ctx, "End-of-RIB", func() bool { return r.endOfRIB[f] })
}

// WaitRefresh waits until n ROUTE-REFRESH messages have come.
func (r *Received) WaitRefresh(ctx context.Context, n int) error {
	return r.wait(ctx, "ROUTE-REFRESH", func() bool { return r.refreshes >= n })
}

// wait blocks until ok, which is called with mu held, or the session or ctx ends.
func (r *Received) wait(ctx context.Context, what string, ok func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock() // else the broadcast could fall between a waiter's check and its Wait
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		if r.ended {
			return fmt.Errorf("wait for %s: session ended with %d prefixes received: %w", what, len(r.paths), r.err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %d prefixes received: %w", what, len(r.paths), ctx.Err())
		}
		r.changed.Wait()
	}
	return nil
}
