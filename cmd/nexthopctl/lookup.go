package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/near"
	"github.com/nexthopd/nexthopd/internal/version"
)

// lookupTimeout bounds what is only a help: a completion, a hint, the daemon's version.
const lookupTimeout = 700 * time.Millisecond

// knownPeers asks for the peers, quickly.
func (c *cli) knownPeers(cmd *cobra.Command) ([]status.Peer, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), lookupTimeout)
	defer cancel()
	var peers []status.Peer
	err := rows(ctx, c.client(cmd), status.PathPeers, nil, func(p status.Peer) error {
		peers = append(peers, p)
		return nil
	})
	return peers, err
}

// completePeer completes a peer by name, or by address once one is being typed.
func (c *cli) completePeer(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	// Without a daemon there is nothing to offer, and no place to say so.
	peers, _ := c.knownPeers(cmd)
	var words []cobra.Completion
	for _, p := range peers {
		about := clean(fmt.Sprintf("%s AS%d %s", p.Address, p.ASN, p.State))
		if strings.HasPrefix(p.Name, typed) {
			words = append(words, cobra.CompletionWithDesc(clean(p.Name), about))
		}
		if address := p.Address.String(); typed != "" && strings.HasPrefix(address, typed) {
			words = append(words, cobra.CompletionWithDesc(address, clean(p.Name)))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// shownPeers bounds the list of names in an error.
const shownPeers = 12

// unknownPeer is the failure for a peer the daemon does not know: it names the nearest
// one that it does, and the others.
func (c *cli) unknownPeer(cmd *cobra.Command, asked string) error {
	f := &failure{code: exitFailed, what: fmt.Sprintf("no peer %q", asked), next: "nexthopctl peers"}
	peers, err := c.knownPeers(cmd)
	if err != nil {
		return f
	}
	if len(peers) == 0 {
		f.what += ": none is configured"
		return f
	}
	nearest, least := "", len(asked)/2+1
	var names []string
	for _, p := range peers {
		for _, name := range []string{p.Name, p.Address.String()} {
			d := near.Distance(strings.ToLower(asked), strings.ToLower(name))
			if strings.HasPrefix(strings.ToLower(name), strings.ToLower(asked)) {
				d = 0
			}
			if d < least {
				nearest, least = name, d
			}
		}
		names = append(names, p.Name)
	}
	if more := len(names) - shownPeers; more > 0 {
		names = append(names[:shownPeers], fmt.Sprintf("and %d more", more))
	}
	if nearest != "" {
		f.what += fmt.Sprintf(": did you mean %q?", nearest)
		f.next = cmd.CommandPath() + " " + nearest
	}
	f.what += fmt.Sprintf(" (known: %s)", strings.Join(names, ", "))
	return f
}

// versions is what `version -o json` prints.
type versions struct {
	Nexthopctl string `json:"nexthopctl"`
	Revision   string `json:"revision"`
	Go         string `json:"go"`
	Nexthopd   string `json:"nexthopd,omitempty"` // of the running daemon
	Error      string `json:"error,omitempty"`    // why it could not be asked
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "The versions of this command and of the running daemon",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			build := version.Get()
			v := versions{Nexthopctl: build.Version, Revision: build.Revision, Go: build.Go}
			ctx, cancel := context.WithTimeout(cmd.Context(), lookupTimeout)
			defer cancel()
			st, _, err := object[status.Status](ctx, c.client(cmd), status.PathStatus, nil)
			v.Nexthopd = st.Version
			if err != nil {
				v.Error = err.Error()
			}
			if c.format == formatJSON {
				return c.printValue(v)
			}
			daemon := v.Nexthopd
			switch {
			case err != nil:
				daemon = "unknown: " + v.Error
			case v.Nexthopd != v.Nexthopctl:
				daemon += " (not this command's version: after an upgrade, systemctl restart nexthopd)"
			}
			c.field("nexthopctl", "%s (revision %s, %s)", v.Nexthopctl, v.Revision, v.Go)
			c.field("nexthopd", "%s", daemon)
			return nil
		},
	}
}
