package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/cmd/nexthopctl/doctor"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "What of this host's settings spoils forwarding, and the command that mends it; exits 4 if anything",
		Long: `Examine the host: settings of the kernel that decide how routes forward, programs that
delete or capture routes, the ways to the peers, ports and capabilities; and read routes
with several next hops back from the kernel. Each finding says what is, why it matters, and
the command that mends it. Nothing is changed.

It works without the daemon too, for what the daemon does not have to be asked. With
-o wide, what is in order is listed as well. Exit code 4: something should be mended.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Judge(c.gather(cmd))
			var err error
			if c.format == formatJSON {
				err = c.printValue(findings)
			} else {
				c.printFindings(findings)
			}
			for _, f := range findings {
				if err == nil && f.Severity.Action() {
					err = errDegraded
				}
			}
			return err
		},
	}
}

// gather asks the daemon for its view, and looks at the host.
func (c *cli) gather(cmd *cobra.Command) *doctor.Facts {
	d, _, err := object[status.Doctor](cmd.Context(), c.client(cmd), status.PathDoctor, nil)
	if err != nil {
		facts := doctor.Gather(c.host, nil, err)
		facts.DaemonNext = nextDaemonState
		var f *failure
		if errors.As(err, &f) {
			facts.DaemonError, facts.DaemonNext = f.what, f.next
		}
		return facts
	}
	return doctor.Gather(c.host, &d, nil)
}

func (c *cli) printFindings(findings []doctor.Finding) {
	count := map[doctor.Severity]int{}
	sysctl := false
	for _, f := range findings {
		count[f.Severity]++
		sysctl = sysctl || strings.HasPrefix(f.Mend, "sysctl -w ")
	}
	word, sgr := "ok", green
	if n := count[doctor.Warning] + count[doctor.Error]; n > 0 {
		word, sgr = plural(n, "finding")+" to mend", yellow
		if count[doctor.Error] > 0 {
			sgr = red
		}
	}
	summary := fmt.Sprintf("%d in order", count[doctor.OK])
	if n := count[doctor.Info]; n > 0 {
		summary += fmt.Sprintf(", %d to know", n)
	}
	if n := count[doctor.Skipped]; n > 0 {
		summary += fmt.Sprintf(", %d not examined", n)
	}
	fmt.Fprintf(c.out, "doctor: %s; %s\n", c.paint(sgr, word), summary)
	for _, severity := range []doctor.Severity{doctor.Error, doctor.Warning, doctor.Info, doctor.Skipped, doctor.OK} {
		if (severity == doctor.OK || severity == doctor.Skipped) && c.format != formatWide {
			continue
		}
		for _, f := range findings {
			if f.Severity == severity {
				c.printFinding(f)
			}
		}
	}
	if sysctl {
		fmt.Fprint(c.out, "\nWhat sysctl -w sets is gone after a restart of the host: write NAME = VALUE into a file in /etc/sysctl.d too.\n")
	}
}

func (c *cli) printFinding(f doctor.Finding) {
	sgr := map[doctor.Severity]string{doctor.Error: red, doctor.Warning: yellow, doctor.OK: green}[f.Severity]
	fmt.Fprintf(c.out, "\n  %s %s: %s\n", c.paint(sgr, string(f.Severity)), f.Check, clean(f.Says))
	if f.Mend != "" {
		word := "mend"
		if !f.Severity.Action() {
			word = "to change it"
		}
		fmt.Fprintf(c.out, "    %s: %s\n", word, c.paint(bold, clean(f.Mend)))
	}
}
