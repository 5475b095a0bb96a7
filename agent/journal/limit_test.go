package journal

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// limitedLogger logs through a limiter into the slice.
func limitedLogger(out *[]sent) (*slog.Logger, *limiter) {
	l := newLimiter(time.Now)
	return slog.New(&limited{limiter: l, next: newNative(slog.LevelDebug, recordTo(out), discard())}), l
}

func TestLimitHoldsBackAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []sent
		log, _ := limitedLogger(&got)
		peer := slog.String("peer", "10.1.0.4")
		for range 12 {
			Log(log, SessionDown, peer)
		}
		if len(got) != limitSame {
			t.Fatalf("12 equal records: %d written, want %d", len(got), limitSame)
		}
		Log(log, SessionDown, slog.String("peer", "10.1.0.5"))
		Log(log, SessionUp, peer)
		if len(got) != limitSame+2 {
			t.Errorf("another peer and another event: %d written, want 2", len(got)-limitSame)
		}
		time.Sleep(limitInterval)
		Log(log, SessionDown, peer)
		if last := got[len(got)-1]; last.fields["SUPPRESSED"] != "7" {
			t.Errorf("after the interval SUPPRESSED = %q, want 7", last.fields["SUPPRESSED"])
		}
		Log(log, SessionDown, peer)
		if last := got[len(got)-1]; last.fields["SUPPRESSED"] != "" {
			t.Errorf("SUPPRESSED = %q again, want none", last.fields["SUPPRESSED"])
		}
	})
}

// A million refused prefixes are not a million lines, nor a million map entries.
func TestLimitOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []sent
		log, l := limitedLogger(&got)
		for i := range 10000 {
			Log(log, FIBRefused, slog.String("prefix", fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)))
		}
		if len(got) != limitKind {
			t.Errorf("10000 prefixes: %d records written, want %d", len(got), limitKind)
		}
		if n := len(l.windows); n > limitKind+1 {
			t.Errorf("%d windows are kept, want at most %d", n, limitKind+1)
		}
		time.Sleep(limitInterval)
		Log(log, FIBRefused, slog.String("prefix", "192.0.2.0/24"))
		if s := got[len(got)-1].fields["SUPPRESSED"]; s != "9950" {
			t.Errorf("SUPPRESSED = %q, want 9950", s)
		}
	})
}

func TestLimitRestlessPrefixLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []sent
		log, _ := limitedLogger(&got)
		for range 1000 {
			Log(log, Repair, slog.String("prefix", "10.9.0.0/24"))
		}
		Log(log, Repair, slog.String("prefix", "10.9.1.0/24"))
		if len(got) != limitSame+1 {
			t.Errorf("%d records written, want %d and the other prefix's", len(got), limitSame)
		}
	})
}

// The attributes that make the key may come with the logger; plain records are limited
// by their message; debug ones are not.
func TestLimitKeys(t *testing.T) {
	tests := []struct {
		name string
		log  func(l *slog.Logger, i int)
		want int
	}{
		{"peer of the logger", func(l *slog.Logger, i int) { l.With("peer", fmt.Sprint(i)).Info("m") }, 20},
		{"same peer of the logger", func(l *slog.Logger, i int) { l.With("peer", "a").Info("m", "i", i) }, limitSame},
		{"peer in a group is no key", func(l *slog.Logger, i int) { l.WithGroup("g").Info("m", "peer", i) }, limitSame},
		{"message", func(l *slog.Logger, i int) { l.Info(fmt.Sprint("m", i)) }, 20},
		{"debug", func(l *slog.Logger, _ int) { l.Debug("m") }, 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []sent
			log, _ := limitedLogger(&got)
			for i := range 20 {
				tt.log(log, i)
			}
			if len(got) != tt.want {
				t.Errorf("20 records: %d written, want %d", len(got), tt.want)
			}
		})
	}
}

func TestLimitMemoryIsBounded(t *testing.T) {
	var got []sent
	log, l := limitedLogger(&got)
	for i := range 3 * limitKeys {
		log.Info(fmt.Sprint("message ", i))
	}
	if n := len(l.windows); n > limitKeys+1 {
		t.Errorf("%d windows, want at most %d", n, limitKeys+1)
	}
	if len(got) != limitKeys+limitSame {
		t.Errorf("%d written, want %d", len(got), limitKeys+limitSame)
	}
}

// What was held back comes out without anything like it happening again, and at the end.
func TestLimitRunWritesTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []sent
		log, l := limitedLogger(&got)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.run(ctx)
		emit := func() {
			for i := range limitSame + 3 {
				Log(log, Failover, slog.String("peer", "10.1.0.4"), slog.Int("i", i))
			}
		}
		emit()
		time.Sleep(2*limitInterval + time.Second)
		synctest.Wait()
		if len(got) != limitSame+1 {
			t.Fatalf("%d written after the interval, want %d", len(got), limitSame+1)
		}
		if last := got[limitSame]; last.fields["SUPPRESSED"] != "2" || last.fields["I"] != "7" || last.fields["PEER"] != "10.1.0.4" {
			t.Errorf("last = %v, want the last record with SUPPRESSED=2", last.fields)
		}
		if n := len(l.windows); n != 0 {
			t.Errorf("%d windows after all are over, want 0", n)
		}
		got = nil
		emit()
		cancel()
		synctest.Wait()
		if len(got) != limitSame+1 {
			t.Errorf("%d written at the end, want %d", len(got), limitSame+1)
		}
	})
}
