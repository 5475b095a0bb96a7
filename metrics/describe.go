package metrics

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexthopd/nexthopd/internal/version"
)

// Description says what a metric is, for the manual.
type Description struct {
	Name   string
	Kind   string
	Unit   string
	Labels []string
	Help   string
}

// Describe lists the daemon's own metrics by name. The Go runtime's and the process's are
// not among them.
func Describe() ([]Description, error) {
	var all []Description
	for _, s := range allSeries {
		all = append(all, Description{Name: s.name, Kind: string(s.kind), Labels: slices.Clone(s.labels), Help: s.help})
	}
	// The instruments are all there from the start.
	reg := prometheus.NewRegistry()
	var errs []error
	for _, c := range append(NewInstruments().collectors(), buildInfo(version.Info{})) {
		errs = append(errs, reg.Register(c))
	}
	families, err := reg.Gather()
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	for _, f := range families {
		d := Description{Name: f.GetName(), Help: f.GetHelp(), Kind: string(gauge)}
		m := f.GetMetric()[0]
		switch {
		case m.Counter != nil:
			d.Kind = string(counter)
		case m.Histogram != nil:
			d.Kind = "histogram, classic and native"
		}
		for _, l := range m.GetLabel() {
			d.Labels = append(d.Labels, l.GetName())
		}
		all = append(all, d)
	}
	for i := range all {
		all[i].Unit = unitOf(all[i].Name)
	}
	slices.SortFunc(all, func(a, b Description) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// units are what the metrics count, by a part of the name; the first that fits.
var units = []struct{ part, unit string }{
	{"_paths", "paths"},
	{"_info", "1"},
	{"_timestamp_seconds", "seconds since 1970"},
	{"_seconds", "seconds"},
	{"_prefix", "prefixes"},
	{"_paths_", "paths"},
	{"_messages_", "messages"},
	{"_packets_", "packets"},
	{"_transitions_", "changes"},
	{"_send_errors_", "packets"},
	{"_flaps_", "sessions"},
	{"_routes", "prefixes"},
	{"_groups", "groups"},
	{"_nexthops", "next hops"},
	{"_operations_", "writes"},
	{"_repairs_", "objects"},
	{"_resyncs_", "comparisons"},
	{"_overflows_", "overflows"}, {"_peers_refused_", "connections"}, {"_connections_refused_", "connections"},
}

// unitOf reads the unit from the name. What counts nothing is a switch.
func unitOf(name string) string {
	for _, u := range units {
		if strings.Contains(name, u.part) {
			return u.unit
		}
	}
	return "0 or 1"
}
