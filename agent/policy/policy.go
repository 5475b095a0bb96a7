// Package policy decides by rules which paths of a peer are used, which are announced to
// it, and with what attributes. It is pure: rules and a path in, a verdict out, and the
// name of the rule that decided.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// Action is what a rule does with what it matches.
type Action string

// The actions.
const (
	Accept Action = "accept"
	Reject Action = "reject"
)

// Filter is the rules of one peer in one direction. The first rule that matches decides;
// where none does, Default.
type Filter struct {
	Default Action
	Rules   []Rule
}

// Rule is one rule of a filter.
type Rule struct {
	Name   string
	Match  Match
	Action Action
	Set    Set // of a rule that accepts

	text string // the rule in words, see Compile
}

// Match is what a rule matches: all that is given must hold, and of a list one member.
// The zero value matches everything.
type Match struct {
	Prefixes    Ranges
	Communities []Community
	Large       []LargeCommunity
	ASPaths     []Pattern
	NextHops    []netip.Addr // GoBGP v4.8.0 knows no prefixes here
	Family      Family
}

// Family is an address family; the zero value is both.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// Has tells whether a prefix is of the family.
func (f Family) Has(p netip.Prefix) bool { return f == "" || (f == IPv4) == p.Addr().Is4() }

// Set is what a rule changes of a path that it accepts. Zero values change nothing.
// What is to be removed goes first, so that what is added stays.
type Set struct {
	LocalPref   uint32
	HasMED      bool
	MED         uint32
	Prepend     int // times the first ASN of the path
	NextHop     netip.Addr
	Add, Remove []Community // Add: single ones
	AddLarge    []LargeCommunity
	RemoveLarge []LargeCommunity
}

// Compile writes down the rules in words, once for all paths. It must be called before
// Apply.
func (f *Filter) Compile() {
	for i := range f.Rules {
		r := &f.Rules[i]
		r.text = fmt.Sprintf("rule %q (%s)", r.Name, r.describe())
	}
}

// Verdict is what a filter says of a path.
type Verdict struct {
	Accepted bool
	Attrs    *rib.Attrs // as they are from here on; those given where nothing is changed
	Rule     int        // index of the rule that decided; -1: the default
	Text     string     // the rule in words
}

// Apply decides about a path.
func (f *Filter) Apply(p netip.Prefix, a *rib.Attrs) Verdict {
	for i := range f.Rules {
		r := &f.Rules[i]
		if !r.Match.Matches(p, a) {
			continue
		}
		v := Verdict{Accepted: r.Action == Accept, Attrs: a, Rule: i, Text: r.text}
		if v.Accepted {
			v.Attrs = r.Set.apply(p, a)
		}
		return v
	}
	v := Verdict{Accepted: f.Default == Accept, Attrs: a, Rule: -1, Text: "no rule matches, and the default is reject"}
	if v.Accepted {
		v.Text = ""
	}
	return v
}

// Import implements rib.Filter.
func (f *Filter) Import(p netip.Prefix, a *rib.Attrs) (*rib.Attrs, string) {
	v := f.Apply(p, a)
	if !v.Accepted {
		return nil, v.Text
	}
	return v.Attrs, v.Text
}

// NextHops are the next hops that rules give to paths.
func (f *Filter) NextHops() []netip.Addr {
	var list []netip.Addr
	for _, r := range f.Rules {
		if r.Set.NextHop.IsValid() {
			list = append(list, r.Set.NextHop)
		}
	}
	return list
}

// Equal tells whether two filters say the same of every path, in the same words. nil is
// the filter that accepts everything.
func (f *Filter) Equal(g *Filter) bool { return f.String() == g.String() }

// String writes the filter in one line, complete.
func (f *Filter) String() string {
	if f == nil {
		return "accept everything"
	}
	var b strings.Builder
	for _, r := range f.Rules {
		fmt.Fprintf(&b, "%s: %s %s; ", r.Name, r.Action, r.write(0))
	}
	fmt.Fprintf(&b, "else %s", f.Default)
	return b.String()
}

// Summary names the rules.
func (f *Filter) Summary() string {
	if f == nil {
		return "none"
	}
	var names []string
	for _, r := range f.Rules {
		names = append(names, fmt.Sprintf("%s %s", r.Action, r.Name))
	}
	return strings.Join(append(names, "else "+string(f.Default)), ", ")
}

// Matches tells whether the rule is for a path.
func (m *Match) Matches(p netip.Prefix, a *rib.Attrs) bool {
	switch {
	case !m.Family.Has(p):
		return false
	case len(m.Prefixes.list) > 0 && !m.Prefixes.Contain(p):
		return false
	case len(m.NextHops) > 0 && !slices.Contains(m.NextHops, a.NextHop):
		return false
	case len(m.Communities) > 0 && !anyCommunity(m.Communities, a.Communities):
		return false
	case len(m.Large) > 0 && !anyLarge(m.Large, a.LargeCommunities):
		return false
	}
	return len(m.ASPaths) == 0 || slices.ContainsFunc(m.ASPaths, func(x Pattern) bool { return x.Matches(a.ASPath) })
}

// apply makes the changed attributes.
func (s *Set) apply(p netip.Prefix, a *rib.Attrs) *rib.Attrs {
	if s.Empty() {
		return a
	}
	c := *a
	if s.LocalPref != 0 {
		c.LocalPref = s.LocalPref
	}
	if s.HasMED {
		c.HasMED, c.MED = true, s.MED
	}
	// A prefix of the other family keeps its next hop.
	if s.NextHop.IsValid() && s.NextHop.Is4() == p.Addr().Is4() {
		c.NextHop = s.NextHop
	}
	if s.Prepend > 0 {
		c.ASPath = prepend(a.ASPath, s.Prepend)
	}
	if len(s.Add)+len(s.Remove) > 0 {
		c.Communities = slices.DeleteFunc(slices.Clone(a.Communities), func(v uint32) bool {
			return anyCommunity(s.Remove, []uint32{v})
		})
		for _, add := range s.Add {
			v, _ := add.Value()
			c.Communities = append(c.Communities, v)
		}
	}
	if len(s.AddLarge)+len(s.RemoveLarge) > 0 {
		c.LargeCommunities = slices.DeleteFunc(slices.Clone(a.LargeCommunities), func(v [3]uint32) bool {
			return anyLarge(s.RemoveLarge, [][3]uint32{v})
		})
		for _, add := range s.AddLarge {
			v, _ := add.Value()
			c.LargeCommunities = append(c.LargeCommunities, v)
		}
	}
	return &c
}

// Empty tells whether nothing is changed.
func (s *Set) Empty() bool {
	return s.LocalPref == 0 && !s.HasMED && s.Prepend == 0 && !s.NextHop.IsValid() &&
		len(s.Add)+len(s.Remove)+len(s.AddLarge)+len(s.RemoveLarge) == 0
}

// prepend repeats the first ASN of a path. One that begins with an AS_SET, or is empty,
// has none.
func prepend(path rib.ASPath, times int) rib.ASPath {
	if len(path) == 0 || path[0].Type != rib.ASSequence || len(path[0].ASNs) == 0 || path[0].ASNs[0] == 0 {
		return path
	}
	first := path[0].ASNs[0]
	out := make(rib.ASPath, 0, len(path)+1)
	asns := make([]uint32, 0, times+len(path[0].ASNs))
	for range times {
		asns = append(asns, first)
	}
	// A segment holds 255 ASNs at most (RFC 4271 section 4.3).
	if len(asns)+len(path[0].ASNs) > 255 {
		n := 255 - len(path[0].ASNs)
		out = append(out, rib.Segment{Type: rib.ASSequence, ASNs: asns[n:]})
		out = append(out, rib.Segment{Type: rib.ASSequence, ASNs: append(slices.Clone(asns[:n]), path[0].ASNs...)})
	} else {
		out = append(out, rib.Segment{Type: rib.ASSequence, ASNs: append(asns, path[0].ASNs...)})
	}
	return append(out, path[1:]...)
}
