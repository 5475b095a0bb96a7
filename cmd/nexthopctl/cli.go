package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nexthopd/nexthopd/cmd/nexthopctl/doctor"
	"github.com/nexthopd/nexthopd/internal/version"
)

const (
	defaultSocket = "/run/nexthopd/nexthopd.sock"
	socketEnv     = "NEXTHOPD_SOCKET"
)

// Formats of --output.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatAzure = "azure"
)

// formatsKey is the annotation that lists a command's formats.
const formatsKey = "formats"

// cli is one invocation: where it writes, and what the flags said.
type cli struct {
	out      *output
	errOut   io.Writer
	now      func() time.Time
	location *time.Location
	terminal bool // out is one
	host     doctor.Host
	color    bool // decided once the flags are read

	socket  string
	format  string
	noColor bool
}

const rootLong = `nexthopctl shows what nexthopd does and why: its sessions, what each NVA announced
and was told, what the kernel forwards by, and for every path that is not used the reason.
It speaks over the daemon's unix socket, which root and group nexthopd may open. Nothing is
changed but by the commands that say so.`

// Groups of commands in the help.
const (
	groupShow   = "show"
	groupChange = "change"
)

// exitMeanings are the exit codes by number.
var exitMeanings = [...]string{
	exitOK:          "fine",
	exitFailed:      "failed",
	exitUsage:       "wrong usage",
	exitUnreachable: "daemon not reachable",
	exitDegraded:    "degraded (status), or there is something to mend (doctor)",
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "nexthopctl",
		Short:   "Show what nexthopd does and why",
		Long:    rootLong,
		Version: version.Get().Version,
		// Errors are printed once, on one line, by run.
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: c.checkFlags,
	}
	onlyCommands(root)
	root.SetOut(c.out)
	root.SetErr(c.errOut)
	root.SetVersionTemplate("nexthopctl {{.Version}}\n")
	codes := "\nExit codes:\n"
	for code, meaning := range exitMeanings {
		codes += fmt.Sprintf("  %d  %s\n", code, meaning)
	}
	root.SetUsageTemplate(root.UsageTemplate() + "{{if not .HasParent}}" + codes + "{{end}}")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd.CommandPath(), "%v", err)
	})
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", defaultSocket, "`path` of the daemon's unix socket (environment: "+socketEnv+")")
	flags.StringVarP(&c.format, "output", "o", formatTable, "`format` of the output: table, wide or json; also azure (learned, advertised) and jsonl (monitor)")
	flags.BoolVar(&c.noColor, "no-color", false, "no colour, even on a terminal (environment: NO_COLOR)")
	// The name is a constant that was defined two lines above, so this cannot fail.
	_ = root.RegisterFlagCompletionFunc("output", func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return formatsOf(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	root.AddGroup(&cobra.Group{ID: groupShow, Title: "Commands that show:"}, &cobra.Group{ID: groupChange, Title: "Commands that change something:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupShow, c.statusCommand(), c.peersCommand(), c.bfdCommand(), c.learnedCommand(), c.advertisedCommand(), c.routesCommand(),
		c.explainCommand(), c.policyCommand(), c.failoversCommand(), c.monitorCommand(), c.doctorCommand(), c.versionCommand())
	add(groupChange, c.peerCommand(), c.reloadCommand(), c.drainCommand(), c.undrainCommand(), c.resumeCommand(), c.resyncCommand(), c.flushCommand())
	root.AddCommand(c.manCommand())
	return root
}

// onlyCommands completes a command that does nothing but hold others: alone it prints its
// help, and what is no command is a mistake.
func onlyCommands(cmd *cobra.Command) {
	// cobra sets its default of 2 only where it prints suggestions itself.
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := ""
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = ": did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage(cmd.CommandPath(), "there is no command %q%s", args[0], hint)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// formats is the annotation of a command that knows table, wide, json and those named.
func formats(more ...string) map[string]string {
	return map[string]string{formatsKey: strings.Join(append([]string{formatTable, formatWide, formatJSON}, more...), " ")}
}

func formatsOf(cmd *cobra.Command) []string { return strings.Fields(cmd.Annotations[formatsKey]) }

// checkFlags settles the flags that all commands share.
func (c *cli) checkFlags(cmd *cobra.Command, _ []string) error {
	if cmd.Flags().Changed("socket") && c.socket == "" {
		return usage(cmd.CommandPath(), "--socket is empty, it wants a path such as %s", defaultSocket)
	}
	// Of an empty NO_COLOR no-color.org says that it doesn't count.
	c.color = c.terminal && !c.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if known := formatsOf(cmd); len(known) > 0 && !slices.Contains(known, c.format) {
		return usage(cmd.CommandPath(), "-o %q is not a format of %s, which has %s", c.format, cmd.Name(), strings.Join(known, ", "))
	}
	return nil
}

// client connects to the socket of the flag, else of the environment, else the default.
func (c *cli) client(cmd *cobra.Command) *client {
	socket := c.socket
	if env := os.Getenv(socketEnv); env != "" && !cmd.Flags().Changed("socket") {
		socket = env
	}
	return &client{socket: socket, command: cmd.CommandPath(), line: commandLine(cmd)}
}

// commandLine is what was typed, to be typed again behind sudo.
func commandLine(cmd *cobra.Command) string {
	words := append([]string{cmd.CommandPath()}, cmd.Flags().Args()...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		words = append(words, "--"+f.Name)
		if f.Value.Type() != "bool" {
			words = append(words, f.Value.String())
		}
	})
	for i, w := range words[1:] {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("-_./:=,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}) {
			words[i+1] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// noArgs and maxOneArg are cobra's validators with our error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd.CommandPath(), "%s takes no argument, got %q", cmd.Name(), args[0])
	}
	return nil
}

func maxOneArg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(cmd.CommandPath(), "%s takes one peer at most, got %d arguments", cmd.Name(), len(args))
	}
	return nil
}

// printJSON prints one JSON value as the daemon sent it, indented.
func (c *cli) printJSON(raw []byte) error {
	text, err := indent(raw, "")
	if err != nil {
		return err
	}
	_, err = c.out.Write(append(text, '\n'))
	return err
}

// printValue is printJSON for a value of ours.
func (c *cli) printValue(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.printJSON(raw)
}

// listPrinter prints a JSON array element by element, and nothing before the first one
// is there: a failed request leaves standard output empty.
type listPrinter struct {
	w             io.Writer
	before, after string // what the array stands in
	prefix        string // its indentation
	n             int
}

func (l *listPrinter) add(raw []byte) error {
	text, err := indent(raw, l.prefix+"  ")
	if err != nil {
		return err
	}
	open := ","
	if l.n == 0 {
		open = l.before + "["
	}
	l.n++
	_, err = fmt.Fprintf(l.w, "%s\n%s  %s", open, l.prefix, text)
	return err
}

func (l *listPrinter) end() error {
	text := "\n" + l.prefix + "]"
	if l.n == 0 {
		text = l.before + "[]"
	}
	_, err := io.WriteString(l.w, text+l.after+"\n")
	return err
}
