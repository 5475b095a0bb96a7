package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// observer knows when the host's FIB came to what is waited for, at little cost to the
// two cores that the daemon runs on: the counter tells when routes changed last, and a
// dump tells whether that was all. A dump of a million routes takes 0.4 s, so it is made
// only when the kernel has been quiet for a moment.
type observer struct {
	s *rtnetlink
	c *counter
}

func newObserver(n *lab.Node) (*observer, error) {
	o := &observer{}
	return o, n.Do(func() (err error) {
		if o.s, err = openNetlink(); err != nil {
			return err
		}
		o.c, err = newCounter()
		return err
	})
}

func (o *observer) close() {
	if o.s != nil {
		o.s.close()
	}
	if o.c != nil {
		o.c.close()
	}
}

const (
	pollFirst = time.Millisecond
	pollMost  = 10 * time.Millisecond
	// quiet is how long no route has changed before a dump is worth it.
	quiet = 30 * time.Millisecond
	// lookAnyway bounds how long a state that nobody notified of stays unseen.
	lookAnyway = time.Second
)

// await waits until all n routes lead to exactly the next hops h (0: there is no route),
// and returns when that was.
func (o *observer) await(ctx context.Context, n int, h hops) (instant, error) {
	return o.awaitMove(ctx, n, h, 0, nil)
}

// awaitMove is await where all routes leave the next hops from, and named these groups
// before. A daemon that changes the groups and leaves the routes alone is done when no
// group holds from any more, whatever it writes afterwards.
func (o *observer) awaitMove(ctx context.Context, n int, h, from hops, groups map[uint32]bool) (instant, error) {
	want := func(f fib) bool { return f.all(n, h) }
	if h == 0 {
		want = func(f fib) bool { return f.routes == 0 }
	}
	poll, begun := pollFirst, now()
	var seen fib
	var err error
	dumped, counted := now(), ^uint64(0) // the last dump: when, and at which count
	var took time.Duration
	for {
		count, last := o.c.read(ofRoutes)
		at := now()
		if len(groups) > 0 {
			_, changed := o.c.read(ofNextHops)
			objects, err := o.s.objects()
			if err != nil {
				return 0, err
			}
			if objects.free(from, groups) {
				if seen, err = o.s.routes(); err != nil {
					return 0, err
				}
				if want(seen) && seen.grouped == n {
					if changed > begun { // none: the kernel has changed the groups by itself
						at = changed
					}
					return at, nil
				}
				groups = nil // the routes decide
			}
		}
		sinceDump := at.since(dumped)
		if (count != counted && at.since(last) >= quiet || sinceDump > lookAnyway) && sinceDump >= 10*took {
			start := now()
			if seen, err = o.s.routes(); err != nil {
				return 0, err
			}
			dumped, counted = now(), count
			took = dumped.since(start)
			if want(seen) {
				// A write during the dump would have changed what was waited for.
				_, last = o.c.read(ofRoutes)
				return last, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the FIB has %s: %w", seen, ctx.Err())
		case <-time.After(poll):
		}
		poll = min(poll*21/20+1, pollMost)
	}
}

// free tells whether these groups are there, and none holds any of the next hops.
func (o objects) free(h hops, groups map[uint32]bool) bool {
	for id := range groups {
		if !o.groups[id] || o.hops[id]&h != 0 {
			return false
		}
	}
	return true
}
