package main

import (
	"encoding/json"
	"io"

	"github.com/nexthopd/nexthopd/agent/config"
)

// schema is the part of JSON Schema (draft 7, which all editors know) that is used here.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a word, or several
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"` // false, or a schema
	Items       *schema            `json:"items,omitempty"`
	AnyOf       []*schema          `json:"anyOf,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Minimum     uint64             `json:"minimum,omitempty"`
	Maximum     uint64             `json:"maximum,omitempty"`
}

// writeSchema writes a JSON schema for editors. It is more permissive than the daemon,
// never less: what it complains of is a mistake, and `nexthopd check` finds the rest.
func writeSchema(w io.Writer, keys []config.Key, ref reference) error {
	s := mapping("", keys, ref)
	s.Schema = "http://json-schema.org/draft-07/schema#"
	s.Title = "nexthopd configuration"
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
}

// mapping describes a mapping; null is one whose keys are all commented out.
func mapping(prefix string, keys []config.Key, ref reference) *schema {
	s := &schema{Type: []string{"object", "null"}, Properties: map[string]*schema{}, Additional: false}
	for _, k := range keys {
		path := prefix + k.Name
		p := value(k)
		if len(k.Keys) > 0 {
			p = mapping(path+".", k.Keys, ref)
			if k.Type != "" { // a single value will do too
				p.Type = []string{k.Type, "object", "null"}
			}
		}
		switch {
		case k.List && len(k.Keys) > 0 && k.Type == "":
			p.Type = "object"
			p = &schema{Type: []string{"array", "null"}, Items: p}
		case k.List: // one value may be written without brackets
			one := *p
			p = &schema{AnyOf: []*schema{{Type: []string{"array", "null"}, Items: &one}, p}}
		}
		if k.Map {
			p = &schema{Type: []string{"object", "null"}, Additional: p}
		}
		p.Description = ref[path].Comment
		if len(k.Keys) == 0 {
			p.Description += "\nAllowed: " + k.Allowed + "."
		}
		s.Properties[k.Name] = p
		if k.Required {
			s.Required = append(s.Required, k.Name)
		}
	}
	return s
}

func value(k config.Key) *schema {
	switch {
	case len(k.Words) > 0:
		return &schema{Enum: k.Words}
	case k.Named:
		return &schema{Type: []string{"integer", "string"}}
	}
	return &schema{Type: k.Type, Minimum: k.Min, Maximum: k.Max}
}
