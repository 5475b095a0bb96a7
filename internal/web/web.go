// Package web puts TLS and authentication around an HTTP server, as the web configuration
// file of Prometheus' exporters says (https://prometheus.io/docs/prometheus/latest/configuration/https/).
// It is the only importer of exporter-toolkit, and lets no secret of the file into an
// error or a log.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"

	toolkit "github.com/prometheus/exporter-toolkit/web"
)

// maxSize bounds the file, which is read again for every request.
const maxSize = 1 << 20

// Check says what is wrong with a web configuration file, or with a certificate or key
// that it names.
func Check(file string) error {
	if info, err := os.Stat(file); err != nil {
		return unwrapPath(err)
	} else if !info.Mode().IsRegular() || info.Size() > maxSize {
		return fmt.Errorf("is not a regular file of at most %d bytes", maxSize)
	}
	return plain(toolkit.Validate(file))
}

// Serve is srv.Serve with what the file asks for; file "" asks for nothing. The file and
// the certificates are read anew for every connection, so that changed ones count at once.
func Serve(ln net.Listener, srv *http.Server, file string, log *slog.Logger) error {
	if file == "" {
		return srv.Serve(ln)
	}
	if srv.ErrorLog != nil { // a handshake that fails over the file repeats what is in it
		srv.ErrorLog.SetOutput(redacted{srv.ErrorLog.Writer()})
	}
	err := toolkit.Serve(ln, srv, &toolkit.FlagConfig{WebConfigFile: &file}, slog.New(&records{log.Handler(), file}))
	if errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return plain(err)
}

var (
	quoted = regexp.MustCompile("`[^`]*`") // how the YAML library shows a value, or its beginning
	oneOf  = regexp.MustCompile(`\s*\n\s*`)
)

// plain makes an error one line without values: a text in the wrong place may be a secret.
func plain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	// The library's words repeat the first characters of what is not a hash.
	if strings.Contains(text, "bcrypt") {
		return errors.New("basic_auth_users: a password is not a bcrypt hash (make one with: htpasswd -nBC 10 USER)")
	}
	text = quoted.ReplaceAllString(text, "a value")
	text = strings.TrimPrefix(text, "yaml: unmarshal errors:")
	return errors.New(strings.TrimSpace(oneOf.ReplaceAllString(text, " ")))
}

// redacted writes lines without values.
type redacted struct{ io.Writer }

func (r redacted) Write(line []byte) (int, error) {
	_, err := r.Writer.Write(quoted.ReplaceAll(line, []byte("a value")))
	return len(line), err
}

func unwrapPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// records are the toolkit's log: what it says at the start is nobody's business, and what
// it says of a file that went bad must not show what is in it.
type records struct {
	slog.Handler
	file string
}

// Enabled implements slog.Handler.
func (r *records) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && r.Handler.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (r *records) Handle(ctx context.Context, rec slog.Record) error {
	out := slog.NewRecord(rec.Time, slog.LevelWarn, "web configuration went bad: requests are refused", rec.PC)
	out.AddAttrs(slog.String("file", r.file))
	if err := Check(r.file); err != nil {
		out.AddAttrs(slog.Any("err", err))
	}
	return r.Handler.Handle(ctx, out)
}
