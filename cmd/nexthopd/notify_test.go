package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n := newNotifier(slog.New(slog.DiscardHandler))
	tests := []struct {
		name string
		do   func()
		want string
	}{
		{"ready", func() { n.ready("2 of 2 peers, 10 routes") }, `^READY=1\nSTATUS=2 of 2 peers, 10 routes$`},
		{"status cannot smuggle an assignment", func() { n.status("a\nMAINPID=1") }, `^STATUS=a MAINPID=1$`},
		{"reloading", n.reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\nSTATUS=reloading$`},
		{"stopping", n.stopping, `^STOPPING=1\nSTATUS=stopping$`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.do()
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 4096)
			k, err := conn.Read(buf)
			if err != nil || !regexp.MustCompile(tt.want).Match(buf[:k]) {
				t.Errorf("systemd heard %q, %v; want %s", buf[:k], err, tt.want)
			}
		})
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	var log bytes.Buffer
	n := newNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	t.Setenv("NOTIFY_SOCKET", "")
	n.ready("")
	if log.Len() > 0 {
		t.Errorf("without a service manager: log %q, want none", &log)
	}
	t.Setenv("NOTIFY_SOCKET", "/nonexistent/notify")
	n.ready("")
	if !strings.Contains(log.String(), "service manager cannot be told") {
		t.Errorf("with a dead socket: log %q, want a warning", &log)
	}
}

func TestWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "10000000")
	t.Setenv("WATCHDOG_PID", "")
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var pings []time.Duration
		var log bytes.Buffer
		n := &notifier{log: slog.New(slog.NewTextHandler(&log, nil)), send: func(state string) error {
			if state != "WATCHDOG=1" {
				t.Errorf("sent %q", state)
			}
			pings = append(pings, time.Since(begin))
			return nil
		}}
		var sick atomic.Bool
		healthy := func() error {
			if sick.Load() {
				return errors.New("the loop hangs")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { n.watchdog(ctx, healthy); close(done) }()
		time.Sleep(11 * time.Second)
		sick.Store(true)
		time.Sleep(20 * time.Second)
		sick.Store(false)
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		want := []time.Duration{0, 5 * time.Second, 10 * time.Second, 35 * time.Second}
		if !slices.Equal(pings, want) {
			t.Errorf("watchdog was fed at %v, want %v", pings, want)
		}
		if c := strings.Count(log.String(), "the loop hangs"); c != 1 {
			t.Errorf("the reason was logged %d times, want once: %s", c, &log)
		}
	})
}

func TestWatchdogOff(t *testing.T) {
	for _, usec := range []string{"", "nonsense"} {
		t.Setenv("WATCHDOG_USEC", usec)
		var log bytes.Buffer
		n := newNotifier(slog.New(slog.NewTextHandler(&log, nil)))
		n.watchdog(t.Context(), func() error { t.Error("asked for health"); return nil }) // returns at once
		if warned := log.Len() > 0; warned != (usec != "") {
			t.Errorf("WATCHDOG_USEC=%q: log %q", usec, &log)
		}
	}
}
