package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) reloadCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Apply the changed configuration file; no session is reset that it does not concern",
		Long: `Have the daemon read its configuration file again, and apply what changed. It returns when
that is done. A file with mistakes changes nothing: each mistake is printed with its place.

What is printed is the plan: peers that come, go or change, VNet prefixes announced and
withdrawn, and in the last line the sessions that are reset. With --dry-run, it is printed
and nothing else happens.`,
		Example: `  nexthopctl reload --dry-run
  nexthopctl reload`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, raw, err := change[status.Reload](cmd.Context(), c.client(cmd), status.PathReload, status.ReloadRequest{DryRun: dryRun})
			switch {
			case err != nil:
				return err
			case c.format == formatJSON:
				return c.printJSON(raw)
			}
			for line := range strings.Lines(r.Plan) {
				fmt.Fprintln(c.out, clean(strings.TrimSuffix(line, "\n")))
			}
			if r.Removes > 0 {
				fmt.Fprintf(c.out, "removes %d of %d installed routes\n", r.Removes, r.Installed)
			}
			switch {
			case dryRun && r.Held:
				fmt.Fprintln(c.out, "(dry run: nothing is changed; too much for fib.blast-radius, it would wait for nexthopctl resume --yes)")
			case dryRun && r.Changed:
				fmt.Fprintln(c.out, "(dry run: nothing is changed)")
			case r.Changed:
				fmt.Fprintln(c.out, c.paint(green, "applied"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would change")
	return cmd
}

func (c *cli) resyncCommand() *cobra.Command {
	var install bool
	cmd := &cobra.Command{
		Use:   "resync",
		Short: "Compare everything with the kernel now, and write what differs",
		Long: `Have the daemon read the kernel's tables in full, compare them with what should be there,
and write the differences. It does so by itself, every fib.audit and whenever it may have
missed something. With --install, it ends what flush began.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, raw, err := change[status.Resync](cmd.Context(), c.client(cmd), status.PathResync, status.ResyncRequest{Install: install})
			switch {
			case err != nil:
				return err
			case c.format == formatJSON:
				return c.printJSON(raw)
			}
			fmt.Fprintf(c.out, "compared %s of ours in the kernel: %s\n", plural(r.Routes, "route"), differences(r.Differences))
			if r.Kept > 0 {
				fmt.Fprintf(c.out, "kept %s that should go, too many at once for fib.blast-radius: nexthopctl resume\n", plural(r.Kept, "route"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install routes again after a flush")
	return cmd
}

func (c *cli) resumeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "What is held back because it removes too many routes at once: show it, or do it",
		Long: `A reload that would remove more of the installed routes at once than fib.blast-radius
allows changes nothing, and waits. So do routes that a start with another configuration,
or a comparison with the kernel, would remove without a peer being lost: they are kept.
Show what would be done, and with --yes do it. To take it back instead, mend the file and
reload.`,
		Example: `  nexthopctl resume
  nexthopctl resume --yes`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.done(cmd, status.PathResume, status.ResumeRequest{Yes: yes})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func differences(n int) string {
	if n == 0 {
		return "no difference"
	}
	return plural(n, "difference") + ", written now"
}

func (c *cli) flushCommand() *cobra.Command {
	return c.doneCommand(status.PathFlush, &cobra.Command{
		Use:   "flush",
		Short: "Remove all our routes from the kernel, until resync --install: traffic to them stops",
		Long: `Remove exactly the daemon's own routes, groups and next hops from the kernel. Sessions stay
up; everything is computed and shown as before, and nothing installed, until
"nexthopctl resync --install" or a restart. Traffic that needs those routes is lost
meanwhile. Of a daemon that is stopped, "nexthopd flush" removes what it left.`,
	})
}

func (c *cli) drainCommand() *cobra.Command {
	return c.doneCommand(status.PathDrain, &cobra.Command{
		Use:   "drain",
		Short: "Before maintenance: ask all peers to prefer other paths (GRACEFUL_SHUTDOWN, RFC 8326)",
		Long: `Announce everything again with the community GRACEFUL_SHUTDOWN (65535:0), which asks the
peers to prefer any other path they have, so that no traffic comes to this host any more
by the time it goes down. Routes of this host stay. It ends with undrain, or with a restart
of the daemon.`,
	})
}

func (c *cli) undrainCommand() *cobra.Command {
	return c.doneCommand(status.PathUndrain, &cobra.Command{
		Use:   "undrain",
		Short: "End of maintenance: announce everything without GRACEFUL_SHUTDOWN again",
	})
}

// doneCommand completes a command that takes no argument and answers with a sentence.
func (c *cli) doneCommand(path string, cmd *cobra.Command) *cobra.Command {
	cmd.Args = noArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Annotations = formats()
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.done(cmd, path, struct{}{}) }
	return cmd
}

// done asks for a change and prints the sentence that comes back.
func (c *cli) done(cmd *cobra.Command, path string, request any) error {
	d, raw, err := change[status.Done](cmd.Context(), c.client(cmd), path, request)
	switch {
	case err != nil:
		return err
	case c.format == formatJSON:
		return c.printJSON(raw)
	}
	fmt.Fprintln(c.out, clean(d.Done))
	if d.Next != "" {
		fmt.Fprintf(c.out, "next: %s\n", c.paint(bold, clean(d.Next)))
	}
	return nil
}

// peerActions are what can be done to a peer, for completion.
var peerActions = [...]struct{ name, about string }{
	{"disable", "end its session and keep it down"},
	{"enable", "end a disable"},
	{"reset", "end its session, which comes up again by itself"},
	{"refresh", "send it again all that is announced to it"},
}

func (c *cli) peerCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "peer PEER [disable|enable|reset|refresh]",
		Short: "One peer in full; with an action: end, keep down, restart or refresh its session",
		Long: `Show all that is known of one peer and its session. With an action, change it:

  disable   end the session and keep it down until enable, or a restart of the daemon
  enable    end a disable
  reset     end the session; it comes up again by itself
  refresh   send the peer again all that is announced to it; the session stays

The text of --reason is sent to the peer with disable and reset (the shutdown
communication of RFC 9003, at most 128 octets), whose operator finds it in the log there.`,
		Example: `  nexthopctl peer quagga
  nexthopctl peer quagga disable --reason "moving to zone 2, ticket 4711"
  nexthopctl peer 10.1.0.4 reset`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || args[0] == "":
				return usage(cmd.CommandPath(), "peer takes the name or the address of a peer")
			case len(args) > 2:
				return usage(cmd.CommandPath(), "peer takes a peer and one action at most, got %q too", args[2])
			case len(args) == 2 && !isAction(args[1]):
				return usage(cmd.CommandPath(), "there is no action %q of a peer: disable, enable, reset, refresh", args[1])
			case len(args) == 1 && reason != "":
				return usage(cmd.CommandPath(), "--reason goes with disable and reset")
			}
			return nil
		},
		ValidArgsFunction: c.completePeerAction,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return c.showPeer(cmd, args[0])
			}
			err := c.done(cmd, status.PathPeer, status.PeerRequest{Peer: args[0], Action: args[1], Reason: reason})
			if errors.Is(err, errNotFound) {
				return c.unknownPeer(cmd, args[0])
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the peer's operator, sent with disable and reset")
	// The name is a constant that was defined in the line above, so this cannot fail.
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
	return cmd
}

func isAction(s string) bool {
	for _, a := range peerActions {
		if a.name == s {
			return true
		}
	}
	return false
}

// completePeerAction completes a peer, then what to do to it.
func (c *cli) completePeerAction(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completePeer(cmd, args, typed)
	}
	var words []cobra.Completion
	for _, a := range peerActions {
		if strings.HasPrefix(a.name, typed) {
			words = append(words, cobra.CompletionWithDesc(a.name, a.about))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
