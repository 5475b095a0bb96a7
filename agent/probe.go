package agent

import "time"

// probe has the kernel ask the next hops whether they are there (fib.probe): it does so
// by itself only for traffic, and slowly. The answers come as any neighbour's news.
func (a *Agent) probe(now time.Time, again *alarm) {
	every := a.cfg.FIB.Probe
	if every == 0 || a.opts.Probe == nil {
		return
	}
	if now.Before(a.probeAt) {
		again.by(a.probeAt)
		return
	}
	a.probeAt = now.Add(every)
	again.by(a.probeAt)
	err := a.opts.Probe(a.table.Legs())
	if err != nil && a.probeErr == nil {
		a.log.Warn("next hops cannot be probed; trying on", "err", err)
	}
	a.probeErr = err
}
