// Package metrics gives Prometheus what the daemon knows: collectors that read a
// snapshot at every scrape, and instruments for what only happens once and would be
// gone by then. It drives nothing, and has a registry of its own, so that two agents
// fit in one process.
//
// No label has a value that a peer could choose: peers and their ASNs come from the
// configuration, the rest from lists in our code.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/version"
)

// Source is asked at every scrape, from any goroutine. It answers from snapshots,
// without waiting for the agent's loop.
type Source interface {
	Peers() []status.Peer
	BFD() status.BFD
	FIB() status.FIBStatus
	// Ready tells whether the first full synchronisation is done, and else why not.
	Ready() (ready bool, why string)
}

// NewRegistry returns a registry with everything that /metrics shows.
func NewRegistry(src Source, ins *Instruments, build version.Info) (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	all := append(ins.collectors(),
		&collector{src: src}, buildInfo(build),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	var errs []error
	for _, c := range all {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return reg, nil
}

func buildInfo(build version.Info) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "nexthopd_build_info",
		Help: "Always 1; the labels say what was built, and from which commit, with which Go and which GoBGP.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "goversion": build.Go, "gobgp": build.GoBGP,
		},
	})
	g.Set(1)
	return g
}
