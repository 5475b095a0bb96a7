package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Key describes a key of the file, for what is generated from the tables: the schema
// for editors and the manual page.
type Key struct {
	Name     string
	Allowed  string // what its value may be, as error texts say it
	Required bool
	Restart  bool // a change waits for a restart of the daemon
	List     bool // any number of values, or of mappings with Keys
	Map      bool // a mapping of any names to what the rest says
	Keys     []Key
	// Type of a value: boolean, integer or string.
	Type     string
	Min, Max uint64   // of an integer, where they are known; else both 0
	Words    []string // all that the value may be, where they are few
	Named    bool     // an integer that may be given by a name too
}

// Keys describes every key of the file, in the order of the reference.
func Keys() []Key { return describe(configKeys) }

func describe[S any](keys []key[S]) []Key {
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = k.shape()
		out[i].Name, out[i].Allowed, out[i].Required, out[i].Restart = k.name, k.allowed, k.required, k.effect == restart
	}
	return out
}

func peersShape() Key { return Key{List: true, Keys: describe(peerKeys)} }

func listShape[V any](t scalar[V]) func() Key {
	return func() Key {
		k := t.shape()
		k.List = true
		return k
	}
}

var bounds = regexp.MustCompile(`^([0-9]+) to ([0-9]+)`)

// shape finds out what a value may be by what its parser takes: the words and bounds of
// the text for people are candidates, so the two can't disagree.
func (t scalar[V]) shape() Key {
	takes := func(text string) bool {
		_, err := t.parse(text)
		return err == nil
	}
	k := Key{Type: "string"}
	switch reflect.TypeFor[V]().Kind() {
	case reflect.Bool:
		k.Type = "boolean"
		return k
	case reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		k.Type = "integer"
	}
	if reflect.TypeFor[V]().PkgPath() == "log/slog" { // a level: an int there, a word here
		k.Type = "string"
	}
	words := strings.Split(t.allowed, ", ")
	all := len(words) > 1
	for _, w := range words {
		all = all && takes(w)
	}
	switch m := bounds.FindStringSubmatch(t.allowed); {
	case all:
		k.Words = words
	case m != nil && k.Type == "integer" && takes(m[1]) && takes(m[2]):
		k.Min, _ = strconv.ParseUint(m[1], 10, 64) // the parser took them
		k.Max, _ = strconv.ParseUint(m[2], 10, 64)
	case k.Type == "integer":
		k.Named = takes("main")
	}
	return k
}
