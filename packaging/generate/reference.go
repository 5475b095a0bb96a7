package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/nexthopd/nexthopd/agent/config"
)

// entry is what the reference says of a key.
type entry struct {
	Comment string
	Value   string // the default, or an example
	Example bool
}

// reference is docs/nexthopd.yaml by path ("fib.table"). The empty path is its head.
type reference map[string]entry

var (
	// A key that is commented out: # in the first column, the key in steps of two columns.
	// Prose has a capital letter or another column.
	settable = regexp.MustCompile(`^#((?:  )*)(?:- )?([a-z][a-z0-9-]*):(.*)$`)
	section  = regexp.MustCompile(`^([a-z][a-z0-9-]*):$`)
)

func readReference(text string) (reference, error) {
	ref := reference{}
	group, comment := "", ""
	add := func(path, value string) error {
		if _, ok := ref[path]; ok {
			return fmt.Errorf("%q is there twice", path)
		}
		comment = strings.TrimSpace(comment)
		example := strings.Contains(comment, "Example.")
		comment = strings.TrimSpace(strings.Replace(comment, "Example.", "", 1))
		ref[path] = entry{Comment: comment, Value: strings.TrimSpace(value), Example: example}
		comment = ""
		return nil
	}
	for i, line := range strings.Split(text, "\n") {
		var err error
		trimmed := strings.TrimSpace(line)
		if m := settable.FindStringSubmatch(line); m != nil {
			path := m[2]
			if m[1] != "" {
				path = group + "." + path
			}
			err = add(path, m[3])
		} else if m := section.FindStringSubmatch(line); m != nil {
			group = m[1]
			err = add(group, "")
		} else if prose, ok := strings.CutPrefix(trimmed, "#"); ok {
			comment += strings.TrimPrefix(prose, " ") + "\n"
		} else if trimmed == "" {
			if _, ok := ref[""]; !ok {
				err = add("", "")
			}
			comment = ""
		} else {
			err = fmt.Errorf("%q is neither a comment nor a section", line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return ref, nil
}

// covers reports the first key that the reference does not describe.
func (r reference) covers(prefix string, keys []config.Key) error {
	for _, k := range keys {
		described := r[prefix+k.Name].Comment != ""
		if len(k.Keys) == 0 && !described {
			return fmt.Errorf("key %s%s is not described", prefix, k.Name)
		}
		if described && (prefix != "" || r[k.Name].Value != "") {
			continue // with all that is in it
		}
		if err := r.covers(prefix+k.Name+".", k.Keys); err != nil {
			return err
		}
	}
	return nil
}
