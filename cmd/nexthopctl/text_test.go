package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nexthopd/nexthopd/agent/status"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                  "0s",
		59*time.Second + 999999999:    "59s",
		time.Minute:                   "1m0s",
		3*time.Hour + 12*time.Minute:  "3h12m",
		24*time.Hour - time.Second:    "23h59m",
		53*time.Hour + 10*time.Minute: "2d5h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"plain text":        "plain text",
		"Müller 日本":         "Müller 日本",
		"a\x1b[31mb":        `a\x1b[31mb`,
		"a\tb\r\nc\x00\x7f": `a\tb\r\nc\x00\x7f`,
		"\u009b31m":         `\u009b31m`,
		"\u202eevil":        `\u202eevil`,
		"\u2028":            `\u2028`,
		"\U000e0041":        `\U000e0041`,
		"bad \xff\x9b":      `bad \xff\x9b`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzQuery: what explain takes is asked for in a form that the daemon takes, and again
// gives itself.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"default", "192.168.255.0/24", "192.168.255.10", "2001:db8::1/32", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "10.0.0.0/33", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseQuery(s)
		if err != nil {
			if q != "" || strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("parseQuery(%q) = %q, %q", s, q, err)
			}
			return
		}
		if again, err := parseQuery(q); err != nil || again != q {
			t.Errorf("parseQuery(%q) = %q, which reads as %q, %v", s, q, again, err)
		}
		p, err := netip.ParsePrefix(q)
		if a, err2 := netip.ParseAddr(q); err != nil && (err2 != nil || a.Is4In6() || a.Zone() != "") || err == nil && p != p.Masked() {
			t.Errorf("parseQuery(%q) = %q: neither a masked prefix nor an address", s, q)
		}
	})
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a\x1b[0m", "\u009b", "\xff", "é\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("clean(%q) = %q", s, got)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		out := cleanJSON(raw)
		var want, back string
		if json.Unmarshal(raw, &want) != nil || json.Unmarshal(out, &back) != nil || back != want {
			t.Errorf("cleanJSON(%s) = %s, which reads %q", raw, out, back)
		}
		if bytes.ContainsFunc(out, unicode.IsControl) {
			t.Errorf("cleanJSON(%s) = %q holds a control character", raw, out)
		}
	})
}

func TestColor(t *testing.T) {
	socket := canned(t)
	paint := func(env map[string]string, terminal bool, args ...string) string {
		for _, k := range []string{"NO_COLOR", "TERM"} {
			t.Setenv(k, env[k])
		}
		var out bytes.Buffer
		c := &cli{out: newOutput(&out), errOut: &out, now: time.Now, location: time.UTC, terminal: terminal}
		c.run(t.Context(), append([]string{"--socket", socket}, args...))
		return out.String()
	}
	for _, tt := range []struct {
		name     string
		env      map[string]string
		terminal bool
		args     []string
		want     bool
	}{
		{"terminal", nil, true, []string{"peers"}, true},
		{"pipe", nil, false, []string{"peers"}, false},
		{"flag", nil, true, []string{"peers", "--no-color"}, false},
		{"NO_COLOR", map[string]string{"NO_COLOR": "1"}, true, []string{"peers"}, false},
		{"empty NO_COLOR", map[string]string{"NO_COLOR": ""}, true, []string{"status"}, true},
		{"dumb", map[string]string{"TERM": "dumb"}, true, []string{"explain", "192.168.255.0/24"}, false},
		{"json", nil, true, []string{"peers", "-o", "json"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := paint(tt.env, tt.terminal, tt.args...)
			if got := strings.Contains(out, "\x1b["); got != tt.want {
				t.Errorf("%v coloured: %v, want %v", tt.args, got, tt.want)
			}
			plain := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[1m", "", "\x1b[0m", "").Replace(out)
			if strings.Contains(plain, "\x1b") {
				t.Errorf("an escape of the peer's came through: %q", plain)
			}
			if want := paint(nil, false, tt.args...); plain != want {
				t.Errorf("colour moves the columns:\n%s\nwant\n%s", plain, want)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	socket := canned(t)
	for _, tt := range []struct {
		args string
		want string
	}{
		{"learned ''", "quagga\t10.1.0.4 AS65147 Established\nbird\t10.1.0.5 AS65147 Established\nlost\t2001:db8::6 AS4200000001 Active\noff\t10.1.0.7 AS65007 Idle\n:4\n"},
		{"advertised q", "quagga\t10.1.0.4 AS65147 Established\n:4\n"},
		{"learned 10.1.0.5", "10.1.0.5\tbird\n:4\n"},
		{"learned quagga ''", ":4\n"},
		{"learned -o ''", "table\nwide\njson\nazure\n:4\n"},
		{"status -o ''", "table\nwide\njson\n:4\n"},
		{"explain ''", ":4\n"},
	} {
		args := strings.Fields(strings.ReplaceAll(tt.args, "''", "\x00"))
		for i := range args {
			args[i] = strings.Trim(args[i], "\x00")
		}
		var out, errOut bytes.Buffer
		// The shell asks with the command line as typed, --socket included.
		code := run(t.Context(), append([]string{"__complete", "--socket", socket}, args...), &out, &errOut)
		if code != exitOK || out.String() != tt.want {
			t.Errorf("completion of %q = %d %q, want %q", tt.args, code, out.String(), tt.want)
		}
	}
}

// TestCompletionWithoutADaemon is quiet and quick, also when the daemon hangs.
func TestCompletionWithoutADaemon(t *testing.T) {
	hangs := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	for _, socket := range []string{"/nonexistent/sock", hangs} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), []string{"__complete", "--socket", socket, "learned", ""}, &out, &errOut)
		if code != exitOK || out.String() != ":4\n" {
			t.Errorf("completion on %s = %d %q, want nothing offered", socket, code, out.String())
		}
	}
}

// TestCompletionScripts: what the package installs can be generated.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := ctl(t, "/nonexistent/sock", "completion", shell)
		if got.code != exitOK || !strings.Contains(got.stdout, "__complete") {
			t.Errorf("completion %s = %d, stderr %q", shell, got.code, got.stderr)
		}
	}
}

func TestManyPeersInAnError(t *testing.T) {
	var peers []status.Peer
	for range 100 {
		peers = append(peers, cannedPeers()[0])
	}
	mux := http.NewServeMux()
	mux.Handle(status.PathPeers, answer(peers))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		answer(status.Error{Error: "no such peer"})(w, r)
	})
	got := ctl(t, serve(t, mux), "learned", "x")
	if !strings.Contains(got.stderr, "and 88 more") {
		t.Errorf("stderr = %q, want the list cut", got.stderr)
	}
}
