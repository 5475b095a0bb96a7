package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/internal/version"
)

const defaultConfig = "/etc/nexthopd/nexthopd.yaml"

// daemonFunc is runDaemon's signature: it returns when ctx has ended and all that it
// started has, or when a part has failed.
type daemonFunc func(ctx context.Context, cfg *config.Config, path string, out *journal.Output) error

const rootHelp = `nexthopd programs this host's routes from what network appliances announce by BGP.

Exit status:
   0  done; for run: told to stop, and stopped cleanly
   1  failed, the last line says why
   2  wrong usage
  78  the configuration has mistakes, all of them were printed`

func newRoot(stdout io.Writer, stderr *os.File, start daemonFunc) *cobra.Command {
	root := &cobra.Command{
		Use:           "nexthopd",
		Short:         "BGP route server that programs kernel routes",
		Long:          rootHelp,
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(newRun(stderr, start), newCheck(stdout, stderr), newFlush(stdout, stderr), newVersion(stdout), newMan(stdout), newBFDWorker())
	return root
}

func newRun(stderr *os.File, start daemonFunc) *cobra.Command {
	var path, pprofAddr string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground until SIGTERM or SIGINT. SIGHUP never ends it.

Exit status 78: the configuration has mistakes, all of them were printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path, stderr)
			if err != nil {
				return err
			}
			return runLogged(cmd.Context(), cfg, path, pprofAddr, stderr, start)
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "configuration `file`")
	cmd.Flags().StringVar(&pprofAddr, "pprof", "", "serve Go's profiles at /debug/pprof/ on this loopback `address` (127.0.0.1:6060)")
	return cmd
}

func newCheck(stdout io.Writer, stderr *os.File) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration file",
		Long: `Check a configuration file (default ` + defaultConfig + `) without using it.
Every mistake is printed as file:line:col: field: what is wrong, what is allowed.

Exit status 78: there are mistakes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) > 0 {
				path = args[0]
			}
			cfg, err := config.Load(path)
			if err != nil {
				return refused(err, stderr)
			}
			_, err = fmt.Fprintf(stdout, "%s: ok: %s\n", path, summary(cfg))
			return failed(err)
		},
	}
}

func newVersion(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(stdout, version.Get())
			return failed(err)
		},
	}
}

// failed gives an error that is not the command line's its exit code.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitFailed, err: err}
}

// loadConfig reads the configuration for a start; mistakes are printed, and are an event
// of their own where the journal takes one.
func loadConfig(path string, stderr *os.File) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err == nil {
		return cfg, nil
	}
	if journal.IsJournal(stderr) {
		if out, oerr := journal.Open(stderr, config.Log{}); oerr == nil {
			journal.Log(out.Logger, journal.ConfigRefused, slog.String("file", path), slog.Any("err", err))
		}
	}
	return nil, refused(err, stderr)
}

// refused prints what is wrong with a configuration, a line for each mistake.
func refused(err error, stderr io.Writer) error {
	_, _ = fmt.Fprintln(stderr, err) // nobody to tell when stderr is gone
	return &exitError{code: exitConfig, err: err, shown: true}
}

// summary is a valid configuration in a line.
func summary(cfg *config.Config) string {
	parts := []string{
		fmt.Sprintf("ASN %d", cfg.ASN),
		count(len(cfg.Peers), "peer", "peers"),
		count(len(cfg.VNet.Prefixes), "VNet prefix", "VNet prefixes"),
		fmt.Sprintf("table %d metric %d", cfg.FIB.Table, cfg.FIB.Metric),
		"mode " + string(cfg.FIB.Mode),
	}
	return strings.Join(parts, ", ")
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// runLogged runs the daemon with its log and, where asked for, its profiles around it.
func runLogged(ctx context.Context, cfg *config.Config, path, pprofAddr string, stderr *os.File, start daemonFunc) error {
	out, err := journal.Open(stderr, cfg.Log)
	if err != nil {
		return failed(err)
	}
	profiles, err := newPprof(ctx, pprofAddr)
	if err != nil {
		return err
	}
	// What runs around the daemon ends after it, so that its last records are written
	// and its end can be profiled.
	around, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { out.Run(around) })
	if profiles != nil {
		wg.Go(func() {
			if err := profiles.serve(around, out.Logger); err != nil {
				out.Logger.Warn("profiles are not served any more", "err", err)
			}
		})
	}
	err = start(ctx, cfg, path, out)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // we were told to stop
	}
	if err != nil {
		journal.Log(out.Logger, journal.Failed, slog.Any("err", err))
	}
	end()
	wg.Wait()
	if err != nil {
		// Logged, so not to be printed once more.
		return &exitError{code: exitFailed, err: err, shown: true}
	}
	return nil
}
