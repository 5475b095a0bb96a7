package main

import (
	"cmp"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// table aligns rows under their headings: one record per line, two blanks between
// columns, no borders, "-" for what is empty (so that awk counts columns right).
//
// A row is kept as one string, not as cells: a table of a million paths then costs
// little more than its own text.
type table struct {
	headings []string
	widths   []int
	rows     []tableRow
}

type tableRow struct {
	key  rowKey
	text string // clean cells, tab-separated: clean leaves no tab inside a cell
}

// rowKey is what rows are ordered by.
type rowKey struct {
	prefix netip.Prefix
	then   string
}

func newTable(headings ...string) *table {
	t := &table{headings: headings, widths: make([]int, len(headings))}
	for i, h := range headings {
		t.widths[i] = len(h)
	}
	return t
}

// add appends a row; cells must be as many as headings.
func (t *table) add(key rowKey, cells ...string) {
	var b strings.Builder
	n := len(cells)
	for _, cell := range cells {
		n += len(cell)
	}
	b.Grow(n)
	for i, cell := range cells {
		if cell == "" {
			cell = "-"
		}
		cell = clean(cell)
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		if i > 0 {
			b.WriteByte('\t')
		}
		b.WriteString(cell)
	}
	t.rows = append(t.rows, tableRow{key: key, text: b.String()})
}

// sort orders the rows by prefix (IPv4 first, numerically, shorter first), then by the
// second key, then as they came.
func (t *table) sort() {
	slices.SortStableFunc(t.rows, func(a, b tableRow) int {
		return cmp.Or(a.key.prefix.Compare(b.key.prefix), strings.Compare(a.key.then, b.key.then))
	})
}

// write prints headings and rows. paint, when not nil, colours a cell of a column.
func (t *table) write(w io.Writer, paint func(column int, cell string) string) error {
	line := make([]byte, 0, 256)
	for i := -1; i < len(t.rows); i++ {
		line = line[:0]
		text := strings.Join(t.headings, "\t")
		if i >= 0 {
			text = t.rows[i].text
		}
		pad := 0
		for col := 0; ; col++ {
			cell, rest, more := strings.Cut(text, "\t")
			for range pad {
				line = append(line, ' ')
			}
			pad = t.widths[col] - utf8.RuneCountInString(cell) + 2
			if paint != nil && i >= 0 {
				cell = paint(col, cell)
			}
			line = append(line, cell...)
			if !more {
				break
			}
			text = rest
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// prefixKey reads a prefix for sorting; the zero Prefix, which sorts first, when it is
// none (ip(8) writes 0.0.0.0/0 as "default").
func prefixKey(s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
