// Command demo shows the seed case (S15) from end to end on one machine, in network
// namespaces: two appliances announce a network, the host gets one route with both as
// next hops, and follows them when one prepends, and when one dies. It asserts what it
// shows: its exit status is 0 only if everything was so.
//
// It needs root. NVA=frr takes FRR for the appliances instead of the built-in
// simulator; HOLD=1 keeps the lab up afterwards; NEXTHOPD_BIN names a directory with
// ready-made binaries.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := newScreen(os.Stdout)
	start := time.Now()
	err := run(ctx, out)
	switch {
	case err == nil: // also when Ctrl-C ended HOLD=1
		out.say("All of it was as it should be, in %s. Everything is cleaned up.", time.Since(start).Round(100*time.Millisecond))
	case ctx.Err() != nil && !errors.Is(err, errCleanup):
		out.say("Interrupted. Everything is cleaned up.")
		os.Exit(130)
	default:
		out.fail(err)
		os.Exit(1)
	}
}

// errCleanup is of a lab that could not be removed entirely.
var errCleanup = errors.New("clean up")

// run builds the lab, plays the demo and takes the lab down again.
func run(ctx context.Context, out *screen) (err error) {
	kind, err := applianceKind(os.Getenv("NVA"))
	if err != nil {
		return err
	}
	l, err := lab.New()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := l.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", errCleanup, cerr))
		}
	}()
	out.print("building " + strings.Join(lab.Programs, ", ") + " where " + lab.BinDirEnv + " does not hold them")
	for _, program := range lab.Programs {
		if _, err := l.Binary(program); err != nil {
			return err
		}
	}
	seed, err := lab.NewSeed(l, 2)
	if err != nil {
		return err
	}
	d := &demo{Seed: seed, out: out, kind: kind}
	defer func() {
		if err != nil && ctx.Err() == nil {
			d.logs()
		}
	}()
	if err := d.play(ctx); err != nil {
		return err
	}
	if os.Getenv("HOLD") == "1" {
		return d.hold(ctx)
	}
	return nil
}
