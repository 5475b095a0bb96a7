package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/internal/man"
)

// writePage writes nexthopd.yaml(5): the reference, as a manual page.
func writePage(w io.Writer, keys []config.Key, ref reference) error {
	var b bytes.Buffer
	man.Header(&b, "nexthopd.yaml", 5, "File Formats", "configuration of nexthopd")
	fmt.Fprint(&b, ".SH SYNOPSIS\n.I /etc/nexthopd/nexthopd.yaml\n.SH DESCRIPTION\n")
	man.Text(&b, ref[""].Comment, ".PP")
	fmt.Fprint(&b, ".SH KEYS\n")
	var sections []config.Key
	for _, k := range keys {
		if len(k.Keys) > 0 && ref[k.Name].Value == "" {
			sections = append(sections, k)
			continue
		}
		item(&b, k, ref[k.Name])
		for _, in := range k.Keys { // described elsewhere, with all that is in them
			inside(&b, config.Key{Name: k.Name, Keys: []config.Key{{Name: in.Name, Allowed: in.Allowed}}})
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&b, ".SS %s\n", man.Escape(s.Name))
		man.Text(&b, ref[s.Name].Comment, ".PP")
		for _, k := range s.Keys {
			item(&b, k, ref[s.Name+"."+k.Name])
			inside(&b, k)
		}
	}
	fmt.Fprint(&b, ".SH EXAMPLE\n.nf\n")
	fmt.Fprint(&b, man.Escape("vnet:\n  prefixes: [10.1.0.0/16]\npeers:\n"+
		"  - {name: nva-a, address: 10.1.0.4, asn: 65147}\n  - {name: nva-b, address: 10.1.0.5, asn: 65147}\n"))
	fmt.Fprint(&b, ".fi\n.SH FILES\n.TP\n.I /usr/share/nexthopd/nexthopd.schema.json\na schema of this file for editors\n")
	fmt.Fprint(&b, ".SH SEE ALSO\n.BR nexthopd (8),\n.BR nexthopctl (1)\n")
	_, err := w.Write(b.Bytes())
	return err
}

// inside lists the keys of a key that is described as a whole.
func inside(w io.Writer, k config.Key) {
	for _, in := range k.Keys {
		fmt.Fprintf(w, ".br\nIn %s:\n.B %s\n(%s)\n", man.Escape(k.Name), man.Escape(in.Name), man.Escape(in.Allowed))
		inside(w, in)
	}
}

func item(w io.Writer, k config.Key, e entry) {
	fmt.Fprintf(w, ".TP\n.B %s\n", man.Escape(k.Name))
	man.Text(w, e.Comment, ".IP")
	fmt.Fprintf(w, ".br\nAllowed: %s.\n", man.Escape(k.Allowed))
	if e.Value != "" && !k.Required {
		word := "Default"
		if e.Example {
			word = "Example"
		}
		fmt.Fprintf(w, ".br\n%s: %s\n", word, man.Escape(e.Value))
	}
}
