package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guide is what a section of the manual tells the reader to do, word for word.
type guide struct {
	before []string // commands
	edit   []string // lines of the configuration, as they are to read
	after  []string // commands
}

// readGuide finds the section's commands, which are indented, and the fenced lines
// between them.
func readGuide(t *testing.T, page, section string) guide {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", page))
	check(t, err)
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, section)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	var g guide
	fenced := false
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced:
			g.edit = append(g.edit, line)
		case indented && g.edit == nil:
			g.before = append(g.before, command)
		case indented:
			g.after = append(g.after, command)
		}
	}
	return g
}

var configKey = regexp.MustCompile(`^#?[- ]*([a-z-]+):`)

// edit makes the lines of the machine's configuration read as the guide wants them: each
// takes the place of the first that has its key, commented out or not.
func (h *host) edit(lines []string) {
	h.t.Helper()
	const path = "/etc/nexthopd/nexthopd.yaml"
	have := strings.Split(h.Run("cat "+path), "\n")
	next := 0
	for _, want := range lines {
		key := configKey.FindStringSubmatch(want)
		if key == nil {
			h.t.Fatalf("the guide wants a line %q, which has no key", want)
		}
		for ; ; next++ {
			if next == len(have) {
				h.t.Fatalf("%s has no line with the key %s, after those edited before", path, key[1])
			}
			if k := configKey.FindStringSubmatch(have[next]); k != nil && k[1] == key[1] {
				have[next] = want
				break
			}
		}
	}
	h.Write(path, strings.Join(have, "\n"))
}

// manual is the section that a newcomer with a deb follows on each release.
var manual = map[string][2]string{
	bookworm.Suite: {"docs/install.md", "From a deb"},
	trixie.Suite:   {"README.md", "Start"},
}

// newcomer has nothing but the page, and the package in the working folder.
func (h *host) newcomer(page, section string) {
	g := readGuide(h.t, page, section)
	if len(g.before) == 0 || len(g.edit) != 4 || len(g.after) != 2 {
		h.t.Fatalf("%s, %s: commands %q, lines to edit %q, commands %q; want some, 4 and 2", page, section, g.before, g.edit, g.after)
	}
	before := h.Run("ip route")
	h.inFolderWith(deb(oldVersion, "amd64"), g.before)
	h.fresh(before)
	h.edit(g.edit)
	restart, look := g.after[0], g.after[1]
	h.Run(restart)
	h.Wait("1 of 1 established", look)
}

// inFolderWith runs commands where the package is, and no other.
func (h *host) inFolderWith(file string, commands []string) {
	h.t.Helper()
	h.Run("mkdir -p /tmp/here && rm -f /tmp/here/* && ln -s /packages/" + file + " /tmp/here/")
	for _, c := range commands {
		h.Run("cd /tmp/here && " + c)
	}
}
