package policy

import (
	"fmt"
	"strings"
)

// shown bounds the members of a list in a sentence: a set of a thousand prefixes tells
// nobody anything.
const shown = 8

// describe writes what a rule matches and changes, in a sentence.
func (r *Rule) describe() string { return r.write(shown) }

func (r *Rule) write(limit int) string {
	text := r.Match.write(limit)
	if set := r.Set.String(); set != "" {
		text += ": set " + set
	}
	return text
}

func join[V fmt.Stringer](name string, list []V, limit int) []string {
	if len(list) == 0 {
		return nil
	}
	var texts []string
	for i, v := range list {
		if limit > 0 && i == limit {
			texts = append(texts, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		texts = append(texts, v.String())
	}
	return []string{name + " " + strings.Join(texts, " or ")}
}

func (m *Match) write(limit int) string {
	var parts []string
	if m.Family != "" {
		parts = append(parts, string(m.Family))
	}
	parts = append(parts, join("prefix", m.Prefixes.list, limit)...)
	parts = append(parts, join("next-hop", m.NextHops, limit)...)
	parts = append(parts, join("community", m.Communities, limit)...)
	parts = append(parts, join("large-community", m.Large, limit)...)
	parts = append(parts, join("as-path", m.ASPaths, limit)...)
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// String writes what is changed; "": nothing.
func (s *Set) String() string {
	var parts []string
	add := func(given bool, format string, args ...any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(s.LocalPref != 0, "local-pref %d", s.LocalPref)
	add(s.HasMED, "med %d", s.MED)
	add(s.Prepend > 0, "prepend %d", s.Prepend)
	add(s.NextHop.IsValid(), "next-hop %s", s.NextHop)
	parts = append(parts, join("remove", s.Remove, 0)...)
	parts = append(parts, join("add", s.Add, 0)...)
	parts = append(parts, join("remove", s.RemoveLarge, 0)...)
	parts = append(parts, join("add", s.AddLarge, 0)...)
	return strings.Join(parts, ", ")
}
