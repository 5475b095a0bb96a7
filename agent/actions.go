package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/metrics"
)

// maxReason is what is sent at most of a shutdown communication: RFC 9003 allows 255
// octets, GoBGP sends the 128 of RFC 8203.
const maxReason = 128

// refusal is a request that is not carried out, and why.
type refusal struct {
	code int // of HTTP
	text string
	next string
}

func (r *refusal) Error() string { return r.text }

func conflict(next, format string, args ...any) error {
	return &refusal{http.StatusConflict, fmt.Sprintf(format, args...), next}
}

// handleChanges adds what changes something.
func (a *Agent) handleChanges(mux *http.ServeMux) {
	handle := func(path string, h http.HandlerFunc) { mux.HandleFunc("POST "+path, changes(h)) }
	handle(status.PathReload, post(a, func(ctx context.Context, r status.ReloadRequest) (status.Reload, error) {
		return a.Reload(ctx, r.DryRun)
	}))
	handle(status.PathResync, post(a, func(ctx context.Context, r status.ResyncRequest) (status.Resync, error) {
		return a.Resync(ctx, r.Install)
	}))
	handle(status.PathPeer, post(a, func(_ context.Context, r status.PeerRequest) (status.Done, error) {
		return a.administer(r)
	}))
	handle(status.PathFlush, post(a, func(ctx context.Context, _ struct{}) (status.Done, error) { return a.Flush(ctx) }))
	handle(status.PathDrain, post(a, func(context.Context, struct{}) (status.Done, error) { return a.drain(true) }))
	handle(status.PathResume, post(a, func(ctx context.Context, r status.ResumeRequest) (status.Done, error) { return a.Resume(ctx, r.Yes) }))
	handle(status.PathUndrain, post(a, func(context.Context, struct{}) (status.Done, error) { return a.drain(false) }))
}

// post reads a request's body, which may be empty, and answers with what f returns.
func post[Req, Resp any](a *Agent, f func(context.Context, Req) (Resp, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		dec := json.NewDecoder(io.LimitReader(r.Body, 2<<20))
		dec.DisallowUnknownFields() // a daemon that knows less than the command must not do half of it
		if err := dec.Decode(&req); err != nil && !errors.Is(err, io.EOF) {
			refuse(w, http.StatusBadRequest, status.Error{Error: "read the request: " + err.Error(), Next: "nexthopctl version"})
			return
		}
		resp, err := f(r.Context(), req)
		var no *refusal
		var mistakes config.Errors
		switch {
		case errors.As(err, &no):
			refuse(w, no.code, status.Error{Error: no.text, Next: no.next})
		case errors.As(err, &mistakes):
			file := cmp.Or(mistakes[0].File, a.opts.ConfigFile)
			e := status.Error{Error: fmt.Sprintf("nothing is changed: %s has mistakes", file), Next: "nexthopd check " + file}
			for _, m := range mistakes {
				e.Lines = append(e.Lines, m.Error())
			}
			refuse(w, http.StatusUnprocessableEntity, e)
		default:
			answer(w, resp, err)
		}
	}
}

// Resync compares everything with the kernel now, and writes the differences. install
// ends what Flush began.
func (a *Agent) Resync(ctx context.Context, install bool) (status.Resync, error) {
	var r status.Resync
	begun := false
	err := a.ask(ctx, func() error {
		switch {
		case begun: // and given up; the loop may have done it since
		case a.cfg.FIB.Mode != config.ModeInstall:
			return conflict("nexthopctl status", "fib.mode is observe: there is nothing of ours to compare")
		case a.suspended && !install:
			return conflict("nexthopctl resync --install", "an operator flushed the routes")
		case a.suspended:
			// The kernel was not written meanwhile, so that all we know is compared with it.
			a.suspend(false)
			a.dueResync(metrics.ResyncUnknown)
		default:
			a.syncCause = metrics.ResyncOperator
		}
		begun = true
		if a.syncCause != "" {
			if err := a.resync(); err != nil {
				return err
			}
		}
		r = status.Resync{Routes: a.syncRoutes, Differences: a.syncDrift, Kept: a.keptNow()}
		return nil
	})
	return r, err
}

// suspend says whether routes are kept from the kernel. It is called in the loop.
func (a *Agent) suspend(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suspended = on
}

// Flush removes exactly what is ours from the kernel (S25). From then on everything is
// computed and shown, and nothing installed, until Resync with install, or a restart.
func (a *Agent) Flush(ctx context.Context) (status.Done, error) {
	var failure error
	n := 0
	err := a.do(ctx, func() {
		switch {
		case a.cfg.FIB.Mode != config.ModeInstall:
			failure = conflict("nexthopd flush --help", "fib.mode is observe: this daemon installed nothing")
			return
		case a.suspended:
			failure = conflict("nexthopctl resync --install", "the routes are flushed already")
			return
		}
		n = a.table.Counts().Present
		failure = a.flush()
		a.suspend(true)
		a.mu.Lock()
		a.rib.MarkAll() // what should be there is known as before
		a.mu.Unlock()
		a.journal(journal.OperatorAction, slog.String("action", "flush"), slog.Int("routes", n))
		a.event("fib", nil, netip.Prefix{}, "flushed by an operator", nil)
	})
	return status.Done{
		Done: fmt.Sprintf("removed %d route%s; none is installed until `nexthopctl resync --install` or a restart", n, plural(n, "", "s")),
		Next: "nexthopctl resync --install",
	}, orElse(err, failure)
}

// drain asks the peers to prefer any other path they have (RFC 8326), or ends that.
func (a *Agent) drain(on bool) (status.Done, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	speaker, drained := a.speaker, a.drained
	a.mu.Unlock()
	if speaker == nil {
		return status.Done{}, errStarting
	}
	switch {
	case on && drained:
		return status.Done{}, conflict("nexthopctl undrain", "drained already")
	case !on && !drained:
		return status.Done{}, conflict("nexthopctl drain", "not drained")
	}
	if err := speaker.SetDrain(on); err != nil {
		return status.Done{}, err
	}
	a.mu.Lock()
	a.drained = on
	a.mu.Unlock()
	action := "drain"
	if !on {
		action = "undrain"
	}
	a.journal(journal.OperatorAction, slog.String("action", action))
	if !on {
		return status.Done{Done: "announcing without GRACEFUL_SHUTDOWN again"}, nil
	}
	return status.Done{
		Done: "everything is announced with GRACEFUL_SHUTDOWN (65535:0): peers that honour RFC 8326 move their traffic to other paths they have; this host's own routes stay",
		Next: "nexthopctl undrain",
	}, nil
}

var errStarting = errors.New("the BGP speaker has not started yet")

// administer carries out what an operator wants of one peer.
func (a *Agent) administer(r status.PeerRequest) (status.Done, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	speaker, p := a.speaker, a.peers.find(r.Peer)
	var c config.Peer
	var state session.State
	var disabled bool
	if p != nil {
		c, state, disabled = p.cfg, p.state, p.disabled
	}
	a.mu.Unlock()
	name := fmt.Sprintf("%s (%s)", c.Name, c.Address)
	switch {
	case p == nil:
		return status.Done{}, &refusal{http.StatusNotFound, fmt.Sprintf("no peer has the name or address %q", r.Peer), "nexthopctl peers"}
	case speaker == nil:
		return status.Done{}, errStarting
	case r.Reason != "" && r.Action != "disable" && r.Action != "reset":
		return status.Done{}, &refusal{http.StatusBadRequest, "a reason is sent with disable and reset only", "nexthopctl peer --help"}
	}
	if why := badReason(r.Reason); why != "" {
		return status.Done{}, &refusal{http.StatusBadRequest, "the reason " + why, "nexthopctl peer --help"}
	}

	var done status.Done
	var err error
	switch r.Action {
	case "disable":
		if c.Shutdown || disabled {
			return done, conflict("nexthopctl peer "+c.Name, "%s is shut down already", name)
		}
		a.disable(p, true)
		if err = speaker.Shutdown(c.Address, r.Reason); err != nil {
			a.disable(p, false)
		}
		done = status.Done{Done: name + " is shut down until it is enabled, or the daemon restarts", Next: "nexthopctl peer " + c.Name + " enable"}
	case "enable":
		switch {
		case c.Shutdown:
			return done, conflict("nexthopctl reload", "%s is shut down in %s: remove `shutdown: true` there", name, a.opts.ConfigFile)
		case !disabled:
			return done, conflict("nexthopctl peer "+c.Name, "%s is not shut down", name)
		}
		if err = speaker.Enable(c.Address); err == nil {
			a.disable(p, false)
		}
		done = status.Done{Done: name + " is enabled: its session comes up as soon as the peer answers", Next: "nexthopctl peer " + c.Name}
	case "reset":
		if state != session.Established {
			return done, conflict("nexthopctl peer "+c.Name, "%s has no session to reset: it is %s", name, state)
		}
		err = speaker.Reset(c.Address, r.Reason)
		done = status.Done{Done: "the session with " + name + " is reset and comes up again by itself", Next: "nexthopctl peer " + c.Name}
	case "refresh":
		if state != session.Established {
			return done, conflict("nexthopctl peer "+c.Name, "%s has no session to refresh: it is %s", name, state)
		}
		err = speaker.Resend(c.Address)
		done = status.Done{
			Done: "sent " + name + " again all that is announced to it; it cannot be asked for its own (no ROUTE-REFRESH is sent), which takes a reset",
			Next: "nexthopctl peer " + c.Name + " reset",
		}
	default:
		return done, &refusal{http.StatusBadRequest, fmt.Sprintf("there is no action %q: disable, enable, reset, refresh", r.Action), "nexthopctl peer --help"}
	}
	if err != nil {
		return status.Done{}, err
	}
	attrs := []slog.Attr{slog.String("action", r.Action), slog.String("peer", c.Address.String()), slog.String("name", c.Name)}
	if r.Reason != "" {
		attrs = append(attrs, slog.String("reason", r.Reason))
	}
	a.journal(journal.OperatorAction, attrs...)
	return done, nil
}

func (a *Agent) disable(p *peer, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.disabled = on
	a.bfd.stale = true
	if on {
		a.forget(p, time.Now())
	}
	a.wake()
}

// badReason says what is wrong with a shutdown communication; "": nothing.
func badReason(s string) string {
	switch {
	case len(s) > maxReason:
		return fmt.Sprintf("has %d octets, at most %d are sent", len(s), maxReason)
	case !utf8.ValidString(s):
		return "is not UTF-8, as RFC 9003 wants it"
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("holds %U, which cannot be printed", r)
		}
	}
	return ""
}

// ownDoing adds what an operator did, or left to do, to the list of problems.
func (a *Agent) ownDoing(problem func(next, format string, args ...any)) {
	a.mu.Lock()
	suspended, drained, waiting, held := a.suspended, a.drained, a.waiting, a.held
	a.mu.Unlock()
	if held != nil {
		problem("nexthopctl resume", "%s", held.text(a.opts.ConfigFile))
	}
	if suspended {
		problem("nexthopctl resync --install", "an operator flushed the routes: none is installed")
	}
	if drained {
		problem("nexthopctl undrain", "drained: peers are asked to prefer other paths (GRACEFUL_SHUTDOWN)")
	}
	if len(waiting) > 0 {
		problem("systemctl restart nexthopd", "changed in %s and in force only after a restart: %s", a.opts.ConfigFile, strings.Join(waiting, ", "))
	}
}
