// Command generate writes what can be known from the code. For the packages, beside the
// programs: the journal's catalogue, the schema of the configuration for editors, and the
// manual page nexthopd.yaml(5). It runs in every build of the packages, so that none of
// the three can be out of date. For the manual, with -docs: the pages that are lists of
// what the code knows. They are in the repository; a test says when one is out of date.
//
//	go run ./packaging/generate [-docs] DIRECTORY
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/packaging/prometheus"
)

// file is one of those written, and how.
type file struct {
	name  string
	write func(io.Writer) error
}

func main() {
	docs := flag.Bool("docs", false, "write the manual's generated pages")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: go run ./packaging/generate [-docs] DIRECTORY")
		os.Exit(2)
	}
	var err error
	if *docs {
		err = write(flag.Arg(0), manual())
	} else {
		err = generate(flag.Arg(0), "docs/nexthopd.yaml")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// manual are the generated pages of docs.
func manual() []file {
	return []file{
		{"journal.md", func(w io.Writer) error { return writeEvents(w, journal.Events(), journal.Fields()) }},
		{"metrics.md", func(w io.Writer) error { return writeMetrics(w, prometheus.Rules) }},
	}
}

// generate writes what the packages contain.
func generate(dir, reference string) error {
	text, err := os.ReadFile(reference)
	if err != nil {
		return err
	}
	ref, err := readReference(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", reference, err)
	}
	keys := config.Keys()
	if err := ref.covers("", keys); err != nil {
		return fmt.Errorf("%s: %w", reference, err)
	}
	return write(dir, []file{
		{"nexthopd.catalog", func(w io.Writer) error { return writeCatalog(w, journal.Events()) }},
		{"nexthopd.schema.json", func(w io.Writer) error { return writeSchema(w, keys, ref) }},
		{"nexthopd.yaml.5", func(w io.Writer) error { return writePage(w, keys, ref) }},
	})
}

func write(dir string, files []file) error {
	for _, f := range files {
		out, err := os.Create(filepath.Join(dir, f.name))
		if err != nil {
			return err
		}
		if err := f.write(out); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return nil
}
