package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

// showPeer prints all that is known of one peer.
func (c *cli) showPeer(cmd *cobra.Command, asked string) error {
	cl := c.client(cmd)
	var found json.RawMessage
	var peer status.Peer
	err := rows(cmd.Context(), cl, status.PathPeers, nil, func(raw json.RawMessage) error {
		var p status.Peer
		if err := json.Unmarshal(raw, &p); err != nil {
			return cl.unreadable(status.PathPeers, err)
		}
		if p.Name == asked || p.Address.String() == asked {
			found, peer = raw, p
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case found == nil:
		return c.unknownPeer(cmd, asked)
	case c.format == formatJSON:
		return c.printJSON(found)
	}
	c.printPeer(&peer)
	return nil
}

func (c *cli) printPeer(p *status.Peer) {
	sgr := yellow
	if p.State == "Established" {
		sgr = green
	}
	state := c.paint(sgr, clean(p.State))
	if ago := c.since(p.Since); ago != "" {
		state += " for " + ago
	}
	fmt.Fprintf(c.out, "%s (%s, AS %d): %s\n", clean(p.Name), p.Address, p.ASN, state)
	for _, w := range []struct {
		is         bool
		what, next string
	}{
		{p.Warning != "", p.Warning, ""},
		{p.Disabled, "shut down by an operator", "nexthopctl peer " + p.Name + " enable"},
		{p.Shutdown && !p.Disabled, "shut down by the configuration (shutdown: true)", ""},
		{p.LongLivedUntil != nil, "it is away for longer than a restart takes: what it announced before is kept as the last choice (long-lived stale)", "nexthopctl learned " + p.Name},
		{p.Restarting && p.LongLivedUntil == nil, "graceful restart under way: what it announced before is kept as stale", "nexthopctl learned " + p.Name},
	} {
		if w.is {
			fmt.Fprintf(c.out, "\n  %s %s\n", c.paint(yellow, "!"), clean(w.what))
			if w.next != "" {
				fmt.Fprintf(c.out, "    next: %s\n", c.paint(bold, clean(w.next)))
			}
		}
	}
	fmt.Fprintln(c.out)
	if p.Dynamic {
		c.field("dynamic", "it came by a range, and is forgotten when its session has been down for a while")
	}
	if p.Description != "" {
		c.field("about", "%s", p.Description)
	}
	c.field("local", "%s", addrString(p.LocalAddress))
	c.field("remote id", "%s", addrString(p.RemoteID))
	c.field("timers", "hold %ds, keepalive %ds", p.HoldTime, p.Keepalive)
	if p.Role != "" {
		said := "it does not say so itself"
		switch {
		case p.RoleConfirmed:
			said = "it says so itself"
		case p.State != "Established":
			said = "no session"
		}
		c.field("role", "%s (%s)", p.Role, said)
	}
	told := advertised(*p)
	if told == "" {
		told = "not counted how many are"
	}
	c.field("prefixes", "%d received, %d accepted, %s advertised", p.Received, p.Accepted, told)
	for _, reason := range slices.Sorted(maps.Keys(p.Refused)) {
		c.field("refused", "%d %s", p.Refused[reason], reason)
	}
	if p.OnlyToCustomers > 0 {
		c.field("withheld", "%d that are for customers only", p.OnlyToCustomers)
	}
	c.field("flaps", "%d", p.Flaps)
	if p.BFD != "" {
		c.field("BFD", "%s", p.BFD)
	}
	last := p.LastDown
	if ago := c.since(p.LastDownAt); last != "" && ago != "" {
		last += fmt.Sprintf(" (%s ago, %s)", ago, p.LastDownAt.In(c.location).Format(time.RFC3339))
	}
	c.field("last down", "%s", last)
	c.field("speaks", "%s", strings.Join(p.PeerCapabilities, ", "))
	c.field("heard", "%s", messages(p.MessagesReceived))
	c.field("sent", "%s", messages(p.MessagesSent))
	if faults := messages(p.Faults); faults != "" {
		c.field("faulty", "%s", faults)
	}
}

// messages writes {"keepalive": 190, "update": 3} as "keepalive 190, update 3".
func messages(m map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
	}
	return strings.Join(parts, ", ")
}

func (c *cli) failoversCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "failovers",
		Short:             "The last moves of traffic away from a lost peer, link or neighbour, and how long each took",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.format == formatJSON {
				return c.printRows(cmd, status.PathFailovers, nil)
			}
			t := newTable("TIME", "AGO", "SIGNAL", "GROUPS", "PREFIXES", "TOOK")
			err := rows(cmd.Context(), c.client(cmd), status.PathFailovers, nil, func(f status.Failover) error {
				t.add(rowKey{}, f.At.In(c.location).Format(stamp), c.since(&f.At), f.Signal,
					fmt.Sprint(f.Groups), fmt.Sprint(f.Prefixes), took(f.Microseconds))
				return nil
			})
			if err != nil {
				return err
			}
			return t.write(c.out, nil)
		},
	}
}

// took writes microseconds as people say them.
func took(us int64) string { return (time.Duration(us) * time.Microsecond).String() }
