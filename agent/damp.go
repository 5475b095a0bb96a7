package agent

import (
	"fmt"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
)

// reuseEvery is how often damped paths are looked at, to use them again.
const reuseEvery = 5 * time.Second

// newDamping tells the rib whose flapping paths are held back, and how. mu is held, or
// nobody else has the agent yet.
func (a *Agent) newDamping() {
	for _, p := range a.peers.list {
		a.rib.SetDamping(p.source, dampingOf(p.cfg.Damping))
	}
	a.reuseAt = time.Time{} // by the new measure
}

func dampingOf(c config.Damping) *rib.Damping {
	if !c.Enabled {
		return nil
	}
	return &rib.Damping{
		HalfLife: int64(c.HalfLife / time.Second), Suppress: c.Suppress, Reuse: c.Reuse, Most: c.Most(),
	}
}

// reuse lets damped paths count again whose time has come.
func (a *Agent) reuse(now time.Time, again *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.rib.Flapping() {
		return
	}
	if !now.Before(a.reuseAt) {
		more := a.rib.Reuse(now.Unix())
		if a.rib.Dirty() > 0 {
			a.inbox.stamp(now)
			a.wake()
		}
		if !more {
			return
		}
		a.reuseAt = now.Add(reuseEvery)
	}
	again.by(a.reuseAt)
}

// dampedDetail says how long a path is held back still. mu is held.
func (a *Agent) dampedDetail(v *rib.Verdict, j *judgement) string {
	penalty, left := a.rib.DampedFor(v.Path.Source, j.prefix, time.Now().Unix())
	return fmt.Sprintf("%s: penalty %d, used again in %s if it stays", v.Detail, penalty, time.Duration(left)*time.Second)
}
