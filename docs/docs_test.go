// Package docs is the manual. Its tests hold what a reader would stumble over: links
// that lead nowhere, pages that nothing links to, reasons that nobody explains, statements
// that nothing tests.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// pages returns every Markdown page of the repository by its path, and makes the
// repository's root the working folder, so that each file has one path only.
func pages(t *testing.T) map[string]string {
	t.Helper()
	t.Chdir("..")
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			texts[f] = string(b)
		}
	}
	return texts
}

func TestLinks(t *testing.T) {
	texts := pages(t)
	linked := map[string]bool{"README.md": true}
	for page, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %s: %v", page, m[1], err)
				continue
			}
			if target != page {
				linked[target] = true
			}
			if anchor != "" && !slices.Contains(anchors(texts[target]), anchor) {
				t.Errorf("%s: link %s: no such heading", page, m[1])
			}
		}
	}
	for page := range texts {
		if !linked[page] {
			t.Errorf("%s: no other page links to it", page)
		}
	}
}

// anchors lists the headings of a page as they are linked to: lower case, words joined
// by hyphens, punctuation dropped.
func anchors(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			out = append(out, strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z':
					return r
				}
				return -1
			}, strings.ToLower(strings.TrimSpace(heading))))
		}
	}
	return out
}

// Every reason that the code can give has its row in the troubleshooting page, and
// every row there is a reason that the code can give.
func TestEveryReasonIsExplained(t *testing.T) {
	text, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, m[1])
	}
	reasons := reasonsOf(t, "../agent/rib", "../fib")
	if len(reasons) < 10 {
		t.Fatalf("found only the reasons %v in agent/rib; bug in this test?", reasons)
	}
	for _, r := range reasons {
		if !slices.Contains(rows, r) {
			t.Errorf("reason %s has no row in docs/troubleshooting.md", r)
		}
	}
	for _, r := range rows {
		if !slices.Contains(reasons, r) {
			t.Errorf("docs/troubleshooting.md explains %s, which agent/rib never says", r)
		}
	}
}

// reasonsOf reads the constants of type Reason in the folder rib. Some are named after
// string constants of the folder fib.
func reasonsOf(t *testing.T, rib, fib string) []string {
	t.Helper()
	literals := map[string]string{} // of fib's constants
	constants(t, fib, func(name string, _, value ast.Expr) {
		if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			literals[name] = unquote(t, lit)
		}
	})
	var reasons []string
	constants(t, rib, func(name string, typ, value ast.Expr) {
		if id, ok := typ.(*ast.Ident); !ok || id.Name != "Reason" {
			return
		}
		switch v := value.(type) {
		case *ast.BasicLit:
			reasons = append(reasons, unquote(t, v))
		case *ast.SelectorExpr:
			reason, ok := literals[v.Sel.Name]
			if !ok {
				t.Errorf("agent/rib: %s = fib.%s, which is not a string constant", name, v.Sel.Name)
			}
			reasons = append(reasons, reason)
		}
	})
	return reasons
}

// constants calls f for every constant that is declared in the folder with a value.
func constants(t *testing.T, folder string, f func(name string, typ, value ast.Expr)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			for _, spec := range d.Specs {
				s := spec.(*ast.ValueSpec)
				for i, name := range s.Names {
					if i < len(s.Values) {
						f(name.Name, s.Type, s.Values[i])
					}
				}
			}
		}
	}
}

func unquote(t *testing.T, lit *ast.BasicLit) string {
	t.Helper()
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The review of dependencies has every module that go.mod requires.
func TestDependencies(t *testing.T) {
	texts := pages(t)
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct, _, _ := strings.Cut(string(mod), "// indirect")
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(direct, -1) {
		if !strings.Contains(texts["docs/dependencies.md"], m[1]+" ") && !strings.Contains(texts["docs/dependencies.md"], m[1]+",") {
			t.Errorf("docs/dependencies.md lacks %s", m[1])
		}
	}
}

// The manual has every statement about what the route server does, and a test names each.
func TestEveryStatementIsTested(t *testing.T) {
	manual, err := os.ReadFile("semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var b []byte
			b, err = os.ReadFile(path)
			tests.Write(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const statements = 38
	for n := 1; n <= statements; n++ {
		if !regexp.MustCompile(fmt.Sprintf(`\*\*(S\d+, )*S%d(, S\d+)*\*\* `, n)).Match(manual) {
			t.Errorf("docs/semantics.md does not say S%d", n)
		}
		if !regexp.MustCompile(fmt.Sprintf(`\b(Test)?S%d(\b|_|[A-Z])`, n)).MatchString(tests.String()) {
			t.Errorf("no test names S%d", n)
		}
	}
}
