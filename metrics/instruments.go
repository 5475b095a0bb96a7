package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
)

// RepairCause says what was found changed behind our back.
type RepairCause string

// The causes of repairs.
const (
	RepairRoute   RepairCause = "route"   // a route of ours was deleted or replaced
	RepairNextHop RepairCause = "nexthop" // a next hop of ours was
	RepairGroup   RepairCause = "group"   // a group of ours was
	RepairLink    RepairCause = "link"    // lost silently with an interface
	RepairAudit   RepairCause = "audit"   // no event told, a full comparison found it
)

// ResyncCause says why everything was compared with the kernel.
type ResyncCause string

// The causes of resyncs.
const (
	ResyncStart    ResyncCause = "start"
	ResyncOverflow ResyncCause = "overflow" // notifications were lost
	ResyncUnknown  ResyncCause = "unknown"  // the outcome of a write is not known
	ResyncLink     ResyncCause = "link"     // a link changed: the kernel drops what used it silently
	ResyncNextHop  ResyncCause = "nexthop"  // somebody changed a next hop or group of ours
	ResyncRefused  ResyncCause = "refused"  // the kernel refused what only a wrong belief explains
	ResyncAudit    ResyncCause = "audit"    // it was time
	ResyncOperator ResyncCause = "operator"
)

// Instruments count what happens as it happens. Their methods may be called from any
// goroutine and never block.
type Instruments struct {
	operations  *prometheus.CounterVec
	repairs     *prometheus.CounterVec
	resyncs     *prometheus.CounterVec
	overflows   prometheus.Counter
	beyond      prometheus.Counter
	refused     *prometheus.CounterVec
	convergence prometheus.Histogram
	failover    prometheus.Histogram
	detection   prometheus.Histogram
	reloadOK    prometheus.Gauge
	reloadedAt  prometheus.Gauge
}

// The values of the label "result".
const (
	resultOK      = "ok"
	resultRefused = "refused"
)

// NewInstruments returns instruments at zero. Every series exists from the start, so
// that the first increment is seen as one.
func NewInstruments() *Instruments {
	i := &Instruments{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexthopd_fib_operations_total",
			Help: "Writes to the kernel by operation and result (ok, or refused by the kernel).",
		}, []string{"op", "result"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexthopd_fib_repairs_total",
			Help: "Objects of ours that others changed or removed, or that were lost with an interface, and that were written again, by cause.",
		}, []string{"cause"}),
		resyncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexthopd_fib_resyncs_total",
			Help: "Full comparisons with the kernel's tables, by cause.",
		}, []string{"cause"}),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nexthopd_netlink_overflows_total",
			Help: "Times the kernel dropped netlink messages for us because a receive buffer was full (ENOBUFS); each leads to a resync.",
		}),
		beyond: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nexthopd_dynamic_peers_refused_total",
			Help: "Connections from an address of a range (dynamic-peers) that had as many peers as its limit allows.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nexthopd_bgp_connections_refused_total",
			Help: "Connections that were closed before anything of them was parsed, by reason: stranger (neither a peer nor in a range), rate (too many from its address), and for a range with a list of ASNs, open (no OPEN came) and asn (another ASN).",
		}, []string{"reason"}),
		convergence: histogram("nexthopd_fib_convergence_seconds",
			"Time from the arrival of a change (announcement, withdrawal, link or address) to the kernel's confirmation of the routes that follow from it.",
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
		failover: histogram("nexthopd_failover_seconds",
			"Time from the signal that a peer or next hop is lost to the kernel's confirmation that no traffic of ours uses it any more.",
			.0001, .00025, .0005, .001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 5),
		detection: histogram("nexthopd_bfd_detection_seconds",
			"Time from the last packet of a peer or next hop to the declaration that its BFD session is down, where its detection time expired.",
			.05, .1, .15, .2, .3, .5, .75, .9, 1, 1.5, 2, 3, 5, 10, 30),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nexthopd_config_last_reload_successful",
			Help: "1 when the configuration file was taken when it was last read, at the start or for a reload; 0 when it was refused or applied in part.",
		}),
		reloadedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nexthopd_config_last_reload_success_timestamp_seconds",
			Help: "Unix time at which the configuration file was last read and taken.",
		}),
	}
	i.Reload(true) // the one we start with
	for op := fib.NextHopAdd; op <= fib.NextHopDel; op++ {
		for _, result := range []string{resultOK, resultRefused} {
			i.operations.WithLabelValues(op.String(), result)
		}
	}
	for _, c := range []RepairCause{RepairRoute, RepairNextHop, RepairGroup, RepairLink, RepairAudit} {
		i.repairs.WithLabelValues(string(c))
	}
	for _, c := range []ResyncCause{ResyncStart, ResyncOverflow, ResyncUnknown, ResyncLink, ResyncNextHop, ResyncRefused, ResyncAudit, ResyncOperator} {
		i.resyncs.WithLabelValues(string(c))
	}
	for _, r := range session.Refusals {
		i.refused.WithLabelValues(string(r))
	}
	return i
}

// histogram is classic and native at once: the scraper takes the form it asks for.
func histogram(name, help string, buckets ...float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	})
}

func (i *Instruments) collectors() []prometheus.Collector {
	return []prometheus.Collector{i.operations, i.repairs, i.resyncs, i.overflows, i.beyond, i.refused, i.convergence, i.failover, i.detection, i.reloadOK, i.reloadedAt}
}

// Operations counts writes of one kind: those done, and those the kernel refused.
func (i *Instruments) Operations(op fib.OpKind, done, refused int) {
	i.operations.WithLabelValues(op.String(), resultOK).Add(float64(done))
	i.operations.WithLabelValues(op.String(), resultRefused).Add(float64(refused))
}

// Repairs counts n objects that were written again.
func (i *Instruments) Repairs(cause RepairCause, n int) {
	i.repairs.WithLabelValues(string(cause)).Add(float64(n))
}

// Resync counts a full comparison with the kernel.
func (i *Instruments) Resync(cause ResyncCause) { i.resyncs.WithLabelValues(string(cause)).Inc() }

// Overflow counts a netlink receive buffer that was full.
func (i *Instruments) Overflow() { i.overflows.Inc() }

// DynamicRefused counts a connection that a range of dynamic peers had no room for.
func (i *Instruments) DynamicRefused() { i.beyond.Inc() }

// ConnectionRefused counts a connection that BGP never had.
func (i *Instruments) ConnectionRefused(why session.Refusal) {
	i.refused.WithLabelValues(string(why)).Inc()
}

// Convergence records how long a change took to be in the kernel.
func (i *Instruments) Convergence(d time.Duration) { i.convergence.Observe(d.Seconds()) }

// Failover records how long a loss took to be out of the kernel.
func (i *Instruments) Failover(d time.Duration) { i.failover.Observe(d.Seconds()) }

// Reload notes whether the configuration was taken.
func (i *Instruments) Reload(ok bool) {
	if !ok {
		i.reloadOK.Set(0)
		return
	}
	i.reloadOK.Set(1)
	i.reloadedAt.SetToCurrentTime()
}

// BFDDetection records how long a peer was silent when BFD declared it down.
func (i *Instruments) BFDDetection(d time.Duration) { i.detection.Observe(d.Seconds()) }
