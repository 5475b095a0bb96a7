package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/bfd"
)

// bfdPriority is the lowest of SCHED_RR: above all that has no real-time priority, below
// whatever an administrator gave one on purpose.
const bfdPriority = 1

const bfdWorkerName = "bfd-worker"

// newBFDWorker is what the daemon starts itself as, for the BFD sessions.
func newBFDWorker() *cobra.Command {
	return &cobra.Command{
		Use:    bfdWorkerName,
		Short:  "Run the BFD sessions of a daemon, which starts this itself",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return failed(bfd.RunWorker()) },
	}
}

// bfdWorker is that command. The program may have been replaced on the disk since it was
// started: the worker has to be of the same version.
func bfdWorker() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", bfdWorkerName)
	cmd.Args[0] = "nexthopd"
	cmd.Stderr = os.Stderr
	return cmd
}

// runBFD runs the process until stop is called, which waits for its end.
func runBFD(ctx context.Context, p *bfd.Process, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var task sync.WaitGroup
	task.Go(func() {
		if err := p.Run(ctx); err != nil {
			log.Error("bfd ended with an error", "err", err)
		}
	})
	return func() {
		cancel()
		task.Wait()
	}
}
