package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// pipes is a listener in memory: a socket of the system would keep a synctest bubble from
// telling that all is quiet.
type pipes struct {
	conns  chan net.Conn // unbuffered
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve starts the API of a lab, and returns a client and what ends the server.
func (l *lab) serve() (*http.Client, func()) {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	transport := &http.Transport{DialContext: p.dial}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // one slot: the server's end
	go func() { done <- l.a.ServeAPI(ctx, p) }()
	end := func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("ServeAPI: %v", err)
		}
		transport.CloseIdleConnections()
	}
	return &http.Client{Transport: transport}, end
}

func get(t *testing.T, c *http.Client, path string) (code int, body string, header http.Header) {
	t.Helper()
	resp, err := c.Get("http://nexthopd" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("GET %s: %v", path, err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, seed)
		l.announce(bird, seed, prefix("10.1.0.0/16"))
		l.settle()
		c, end := l.serve()
		tests := []struct {
			path string
			code int
			rows int    // of a list; -1: no list
			body string // what it must hold
		}{
			{"/v1/status", 200, -1, `"ready":true`},
			{"/v1/peers", 200, 2, `"name":"quagga"`},
			{"/v1/learned", 200, 3, `"reason":"inside-vnet"`},
			{"/v1/learned?peer=quagga", 200, 1, `"asPath":"65147"`},
			{"/v1/learned?peer=10.1.0.5", 200, 2, `"sourcePeer":"10.1.0.5"`},
			{"/v1/learned?peer=cisco", 404, -1, `"error":"no peer has the name or address cisco (known: quagga, bird)","next":"nexthopctl peers"`},
			{"/v1/advertised", 200, 0, ``},
			{"/v1/advertised?peer=bird", 200, 0, ``},
			{"/v1/advertised?peer=10.9.9.9", 404, -1, `"next":"nexthopctl peers"`},
			{"/v1/routes", 200, 4, `"source":"VirtualNetworkGateway"`},
			{"/v1/explain?q=192.168.255.1", 200, -1, `"query":"192.168.255.1","prefix":"192.168.255.0/24"`},
			{"/v1/explain?q=1.2.3", 400, -1, `"error":"\"1.2.3\" is neither a prefix (10.0.0.0/8) nor an address (10.1.2.3)"`},
			{"/v1/explain", 400, -1, `"next":"nexthopctl explain`},
			{"/v1/explain?q=::ffff:10.0.0.0/104", 400, -1, `"error"`},
			{"/v1/unknown", 404, -1, `"error":"no such path: GET /v1/unknown"`},
			{"/", 404, -1, `"error"`},
		}
		for _, tt := range tests {
			code, body, header := get(t, c, tt.path)
			if code != tt.code || !strings.Contains(body, tt.body) || header.Get("Content-Type") != "application/json" {
				t.Errorf("GET %s = %d %s %s, want %d with %s", tt.path, code, header.Get("Content-Type"), body, tt.code, tt.body)
			}
			var rows []json.RawMessage
			var object map[string]any
			var err error
			if tt.rows >= 0 {
				err = json.Unmarshal([]byte(body), &rows)
			} else {
				err = json.Unmarshal([]byte(body), &object)
			}
			if err != nil || tt.rows >= 0 && len(rows) != tt.rows {
				t.Errorf("GET %s: %d rows, %v, want %d", tt.path, len(rows), err, tt.rows)
			}
			if _, isError := object["error"]; isError != (tt.code != 200) {
				t.Errorf("GET %s: %s", tt.path, body)
			}
		}
		resp, err := c.Post("http://nexthopd/v1/status", "application/json", nil)
		if err != nil || resp.StatusCode != 404 {
			t.Errorf("POST: %v, %v", resp, err)
		} else {
			resp.Body.Close()
		}

		// Errors behind a list, before the first row.
		l.sp.err = errors.New("the speaker is stopping")
		if code, body, _ := get(t, c, "/v1/advertised"); code != 500 || !strings.Contains(body, "advertised to quagga: the speaker is stopping") {
			t.Errorf("%d %s", code, body)
		}
		l.k.failing(failNth("host", 0))
		if code, body, _ := get(t, c, "/v1/routes"); code != 500 || !strings.Contains(body, "no buffer space available") {
			t.Errorf("%d %s", code, body)
		}
		l.k.FailLookup(errors.New("broken"))
		if code, body, _ := get(t, c, "/v1/explain?q=192.168.255.0/24"); code != 500 || !strings.Contains(body, "read route 192.168.255.0/24: broken") {
			t.Errorf("%d %s", code, body)
		}
		end()
	})
}

func TestAPIWithoutPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.Peers = nil })
		c, end := l.serve()
		for _, path := range []string{"/v1/peers", "/v1/learned", "/v1/advertised"} {
			if code, body, _ := get(t, c, path); code != 200 || strings.TrimSpace(body) != "[]" {
				t.Errorf("GET %s = %d %q, want an empty list", path, code, body)
			}
		}
		if _, body, _ := get(t, c, "/v1/learned?peer=x"); !strings.Contains(body, "no peers are configured") {
			t.Errorf("unknown peer: %s", body)
		}
		end()
	})
}

// A long list is streamed, in order, and what changes meanwhile does it no harm. A list
// that cannot be finished is cut short, so that the client notices.
func TestLongList(t *testing.T) {
	const n = 10_000
	start := func(t *testing.T) *lab {
		l := newLab(t, nil)
		l.up(quagga, bird)
		l.announce(quagga, many(n)...)
		l.settle()
		return l
	}
	bubble(t, "complete", func(t *testing.T) {
		l := start(t)
		c, end := l.serve()
		resp, err := c.Get("http://nexthopd" + status.PathLearned)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(resp.Body)
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		rows := 0
		last := prefix("0.0.0.0/0")
		for ; dec.More(); rows++ {
			var p status.Path
			if err := dec.Decode(&p); err != nil {
				t.Fatal(err)
			}
			now := prefix(p.Network)
			if last.Compare(now) >= 0 {
				t.Errorf("%s comes after %s", now, last)
			}
			last = now
			if rows == 10 {
				l.withdraw(quagga, many(n)[n/2:]...)
				l.announce(bird, seed)
				l.settle()
			}
		}
		resp.Body.Close()
		if rows < n/2 || rows > n {
			t.Errorf("%d rows, want between %d and %d", rows, n/2, n)
		}
		end()
	})
	bubble(t, "cut short", func(t *testing.T) {
		l := start(t)
		c, end := l.serve()
		resp, err := c.Get("http://nexthopd" + status.PathLearned)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		go func() { _ = l.stop() }()
		synctest.Wait()
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the list ended as if it were complete")
		}
		resp.Body.Close()
		end()
	})
	bubble(t, "the client leaves", func(t *testing.T) {
		l := start(t)
		c, end := l.serve()
		resp, err := c.Get("http://nexthopd" + status.PathRoutes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		synctest.Wait()
		l.announce(bird, seed) // the loop is not held up by it
		l.expect("after", seed, "10.1.0.5")
		end()
	})
}

// The stream of events begins at once, tells what happens, and ends with the daemon.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		c, end := l.serve()
		resp, err := c.Get("http://nexthopd" + status.PathEvents) // returns although nothing has happened
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
			t.Errorf("content type %q", got)
		}
		lines := make(chan status.Event, 100) // more than there are
		go func() {
			defer close(lines)
			for s := bufio.NewScanner(resp.Body); s.Scan(); {
				var e status.Event
				if err := json.Unmarshal(s.Bytes(), &e); err != nil {
					t.Errorf("%q: %v", s.Bytes(), err)
				}
				lines <- e
			}
		}()
		expect := func(when string, want ...string) {
			t.Helper()
			l.settle()
			var got []string
			for len(lines) > 0 {
				e := <-lines
				s := strings.Join([]string{e.Type, e.Peer, e.Prefix, e.Message}, "|")
				if n := e.Fields["nexthops"]; n != "" {
					s += "|" + n
				}
				if n := e.Fields["reason"]; n != "" {
					s += "|" + n
				}
				got = append(got, s)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got  %q\n want %q", when, got, want)
			}
		}
		l.up(quagga)
		expect("up", "session|quagga||session is established")
		l.announce(quagga, seed)
		expect("announced", "path||192.168.255.0/24|changed|via 10.1.0.4 dev eth0")
		l.announce(quagga, prefix("10.1.0.0/16"))
		expect("inside", "path||10.1.0.0/16|not installed|inside-vnet")
		l.announceWith(quagga, attrs(addr("172.16.0.1"), 1), prefix("9.0.0.0/8"))
		expect("unreachable", "path||9.0.0.0/8|changed|none|next-hop-unreachable")
		l.m.AddAddr(l.eth0, prefix("172.16.0.2/24"))
		expect("reachable", "nexthop|||next hop found")
		l.m.FlushProtocol(254, owner.Protocol)
		expect("flushed", "fib|||repairing 2 routes that another program changed")
		l.withdraw(quagga, seed)
		expect("withdrawn", "path||192.168.255.0/24|withdrawn by all peers")
		l.m.AddRoute(static(seed, 20))
		l.announce(quagga, seed)
		expect("conflict", "path||192.168.255.0/24|changed|via 10.1.0.4 dev eth0", "route||192.168.255.0/24|another program's route is in the way")
		l.idle(quagga)
		expect("down", "session|quagga||session is down: hold timer expired|hold timer expired")

		_ = l.stop()
		for range lines {
		}
		resp.Body.Close()
		end()
	})
}

// A watcher that does not read loses events and is told how many; nobody waits for it.
func TestSlowWatcher(t *testing.T) {
	var h hub
	h.init()
	w, quick := h.watch(), h.watch()
	for range cap(w.events) + 10 {
		h.publish(status.Event{Message: "x"})
		<-quick.events
	}
	<-w.events
	h.publish(status.Event{Message: "y", Fields: map[string]string{"k": "v"}})
	var last status.Event
	for len(w.events) > 0 {
		last = <-w.events
	}
	if last.Message != "y" || last.Fields["lost"] != "10" || last.Fields["k"] != "v" {
		t.Errorf("the last event: %s, want 10 lost", text(last))
	}
	if e := <-quick.events; e.Fields["lost"] != "" {
		t.Errorf("the quick one was told of losses: %s", text(e))
	}
	h.leave(w)
	h.leave(w)
	h.close()
	if _, open := <-quick.events; open || h.watched() {
		t.Error("still open after the end")
	}
	if _, open := <-h.watch().events; open {
		t.Error("a watch began after the end")
	}
}

// A request is served while there is more to do at once.
func TestServedBetweenCycles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		var changes []rib.Change
		for _, p := range many(50 * cycleRoutes) {
			changes = append(changes, rib.Change{Prefix: p, Attrs: attrs(quagga, 1)})
		}
		l.a.Learned(quagga, changes)
		dirty := 0
		if err := l.a.do(t.Context(), func() {
			l.a.mu.Lock()
			defer l.a.mu.Unlock()
			dirty = l.a.rib.Dirty()
		}); err != nil || dirty == 0 {
			t.Errorf("served when %d prefixes were left (%v), want before the end", dirty, err)
		}
		time.Sleep(time.Second)
		l.expect("in the end", many(1)[0], "10.1.0.4")
	})
}
