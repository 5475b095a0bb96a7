package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"

	"github.com/nexthopd/nexthopd/internal/diag"
	"github.com/nexthopd/nexthopd/metrics"
)

// profiles is the listener for Go's profiles.
type profiles struct{ ln net.Listener }

// newPprof listens on addr, or returns nil when it is empty. Profiles tell a lot about
// the process and cost CPU, so they are for this host only.
func newPprof(ctx context.Context, addr string) (*profiles, error) {
	if addr == "" {
		return nil, nil
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().IsLoopback() {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("--pprof %s: must be a loopback address with a port, such as 127.0.0.1:6060", addr)}
	}
	ln, err := diag.ListenTCP(ctx, "--pprof", addr)
	if err != nil {
		return nil, failed(err)
	}
	return &profiles{ln}, nil
}

func (p *profiles) serve(ctx context.Context, log *slog.Logger) error {
	log.Info("profiles are served", "address", p.ln.Addr())
	return metrics.Serve(ctx, p.ln, pprofHandler(), "", log)
}

// pprofHandler has a mux of its own: the package registers itself only with
// http.DefaultServeMux, which we never serve.
func pprofHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
