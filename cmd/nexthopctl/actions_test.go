package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

// recorder answers like a daemon that may be changed, and writes down what it was asked.
func recorder(t *testing.T, asked *[]string) string {
	t.Helper()
	mux := http.NewServeMux()
	post := func(path string, v any) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			*asked = append(*asked, path+" "+string(body))
			answer(v)(w, r)
		})
	}
	post(status.PathReload, status.Reload{Plan: "peer third\x1b[2J added: 10.1.0.6, AS 65147\nsessions reset: none", Changed: true, Applied: true})
	post(status.PathResync, status.Resync{Routes: 1000, Differences: 2, Kept: 600})
	done := status.Done{Done: "it is done", Next: "nexthopctl status"}
	for _, path := range []string{status.PathPeer, status.PathFlush, status.PathDrain, status.PathUndrain, status.PathResume} {
		post(path, done)
	}
	mux.Handle(status.PathPeers, answer(cannedPeers()))
	return serve(t, mux)
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct{ args, asked, says string }{
		{"reload", `/v1/reload {"dryRun":false}`, "peer third\\x1b[2J added: 10.1.0.6, AS 65147\nsessions reset: none\napplied\n"},
		{"reload --dry-run", `/v1/reload {"dryRun":true}`, "sessions reset: none\n(dry run: nothing is changed)\n"},
		{"reload -o json", `/v1/reload {"dryRun":false}`, `"applied": true`},
		{"resync", `/v1/resync {"install":false}`, "compared 1000 routes of ours in the kernel: 2 differences, written now\nkept 600 routes that should go, too many at once for fib.blast-radius: nexthopctl resume\n"},
		{"resync --install", `/v1/resync {"install":true}`, "2 differences"},
		{"flush", `/v1/flush {}`, "it is done\nnext: nexthopctl status\n"},
		{"resume", `/v1/resume {"yes":false}`, "it is done"},
		{"resume --yes", `/v1/resume {"yes":true}`, "it is done"},
		{"drain", `/v1/drain {}`, "it is done"},
		{"undrain", `/v1/undrain {}`, "it is done"},
		{"peer bird disable --reason zone-2", `/v1/peer {"peer":"bird","action":"disable","reason":"zone-2"}`, "it is done"},
		{"peer 10.1.0.5 enable", `/v1/peer {"peer":"10.1.0.5","action":"enable"}`, "it is done"},
		{"peer bird reset", `/v1/peer {"peer":"bird","action":"reset"}`, "it is done"},
		{"peer bird refresh -o json", `/v1/peer {"peer":"bird","action":"refresh"}`, `"done": "it is done"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var asked []string
			got := ctl(t, recorder(t, &asked), strings.Fields(tt.args)...)
			if got.code != exitOK || got.stderr != "" || !strings.Contains(got.stdout, tt.says) {
				t.Errorf("= %d, stderr %q, prints %q, want %q in it", got.code, got.stderr, got.stdout, tt.says)
			}
			if !slices.Equal(asked, []string{tt.asked}) {
				t.Errorf("asked %q, want %q", asked, tt.asked)
			}
		})
	}
}

// What is wrong on the command line never reaches the daemon.
func TestChangesThatAreNotAsked(t *testing.T) {
	for _, tt := range []struct {
		args  string
		words []string
	}{
		{"peer", []string{"takes the name or the address"}},
		{"peer bird explode", []string{`"explode"`, "disable, enable, reset, refresh"}},
		{"peer bird reset now", []string{`"now"`}},
		{"peer bird --reason x", []string{"--reason", "disable and reset"}},
		{"reload now", []string{"takes no argument"}},
		{"drain bird", []string{"takes no argument"}},
		{"flush --force", []string{"unknown flag"}},
		{"monitor --type sessions", []string{`"sessions"`, "session, bfd, path"}},
		{"monitor --prefix nowhere", []string{"--prefix", "neither a prefix"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var asked []string
			got := ctl(t, recorder(t, &asked), strings.Fields(tt.args)...)
			if got.code != exitUsage || len(asked) > 0 {
				t.Errorf("= %d, asked %q, want %d and nothing", got.code, asked, exitUsage)
			}
			oneLine(t, got.stderr, append(tt.words, "--help")...)
		})
	}
}

func TestRefusedChanges(t *testing.T) {
	refusal := func(code int, e status.Error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(e)
		})
	}
	t.Run("mistakes are printed with their places", func(t *testing.T) {
		got := ctl(t, serve(t, refusal(422, status.Error{
			Error: "nothing is changed: /etc/nexthopd/nexthopd.yaml has mistakes", Next: "nexthopd check /etc/nexthopd/nexthopd.yaml",
			Lines: []string{"/etc/nexthopd/nexthopd.yaml:3:5: asn: \x1b is wrong", "/etc/nexthopd/nexthopd.yaml:9:1: bogus: unknown"},
		})), "reload")
		want := "/etc/nexthopd/nexthopd.yaml:3:5: asn: \\x1b is wrong\n/etc/nexthopd/nexthopd.yaml:9:1: bogus: unknown\n" +
			"nexthopctl: nothing is changed: /etc/nexthopd/nexthopd.yaml has mistakes; try: nexthopd check /etc/nexthopd/nexthopd.yaml\n"
		if got.code != exitFailed || got.stderr != want || got.stdout != "" {
			t.Errorf("reload = %d %q %q, want %d and\n%s", got.code, got.stdout, got.stderr, exitFailed, want)
		}
	})
	t.Run("who may only look is told how to change", func(t *testing.T) {
		socket := serve(t, refusal(403, status.Error{Error: "you may look, not change", Next: "sudo nexthopctl"}))
		got := ctl(t, socket, "peer", "bird", "disable", "--reason", "it's done")
		if got.code != exitFailed {
			t.Errorf("= %d, want %d", got.code, exitFailed)
		}
		oneLine(t, got.stderr, "you may look, not change; try: sudo nexthopctl peer bird disable --reason 'it'\\''s done' --socket ")
	})
	t.Run("unknown peer", func(t *testing.T) {
		mux := http.NewServeMux()
		mux.Handle("POST "+status.PathPeer, refusal(404, status.Error{Error: "no such peer"}))
		mux.Handle(status.PathPeers, answer(cannedPeers()))
		socket := serve(t, mux)
		for _, args := range []string{"peer brid reset", "peer brid", "monitor --peer brid"} {
			got := ctl(t, socket, strings.Fields(args)...)
			if got.code != exitFailed {
				t.Errorf("%s = %d, want %d", args, got.code, exitFailed)
			}
			oneLine(t, got.stderr, `did you mean "bird"?`)
		}
	})
}

func TestMonitorFilters(t *testing.T) {
	all := []status.Event{
		{Type: "session", Peer: "quagga", Message: "session quagga"},
		{Type: "session", Peer: "bird", Message: "session bird"},
		{Type: "path", Prefix: "192.168.255.0/24", Message: "path 24"},
		{Type: "path", Prefix: "192.168.0.0/16", Message: "path 16"},
		{Type: "route", Prefix: "2001:db8::/32", Message: "route 32"},
		{Type: "fib", Peer: "bird", Message: "failover"},
	}
	for _, tt := range []struct{ args, want string }{
		{"", "session quagga,session bird,path 24,path 16,route 32,failover"},
		{"--type session", "session quagga,session bird"},
		{"--type session,fib --peer bird", "session bird,failover"},
		{"--peer 10.1.0.5", "session bird,failover"},
		{"--prefix 192.168.255.0/24", "path 24"},
		{"--prefix 192.168.0.0/16", "path 24,path 16"},
		{"--prefix 192.168.255.10", "path 24,path 16"},
		{"--prefix 2001:db8::1", "route 32"},
		{"--type route --prefix 192.168.0.0/16", ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			ch := make(chan string, len(all))
			for _, e := range all {
				line, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				ch <- string(line)
			}
			close(ch)
			mux := http.NewServeMux()
			mux.Handle(status.PathEvents, events(ch))
			mux.Handle(status.PathPeers, answer(cannedPeers()))
			got := ctl(t, serve(t, mux), append([]string{"monitor", "-o", "jsonl"}, strings.Fields(tt.args)...)...)
			var messages []string
			for line := range strings.Lines(got.stdout) {
				var e status.Event
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				messages = append(messages, e.Message)
			}
			if strings.Join(messages, ",") != tt.want {
				t.Errorf("shows %q, want %q", messages, tt.want)
			}
		})
	}
}

// What the shells ask when TAB is pressed.
func TestCompletionOfChanges(t *testing.T) {
	socket := canned(t)
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"peer |", []string{"quagga", "bird", "lost", "off"}},
		{"peer b|", []string{"bird"}},
		{"peer 10.1.0.5|", []string{"10.1.0.5"}},
		{"peer bird |", []string{"disable", "enable", "reset", "refresh"}},
		{"peer bird re|", []string{"reset", "refresh"}},
		{"peer bird reset |", nil},
		{"learned q|", []string{"quagga"}},
		{"monitor --peer l|", []string{"lost"}},
		{"monitor --type |", status.EventTypes()},
		{"learned -o |", []string{"table", "wide", "json", "azure"}},
		{"reload |", nil},
	} {
		t.Run(tt.line, func(t *testing.T) {
			words := strings.Split(strings.TrimSuffix(tt.line, "|"), " ")
			got := ctl(t, socket, append([]string{cobra.ShellCompRequestCmd}, words...)...)
			var offered []string
			for line := range strings.Lines(got.stdout) {
				word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
				if strings.HasPrefix(word, ":") { // the directive
					if want := fmt.Sprintf(":%d", cobra.ShellCompDirectiveNoFileComp); word != want {
						t.Errorf("directive %s, want %s", word, want)
					}
					break
				}
				offered = append(offered, word)
			}
			if !slices.Equal(offered, tt.want) {
				t.Errorf("offers %q, want %q", offered, tt.want)
			}
		})
	}
}
