package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	sdjournal "github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/config"
)

// The values of log.format.
const (
	formatAuto    = "auto"
	formatJournal = "journal"
	formatText    = "text"
	formatJSON    = "json"
)

// Output is where the daemon's records go.
type Output struct {
	Logger *slog.Logger

	level   *slog.LevelVar
	limiter *limiter
}

// Open sets logging up as the configuration says; the zero value is format auto at level
// info. stderr takes text and JSON, and what
// the journal could not take.
func Open(stderr *os.File, cfg config.Log) (*Output, error) {
	format := cfg.Format
	if format == formatAuto || format == "" {
		format = autoFormat(stderr)
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Level)
	h, err := newHandler(format, stderr, level)
	if err != nil {
		return nil, err
	}
	l := newLimiter(time.Now)
	return &Output{Logger: slog.New(&limited{limiter: l, next: h}), level: level, limiter: l}, nil
}

// SetLevel changes what is logged from now on; it may be called at any time.
func (o *Output) SetLevel(l slog.Level) { o.level.Set(l) }

// Run writes the counts of repeated records that were held back, until ctx ends. Records
// logged after it returned are written, but may be held back for good.
func (o *Output) Run(ctx context.Context) { o.limiter.run(ctx) }

func newHandler(format string, stderr *os.File, level slog.Leveler) (slog.Handler, error) {
	switch format {
	case formatJournal:
		if !sdjournal.Enabled() {
			return nil, errors.New("log.format journal: no journald listens on this machine; use text or json")
		}
		return newNative(level, sdjournal.Send, newText(stderr, level)), nil
	case formatText:
		return newText(stderr, level), nil
	case formatJSON:
		return slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: jsonAttr}), nil
	}
	return nil, fmt.Errorf("log.format %q: not one of auto, journal, text, json", format)
}

func newText(stderr *os.File, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: textAttr})
}

// jsonAttr makes every value plain, and gives LevelNotice its name.
func jsonAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey {
		if l, ok := a.Value.Any().(slog.Level); ok && l == LevelNotice {
			a.Value = slog.StringValue("NOTICE")
			return a
		}
	}
	a.Value = plain(a.Value)
	return a
}

// textAttr leaves out what only machines read.
func textAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == keyMessageID || a.Key == keyEvent) {
		return slog.Attr{}
	}
	return jsonAttr(groups, a)
}

// autoFormat chooses the native journal when systemd connected stderr to it
// (systemd.exec(5), $JOURNAL_STREAM: compare device and inode, for the variable is
// inherited by processes whose stderr was redirected since), text for a person at a
// terminal, and JSON for whatever else collects stderr.
func autoFormat(stderr *os.File) string {
	if IsJournal(stderr) {
		return formatJournal
	}
	if _, err := unix.IoctlGetTermios(int(stderr.Fd()), unix.TCGETS); err == nil {
		return formatText
	}
	return formatJSON
}

// IsJournal tells whether systemd connected stderr to a journal that takes native records.
func IsJournal(stderr *os.File) bool {
	return isJournalStream(stderr, os.Getenv("JOURNAL_STREAM")) && sdjournal.Enabled()
}

func isJournalStream(f *os.File, env string) bool {
	var dev, ino uint64
	if n, _ := fmt.Sscanf(env, "%d:%d", &dev, &ino); n != 2 {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return st.Dev == dev && st.Ino == ino
}
