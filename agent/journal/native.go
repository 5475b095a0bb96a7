package journal

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"

	sdjournal "github.com/coreos/go-systemd/v22/journal"
)

// identifier is what journalctl prints in front of the message.
const identifier = "nexthopd"

// sendFunc has the signature of go-systemd's journal.Send.
type sendFunc func(message string, priority sdjournal.Priority, fields map[string]string) error

// native is a slog.Handler that writes records of the journal's native protocol: each
// attribute is a field of its own, upper-case, to filter by. MESSAGE repeats them, for
// `journalctl` without options shows nothing else.
type native struct {
	level  slog.Leveler
	send   sendFunc
	backup slog.Handler // takes records that the journal did not
	prefix string       // of open groups: "GROUP_"
	fields map[string]string
	suffix string // of MESSAGE
}

func newNative(level slog.Leveler, send sendFunc, backup slog.Handler) *native {
	return &native{
		level: level, send: send, backup: backup,
		fields: map[string]string{"SYSLOG_IDENTIFIER": identifier},
	}
}

// Enabled implements slog.Handler.
func (h *native) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler. A record is never lost because journald restarts:
// what it does not take goes to the backup handler.
func (h *native) Handle(ctx context.Context, r slog.Record) error {
	fields := maps.Clone(h.fields)
	var msg strings.Builder
	msg.WriteString(r.Message)
	msg.WriteString(h.suffix)
	r.Attrs(func(a slog.Attr) bool {
		add(fields, &msg, h.prefix, a)
		return true
	})
	err := h.send(msg.String(), priority(r.Level), fields)
	if err == nil {
		return nil
	}
	return errors.Join(err, h.backup.Handle(ctx, r))
}

// WithAttrs implements slog.Handler.
func (h *native) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.fields = maps.Clone(h.fields)
	var b strings.Builder
	b.WriteString(h.suffix)
	for _, a := range attrs {
		add(c.fields, &b, h.prefix, a)
	}
	c.suffix = b.String()
	c.backup = h.backup.WithAttrs(attrs)
	return &c
}

// WithGroup implements slog.Handler.
func (h *native) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix = h.prefix + name + "_"
	c.backup = h.backup.WithGroup(name)
	return &c
}

// add puts one attribute into the fields and onto the message.
func add(fields map[string]string, msg *strings.Builder, prefix string, a slog.Attr) {
	v := plain(a.Value)
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, in := range v.Group() {
			add(fields, msg, prefix, in)
		}
		return
	}
	if a.Key == "" {
		return
	}
	s := text(v)
	fields[fieldName(prefix+a.Key)] = s
	if prefix == "" && (a.Key == keyEvent || a.Key == keyMessageID) {
		return // for machines; the message says the same
	}
	msg.WriteByte(' ')
	msg.WriteString(strings.ToLower(prefix) + a.Key)
	msg.WriteByte('=')
	msg.WriteString(quoted(s))
}

// reserved are fields that journald or this handler fills in: an attribute of that name
// must not shadow them.
var reserved = map[string]bool{
	"MESSAGE": true, "PRIORITY": true, "SYSLOG_IDENTIFIER": true, "SYSLOG_FACILITY": true,
	"SYSLOG_PID": true, "SYSLOG_TIMESTAMP": true, "SYSLOG_RAW": true, "OBJECT_PID": true,
}

// maxFieldName is journald's limit (journal_field_valid in src/libsystemd/sd-journal/journal-file.c).
const maxFieldName = 64

// fieldName turns an attribute's key into a name that journald takes: upper-case
// letters, digits and underscores, beginning with a letter. journald drops other
// fields silently.
func fieldName(key string) string {
	b := []byte(strings.ToUpper(key))
	for i, c := range b {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	s := string(b)
	if s == "" || s[0] < 'A' || s[0] > 'Z' || reserved[s] {
		s = "X_" + s
	}
	return s[:min(len(s), maxFieldName)]
}

// priority maps slog's levels to syslog's.
func priority(l slog.Level) sdjournal.Priority {
	switch {
	case l >= slog.LevelError:
		return sdjournal.PriErr
	case l >= slog.LevelWarn:
		return sdjournal.PriWarning
	case l >= LevelNotice:
		return sdjournal.PriNotice
	case l >= slog.LevelInfo:
		return sdjournal.PriInfo
	}
	return sdjournal.PriDebug
}
