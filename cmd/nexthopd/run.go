package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nexthopd/nexthopd/agent"
	"github.com/nexthopd/nexthopd/agent/bgp"
	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/bfd"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/kernel"
	"github.com/nexthopd/nexthopd/internal/diag"
	"github.com/nexthopd/nexthopd/internal/version"
	"github.com/nexthopd/nexthopd/metrics"
)

// socketMode lets root and the daemon's group use the control socket.
const socketMode = 0o660

// runDaemon is the composition root: it makes the parts, connects them, and returns when
// ctx has ended and all that it started has, or when a part has failed.
//
// The order matters. Everything that can be in the way (a second daemon, a missing
// capability, a port that is taken) is found before anything is changed; the routes of
// an earlier run are adopted before the first session can come up; and at the end the
// loop stops before the sessions do, so that their loss withdraws nothing.
func runDaemon(ctx context.Context, cfg *config.Config, path string, out *journal.Output) error {
	log := out.Logger
	systemd := newNotifier(log)
	// One slot is enough: a reload reads the file as it is then, so a second request
	// while one waits asks for nothing more.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	api, err := diag.ListenUnix(ctx, cfg.API.Socket, socketMode)
	if err != nil {
		return err
	}
	defer api.Close()
	var scrape net.Listener
	if cfg.Metrics.Listen != "" {
		if scrape, err = diag.ListenTCP(ctx, "metrics.listen", cfg.Metrics.Listen); err != nil {
			return err
		}
		defer scrape.Close()
	}
	owner := ownerOf(cfg)
	k, err := kernel.Open(kernel.Options{Owner: owner, Classic: !cfg.FIB.NextHopObjects})
	if err != nil {
		return err
	}
	defer k.Close()
	load := reloader(path, cfg, k)
	if cfg.RouterID, err = routerID(cfg, k); err != nil {
		return err
	}

	compat, err := k.CompatMode()
	if err != nil {
		return err
	}
	if compat && k.HasNextHopObjects() {
		log.Warn("net.ipv4.nexthop_compat_mode is 1: some failovers take the kernel a second per million routes, instead of a millisecond; "+
			"mend it with: sysctl -w net.ipv4.nexthop_compat_mode=0", "sysctl", "net.ipv4.nexthop_compat_mode")
	}

	instruments := metrics.NewInstruments()
	var a *agent.Agent
	liveness := bfd.NewProcess(bfd.Options{Priority: bfdPriority, OnChange: func(e bfd.Event) { a.BFDEvent(e) }}, log, bfdWorker)
	a = agent.New(agent.Options{
		BFD:    liveness,
		Config: cfg, ConfigFile: path, Version: version.Get().Version,
		Owner: owner, CompatMode: compat, Kernel: k, Rules: k.Rules, Probe: k.Probe, Log: log, Metrics: instruments,
		Load: load, SetLogLevel: out.SetLevel,
		Reloading: func() func() {
			systemd.reloading()
			return func() { systemd.ready(a.Summary()) }
		},
	})

	registry, err := metrics.NewRegistry(a, instruments, version.Get())
	if err != nil {
		return err
	}
	h := metrics.Handler(metrics.Options{Registry: registry, Source: a, Healthy: a.Healthy, Page: a, Log: log})

	// The monitor listens before the first dump, so that no change falls in between.
	ended, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, running := errgroup.WithContext(ended)
	subscribed := make(chan struct{})
	group.Go(func() error {
		return k.Watch(running, func(e fib.Event) {
			if e.Kind == fib.Subscribed {
				close(subscribed)
				return
			}
			a.KernelEvent(e)
		})
	})
	select {
	case <-subscribed:
	case <-running.Done():
		return group.Wait()
	}
	adopted, err := a.Adopt()
	if err != nil {
		return err
	}

	// BFD ends after the BGP sessions. What it tells the peers is that it ends on purpose,
	// but not every peer makes that difference while its session with us is up.
	stopBFD := runBFD(ctx, liveness, log)
	defer stopBFD()
	speaker := bgp.New(bgp.Options{
		ASN: cfg.ASN, RouterID: cfg.RouterID, Listen: cfg.Listen, Logger: log, Handler: a,
		BranchToBranch: cfg.BranchToBranch, Restarting: adopted, OnPeerDown: a.PeerDown,
		OnStranger: a.Stranger, OnRefused: instruments.ConnectionRefused,
	})
	if err := speaker.Start(context.WithoutCancel(ctx)); err != nil {
		var le *bgp.ListenError
		if errors.As(err, &le) {
			return diag.ListenError("BGP listener", le.Address.String(), le.Err)
		}
		return err
	}
	// The sessions outlive the loop: see above.
	defer func() { speaker.Stop(context.WithoutCancel(ctx), a.OnStop() == config.OnStopKeep) }()
	if err := a.Connect(speaker); err != nil {
		return err
	}

	if scrape != nil {
		group.Go(func() error { return metrics.Serve(running, scrape, h, cfg.Metrics.WebConfig, log) })
	}
	stopping := firstDone(running, ctx)
	group.Go(func() error { return a.ServeAPI(running, api) })
	group.Go(func() error { return a.RunBFD(running) })
	group.Go(func() error { a.RunDynamic(running); return nil })
	group.Go(func() error { systemd.watchdog(running, a.Healthy); return nil })
	group.Go(func() error { keepPace(running, a.PathChanges, log); return nil })
	group.Go(func() error {
		for {
			select {
			case <-running.Done():
				return nil
			case <-hangup:
				_, _ = a.Reload(running, false) // the journal has it, and nobody waits for an answer
			}
		}
	})
	group.Go(func() error {
		err := a.Run(stopping)
		end() // the loop is what everything else serves
		return err
	})

	journal.Log(log, journal.Started, slog.Uint64("asn", uint64(cfg.ASN)), slog.String("router_id", cfg.RouterID.String()),
		slog.Int("peers", len(cfg.Peers)), slog.String("mode", string(cfg.FIB.Mode)), slog.Bool("nexthop_objects", k.HasNextHopObjects()))
	if cfg.FIB.Mode == config.ModeInstall && cfg.FIB.NextHopObjects && !k.HasNextHopObjects() {
		log.Warn("this kernel has no next-hop objects (they came with Linux 5.3): routes carry their next hops, and a failover rewrites each of them")
	}
	systemd.ready(a.Summary())
	group.Go(func() error {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for last := a.Summary(); ; {
			select {
			case <-running.Done():
				return nil
			case <-tick.C:
				if now := a.Summary(); now != last {
					systemd.status(now)
					last = now
				}
			}
		}
	})
	group.Go(func() error {
		<-stopping.Done()
		journal.Log(log, journal.Stopping, slog.String("routes", string(a.OnStop())))
		systemd.stopping()
		return nil
	})
	return group.Wait()
}

// firstDone ends with either of two contexts.
func firstDone(a, b context.Context) context.Context {
	ctx, cancel := context.WithCancel(a)
	context.AfterFunc(b, cancel)
	return ctx
}
