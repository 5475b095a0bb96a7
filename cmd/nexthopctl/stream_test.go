package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
)

// many answers n learned paths, the numerically last first.
func many(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		b := bufio.NewWriter(w)
		defer b.Flush()
		b.WriteByte('[')
		for i := n - 1; i >= 0; i-- {
			fmt.Fprintf(b, `{"localAddress":"10.1.2.4","network":"%d.%d.%d.0/24","nextHop":"10.1.0.4","sourcePeer":"10.1.0.4","origin":"EBgp","asPath":"65147","weight":32768,"peer":"quagga","best":true,"installed":true}`,
				1+i>>16, i>>8&255, i&255)
			if i > 0 {
				b.WriteByte(',')
			}
		}
		b.WriteByte(']')
	}
}

func TestLargeTableIsSortedAndAligned(t *testing.T) {
	const n = 30_000
	got := ctl(t, serve(t, many(n)), "learned")
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	if got.code != exitOK || len(lines) != n+1 {
		t.Fatalf("learned of %d paths = %d with %d lines", n, got.code, len(lines))
	}
	at := strings.Index(lines[0], "NextHop")
	for i, line := range lines[1:] {
		if want := fmt.Sprintf("%d.%d.%d.0/24", 1+i>>16, i>>8&255, i&255); strings.Fields(line)[1] != want {
			t.Fatalf("line %d is %q, want %s", i, line, want)
		}
		if !strings.HasPrefix(line[at:], "10.1.0.4 ") {
			t.Fatalf("line %d is not aligned with %q: %q", i, lines[0], line)
		}
	}
}

// BenchmarkLearned shows that the cost per row does not grow with their number.
func BenchmarkLearned(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		socket := serve(b, many(n))
		for _, format := range []string{formatTable, formatJSON, formatAzure} {
			b.Run(fmt.Sprintf("%s/%d", format, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if code := run(b.Context(), []string{"--socket", socket, "learned", "-o", format}, io.Discard, io.Discard); code != exitOK {
						b.Fatalf("learned -o %s = %d", format, code)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
			})
		}
	}
}

// TestBrokenPipe: `nexthopctl learned | head -n 1` ends quietly, in every format.
func TestBrokenPipe(t *testing.T) {
	socket := serve(t, many(20_000))
	for _, format := range []string{formatTable, formatWide, formatJSON, formatAzure} {
		t.Run(format, func(t *testing.T) {
			cmd := process(t, "--socket", socket, "learned", "-o", format)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			stdout.Close()
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Errorf("learned -o %s | head -n 1: %v, stderr %q", format, err, &stderr)
			}
		})
	}
}

// TestFullDisk: output that is lost for any other reason is an error.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	defer full.Close()
	socket := canned(t)
	for _, args := range [][]string{{"peers"}, {"status"}} {
		cmd := process(t, append([]string{"--socket", socket}, args...)...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != exitFailed {
			t.Errorf("%s > /dev/full = %d, want 1", args, got)
		}
		oneLine(t, stderr.String(), "no space left")
	}
}

// events answers a stream of what comes over the channel, and ends with it.
func events(ch <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case line, ok := <-ch:
				if !ok {
					return
				}
				fmt.Fprintln(w, line)
				w.(http.Flusher).Flush()
			}
		}
	}
}

func cannedEvents(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range []status.Event{
		{Time: present, Type: "session", Peer: "quagga", Message: "session down: hold timer expired", Fields: map[string]string{"state": "Idle", "cause": "hold \x1b[2J"}},
		{Time: present.Add(1500 * time.Millisecond), Type: "route", Prefix: "192.168.255.0/24", Message: "1 next hop \x1b]0;x\x07\nfake"},
	} {
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(raw))
	}
	return lines
}

func TestMonitorFormats(t *testing.T) {
	for _, format := range []string{formatTable, formatWide, formatJSON, formatJSONL} {
		t.Run(format, func(t *testing.T) {
			ch := make(chan string, 2)
			for _, line := range cannedEvents(t) {
				ch <- line
			}
			close(ch)
			got := ctl(t, serve(t, events(ch)), "monitor", "-o", format)
			golden(t, "monitor-"+format, got.stdout)
			// The daemon's end of the stream is not the operator's.
			if got.code != exitUnreachable {
				t.Errorf("monitor of a daemon that stops = %d, want 3", got.code)
			}
			oneLine(t, got.stderr, "ended the stream", "systemctl status nexthopd")
		})
	}
}

// TestMonitorInterrupted: each event is printed at once, and Ctrl-C is a good end.
func TestMonitorInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			ch := make(chan string)
			cmd := process(t, "--socket", serve(t, events(ch)), "monitor", "-o", "jsonl")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out := bufio.NewReader(stdout)
			for _, line := range cannedEvents(t) {
				ch <- line
				got, err := out.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				var e status.Event
				if err := json.Unmarshal([]byte(got), &e); err != nil {
					t.Errorf("monitor -o jsonl prints %q: %v", got, err)
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Errorf("monitor after %v: %v, stderr %q", sig, err, &stderr)
			}
		})
	}
}

func TestMonitorBrokenPipe(t *testing.T) {
	ch := make(chan string)
	cmd := process(t, "--socket", serve(t, events(ch)), "monitor")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	ch <- cannedEvents(t)[0]
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("monitor | head -n 1: %v, stderr %q", err, &stderr)
	}
}
