package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/version"
)

func TestUsage(t *testing.T) {
	socket := canned(t)
	for _, tt := range []struct {
		args  string
		words []string
	}{
		{"statsu", []string{`"statsu"`, "did you mean status?", "nexthopctl --help"}},
		{"nonsense", []string{`"nonsense"`, "nexthopctl --help"}},
		{"policy tset", []string{`"tset"`, "did you mean test?", "nexthopctl policy --help"}},
		{"status --frob", []string{"--frob", "nexthopctl status --help"}},
		{"status extra", []string{`"extra"`, "no argument"}},
		{"status -o azure", []string{`"azure"`, "table, wide, json"}},
		{"learned -o yaml", []string{`"yaml"`, "table, wide, json, azure"}},
		{"learned -o jsonl", []string{`"jsonl"`}},
		{"monitor -o azure", []string{"table, wide, json, jsonl"}},
		{"learned a b", []string{"one peer at most", "nexthopctl learned --help"}},
		{"explain", []string{"one prefix or address", "nexthopctl explain --help"}},
		{"explain 10.9/16", []string{`"10.9/16"`, "192.168.255.0/24", "2001:db8::1"}},
		{"explain 10.0.0.0/33", []string{`"10.0.0.0/33"`}},
		{"explain fe80::1%eth0", []string{"neither a prefix"}},
		{"explain ::ffff:10.0.0.0/104", []string{"neither a prefix"}},
		{"status --socket=", []string{"--socket is empty"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			got := ctl(t, socket, strings.Fields(tt.args)...)
			if got.code != exitUsage || got.stdout != "" {
				t.Errorf("run(%s) = %d, stdout %q, want 2 and none", tt.args, got.code, got.stdout)
			}
			oneLine(t, got.stderr, tt.words...)
		})
	}
}

func TestExplainQuery(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.255.0/24": "192.168.255.0/24",
		"192.168.255.7/24": "192.168.255.0/24",
		"192.168.255.7":    "192.168.255.7",
		"::ffff:10.0.0.1":  "10.0.0.1",
		"2001:DB8::1/32":   "2001:db8::/32",
		"default":          "0.0.0.0/0",
	} {
		if got, err := parseQuery(in); err != nil || got != want {
			t.Errorf("parseQuery(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestUnknownPeer(t *testing.T) {
	socket := canned(t)
	for _, tt := range []struct {
		args  string
		words []string
	}{
		{"learned quaga", []string{`no peer "quaga"`, `did you mean "quagga"?`, "known: quagga, bird, lost, off", "try: nexthopctl learned quagga"}},
		{"advertised QUAGGA -o json", []string{`did you mean "quagga"?`, "nexthopctl advertised quagga"}},
		{"learned q -o azure", []string{`did you mean "quagga"?`}},
		{"learned 10.1.0.44", []string{`did you mean "10.1.0.4"?`}},
		{"learned zzzzzzzzz", []string{"(known: quagga", "try: nexthopctl peers"}},
	} {
		got := ctl(t, socket, strings.Fields(tt.args)...)
		if got.code != exitFailed || got.stdout != "" {
			t.Errorf("run(%s) = %d, stdout %q, want 1 and none", tt.args, got.code, got.stdout)
		}
		oneLine(t, got.stderr, tt.words...)
	}
	empty := http.NewServeMux()
	empty.Handle(status.PathPeers, answer([]status.Peer{}))
	empty.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		answer(status.Error{Error: "no such peer"})(w, r)
	})
	oneLine(t, ctl(t, serve(t, empty), "learned", "x").stderr, "none is configured")
}

// TestDaemonErrors covers every way an answer can be missing or wrong.
func TestDaemonErrors(t *testing.T) {
	// rawServer speaks whatever, HTTP or not, once per connection.
	rawServer := func(t *testing.T, say string) string {
		socket := filepath.Join(socketDir(t), "sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, say)
				conn.Close()
			}
		}()
		return socket
	}
	served := func(h http.Handler) func(*testing.T) string {
		return func(t *testing.T) string { return serve(t, h) }
	}
	said := func(s string) func(*testing.T) string {
		return func(t *testing.T) string { return rawServer(t, s) }
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
	for _, tt := range []struct {
		name   string
		socket func(*testing.T) string
		args   string
		code   int
		words  []string
	}{
		{"no socket", func(t *testing.T) string { return filepath.Join(socketDir(t), "absent") }, "status", exitUnreachable,
			[]string{"no socket", "is nexthopd running?", "systemctl status nexthopd"}},
		{"stale socket", func(t *testing.T) string {
			socket := filepath.Join(socketDir(t), "sock")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			return socket
		}, "peers", exitUnreachable, []string{"nobody listens", "systemctl status nexthopd"}},
		{"a file", func(t *testing.T) string {
			path := filepath.Join(socketDir(t), "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "learned", exitUnreachable, []string{"is not a socket", "--socket"}},
		{"too long a path", func(*testing.T) string { return "/tmp/" + strings.Repeat("x", 120) }, "routes", exitUnreachable, []string{"107 bytes"}},
		{"not HTTP", said("220 smtp.example.com ESMTP\r\n"), "status", exitFailed, []string{"does not speak like nexthopd", "HTTP"}},
		{"closed", said(""), "status", exitUnreachable, []string{"without an answer", "systemctl status nexthopd"}},
		{"HTML", served(raw(200, "<html>\x1b[31m")), "status", exitFailed, []string{"did not answer JSON", "nexthopctl version"}},
		{"HTML list", served(raw(200, "<html>")), "learned", exitFailed, []string{"did not answer JSON"}},
		{"nothing", served(raw(200, "")), "peers", exitFailed, []string{"answered nothing"}},
		{"object for a list", served(raw(200, `{"a":1}`)), "routes", exitFailed, []string{"not with a list"}},
		{"list for an object", served(raw(200, `[]`)), "status", exitFailed, []string{"answered something else"}},
		{"wrong types", served(raw(200, `[{"network":7}]`)), "learned", exitFailed, []string{"answered something else"}},
		{"404 page", served(http.NotFoundHandler()), "status", exitFailed, []string{"404 Not Found", "same version"}},
		{"404 page for a peer", served(http.NotFoundHandler()), "learned x", exitFailed, []string{"404 Not Found"}},
		{"503", served(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			answer(status.Error{Error: "adopting the routes of the last run\x1b[2J\nsecond", Next: "nexthopctl status"})(w, r)
		})), "routes", exitFailed, []string{`adopting the routes of the last run\x1b[2J\nsecond; try: nexthopctl status`}},
		{"cut off list", said(ok + `[{"network":"10.0.0.0/8"},`), "learned", exitFailed, []string{"broke off", "not complete", "journalctl"}},
		{"cut off list as JSON", said(ok + `[{"network":"10.0.0.0/8"},{"ne`), "learned -o json", exitFailed, []string{"broke off"}},
		{"cut off object", said(ok + `{"version":"1`), "status", exitFailed, []string{"broke off"}},
		{"cut off document", served(raw(200, `{"version":"1`)), "status", exitFailed, []string{"broke off"}},
		{"cut off list document", served(raw(200, `[{"network":"10.0.0.0/8"}`)), "learned", exitFailed, []string{"broke off"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ctl(t, tt.socket(t), strings.Fields(tt.args)...)
			if got.code != tt.code {
				t.Errorf("run(%s) = %d, want %d", tt.args, got.code, tt.code)
			}
			oneLine(t, got.stderr, tt.words...)
			quiet := ctl(t, tt.socket(t), "status", "-q")
			if quiet.stdout+quiet.stderr != "" || quiet.code == exitOK {
				t.Errorf("status -q = %d and prints %q", quiet.code, quiet.stdout+quiet.stderr)
			}
		})
	}
}

// TestPermissionDenied asks as a user whom neither the socket's nor the directory's mode
// lets through; root itself is let through everywhere.
func TestPermissionDenied(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
			t.Fatal("needs root to become another user, and NEXTHOPD_REQUIRE_ROOT=1")
		}
		t.Skip("needs root to become another user")
	}
	// The test binary lies where only root may look.
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	bin := filepath.Join(dir, "nexthopctl")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := canned(t)
	for _, tt := range []struct {
		name              string
		dirMode, sockMode os.FileMode
		words             []string
	}{
		{"socket", 0o755, 0o660, []string{socket, "root, group " + groupName(1) + " may", "mode 0660", "sudo nexthopctl peers"}},
		{"directory", 0o750, 0o666, []string{socket, "root, group " + groupName(1) + " may", filepath.Dir(socket) + " has mode 0750"}},
		{"root alone", 0o755, 0o600, []string{"root may ("}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for path, mode := range map[string]os.FileMode{filepath.Dir(socket): tt.dirMode, socket: tt.sockMode} {
				if err := os.Chown(path, 0, 1); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			cmd := process(t, "--socket", socket, "peers")
			cmd.Path = bin
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != exitUnreachable {
				t.Errorf("peers as nobody = %d, want 3", got)
			}
			oneLine(t, stderr.String(), append(tt.words, "permission denied")...)
		})
	}
}

// TestSocketFromEnvironment: the flag wins over the environment.
func TestSocketFromEnvironment(t *testing.T) {
	socket := canned(t)
	cmd := process(t, "peers")
	cmd.Env = append(cmd.Env, socketEnv+"="+socket)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "quagga") {
		t.Errorf("peers with %s = %v, %s", socketEnv, err, out)
	}
	cmd = process(t, "peers", "--socket", "/nonexistent/sock")
	cmd.Env = append(cmd.Env, socketEnv+"="+socket)
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUnreachable || !strings.Contains(string(out), "/nonexistent/sock") {
		t.Errorf("--socket lost against %s: %s", socketEnv, out)
	}
}

func TestVersion(t *testing.T) {
	if got := ctl(t, canned(t), "version"); got.code != exitOK || !strings.Contains(got.stdout, "nexthopd   1.2.3 (not this command's version") {
		t.Errorf("version = %d %q, want the daemon's 1.2.3", got.code, got.stdout)
	}
	same := serve(t, answer(status.Status{Version: version.Get().Version}))
	if got := ctl(t, same, "version"); got.code != exitOK || strings.Contains(got.stdout, "systemctl") {
		t.Errorf("version of a daemon like this = %d %q", got.code, got.stdout)
	}
	got := ctl(t, "/nonexistent/sock", "version")
	if got.code != exitOK || !strings.Contains(got.stdout, "unknown: no socket") {
		t.Errorf("version without a daemon = %d %q, want 0 and why", got.code, got.stdout)
	}
	if got := ctl(t, "/nonexistent/sock", "version", "-o", "json"); !strings.Contains(got.stdout, `"error": "no socket`) {
		t.Errorf("version -o json without a daemon = %q", got.stdout)
	}
	if got := ctl(t, "/nonexistent/sock", "--version"); got.stdout != fmt.Sprintf("nexthopctl %s\n", version.Get().Version) {
		t.Errorf("--version = %q", got.stdout)
	}
}
