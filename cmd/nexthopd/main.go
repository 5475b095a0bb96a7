// Command nexthopd is the daemon: it reads the configuration, sets logging up, and runs
// until it is told to stop. runDaemon puts the parts together; nothing is decided here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes, as --help documents them. exitConfig is sysexits' EX_CONFIG: the unit
// names it in RestartPreventExitStatus=, for a restart mends no file.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78
)

func main() { os.Exit(process(runDaemon)) }

// process is main with the daemon given: it connects the signals.
func process(start daemonFunc) int {
	// SIGHUP means reload, and may come before anybody listens for it: the default
	// action would end the process.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A second signal ends the process at once, for whoever is tired of waiting.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr, start)
}

// exitError is an error with its exit code. shown: it has been printed already.
type exitError struct {
	code  int
	err   error
	shown bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File, start daemonFunc) int {
	root := newRoot(stdout, stderr, start)
	root.SetArgs(append([]string{}, args...)) // nil would make cobra read os.Args
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var e *exitError
	if !errors.As(err, &e) {
		// What cobra itself complains of is the command line.
		e = &exitError{code: exitUsage, err: fmt.Errorf("%s\nsee `nexthopd --help`", strings.TrimSpace(err.Error()))}
	}
	if !e.shown {
		_, _ = fmt.Fprintln(stderr, "nexthopd:", e.err) // nobody to tell when stderr is gone
	}
	return e.code
}
