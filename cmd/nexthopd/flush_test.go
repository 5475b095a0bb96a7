package main

import (
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/kernel"
	"github.com/nexthopd/nexthopd/internal/diag"
	"github.com/nexthopd/nexthopd/internal/netnstest"
)

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// Only what is ours goes: same protocol in another table, another protocol in ours, and
// next hops of others stay.
func TestFlush(t *testing.T) {
	netnstest.RequireRoot(t)
	netnstest.New(t).Enter(t)
	ip(t, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	ip(t, "link", "set", "v1", "up")
	ip(t, "link", "set", "v0", "up")
	ip(t, "addr", "add", "10.1.0.1/16", "dev", "v0")
	ip(t, "route", "add", "192.0.2.0/24", "via", "10.1.0.9", "dev", "v0")
	ip(t, "route", "add", "198.51.100.0/24", "dev", "v0", "table", "99", "proto", "165")
	ip(t, "nexthop", "add", "id", "7", "dev", "v0")
	v0, err := net.InterfaceByName("v0")
	if err != nil {
		t.Fatal(err)
	}

	socket := filepath.Join(t.TempDir(), "run", "nexthopd.sock")
	path := writeFile(t, "router-id: 10.1.0.1\napi: {socket: "+socket+"}\n")
	owner := fib.Owner{Table: 254, Metric: 20, Protocol: 165, FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID}
	k, err := kernel.Open(kernel.Options{Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	hop, group := uint32(fib.DefaultFirstID+1), uint32(fib.DefaultFirstID+2)
	ours := []fib.Op{
		{Kind: fib.NextHopAdd, ID: hop, Leg: fib.Leg{Gateway: netip.MustParseAddr("10.1.0.4"), IfIndex: v0.Index}},
		{Kind: fib.GroupAdd, ID: group, Members: []uint32{hop}},
		{Kind: fib.RouteAdd, ID: group, Prefix: netip.MustParsePrefix("10.9.0.0/16")},
		{Kind: fib.RouteAdd, ID: group, Prefix: netip.MustParsePrefix("10.8.0.0/16")},
	}
	if refused, err := k.Apply(ours); err != nil || len(refused) > 0 {
		t.Fatalf("Apply: %v, %v", refused, err)
	}

	// A daemon that runs is not cheated.
	ln, err := diag.ListenUnix(t.Context(), socket, socketMode)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := execute(t, t.Context(), nil, "flush", "--config", path); code != exitFailed || !strings.Contains(stderr, "is nexthopd running already?") {
		t.Errorf("flush beside a daemon: exit %d, %q; want %d and who listens", code, stderr, exitFailed)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Rmdir(filepath.Dir(socket)); err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"removed 2 routes of table 254\n", "removed 0 routes of table 254\n"} {
		if code, stdout, stderr := execute(t, t.Context(), nil, "flush", "--config", path); code != 0 || stdout != want {
			t.Errorf("flush: exit %d, %q, %q; want 0, %q", code, stdout, stderr, want)
		}
	}
	if out := ip(t, "route", "show", "table", "all", "proto", "165"); !strings.Contains(out, "198.51.100.0/24") || strings.Contains(out, "10.9.0.0") || strings.Contains(out, "10.8.0.0") {
		t.Errorf("routes of protocol 165 after flush: %q, want that of table 99 alone", out)
	}
	if out := ip(t, "route", "show", "192.0.2.0/24"); out == "" {
		t.Error("flush removed a foreign route")
	}
	if out := ip(t, "nexthop", "show"); !strings.HasPrefix(out, "id 7 ") || strings.Count(out, "\n") != 1 {
		t.Errorf("next hops after flush: %q, want id 7 alone", out)
	}
	if err := syscall.Rmdir(filepath.Dir(socket)); err != syscall.ENOENT {
		t.Errorf("flush left the directory it made (%v)", err)
	}
}
