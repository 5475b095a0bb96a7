package man

import (
	"bytes"
	"testing"

	"github.com/spf13/cobra"
)

func TestText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a minus that can be copied", "use --config", "use \\-\\-config\n"},
		{"no request by accident", ".conf is\n'quoted'", "\\&.conf is\n\\(aqquoted\\(aq\n"},
		{"paragraphs and examples", "one\n\n    ls -l\n\ntwo", "one\n.IP\n.nf\n    ls \\-l\n.fi\n.IP\ntwo\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if Text(&b, tt.text, ".IP"); b.String() != tt.want {
				t.Errorf("Text(%q) = %q, want %q", tt.text, b.String(), tt.want)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool"}
	peer := &cobra.Command{Use: "peer NAME", Short: "Show a peer", Run: run}
	reset := &cobra.Command{Use: "reset", Short: "Reset it", Example: "  tool peer reset -r x", Run: run}
	reset.Flags().StringP("reason", "r", "none", "say `text` to the peer")
	peer.AddCommand(reset)
	root.AddCommand(peer, &cobra.Command{Use: "secret", Hidden: true, Run: run})
	var b bytes.Buffer
	Commands(&b, root)
	want := ".TP\n.B peer NAME\nShow a peer.\n" +
		".TP\n.B peer reset\nReset it.\n.RS\n.TP\n\\fB\\-r\\fR, \\fB\\-\\-reason\\fR \\fItext\\fR\nsay text to the peer.\nDefault: none.\n.RE\n.IP\n.nf\n  tool peer reset \\-r x\n.fi\n"
	if b.String() != want {
		t.Errorf("Commands = %q, want %q", b.String(), want)
	}
}
