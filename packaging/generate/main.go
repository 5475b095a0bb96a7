// Command generate writes what the packages contain beside the programs and can be known
// from the code: the journal's catalogue, the schema of the configuration for editors,
// and the manual page nexthopd.yaml(5). It runs in every build of the packages, so that
// none of the three can be out of date.
//
//	go run ./packaging/generate DIRECTORY
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./packaging/generate DIRECTORY")
		os.Exit(2)
	}
	if err := generate(os.Args[1], "docs/nexthopd.yaml"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

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
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{"nexthopd.catalog", func(w io.Writer) error { return writeCatalog(w, journal.Events()) }},
		{"nexthopd.schema.json", func(w io.Writer) error { return writeSchema(w, keys, ref) }},
		{"nexthopd.yaml.5", func(w io.Writer) error { return writePage(w, keys, ref) }},
	} {
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
