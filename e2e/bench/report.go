package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// unit says how a figure is written.
type unit int

const (
	seconds unit = iota
	bytes
	count
	perSecond
	factor
)

// row is a line of the tables.
type row struct {
	key, text string
	unit      unit
	most      float64 // where not 0: what was given up at
}

// rows in the order in which they are printed.
var rows = []row{
	{"load", "load: first UPDATE to last prefix with both next hops", seconds, 0},
	{"load-cpu", "… CPU until idle", seconds, 0},
	{"load-writes", "… route notifications per prefix", factor, 0},
	{"reset", "session reset: last packet through the dead NVA", seconds, 0},
	{"reset-fib", "… last route free of it", seconds, 0},
	{"reset-lost", "… packets lost", count, 0},
	{"reset-cpu", "… CPU until idle", seconds, 0},
	{"reset-writes", "… route notifications per prefix", factor, 0},
	{"link", "link loss: first to last lost packet", seconds, 0},
	{"link-lost", "… packets lost", count, 0},
	{"silent", "silent death, BFD 300 ms x 3: last packet lost after the cut", seconds, 0},
	{"silent50", "silent death, BFD 50 ms x 3: last packet lost after the cut", seconds, 0},
	{"backup", "active/passive, session reset: last packet through the dead NVA", seconds, 0},
	{"backup-fib", "… last route free of it", seconds, 0},
	{"backup-lost", "… packets lost", count, 0},
	{"backup-cpu", "… CPU until idle", seconds, 0},
	{"backup-writes", "… route notifications per prefix", factor, 0},
	{"prepend", "prepend: ECMP to one next hop for all", seconds, 0},
	{"prepend-cpu", "… CPU until idle", seconds, 0},
	{"prepend-writes", "… route notifications per prefix", factor, 0},
	{"withdraw", "withdraw of everything", seconds, 0},
	{"withdraw-cpu", "… CPU until idle", seconds, 0},
	{"withdraw-writes", "… route notifications per prefix", factor, 0},
	{"repair", "repair of a flushed table, after the last delete", seconds, repairLimit.Seconds()},
	{"kill-lost", "SIGKILL and start: packets lost", count, 0},
	{"kill-gap", "… longest interruption of a flow", seconds, 0},
	{"term-lost", "SIGTERM and start: packets lost", count, 0},
	{"term-gap", "… longest interruption of a flow", seconds, 0},
	{"rss-steady", "resident memory after the load", bytes, 0},
	{"rss-peak", "… its peak until the first restart, failovers included", bytes, 0},
	{"cpu", "CPU until the first restart", seconds, 0},
}

var titles = map[string]string{
	"nexthopd": "nexthopd", "bird": "BIRD 2", "frr": "FRR", "nexthopd-compat": "nexthopd, compat_mode=1",
}

// format writes a figure with three digits.
func (r row) format(v float64) string {
	if r.most > 0 && v >= r.most {
		return "> " + row{unit: r.unit}.format(r.most)
	}
	three := func(v float64) string {
		digits := 2
		if v > 0 {
			digits = min(max(2-int(math.Floor(math.Log10(v))), 0), 2)
		}
		return fmt.Sprintf("%.*f", digits, v)
	}
	switch r.unit {
	case seconds:
		if v < 1 {
			return three(v*1000) + " ms"
		}
		return three(v) + " s"
	case bytes:
		return fmt.Sprintf("%.0f MB", v/1e6)
	case factor:
		return three(v)
	case perSecond:
		return fmt.Sprintf("%.0fk/s", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// ratio of ours to theirs, as the targets put it: lower is better.
func ratio(ours, theirs float64) string {
	if theirs == 0 {
		if ours == 0 {
			return "="
		}
		return "–"
	}
	if q := ours / theirs; q < 0.095 {
		return fmt.Sprintf("%.3f", q)
	} else {
		return fmt.Sprintf("%.2f", q)
	}
}

// markdown writes the whole report.
func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d CPUs (%s). Medians of %d.", r.At.Format(time.DateOnly), r.Kernel, r.CPUs, r.CPU, r.Runs)
	for _, c := range []string{"bird", "frr"} {
		if v := r.Versions[c]; v != "" {
			fmt.Fprintf(&b, " %s.", v)
		}
	}
	fmt.Fprintf(&b, " The benchmark itself (feeders, traffic, observer) used %.0f %% of one CPU.\n", 100*r.Own)
	for _, n := range r.Sizes {
		fmt.Fprintf(&b, "\n**%s prefixes from each of two NVAs**\n\n", thousands(n))
		r.sizeTable(&b, n)
	}
	r.writerTable(&b)
	b.WriteString("\n**The targets**\n\n| what | target | measured | |\n|---|---|---|---|\n")
	for _, t := range targets {
		b.WriteString(t.line(r))
	}
	if len(r.Failed) > 0 {
		b.WriteString("\nBroken off:\n\n")
		for _, f := range r.Failed {
			fmt.Fprintf(&b, "- %s\n", f)
		}
	}
	return b.String()
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// sizeTable has a column per contender and our ratio to each.
func (r *results) sizeTable(b *strings.Builder, n int) {
	var columns, peers []string
	for _, c := range contenders {
		if slices.ContainsFunc(r.Values, func(v value) bool { return v.Column == c.name && v.N == n }) {
			columns = append(columns, c.name)
			if c.name == "bird" || c.name == "frr" {
				peers = append(peers, c.name)
			}
		}
	}
	head, line := "| |", "|---|"
	for _, c := range columns {
		head += " " + titles[c] + " |"
		line += "---:|"
	}
	for _, p := range peers {
		head += " ours / " + titles[p] + " |"
		line += "---:|"
	}
	fmt.Fprintf(b, "%s\n%s\n", head, line)
	for _, row := range rows {
		text, any := "| "+row.text+" |", false
		for _, c := range columns {
			v, ok := r.median(c, n, row.key)
			any = any || ok
			if ok {
				text += " " + row.format(v)
			}
			text += " |"
		}
		ours, ok := r.median(contenders[0].name, n, row.key)
		for _, p := range peers {
			if theirs, has := r.median(p, n, row.key); ok && has {
				text += " " + ratio(ours, theirs)
			}
			text += " |"
		}
		if any {
			b.WriteString(text + "\n")
		}
	}
}

func (r *results) writerTable(b *strings.Builder) {
	b.WriteString("\n**The FIB writer alone** (routes that name a group), against messages encoded before\n\n" +
		"| | writer | floor | writer / floor |\n|---|---:|---:|---:|\n")
	for _, n := range r.Sizes {
		for _, what := range []string{"insert", "replace", "delete"} {
			w, ok := r.median(writerColumn, n, "writer-"+what)
			f, has := r.median(writerColumn, n, "floor-"+what)
			if ok && has {
				rate := row{unit: perSecond}
				fmt.Fprintf(b, "| %s %s | %s | %s | %.2f |\n", what, thousands(n), rate.format(w), rate.format(f), w/f)
			}
		}
	}
}

// The lines between which a page holds the report.
const (
	markBegin = "<!-- make bench writes what follows -->"
	markEnd   = "<!-- end of what make bench writes -->"
)

// update puts the text between the marks of a page; a page without marks is an error.
func update(page, text string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), markBegin)
	_, tail, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", page, markBegin, markEnd)
	}
	return os.WriteFile(page, []byte(head+markBegin+"\n\n"+text+"\n"+markEnd+tail), 0o644)
}
