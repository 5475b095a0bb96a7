package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) bfdCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bfd",
		Short: "The BFD sessions: their state, and the intervals that were agreed",
		Long: `The BFD sessions with peers and, by fib.bfd-next-hops, with other next hops.

TX and RX are the intervals agreed for each direction, DETECT is the silence after which
the other side counts as dead. With -o wide: JITTER and GAP are the unevenness of the
other side's packets and the longest time between two, LATE is by how much our own were
late at worst, all since the session came up.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, raw, err := object[status.BFD](cmd.Context(), c.client(cmd), status.PathBFD, nil)
			switch {
			case err != nil:
				return err
			case c.format == formatJSON:
				return c.printJSON(raw)
			}
			return c.printBFD(&b)
		},
	}
}

func (c *cli) printBFD(b *status.BFD) error {
	headings := []string{"PEER", "ADDRESS", "MODE", "STATE", "REMOTE", "AGE", "TX", "RX", "DETECT", "SENT", "RECEIVED", "DROPPED"}
	wide := c.format == formatWide
	if wide {
		headings = append(headings, "CONFIGURED", "AUTH", "DISCRIMINATORS", "CHANGES", "JITTER", "GAP", "LATE", "SEND-ERRORS")
	}
	t := newTable(append(headings, "NOTE")...)
	for i := range b.Sessions {
		s := &b.Sessions[i]
		detect := "-"
		if s.DetectionTime > 0 {
			detect = millis(s.DetectionTime)
		}
		cells := []string{
			s.Peer, s.Address.String(), s.Mode, s.State, s.RemoteState, c.since(s.Since), millis(s.TXInterval), millis(s.RXInterval), detect,
			strconv.FormatUint(s.Sent, 10), strconv.FormatUint(s.Received, 10), total(s.Dropped),
		}
		if wide {
			cells = append(cells, fmt.Sprintf("%s x %d", millis(s.Interval), s.Multiplier), s.Auth,
				fmt.Sprintf("%d/%d", s.LocalDiscriminator, s.RemoteDiscriminator), strconv.FormatUint(s.Changes, 10),
				millis(s.Jitter), millis(s.MaxGap), millis(s.MaxLate), strconv.FormatUint(s.SendErrors, 10))
		}
		t.add(rowKey{}, append(cells, c.bfdNote(s))...)
	}
	if err := t.write(c.out, func(col int, cell string) string {
		switch {
		case t.headings[col] != "STATE":
			return cell
		case cell == "up":
			return c.paint(green, cell)
		}
		return c.paint(yellow, cell)
	}); err != nil {
		return err
	}
	c.printBFDEngine(b)
	return nil
}

// printBFDEngine says what is wrong with the process behind the sessions; with -o wide
// how it does.
func (c *cli) printBFDEngine(b *status.BFD) {
	switch e := &b.Engine; {
	case len(b.Sessions) == 0:
	case !e.Running:
		fmt.Fprintf(c.out, "\nthe process that runs the sessions does not answer: %s\n", clean(e.Error))
	case c.format == formatWide:
		fmt.Fprintln(c.out)
		c.field("threads", "%s, timers %s late at worst", e.Scheduling, millis(e.MaxLate))
		c.field("strays", "%d packets that no session took%s, %d refused by the kernel", sum(e.Dropped), causes(e.Dropped), e.KernelDrops)
	}
}

// bfdNote says what an operator should know about a session, most urgent first.
func (c *cli) bfdNote(s *status.BFDSession) string {
	var notes []string
	if s.Error != "" {
		notes = append(notes, s.Error)
	}
	if s.Failed {
		notes = append(notes, "path dead, no traffic is sent there")
	}
	if s.Polling {
		notes = append(notes, "new intervals are being agreed")
	}
	if s.LastDown != "" && (s.State != "up" || c.format == formatWide) {
		notes = append(notes, "last down: "+s.LastDown)
	}
	if sum(s.Dropped) > 0 && c.format == formatWide {
		text := "dropped" + causes(s.Dropped)
		if ago := c.since(s.LastDropAt); ago != "" {
			text += ", last " + ago + " ago: " + s.LastDrop
		}
		notes = append(notes, text)
	}
	return strings.Join(notes, "; ")
}

// millis writes seconds as BFD's configuration has them: 300ms, 0.4ms.
func millis(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond)
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64) + "ms"
}

// causes writes " (auth 3, ttl 9)", or nothing.
func causes(m map[string]uint64) string {
	if len(m) == 0 {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+" "+strconv.FormatUint(m[k], 10))
	}
	return " (" + strings.Join(out, ", ") + ")"
}

func sum(m map[string]uint64) (n uint64) {
	for _, x := range m {
		n += x
	}
	return n
}
