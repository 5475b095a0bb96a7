package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexthopd/nexthopd/agent/status"
)

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain PREFIX|ADDRESS",
		Short: "Why a route is (not) there: every path, its step of the decision, the kernel's answer",
		Example: `  nexthopctl explain 192.168.255.0/24
  nexthopctl explain 192.168.255.10
  nexthopctl explain default`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(cmd.CommandPath(), "explain takes one prefix or address, got %d arguments", len(args))
			}
			_, err := parseQuery(args[0])
			if err != nil {
				return usage(cmd.CommandPath(), "%v", err)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       formats(),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseQuery(args[0])
			if err != nil {
				return err
			}
			e, raw, err := object[status.Explanation](cmd.Context(), c.client(cmd), status.PathExplain, url.Values{"q": {q}})
			if err != nil {
				return err
			}
			if c.format == formatJSON {
				return c.printJSON(raw)
			}
			c.printExplanation(&e)
			return nil
		},
	}
}

// parseQuery accepts a prefix (host bits are cleared), an address, or "default" as
// ip(8) writes it, and returns what the daemon is asked for.
func parseQuery(s string) (string, error) {
	if s == "default" {
		return "0.0.0.0/0", nil
	}
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return p.Masked().String(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	return "", fmt.Errorf("%q is neither a prefix (192.168.255.0/24, 2001:db8::/32, default) nor an address (192.168.255.10, 2001:db8::1)", s)
}

// printExplanation prints S36: the verdict, every path, then what should be and what
// is in the kernel.
func (c *cli) printExplanation(e *status.Explanation) {
	fmt.Fprintln(c.out, c.paint(bold, clean(e.Verdict)))
	fmt.Fprintln(c.out)
	if e.Prefix != e.Query {
		c.item("query", e.Query)
	}
	c.item("prefix", e.Prefix)
	if e.Reason != "" {
		c.item("reason", e.Reason)
	}
	if e.Held != "" {
		c.item("held", e.Held)
	}
	c.item("paths", fmt.Sprint(len(e.Paths)))
	for i := range e.Paths {
		c.printExplainPath(e, &e.Paths[i])
	}
	if len(e.Paths) > 0 {
		fmt.Fprintln(c.out)
	}
	c.item("desired", e.Desired...)
	c.item("kernel", e.InKernel...)
	if len(e.Foreign) > 0 {
		c.item("foreign", e.Foreign...)
	}
	if e.LastError != "" {
		c.item("last error", e.LastError, c.retries(e))
	}
}

// retries says when the last error was and what happens next.
func (c *cli) retries(e *status.Explanation) string {
	var parts []string
	if ago := c.since(e.LastErrorAt); ago != "" {
		parts = append(parts, ago+" ago")
	}
	if e.Attempts > 0 {
		parts = append(parts, plural(e.Attempts, "attempt"))
	}
	if e.NextRetry != nil {
		in := e.NextRetry.Sub(c.now())
		next := "next retry now"
		if in > 0 {
			next = "next retry in " + age(in)
		}
		parts = append(parts, next)
	}
	return strings.Join(parts, ", ")
}

// item prints a named list, one value a line under the first; none as "none".
func (c *cli) item(name string, values ...string) {
	printed := false
	for _, v := range values {
		if v == "" {
			continue
		}
		fmt.Fprintf(c.out, "%-11s %s\n", name, clean(v))
		name, printed = "", true
	}
	if !printed {
		fmt.Fprintf(c.out, "%-11s none\n", name)
	}
}

func (c *cli) printExplainPath(e *status.Explanation, p *status.ExplainPath) {
	verdict, sgr := "used", green
	switch {
	case p.Step != "":
		verdict, sgr = "not used, lost at "+clean(p.Step), yellow
	case p.Reason != "":
		verdict, sgr = "not used: "+clean(p.Reason), yellow
	case !p.Installed:
		// It won, and the prefix as a whole is held back, refused or only observed.
		verdict, sgr = "chosen, not installed", yellow
		if e.Reason != "" {
			verdict += ": " + clean(e.Reason)
		}
	case p.ECMP:
		verdict = "used, shares the traffic"
	}
	switch {
	case p.LongLivedStale:
		verdict += ", long-lived stale (graceful restart)"
	case p.Stale:
		verdict += ", stale (graceful restart)"
	}
	fmt.Fprintf(c.out, "\n  %s (%s): %s\n", clean(p.Peer), clean(p.SourcePeer), c.paint(sgr, verdict))
	c.detail("why", p.Detail)
	if p.Rule != "" && !strings.HasSuffix(p.Detail, p.Rule) {
		c.detail("filter", "accepted by "+p.Rule)
	}
	if p.Step != "" && p.Reason != "" && p.Reason != p.Step {
		c.detail("reason", p.Reason)
	}
	c.detail("next hop", p.NextHop)
	c.detail("resolution", p.Resolution)
	attrs := []string{"AS path " + orNone(p.AsPath), "origin " + orNone(p.BGPOrigin), "MED " + orNone(med(&p.Path))}
	if len(p.Communities) > 0 {
		attrs = append(attrs, "communities "+strings.Join(p.Communities, " "))
	}
	if p.OTC != nil {
		attrs = append(attrs, fmt.Sprintf("only to customers says AS %d", *p.OTC))
	}
	c.detail("attributes", strings.Join(attrs, ", "))
	c.detail("age", c.since(&p.Since))
}

func (c *cli) detail(name, text string) {
	if text != "" {
		fmt.Fprintf(c.out, "    %-11s %s\n", name, clean(text))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
