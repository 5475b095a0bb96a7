package bgp

import (
	"net/netip"
	"time"
)

const (
	// throttleBurst is how many connections a source may make at once, and throttleEvery how
	// long it takes until it may make another. A BGP speaker tries again every few seconds,
	// a clumsy one every second; each may do so for ever.
	throttleBurst = 30
	throttleEvery = 500 * time.Millisecond
	// throttleSources bounds the sources that are remembered. One is forgotten when it may
	// make throttleBurst connections again.
	throttleSources = 4096
)

// throttle bounds how often each source may connect: a token bucket for each, kept as the
// time at which it is going to be full.
type throttle map[netip.Addr]time.Time

// allow tells whether a connection of the source at that time is within its bounds. One
// that is not, does not count.
func (t throttle) allow(source netip.Addr, now time.Time) bool {
	full := t[source]
	if full.Before(now) {
		full = now
		if _, known := t[source]; !known && len(t) >= throttleSources {
			t.makeRoom(now)
		}
	}
	if full.Sub(now) > (throttleBurst-1)*throttleEvery {
		return false
	}
	t[source] = full.Add(throttleEvery)
	return true
}

// makeRoom forgets the sources whose buckets are full, or else the one closest to it.
func (t throttle) makeRoom(now time.Time) {
	var first netip.Addr
	for source, full := range t {
		if !full.After(now) {
			delete(t, source)
		} else if !first.IsValid() || full.Before(t[first]) {
			first = source
		}
	}
	if len(t) >= throttleSources {
		delete(t, first)
	}
}
