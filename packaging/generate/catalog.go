package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nexthopd/nexthopd/agent/journal"
)

// width is where the catalogue's lines break: journalctl prints them as they are, with a
// frame of two columns.
const width = 76

// writeCatalog writes the journal's catalogue (journald's "message catalog" format): an
// entry per event, which `journalctl -x` shows below the record.
func writeCatalog(w io.Writer, events []journal.Event) error {
	text := "# The events of nexthopd for `journalctl -x`. Generated, do not edit.\n"
	for _, e := range events {
		// Without the empty line before "--", the entry is taken for text of the one before.
		text += fmt.Sprintf("\n-- %s\nSubject: nexthopd: %s\nDefined-By: nexthopd\nDocumentation: man:nexthopd(8)\n\n%s\n\n%s\n",
			e.ID, e.Message, wrap(e.Cause), wrap("What to do: "+e.Next))
	}
	_, err := io.WriteString(w, text)
	return err
}

func wrap(text string) string { return breakAt(text, width) }

// fill is wrap for a page of the manual.
func fill(text string) string { return breakAt(text, 100) }

func breakAt(text string, width int) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n")
}
