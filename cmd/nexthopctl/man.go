package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/internal/man"
)

// manCommand prints nexthopctl.1 for the package.
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

func writeMan(w io.Writer, root *cobra.Command) {
	man.Header(w, "nexthopctl", 1, "User Commands", strings.ToLower(root.Short[:1])+root.Short[1:])
	fmt.Fprint(w, ".SH SYNOPSIS\n.B nexthopctl\n.I command\n.RI [ flags ]\n.SH DESCRIPTION\n")
	man.Text(w, root.Long, ".PP")
	fmt.Fprint(w, ".SH COMMANDS\n")
	man.Commands(w, root)
	fmt.Fprint(w, ".SH OPTIONS\n")
	man.Flags(w, root.PersistentFlags(), "", "")
	fmt.Fprint(w, ".SH EXIT STATUS\n")
	for code, meaning := range exitMeanings {
		fmt.Fprintf(w, ".TP\n.B %d\n%s\n", code, man.Escape(meaning))
	}
	fmt.Fprintf(w, ".SH ENVIRONMENT\n.TP\n.B %s\nthe daemon\\(aqs socket, where \\-\\-socket is not given\n", socketEnv)
	fmt.Fprint(w, ".TP\n.B NO_COLOR\nno colour, when not empty\n")
	fmt.Fprintf(w, ".SH FILES\n.TP\n.I %s\nthe daemon\\(aqs socket; root and group nexthopd may open it\n", defaultSocket)
	fmt.Fprint(w, ".SH SEE ALSO\n.BR nexthopd (8),\n.BR nexthopd.yaml (5),\n.BR journalctl (1),\n.BR ip\\-route (8)\n")
}
