package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

// The garbage collector takes a third of the CPU of a load with Go's usual pace, because
// nearly all that is allocated stays. So it runs more rarely while a table loads, within
// a limit that keeps the kernel from ending the process; what it left behind goes when
// the load is over. GOGC and GOMEMLIMIT in the environment are the operator's decision.
const (
	gcUsual   = 100
	gcLoading = 300
	// loadingRate is how many changes of paths in a second make a load; it is over
	// after quietTicks seconds of less.
	loadingRate = 5000
	quietTicks  = 3
)

// gcPace decides, second by second, how the collector is to run.
type gcPace struct {
	last    uint64
	loading bool
	quiet   int
}

// tick takes the number of changes so far and returns whether the pace changes with it.
func (p *gcPace) tick(changes uint64) (changed bool) {
	busy := changes-p.last >= loadingRate
	p.last = changes
	switch {
	case busy:
		p.quiet = 0
		changed = !p.loading
		p.loading = true
	case p.loading:
		p.quiet++
		if changed = p.quiet == quietTicks; changed {
			p.loading = false
		}
	}
	return changed
}

// keepPace runs until ctx ends.
func keepPace(ctx context.Context, changes func() uint64, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit := memoryLimit(os.DirFS("/")); limit > 0 {
			debug.SetMemoryLimit(limit)
			log.Debug("memory limit", "bytes", limit)
		}
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(gcUsual)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for p := (gcPace{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case !p.tick(changes()):
		case p.loading:
			debug.SetGCPercent(gcLoading)
		default:
			debug.SetGCPercent(gcUsual)
			debug.FreeOSMemory()
		}
	}
}
