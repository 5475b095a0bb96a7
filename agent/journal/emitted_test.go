package journal

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every event of the catalogue is logged somewhere: what operators are told to watch for
// must be able to happen.
func TestEveryEventIsLogged(t *testing.T) {
	source, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z]\w*) = Event\{`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	if len(names) != len(Events()) {
		t.Errorf("event.go declares %d events, and Events lists %d", len(names), len(Events()))
	}
	var all strings.Builder
	for _, folder := range []string{"../../agent", "../../cmd"} {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "../../agent/journal" {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if !regexp.MustCompile(`\bjournal\.` + name + `\b`).MatchString(all.String()) {
			t.Errorf("nothing logs the event %s", name)
		}
	}
}
