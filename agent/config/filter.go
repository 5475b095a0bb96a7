package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/nexthopd/nexthopd/agent/policy"
)

// sets are the named lists that rules refer to. A Config has nothing of them: its rules
// hold their members.
type sets struct {
	prefixes    map[string][]policy.Range
	communities map[string][]policy.Community
	large       map[string][]policy.LargeCommunity
	asPaths     map[string][]policy.Pattern
}

var setKeys = []key[sets]{
	named("prefixes", func(s *sets) *map[string][]policy.Range { return &s.prefixes }, rangeMember),
	named("communities", func(s *sets) *map[string][]policy.Community { return &s.communities }, communityMember),
	named("large-communities", func(s *sets) *map[string][]policy.LargeCommunity { return &s.large }, largeMember),
	named("as-paths", func(s *sets) *map[string][]policy.Pattern { return &s.asPaths }, patternMember),
}

// The keys of a filter and of its rules. What import and export have not in common is
// refused in checkRule.
var filterKeys = []key[policy.Filter]{
	value("default", live, func(f *policy.Filter) *policy.Action { return &f.Default }, oneOf(policy.Accept, policy.Reject)),
	{name: "rules", read: readRules, allowed: "list of mappings with keys among: name, match, action, set",
		shape: func() Key { return Key{List: true, Keys: describe(ruleKeys)} }},
}

var ruleKeys = []key[policy.Rule]{
	value("name", live, func(r *policy.Rule) *string { return &r.Name }, ruleName),
	group("match", func(r *policy.Rule) *policy.Match { return &r.Match }, matchKeys),
	required(value("action", live, func(r *policy.Rule) *policy.Action { return &r.Action }, oneOf(policy.Accept, policy.Reject))),
	group("set", func(r *policy.Rule) *policy.Set { return &r.Set }, ruleSetKeys),
}

var matchKeys = []key[policy.Match]{
	members("prefix", func(m *policy.Match, v []policy.Range) { m.Prefixes = policy.NewRanges(v) }, rangeMember,
		func(s *sets) map[string][]policy.Range { return s.prefixes }),
	members("community", func(m *policy.Match, v []policy.Community) { m.Communities = v }, communityMember,
		func(s *sets) map[string][]policy.Community { return s.communities }),
	members("large-community", func(m *policy.Match, v []policy.LargeCommunity) { m.Large = v }, largeMember,
		func(s *sets) map[string][]policy.LargeCommunity { return s.large }),
	members("as-path", func(m *policy.Match, v []policy.Pattern) { m.ASPaths = v }, patternMember,
		func(s *sets) map[string][]policy.Pattern { return s.asPaths }),
	list("next-hop", live, func(m *policy.Match) *[]netip.Addr { return &m.NextHops }, unicastAddress),
	value("family", live, func(m *policy.Match) *policy.Family { return &m.Family }, oneOf(policy.IPv4, policy.IPv6)),
}

var ruleSetKeys = []key[policy.Set]{
	value("local-pref", live, func(s *policy.Set) *uint32 { return &s.LocalPref }, number[uint32](1, 4294967295)),
	{name: "med", allowed: anyNumber.allowed, shape: anyNumber.shape, read: func(d *decoder, n node, s *policy.Set) {
		s.MED, s.HasMED = anyNumber.read(d, n)
	}},
	value("prepend", live, func(s *policy.Set) *int { return &s.Prepend }, number(1, 16)),
	value("next-hop", live, func(s *policy.Set) *netip.Addr { return &s.NextHop }, unicastAddress),
	group("community", func(s *policy.Set) *policy.Set { return s }, []key[policy.Set]{
		list("add", live, func(s *policy.Set) *[]policy.Community { return &s.Add }, oneCommunity),
		list("remove", live, func(s *policy.Set) *[]policy.Community { return &s.Remove }, communityText),
	}),
	group("large-community", func(s *policy.Set) *policy.Set { return s }, []key[policy.Set]{
		list("add", live, func(s *policy.Set) *[]policy.LargeCommunity { return &s.AddLarge }, oneLarge),
		list("remove", live, func(s *policy.Set) *[]policy.LargeCommunity { return &s.RemoveLarge }, largeText),
	}),
}

// asPath is a condition on an AS path as it is written in a mapping.
type asPath struct {
	policy.Pattern
	set string
}

var asPathKeys = []key[asPath]{
	value("contains", live, func(p *asPath) *uint32 { return &p.Contains }, number[uint32](1, 4294967295)),
	value("starts", live, func(p *asPath) *uint32 { return &p.Starts }, number[uint32](1, 4294967295)),
	value("ends", live, func(p *asPath) *uint32 { return &p.Ends }, number[uint32](1, 4294967295)),
	value("length", live, func(p *asPath) *policy.Length { return &p.Length }, pathLength),
	value("set", live, func(p *asPath) *string { return &p.set }, ruleName),
}

var (
	ruleName  = scalar[string]{peerName.allowed, parseName}
	anyNumber = number[uint32](0, 4294967295)
	rangeText = scalar[policy.Range]{
		"PREFIX, PREFIX le N, PREFIX ge N or PREFIX ge N le M", policy.ParseRange,
	}
	communityText = scalar[policy.Community]{"N:N, either may be *, or a well-known name such as no-export", policy.ParseCommunity}
	largeText     = scalar[policy.LargeCommunity]{"N:N:N, each may be *", policy.ParseLargeCommunity}
	oneCommunity  = scalar[policy.Community]{"N:N, or a well-known name such as no-export", func(text string) (policy.Community, error) {
		c, err := policy.ParseCommunity(text)
		if _, one := c.Value(); err == nil && !one {
			err = fmt.Errorf("%s is not a single community", text)
		}
		return c, err
	}}
	oneLarge = scalar[policy.LargeCommunity]{"N:N:N", func(text string) (policy.LargeCommunity, error) {
		c, err := policy.ParseLargeCommunity(text)
		if _, one := c.Value(); err == nil && !one {
			err = fmt.Errorf("%s is not a single large community", text)
		}
		return c, err
	}}
	pathLength     = scalar[policy.Length]{"N, ge N or le N, at most 2000", policy.ParseLength}
	pathExpression = scalar[policy.Pattern]{
		"regular expression such as ^65001_, or a mapping with keys among: " + keyNames(asPathKeys),
		func(text string) (policy.Pattern, error) {
			if !isPrintable(text) {
				return policy.Pattern{}, fmt.Errorf("%q has a character that cannot be printed", text)
			}
			if isDigits(text) {
				return policy.Pattern{}, fmt.Errorf("%s alone is found in longer numbers, too (did you mean _%s_?)", text, text)
			}
			return policy.ParseRegexp(text)
		},
	}
)

// member is what a list of conditions consists of.
type member[V any] struct {
	what string // what a set of them is called: sets.prefixes
	text scalar[V]
	// name tells whether a text is the name of a set; nil: names are written in a mapping.
	name func(text string) bool
	// mapping, if set, reads a member that is a mapping.
	mapping func(d *decoder, n node) []V
	keys    func() []Key
}

var (
	rangeMember = member[policy.Range]{what: "sets.prefixes", text: rangeText,
		name: func(text string) bool { return namePattern.MatchString(text) && !strings.ContainsAny(text, ".") }}
	communityMember = member[policy.Community]{what: "sets.communities", text: communityText,
		name: func(text string) bool {
			return namePattern.MatchString(text) && !policy.WellKnown(text) && !isDigits(text)
		}}
	largeMember = member[policy.LargeCommunity]{what: "sets.large-communities", text: largeText,
		name: func(text string) bool { return namePattern.MatchString(text) && !isDigits(text) }}
	patternMember = member[policy.Pattern]{what: "sets.as-paths", text: pathExpression, mapping: readASPath,
		keys: func() []Key { return describe(asPathKeys) }}
)

// read reads one member, or the members of the set that it names.
func (m member[V]) read(d *decoder, n node, of map[string][]V) []V {
	text, single := n.scalar()
	switch {
	case !single && m.mapping != nil && !n.isNull():
		return m.mapping(d, n)
	case single && m.name != nil && m.name(text):
		return lookUp(d, n, m.what, text, of)
	}
	v, ok := m.text.read(d, n)
	if !ok {
		return nil
	}
	return []V{v}
}

func lookUp[V any](d *decoder, n node, what, name string, of map[string][]V) []V {
	list, ok := of[name]
	if !ok && d.good(what) {
		known := "it has none"
		if len(of) > 0 {
			known = "it has: " + strings.Join(slices.Sorted(maps.Keys(of)), ", ")
		}
		d.fail(n, "%q is not in %s, allowed: a name that is there (%s)", name, what, known)
	}
	return list
}

func (m member[V]) allowed() string {
	if m.name == nil {
		return m.text.allowed
	}
	return m.text.allowed + ", or the name of one of " + m.what
}

func (m member[V]) shape() Key {
	k := m.text.shape()
	k.List = true
	if m.keys != nil {
		k.Keys = m.keys()
	}
	return k
}

// all reads a list of members; one may stand alone, a mapping too.
func (m member[V]) all(d *decoder, n node, of map[string][]V) []V {
	if _, mapping := n.Node.(*ast.MappingNode); mapping && m.mapping != nil {
		return m.mapping(d, n)
	}
	elements := d.elements(n, m.allowed())
	if seq, ok := n.Node.(*ast.SequenceNode); n.isNull() || ok && len(seq.Values) == 0 {
		d.fail(n, "is empty, and would match nothing, allowed: list of: %s", m.allowed())
	}
	var list []V
	for _, element := range elements {
		list = append(list, m.read(d, element, of)...)
	}
	return list
}

// members is a key with a list of conditions, one of which must hold.
func members[S, V any](name string, put func(*S, []V), m member[V], of func(*sets) map[string][]V) key[S] {
	return key[S]{
		name: name, allowed: "list of: " + m.allowed(), shape: m.shape,
		read: func(d *decoder, n node, s *S) { put(s, m.all(d, n, of(d.named()))) },
	}
}

// named is a key with lists by name. A set has no other sets in it.
func named[V any](name string, field func(*sets) *map[string][]V, m member[V]) key[sets] {
	m.name = nil
	return key[sets]{
		name: name, allowed: "mapping of names to lists of: " + m.allowed(),
		shape: func() Key {
			k := m.shape()
			k.Map = true
			return k
		},
		read: func(d *decoder, n node, s *sets) {
			lists := map[string][]V{}
			*field(s) = lists
			entries, ok := n.Node.(*ast.MappingNode)
			if !ok {
				if !n.isNull() {
					d.fail(n, "is %s, must be a mapping of names to lists of: %s", n.kind(), m.allowed())
				}
				return
			}
			for _, entry := range entries.Values {
				text := entry.Key.GetToken().Value
				at := d.node(join(n.path, plainName(text)), entry.Key, n)
				if _, err := parseName(text); err != nil || policy.WellKnown(text) || strings.Contains(text, ".") || isDigits(text) {
					d.fail(at, "%q is not a name for a set, allowed: letters, digits, hyphens and underscores, not only digits, and not a well-known community", text)
				}
				if first, ok := d.at(at.path); ok {
					d.fail(at, "duplicate key, first in line %d", first.line)
					continue
				}
				list := d.node(at.path, entry.Value, at)
				d.nodes[at.path] = list
				lists[text] = m.all(d, list, nil)
			}
		},
	}
}

// named returns the sets of the file, wherever in it they are.
func (d *decoder) named() *sets {
	if d.sets != nil {
		return d.sets
	}
	d.sets = &sets{}
	if root, ok := d.root.Node.(*ast.MappingNode); ok {
		for _, entry := range root.Values {
			if entry.Key.GetToken().Value == "sets" {
				at := d.node("sets", entry.Key, d.root)
				readMap(d, d.node("sets", entry.Value, at), d.sets, d.setKeys)
				break // a second one is a duplicate key, and reported as such
			}
		}
	}
	return d.sets
}

// readASPath reads a condition on an AS path that is written as a mapping.
func readASPath(d *decoder, n node) []policy.Pattern {
	var p asPath
	readMap(d, n, &p, asPathKeys)
	switch {
	case p.set != "" && p.Pattern != policy.Pattern{}:
		d.fail(n, "has set and something else, allowed: set alone, or keys among: contains, starts, ends, length")
	case p.set != "":
		return lookUp(d, n, "sets.as-paths", p.set, d.named().asPaths)
	case p.Pattern == policy.Pattern{} && d.goodBelow(n.path):
		d.fail(n, "has no condition, allowed: keys among: %s", keyNames(asPathKeys))
	}
	return []policy.Pattern{p.Pattern}
}

// goodBelow says whether nothing is wrong with a value and what is in it.
func (d *decoder) goodBelow(path string) bool {
	for bad := range d.bad {
		if bad == path || strings.HasPrefix(bad, path+".") || strings.HasPrefix(bad, path+"[") {
			return false
		}
	}
	return true
}

// filter is the key of a filter; nil is the one that accepts everything.
func filter(name string, export bool, field func(*Peer) **policy.Filter) key[Peer] {
	return key[Peer]{
		name: name, allowed: "mapping with keys among: " + keyNames(filterKeys), effect: live,
		shape: func() Key { return Key{Keys: describe(filterKeys)} },
		read: func(d *decoder, n node, p *Peer) {
			f := &policy.Filter{Default: policy.Accept}
			readMap(d, n, f, filterKeys)
			for i := range f.Rules {
				d.checkRule(n.path, f, i, export)
			}
			if len(f.Rules) > 0 || f.Default != policy.Accept {
				f.Compile()
				*field(p) = f
			}
		},
		diff: func(path string, before, after *Peer) []Change {
			from, to := *field(before), *field(after)
			if from.Equal(to) {
				return nil
			}
			c := Change{Field: path, From: from.Summary(), To: to.Summary(), effect: live}
			if c.From == c.To {
				c.To += " (rules changed)"
			}
			return []Change{c}
		},
	}
}

func readRules(d *decoder, n node, f *policy.Filter) {
	for i, element := range d.elements(n, "mapping with keys among "+keyNames(ruleKeys)) {
		r := policy.Rule{Name: "rule-" + strconv.Itoa(i+1)}
		if element.isNull() {
			d.fail(element, "is empty, must be a mapping with keys among: %s", keyNames(ruleKeys))
		} else {
			readMap(d, element, &r, ruleKeys)
		}
		f.Rules = append(f.Rules, r)
	}
}

// checkRule looks at what concerns more than one value of a rule.
func (d *decoder) checkRule(path string, f *policy.Filter, i int, export bool) {
	r := &f.Rules[i]
	at := func(key string) node {
		p := fmt.Sprintf("%s.rules[%d]", path, i)
		n, ok := d.at(join(p, key))
		if !ok {
			n, _ = d.at(p)
		}
		return n
	}
	for j, other := range f.Rules[:i] {
		if r.Name == other.Name {
			d.fail(at("name"), "%q is the name of rule %d, too, allowed: a name of its own", r.Name, j+1)
			break
		}
	}
	if r.Action == policy.Reject && !r.Set.Empty() {
		d.fail(at("set"), "has no use with action reject, allowed: set with action accept")
	}
	if export && r.Set.LocalPref != 0 {
		d.fail(at("set.local-pref"), "is not sent to peers in other ASes (RFC 4271 section 5.1.5), allowed: local-pref in import")
	}
	if h := r.Set.NextHop; h.IsValid() && r.Match.Family != "" && (r.Match.Family == policy.IPv4) != h.Is4() {
		d.fail(at("set.next-hop"), "%s is of the other family than match.family: it would never be set, allowed: an address of that family", h)
	}
	for _, p := range r.Match.Prefixes.List() {
		if !r.Match.Family.Has(p.Prefix) {
			d.fail(at("match.prefix"), "%s is of the other family than match.family: it would never match, allowed: prefixes of that family", p)
			break
		}
	}
}
