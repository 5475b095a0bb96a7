package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand prints nexthopctl.1 for the package. cobra's own generator writes a page
// per command and would link a markdown and a YAML library into the product.
func (c *cli) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "gen-man",
		Short:             "Print the manual page nexthopctl(1)",
		Hidden:            true,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			writeMan(c.out, cmd.Root())
			return nil
		},
	}
}

// writeMan writes the page in the man(7) macros, without a date: the same source gives
// the same bytes.
func writeMan(w io.Writer, root *cobra.Command) {
	fmt.Fprintf(w, ".TH NEXTHOPCTL 1 \"\" \"nexthopd\" \"User Commands\"\n")
	fmt.Fprintf(w, ".SH NAME\nnexthopctl \\- %s\n", roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B nexthopctl\n.RI [ flags ]\n.I command\n")
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n", roff(root.Long))
	fmt.Fprintf(w, ".SH COMMANDS\n")
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		fmt.Fprintf(w, ".TP\n.B %s\n%s.\n", roff(cmd.Use), roff(cmd.Short))
		if known := formatsOf(cmd); len(known) > 0 {
			fmt.Fprintf(w, "Formats: %s.\n", roff(strings.Join(known, ", ")))
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				fmt.Fprintf(w, ".br\n%s: %s.\n", flagNames(f), roff(f.Usage))
			}
		})
		if cmd.Example != "" {
			fmt.Fprintf(w, ".RS\n.PP\n.nf\n%s\n.fi\n.RE\n", roff(cmd.Example))
		}
	}
	fmt.Fprintf(w, ".SH OPTIONS\n")
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		arg, usage := pflag.UnquoteUsage(f)
		if arg != "" {
			arg = " \\fI" + roff(arg) + "\\fR"
		}
		fmt.Fprintf(w, ".TP\n%s%s\n%s.\n", flagNames(f), arg, roff(usage))
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(w, "Default: %s.\n", roff(f.DefValue))
		}
	})
	fmt.Fprintf(w, ".SH EXIT STATUS\n")
	for code, meaning := range exitMeanings {
		fmt.Fprintf(w, ".TP\n.B %d\n%s\n", code, roff(meaning))
	}
	fmt.Fprintf(w, ".SH ENVIRONMENT\n.TP\n.B %s\nthe daemon's socket, where --socket is not given\n.TP\n.B NO_COLOR\nno colour, when not empty\n", socketEnv)
	fmt.Fprintf(w, ".SH FILES\n.TP\n.I %s\nthe daemon's socket\n", defaultSocket)
	fmt.Fprintf(w, ".SH SEE ALSO\n.BR nexthopd (8),\n.BR nexthopd.yaml (5),\n.BR ip\\-route (8)\n")
}

func flagNames(f *pflag.Flag) string {
	names := "\\fB" + roff("--"+f.Name) + "\\fR"
	if f.Shorthand != "" {
		names = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + names
	}
	return names
}

// roff escapes text for man(7): a minus that may be copied, and lines that must not be
// taken for requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
