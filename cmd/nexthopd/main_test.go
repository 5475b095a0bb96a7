package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
)

// asProcess makes the test binary behave as the daemon's process, around a daemon that
// only says that it is up.
const asProcess = "NEXTHOPD_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) == "" {
		os.Exit(m.Run())
	}
	os.Exit(process(func(ctx context.Context, _ *config.Config, _ string, _ *journal.Output) error {
		fmt.Println("up")
		<-ctx.Done()
		return ctx.Err()
	}))
}

// execute runs one command line and returns what came out of it.
func execute(t *testing.T, ctx context.Context, start daemonFunc, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	errs, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	var out bytes.Buffer
	code = run(ctx, args, &out, errs, start)
	b, err := os.ReadFile(errs.Name())
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), string(b)
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nexthopd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodConfig = `
vnet: {prefixes: [10.1.0.0/16]}
peers:
  - {name: quagga, address: 10.1.0.4, asn: 65147}
  - {name: bird, address: 10.1.0.5, asn: 65147}
log: {format: json}
`

const badConfig = `asn: 0
peers:
  - name: quagga
    adress: 10.1.0.4
bogus: 1
`

func TestCommandLine(t *testing.T) {
	good, bad := writeFile(t, goodConfig), writeFile(t, badConfig)
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		{"check", []string{"check", good}, 0, good + ": ok: ASN 65515, 2 peers, 1 VNet prefix, table 254 metric 20, mode install\n", nil},
		{"check, every mistake with its place", []string{"check", bad}, 78, "", []string{bad + ":1:6: asn: ", bad + ":4:5: peers[0].adress: ", bad + ":5:1: bogus: "}},
		{"check, no file", []string{"check", "/nonexistent/file"}, 78, "", []string{"/nonexistent/file: no such file\n"}},
		{"run prints the same", []string{"run", "--config", bad}, 78, "", []string{bad + ":1:6: asn: ", bad + ":4:5: peers[0].adress: ", bad + ":5:1: bogus: "}},
		{"version", []string{"version"}, 0, "nexthopd ", nil},
		{"help has the exit codes", []string{"--help"}, 0, "  78  the configuration has mistakes", nil},
		{"unknown command", []string{"chek"}, 2, "", []string{`unknown command "chek"`, "see `nexthopd --help`"}},
		{"unknown flag", []string{"run", "--foo"}, 2, "", []string{"unknown flag: --foo"}},
		{"too many arguments", []string{"check", good, bad}, 2, "", []string{"accepts at most 1 arg"}},
		{"pprof for everyone", []string{"run", "--config", good, "--pprof", ":6060"}, 2, "", []string{"nexthopd: --pprof :6060: must be a loopback address"}},
		{"pprof for the network", []string{"run", "--config", good, "--pprof", "192.0.2.1:6060"}, 2, "", []string{"must be a loopback address"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			never := func(context.Context, *config.Config, string, *journal.Output) error {
				t.Error("the daemon was started")
				return nil
			}
			code, stdout, stderr := execute(t, t.Context(), never, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) {
				t.Errorf("nexthopd %v: exit %d, stdout %q; want %d, %q", tt.args, code, stdout, tt.code, tt.stdout)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("nexthopd %v: stderr %q, want %q in it", tt.args, stderr, want)
				}
			}
			if len(tt.stderr) == 0 && stderr != "" {
				t.Errorf("nexthopd %v: stderr %q, want none", tt.args, stderr)
			}
		})
	}
}

func TestRun(t *testing.T) {
	path := writeFile(t, goodConfig)
	tests := []struct {
		name  string
		start daemonFunc
		stop  bool
		code  int
		log   string
	}{
		{"told to stop", func(ctx context.Context, _ *config.Config, _ string, out *journal.Output) error {
			<-ctx.Done()
			return ctx.Err()
		}, true, 0, ""},
		{"a part failed", func(context.Context, *config.Config, string, *journal.Output) error {
			return errors.New("listen: the port is taken by bird (pid 812)")
		}, false, 1, `"err":"listen: the port is taken by bird (pid 812)"`},
		{"a part failed while stopping", func(context.Context, *config.Config, string, *journal.Output) error {
			return errors.New("flush: no such device")
		}, true, 1, `"err":"flush: no such device"`},
		{"cancelled without being told", func(context.Context, *config.Config, string, *journal.Output) error {
			return context.Canceled
		}, false, 1, `"err":"context canceled"`},
		{"what was held back is counted at the end", func(_ context.Context, _ *config.Config, _ string, out *journal.Output) error {
			for range 20 {
				out.Logger.Info("again")
			}
			return nil
		}, false, 0, `"suppressed":14`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.stop {
				cancel()
			}
			var got *config.Config
			var gotPath string
			code, _, stderr := execute(t, ctx, func(ctx context.Context, cfg *config.Config, path string, out *journal.Output) error {
				got, gotPath = cfg, path
				return tt.start(ctx, cfg, path, out)
			}, "run", "--config", path)
			if code != tt.code || !strings.Contains(stderr, tt.log) {
				t.Errorf("exit %d, stderr %q; want %d, %q", code, stderr, tt.code, tt.log)
			}
			if tt.log == "" && stderr != "" {
				t.Errorf("stderr %q, want none", stderr)
			}
			if got == nil || len(got.Peers) != 2 || gotPath != path {
				t.Errorf("the daemon got config %v of %q, want the one of %q", got, gotPath, path)
			}
		})
	}
}

func TestPprof(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	path := writeFile(t, goodConfig)

	code, _, stderr := execute(t, t.Context(), nil, "run", "--config", path, "--pprof", addr)
	if want := fmt.Sprintf("nexthopd: --pprof: listen on %s: the port is taken by ", addr); code != 1 || !strings.HasPrefix(stderr, want) {
		t.Errorf("with the port taken: exit %d, stderr %q; want 1, %q", code, stderr, want)
	}

	free.Close()
	code, _, stderr = execute(t, t.Context(), func(context.Context, *config.Config, string, *journal.Output) error {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + addr + "/debug/pprof/goroutine?debug=1")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != 200 || !bytes.Contains(body, []byte("goroutine profile")) {
			return fmt.Errorf("GET goroutine profile = %s %.100q", resp.Status, body)
		}
		return nil
	}, "run", "--config", path, "--pprof", addr)
	if code != 0 {
		t.Errorf("exit %d, stderr %q; want 0", code, stderr)
	}
}

// SIGHUP never ends the process, SIGTERM and SIGINT end it well.
func TestSignals(t *testing.T) {
	path := writeFile(t, goodConfig)
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/proc/self/exe", "run", "--config", path)
			cmd.Env = append(os.Environ(), asProcess+"=1")
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
				t.Errorf("the process said %q, %v; want that it is up", line, err)
			}
			for _, s := range []os.Signal{syscall.SIGHUP, sig} {
				if err := cmd.Process.Signal(s); err != nil {
					t.Errorf("send %s: %v", s, err)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("after SIGHUP and %s: %v, want exit 0", sig, err)
			}
		})
	}
}
