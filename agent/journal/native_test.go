package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sdjournal "github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/config"
)

// sent is one record as it left the handler.
type sent struct {
	message  string
	priority sdjournal.Priority
	fields   map[string]string
}

func recordTo(out *[]sent) sendFunc {
	return func(m string, p sdjournal.Priority, f map[string]string) error {
		*out = append(*out, sent{m, p, f})
		return nil
	}
}

func discard() slog.Handler { return slog.NewTextHandler(io.Discard, nil) }

func TestNativeFields(t *testing.T) {
	type secret struct{ Password string }
	peer := slog.Any("peer", netip.MustParseAddr("10.1.0.4"))
	tests := []struct {
		name    string
		log     func(*slog.Logger)
		message string
		prio    sdjournal.Priority
		fields  map[string]string
	}{
		{
			name: "event",
			log: func(l *slog.Logger) {
				Log(l, SessionDown, peer, slog.String("cause", "hold-timer"), slog.String("reason", "hold timer expired (4/0)"))
			},
			message: `session is down peer=10.1.0.4 cause=hold-timer reason="hold timer expired (4/0)"`,
			prio:    sdjournal.PriWarning,
			fields: map[string]string{
				"EVENT": "session-down", "MESSAGE_ID": SessionDown.ID, "PEER": "10.1.0.4",
				"CAUSE": "hold-timer", "REASON": "hold timer expired (4/0)",
			},
		},
		{
			name: "attributes of the logger come first",
			log: func(l *slog.Logger) {
				l.With(peer, "table", 254).Error("refused", "err", errors.New("no such device"), "prefix", netip.MustParsePrefix("10.9.0.0/24"))
			},
			message: `refused peer=10.1.0.4 table=254 err="no such device" prefix=10.9.0.0/24`,
			prio:    sdjournal.PriErr,
			fields:  map[string]string{"PEER": "10.1.0.4", "TABLE": "254", "ERR": "no such device", "PREFIX": "10.9.0.0/24"},
		},
		{
			name: "groups",
			log: func(l *slog.Logger) {
				l.WithGroup("bgp").With("a", 1).Info("m", slog.Group("g", "b", true), slog.Group("", "c", 2))
			},
			message: `m bgp_a=1 bgp_g_b=true bgp_c=2`,
			prio:    sdjournal.PriInfo,
			fields:  map[string]string{"BGP_A": "1", "BGP_G_B": "true", "BGP_C": "2"},
		},
		{
			name: "names that journald would drop or that are its own",
			log: func(l *slog.Logger) {
				l.Debug("m", "_pid", 1, "2nd", 2, "next-hop", 3, "message", 4, "priority", 0, "", 5)
			},
			message: `m _pid=1 2nd=2 next-hop=3 message=4 priority=0`,
			prio:    sdjournal.PriDebug,
			fields:  map[string]string{"X__PID": "1", "X_2ND": "2", "NEXT_HOP": "3", "X_MESSAGE": "4", "X_PRIORITY": "0"},
		},
		{
			name: "what a peer says stays on one line",
			log: func(l *slog.Logger) {
				l.Log(t.Context(), LevelNotice, "m", "reason", "a\nPRIORITY=0\x1b[31m", "bad", "\xff", "empty", "")
			},
			message: `m reason="a\nPRIORITY=0\x1b[31m" bad="\xff" empty=""`,
			prio:    sdjournal.PriNotice,
			fields:  map[string]string{"REASON": "a\nPRIORITY=0\x1b[31m", "BAD": "\xff", "EMPTY": ""},
		},
		{
			name: "values",
			log: func(l *slog.Logger) {
				var none *net.IPNet
				l.Info("m", "took", 1500*time.Microsecond, "at", time.Unix(0, 0).UTC(), "addrs", []netip.Addr{netip.MustParseAddr("::1")},
					"none", none, "nil", nil, "n", []int{1, 2})
			},
			message: `m took=1.5ms at=1970-01-01T00:00:00Z addrs=::1 none="" nil="" n="1 2"`,
			prio:    sdjournal.PriInfo,
			fields: map[string]string{
				"TOOK": "1.5ms", "AT": "1970-01-01T00:00:00Z", "ADDRS": "::1", "NONE": "", "NIL": "", "N": "1 2",
			},
		},
		{
			name: "structs, maps and bytes are named, not printed",
			log: func(l *slog.Logger) {
				l.Info("m", "s", secret{"hunter2"}, "p", &secret{"hunter2"}, "m", map[string]string{"a": "hunter2"}, "b", []byte("hunter2"),
					"l", []secret{{"hunter2"}})
			},
			message: `m s=(journal.secret) p=(*journal.secret) m=(map[string]string) b=([]uint8) l=(journal.secret)`,
			prio:    sdjournal.PriInfo,
			fields: map[string]string{
				"S": "(journal.secret)", "P": "(*journal.secret)", "M": "(map[string]string)", "B": "([]uint8)", "L": "(journal.secret)",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []sent
			tt.log(slog.New(newNative(slog.LevelDebug, recordTo(&got), discard())))
			if len(got) != 1 {
				t.Fatalf("sent %d records, want 1", len(got))
			}
			tt.fields["SYSLOG_IDENTIFIER"] = "nexthopd"
			if got[0].message != tt.message {
				t.Errorf("MESSAGE = %s\nwant      %s", got[0].message, tt.message)
			}
			if got[0].priority != tt.prio {
				t.Errorf("PRIORITY = %d, want %d", got[0].priority, tt.prio)
			}
			if !maps.Equal(got[0].fields, tt.fields) {
				t.Errorf("fields = %v\nwant     %v", got[0].fields, tt.fields)
			}
		})
	}
}

func TestNativeLevel(t *testing.T) {
	var got []sent
	l := slog.New(newNative(slog.LevelWarn, recordTo(&got), discard()))
	l.Info("no")
	l.Warn("yes")
	if len(got) != 1 || got[0].message != "yes" {
		t.Errorf("at level warn, sent %v, want only %q", got, "yes")
	}
}

func TestNativeFallsBackToStderr(t *testing.T) {
	var buf bytes.Buffer
	fail := func(string, sdjournal.Priority, map[string]string) error { return errors.New("journald restarts") }
	h := newNative(slog.LevelInfo, fail, slog.NewTextHandler(&buf, nil))
	slog.New(h).With("peer", "10.1.0.4").WithGroup("g").Info("still there", "a", 1)
	if got := buf.String(); !strings.Contains(got, `msg="still there" peer=10.1.0.4 g.a=1`) {
		t.Errorf("backup has %q, want the record", got)
	}
}

func TestFieldNameIsShortEnough(t *testing.T) {
	for _, key := range []string{strings.Repeat("a", 100), strings.Repeat("_", 100)} {
		if got := fieldName(key); len(got) != maxFieldName {
			t.Errorf("fieldName(%q) = %q, %d characters, want %d", key, got, len(got), maxFieldName)
		}
	}
}

const inMountNamespace = "NEXTHOPD_TEST_JOURNAL_CHILD"

// The journal's socket has a fixed path, so the fake journald lives in a mount namespace
// with a /run of its own: the test runs itself again there.
func TestNativeOnTheWire(t *testing.T) {
	if os.Getenv(inMountNamespace) == "" {
		if os.Getuid() != 0 {
			if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
				t.Fatal("needs root for a mount namespace")
			}
			t.Skip("needs root for a mount namespace")
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestNativeOnTheWire$", "-test.v")
		cmd.Env = append(os.Environ(), inMountNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in the namespace: %v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const socket = "/run/systemd/journal/socket"
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// As systemd does it: JOURNAL_STREAM is the device and inode of stderr.
	var st unix.Stat_t
	if err := unix.Fstat(int(os.Stderr.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if got := autoFormat(os.Stderr); got != formatJournal {
		t.Fatalf("autoFormat with stderr on the journal = %q, want %q", got, formatJournal)
	}
	out, err := Open(os.Stderr, config.Log{Format: formatAuto})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1<<20) // over a datagram's size: goes by descriptor
	Log(out.Logger, FIBRefused, slog.String("prefix", "10.9.0.0/24"), slog.String("err", "two\nlines"))
	Log(out.Logger, ConfigRefused, slog.String("err", long))

	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := readRecord(t, conn)
	want := map[string]string{
		"MESSAGE": `kernel refused a write prefix=10.9.0.0/24 err="two\nlines"`, "PRIORITY": "3", "MESSAGE_ID": FIBRefused.ID,
		"EVENT": "fib-refused", "PREFIX": "10.9.0.0/24", "ERR": "two\nlines", "SYSLOG_IDENTIFIER": "nexthopd",
	}
	if !maps.Equal(got, want) {
		t.Errorf("record = %q\nwant     %q", got, want)
	}
	if got := readRecord(t, conn); got["ERR"] != long || got["MESSAGE_ID"] != ConfigRefused.ID {
		t.Errorf("large record: ERR has %d bytes, MESSAGE_ID %q; want %d, %q", len(got["ERR"]), got["MESSAGE_ID"], len(long), ConfigRefused.ID)
	}
}

// readRecord reads one record as journald does: the datagram, or the file that came with
// an empty one (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
func readRecord(t *testing.T, conn *net.UnixConn) map[string]string {
	t.Helper()
	buf, oob := make([]byte, 256<<10), make([]byte, 128)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	data := buf[:n]
	if n == 0 {
		msgs, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(msgs) != 1 {
			t.Fatalf("empty datagram with control messages %v, %v", msgs, err)
		}
		fds, err := syscall.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("descriptors %v, %v", fds, err)
		}
		f := os.NewFile(uintptr(fds[0]), "record")
		defer f.Close()
		data, err = io.ReadAll(io.NewSectionReader(f, 0, 8<<20))
		if err != nil {
			t.Fatal(err)
		}
	}
	fields := make(map[string]string)
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		if k, v, ok := bytes.Cut(line, []byte("=")); ok {
			fields[string(k)] = string(v)
			data = rest
			continue
		}
		size := binary.LittleEndian.Uint64(rest)
		fields[string(line)] = string(rest[8 : 8+size])
		data = rest[8+size+1:]
	}
	return fields
}
