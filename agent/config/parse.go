package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSize bounds a configuration file: the YAML parser's time grows faster than its
// size. 1 MiB is more than 10,000 peers.
const maxSize = 1 << 20

// Load reads and validates the file. What is wrong with it, or with reading it, is an Errors.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{{File: path, Msg: err.Error()}}
	}
	return Parse(path, data)
}

// readFile is os.ReadFile with a bound and one clear line for what can be in the way.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a directory, must be a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	return data, nil
}

// plainPathError drops operation and path from an error of package os: both are already in the line.
func plainPathError(err error) error {
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file")
	case errors.As(err, &pathErr):
		return pathErr.Err
	}
	return err
}

// Parse validates data, the contents of file, and fills in every default. The error is
// an Errors with all mistakes, but a file that is not YAML has one: the first. Beyond
// data it looks at the mode of the password files (never at what is in them), at the web
// configuration, at CREDENTIALS_DIRECTORY, and at iproute2's names of routing tables.
func Parse(file string, data []byte) (*Config, error) {
	d := &decoder{file: file, nodes: map[string]node{}, bad: map[string]bool{}, setKeys: setKeys}
	c := defaults()
	if root, ok := d.parseYAML(data); ok {
		d.root = root
		readMap(d, root, &c, configKeys)
		d.check(&c)
	}
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	return &c, nil
}

// parseYAML makes the tree of the file's one document.
func (d *decoder) parseYAML(data []byte) (root node, ok bool) {
	root = node{line: 1, col: 1}
	if len(data) > maxSize {
		d.fail(root, "is larger than %d bytes", maxSize)
		return root, false
	}
	// goccy/go-yaml v1.19.2 counts a comment that ends with CR LF as two lines, which
	// would make every place after it wrong.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			root.line = i + 1
			d.fail(root, "is not UTF-8 text")
			return root, false
		}
	}
	tree, err := parseAST(data)
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			root.line, root.col = at.GetToken().Position.Line, at.GetToken().Position.Column
			err = errors.New(at.GetMessage())
		}
		d.fail(root, "not valid YAML: %s%s", err, syntaxHint(err.Error()))
		return root, false
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if root.Node != nil {
			n := d.node("", doc.Body, root)
			d.fail(n, "a second YAML document, must be one")
			return root, false
		}
		root = d.node("", doc.Body, root)
	}
	return root, true
}

// parseAST guards against panics of the YAML parser: one would take a running daemon
// down at a reload, where a line in the log is the right answer.
func parseAST(data []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser failed: %q", fmt.Sprint(r))
		}
	}()
	// Duplicate keys are ours to report: the parser would stop at the first.
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// syntaxHint says what usually is behind a message of the YAML parser.
func syntaxHint(msg string) string {
	switch {
	case strings.HasPrefix(msg, "mapping value is not allowed"):
		return " (check the indentation here and of the next line; quote a value that ends with a colon, as in \"fd00::\")"
	case strings.Contains(msg, "'\\t'"), strings.Contains(msg, "'\t'"):
		return " (indent with spaces, not with tabs)"
	}
	return ""
}
