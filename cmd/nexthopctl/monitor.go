package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) monitorCommand() *cobra.Command {
	f := eventFilter{}
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Events as they happen, until interrupted",
		Long: `Print what happens as it happens, until interrupted: sessions, routes and next hops that
change, failovers, repairs, reloads. With filters, only what matches all of them.`,
		Example: `  nexthopctl monitor
  nexthopctl monitor --type session --peer quagga
  nexthopctl monitor --prefix 192.168.0.0/16 -o jsonl | jq .message`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(formatJSONL),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.readFilter(cmd, &f); err != nil {
				return err
			}
			return c.monitor(cmd, &f)
		},
	}
	cmd.Flags().StringSliceVar(&f.types, "type", nil, "only `types` of events: "+strings.Join(status.EventTypes(), ", "))
	cmd.Flags().StringVar(&f.peer, "peer", "", "only events of this `peer`, by name or address")
	cmd.Flags().StringVar(&f.about, "prefix", "", "only events of this `prefix` and those inside it, or of those that hold an address")
	// The names are constants that were defined above, so this cannot fail.
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(status.EventTypes(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("peer", c.completePeer)
	_ = cmd.RegisterFlagCompletionFunc("prefix", cobra.NoFileCompletions)
	return cmd
}

// eventFilter is what monitor was asked to show; its zero value shows everything.
type eventFilter struct {
	types  []string
	peer   string       // its name
	about  string       // as typed
	prefix netip.Prefix // of about
}

// readFilter checks the filters. A peer is sought now, for events name peers.
func (c *cli) readFilter(cmd *cobra.Command, f *eventFilter) error {
	for _, t := range f.types {
		if !slices.Contains(status.EventTypes(), t) {
			return usage(cmd.CommandPath(), "there is no type %q of events: %s", t, strings.Join(status.EventTypes(), ", "))
		}
	}
	if f.about != "" {
		q, err := parseQuery(f.about)
		if err != nil {
			return usage(cmd.CommandPath(), "--prefix: %v", err)
		}
		if f.prefix, err = netip.ParsePrefix(q); err != nil {
			a := netip.MustParseAddr(q)
			f.prefix = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if f.peer == "" {
		return nil
	}
	name := ""
	err := rows(cmd.Context(), c.client(cmd), status.PathPeers, nil, func(p status.Peer) error {
		if p.Name == f.peer || p.Address.String() == f.peer {
			name = p.Name
		}
		return nil
	})
	if err != nil {
		return err
	}
	if name == "" {
		return c.unknownPeer(cmd, f.peer)
	}
	f.peer = name
	return nil
}

// shows tells whether an event passes.
func (f *eventFilter) shows(e *status.Event) bool {
	if len(f.types) > 0 && !slices.Contains(f.types, e.Type) || f.peer != "" && e.Peer != f.peer {
		return false
	}
	if !f.prefix.IsValid() {
		return true
	}
	p, err := netip.ParsePrefix(e.Prefix)
	if err != nil {
		return false
	}
	if f.prefix.IsSingleIP() {
		return p.Contains(f.prefix.Addr())
	}
	return f.prefix.Bits() <= p.Bits() && f.prefix.Contains(p.Addr())
}

// monitor prints events until the operator ends it, which is its only good end.
func (c *cli) monitor(cmd *cobra.Command, f *eventFilter) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cl := c.client(cmd)
	body, err := cl.get(ctx, status.PathEvents, nil)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if c.format == formatTable || c.format == formatWide {
		c.eventLine("TIME", "TYPE", "PEER", "PREFIX", "MESSAGE")
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	for dec := json.NewDecoder(body); ; {
		var raw json.RawMessage
		switch err := dec.Decode(&raw); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			return &failure{code: exitUnreachable, what: "nexthopd ended the stream of events: has it stopped?", next: nextDaemonState, cause: err}
		case err != nil:
			return cl.unreadable(status.PathEvents, err)
		}
		var e status.Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return cl.unreadable(status.PathEvents, err)
		}
		if !f.shows(&e) {
			continue
		}
		if err := c.printEvent(&e, raw); err != nil {
			return err
		}
		// An event is worth nothing in a buffer.
		if err := c.out.Flush(); err != nil {
			return err
		}
	}
}

// Layouts of an event's time, in the operator's own zone.
const (
	clock = "15:04:05.000"
	stamp = "2006-01-02T15:04:05.000000Z07:00"
)

// eventLine prints columns of fixed width: what is still to come is not known. An error
// is kept by out until it is flushed.
func (c *cli) eventLine(at, kind, peer, prefix, message string) {
	width := len(clock)
	if c.format == formatWide {
		width = len(stamp)
	}
	fmt.Fprintf(c.out, "%-*s  %-8s  %-16s  %-18s  %s\n", width, at, dash(kind), dash(peer), dash(prefix), clean(message))
}

func (c *cli) printEvent(e *status.Event, raw json.RawMessage) error {
	switch c.format {
	case formatJSON:
		return c.printJSON(raw)
	case formatJSONL:
		// The contract is an object a line; a line of ours must be one even if it isn't.
		line, err := compact(raw)
		if err != nil {
			return err
		}
		_, err = c.out.Write(append(line, '\n'))
		return err
	}
	at := e.Time.In(c.location)
	if c.format == formatTable {
		c.eventLine(at.Format(clock), e.Type, e.Peer, e.Prefix, e.Message)
		return nil
	}
	message := e.Message
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		message += fmt.Sprintf(" %s=%q", k, e.Fields[k])
	}
	c.eventLine(at.Format(stamp), e.Type, e.Peer, e.Prefix, message)
	return nil
}

// dash is a clean cell.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}
