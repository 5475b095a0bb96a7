package config

import (
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// referenceKey is a key of docs/nexthopd.yaml that is commented out.
type referenceKey struct {
	path    string // fib.table
	line    int    // index into the lines of the file
	comment string // the prose above it
}

func (k referenceKey) isExample() bool { return strings.Contains(k.comment, "Example.") }

// readReference finds the keys: a # in the first column with a key behind it, in
// steps of two columns. Prose has a capital letter or another column.
func readReference(t *testing.T) (lines []string, keys []referenceKey) {
	t.Helper()
	data, err := os.ReadFile("../../docs/nexthopd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	settable := regexp.MustCompile(`^#((?:  )*)(?:- )?([a-z][a-z0-9-]*):`)
	group, comment := "", ""
	lines = strings.Split(string(data), "\n")
	for i, line := range lines {
		switch m := settable.FindStringSubmatch(line); {
		case m != nil:
			path := m[2]
			if m[1] != "" {
				path = group + "." + path
			}
			keys = append(keys, referenceKey{path, i, comment})
			comment = ""
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
			comment += strings.Trim(line, " #") + " "
		case line != "":
			group, _, _ = strings.Cut(line, ":")
			comment = ""
		}
	}
	return lines, keys
}

// uncomment returns the file with some of its keys in force.
func uncomment(lines []string, keys []referenceKey, which func(referenceKey) bool) string {
	lines = slices.Clone(lines)
	for _, k := range keys {
		if which(k) {
			lines[k.line] = strings.TrimPrefix(lines[k.line], "#")
		}
	}
	return strings.Join(lines, "\n")
}

func isPeerIdentity(k referenceKey) bool {
	return k.path == "peers.name" || k.path == "peers.address" || k.path == "peers.asn"
}

func TestReferenceIsDefault(t *testing.T) {
	lines, keys := readReference(t)
	want := defaults()
	if got := parse(t, strings.Join(lines, "\n")); !reflect.DeepEqual(got, &want) {
		t.Errorf("as installed: %+v, want the defaults %+v", got, want)
	}
	peer := defaultPeer()
	peer.Name, peer.Address, peer.ASN = "quagga", netip.MustParseAddr("10.1.0.4"), 65147
	want.Peers = []Peer{peer}
	text := uncomment(lines, keys, func(k referenceKey) bool { return !k.isExample() })
	if got := parse(t, text); !reflect.DeepEqual(got, &want) {
		t.Errorf("uncommented: %+v, want the defaults %+v", got, want)
	}
}

func TestReferenceExamples(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	lines, keys := readReference(t)
	text := uncomment(lines, keys, func(k referenceKey) bool { return k.isExample() || isPeerIdentity(k) })
	// The two keys of one secret exclude each other, and no file is here.
	want := []string{"peers[0].password-file", "peers[0].password-credential", "peers[0].password-credential", "metrics.web-config"}
	_, err := Parse("f", []byte(text))
	errs, _ := err.(Errors)
	var got []string
	for _, e := range errs {
		got = append(got, e.Field)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("mistakes in %v, want %v:\n%v", got, want, err)
	}
}

// tableKeys lists the keys of the tables, and whether a change waits for a restart.
func tableKeys() map[string]bool {
	all := map[string]bool{}
	add := func(path string, e effect) { all[path] = e == restart }
	addKeys(add, "", configKeys)
	for _, group := range []string{"vnet", "peers", "sets", "fib", "metrics", "api", "log"} {
		delete(all, group) // has its own
	}
	addKeys(add, "vnet.", vnetKeys)
	addKeys(add, "peers.", peerKeys)
	addKeys(add, "sets.", setKeys)
	addKeys(add, "fib.", fibKeys)
	addKeys(add, "metrics.", metricsKeys)
	addKeys(add, "api.", apiKeys)
	addKeys(add, "log.", logKeys)
	return all
}

func addKeys[S any](add func(string, effect), prefix string, keys []key[S]) {
	for _, k := range keys {
		add(prefix+k.name, k.effect)
	}
}

func TestReferenceIsComplete(t *testing.T) {
	_, keys := readReference(t)
	want := tableKeys()
	for _, k := range keys {
		restart, known := want[k.path]
		if !known {
			t.Errorf("%s is documented (line %d) and unknown, or documented twice", k.path, k.line+1)
		}
		delete(want, k.path)
		if len(k.comment) < 20 {
			t.Errorf("%s has the comment %q, want a sentence", k.path, k.comment)
		}
		if says := strings.Contains(k.comment, "Restart."); says != restart {
			t.Errorf("%s: comment says restart: %v, the table says %v", k.path, says, restart)
		}
	}
	for path := range want {
		t.Errorf("%s is not documented", path)
	}
}
