package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

// azureInstance is the key of `-o azure`. The service has two instances and a list for
// each; a daemon is one instance.
const azureInstance = "RouteServiceRole_IN_0"

// azureRoute is an element of that list: the keys, in the order, that
// `az network routeserver peering list-learned-routes` prints (S34).
type azureRoute struct {
	AsPath       string `json:"asPath"`
	LocalAddress string `json:"localAddress"`
	Network      string `json:"network"`
	NextHop      string `json:"nextHop"`
	Origin       string `json:"origin"`
	SourcePeer   string `json:"sourcePeer"`
	Weight       int    `json:"weight"`
}

func (c *cli) learnedCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "learned [PEER]",
		Short: "What the peers announced; -o wide says what is used, and why not",
		Example: `  nexthopctl learned quagga
  nexthopctl learned -o wide
  nexthopctl learned 10.1.0.4 -o azure`,
		Args:              maxOneArg,
		ValidArgsFunction: c.completePeer,
		Annotations:       formats(formatAzure),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.runPaths(cmd, args, status.PathLearned, c.printLearned)
		},
	}
}

func (c *cli) advertisedCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "advertised [PEER]",
		Short: "What the peers are told",
		Example: `  nexthopctl advertised quagga
  nexthopctl advertised -o json`,
		Args:              maxOneArg,
		ValidArgsFunction: c.completePeer,
		Annotations:       formats(formatAzure),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.runPaths(cmd, args, status.PathAdvertised, c.printAdvertised)
		},
	}
}

// runPaths prints one of the two views in the format asked for.
func (c *cli) runPaths(cmd *cobra.Command, args []string, path string, print func(*cobra.Command, string, url.Values) error) error {
	query := url.Values{}
	if len(args) == 1 {
		if args[0] == "" {
			return usage(cmd.CommandPath(), "the peer's name is empty; without one, all peers are shown")
		}
		query.Set("peer", args[0])
	}
	var err error
	switch c.format {
	case formatJSON:
		err = c.printRows(cmd, path, query)
	case formatAzure:
		err = c.printAzure(cmd, path, query)
	default:
		err = print(cmd, path, query)
	}
	if len(args) == 1 && errors.Is(err, errNotFound) {
		return c.unknownPeer(cmd, args[0])
	}
	return err
}

// pathCells are the columns of S32 and S33, in Azure's words and order.
func pathCells(p *status.Path) []string {
	return []string{p.LocalAddress, p.Network, p.NextHop, p.SourcePeer, p.Origin, p.AsPath, strconv.Itoa(p.Weight)}
}

var pathHeadings = [...]string{"LocalAddress", "Network", "NextHop", "SourcePeer", "Origin", "AsPath", "Weight"}

func pathKey(p *status.Path) rowKey {
	return rowKey{prefix: prefixKey(p.Network), then: p.Peer}
}

// longLivedStale is the reason why a path is not used, and also said of one that is.
const longLivedStale = "long-lived-stale"

func med(p *status.Path) string {
	if p.MED == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*p.MED), 10)
}

// printLearned prints S32, in the wide form with what Azure does not tell.
func (c *cli) printLearned(cmd *cobra.Command, path string, query url.Values) error {
	if c.format != formatWide {
		return c.printPaths(cmd, path, query, nil, nil)
	}
	more := []string{"PEER", "BEST", "INSTALLED", "REASON", "AGE", "COMMUNITIES", "MED", "BGP-ORIGIN"}
	return c.printPaths(cmd, path, query, more, func(p *status.Path) []string {
		reason := p.Reason
		switch {
		case p.LongLivedStale && reason != longLivedStale:
			reason = strings.TrimPrefix(reason+","+longLivedStale, ",")
		case p.Stale && !p.LongLivedStale:
			reason = strings.TrimPrefix(reason+",stale", ",")
		}
		return []string{
			p.Peer, yesNo(p.Best), yesNo(p.Installed), reason, c.since(&p.Since),
			strings.Join(p.Communities, ","), med(p), p.BGPOrigin,
		}
	})
}

// printAdvertised prints S33. Rows for several peers differ in nothing Azure shows, so
// without a PEER argument a last column says who is told.
func (c *cli) printAdvertised(cmd *cobra.Command, path string, query url.Values) error {
	switch {
	case c.format == formatWide:
		more := []string{"PEER", "COMMUNITIES", "MED", "BGP-ORIGIN"}
		return c.printPaths(cmd, path, query, more, func(p *status.Path) []string {
			return []string{p.Peer, strings.Join(p.Communities, ","), med(p), p.BGPOrigin}
		})
	case query.Has("peer"):
		return c.printPaths(cmd, path, query, nil, nil)
	}
	return c.printPaths(cmd, path, query, []string{"PEER"}, func(p *status.Path) []string { return []string{p.Peer} })
}

// printPaths prints a table of paths: Azure's columns, then more, which cells fills in.
func (c *cli) printPaths(cmd *cobra.Command, path string, query url.Values, more []string, cells func(*status.Path) []string) error {
	t := newTable(slices.Concat(pathHeadings[:], more)...)
	err := rows(cmd.Context(), c.client(cmd), path, query, func(p status.Path) error {
		row := pathCells(&p)
		if cells != nil {
			row = append(row, cells(&p)...)
		}
		t.add(pathKey(&p), row...)
		return nil
	})
	if err != nil {
		return err
	}
	t.sort()
	return t.write(c.out, nil)
}

// printAzure prints S34.
func (c *cli) printAzure(cmd *cobra.Command, path string, query url.Values) error {
	list := &listPrinter{w: c.out, before: "{\n  \"" + azureInstance + "\": ", after: "\n}", prefix: "  "}
	err := rows(cmd.Context(), c.client(cmd), path, query, func(p status.Path) error {
		raw, err := json.Marshal(azureRoute{
			AsPath: p.AsPath, LocalAddress: p.LocalAddress, Network: p.Network, NextHop: p.NextHop,
			Origin: p.Origin, SourcePeer: p.SourcePeer, Weight: p.Weight,
		})
		if err != nil {
			return err
		}
		return list.add(raw)
	})
	if err != nil {
		return err
	}
	return list.end()
}

// printRows prints a list of the daemon's as it came.
func (c *cli) printRows(cmd *cobra.Command, path string, query url.Values) error {
	list := &listPrinter{w: c.out}
	err := rows(cmd.Context(), c.client(cmd), path, query, func(raw json.RawMessage) error { return list.add(raw) })
	if err != nil {
		return err
	}
	return list.end()
}
