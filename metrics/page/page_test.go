package page

import (
	"bytes"
	"fmt"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
)

// source answers what the test sets.
type source struct{ o status.Overview }

func (s *source) Overview() status.Overview { return s.o }

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}) }

func name(i int) string { return fmt.Sprintf("nva-%c", 'a'+i) }

// overview is a host with n NVAs, the last of which is down where broken says so, and
// that many prefixes in some groups.
func overview(n, prefixes int, broken bool) status.Overview {
	now := time.Now()
	long := now.Add(-26 * time.Hour)
	lately := now.Add(-5*time.Minute - 3*time.Second)
	o := status.Overview{
		Host: "workload-7",
		VNet: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:db8:1::/48")},
		Status: status.Status{
			Version: "1.2.3", StartedAt: now.Add(-27 * time.Hour), ASN: 65515, RouterID: addr(200), Ready: true,
			FIB: status.FIBStatus{Mode: "install", Prefixes: prefixes + 2, Desired: prefixes, Installed: prefixes, Rejected: map[string]int{"inside-vnet": 2}},
		},
	}
	o.Peers.Configured = n
	for i := range n {
		p := status.Peer{Name: name(i), Address: addr(4 + i), ASN: 65147, State: "Established", Since: &long, Received: prefixes, Accepted: prefixes, Advertised: 2}
		if broken && i == n-1 {
			p.State, p.Since, p.LastDown, p.LastDownAt, p.Flaps = "Active", &now, "hold timer expired", &lately, 3
			p.Received, p.Accepted, p.Advertised = 0, 0, 0
			o.Degraded = append(o.Degraded, status.Problem{What: fmt.Sprintf("peer %s (%s) is Active: hold timer expired", p.Name, p.Address), Next: "nexthopctl peers"})
		} else {
			o.Peers.Established++
		}
		o.PeerList = append(o.PeerList, p)
	}
	if n == 0 {
		o.Degraded = []status.Problem{{What: "no peers are configured: nothing is learned and nothing installed", Next: "edit /etc/nexthopd/nexthopd.yaml, then nexthopctl reload"}}
		o.FIB.Prefixes, o.FIB.Rejected = 0, nil
		return o
	}
	up := o.Peers.Established
	all := status.Group{Prefixes: prefixes - prefixes/10, Installed: prefixes - prefixes/10}
	for i := range up {
		all.Ways = append(all.Ways, status.Way{Peer: name(i), NextHop: addr(4 + i), Use: status.InUse})
	}
	one := status.Group{Prefixes: prefixes / 10, Installed: prefixes / 10, Ways: []status.Way{{Peer: name(0), NextHop: addr(4), Use: status.InUse}}}
	if up > 1 {
		one.Ways = append(one.Ways, status.Way{Peer: name(1), NextHop: netip.MustParseAddr("fd00:db8:1::1234"), Use: status.Standby})
	}
	if broken && up > 1 {
		one.Ways[1].Use, one.Ways[1].Why = status.Dead, "next-hop-unreachable"
	}
	o.Groups = []status.Group{all, one}
	if broken {
		o.FIB.Single = prefixes / 10
		f := status.Failover{At: lately, Signal: "session " + addr(3+n).String(), Groups: 2, Prefixes: prefixes, Microseconds: 412}
		o.Failovers = []status.Failover{f, {At: long, Signal: "link eth1", Groups: 1, Prefixes: 12, Microseconds: 12345}}
		o.LastFailover = &f
	}
	return o
}

// The page in a browser, as it is seen on a desk and on a phone: everything is there,
// nothing is wider than the window, and the browser has nothing to complain of.
func TestInBrowser(t *testing.T) {
	b := startBrowser(t)
	src := &source{}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", Handler(src))
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	defer srv.Close()

	tests := []struct {
		name   string
		o      status.Overview
		counts map[string]int
	}{
		{"0-nvas", overview(0, 0, false), map[string]int{"header.warn": 1, "svg .nva": 0, "svg .group": 0, "svg .none": 2, "svg .leg": 0, ".problems li": 1, ".nvas tbody tr": 0}},
		{"2-nvas", overview(2, 100_000, false), map[string]int{"header.good": 1, "svg .nva.good": 2, "svg .group.good": 2, "svg .leg.in-use": 3, "svg .leg.standby": 1, "svg .session.good": 2, ".problems": 0, ".nvas tbody tr": 2, ".groups tbody tr": 2, ".rejected tbody tr": 1}},
		{"2-nvas-one-down", overview(2, 100_000, true), map[string]int{"header.warn": 1, "svg .nva.bad": 1, "svg .group.warn": 1, "svg .session.bad .cross": 1, ".problems li": 1, ".failovers tbody tr": 2}},
		{"8-nvas", overview(8, 100_000, true), map[string]int{"svg .nva": 8, "svg .nva.bad": 1, "svg .group": 2, "svg .leg.in-use": 8, "svg .leg.dead .cross": 1, ".nvas tbody tr": 8, ".groups .way.dead": 1}},
		{"8-nvas-many-groups", crowd(8, 100_000), map[string]int{"header.bad": 1, "svg .group": mostGroups, "svg .nva.warn": 2, "svg .group.bad": 1, "svg .box.more": 1, ".groups tbody tr": mostGroups, ".problems li": mostProblems + 1}},
	}
	for _, tt := range tests {
		src.o = tt.o
		for _, width := range []int{390, 1280} {
			scheme := "light"
			if width == 390 {
				scheme = "dark"
			}
			b.open(srv.URL, width, 900, scheme)
			for selector, want := range tt.counts {
				if got := b.count(selector); got != want {
					t.Errorf("%s at %d px: %d of %q, want %d", tt.name, width, got, selector, want)
				}
			}
			if got := b.number("document.documentElement.scrollWidth"); got > width {
				t.Errorf("%s at %d px: the page is %d px wide", tt.name, width, got)
			}
			// No text of the picture leaves its box.
			if got := b.number(`[...document.querySelectorAll("svg .box")].filter(g => { const r = g.querySelector("rect").getBoundingClientRect();
				return [...g.querySelectorAll("text")].some(t => t.getBoundingClientRect().right > r.right + 1) }).length`); got != 0 {
				t.Errorf("%s at %d px: in %d boxes the text is too long", tt.name, width, got)
			}
			if got := b.number("document.scripts.length"); got != 0 {
				t.Errorf("%s: %d scripts", tt.name, got)
			}
			shot := b.screenshot(fmt.Sprintf("%s-%d", tt.name, width))
			img, err := png.Decode(bytes.NewReader(shot))
			if err != nil {
				t.Fatal(err)
			}
			if got := img.Bounds().Dx(); got != width {
				t.Errorf("%s: the screenshot is %d px wide, want %d", tt.name, got, width)
			}
			r, _, _, _ := img.At(2, 2).RGBA()
			if dark := r>>8 < 0x80; dark != (scheme == "dark") {
				t.Errorf("%s at %d px: background is dark: %v in scheme %s", tt.name, width, dark, scheme)
			}
		}
	}
}

// crowd has more of everything than a page shows.
func crowd(n, prefixes int) status.Overview {
	o := overview(n, prefixes, true)
	o.PeerList[1].Name = strings.Repeat("appliance-with-a-long-name-", 2)
	o.PeerList[2].Address = netip.MustParseAddr("fd00:db8:1:ffff:ffff:ffff:1234:5678")
	o.PeerList[3].Warning = strings.Repeat("something-without-a-place-to-break-", 6)
	o.PeerList[4].BFD, o.PeerList[5].BFD = "up", "down"
	for i := range 40 {
		o.Groups = append(o.Groups, status.Group{Prefixes: 10 + i, Installed: 10, Ways: []status.Way{
			{Peer: name(0), NextHop: netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), Use: status.InUse},
			{Peer: name(2), NextHop: o.PeerList[2].Address, Use: status.InUse},
		}})
	}
	o.Groups = append(o.Groups, status.Group{Prefixes: 7, Ways: []status.Way{{Peer: name(4), NextHop: addr(99), Use: status.Dead, Why: "next-hop-unreachable"}}})
	o.More, o.Rest = 900, status.Group{Prefixes: 12_345, Installed: 12_000}
	for i := range 30 {
		o.Degraded = append(o.Degraded, status.Problem{What: fmt.Sprintf("problem number %d", i), Next: "nexthopctl status"})
	}
	return o
}

func render(t *testing.T, o status.Overview) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(&source{o}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w, w.Body.String()
}

// Whatever the number of peers, groups and problems, a page stays a page.
func TestSizeIsBounded(t *testing.T) {
	o := crowd(8, 1_000_000)
	for i := range 5000 {
		p := o.PeerList[0]
		p.Name = fmt.Sprintf("more-%d", i)
		o.PeerList = append(o.PeerList, p)
		o.Groups = append(o.Groups, status.Group{Prefixes: 1, Ways: []status.Way{{Peer: p.Name, NextHop: addr(1), Use: status.InUse}}})
		o.Failovers = append(o.Failovers, o.Failovers[0])
	}
	_, text := render(t, o)
	if len(text) > 150_000 {
		t.Errorf("the page has %d bytes", len(text))
	}
	for _, want := range []string{"and 4,976 more, with", "more groups with", "1,000,002"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// The one that is down is among those shown.
	if !strings.Contains(text, "<b>nva-h</b>") {
		t.Error("the peer that is down is not shown")
	}
}

// What peers and files say is text, and the policy lets nothing in.
func TestNothingIsLetIn(t *testing.T) {
	o := overview(2, 10, true)
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	o.Host = evil
	o.PeerList[1].LastDown = evil
	o.PeerList[0].Name = evil
	o.Degraded[0].What = evil
	w, text := render(t, o)
	if strings.Contains(text, "<script") || strings.Contains(text, "<img") {
		t.Errorf("the page has what a peer said as markup:\n%s", text)
	}
	policy := w.Header().Get("Content-Security-Policy")
	_, rest, _ := strings.Cut(text, "<style>")
	css, _, _ := strings.Cut(rest, "</style>")
	if want := "default-src 'none'; style-src 'sha256-" + hashOf(css) + "';"; !strings.HasPrefix(policy, want) {
		t.Errorf("policy %q, want %s", policy, want)
	}
	if strings.Contains(text, " style=") {
		t.Error("an inline style, which the policy forbids")
	}
}

// A blackhole is named as explain does, in the picture and in the list.
func TestBlackholeWay(t *testing.T) {
	o := overview(1, 10, false)
	o.Groups[0].Ways = []status.Way{{Peer: name(0), Blackhole: true, Use: status.InUse}}
	_, text := render(t, o)
	for _, want := range []string{"nva-a via blackhole: in use", "nva-a <i>blackhole</i>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestHeadline(t *testing.T) {
	none := overview(2, 10, true)
	none.PeerList[0].State, none.Peers.Established = "Idle", 0
	lost := overview(3, 10, false)
	lost.Groups[1].Ways = []status.Way{{Peer: name(0), Use: status.Dead, Why: "kernel-refused"}}
	starting := overview(2, 10, false)
	starting.Ready, starting.NotReady = false, "3 routes of an earlier run wait"
	shut := overview(1, 10, false)
	shut.PeerList[0].Shutdown, shut.Peers = true, status.PeerCount{Configured: 1, Shutdown: 1}
	for _, tt := range []struct {
		name  string
		o     status.Overview
		level level
		want  string
	}{
		{"well", overview(2, 10, false), good, "All is well"},
		{"one is down", overview(2, 10, true), warn, "1 problem"},
		{"all are down", none, bad, "No NVA is up"},
		{"no way", lost, bad, "1 prefix has no way"},
		{"starting", starting, warn, "1 problem"},
		{"busy", overview(0, 0, false), warn, "1 problem"},
		{"shut down", shut, good, "All is well"},
	} {
		if v := newView(tt.o, time.Now()); v.Level != tt.level || v.Headline != tt.want {
			t.Errorf("%s: %s %q, want %s %q", tt.name, v.Level, v.Headline, tt.level, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(1234567): "1,234,567", count(-4321): "-4,321",
		age(-time.Second): "0s", age(61 * time.Second): "1m1s", age(3*time.Hour + 12*time.Minute): "3h12m", age(49 * time.Hour): "2d1h",
		micros(412): "412 µs", micros(1234): "1.2 ms", micros(45678): "46 ms", micros(2_500_000): "2.50 s",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
