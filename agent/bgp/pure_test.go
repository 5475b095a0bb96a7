package bgp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/rib"
)

func TestNotificationName(t *testing.T) {
	for _, c := range []struct {
		code, subcode uint8
		want          string
	}{
		{6, 2, "Cease/Administrative Shutdown (6/2)"},
		{2, 11, "OPEN Message Error/Role Mismatch (2/11)"},
		{4, 0, "Hold Timer Expired (4/0)"},
		{6, 200, "Cease (6/200)"},
		{0, 0, "code 0 (0/0)"},
		{99, 1, "code 99 (99/1)"},
	} {
		if got := notificationName(c.code, c.subcode); got != c.want {
			t.Errorf("notificationName(%d, %d) = %q, want %q", c.code, c.subcode, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     int
	}{
		{"short", "reboot", 6},
		{"just fits", strings.Repeat("x", 128), 128},
		{"too long", strings.Repeat("x", 129), 128},
		{"in the middle of a character", strings.Repeat("x", 127) + "äöü", 127},
	} {
		if got := cut(c.in); len(got) != c.want || !strings.HasPrefix(c.in, got) {
			t.Errorf("%s: cut = %q, want %d octets", c.name, got, c.want)
		}
	}
}

func TestIntern(t *testing.T) {
	build := func(change func(*rib.Attrs)) *rib.Attrs {
		a := &rib.Attrs{
			NextHop:          netip.MustParseAddr("10.1.0.4"),
			ASPath:           rib.ASPath{{Type: rib.ASSequence, ASNs: []uint32{1, 2}}},
			Communities:      []uint32{3},
			LargeCommunities: [][3]uint32{{4, 5, 6}},
		}
		change(a)
		return a
	}
	i := newInterner()
	first := i.intern(build(func(*rib.Attrs) {}))
	if i.intern(build(func(*rib.Attrs) {})) != first {
		t.Error("equal attributes are not one")
	}
	seen := map[*rib.Attrs]string{first: "the first"}
	for name, change := range map[string]func(*rib.Attrs){
		"next hop":            func(a *rib.Attrs) { a.NextHop = netip.MustParseAddr("10.1.0.5") },
		"no next hop":         func(a *rib.Attrs) { a.NextHop = netip.Addr{} },
		"origin":              func(a *rib.Attrs) { a.Origin = rib.OriginEGP },
		"MED 0":               func(a *rib.Attrs) { a.HasMED = true },
		"MED":                 func(a *rib.Attrs) { a.HasMED, a.MED = true, 1 },
		"no AS path":          func(a *rib.Attrs) { a.ASPath = nil },
		"AS set":              func(a *rib.Attrs) { a.ASPath[0].Type = rib.ASSet },
		"AS path":             func(a *rib.Attrs) { a.ASPath[0].ASNs = []uint32{2, 1} },
		"segments":            func(a *rib.Attrs) { a.ASPath = append(a.ASPath, rib.Segment{Type: rib.ASSet, ASNs: []uint32{3}}) },
		"communities":         func(a *rib.Attrs) { a.Communities = []uint32{3, 3} },
		"no communities":      func(a *rib.Attrs) { a.Communities = nil },
		"large communities":   func(a *rib.Attrs) { a.LargeCommunities[0][2] = 7 },
		"large for community": func(a *rib.Attrs) { a.Communities, a.LargeCommunities = nil, append(a.LargeCommunities, [3]uint32{3}) },
	} {
		got := i.intern(build(change))
		if other, ok := seen[got]; ok {
			t.Errorf("%s is taken for %s", name, other)
		}
		seen[got] = name
	}
	// What nobody holds is forgotten.
	for n := range 5 * minSweep {
		i.intern(&rib.Attrs{MED: uint32(n), HasMED: true})
		if n%minSweep == 0 {
			runtime.GC()
		}
	}
	if n := len(i.known); n > 2*minSweep+len(seen) {
		t.Errorf("%d attributes are kept of %d that nobody holds", n, 5*minSweep)
	}
	runtime.KeepAlive(seen)
}

func TestLogHandler(t *testing.T) {
	var out bytes.Buffer
	s := New(Options{Handler: newRecorder()})
	handler := slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	log := slog.New(&logHandler{speaker: s, out: handler})
	peer := log.With("Topic", "Peer", "Key", "10.1.0.4")
	if log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("GoBGP's debug records are wanted")
	}
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"info is debug", func() { peer.Info("Peer Up") }, ""},
		{"warning of a peer", func() { peer.Warn("prefix limit reached", "Family", "ipv4-unicast") },
			`level=WARN msg="gobgp: prefix limit reached" peer=10.1.0.4 family=ipv4-unicast`},
		{"error", func() { log.Error("it failed", "Topic", "Peer", "Key", "10.1.0.4", "Error", "no luck") },
			`level=ERROR msg="gobgp: it failed" peer=10.1.0.4 err="no luck"`},
		{"key that is no peer", func() { log.Warn("x", "Key", "abc", "Remote Addr", "::1") }, `level=WARN msg="gobgp: x" key=abc remote-addr=::1`},
		{"noise", func() { peer.Warn("Closed an accepted connection") }, ""},
		{"removed meanwhile", func() { log.Info(logStranger, "Topic", "Server", "Key", "10.9.9.9") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out.Reset()
			c.do()
			if got := strings.TrimSpace(out.String()); got != c.want {
				t.Errorf("logged %s\n  want %s", got, c.want)
			}
		})
	}
}

// The words of GoBGP that no test of a session brings.
func TestDownReasonWords(t *testing.T) {
	operator := DownReason{Cause: "operator"}
	for _, c := range []struct {
		reason string
		n      notification
		hold   bool
		expect DownReason
		want   string
	}{
		{"notification-sent code 6(cease) subcode 1(x)", notification{sent: true, code: 6, subcode: 1}, false, DownReason{}, "prefix-limit"},
		{fsmGraceful, notification{sent: true, code: 4}, true, DownReason{}, "hold-timer"},
		{fsmGraceful, notification{code: 6, subcode: 9}, false, DownReason{}, "notification-received"},
		{fsmGraceful, notification{}, false, operator, "connection-lost"},
		{fsmHardReset, notification{code: 6, subcode: 9}, false, DownReason{}, "notification-received"},
		{fsmRestartTimer, notification{}, false, DownReason{}, "graceful-restart"},
		{fsmAdminDown, notification{}, false, DownReason{}, "operator"},
		{fsmUnknown, notification{}, false, DownReason{}, "deconfigured"},
		{fsmBadPeerAS, notification{}, false, DownReason{}, "bad-peer-as"},
		{"notification-sent code 2(open message error) subcode 11(role mismatch)", notification{sent: true, code: 2, subcode: 11}, false, DownReason{Cause: "role-mismatch", Text: "the peer says"}, "role-mismatch"},
		{"something new", notification{}, false, DownReason{}, "unknown"},
	} {
		c.n.at = time.Now()
		if got := downReason(c.reason, c.n, c.hold, c.expect); got.Cause != c.want || got.Text == "" {
			t.Errorf("downReason(%s) = %+v, want %s", fmt.Sprint(c.reason, c.n), got, c.want)
		}
	}
}
