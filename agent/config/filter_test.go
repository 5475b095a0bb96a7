package config

import (
	"strings"
	"testing"
	"time"
)

func TestPrefixLimit(t *testing.T) {
	for _, tt := range []struct{ keys, want string }{
		{"", "4000 4000 75 close 5m0s"}, // S9
		{"prefix-limit: 10000", "10000 10000 75 close 5m0s"},
		{"prefix-limit: {action: freeze}", "4000 4000 75 freeze 5m0s"},
		{"prefix-limit: {max: 10, ipv6: 3, warning: 90, idle: 10s}", "10 3 90 close 10s"},
		{"prefix-limit: {ipv4: 7}", "7 4000 75 close 5m0s"},
	} {
		l := parse(t, peers(tt.keys)).Peers[1].PrefixLimit
		got := strings.Join([]string{show(l.For(true)), show(l.For(false)), show(l.Warning), string(l.Action), l.Idle.Round(time.Second).String()}, " ")
		if got != tt.want {
			t.Errorf("%q gives %s, want %s", tt.keys, got, tt.want)
		}
	}
}

// Sets are inlined, wherever in the file they are; the rules read the same.
func TestFilters(t *testing.T) {
	const sets = "sets:\n  prefixes: {private: [10.0.0.0/8 le 32, 172.16.0.0/12 ge 16 le 24]}\n" +
		"  communities: {ours: ['65147:*', no-export]}\n  large-communities: {zone: ['1:2:*']}\n  as-paths: {cust: [_65001$, {contains: 65002, length: le 3}]}\n"
	for _, tt := range []struct{ name, rule, want string }{
		{"everything", "{action: reject}", "rule-1: reject everything; else accept"},
		{"a set among values", "{match: {prefix: [private, 0.0.0.0/0]}, action: reject}",
			"rule-1: reject prefix 10.0.0.0/8 le 32 or 172.16.0.0/12 ge 16 le 24 or 0.0.0.0/0; else accept"},
		{"communities", "{match: {community: [ours, '1:2'], large-community: [zone]}, action: reject}",
			"rule-1: reject community 65147:* or 65535:65281 or 1:2, large-community 1:2:*; else accept"},
		{"AS paths", "{match: {as-path: [^1_, {set: cust}, {starts: 7, ends: 8}]}, action: reject}",
			"rule-1: reject as-path ^1_ or _65001$ or {contains: 65002, length: le 3} or {starts: 7, ends: 8}; else accept"},
		{"one AS path", "{match: {as-path: {length: 3}}, action: reject}", "rule-1: reject as-path {length: 3}; else accept"},
		{"next hops", "{match: {next-hop: [10.1.0.4, 'fd00::8'], family: ipv6}, action: reject}",
			"rule-1: reject ipv6, next-hop 10.1.0.4 or fd00::8; else accept"},
		{"set", "{name: x, action: accept, set: {local-pref: 200, med: 0, prepend: 3, next-hop: 10.1.0.9, community: {add: '1:2', remove: ['1:*']}, large-community: {add: '1:2:3'}}}",
			"x: accept everything: set local-pref 200, med 0, prepend 3, next-hop 10.1.0.9, remove 1:*, add 1:2, add 1:2:3; else accept"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule := peers("import: {rules: [" + tt.rule + "]}")
			for _, text := range []string{sets + rule, rule + "\n" + sets} {
				if got := parse(t, text).Peers[1].Import.String(); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			}
		})
	}
	if f := parse(t, peers("import: {}, export: {default: accept, rules: []}")).Peers[1]; f.Import != nil || f.Export != nil {
		t.Errorf("a filter that accepts everything is %v, %v, want none", f.Import, f.Export)
	}
}

func TestFilterMistakes(t *testing.T) {
	rule := func(text string) string { return peers("import: {rules: [" + text + "]}") }
	for name, c := range map[string]struct{ text, want string }{
		"limit 0":             {peers("prefix-limit: 0"), "peers[1].prefix-limit: 0 is out of range, allowed: 1 to 100000000, or a mapping"},
		"limit action":        {peers("prefix-limit: {action: drop}"), "allowed: close, freeze"},
		"limit idle":          {peers("prefix-limit: {idle: 0s}"), "allowed: 1s to 24h"},
		"limit warning":       {peers("prefix-limit: {warning: 0}"), "allowed: 1 to 100"},
		"total":               {"prefix-limit-total: -1", "allowed: 0 to 100000000"},
		"no action":           {rule("{match: {prefix: 10.0.0.0/8}}"), "peers[1].import.rules[0].action: is missing, allowed: accept, reject"},
		"null rule":           {rule("null"), "import.rules[0]: is empty"},
		"default":             {peers("import: {default: drop}"), "import.default: \"drop\" is not known here, allowed: accept, reject"},
		"host bits":           {rule("{match: {prefix: 10.0.0.1/8}, action: reject}"), "match.prefix[0]: 10.0.0.1/8 has host bits (did you mean 10.0.0.0/8?)"},
		"ge below the length": {rule("{match: {prefix: 10.0.0.0/8 ge 7}, action: reject}"), "ge 7 is not a length from 8 to 32"},
		"ge above le":         {rule("{match: {prefix: 10.0.0.0/8 ge 24 le 16}, action: reject}"), "ge 24 is more than le 16"},
		"empty list":          {rule("{match: {prefix: []}, action: reject}"), "match.prefix: is empty, and would match nothing"},
		"unknown set":         {rule("{match: {prefix: nope}, action: reject}"), `match.prefix[0]: "nope" is not in sets.prefixes, allowed: a name that is there (it has none)`},
		"unknown as-path set": {"sets: {as-paths: {a: _1_}}\n" + rule("{match: {as-path: {set: b}}, action: reject}"), `"b" is not in sets.as-paths, allowed: a name that is there (it has: a)`},
		"set in a set":        {"sets: {prefixes: {a: [b]}}", "sets.prefixes.a[0]: \"b\" is not a prefix such as 10.0.0.0/8"},
		"name of a set":       {"sets: {communities: {no-export: ['1:2']}}", `"no-export" is not a name for a set`},
		"a set twice":         {"sets: {prefixes: {a: 10.0.0.0/8, a: 10.0.0.0/8}}", "sets.prefixes.a: duplicate key, first in line 1"},
		"community":           {rule("{match: {community: '1:65536'}, action: reject}"), `"65536" is not a number from 0 to 65535`},
		"add a pattern":       {rule("{action: accept, set: {community: {add: '1:*'}}}"), "1:* is not a single community"},
		"regexp":              {rule("{match: {as-path: '^(1'}, action: reject}"), "is not a regular expression: error parsing regexp: missing closing )"},
		"bare number":         {rule("{match: {as-path: 65001}, action: reject}"), "65001 alone is found in longer numbers, too (did you mean _65001_?)"},
		"next-hop prefix":     {rule("{match: {next-hop: 10.1.0.0/16}, action: reject}"), "10.1.0.0/16 is a prefix"},
		"empty as-path":       {rule("{match: {as-path: {}}, action: reject}"), "has no condition"},
		"length":              {rule("{match: {as-path: {length: gt 3}}, action: reject}"), `"gt 3" is not N, ge N or le N`},
		"prepend":             {rule("{action: accept, set: {prepend: 17}}"), "allowed: 1 to 16"},
		"set of a reject":     {rule("{action: reject, set: {med: 1}}"), "set: has no use with action reject"},
		"two of a name":       {rule("{name: a, action: accept}, {name: a, action: reject}"), `rules[1].name: "a" is the name of rule 1, too`},
		"other family":        {rule("{match: {family: ipv6, prefix: 10.0.0.0/8}, action: reject}"), "it would never match"},
		"next hop's family":   {rule("{match: {family: ipv6}, action: accept, set: {next-hop: 10.1.0.1}}"), "it would never be set"},
		"export local-pref":   {peers("export: {rules: [{action: accept, set: {local-pref: 5}}]}"), "set.local-pref: is not sent to peers in other ASes"},
	} {
		t.Run(name, func(t *testing.T) {
			got := mistakes(t, c.text)
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("Parse(%q)\ngot  %s\nwant one mistake with %s", c.text, strings.Join(got, "\n     "), c.want)
			}
		})
	}
}

func TestCompareFilters(t *testing.T) {
	base := peers("import: {rules: [{name: a, match: {prefix: [x]}, action: reject}]}") + "\nsets: {prefixes: {x: 10.0.0.0/8}}\n"
	for name, c := range map[string]struct{ after, want string }{
		"same":    {base, "no change\nsessions reset: none"},
		"default": {strings.Replace(base, "import: {", "import: {default: reject, ", 1), "peer two: import: reject a, else accept -> reject a, else reject\nsessions reset: none"},
		"a set":   {strings.Replace(base, "x: 10.0.0.0/8", "x: 10.0.0.0/9", 1), "peer two: import: reject a, else accept -> reject a, else accept (rules changed)\nsessions reset: none"},
		"limit":   {strings.Replace(base, "import:", "prefix-limit: {max: 10, ipv6: 5}, import:", 1), "peer two: prefix-limit.max: 4000 -> 10\npeer two: prefix-limit.ipv6: max -> 5\nsessions reset: none"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(parse(t, base), parse(t, c.after)).String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
