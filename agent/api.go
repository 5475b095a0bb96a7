package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
)

// ServeAPI answers nexthopctl on the control socket until ctx ends.
func (a *Agent) ServeAPI(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withCaller,
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	}()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}

func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+status.PathStatus, func(w http.ResponseWriter, r *http.Request) {
		s, err := a.Status(r.Context())
		answer(w, s, err)
	})
	mux.HandleFunc("GET "+status.PathPeers, func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.Peers(), nil)
	})
	mux.HandleFunc("GET "+status.PathBFD, func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.BFD(), nil)
	})
	mux.HandleFunc("GET "+status.PathFailovers, func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.Failovers(r.Context()), nil)
	})
	mux.HandleFunc("GET "+status.PathDoctor, func(w http.ResponseWriter, r *http.Request) {
		d, err := a.doctor(r.Context())
		answer(w, d, err)
	})
	mux.HandleFunc("POST "+status.PathPolicy, post(a, a.testPolicy))
	mux.HandleFunc("GET "+status.PathLearned, a.perPeer(a.learned))
	mux.HandleFunc("GET "+status.PathAdvertised, a.perPeer(a.advertised))
	mux.HandleFunc("GET "+status.PathRoutes, func(w http.ResponseWriter, r *http.Request) {
		stream(w, func(row func(any) error) error {
			return a.routes(r.Context(), func(x status.Route) error { return row(x) })
		})
	})
	mux.HandleFunc("GET "+status.PathExplain, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query().Get("q")
		if _, _, err := parseQuery(q); err != nil {
			refuse(w, http.StatusBadRequest, status.Error{Error: err.Error(), Next: "nexthopctl explain 10.0.0.0/8"})
			return
		}
		x, err := a.explain(r.Context(), q)
		answer(w, x, err)
	})
	mux.HandleFunc("GET "+status.PathEvents, a.serveEvents)
	a.handleChanges(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, status.Error{Error: "no such path: " + r.Method + " " + r.URL.Path, Next: "nexthopctl version"})
	})
	return mux
}

// perPeer serves a list of paths, of the peer that the query names or of all.
func (a *Agent) perPeer(list func(context.Context, *peer, func(status.Path) error) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var of *peer
		if name := r.URL.Query().Get("peer"); name != "" {
			a.mu.Lock()
			of = a.peers.find(name)
			a.mu.Unlock()
			if of == nil {
				a.refuseUnknown(w, name)
				return
			}
		}
		stream(w, func(row func(any) error) error {
			return list(r.Context(), of, func(x status.Path) error { return row(x) })
		})
	}
}

// refuseUnknown says that no peer has that name or address, and which there are.
func (a *Agent) refuseUnknown(w http.ResponseWriter, name string) {
	a.mu.Lock()
	names := make([]string, 0, len(a.peers.list))
	for _, p := range a.peers.list {
		names = append(names, p.cfg.Name)
	}
	a.mu.Unlock()
	known := "no peers are configured"
	if len(names) > 0 {
		known = "known: " + strings.Join(names, ", ")
	}
	refuse(w, http.StatusNotFound, status.Error{Error: "no peer has the name or address " + name + " (" + known + ")", Next: "nexthopctl peers"})
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		refuse(w, http.StatusInternalServerError, status.Error{Error: err.Error(), Next: "journalctl -u nexthopd"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

func refuse(w http.ResponseWriter, code int, e status.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(e)
}

// stream writes a JSON array element by element, so that a million rows are never in
// memory at once. An error after the first row breaks the array off, which the client
// notices.
func stream(w http.ResponseWriter, list func(row func(any) error) error) {
	n := 0
	enc := json.NewEncoder(w)
	err := list(func(v any) error {
		sep := ","
		if n == 0 {
			w.Header().Set("Content-Type", "application/json")
			sep = "["
		}
		n++
		if _, err := w.Write([]byte(sep)); err != nil {
			return err
		}
		return enc.Encode(v)
	})
	switch {
	case err != nil && n == 0:
		answer(w, nil, err)
	case err != nil:
		panic(http.ErrAbortHandler) // the one way to tell a client that a body is cut short
	case n == 0:
		answer(w, []struct{}{}, nil)
	default:
		_, _ = w.Write([]byte("]\n"))
	}
}

// serveEvents streams events, one JSON object a line, until the client leaves.
func (a *Agent) serveEvents(w http.ResponseWriter, r *http.Request) {
	watch := a.hub.watch()
	defer a.hub.leave(watch)
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	_ = rc.Flush() // the client learns at once that it is connected
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-watch.events:
			if !ok || enc.Encode(e) != nil || rc.Flush() != nil {
				return
			}
		}
	}
}
