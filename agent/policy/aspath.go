package policy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// boundary is what _ stands for in the expression for an AS path: its beginning, its end, or what is
// between two ASNs. It is GoBGP's, so that both sides read an expression alike.
const boundary = "(^|[,{}() ]|$)"

// Pattern is a condition on an AS path. What is given must hold together.
type Pattern struct {
	Regexp   string // over the path as routers write it: "65001 65002 {65003,65004}"
	Contains uint32 // 0: not asked for
	Starts   uint32 // the neighbour
	Ends     uint32 // the origin
	Length   Length

	re *regexp.Regexp
}

// Length is a condition on the length of an AS path, as the decision counts it. The zero
// value is none.
type Length struct {
	Op string // "", "ge", "le", "eq"
	N  int
}

// maxLength is more than the longest AS path that fits into an UPDATE.
const maxLength = 2000

// ParseRegexp reads a regular expression (RE2) over an AS path, with _ as routers have it.
func ParseRegexp(text string) (Pattern, error) {
	if text == "" {
		return Pattern{}, fmt.Errorf("%q is empty", text)
	}
	re, err := regexp.Compile(expand(text))
	if err != nil {
		// The error shows the expanded expression, which nobody wrote.
		if _, plain := regexp.Compile(text); plain != nil {
			err = plain
		}
		return Pattern{}, fmt.Errorf("%q is not a regular expression: %w", text, err)
	}
	return Pattern{Regexp: text, re: re}, nil
}

// expand writes out what _ stands for.
func expand(text string) string { return strings.ReplaceAll(text, "_", boundary) }

// ParseLength reads "N", "ge N" or "le N".
func ParseLength(text string) (Length, error) {
	l := Length{Op: "eq"}
	words := strings.Fields(text)
	if len(words) == 2 && (words[0] == "ge" || words[0] == "le") {
		l.Op, words = words[0], words[1:]
	}
	if len(words) != 1 {
		return Length{}, fmt.Errorf("%q is not N, ge N or le N", text)
	}
	n, err := strconv.Atoi(words[0])
	if err != nil || words[0] != strconv.Itoa(n) || n < 0 || n > maxLength {
		return Length{}, fmt.Errorf("%q is not a number from 0 to %d", words[0], maxLength)
	}
	l.N = n
	return l, nil
}

func (l Length) String() string {
	if l.Op == "eq" {
		return strconv.Itoa(l.N)
	}
	return fmt.Sprintf("%s %d", l.Op, l.N)
}

func (l Length) matches(n int) bool {
	switch l.Op {
	case "eq":
		return n == l.N
	case "ge":
		return n >= l.N
	case "le":
		return n <= l.N
	}
	return true
}

// String writes the pattern as it is configured.
func (p Pattern) String() string {
	if p.Regexp != "" && p.Contains|p.Starts|p.Ends == 0 && p.Length == (Length{}) {
		return p.Regexp
	}
	var parts []string
	add := func(name, value string) { parts = append(parts, name+": "+value) }
	for _, x := range []struct {
		name string
		asn  uint32
	}{{"contains", p.Contains}, {"starts", p.Starts}, {"ends", p.Ends}} {
		if x.asn != 0 {
			add(x.name, strconv.FormatUint(uint64(x.asn), 10))
		}
	}
	if p.Length != (Length{}) {
		add("length", p.Length.String())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// Expressions are regular expressions that hold together exactly where the pattern does,
// but for its length. GoBGP treats some short forms in a way of its own ("_65001_" does
// not look into AS_SETs there): each is in parentheses, so that none is one of those.
func (p Pattern) Expressions() []string {
	var list []string
	if p.Regexp != "" {
		list = append(list, "(?:"+p.Regexp+")")
	}
	if p.Contains != 0 {
		list = append(list, fmt.Sprintf("_(?:%d)_", p.Contains))
	}
	if p.Starts != 0 {
		list = append(list, fmt.Sprintf("^(?:%d)_", p.Starts))
	}
	if p.Ends != 0 {
		list = append(list, fmt.Sprintf("_(?:%d)$", p.Ends))
	}
	return list
}

// Matches tells whether the pattern holds for a path. ASNs in confederation sets are not
// looked at: none of our peers is in a confederation with us.
func (p Pattern) Matches(path rib.ASPath) bool {
	switch {
	case p.Contains != 0 && !contains(path, p.Contains):
		return false
	case p.Starts != 0 && !begins(path, p.Starts):
		return false
	case p.Ends != 0 && !ends(path, p.Ends):
		return false
	case !p.Length.matches(path.Len()):
		return false
	}
	return p.re == nil || p.re.MatchString(path.String())
}

// delimited tells whether the ASNs of a segment have boundaries around them, see boundary.
func delimited(s rib.Segment, i int) bool {
	return s.Type != rib.ASConfedSet || i > 0 && i < len(s.ASNs)-1
}

func contains(path rib.ASPath, asn uint32) bool {
	for _, s := range path {
		for i, a := range s.ASNs {
			if a == asn && delimited(s, i) {
				return true
			}
		}
	}
	return false
}

// begins and ends look at sequences only: an AS_SET has no first and no last.
func begins(path rib.ASPath, asn uint32) bool {
	return len(path) > 0 && path[0].Type == rib.ASSequence && len(path[0].ASNs) > 0 && path[0].ASNs[0] == asn
}

func ends(path rib.ASPath, asn uint32) bool {
	if len(path) == 0 {
		return false
	}
	last := path[len(path)-1]
	return last.Type == rib.ASSequence && len(last.ASNs) > 0 && last.ASNs[len(last.ASNs)-1] == asn
}
