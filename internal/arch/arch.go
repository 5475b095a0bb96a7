// Package arch holds the rules of who may import whom, and checks them. It reads the
// import lines of every Go file, whatever its build tags, and compiles nothing.
//
// The arrows: cmd sees everything; agent decides and never sees GoBGP or netlink;
// agent/bgp alone sees GoBGP, fib/kernel alone sees netlink; agent/rib and fib are
// pure. So the agent's tests need no root, no socket and no BGP.
package arch

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Import is one import line.
type Import struct {
	File string // relative to the module's root, with slashes
	Path string // what is imported
}

// Package is the folder of the importing file, relative to the module's root.
func (i Import) Package() string { return path.Dir(i.File) }

// Test tells whether the file is a test, which may import more.
func (i Import) Test() bool { return strings.HasSuffix(i.File, "_test.go") }

// Rules say who may import what.
type Rules struct {
	Module string
	// Reserved names, by import path prefix, what only the listed packages and the
	// folders below them may import, their tests and everybody else's included.
	Reserved map[string][]string
	// Packages lists what each package of the module may import; "folder/..." stands for
	// the folder and those below it that have no rule of their own. A package without a
	// rule may not exist: whoever adds one decides where its arrows go.
	Packages map[string]Allowed
}

// Allowed is what one package may import besides the standard library.
type Allowed struct {
	Module []string // packages of the module; "..." is any
	Tests  []string // more of them, for its tests
	// StdOnly forbids every third-party module, tests included.
	StdOnly bool
}

// Read returns the import lines of all Go files below root, leaving out nested modules,
// testdata and folders that the go command ignores.
func Read(root fs.FS) ([]Import, error) {
	var imports []Import
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "." {
				return nil
			}
			base := d.Name()
			if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
			}
			imports = append(imports, Import{File: name, Path: p})
		}
		return nil
	})
	return imports, err
}

// Check returns a sentence for every import against the rules and for every package
// without a rule, in the order of the imports.
func (r Rules) Check(imports []Import) []string {
	var broken []string
	unknown := map[string]bool{}
	for _, i := range imports {
		allowed, ok := r.lookup(i.Package())
		if !ok {
			if !unknown[i.Package()] {
				unknown[i.Package()] = true
				broken = append(broken, fmt.Sprintf("%s: package %s has no rule; say in internal/arch what it may import", i.File, i.Package()))
			}
			continue
		}
		if why := r.check(i, allowed); why != "" {
			broken = append(broken, fmt.Sprintf("%s imports %s: %s", i.File, i.Path, why))
		}
	}
	return broken
}

// lookup finds a package's rule: its own, or that of a folder above it, "folder/...".
func (r Rules) lookup(pkg string) (Allowed, bool) {
	if a, ok := r.Packages[pkg]; ok {
		return a, true
	}
	for dir := pkg; dir != "."; dir = path.Dir(dir) {
		if a, ok := r.Packages[dir+"/..."]; ok {
			return a, true
		}
	}
	return Allowed{}, false
}

func (r Rules) check(i Import, allowed Allowed) string {
	for prefix, owners := range r.Reserved {
		if within(i.Path, prefix) && !slices.ContainsFunc(owners, func(o string) bool { return within(i.Package(), o) }) {
			return "only " + strings.Join(owners, " and ") + " may"
		}
	}
	target, ours := strings.CutPrefix(i.Path, r.Module+"/")
	switch {
	case ours:
		may := allowed.Module
		if i.Test() {
			may = slices.Concat(may, allowed.Tests)
		}
		if target != i.Package() && !slices.Contains(may, target) && !slices.Contains(may, "...") {
			return fmt.Sprintf("the arrow %s -> %s is not among %s", i.Package(), target, arrows(i.Package(), may))
		}
	case allowed.StdOnly && !standard(i.Path):
		return "package " + i.Package() + " imports nothing outside this module but the standard library"
	}
	return ""
}

func arrows(from string, may []string) string {
	if len(may) == 0 {
		return from + " -> (none)"
	}
	return from + " -> " + strings.Join(may, ", ")
}

// standard tells whether an import path is of the standard library: the first element
// of every other one is a host name.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// within tells whether name is root or below it. A major version counts as below.
func within(name, root string) bool {
	return name == root || strings.HasPrefix(name, root+"/")
}

// Chain returns the shortest way in the import graph from a package to one whose path is
// prefix or below, both ends included, or nil when there is none.
func Chain(graph map[string][]string, from, prefix string) []string {
	came := map[string]string{from: ""}
	queue := []string{from}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if p != from && within(p, prefix) {
			var chain []string
			for ; p != ""; p = came[p] {
				chain = append(chain, p)
			}
			slices.Reverse(chain)
			return chain
		}
		for _, next := range graph[p] {
			if _, seen := came[next]; !seen {
				came[next] = p
				queue = append(queue, next)
			}
		}
	}
	return nil
}
