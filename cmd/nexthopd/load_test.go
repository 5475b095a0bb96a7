package main

import (
	"net/netip"
	"os"
	"testing"

	"github.com/nexthopd/nexthopd/agent/config"
)

// A router id that was chosen at the start is no change at a reload, whatever addresses
// the host has by then; one that the file sets is.
func TestReloadKeepsTheChosenRouterID(t *testing.T) {
	path := writeFile(t, goodConfig)
	first, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	first.RouterID = netip.Addr{}
	load := reloader(path, first, nil)
	first.RouterID = netip.MustParseAddr("10.1.2.4")
	for _, tt := range []struct{ file, want string }{
		{"vnet: {prefixes: [10.1.0.0/16]}\n", "10.1.2.4"},
		{"router-id: 10.9.9.9\n", "10.9.9.9"},
	} {
		if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := load()
		if err != nil || c.RouterID.String() != tt.want {
			t.Errorf("of %q: router id %v, %v, want %s", tt.file, c, err, tt.want)
		}
	}
	if err := os.WriteFile(path, []byte("bogus: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil {
		t.Error("a file with a mistake is loaded")
	}
}
