package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/journal"
)

// catalogued fails the test for a record of an event whose attributes are not those that
// the catalogue lists: that is what operators filter by.
type catalogued struct {
	t *testing.T
	slog.Handler
}

func (h catalogued) Handle(ctx context.Context, r slog.Record) error {
	var name string
	var has []string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "event":
			name = a.Value.String()
		case "message_id":
		default:
			has = append(has, a.Key)
		}
		return true
	})
	if name == "" {
		return h.Handler.Handle(ctx, r)
	}
	i := slices.IndexFunc(journal.Events(), func(e journal.Event) bool { return e.Name == name })
	if i < 0 {
		h.t.Errorf("event %q is not in the catalogue", name)
		return h.Handler.Handle(ctx, r)
	}
	fields := strings.Fields(journal.Events()[i].Fields)
	for _, f := range fields {
		if !strings.HasPrefix(f, "(") && !slices.Contains(has, f) {
			h.t.Errorf("a record of %s lacks %s: it has %q", name, f, has)
		}
	}
	for _, f := range has {
		if !slices.Contains(fields, f) && !slices.Contains(fields, "("+f+")") {
			h.t.Errorf("a record of %s has %s, which the catalogue does not list", name, f)
		}
	}
	return h.Handler.Handle(ctx, r)
}
