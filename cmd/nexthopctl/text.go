package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// clean returns s fit for a terminal: whatever is not printable (control characters of
// C0 and C1, DEL, direction overrides, invalid UTF-8) is written as a Go escape, so an
// NVA can neither colour, move the cursor nor forge a second line.
func clean(s string) string {
	i := 0
	for i < len(s) && s[i] >= 0x20 && s[i] < 0x7f {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}

// cleanJSON is clean for JSON text: JSON itself demands escapes for C0 only, and a
// terminal obeys the C1 range and DEL too. The value stays the same.
func cleanJSON(raw []byte) []byte {
	if bytes.IndexFunc(raw, unfitInJSON) < 0 {
		return raw
	}
	out := make([]byte, 0, len(raw)+16)
	for _, r := range string(raw) {
		switch {
		case !unfitInJSON(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// unfitInJSON leaves ASCII below DEL alone: raw control characters cannot occur inside
// the strings of valid JSON, and between its tokens they are layout.
func unfitInJSON(r rune) bool { return r >= 0x7f && !strconv.IsPrint(r) }

// age writes a duration in its two largest units: 42s, 12m30s, 3h12m, 5d3h.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// since writes how long ago t was; empty when it is not known.
func (c *cli) since(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return age(c.now().Sub(*t))
}

// plural writes "1 problem" and "2 problems".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// SGR codes of the few colours in use.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

// paint colours s where colour is wanted. s must be clean already.
func (c *cli) paint(sgr, s string) string {
	if !c.color || sgr == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// indent lays out JSON for reading, fit for a terminal.
func indent(raw []byte, prefix string) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, cleanJSON(raw), prefix, "  "); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil // json.Indent keeps trailing space
}

// compact writes JSON on one line, fit for a terminal.
func compact(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, cleanJSON(raw)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
