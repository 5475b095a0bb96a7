package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// wellKnown are the communities that have names (IANA, BGP Well-known Communities).
var wellKnown = []struct {
	name  string
	value uint32
}{
	{"graceful-shutdown", 65535 << 16},         // RFC 8326
	{"accept-own", 65535<<16 | 1},              // RFC 7611
	{"llgr-stale", 65535<<16 | 6},              // RFC 9494
	{"no-llgr", 65535<<16 | 7},                 // RFC 9494
	{"blackhole", 65535<<16 | 666},             // RFC 7999
	{"no-export", 65535<<16 | 65281},           // RFC 1997
	{"no-advertise", 65535<<16 | 65282},        // RFC 1997
	{"no-export-subconfed", 65535<<16 | 65283}, // RFC 1997
	{"no-peer", 65535<<16 | 65284},             // RFC 3765
}

// WellKnown tells whether a word names a community.
func WellKnown(word string) bool {
	for _, w := range wellKnown {
		if w.name == word {
			return true
		}
	}
	return false
}

// Community is a community, or all that have certain parts: 65147:100, 65147:*, *:100.
type Community struct {
	parts [2]part
}

// LargeCommunity is a large community (RFC 8092), or all that have certain parts.
type LargeCommunity struct {
	parts [3]part
}

type part struct {
	any bool
	n   uint32
}

func (p part) String() string {
	if p.any {
		return "*"
	}
	return strconv.FormatUint(uint64(p.n), 10)
}

// regexp is the part as a regular expression over decimal numbers.
func (p part) regexp() string {
	if p.any {
		return "[0-9]+"
	}
	return p.String()
}

func (p part) matches(n uint32) bool { return p.any || p.n == n }

func parseParts(text string, into []part, bits int) error {
	words := strings.Split(text, ":")
	if len(words) != len(into) {
		return fmt.Errorf("%q does not have %d numbers with colons between them", text, len(into))
	}
	for i, w := range words {
		if w == "*" {
			into[i].any = true
			continue
		}
		n, err := strconv.ParseUint(w, 10, bits)
		if err != nil || w != strconv.FormatUint(n, 10) {
			return fmt.Errorf("%q is not a number from 0 to %d", w, uint64(1)<<bits-1)
		}
		into[i].n = uint32(n)
	}
	return nil
}

// ParseCommunity reads two 16-bit numbers, each of which may be *, or a well-known name.
func ParseCommunity(text string) (c Community, err error) {
	for _, w := range wellKnown {
		if w.name == text {
			return exactly(w.value), nil
		}
	}
	return c, parseParts(text, c.parts[:], 16)
}

func exactly(v uint32) Community {
	return Community{[2]part{{n: v >> 16}, {n: v & 0xffff}}}
}

// ParseLargeCommunity reads three 32-bit numbers, each of which may be *.
func ParseLargeCommunity(text string) (c LargeCommunity, err error) {
	return c, parseParts(text, c.parts[:], 32)
}

func (c Community) String() string {
	return c.parts[0].String() + ":" + c.parts[1].String()
}

func (c LargeCommunity) String() string {
	return c.parts[0].String() + ":" + c.parts[1].String() + ":" + c.parts[2].String()
}

// Regexp matches the communities in their written form, and no others.
func (c Community) Regexp() string {
	return "^" + c.parts[0].regexp() + ":" + c.parts[1].regexp() + "$"
}

// Regexp matches the large communities in their written form, and no others.
func (c LargeCommunity) Regexp() string {
	return "^" + c.parts[0].regexp() + ":" + c.parts[1].regexp() + ":" + c.parts[2].regexp() + "$"
}

// RegexpBut matches as Regexp does, but nothing that has a certain number, of ten digits,
// in the middle.
func (c LargeCommunity) RegexpBut(middle uint32) string {
	if !c.parts[1].any {
		return c.Regexp()
	}
	digits := strconv.FormatUint(uint64(middle), 10)
	other := fmt.Sprintf("[0-9]{1,%d}", len(digits)-1)
	for i, d := range digits {
		others := strings.ReplaceAll("0123456789", string(d), "")
		other += fmt.Sprintf("|%s[%s][0-9]{%d}", digits[:i], others, len(digits)-1-i)
	}
	return "^" + c.parts[0].regexp() + ":(?:" + other + "):" + c.parts[2].regexp() + "$"
}

// Value returns the community, if it is a single one.
func (c Community) Value() (uint32, bool) {
	return c.parts[0].n<<16 | c.parts[1].n, !c.parts[0].any && !c.parts[1].any
}

// Value returns the large community, if it is a single one.
func (c LargeCommunity) Value() ([3]uint32, bool) {
	p := c.parts
	return [3]uint32{p[0].n, p[1].n, p[2].n}, !p[0].any && !p[1].any && !p[2].any
}

// Matches tells whether a community is meant.
func (c Community) Matches(v uint32) bool {
	return c.parts[0].matches(v>>16) && c.parts[1].matches(v&0xffff)
}

// Matches tells whether a large community is meant.
func (c LargeCommunity) Matches(v [3]uint32) bool {
	return c.parts[0].matches(v[0]) && c.parts[1].matches(v[1]) && c.parts[2].matches(v[2])
}

func anyCommunity(of []Community, in []uint32) bool {
	return slices.ContainsFunc(in, func(v uint32) bool {
		return slices.ContainsFunc(of, func(c Community) bool { return c.Matches(v) })
	})
}

func anyLarge(of []LargeCommunity, in [][3]uint32) bool {
	return slices.ContainsFunc(in, func(v [3]uint32) bool {
		return slices.ContainsFunc(of, func(c LargeCommunity) bool { return c.Matches(v) })
	})
}
