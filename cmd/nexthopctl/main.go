// Command nexthopctl shows what nexthopd does and why, and tells it what an operator
// wants. It speaks over the daemon's unix socket (package status is the contract) and
// keeps no state.
//
// Text that came from the network, such as a shutdown communication of RFC 9003, never
// reaches the terminal raw: see clean and cleanJSON.
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
	"time"

	"github.com/nexthopd/nexthopd/cmd/nexthopctl/doctor"
)

// Exit codes, as documented in the manual page.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitDegraded    = 4
)

func main() {
	// `nexthopctl learned | head` has shown all that was asked for: with SIGPIPE ignored
	// the write fails with EPIPE instead, which run takes for a quiet success.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{
		out:      newOutput(stdout),
		errOut:   stderr,
		now:      time.Now,
		location: time.Local,
		terminal: isTerminal(stdout),
		host:     doctor.Here(),
	}
	return c.run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	// A nil slice would make cobra read os.Args.
	root.SetArgs(append([]string{}, args...))
	err := root.ExecuteContext(ctx)
	degraded := errors.Is(err, errDegraded)
	if degraded {
		err = nil
	}
	if ferr := c.out.Flush(); err == nil {
		err = ferr
	}
	switch {
	case err != nil && !c.out.readerGone():
		f := &failure{code: exitFailed, what: err.Error()}
		errors.As(err, &f)
		if !f.quiet {
			for _, line := range f.lines {
				fmt.Fprintln(c.errOut, clean(line))
			}
			fmt.Fprintln(c.errOut, "nexthopctl: "+clean(f.Error()))
		}
		return f.code
	case degraded:
		return exitDegraded
	}
	return exitOK
}

// errDegraded makes `status` and `doctor` exit with 4; what is wrong has been printed already.
var errDegraded = errors.New("degraded")

// failure is an error that knows its exit code and what the operator does next.
type failure struct {
	code  int
	what  string
	next  string   // a command; empty when there is none
	quiet bool     // exit code only (status -q)
	lines []string // printed before: several mistakes, where what only sums them up
	cause error
}

func (f *failure) Error() string {
	switch {
	case f.next == "":
		return f.what
	case strings.HasSuffix(f.what, "?"):
		return f.what + " try: " + f.next
	}
	return f.what + "; try: " + f.next
}

func (f *failure) Unwrap() error { return f.cause }

// usage makes a failure out of a mistake on the command line.
func usage(command, format string, args ...any) error {
	return &failure{code: exitUsage, what: fmt.Sprintf(format, args...), next: command + " --help"}
}
