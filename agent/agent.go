// Package agent is the one loop that turns what the peers announce into the kernel's
// routes. It owns all mutable state: the learned paths, the desired FIB, the peers.
// Everything around it (the speaker, the kernel, the metrics) is handed in, so that it
// needs no root, no socket and no GoBGP to be tested.
//
// The loop is level-triggered. What happens outside only marks something as changed
// and pokes a one-slot channel; a cycle reads the present state and writes the
// difference. A thousand changes while the kernel is busy cost one write.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/metrics"
)

// Speaker is what the agent needs of the BGP speaker (agent/bgp).
type Speaker interface {
	AddPeer(p config.Peer) error
	RemovePeer(peer netip.Addr) error
	UpdatePeer(p config.Peer) error
	Shutdown(peer netip.Addr, communication string) error
	Enable(peer netip.Addr) error
	Reset(peer netip.Addr, communication string) error
	BFDDown(peer netip.Addr, diagnostic string) error
	HoldDown(peer netip.Addr, hold bool) error
	Resend(peer netip.Addr) error
	EndRestart(peer netip.Addr)
	SetBranchToBranch(on bool) error
	SetDrain(on bool) error
	// RefuseInside says which prefixes, and what is inside them, no peer may announce, but
	// for those in allow.
	RefuseInside(prefixes, allow []netip.Prefix) error
	// Withhold takes paths out of what is announced, or back into it, in its own time.
	Withhold(changes []session.Withheld)
	// LimitReached ends the session of a peer beyond its prefix limit, in its own time.
	LimitReached(peer netip.Addr, f session.Family, limit int, text string)
	SetVNet(prefixes []netip.Prefix, nextHop4, nextHop6 netip.Addr) error
	// SetRanges says from where peers may come that are not named.
	SetRanges(ranges []config.DynamicPeers) error
	Peers() []session.PeerInfo
	Advertised(peer netip.Addr) ([]session.Advertised, error)
}

// Options of an Agent.
type Options struct {
	Config     *config.Config
	ConfigFile string // for status
	Version    string
	Owner      fib.Owner
	// CompatMode: net.ipv4.nexthop_compat_mode is on in this kernel.
	CompatMode bool
	Kernel     fib.Kernel
	BFD        BFD // nil: what is configured of it is not run; see RunBFD
	// Rules, if set, reads the routing policy rules. It is called in the loop, as Kernel is.
	Rules func() ([]fib.Rule, error)
	// Probe, if set, has the kernel ask whether the legs' gateways are there (fib.probe). It
	// is called in the loop, as Kernel is.
	Probe   func([]fib.Leg) error
	Log     *slog.Logger
	Metrics *metrics.Instruments

	// Load reads the configuration again, for a reload.
	Load func() (*config.Config, error)
	// SetLogLevel, if set, is told the log level of a new configuration.
	SetLogLevel func(slog.Level)
	// Reloading, if set, is called when a reload begins, and what it returns when it ended.
	Reloading func() (ended func())
}

// Agent is the loop and its state.
type Agent struct {
	opts    Options
	log     *slog.Logger
	kernel  fib.Kernel
	metrics *metrics.Instruments
	started time.Time

	// poke wakes the loop: one slot, and a poke that finds it full is not needed.
	poke chan struct{}
	// requests are run by the loop between two cycles. Unbuffered: whoever asks waits.
	requests chan func()
	ended    chan struct{} // closed when the loop has ended
	// beat is when the loop last went round, in Unix nanoseconds (the watchdog's health).
	beat  atomic.Int64
	ready atomic.Pointer[string] // why not ready; nil once it is
	// changes counts those of paths since the start.
	changes atomic.Uint64

	fibSeen atomic.Pointer[status.FIBStatus] // what FIB answers when the loop is busy

	// changing is held while an operator's change (a reload, a peer's action) is carried
	// out, which takes calls of the speaker: one at a time. Never taken by the loop.
	changing sync.Mutex

	// mu guards what follows, up to the empty line. It is held for some milliseconds at
	// most: the rib's walks over all prefixes let go of it in between.
	mu          sync.Mutex
	speaker     Speaker
	rib         *rib.Table
	peers       registry
	inbox       inbox
	watched     []netip.Addr // peers and next hops: a route around one of them concerns us; ascending
	hostStale   bool         // the host's other routes changed since they were read
	refused     refusals
	bfd         bfdWatch
	persistence persistence
	drained     bool     // peers are asked to prefer others (RFC 8326)
	waiting     []string // keys whose new values wait for a restart
	held        *heldReload
	kept        *keptRoutes
	dynamic     dynamics

	// Owned by the loop, which writes them with mu held; others read them with mu held.
	cfg       *config.Config // never changed in place
	suspended bool           // flushed by an operator: nothing is installed

	// Owned by the loop.
	policy     rib.Policy
	table      *fib.Table
	resolver   *fib.Resolver
	told       *fib.Resolver // the one that the operator's next-hop news compare with
	host       *fib.Host
	captured   uint64       // the rib's NextHopsGen that policy.Captures is built from
	imposed    []netip.Addr // next hops that import filters give
	rejected   rejections
	announce   announcements
	conflicts  map[netip.Prefix]bool // prefixes that the operator knows a foreign route has
	mistaken   []netip.Prefix        // taken for foreign, but ours: to be tried again after a resync
	hostAfter  time.Time             // the host is not read again before this
	syncCause  metrics.ResyncCause   // why a resync is due; "" when none is
	synced     time.Time             // end of the last resync
	syncTook   time.Duration         // how long it took
	hurries    int                   // how often in a row it was given up for something urgent
	syncDrift  int                   // differences that it found
	syncRoutes int                   // routes of ours that it found
	syncAfter  time.Time             // after a failed one: not again before this
	dirtyFrom  time.Time             // when the work in hand began to wait
	sweepAt    time.Time             // when the routes of an earlier run are swept at the latest
	reuseAt    time.Time             // when damped paths are looked at again
	probeAt    time.Time             // when the next hops are probed again
	probeErr   error                 // of the last time
	avoided    map[fib.Leg]time.Time // legs whose neighbour does not answer: avoided until then
	failovers  []status.Failover     // the last ones, oldest first
	sweepHeld  int                   // routes that are not swept because no session is up
	// Routes of ours that others change, since fightsSince: how often each was put back,
	// and those that wait for the window to end.
	fightsSince time.Time
	fights      map[netip.Prefix]int
	postponed   map[netip.Prefix]bool
	batch       []rib.Changed
	vias        []fib.Via
	hub         hub
}

var (
	_ session.Handler = (*Agent)(nil)
	_ metrics.Source  = (*Agent)(nil)
)

// cycleRoutes bounds the routes of one cycle, so that a failover waits for some
// milliseconds of writing at most.
const cycleRoutes = 2048

// New returns an agent that has touched nothing yet.
func New(o Options) *Agent {
	a := &Agent{
		cfg: o.Config, opts: o, log: o.Log, kernel: o.Kernel, metrics: o.Metrics,
		poke:      make(chan struct{}, 1),
		requests:  make(chan func()),
		ended:     make(chan struct{}),
		rib:       rib.NewTable(),
		conflicts: make(map[netip.Prefix]bool),
		avoided:   make(map[fib.Leg]time.Time),
		started:   time.Now(),
	}
	a.rib.Yield = func() {
		a.mu.Unlock()
		a.mu.Lock()
	}
	why := "starting"
	a.ready.Store(&why)
	a.policy = rib.Policy{LocalASN: o.Config.ASN, VNet: o.Config.VNet.Prefixes, AllowInside: o.Config.VNet.AllowInside}
	a.peers = newRegistry(o.Config.Peers)
	a.bfd = newBFDWatch(o.BFD)
	a.dynamic = dynamics{poke: make(chan struct{}, 1)}
	a.newGuards()
	a.newPolicy(&config.Config{}, o.Config)
	a.newDamping()
	a.hub.init()
	a.beat.Store(time.Now().UnixNano())
	return a
}

// Adopt reads the kernel and the host, before the first session can come up. Routes of
// an earlier run become ours again (S25); adopted tells whether there were any.
func (a *Agent) Adopt() (adopted bool, err error) {
	a.table = fib.NewTable(fib.Options{
		Owner:    a.opts.Owner,
		Classic:  !a.kernel.HasNextHopObjects(),
		MaxPaths: a.cfg.FIB.MaxPaths,
		Hold:     true,
		Compat:   a.opts.CompatMode,
	})
	if a.install() {
		snap, err := a.kernel.Dump(nil)
		if err != nil {
			return false, fmt.Errorf("read the routes of an earlier run: %w", err)
		}
		a.table.Load(snap)
		a.synced = time.Now()
		a.metrics.Resync(metrics.ResyncStart)
		if n := len(snap.Routes); n > 0 {
			adopted = true
			a.log.Info("adopted the routes of an earlier run", "routes", n, "groups", len(snap.Groups))
		}
	}
	if !adopted {
		a.table.Release(nil) // there is nothing to hold
	}
	a.sweepAt = time.Now().Add(a.cfg.FIB.SweepAfter)
	a.synced = time.Now()
	if err := a.readHost(); err != nil {
		return adopted, fmt.Errorf("read the host's links, addresses and routes: %w", err)
	}
	a.fibNow()
	return adopted, nil
}

// Connect hands over the speaker, tells it the VNet prefixes and lets the sessions come
// up. It is called once, after Adopt and before or while Run runs.
func (a *Agent) Connect(s Speaker) error {
	a.mu.Lock()
	a.speaker = s
	a.mu.Unlock()
	v := a.cfg.VNet
	if err := s.RefuseInside(v.Prefixes, v.AllowInside); err != nil {
		return fmt.Errorf("refuse what is inside the VNet: %w", err)
	}
	if err := s.SetVNet(v.Prefixes, v.NextHop4, v.NextHop6); err != nil {
		return fmt.Errorf("announce the VNet prefixes: %w", err)
	}
	var errs []error
	if err := s.SetRanges(a.cfg.DynamicPeers); err != nil {
		errs = append(errs, err)
	}
	for _, p := range a.cfg.Peers {
		if err := s.AddPeer(p); err != nil {
			errs = append(errs, fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err))
		}
	}
	return errors.Join(errs...)
}

// Run is the loop. It returns nil when ctx ends, after the routes were flushed if
// on-stop says so. The sessions must be kept up until then. It is called once, after
// Adopt.
func (a *Agent) Run(ctx context.Context) error {
	defer a.hub.close()
	defer close(a.ended)
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for ctx.Err() == nil {
		a.beat.Store(time.Now().UnixNano())
		wait := a.cycle(time.Now())
		if wait == 0 {
			// More to do at once, but whoever asks is served in between.
			select {
			case f := <-a.requests:
				f()
			default:
			}
			continue
		}
		retry.Reset(wait)
		select {
		case <-ctx.Done():
		case <-a.poke:
		case f := <-a.requests:
			f()
		case <-retry.C:
		}
	}
	if a.cfg.FIB.OnStop == config.OnStopFlush && a.install() {
		return a.flush()
	}
	return nil
}

// beatEvery is how long the idle loop sleeps at most.
const beatEvery = 5 * time.Second

// errEnded is what a request gets that comes too late.
var errEnded = errors.New("nexthopd is stopping")

// do runs f in the loop and waits for it. It must not be called from the loop, nor with
// mu held.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.requests <- func() { f(); close(done) }:
		<-done
		return nil
	case <-a.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask is do for a reading of the kernel, which is begun again where something more urgent
// came in between.
func (a *Agent) ask(ctx context.Context, read func() error) error {
	for {
		var failure error
		if err := a.do(ctx, func() { failure = read() }); err != nil || !errors.Is(failure, fib.ErrUrgent) {
			return orElse(err, failure)
		}
	}
}

func (a *Agent) wake() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// Healthy says what is wrong with the loop: it is the watchdog's question. A cycle is
// bounded and the idle loop wakes every beatEvery, so silence is a hang.
func (a *Agent) Healthy() error {
	if since := time.Since(time.Unix(0, a.beat.Load())); since > 4*beatEvery {
		return fmt.Errorf("the main loop has not gone round for %s", since.Round(time.Second))
	}
	return nil
}

// Summary is the state in one line, for `systemctl status`.
func (a *Agent) Summary() string {
	a.mu.Lock()
	up := 0
	for _, p := range a.peers.list {
		if p.state == session.Established {
			up++
		}
	}
	peers, prefixes, ranges := len(a.peers.list), a.rib.Len(), len(a.cfg.DynamicPeers)
	a.mu.Unlock()
	if peers+ranges == 0 {
		return "no peers are configured"
	}
	return fmt.Sprintf("%d of %d peers established, %d prefixes known", up, peers, prefixes)
}

// Ready tells whether the kernel has been brought in order once, and if not, why.
func (a *Agent) Ready() (bool, string) {
	if why := a.ready.Load(); why != nil {
		return false, *why
	}
	return true, ""
}

// event tells the operators that watch.
func (a *Agent) event(kind string, peer *peer, prefix netip.Prefix, msg string, fields map[string]string) {
	if !a.hub.watched() {
		return
	}
	e := status.Event{Time: time.Now(), Type: kind, Message: msg, Fields: fields}
	if peer != nil {
		e.Peer = peer.cfg.Name
	}
	if prefix.IsValid() {
		e.Prefix = prefix.String()
	}
	a.hub.publish(e)
}

func (a *Agent) journal(ev journal.Event, attrs ...slog.Attr) { journal.Log(a.log, ev, attrs...) }
