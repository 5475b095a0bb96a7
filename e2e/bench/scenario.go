package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// scenario measures one daemon once with n prefixes. Its phases follow each other, every
// one begins and ends with all routes going through both NVAs, and the daemon idle.
type scenario struct {
	c      contender
	n      int
	phases []string
	record func(row string, value float64)

	net     *network
	d       daemon
	o       *observer
	app     [nvas]*appliance
	table   []netip.Prefix
	updates [nvas][]byte // the table's UPDATEs
}

// limit of one wait.
func (s *scenario) limit() time.Duration {
	return 2*time.Minute + time.Duration(s.n)*100*time.Microsecond
}

// repairLimit is how long a repair is waited for: who does not repair would hold up all.
const repairLimit = 5 * time.Second

// settle is how long after the load the memory counts as steady.
const settle = 10 * time.Second

// repairN is the size that the repair of a flushed table is measured with.
const repairN = 10_000

const (
	// before is how long the traffic runs before what it is to show.
	before = 300 * time.Millisecond
	// after is how long it runs on when a restarted daemon is idle: what was kept must not
	// be swept then.
	after = time.Second
)

// run builds the network, runs the phases, and removes it again.
func (s *scenario) run(ctx context.Context) (err error) {
	l, err := lab.New()
	if err != nil {
		return err
	}
	stop := l.CloseOnSignal()
	defer stop()
	defer func() { err = errors.Join(err, l.Close()) }()
	if s.net, err = newNetwork(l); err != nil {
		return err
	}
	if err := s.net.host.Sysctl(s.c.sysctl...); err != nil {
		return err
	}
	if s.o, err = newObserver(s.net.host); err != nil {
		return err
	}
	defer s.o.close()
	s.table = prefixes(s.n)
	s.d = s.c.make(s.net)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range s.app {
		s.app[i] = newAppliance(s.net, i)
		s.updates[i] = announcement(i, s.table, 0)
		go s.app[i].run(ctx)
	}
	for _, p := range phaseNames {
		if p != "load" && (!slices.Contains(s.phases, p) || s.c.phases != nil && !slices.Contains(s.c.phases, p)) {
			continue
		}
		if err := s.phase(ctx, p); err != nil {
			return fmt.Errorf("%s, %d prefixes, %s: %w", s.c.name, s.n, p, err)
		}
	}
	return nil
}

// phaseNames are the phases in their order.
var phaseNames = []string{"load", "reset", "link", "silent", "backup", "kill", "term", "withdraw", "repair"}

func (s *scenario) phase(ctx context.Context, name string) error {
	switch name {
	case "load":
		return s.load(ctx)
	case "reset":
		return s.reset(ctx)
	case "link":
		return s.link(ctx)
	case "silent":
		return errors.Join(s.silent(ctx, "silent", 300*time.Millisecond), s.silent(ctx, "silent50", 50*time.Millisecond))
	case "backup":
		return s.backup(ctx)
	case "kill":
		return s.restart(ctx, name, s.d.kill)
	case "term":
		return s.restart(ctx, name, s.d.stop)
	case "withdraw":
		return s.withdraw(ctx)
	case "repair":
		return s.repair(ctx)
	}
	panic("bug: no phase " + name)
}

// await is the observer's, with the time limit.
func (s *scenario) await(ctx context.Context, h hops) (instant, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit())
	defer cancel()
	return s.o.await(ctx, s.n, h)
}

// idle waits until the daemon has nothing more to do.
func (s *scenario) idle(ctx context.Context) error { return waitIdle(ctx, s.d, s.limit()) }

// settle waits until everything is as after the load.
func (s *scenario) settle(ctx context.Context) error {
	_, err := s.await(ctx, allNVAs)
	if err != nil {
		return fmt.Errorf("go back to both NVAs: %w", err)
	}
	return s.idle(ctx)
}

func (s *scenario) load(ctx context.Context) error {
	if err := s.d.start(ctx); err != nil {
		return err
	}
	for _, a := range s.app {
		if err := a.waitUp(ctx); err != nil {
			return err
		}
	}
	if err := s.idle(ctx); err != nil {
		return err
	}
	if err := s.change(ctx, "load", allNVAs, func() error {
		return both(s.app, func(i int, a *appliance) error { return a.announce(s.updates[i], true) })
	}); err != nil {
		return err
	}
	// A runtime that gives memory back does so with delay.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	u, err := usageOf(s.d.pids())
	if err != nil {
		return err
	}
	s.record("rss-steady", float64(u.rss))
	return nil
}

// failover resets nva1's session while nva1 goes on forwarding: the last packet that
// passes it shows when the traffic had moved, and none need be lost.
func (s *scenario) failover(ctx context.Context, row string) error {
	cpu, err := usageOf(s.d.pids())
	if err != nil {
		return err
	}
	then, err := s.o.s.routes()
	if err != nil {
		return err
	}
	t, err := s.net.startTraffic(s.table)
	if err != nil {
		return err
	}
	time.Sleep(before)
	profiled := profile(s.net.host, s.c.name, s.n, row)
	routes, _ := s.o.c.read(ofRoutes)
	wall, start := time.Now(), now()
	if err := s.app[0].reset(); err != nil {
		t.Stop()
		return err
	}
	within, cancel := context.WithTimeout(ctx, s.limit())
	defer cancel()
	end, err := s.o.awaitMove(within, s.n, 1<<1, 1<<0, then.used)
	err = errors.Join(err, s.idle(ctx))
	report := t.Stop()
	if err != nil {
		return err
	}
	via := report.Via()
	if via["nva1"] == 0 || via["nva2"] == 0 {
		return fmt.Errorf("traffic passed %v: it does not show the failover", via)
	}
	u, err := usageOf(s.d.pids())
	if err != nil {
		return err
	}
	s.record(row, max(0, report.LastVia["nva1"].Sub(wall)).Seconds())
	s.record(row+"-fib", end.since(start).Seconds())
	s.record(row+"-lost", float64(report.Lost()))
	s.record(row+"-cpu", (u.cpu - cpu.cpu).Seconds())
	count, _ := s.o.c.read(ofRoutes)
	s.record(row+"-writes", float64(count-routes)/float64(s.n))
	profiled()
	return nil
}

func (s *scenario) reset(ctx context.Context) error {
	if err := s.failover(ctx, "reset"); err != nil {
		return err
	}
	s.app[0].release()
	return s.settle(ctx)
}

// lose cuts nva1 off while traffic runs, at a time that it returns, and reports on the
// traffic once everything leads to nva2 and the daemon rests.
func (s *scenario) lose(ctx context.Context, cut func() error) (r lab.Report, at time.Time, err error) {
	t, err := s.net.startTraffic(s.table)
	if err != nil {
		return r, at, err
	}
	time.Sleep(before)
	at = time.Now()
	if err = cut(); err == nil {
		_, err = s.await(ctx, 1<<1)
		err = errors.Join(err, s.idle(ctx))
	}
	return t.Stop(), at, err
}

// link takes the carrier from the host's interface towards nva1.
func (s *scenario) link(ctx context.Context) error {
	report, _, err := s.lose(ctx, s.net.hostLink[0].Unplug)
	if err != nil {
		return err
	}
	// From the first lost packet: when the carrier really went is known to nobody else.
	s.record("link", report.LastLost.Sub(report.FirstLost).Seconds())
	s.record("link-lost", float64(report.Lost()))
	time.Sleep(time.Second) // see frr.config
	if err := s.net.hostLink[0].Plug(); err != nil {
		return err
	}
	s.app[0].nudge()
	return s.settle(ctx)
}

// backup lets nva2 prepend its ASN, so that nva1 alone is used, and then fails nva1 over.
func (s *scenario) backup(ctx context.Context) error {
	prepended := announcement(1, s.table, 2)
	if err := s.change(ctx, "prepend", 1<<0, func() error { return s.app[1].announce(prepended, false) }); err != nil {
		return err
	}
	if err := s.failover(ctx, "backup"); err != nil {
		return err
	}
	s.app[0].release()
	if err := s.app[1].announce(s.updates[1], false); err != nil {
		return err
	}
	return s.settle(ctx)
}

// restart ends the daemon and starts it again at once, under traffic.
func (s *scenario) restart(ctx context.Context, row string, end func() error) error {
	if row == "kill" { // the first restart: what the daemon took until then
		u, err := usageOf(s.d.pids())
		if err != nil {
			return err
		}
		s.record("cpu", u.cpu.Seconds())
		s.record("rss-peak", float64(u.peak))
	}
	t, err := s.net.startTraffic(s.table)
	if err != nil {
		return err
	}
	time.Sleep(before)
	err = end()
	for _, a := range s.app {
		a.nudge()
	}
	if err == nil {
		err = s.d.start(ctx)
	}
	for _, a := range s.app {
		if err == nil {
			err = a.waitUp(ctx)
		}
	}
	if err == nil {
		err = s.settle(ctx)
	}
	time.Sleep(after)
	report := t.Stop()
	if err != nil {
		return err
	}
	s.record(row+"-lost", float64(report.Lost()))
	s.record(row+"-gap", report.Interruption().Seconds())
	return nil
}

func (s *scenario) withdraw(ctx context.Context) error {
	return s.change(ctx, "withdraw", 0, func() error {
		return both(s.app, func(_ int, a *appliance) error { return a.withdraw(s.table) })
	})
}

// change measures from what is sent until all routes lead to h, and the CPU time until the
// daemon is idle.
func (s *scenario) change(ctx context.Context, row string, h hops, send func() error) error {
	before, err := usageOf(s.d.pids())
	if err != nil {
		return err
	}
	profiled := profile(s.net.host, s.c.name, s.n, row)
	routes, _ := s.o.c.read(ofRoutes)
	sent := make(chan error, 1) // one result
	start := now()
	go func() { sent <- send() }()
	end, err := s.await(ctx, h)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	s.record(row, end.since(start).Seconds())
	if err := s.idle(ctx); err != nil {
		return err
	}
	after, err := usageOf(s.d.pids())
	if err != nil {
		return err
	}
	s.record(row+"-cpu", (after.cpu - before.cpu).Seconds())
	count, _ := s.o.c.read(ofRoutes)
	s.record(row+"-writes", float64(count-routes)/float64(s.n))
	profiled()
	return nil
}

// repair deletes every route behind the daemon's back.
func (s *scenario) repair(ctx context.Context) error {
	if s.n != repairN {
		return nil
	}
	if err := s.idle(ctx); err != nil {
		return err
	}
	if err := both(s.app, func(i int, a *appliance) error { return a.announce(s.updates[i], true) }); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.o.s.write(deletions(s.table)); err != nil {
		return err
	}
	start := now()
	ctx, cancel := context.WithTimeout(ctx, repairLimit)
	defer cancel()
	end, err := s.o.await(ctx, s.n, allNVAs)
	if errors.Is(err, context.DeadlineExceeded) {
		s.record("repair", repairLimit.Seconds())
		return nil
	}
	if err != nil {
		return err
	}
	s.record("repair", end.since(start).Seconds())
	return nil
}
