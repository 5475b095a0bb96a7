package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Range is a prefix and what is inside it, by length: "10.0.0.0/8 ge 16 le 24".
type Range struct {
	Prefix netip.Prefix // masked
	Min    int          // lengths that match, both included
	Max    int
}

// ParseRange reads "PREFIX [ge N] [le N]". Without ge and le it is the prefix alone;
// ge alone goes up to the longest, le alone begins at the prefix's own length.
func ParseRange(text string) (Range, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Range{}, fmt.Errorf("%q is empty", text)
	}
	p, err := netip.ParsePrefix(words[0])
	switch {
	case err != nil:
		return Range{}, fmt.Errorf("%q is not a prefix such as 10.0.0.0/8", words[0])
	case p.Addr().Is4In6():
		return Range{}, fmt.Errorf("%s is an IPv4-mapped prefix", words[0])
	case p != p.Masked():
		return Range{}, fmt.Errorf("%s has host bits (did you mean %s?)", p, p.Masked())
	}
	r := Range{Prefix: p, Min: p.Bits(), Max: p.Bits()}
	words = words[1:]
	longest := p.Addr().BitLen()
	if len(words) > 0 {
		r.Max = longest
	}
	seen := map[string]bool{}
	for len(words) > 0 {
		word := words[0]
		if word != "ge" && word != "le" || len(words) < 2 {
			return Range{}, fmt.Errorf("%q is not understood after the prefix", strings.Join(words, " "))
		}
		n, err := strconv.Atoi(words[1])
		switch {
		case err != nil || words[1] != strconv.Itoa(n) || n < p.Bits() || n > longest:
			return Range{}, fmt.Errorf("%s %s is not a length from %d to %d", word, words[1], p.Bits(), longest)
		case seen[word]:
			return Range{}, fmt.Errorf("%s is there twice", word)
		case word == "ge":
			r.Min = n
		default:
			r.Max = n
		}
		seen[word] = true
		words = words[2:]
	}
	if r.Min > r.Max {
		return Range{}, fmt.Errorf("ge %d is more than le %d", r.Min, r.Max)
	}
	return r, nil
}

// String writes the range in the shortest form that ParseRange reads back.
func (r Range) String() string {
	text := r.Prefix.String()
	if r.Min == r.Prefix.Bits() && r.Max == r.Prefix.Bits() {
		return text
	}
	longest := r.Prefix.Addr().BitLen()
	if r.Min != r.Prefix.Bits() {
		text += fmt.Sprintf(" ge %d", r.Min)
	}
	if r.Max != longest || r.Min == r.Prefix.Bits() {
		text += fmt.Sprintf(" le %d", r.Max)
	}
	return text
}

// Contains tells whether a prefix, which is masked, is in the range.
func (r Range) Contains(p netip.Prefix) bool {
	return p.Bits() >= r.Min && p.Bits() <= r.Max && r.Prefix.Bits() <= p.Bits() && r.Prefix.Contains(p.Addr())
}

// Ranges is a list of ranges that finds a match in a time that does not grow with it.
type Ranges struct {
	list []Range
	// by prefix, where the list is long
	index map[netip.Prefix][]Range
}

// indexFrom is the length of a list from which on it is worth an index.
const indexFrom = 16

// NewRanges keeps the list, which must not be changed any more.
func NewRanges(list []Range) Ranges {
	rs := Ranges{list: list}
	if len(list) >= indexFrom {
		rs.index = make(map[netip.Prefix][]Range, len(list))
		for _, r := range list {
			rs.index[r.Prefix] = append(rs.index[r.Prefix], r)
		}
	}
	return rs
}

// List returns the ranges, in the order in which they were given.
func (rs Ranges) List() []Range { return rs.list }

// Contain tells whether one of the ranges has the prefix.
func (rs Ranges) Contain(p netip.Prefix) bool {
	in := func(r Range) bool { return r.Contains(p) }
	if rs.index == nil {
		return slices.ContainsFunc(rs.list, in)
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		around, err := p.Addr().Prefix(bits)
		if err != nil {
			return false
		}
		if slices.ContainsFunc(rs.index[around], in) {
			return true
		}
	}
	return false
}
