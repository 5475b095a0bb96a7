package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/version"
)

// answerTimeout bounds the wait for the daemon's first byte; what follows may take as
// long as a million rows need.
const answerTimeout = 30 * time.Second

// changeTimeout is answerTimeout for what changes something: a flush of a million routes
// takes its time. systemd gives `systemctl reload` as long (TimeoutStartSec= of the unit).
const changeTimeout = 2 * time.Minute

const (
	nextDaemonState = "systemctl status nexthopd"
	nextDaemonLog   = "journalctl -u nexthopd -n 50"
)

// client asks the daemon. Its errors are failures.
type client struct {
	socket  string
	command string // the command, for hints
	line    string // the whole command line
}

// http is a client that waits so long for the first byte.
func (c *client) http(timeout time.Duration) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
		},
		ResponseHeaderTimeout: timeout,
		DisableCompression:    true, // it never leaves the host
		DisableKeepAlives:     true,
	}}
}

// get asks for path and returns the open body of a 2xx answer.
func (c *client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	return c.ask(ctx, http.MethodGet, path, query, nil, answerTimeout)
}

func (c *client) ask(ctx context.Context, method, path string, query url.Values, body io.Reader, timeout time.Duration) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "nexthopd", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "nexthopctl/"+version.Get().Version)
	resp, err := c.http(timeout).Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, c.refused(resp)
}

// object asks for one JSON value and returns it both decoded and as it came.
func object[T any](ctx context.Context, c *client, path string, query url.Values) (v T, raw json.RawMessage, err error) {
	body, err := c.get(ctx, path, query)
	if err != nil {
		return v, nil, err
	}
	return read[T](c, path, body)
}

// change asks the daemon to change something and returns its answer like object.
func change[T any](ctx context.Context, c *client, path string, request any) (v T, raw json.RawMessage, err error) {
	text, err := json.Marshal(request)
	if err != nil {
		return v, nil, err
	}
	body, err := c.ask(ctx, http.MethodPost, path, nil, bytes.NewReader(text), changeTimeout)
	if err != nil {
		return v, nil, err
	}
	return read[T](c, path, body)
}

func read[T any](c *client, path string, body io.ReadCloser) (v T, raw json.RawMessage, err error) {
	defer body.Close()
	if raw, err = io.ReadAll(body); err != nil {
		return v, nil, c.unreadable(path, err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, nil, c.unreadable(path, err)
	}
	return v, raw, nil
}

// rows asks for a JSON array and hands over its elements one by one, so that a million
// of them need not fit in memory twice.
func rows[T any](ctx context.Context, c *client, path string, query url.Values, each func(T) error) error {
	body, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	switch token, err := dec.Token(); {
	case err != nil:
		return c.unreadable(path, err)
	case token == nil:
		return nil // null: a nil slice of the daemon's
	case token != json.Delim('['):
		return c.unreadable(path, fmt.Errorf("it starts with %v, not with a list", token))
	}
	for dec.More() {
		var v T
		if err := dec.Decode(&v); err != nil {
			return c.unreadable(path, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
	switch _, err := dec.Token(); {
	case errors.Is(err, io.EOF): // between two elements, where the decoder finds it fine
		return c.unreadable(path, io.ErrUnexpectedEOF)
	case err != nil:
		return c.unreadable(path, err)
	}
	return nil
}

// refused turns an answer other than 2xx into a failure.
func (c *client) refused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var e status.Error
	if err := json.Unmarshal(body, &e); err != nil || e.Error == "" {
		return c.stranger(fmt.Sprintf("%s answered %q", resp.Request.URL.Path, resp.Status))
	}
	f := &failure{code: exitFailed, what: e.Error, next: e.Next, lines: e.Lines}
	switch resp.StatusCode {
	case http.StatusNotFound:
		f.cause = errNotFound
	case http.StatusForbidden:
		f.next = "sudo " + c.line
	}
	return f
}

// errNotFound is the cause of a failure that the daemon answered with 404.
var errNotFound = errors.New("not found")

// stranger is the failure for something that listens and isn't our daemon.
func (c *client) stranger(seen string) error {
	return &failure{
		code: exitFailed,
		what: fmt.Sprintf("what listens on %s does not speak like nexthopd: %s; is --socket right, and the daemon of the same version?", c.socket, seen),
		next: "nexthopctl version",
	}
}

// unreadable is the failure for an answer whose body is not what the contract says.
func (c *client) unreadable(path string, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return c.stranger(path + " answered nothing")
	// encoding/json reports a cut-off document as a SyntaxError when it had all bytes
	// at once, and as io.ErrUnexpectedEOF when it read a stream.
	case errors.As(err, &syntax) && syntax.Error() != "unexpected end of JSON input":
		return c.stranger(path + " did not answer JSON: " + err.Error())
	case errors.As(err, &kind):
		return c.stranger(path + " answered something else: " + err.Error())
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax), errors.Is(err, syscall.ECONNRESET):
		return &failure{code: exitFailed, what: "nexthopd broke off its answer to " + path + ", the output is not complete", next: nextDaemonLog, cause: err}
	}
	return &failure{code: exitFailed, what: fmt.Sprintf("read the answer to %s: %v", path, err), next: nextDaemonLog, cause: err}
}

// unreachable explains why no answer came.
func (c *client) unreachable(err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err // "Get http://nexthopd/v1/status" says nothing to an operator
	}
	f := &failure{code: exitUnreachable, next: nextDaemonState, cause: err}
	var netErr net.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.what = fmt.Sprintf("no socket %s: is nexthopd running?", c.socket)
	case errors.Is(err, fs.ErrPermission):
		f.what = fmt.Sprintf("permission denied on %s: %s", c.socket, whoMay(c.socket))
		f.next = "sudo " + c.line
	case errors.Is(err, syscall.ECONNREFUSED):
		f.what = fmt.Sprintf("nobody listens on %s any more: is nexthopd running?", c.socket)
		if info, serr := os.Stat(c.socket); serr == nil && info.Mode()&fs.ModeSocket == 0 {
			f.what = fmt.Sprintf("%s is not a socket: is --socket (or NEXTHOPD_SOCKET) right?", c.socket)
			f.next = c.command + " --help"
		}
	case errors.As(err, &netErr) && netErr.Timeout():
		f.what = fmt.Sprintf("nexthopd does not answer on %s", c.socket)
		f.next = nextDaemonLog
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.what = fmt.Sprintf("nexthopd closed %s without an answer: has it just stopped?", c.socket)
	case errors.Is(err, syscall.EINVAL):
		// bind(2) and connect(2) refuse what does not fit in sockaddr_un's 108 bytes.
		f.what = fmt.Sprintf("%s is no path of a socket (at most 107 bytes)", c.socket)
		f.next = c.command + " --help"
	case strings.Contains(err.Error(), "malformed HTTP"):
		// net/http has no typed error for it.
		return c.stranger("it does not speak HTTP")
	default:
		f.what = fmt.Sprintf("ask nexthopd on %s: %v", c.socket, err)
	}
	return f
}

// whoMay says who is let through to the socket, from the owner and the mode of what
// stands in the way: the socket, or the first directory above it that can be looked at.
func whoMay(socket string) string {
	for path := socket; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil && path != filepath.Dir(path) {
			continue
		}
		stat, ok := sysStat(info)
		if err != nil || !ok {
			return "root may"
		}
		who := []string{"root"}
		if stat.Uid != 0 {
			who = append(who, "user "+userName(stat.Uid))
		}
		// connect(2) wants write permission on the socket; a directory is searched.
		need := fs.FileMode(0o020)
		if info.IsDir() {
			need = 0o010
		}
		if info.Mode()&need != 0 {
			who = append(who, "group "+groupName(stat.Gid))
		}
		return fmt.Sprintf("%s may (%s has mode %04o)", strings.Join(who, ", "), path, info.Mode().Perm())
	}
}

func sysStat(info fs.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return stat, ok
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
