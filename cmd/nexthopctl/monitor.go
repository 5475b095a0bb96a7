package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) monitorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "monitor",
		Short: "Events as they happen, until interrupted",
		Example: `  nexthopctl monitor
  nexthopctl monitor -o jsonl | jq 'select(.type == "session")'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(formatJSONL),
		RunE:              func(cmd *cobra.Command, _ []string) error { return c.monitor(cmd) },
	}
}

// monitor prints events until the operator ends it, which is its only good end.
func (c *cli) monitor(cmd *cobra.Command) error {
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
		if err := c.printEvent(cl, raw); err != nil {
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

func (c *cli) printEvent(cl *client, raw json.RawMessage) error {
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
	var e status.Event
	if err := json.Unmarshal(raw, &e); err != nil {
		return cl.unreadable(status.PathEvents, err)
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
