package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Try the import and export filters of a peer; nothing is changed",
	}
	onlyCommands(cmd)
	cmd.AddCommand(c.policyTestCommand())
	return cmd
}

func (c *cli) policyTestCommand() *cobra.Command {
	var r status.PolicyRequest
	var med uint32
	cmd := &cobra.Command{
		Use:   "test --peer PEER {PREFIX | --against-learned}",
		Short: "Say which rule decides about a path, or about all that a peer announces",
		Long: `Say what the filter of a peer does with a path, and which rule it is. What is not given of
the path is as the peer would announce one of its own. With --against-learned, say how many
of the paths that the peer announces now each rule decides.

With --file, the filters are those of a configuration that is not in force: what it would
change is listed, and nothing is changed. That takes root or the group nexthopd.`,
		Example: `  nexthopctl policy test --peer nva-a 10.1.0.0/16 --as-path "65147 65001" --community 65147:100
  nexthopctl policy test --peer nva-a --against-learned --file /etc/nexthopd/new.yaml`,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case r.Peer == "":
				return usage(cmd.CommandPath(), "--peer is missing, it wants a peer's name or address")
			case r.Learned == (len(args) == 1) || len(args) > 1:
				return usage(cmd.CommandPath(), "either one PREFIX, or --against-learned")
			}
			if len(args) == 1 {
				r.Prefix = args[0]
			}
			if cmd.Flags().Changed("med") {
				r.MED = &med
			}
			if r.File != "" {
				text, err := os.ReadFile(r.File)
				if err != nil {
					return err
				}
				r.Config = string(text)
			}
			t, raw, err := change[status.PolicyTest](cmd.Context(), c.client(cmd), status.PathPolicy, r)
			switch {
			case err != nil:
				return err
			case c.format == formatJSON:
				return c.printJSON(raw)
			}
			c.printPolicyTest(&t, r.Learned)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Peer, "peer", "", "name or address of the peer")
	f.BoolVar(&r.Export, "export", false, "the export filter, for a path that is announced to the peer")
	f.BoolVar(&r.Learned, "against-learned", false, "all paths that the peer announces now")
	f.StringVar(&r.File, "file", "", "a configuration that is not in force")
	f.StringVar(&r.ASPath, "as-path", "", "AS path, nearest first (the peer's AS alone)")
	f.StringVar(&r.NextHop, "next-hop", "", "next hop (the peer's address)")
	f.StringArrayVar(&r.Communities, "community", nil, "a community or large community; may be repeated")
	f.Uint32Var(&med, "med", 0, "MED (none)")
	_ = cmd.RegisterFlagCompletionFunc("peer", c.completePeer)
	return cmd
}

func (c *cli) printPolicyTest(t *status.PolicyTest, learned bool) {
	verdict := func(accepted bool) string {
		if accepted {
			return c.paint(green, "accepted")
		}
		return c.paint(yellow, "rejected")
	}
	if !learned {
		fmt.Fprintf(c.out, "%s of %s: %s: %s\n", clean(t.Prefix), clean(t.Peer), verdict(t.Accepted), clean(t.Rule))
		return
	}
	fmt.Fprintf(c.out, "%s announces %s\n", clean(t.Peer), plural(t.Paths, "path"))
	for _, r := range t.Rules {
		fmt.Fprintf(c.out, "  %d %s: %s\n", r.Paths, verdict(r.Accepted), clean(r.Rule))
	}
	fmt.Fprintf(c.out, "%s decided otherwise than now\n", plural(t.Changed, "path"))
	for _, x := range t.Changes {
		fmt.Fprintf(c.out, "  %s %s: %s\n", clean(x.Prefix), verdict(x.Accepted), clean(x.Rule))
	}
	if n := t.Changed - len(t.Changes); n > 0 {
		fmt.Fprintf(c.out, "  and %d more\n", n)
	}
}
