package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nexthopd/nexthopd/internal/web"
	"github.com/nexthopd/nexthopd/metrics/page"
)

// Limits of the listener: a scraper that hangs must not hold anything for long.
const (
	gatherTimeout = 10 * time.Second // Prometheus' own default for a scrape
	writeTimeout  = gatherTimeout + 20*time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute // above the usual scrape intervals, so that connections are reused
	stopTimeout   = 2 * time.Second
	maxRequests   = 8
	maxHeader     = 16 << 10
	maxConns      = 256 // everybody else waits in the kernel: our files are for sessions with NVAs
)

// Options say what the listener shows.
type Options struct {
	Registry *prometheus.Registry
	Source   Source
	// Healthy says what is wrong with the process, nil when nothing is. It is what the
	// watchdog asks too.
	Healthy func() error
	Page    page.Source // of the status page
	Log     *slog.Logger
}

// Handler serves the status page at /, /metrics, /-/healthy (the process works) and /-/ready (it has done its
// first full synchronisation); the latter two answer 503 with the reason when not.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{o.Log},
		// What can be told is told: an incomplete scrape beats none when something is wrong.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxRequests,
		Timeout:             gatherTimeout,
		CoalesceGather:      true, // a source that hangs must not pile up goroutines
	}))
	mux.Handle("GET /{$}", page.Handler(o.Page))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Healthy(); err != nil {
			answer(w, http.StatusServiceUnavailable, "not healthy: "+err.Error())
			return
		}
		answer(w, http.StatusOK, "healthy")
	})
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if ready, why := o.Source.Ready(); !ready {
			answer(w, http.StatusServiceUnavailable, "not ready: "+why)
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	return mux
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // the client has gone if this fails
}

// errorLog puts what promhttp reports, several lines at times, into one record.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (e errorLog) Println(v ...any) {
	e.log.Warn("scrape is incomplete", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Serve answers on ln until ctx ends, lets running requests finish for a moment, and
// returns when nothing of it runs any more. It closes ln. webConfig may name a file with
// TLS and authentication (see package web).
func Serve(ctx context.Context, ln net.Listener, h http.Handler, webConfig string, log *slog.Logger) error {
	ln = &limited{Listener: ln, slots: make(chan struct{}, maxConns), closed: make(chan struct{})}
	srv := &http.Server{
		Handler:           h,
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// Broken clients are their operators' business.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1) // one slot: the server's end is reported once
	go func() { done <- web.Serve(ln, srv, webConfig, log) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close() // whoever is slower than that loses the answer
	}
	<-done // http.ErrServerClosed
	return err
}
