package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
)

// silent cuts nva1 off while its link stays up, as if the machine had died behind a
// switch, with BFD on the sessions. The other side of BFD is the same for all: nexthopd,
// which does nothing else there.
func (s *scenario) silent(ctx context.Context, row string, interval time.Duration) (err error) {
	var others [nvas]*lab.Daemon
	for i := range others {
		d, err := lab.StartDaemon(ctx, s.net.nva[i], fmt.Sprintf(
			"router-id: %s\nlisten: 127.0.0.1:1179\nfib: {mode: observe, bfd-next-hops: {addresses: [%s], interval: %s, multiplier: %d}}\n",
			nvaAddr(i), hostAddr(i), interval, bfdMultiplier))
		if err != nil {
			return err
		}
		others[i] = d
		defer func() { err = errors.Join(err, d.Stop()) }()
	}
	if err := s.d.bfd(ctx, interval); err != nil {
		return err
	}
	for _, d := range others {
		if err := bfdUp(ctx, d, interval); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		if err := s.settle(ctx); err != nil {
			return err
		}
		report, at, err := s.lose(ctx, s.net.nvaLink[0].Cut)
		if err != nil {
			return err
		}
		if report.Lost() > 0 {
			s.record(row, report.LastLost.Sub(at).Seconds())
			break
		}
		if try == 3 {
			return errors.New("no packet was lost: it does not show the failover")
		}
		// A false alarm, on a machine that let somebody wait for too long, came before.
		if err := s.net.nvaLink[0].Mend(); err != nil {
			return err
		}
		s.app[0].nudge()
	}
	if err := errors.Join(s.net.nvaLink[0].Mend(), s.d.bfd(ctx, 0)); err != nil {
		return err
	}
	s.app[0].nudge()
	return s.settle(ctx)
}

// bfdUp waits until the session is up with the intervals that are to be measured.
func bfdUp(ctx context.Context, d *lab.Daemon, interval time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return lab.Eventually(ctx, "BFD", func() error {
		var b status.BFD
		if err := d.Get(ctx, status.PathBFD, &b); err != nil {
			return err
		}
		for _, x := range b.Sessions {
			if x.State != "up" || x.Polling || x.RXInterval != interval.Seconds() {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
}
