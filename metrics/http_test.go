package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func testHandler(t *testing.T, src *fakeSource, healthy func() error) http.Handler {
	t.Helper()
	return Handler(Options{
		Registry: registry(t, src, NewInstruments()), Source: src, Healthy: healthy, Page: src, Log: slog.New(slog.DiscardHandler),
	})
}

func TestHandler(t *testing.T) {
	src := seedCase()
	var sick error
	h := testHandler(t, src, func() error { return sick })
	tests := []struct {
		name         string
		method, path string
		why          string
		sick         error
		code         int
		body         string
	}{
		{"metrics", "GET", "/metrics", "", nil, 200, `nexthopd_bgp_peer_up{peer="10.1.0.4",peer_as="65147"} 1`},
		{"process metrics", "GET", "/metrics", "", nil, 200, "process_open_fds "},
		{"go metrics", "GET", "/metrics", "", nil, 200, "go_goroutines "},
		{"status page", "GET", "/", "", nil, 200, "<title>here: All is well</title>"},
		{"no other page", "GET", "/index.html", "", nil, 404, "404 page not found\n"},
		{"ready", "GET", "/-/ready", "", nil, 200, "ready\n"},
		{"not ready", "GET", "/-/ready", "waiting for End-of-RIB from bird", nil, 503, "not ready: waiting for End-of-RIB from bird\n"},
		{"healthy though not ready", "GET", "/-/healthy", "starting", nil, 200, "healthy\n"},
		{"not healthy", "GET", "/-/healthy", "", errors.New("loop has not turned for 12s"), 503, "not healthy: loop has not turned for 12s\n"},
		{"no pprof here", "GET", "/debug/pprof/", "", nil, 404, "404 page not found\n"},
		{"reading only", "POST", "/metrics", "", nil, 405, "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src.why, sick = tt.why, tt.sick
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.body) {
				t.Errorf("%s %s = %d %.200q, want %d with %q", tt.method, tt.path, w.Code, w.Body, tt.code, tt.body)
			}
		})
	}
}

// One bad series is reported, the others are still served.
func TestIncompleteScrapeIsServed(t *testing.T) {
	src := seedCase()
	src.peers[1].Name = "\xff"
	var logged strings.Builder
	h := Handler(Options{
		Registry: registry(t, src, NewInstruments()), Source: src, Log: slog.New(slog.NewTextHandler(&logged, nil)),
		Healthy: func() error { return nil }, Page: src,
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "nexthopd_fib_groups 3") {
		t.Errorf("GET /metrics = %d %.200q, want 200 with the rest", w.Code, w.Body)
	}
	if !strings.Contains(logged.String(), "scrape is incomplete") {
		t.Errorf("log = %q, want a record of it", &logged)
	}
}

func TestServeUntilDone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	src := seedCase()
	go func() {
		done <- Serve(ctx, ln, testHandler(t, src, func() error { return nil }), "", slog.New(slog.DiscardHandler))
	}()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + ln.Addr().String() + "/-/ready")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "ready\n" {
		t.Errorf("GET /-/ready = %q, %v", body, err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve = %v after its context ended, want nil", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Serve does not return")
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestServeReportsItsEnd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	err = Serve(t.Context(), ln, http.NotFoundHandler(), "", slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("Serve on a closed listener = %v, want an error with its address", err)
	}
}

// However many connections somebody opens, others of ours find a free descriptor; and the
// listener ends all the same.
func TestConnectionsAreLimited(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &limited{Listener: ln, slots: make(chan struct{}, 2), closed: make(chan struct{})}
	accepted := make(chan net.Conn, 3) // more than there are slots
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	if len(accepted) > 0 {
		t.Fatal("three connections with two slots")
	}
	first.Close()
	first.Close() // frees one slot, not two
	third := <-accepted
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v after Close", err)
	}
	second.Close()
	third.Close()
	if len(l.slots) != 0 {
		t.Errorf("%d slots in use, no connection is", len(l.slots))
	}
}
