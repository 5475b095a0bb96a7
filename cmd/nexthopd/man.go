package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/internal/man"
)

// newMan prints nexthopd.8 for the package.
func newMan(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:    "gen-man",
		Short:  "Print the manual page nexthopd(8)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			writeMan(stdout, cmd.Root())
			return nil
		},
	}
}

const manDescription = `nexthopd peers by BGP with routers and network virtual appliances, decides which of the
routes they announce are used, and writes those to the kernel's routing table with all
equal next hops. It announces the local network's prefixes, and the peers' routes to each
other.

It never changes a route that it did not make. Its own routes stay in the kernel when it
stops, crashes or is upgraded; the next start adopts them.`

func writeMan(w io.Writer, root *cobra.Command) {
	man.Header(w, "nexthopd", 8, "System Administration", root.Short)
	fmt.Fprint(w, ".SH SYNOPSIS\n.B nexthopd\n.I command\n.RI [ flags ]\n.SH DESCRIPTION\n")
	man.Text(w, manDescription, ".PP")
	fmt.Fprint(w, ".SH COMMANDS\n")
	man.Commands(w, root)
	fmt.Fprint(w, ".SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nstop; the routes stay, unless the configuration says on\\-stop: flush\n")
	fmt.Fprint(w, ".TP\n.B SIGHUP\nreload the configuration\n")
	fmt.Fprint(w, ".SH EXIT STATUS\n")
	for _, e := range []struct {
		code    int
		meaning string
	}{
		{exitOK, "done; for run: told to stop, and stopped cleanly"},
		{exitFailed, "failed, the last line says why"},
		{exitUsage, "wrong usage"},
		{exitConfig, "the configuration has mistakes, all of them were printed"},
	} {
		fmt.Fprintf(w, ".TP\n.B %d\n%s\n", e.code, man.Escape(e.meaning))
	}
	fmt.Fprint(w, ".SH ENVIRONMENT\n.TP\n.B NEXTHOPD_OPTIONS\nflags that the unit adds to run\n")
	fmt.Fprint(w, ".TP\n.B CREDENTIALS_DIRECTORY\nwhere systemd puts the secrets that password\\-credential names\n")
	fmt.Fprint(w, ".SH FILES\n.TP\n.I /etc/nexthopd/nexthopd.yaml\nthe configuration\n")
	fmt.Fprint(w, ".TP\n.I /etc/nexthopd/secrets.d/\nTCP MD5 secrets, one file each; systemd loads them as credentials\n")
	fmt.Fprint(w, ".TP\n.I /etc/default/nexthopd, /etc/sysconfig/nexthopd\nenvironment of the unit (deb, rpm)\n")
	fmt.Fprint(w, ".TP\n.I /run/nexthopd/nexthopd.sock\nwhat nexthopctl talks to\n")
	fmt.Fprint(w, ".SH SEE ALSO\n.BR nexthopctl (1),\n.BR nexthopd.yaml (5),\n.BR ip\\-route (8),\n.BR journalctl (1)\n")
}
