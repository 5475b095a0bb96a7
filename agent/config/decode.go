package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/nexthopd/nexthopd/internal/near"
)

// decoder walks the tree of a file, with the tables of keys as its map. It goes on
// after a mistake, so that all are reported.
type decoder struct {
	file  string
	errs  Errors
	nodes map[string]node // by path: what the file gives, for the checks between values
	bad   map[string]bool // by path: has a mistake, so checks with it would mislead
	root  node
	sets  *sets // see named
	// setKeys is the table of that name: a reference to it here would be a cycle.
	setKeys []key[sets]
}

// node is a value in the file.
type node struct {
	ast.Node
	path      string // the keys that lead to it
	line, col int
}

// fail reports a mistake at n.
func (d *decoder) fail(n node, format string, args ...any) {
	d.bad[n.path] = true
	d.errs = append(d.errs, &Error{
		File: d.file, Line: n.line, Col: n.col, Field: n.path, Msg: fmt.Sprintf(format, args...),
	})
}

// node places a value. Where it has no text of its own (`key:` and nothing more), its
// place is that of the parent, which callers make the key's.
func (d *decoder) node(path string, value ast.Node, parent node) node {
	n := node{Node: value, path: path, line: parent.line, col: parent.col}
	tk := value.GetToken()
	if m, ok := value.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		tk = m.Values[0].Key.GetToken() // its own token is the first colon
	}
	if tk != nil && tk.Type != token.ImplicitNullType {
		n.line, n.col = tk.Position.Line, tk.Position.Column
	}
	return n
}

// isNull tells a key without a value.
func (n node) isNull() bool {
	if n.Node == nil {
		return true
	}
	_, ok := n.Node.(*ast.NullNode)
	return ok
}

// kind names what is in the file, for "is a list, must be ...". It never shows a value.
func (n node) kind() string {
	if n.isNull() {
		return "empty"
	}
	switch n.Node.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "a YAML anchor, alias or tag, which are not supported"
	}
	return "a single value"
}

// scalar returns the text of a single value as it was written, whatever YAML makes of
// it: 65147, "65147" and 10.1.0.0/16 are all text here.
func (n node) scalar() (string, bool) {
	switch v := n.Node.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// elements returns the members of a list. A single value stands for a list of one.
func (d *decoder) elements(n node, what string) []node {
	if n.isNull() {
		return nil
	}
	var members []ast.Node
	if seq, ok := n.Node.(*ast.SequenceNode); ok {
		members = seq.Values
	} else if _, ok := n.scalar(); ok {
		members = []ast.Node{n.Node}
	} else {
		d.fail(n, "is %s, must be a list of: %s", n.kind(), what)
	}
	nodes := make([]node, len(members))
	for i, member := range members {
		nodes[i] = d.node(fmt.Sprintf("%s[%d]", n.path, i), member, n)
		d.nodes[nodes[i].path] = nodes[i]
	}
	return nodes
}

// at returns the value at a path, if the file gives it.
func (d *decoder) at(path string) (node, bool) {
	n, ok := d.nodes[path]
	return n, ok
}

// good says whether the value at a path, given or not, may be used in a check.
func (d *decoder) good(path string) bool { return !d.bad[path] }

// line says where a value is, for a mistake elsewhere that has to do with it.
func (d *decoder) line(path string) string {
	if n, ok := d.at(path); ok {
		return fmt.Sprintf("line %d", n.line)
	}
	return "the default"
}

// readMap reads a mapping into s. A mapping without a value is one without keys: what
// is left when all its keys are commented out.
func readMap[S any](d *decoder, n node, s *S, keys []key[S]) {
	m, ok := n.Node.(*ast.MappingNode)
	if !ok && !n.isNull() {
		d.fail(n, "is %s, must be a mapping with keys among: %s", n.kind(), keyNames(keys))
		return
	}
	if ok {
		for _, entry := range m.Values {
			readEntry(d, n, entry, s, keys)
		}
	}
	for _, k := range keys {
		missing := node{path: join(n.path, k.name), line: n.line, col: n.col}
		if _, given := d.at(missing.path); k.required && !given {
			d.fail(missing, "is missing, allowed: %s", k.allowed)
		}
	}
}

func readEntry[S any](d *decoder, parent node, entry *ast.MappingValueNode, s *S, keys []key[S]) {
	name := entry.Key.GetToken().Value
	at := d.node(join(parent.path, plainName(name)), entry.Key, parent) // the key's own place
	if _, ok := entry.Key.(*ast.StringNode); !ok {
		d.fail(at, "is not a plain key, allowed: %s", keyNames(keys))
		return
	}
	for _, k := range keys {
		if k.name != name {
			continue
		}
		if first, ok := d.at(at.path); ok {
			d.fail(at, "duplicate key, first in line %d", first.line)
			return
		}
		value := d.node(at.path, entry.Value, at)
		d.nodes[at.path] = value
		k.read(d, value, s)
		return
	}
	hint := ""
	if near := nearest(name, keys); near != "" {
		hint = fmt.Sprintf("did you mean %q? ", near)
	}
	d.fail(at, "unknown key, %sallowed: %s", hint, keyNames(keys))
}

// plainName quotes a key that would spoil the line of its error.
func plainName(name string) string {
	if name != "" && isPrintable(name) && !strings.ContainsAny(name, " :") {
		return name
	}
	return strconv.Quote(name)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func keyNames[S any](keys []key[S]) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}

// nearest finds the key that was meant by an unknown one; "" when none looks like it.
func nearest[S any](name string, keys []key[S]) string {
	plain := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
	}
	name = plain(name)
	best, bestDistance := "", 1+max(1, min(len(name), 64)/3)
	for _, k := range keys {
		distance := near.Distance(name, plain(k.name))
		if len(name) > 2 && (strings.HasPrefix(plain(k.name), name) || strings.HasPrefix(name, plain(k.name))) {
			distance = min(distance, 1) // password for password-file
		}
		if distance < bestDistance {
			best, bestDistance = k.name, distance
		}
	}
	return best
}
