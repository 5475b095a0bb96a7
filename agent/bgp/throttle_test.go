package bgp

import (
	"net/netip"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	flood, peer := netip.MustParseAddr("10.1.0.4"), netip.MustParseAddr("10.1.0.5")
	start := time.Unix(1_000_000, 0)
	buckets := throttle{}
	// A thousand connections per second, and a peer that tries every second.
	passed, now := 0, start
	for range 10_000 {
		now = now.Add(time.Millisecond)
		if buckets.allow(flood, now) {
			passed++
		}
		if now.Sub(start)%time.Second == 0 && !buckets.allow(peer, now) {
			t.Fatalf("after %v the peer is turned away", now.Sub(start))
		}
	}
	if want := throttleBurst + int(10*time.Second/throttleEvery); passed < want-1 || passed > want {
		t.Errorf("%d connections of the flood passed, want %d", passed, want)
	}
	if buckets.allow(flood, now) {
		t.Error("the flood is over, and its source may connect at once")
	}
	if now = now.Add(throttleEvery); !buckets.allow(flood, now) {
		t.Error("a source that paused may not connect")
	}
	now = now.Add(throttleBurst * throttleEvery)
	for i := range throttleBurst + 1 {
		if got, want := buckets.allow(flood, now), i < throttleBurst; got != want {
			t.Errorf("connection %d after a long pause: %v", i, got)
		}
	}
}

// What is remembered is bounded, and who is turned away is not forgotten for that.
func TestThrottleSources(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	flood := netip.MustParseAddr("10.1.0.4")
	buckets := throttle{}
	for range throttleBurst {
		buckets.allow(flood, now)
	}
	source := netip.MustParseAddr("fd00::")
	for range 3 * throttleSources {
		source = source.Next()
		if !buckets.allow(source, now) {
			t.Fatalf("%s is turned away", source)
		}
		if len(buckets) > throttleSources {
			t.Fatalf("%d sources are remembered", len(buckets))
		}
	}
	if buckets.allow(flood, now) {
		t.Error("the source of a flood was forgotten")
	}
	now = now.Add(throttleEvery)
	if buckets.allow(source.Next(), now); len(buckets) != 2 {
		t.Errorf("%d sources are remembered, want the flood's and the new one", len(buckets))
	}
}
