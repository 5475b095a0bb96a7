package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

// shownProblems keeps `status` on one screen; -o wide shows all.
const shownProblems = 8

func (c *cli) statusCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What is wrong, and the next command for each; exits 4 when degraded",
		Example: `  nexthopctl status
  nexthopctl status -q || echo "look at nexthopd"`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, raw, err := object[status.Status](cmd.Context(), c.client(cmd), status.PathStatus, nil)
			switch {
			case err != nil:
				var f *failure
				if quiet && errors.As(err, &f) {
					f.quiet = true
				}
				return err
			case quiet:
			case c.format == formatJSON:
				err = c.printJSON(raw)
			default:
				c.printStatus(&st)
			}
			if err == nil && (!st.Ready || len(st.Degraded) > 0) {
				err = errDegraded
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing, only exit: 0 fine, 3 not reachable, 4 degraded")
	return cmd
}

func (c *cli) printStatus(st *status.Status) {
	problems := st.Degraded
	word, sgr := "ok", green
	if len(problems) > 0 {
		word, sgr = "degraded: "+plural(len(problems), "problem"), red
	}
	if !st.Ready {
		sgr = yellow
		if len(problems) > 0 {
			sgr, word = red, "not ready, "+word
		} else {
			word = "not ready"
		}
		why := status.Problem{What: "not ready: " + st.NotReady, Next: nextDaemonLog}
		if st.NotReady == "" {
			why.What = "not ready"
		}
		problems = slices.Insert(slices.Clone(problems), 0, why)
	}
	fmt.Fprintf(c.out, "nexthopd %s: %s, up %s\n", clean(st.Version), c.paint(sgr, word), c.since(&st.StartedAt))

	shown := problems
	if c.format != formatWide && len(shown) > shownProblems {
		shown = shown[:shownProblems]
	}
	for _, p := range shown {
		fmt.Fprintf(c.out, "\n  %s %s\n", c.paint(sgr, "!"), clean(p.What))
		if p.Next != "" {
			fmt.Fprintf(c.out, "    next: %s\n", c.paint(bold, clean(p.Next)))
		}
	}
	if more := len(problems) - len(shown); more > 0 {
		fmt.Fprintf(c.out, "\n  and %d more\n    next: %s\n", more, c.paint(bold, "nexthopctl status -o wide"))
	}
	fmt.Fprintln(c.out)

	c.field("local", "ASN %d, router ID %s, pid %d", st.ASN, st.RouterID, st.PID)
	c.field("listen", "%s", strings.Join(st.Listen, ", "))
	c.field("config", "%s", st.Config)
	peers := fmt.Sprintf("%d of %d established", st.Peers.Established, st.Peers.Configured)
	if st.Peers.Shutdown > 0 {
		peers += fmt.Sprintf(", %d shut down", st.Peers.Shutdown)
	}
	c.field("peers", "%s", peers)
	f := st.FIB
	c.field("prefixes", "%d known, %d desired, %d installed", f.Prefixes, f.Desired, f.Installed)
	if len(f.Rejected) > 0 {
		c.field("rejected", "%s", counts(f.Rejected))
	}
	how := "classic multipath routes"
	if f.NextHopObjects {
		how = plural(f.Groups, "group") + ", " + plural(f.NextHops, "next hop")
	}
	if f.Mode == "observe" {
		f.Mode = "observe (nothing is written)"
	}
	c.field("fib", "%s, table %d metric %d protocol %d, %s", f.Mode, f.Table, f.Metric, f.Protocol, how)
	sync := "sweep " + f.Sweep
	if ago := c.since(f.LastSync); ago != "" {
		sync += ", last sync " + ago + " ago"
	}
	c.field("sync", "%s", sync)
	if f := st.LastFailover; f != nil {
		c.field("failover", "%s ago (%s): %s in %s moved in %s", c.since(&f.At), f.Signal, prefixes(f.Prefixes), plural(f.Groups, "group"), took(f.Microseconds))
	}
}

func prefixes(n int) string {
	if n == 1 {
		return "1 prefix"
	}
	return strconv.Itoa(n) + " prefixes"
}

// field prints one named line; what came from the daemon is made clean.
func (c *cli) field(name, format string, args ...any) {
	text := clean(fmt.Sprintf(format, args...))
	if text == "" {
		text = "-"
	}
	fmt.Fprintf(c.out, "%-10s %s\n", name, text)
}

// counts writes {"b": 2, "a": 7} as "a 7, b 2": the most frequent first.
func counts(m map[string]int) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(a, b)
	})
	for i, k := range keys {
		keys[i] = k + " " + strconv.Itoa(m[k])
	}
	return strings.Join(keys, ", ")
}

func (c *cli) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "peers",
		Short:             "The configured peers and their sessions",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.format == formatJSON {
				return c.printRows(cmd, status.PathPeers, nil)
			}
			return c.printPeers(cmd)
		},
	}
}

func (c *cli) printPeers(cmd *cobra.Command) error {
	headings := []string{"NAME", "ADDRESS", "ASN", "STATE", "AGE", "RECEIVED", "ACCEPTED", "ADVERTISED", "FLAPS"}
	wide := c.format == formatWide
	if wide {
		headings = append(headings, "LIMIT", "LOCAL-ADDRESS", "REMOTE-ID", "HOLD", "KEEPALIVE", "BFD", "MSG-IN", "MSG-OUT", "CAPABILITIES", "DESCRIPTION")
	}
	t := newTable(append(headings, "NOTE")...)
	err := rows(cmd.Context(), c.client(cmd), status.PathPeers, nil, func(p status.Peer) error {
		cells := []string{
			p.Name, p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10), p.State, c.since(p.Since),
			strconv.Itoa(p.Received), strconv.Itoa(p.Accepted), advertised(p), strconv.FormatUint(p.Flaps, 10),
		}
		if wide {
			cells = append(cells, limits(p.Families), addrString(p.LocalAddress), addrString(p.RemoteID), seconds(p.HoldTime), seconds(p.Keepalive), p.BFD,
				total(p.MessagesReceived), total(p.MessagesSent), strings.Join(p.PeerCapabilities, ","), p.Description)
		}
		t.add(rowKey{then: p.Name}, append(cells, c.peerNote(&p))...)
		return nil
	})
	if err != nil {
		return err
	}
	t.sort()
	return t.write(c.out, func(col int, cell string) string {
		switch {
		case t.headings[col] != "STATE":
			return cell
		case cell == "Established":
			return c.paint(green, cell)
		}
		return c.paint(yellow, cell)
	})
}

// peerNote says what an operator should know about a peer, most urgent first.
func (c *cli) peerNote(p *status.Peer) string {
	var notes []string
	if p.Warning != "" {
		notes = append(notes, p.Warning)
	}
	switch {
	case p.Disabled:
		notes = append(notes, "shut down by an operator")
	case p.Shutdown:
		notes = append(notes, "shut down by the configuration")
	}
	if p.Dynamic {
		notes = append(notes, "dynamic")
	}
	switch {
	case p.LongLivedUntil != nil:
		notes = append(notes, fmt.Sprintf("%d long-lived stale until %s", p.LongLivedStale, p.LongLivedUntil.Format(time.DateTime)))
	case p.Restarting:
		notes = append(notes, "graceful restart under way")
	}
	if p.LastDown != "" && (p.State != "Established" || c.format == formatWide) {
		down := "last down: " + p.LastDown
		if ago := c.since(p.LastDownAt); ago != "" {
			down += " (" + ago + " ago)"
		}
		notes = append(notes, down)
	}
	return strings.Join(notes, "; ")
}

// limits writes a peer's prefix limits: "4000", or by family where they differ.
func limits(families map[string]status.Prefixes) string {
	four, six := families["ipv4"].Limit, families["ipv6"].Limit
	switch {
	case four+six == 0:
		return "" // a daemon that knows none
	case four == six:
		return strconv.Itoa(four)
	}
	return fmt.Sprintf("%d/%d", four, six)
}

func addrString(a *netip.Addr) string {
	if a == nil || !a.IsValid() {
		return ""
	}
	return a.String()
}

func seconds(n int) string { return strconv.Itoa(n) + "s" }

func total(m map[string]uint64) string { return strconv.FormatUint(sum(m), 10) }

// advertised is the number of prefixes announced to a peer; "" where the daemon has not
// counted them.
func advertised(p status.Peer) string {
	if f, split := p.Families["ipv4"]; split && f.Advertised == nil {
		return ""
	}
	return strconv.Itoa(p.Advertised)
}
