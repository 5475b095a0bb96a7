package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The kernel tells who connected, supplementary groups included.
func TestCallerOfASocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	who, ok := withCaller(context.Background(), s).Value(callerKey{}).(caller)
	if !ok || who.uid != uint32(os.Geteuid()) || !slices.Contains(who.groups, uint32(os.Getegid())) {
		t.Errorf("caller %+v, %v; want uid %d and group %d", who, ok, os.Geteuid(), os.Getegid())
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if !slices.Contains(who.groups, uint32(g)) {
			t.Errorf("group %d is missing in %v", g, who.groups)
		}
	}
}
