package page

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/internal/netnstest"
)

// browser is a headless Chromium, led by the DevTools protocol over two pipes: messages of
// JSON, each with a NUL at its end.
type browser struct {
	t       *testing.T
	out     *os.File
	in      *bufio.Reader
	session string
	id      int
}

// startBrowser starts Chromium in a network namespace of its own, so that it can reach
// nobody but this test. What the test listens on must be opened afterwards.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	netnstest.New(t)
	bin, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
			t.Fatalf("%v: internal/tools/apt-packages installs it", err)
		}
		t.Skip(err)
	}
	theirs, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "nexthopd-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		out.Close()
		in.Close()
		// Its helpers, in its process group, may be writing to the profile until they are gone.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			err := os.RemoveAll(profile)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	theirs.Close()
	theirOut.Close()
	deadline := time.Now().Add(5 * time.Minute) // of a busy machine
	if err := in.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, out: out, in: bufio.NewReaderSize(in, 1<<20)}
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.call("Page.enable", nil, nil)
	b.call("Log.enable", nil, nil)
	b.call("Emulation.setScrollbarsHidden", map[string]any{"hidden": true}, nil)
	return b
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct{ Message string }
}

func (b *browser) read() message {
	b.t.Helper()
	text, err := b.in.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("read from chromium: %v", err)
	}
	var m message
	if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
		b.t.Fatal(err)
	}
	// The page must be content with its policy: what it refuses is written to the console.
	if m.Method == "Log.entryAdded" {
		b.t.Errorf("the browser says: %s", m.Params)
	}
	return m
}

func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.id++
	req := map[string]any{"id": b.id, "method": method}
	if params != nil {
		req["params"] = params
	}
	if b.session != "" {
		req["sessionId"] = b.session
	}
	text, err := json.Marshal(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		b.t.Fatalf("write to chromium: %v", err)
	}
	for {
		m := b.read()
		if m.ID != b.id {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("chromium: %s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// open shows an address in a window of that size and scheme of colours.
func (b *browser) open(url string, width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	for b.read().Method != "Page.loadEventFired" {
	}
}

// number evaluates an expression of the test's, not of the page's, which has none.
func (b *browser) number(expr string) int {
	b.t.Helper()
	var r struct {
		Result           struct{ Value float64 }
		ExceptionDetails any
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expr, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %v", expr, r.ExceptionDetails)
	}
	return int(r.Result.Value)
}

// count is the number of elements that can be seen.
func (b *browser) count(selector string) int {
	b.t.Helper()
	return b.number(fmt.Sprintf("[...document.querySelectorAll(%q)].filter(e => e.getClientRects().length > 0).length", selector))
}

// screenshot takes the whole page; NEXTHOPD_SCREENSHOTS names a folder that keeps it.
func (b *browser) screenshot(name string) []byte {
	b.t.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("NEXTHOPD_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return png
}
