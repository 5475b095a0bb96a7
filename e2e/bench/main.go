// Command bench measures nexthopd, BIRD 2 and FRR side by side: the same tables, the same
// feeders, real traffic, one run. "make bench" runs it; docs/benchmarks.md says what the
// figures mean. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writerColumn is where the figures of the writer alone are.
const writerColumn = "writer"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	sizes   []int
	columns []string
	phases  []string
	runs    int
	out     string
	pages   string
	from    string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	sizes := flags.String("n", "1000,10000,100000", "prefixes, a `list`")
	var names []string
	for _, c := range contenders {
		names = append(names, c.name)
	}
	columns := flags.String("columns", strings.Join(append(names, writerColumn), ","), "what to measure, a `list`")
	phases := flags.String("phases", strings.Join(phaseNames, ","), "what to do with each daemon, a `list`; the load always comes first")
	flags.IntVar(&o.runs, "runs", 3, "how `many` times; medians are printed")
	flags.StringVar(&o.out, "out", "bench-results.json", "`file` for every value")
	flags.StringVar(&o.pages, "docs", "", "pages to put the report into, a `list`")
	flags.StringVar(&o.from, "from", "", "measure nothing, report what this `file` holds")
	_ = flags.Parse(args) // ExitOnError
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < flows || n > million {
			return o, fmt.Errorf("-n %s: want numbers from %d to %d", *sizes, flows, million)
		}
		o.sizes = append(o.sizes, n)
	}
	slices.Sort(o.sizes)
	o.columns = strings.Split(*columns, ",")
	for _, c := range o.columns {
		if c != writerColumn && !slices.Contains(names, c) {
			return o, fmt.Errorf("-columns %s: there are %s and %s", c, strings.Join(names, ", "), writerColumn)
		}
	}
	o.phases = strings.Split(*phases, ",")
	for _, p := range o.phases {
		if !slices.Contains(phaseNames, p) {
			return o, fmt.Errorf("-phases %s: there are %s", p, strings.Join(phaseNames, ", "))
		}
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	var r *results
	if o.from != "" {
		if r, err = readResults(o.from); err != nil {
			return err
		}
	} else if r, err = measure(ctx, o); err != nil {
		return err
	}
	text := r.markdown()
	fmt.Println(text)
	if o.pages != "" {
		for _, page := range strings.Split(o.pages, ",") {
			if err := update(page, text); err != nil {
				return err
			}
		}
	}
	if len(r.Failed) > 0 {
		return fmt.Errorf("%d scenarios broke off", len(r.Failed))
	}
	return nil
}

// measure runs every scenario. The contenders take turns within a run, so that a slow
// spell of the machine hits all of them.
func measure(ctx context.Context, o options) (*results, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	r := &results{At: time.Now(), CPUs: runtime.NumCPU(), CPU: cpuModel(), Kernel: kernelRelease(),
		Versions: versions(o.columns), Sizes: o.sizes, Runs: o.runs}
	start, own := time.Now(), ownCPU()
	for run := range o.runs {
		for _, n := range o.sizes {
			for _, column := range o.columns {
				if partial(column) && n != slices.Max(o.sizes) {
					continue
				}
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				begun := time.Now()
				record := func(row string, v float64) {
					r.Values = append(r.Values, value{column, n, run, row, v})
				}
				if err := one(ctx, o, column, n, run, record); err != nil {
					r.Failed = append(r.Failed, err.Error())
					fmt.Fprintln(os.Stderr, "bench:", err)
				}
				fmt.Fprintf(os.Stderr, "bench: run %d of %d, %s prefixes, %s: %s\n",
					run+1, o.runs, thousands(n), column, time.Since(begun).Round(time.Millisecond))
			}
		}
	}
	r.Own = (ownCPU() - own).Seconds() / time.Since(start).Seconds()
	return r, r.write(o.out)
}

func partial(column string) bool {
	return slices.ContainsFunc(contenders, func(c contender) bool { return c.name == column && c.phases != nil })
}

func one(ctx context.Context, o options, column string, n, run int, record func(string, float64)) error {
	if column == writerColumn {
		return measureWriter(n, run, record)
	}
	i := slices.IndexFunc(contenders, func(c contender) bool { return c.name == column })
	s := &scenario{c: contenders[i], n: n, phases: o.phases, record: record}
	return s.run(ctx)
}

// ownCPU is the CPU time this process has used.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // empty: unknown
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t: "))
		}
	}
	return "unknown CPU"
}
