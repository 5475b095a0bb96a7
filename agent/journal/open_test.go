package journal

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/config"
)

// logged opens the output on a pipe and returns what f logged.
func logged(t *testing.T, cfg config.Log, f func(*slog.Logger)) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := Open(w, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f(out.Logger)
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJSON(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	type secret struct{ Password string }
	line := logged(t, config.Log{Format: formatAuto}, func(l *slog.Logger) {
		Log(l, SessionUp, slog.Any("peer", netip.MustParseAddr("10.1.0.4")), slog.Int("n", 3), slog.Any("cfg", &secret{"hunter2"}))
	})
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("auto on a pipe wrote %q, want JSON: %v", line, err)
	}
	delete(got, "time")
	want := fmt.Sprint(map[string]any{
		"level": "NOTICE", "msg": SessionUp.Message, "event": "session-up", "message_id": SessionUp.ID, "peer": "10.1.0.4", "n": 3,
		"cfg": "(*journal.secret)",
	})
	if fmt.Sprint(got) != want {
		t.Errorf("record = %v\nwant     %v", got, want)
	}
}

func TestText(t *testing.T) {
	line := logged(t, config.Log{Format: formatText, Level: slog.LevelWarn}, func(l *slog.Logger) {
		Log(l, SessionUp, slog.String("peer", "10.1.0.4"))
		Log(l, SessionDown, slog.String("peer", "10.1.0.4"))
	})
	if _, rest, _ := strings.Cut(line, " "); rest != "level=WARN msg=\"session is down\" peer=10.1.0.4\n" {
		t.Errorf("text at level warn = %q", line)
	}
}

// A reload changes the level of every logger that was derived from the first.
func TestSetLevel(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := Open(w, config.Log{Format: formatText, Level: slog.LevelWarn})
	if err != nil {
		t.Fatal(err)
	}
	l := out.Logger.With("peer", "10.1.0.4")
	l.Info("before")
	out.SetLevel(slog.LevelDebug)
	l.Debug("after")
	w.Close()
	b, err := io.ReadAll(r)
	if got := string(b); err != nil || strings.Contains(got, "before") || !strings.Contains(got, "after") {
		t.Errorf("logged %q, %v, want only what came after the level was lowered", got, err)
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := Open(os.Stderr, config.Log{Format: "xml"}); err == nil || !strings.Contains(err.Error(), "auto, journal, text, json") {
		t.Errorf("Open with format xml: %v, want an error that names the formats", err)
	}
}

func TestTerminalGetsText(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer ptmx.Close()
	if got := autoFormat(ptmx); got != formatText {
		t.Errorf("autoFormat on a terminal = %q, want text", got)
	}
}

func TestIsJournalStream(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		env  string
		want bool
	}{
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), true},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), false}, // redirected since
		{"", false},
		{"nonsense", false},
	}
	for _, tt := range tests {
		if got := isJournalStream(f, tt.env); got != tt.want {
			t.Errorf("isJournalStream(f, %q) = %v, want %v", tt.env, got, tt.want)
		}
	}
}
