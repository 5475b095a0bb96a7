package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
)

func output(t *testing.T, name string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := generate(dir, "../../docs/nexthopd.yaml"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The format of journald's catalogue: an entry begins with "-- ID" after an empty line,
// a header, an empty line, the text.
func TestCatalog(t *testing.T) {
	text := string(output(t, "nexthopd.catalog"))
	entries := regexp.MustCompile(`(?m)\n\n-- ([0-9a-f]{32})\nSubject: (.+)\nDefined-By: nexthopd\nDocumentation: .+\n\n`).FindAllStringSubmatch(text, -1)
	var ids []string
	for _, m := range entries {
		ids = append(ids, m[1])
	}
	var want []string
	for _, e := range journal.Events() {
		want = append(want, e.ID)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("catalogue has %v, want %v", ids, want)
	}
	for line := range strings.Lines(text) {
		if len(line) > width+1 && !strings.HasPrefix(line, "Subject: ") {
			t.Errorf("line of %d characters: %q", len(line), line)
		}
	}
}

// The manual's generated pages say what the code says.
func TestManualIsUpToDate(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, manual()); err != nil {
		t.Fatal(err)
	}
	for _, f := range manual() {
		want, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../../docs", f.name))
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("docs/%s is out of date: run make docs, and commit what it wrote", f.name)
		}
	}
}

func TestPage(t *testing.T) {
	text := string(output(t, "nexthopd.yaml.5"))
	var each func(keys []config.Key)
	each = func(keys []config.Key) {
		for _, k := range keys {
			name := strings.ReplaceAll(k.Name, "-", `\-`)
			if !strings.Contains(text, ".B "+name+"\n") && !strings.Contains(text, ".SS "+name+"\n") {
				t.Errorf("nexthopd.yaml(5) lacks %s", k.Name)
			}
			each(k.Keys)
		}
	}
	each(config.Keys())
}

func TestReference(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a key that nobody describes", "# head\n\n#asn: 1\n", "key asn is not described"},
		{"described twice", "# head\n\n# one\n#asn: 1\n# two\n#asn: 1\n", `line 6: "asn" is there twice`},
		{"not a reference", "asn: 65515\n", `line 1: "asn: 65515" is neither a comment nor a section`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ref, err := readReference(tt.text)
			if err == nil {
				err = ref.covers("", []config.Key{{Name: "asn"}})
			}
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

// Files that the daemon accepts, the schema accepts; mistakes it can see, it sees.
func TestSchema(t *testing.T) {
	var s schema
	dec := json.NewDecoder(bytes.NewReader(output(t, "nexthopd.schema.json")))
	dec.DisallowUnknownFields() // so that what complains below knows all there is
	if err := dec.Decode(&s); err != nil {
		t.Fatal(err)
	}
	file := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const peer = "peers: [{name: a, address: 10.1.0.4, asn: 65147}]\n"
	tests := []struct {
		name, text, want string
	}{
		{"the reference", file("../../docs/nexthopd.yaml"), ""},
		{"a full file", file("../../agent/config/testdata/full.yaml"), ""},
		{"odd spellings", "listen: 10.1.2.4\nfib: {table: main}\n" + peer, ""},
		{"a table by number", "fib: {table: 100}\n", ""},
		{"no peers yet", "peers:\n", ""},
		{"a limit as a number", "peers: [{name: a, address: 10.1.0.4, asn: 65147, prefix-limit: 10}]\n", ""},
		{"sets and rules", "sets: {prefixes: {x: [10.0.0.0/8 le 32]}, as-paths: {y: [_1_, {contains: 2, length: le 3}]}}\n" +
			"peers: [{name: a, address: 10.1.0.4, asn: 65147, import: {rules: [{match: {prefix: x, as-path: {set: y}}, action: reject}]}}]\n", ""},
		{"an unknown key of a rule", "peers: [{name: a, address: 10.1.0.4, asn: 1, import: {rules: [{mach: {}, action: reject}]}}]\n", "peers[0].import.rules[0].mach is unknown"},
		{"unknown key", "bogus: 1\n", "bogus is unknown"},
		{"unknown key of a peer", "peers: [{name: a, address: 10.1.0.4, asn: 1, adress: x}]\n", "peers[0].adress is unknown"},
		{"missing key", "peers: [{name: a, asn: 65147}]\n", "peers[0].address is missing"},
		{"wrong type", "branch-to-branch: 7\n", "branch-to-branch is not a boolean"},
		{"wrong word", "fib: {mode: maybe}\n", "fib.mode is not among [install observe]"},
		{"out of range", "fib: {max-paths: 1000}\n", "fib.max-paths is out of range"},
		{"a mapping for a list", "peers: {name: a}\n", "peers is not a [array null]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v any
			if err := yaml.Unmarshal([]byte(tt.text), &v); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := s.validate("", v); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("schema says %q, want %q", got, tt.want)
			}
		})
	}
}

// validate is JSON Schema for the keywords of type schema.
func (s *schema) validate(path string, v any) error {
	if len(s.AnyOf) > 0 {
		var err error
		for _, alternative := range s.AnyOf {
			if err = alternative.validate(path, v); err == nil {
				return nil
			}
		}
		return err
	}
	if s.Type != nil && !slices.Contains(strings.Fields(strings.Trim(fmt.Sprint(s.Type), "[]")), typeOf(v)) {
		return fmt.Errorf("%s is not a %v", path, s.Type)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, fmt.Sprint(v)) {
		return fmt.Errorf("%s is not among %v", path, s.Enum)
	}
	switch v := v.(type) {
	case uint64:
		if v < s.Minimum || s.Maximum > 0 && v > s.Maximum {
			return fmt.Errorf("%s is out of range", path)
		}
	case []any:
		for i, e := range v {
			if err := s.Items.validate(fmt.Sprintf("%s[%d]", path, i), e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s.%s is missing", path, name)
			}
		}
		for name, e := range v {
			at := strings.TrimPrefix(path+"."+name, ".")
			p := s.Properties[name]
			if p == nil {
				if p = s.others(); p == nil {
					return fmt.Errorf("%s is unknown", at)
				}
			}
			if err := p.validate(at, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// others is the schema of the keys that are not listed; nil: there are none.
func (s *schema) others() *schema {
	if _, ok := s.Additional.(map[string]any); !ok {
		return nil
	}
	text, err := json.Marshal(s.Additional)
	if err != nil {
		return nil
	}
	var o schema
	if json.Unmarshal(text, &o) != nil {
		return nil
	}
	return &o
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case uint64:
		return "integer"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return fmt.Sprintf("%T", v)
}
