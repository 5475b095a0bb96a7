package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) routesCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "routes",
		Short:             "The host's effective routes, read back from the kernel",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.format == formatJSON {
				return c.printRows(cmd, status.PathRoutes, nil)
			}
			return c.printRoutes(cmd)
		},
	}
}

// printRoutes prints S35: one row per next hop, the routes of a prefix in the kernel's
// order of preference.
func (c *cli) printRoutes(cmd *cobra.Command) error {
	headings := []string{"Source", "State", "Prefix", "NextHopType", "NextHopIP"}
	wide := c.format == formatWide
	if wide {
		headings = append(headings, "INTERFACE", "METRIC", "PROTOCOL", "TABLE", "PEER")
	}
	t := newTable(headings...)
	err := rows(cmd.Context(), c.client(cmd), status.PathRoutes, nil, func(r status.Route) error {
		cells := []string{r.Source, r.State, r.Prefix, r.NextHopType, r.NextHopIP}
		if wide {
			cells = append(cells, r.Interface, strconv.FormatUint(uint64(r.Metric), 10), r.Protocol,
				strconv.FormatUint(uint64(r.Table), 10), r.Peer)
		}
		// Padded, so that the text sorts like the numbers; the peer (or, where the route is
		// not ours, the address) comes after them.
		then := fmt.Sprintf("%010d %010d %s %s", r.Table, r.Metric, r.Peer, r.NextHopIP)
		t.add(rowKey{prefix: prefixKey(r.Prefix), then: then}, cells...)
		return nil
	})
	if err != nil {
		return err
	}
	t.sort()
	return t.write(c.out, func(col int, cell string) string {
		if t.headings[col] == "State" && cell != "Active" {
			return c.paint(yellow, cell)
		}
		return cell
	})
}
