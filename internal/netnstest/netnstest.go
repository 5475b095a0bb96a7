// Package netnstest runs a test in a network namespace of its own. It is for tests
// only, and knows nothing of what they do there.
package netnstest

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// requireEnv turns the skip for want of root into a failure, so that a build machine
// that lost its privileges cannot pass by skipping everything.
const requireEnv = "NEXTHOPD_REQUIRE_ROOT"

// RequireRoot skips the test unless it runs as root; with NEXTHOPD_REQUIRE_ROOT=1 in
// the environment it fails instead.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv(requireEnv) == "1" {
		tb.Fatal("this test needs root (network namespaces), and " + requireEnv + "=1 forbids to skip it")
	}
	tb.Skip("this test needs root (network namespaces); run it with sudo")
}

// NS is a network namespace that lives for one test.
type NS struct{ handle netns.NsHandle }

// New puts the calling test into a fresh network namespace, with only lo, which is up,
// until it ends. The test's goroutine is locked to its thread meanwhile. Goroutines
// that it starts, subtests included, are NOT in the namespace: they use sockets that
// were opened here, or call Enter.
func New(tb testing.TB) *NS {
	tb.Helper()
	RequireRoot(tb)
	restoreAtEnd(tb)
	h, err := netns.New() // enters it, too
	if err != nil {
		tb.Fatalf("new network namespace: %v", err)
	}
	tb.Cleanup(func() { h.Close() })
	if err := loopbackUp(); err != nil {
		tb.Fatalf("set lo up: %v", err)
	}
	return &NS{handle: h}
}

// Enter puts the calling test (a subtest, say) into ns until it ends.
func (ns *NS) Enter(tb testing.TB) {
	tb.Helper()
	restoreAtEnd(tb)
	if err := netns.Set(ns.handle); err != nil {
		tb.Fatalf("enter network namespace: %v", err)
	}
}

// restoreAtEnd locks the goroutine to its thread and brings the thread back to where
// it is now when the test ends.
func restoreAtEnd(tb testing.TB) {
	tb.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		tb.Fatalf("open the present network namespace: %v", err)
	}
	tb.Cleanup(func() {
		defer old.Close()
		if err := netns.Set(old); err != nil {
			// Still locked: the thread ends with this goroutine instead of running
			// some other test in the wrong namespace.
			tb.Errorf("return to the first network namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
