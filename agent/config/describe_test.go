package config

import (
	"reflect"
	"testing"
)

func TestKeys(t *testing.T) {
	found := map[string]Key{}
	var walk func(prefix string, keys []Key)
	walk = func(prefix string, keys []Key) {
		for _, k := range keys {
			found[prefix+k.Name] = k
			walk(prefix+k.Name+".", k.Keys)
		}
	}
	walk("", Keys())
	for path, restart := range tableKeys() {
		if k, ok := found[path]; !ok || k.Allowed == "" || k.Restart != restart {
			t.Errorf("Keys: %s is %+v, want it with what is allowed and Restart %v", path, k, restart)
		}
	}
	tests := []Key{
		{Name: "asn", Type: "integer", Min: 1, Max: 4294967294, Restart: true},
		{Name: "branch-to-branch", Type: "boolean"},
		{Name: "listen", Type: "string", List: true, Restart: true},
		{Name: "fib.table", Type: "integer", Named: true, Restart: true},
		{Name: "fib.mode", Type: "string", Words: []string{"install", "observe"}, Restart: true},
		{Name: "fib.max-paths", Type: "integer", Min: 1, Max: 256, Restart: true},
		{Name: "fib.sweep-after", Type: "string"},
		{Name: "log.level", Type: "string", Words: []string{"debug", "info", "warn", "error"}},
		{Name: "peers.address", Type: "string", Required: true},
		{Name: "peers.hold-time", Type: "string"},
	}
	for _, want := range tests {
		path := want.Name
		got := found[path]
		want.Name, want.Allowed = got.Name, got.Allowed
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", path, got, want)
		}
	}
}
