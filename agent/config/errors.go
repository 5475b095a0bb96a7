package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake and its place. Line and Col count from 1; they are 0 where the
// mistake is the file as a whole, and Field is empty where no key is meant.
type Error struct {
	File      string
	Line, Col int
	Field     string // the keys that lead to it: peers[1].hold-time
	Msg       string // what is wrong, and what is allowed
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors are all mistakes of a file, sorted by place. It is never empty as an error.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// sort orders by place. Mistakes at one place stay in the order they were found.
func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}
