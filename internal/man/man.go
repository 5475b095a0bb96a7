// Package man writes manual pages from cobra commands, in the man(7) macros. cobra's own
// generator writes a page per command and would link a markdown and a YAML library into
// the product. It knows nothing of what the commands do.
package man

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Header begins a page. It has no date: the same source gives the same bytes.
func Header(w io.Writer, name string, section int, manual, short string) {
	fmt.Fprintf(w, ".TH %s %d \"\" nexthopd \"%s\"\n", strings.ToUpper(Escape(name)), section, manual)
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", Escape(name), Escape(short))
}

// Commands writes an entry for each command of root and theirs, with their flags and
// examples.
// Hidden ones and cobra's own are left out.
func Commands(w io.Writer, root *cobra.Command) { commands(w, "", root) }

func commands(w io.Writer, prefix string, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if !c.HasAvailableSubCommands() || c.Runnable() {
			long := c.Long
			if long == "" {
				long = c.Short + "."
			}
			fmt.Fprintf(w, ".TP\n.B %s\n", Escape(prefix+c.Use))
			Text(w, long, ".IP")
			Flags(w, c.LocalNonPersistentFlags(), ".RS", ".RE")
			if c.Example != "" {
				fmt.Fprintf(w, ".IP\n.nf\n%s\n.fi\n", Escape(c.Example))
			}
		}
		commands(w, prefix+c.Name()+" ", c)
	}
}

// Flags writes an entry for each flag, between two requests where there are any.
func Flags(w io.Writer, set *pflag.FlagSet, before, after string) {
	any := false
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if !any && before != "" {
			fmt.Fprintln(w, before)
		}
		any = true
		arg, usage := pflag.UnquoteUsage(f)
		names := "\\fB" + Escape("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			names = "\\fB" + Escape("-"+f.Shorthand) + "\\fR, " + names
		}
		if arg != "" {
			names += " \\fI" + Escape(arg) + "\\fR"
		}
		fmt.Fprintf(w, ".TP\n%s\n%s.\n", names, Escape(usage))
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(w, "Default: %s.\n", Escape(f.DefValue))
		}
	})
	if any && after != "" {
		fmt.Fprintln(w, after)
	}
}

// Text writes prose. An empty line becomes the request paragraph; consecutive indented
// lines are shown as they are.
func Text(w io.Writer, text, paragraph string) {
	literal := false
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"); indented != literal {
			fmt.Fprintln(w, map[bool]string{true: ".nf", false: ".fi"}[indented])
			literal = indented
		}
		if line == "" {
			fmt.Fprintln(w, paragraph)
			continue
		}
		fmt.Fprintln(w, Escape(line))
	}
	if literal {
		fmt.Fprintln(w, ".fi")
	}
}

// Escape makes text safe for man(7): a minus that may be copied, and lines that are not
// taken for requests.
func Escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, `^`, `\(ha`, `~`, `\(ti`, "`", `\(ga`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
