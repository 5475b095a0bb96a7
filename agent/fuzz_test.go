package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/metrics"
)

// Whatever is asked on the control socket: the agent lives, and answers in JSON, with a
// status that says whose fault it is.
func FuzzAPI(f *testing.F) {
	for _, s := range []struct{ path, query, body string }{
		{status.PathStatus, "", ""}, {status.PathPeers, "", ""}, {status.PathLearned, "peer=quagga", ""}, {status.PathAdvertised, "peer=10.1.0.4", ""},
		{status.PathExplain, "q=192.168.255.1", ""}, {status.PathExplain, "q=fe80::1%25eth0/64", ""}, {status.PathRoutes, "", ""},
		{status.PathFailovers, "n=3", ""}, {status.PathEvents, "types=bgp,fib", ""}, {status.PathDoctor, "", ""},
		{status.PathPeer, "", `{"peer":"quagga","action":"disable","reason":"maintenance"}`}, {status.PathReload, "", `{"dryRun":true}`},
		{status.PathResync, "", `{"install":true}`}, {status.PathFlush, "", "{}"}, {status.PathDrain, "", ""}, {status.PathUndrain, "", "null"},
		{status.PathResume, "", `{"yes":true}`},
		{status.PathPolicy, "", `{"peer":"quagga","prefix":"10.1.0.0/16","asPath":"65147-65001,7 1","communities":["65147:100","1:2:3","no-export"],"nextHop":"10.1.0.9","med":5}`},
		{status.PathPolicy, "", `{"peer":"10.1.0.5","learned":true}`},
		{status.PathPolicy, "", `{"peer":"quagga","prefix":"::/0","export":true,"file":"f","config":"peers: [{name: quagga, address: 10.1.0.4, asn: 65147, export: {default: reject}}]"}`},
		{"/../v1//status", "%zz&&=", "[1,2"},
	} {
		f.Add(s.body != "", s.path, s.query, s.body)
	}
	m, _ := newHost()
	a := New(Options{
		Config: testConfig(), ConfigFile: "nexthopd.yaml", Version: "1.0.0", Owner: owner, Kernel: m.Open(owner, false), BFD: &bfdProcess{},
		Log: slog.New(slog.DiscardHandler), Metrics: metrics.NewInstruments(),
		Load: func() (*config.Config, error) { return nil, errors.New("not in this test") },
	})
	if _, err := a.Adopt(); err != nil {
		f.Fatal(err)
	}
	if err := a.Connect(&speaker{info: map[netip.Addr]session.PeerInfo{}}); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // one slot: the loop's end
	go func() { ended <- a.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})
	root := context.WithValue(ctx, callerKey{}, caller{uid: 0})
	h := a.handler()
	f.Fuzz(func(t *testing.T, post bool, path, query, body string) {
		ctx, cancel := context.WithTimeout(root, 50*time.Millisecond) // events go on until then
		defer cancel()
		r := (&http.Request{
			Method: http.MethodGet, URL: &url.URL{Path: path, RawQuery: query}, Host: "nexthopd", Header: http.Header{}, Proto: "HTTP/1.1",
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}).WithContext(ctx)
		if post {
			r.Method = http.MethodPost
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && ctx.Err() == nil && !strings.Contains(w.Body.String(), "not in this test") {
			t.Errorf("%s %q?%q %q: %d %s", r.Method, path, query, body, w.Code, w.Body)
		}
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			return // a redirect or a refusal of net/http's
		}
		for d := json.NewDecoder(w.Body); ; {
			var v any
			if err := d.Decode(&v); errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil {
				return
			} else if err != nil {
				t.Fatalf("%s %q?%q: no JSON: %v", r.Method, path, query, err)
			}
		}
	})
}
