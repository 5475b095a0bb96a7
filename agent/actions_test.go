package agent

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// post sends a request as root.
func (l *lab) post(path, body string) (int, string) {
	l.t.Helper()
	ctx := context.WithValue(l.t.Context(), callerKey{}, caller{uid: 0})
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	l.a.handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (l *lab) expectPost(path, body string, code int, words ...string) {
	l.t.Helper()
	got, answer := l.post(path, body)
	if got != code {
		l.t.Errorf("POST %s %s = %d %s, want %d", path, body, got, answer, code)
	}
	for _, w := range words {
		if !strings.Contains(answer, w) {
			l.t.Errorf("POST %s %s says %s, want %q in it", path, body, answer, w)
		}
	}
}

func TestPeerActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga)
		l.sp.asked()
		peer := func(body string, code int, words ...string) {
			t.Helper()
			l.expectPost(status.PathPeer, body, code, words...)
		}
		peer(`{"peer":"nobody","action":"reset"}`, 404, "nobody")
		peer(`{"peer":"quagga","action":"explode"}`, 400, "explode")
		peer(`{"peer":"quagga","action":"refresh","reason":"x"}`, 400, "disable and reset only")
		peer(`{"peer":"quagga","action":"reset","reason":"`+strings.Repeat("x", 129)+`"}`, 400, "129 octets")
		peer(`{"peer":"quagga","action":"reset","reason":"\u001b[2J"}`, 400, "U+001B")
		peer(`{"peer":"quagga","bogus":1}`, 400, "bogus")
		peer(`{"peer":"bird","action":"reset"}`, 409, "no session")
		peer(`{"peer":"quagga","action":"enable"}`, 409, "not shut down")
		l.expectCalls("refused", "")
		peer(`{"peer":"quagga","action":"reset","reason":"x"}`, 200)
		peer(`{"peer":"10.1.0.4","action":"refresh"}`, 200, "ROUTE-REFRESH")
		peer(`{"peer":"quagga","action":"disable","reason":"maintenance"}`, 200, "until it is enabled")
		peer(`{"peer":"quagga","action":"disable"}`, 409)
		l.expectCalls("actions", "reset 10.1.0.4, resend 10.1.0.4, shutdown 10.1.0.4")
		if p := l.a.Peers()[0]; !p.Shutdown {
			t.Error("the peer is not shown as shut down")
		}
		if got := l.a.withOperator(config.Peer{Address: quagga}); !got.Shutdown {
			t.Error("a reload would bring up what an operator shut down")
		}
		peer(`{"peer":"quagga","action":"enable"}`, 200)
		if p := l.a.Peers()[0]; p.Shutdown {
			t.Error("the peer is shown as shut down still")
		}
		l.reload(func(c *config.Config) { c.Peers[1].Shutdown = true })
		peer(`{"peer":"bird","action":"enable"}`, 409, "shutdown: true")
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.expectPost(status.PathUndrain, "", 409)
		l.sp.asked()
		l.expectPost(status.PathDrain, "", 200, "65535:0")
		l.expectPost(status.PathDrain, "", 409)
		l.expectCalls("drain", "drain true")
		if got := l.problems(); !strings.Contains(got, "drained") {
			t.Errorf("status says %s", got)
		}
		l.expectPost(status.PathUndrain, "", 200)
		l.expectCalls("undrain", "drain false")
	})
}

// S25: flush removes exactly what is ours, and it stays away until told otherwise.
func TestFlushAndResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		other := prefix("198.51.100.0/24")
		l.m.AddRoute(static(other, 5))
		l.announce(quagga, seed)
		l.expectPost(status.PathResync, "", 200, `{"routes":1,"differences":0}`)
		l.expectPost(status.PathFlush, "", 200, "removed 1 route")
		l.expectPost(status.PathFlush, "", 409)
		l.settle()
		l.announce(bird, seed)
		l.settle()
		l.expect("flushed", seed)
		if snap, err := l.k.Kernel.Dump(nil); err != nil || len(snap.Routes)+len(snap.Groups)+len(snap.NextHops) > 0 {
			t.Errorf("left in the kernel: %+v, %v", snap, err)
		}
		if len(l.m.Routes(other, 254)) != 1 {
			t.Error("a route that is not ours is gone")
		}
		if f := l.a.FIB(); f.Installed != 0 || f.Desired != 1 {
			t.Errorf("desired %d, installed %d, want 1 and 0", f.Desired, f.Installed)
		}
		if got := l.problems(); !strings.Contains(got, "flushed") {
			t.Errorf("status says %s", got)
		}
		l.expectReason("flushed", quagga, seed, "observe-mode")
		l.expectPost(status.PathResync, "", 409, "resync --install")
		l.expectPost(status.PathResync, `{"install":true}`, 200)
		l.settle()
		l.expect("installed again", seed, "10.1.0.4", "10.1.0.5")
		l.consistent()
		l.atRest()
	})
}

func TestObserveRefusesChangesOfTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.FIB.Mode = config.ModeObserve })
		l.expectPost(status.PathFlush, "", 409, "observe")
		l.expectPost(status.PathResync, "", 409, "observe")
	})
}

// Who may open the socket may read; to change something takes more.
func TestWhoMayChange(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    caller
		want bool
	}{
		{"root", caller{uid: 0}, true},
		{"the daemon's user", caller{uid: 990, groups: []uint32{5}}, true},
		{"primary group", caller{uid: 1000, groups: []uint32{991}}, true},
		{"one of the groups", caller{uid: 1000, groups: []uint32{4, 991, 1000}}, true},
		{"a stranger", caller{uid: 1000, groups: []uint32{1000}}, false},
		{"a group of the user's number", caller{uid: 1000, groups: []uint32{990}}, false},
	} {
		if got := tt.c.mayChange(990, 991); got != tt.want {
			t.Errorf("%s: mayChange = %v, want %v", tt.name, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		r := httptest.NewRequest(http.MethodPost, status.PathFlush, nil)
		w := httptest.NewRecorder()
		l.a.handler().ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "you may look, not change") {
			t.Errorf("a caller that nobody knows: %d %s", w.Code, w.Body)
		}
	})
}
