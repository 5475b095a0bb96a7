package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/kernel"
	"github.com/nexthopd/nexthopd/internal/diag"
)

// flushTimeout bounds a flush: a million routes take some seconds.
const flushTimeout = time.Minute

func newFlush(stdout io.Writer, stderr *os.File) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "Remove what a stopped daemon left in the kernel",
		Long: `Remove the routes, next-hop groups and next hops of nexthopd from the kernel: those with
the table, metric and protocol of the configuration, and nothing else. For when the daemon
is stopped for good; while it runs, flush refuses.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path, stderr)
			if err != nil {
				return err
			}
			n, err := flush(cmd.Context(), cfg)
			if err != nil {
				return failed(fmt.Errorf("flush: %w", err))
			}
			_, err = fmt.Fprintf(stdout, "removed %s of table %d\n", count(n, "route", "routes"), cfg.FIB.Table)
			return failed(err)
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "configuration `file`")
	return cmd
}

// flush removes all that is ours and returns how many routes that were. It holds the
// control socket meanwhile: a running daemon would put everything back, and one that
// starts would adopt what is about to go.
func flush(ctx context.Context, cfg *config.Config) (routes int, err error) {
	dir := filepath.Dir(cfg.API.Socket)
	_, statErr := os.Stat(dir)
	lock, err := diag.ListenUnix(ctx, cfg.API.Socket, socketMode)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, lock.Close())
		if errors.Is(statErr, os.ErrNotExist) { // so ListenUnix made it
			err = errors.Join(err, os.Remove(dir))
		}
	}()
	owner := ownerOf(cfg)
	k, err := kernel.Open(kernel.Options{Owner: owner, Classic: !cfg.FIB.NextHopObjects})
	if err != nil {
		return 0, err
	}
	defer k.Close()
	return removeAll(ctx, k, owner)
}

func removeAll(ctx context.Context, k fib.Kernel, owner fib.Owner) (routes int, err error) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	present, err := k.Dump(nil)
	if err != nil {
		return 0, err
	}
	t := fib.NewTable(fib.Options{Owner: owner, Classic: !k.HasNextHopObjects(), MaxPaths: 1})
	t.Load(present)
	t.Clear()
	for t.Pending() && ctx.Err() == nil {
		refused, err := k.Apply(t.Plan(time.Now(), flushBatch))
		if err != nil {
			return 0, err
		}
		t.Done(time.Now(), refused)
	}
	// Read back: what was refused is still there.
	left, err := k.Dump(nil)
	if err != nil {
		return 0, err
	}
	if n := len(left.Routes) + len(left.Groups) + len(left.NextHops); n > 0 {
		return 0, fmt.Errorf("%d routes, %d groups and %d next hops could not be removed",
			len(left.Routes), len(left.Groups), len(left.NextHops))
	}
	return len(present.Routes), nil
}

// flushBatch is how many routes one batch removes.
const flushBatch = 10_000

// ownerOf is what makes a kernel object ours under a configuration.
func ownerOf(cfg *config.Config) fib.Owner {
	return fib.Owner{
		Table: cfg.FIB.Table, Metric: cfg.FIB.Metric, Protocol: cfg.FIB.Protocol,
		FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID,
	}
}
