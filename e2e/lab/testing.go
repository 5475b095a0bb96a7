package lab

import "os"

// requireRootEnv makes the lack of root a failure: set where tests must not be
// skipped.
const requireRootEnv = "NEXTHOPD_REQUIRE_ROOT"

// TB is what ForTest needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Skip(args ...any)
	Fatal(args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

// RequireRoot skips the test without root, or fails it where NEXTHOPD_REQUIRE_ROOT=1.
func RequireRoot(t TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv(requireRootEnv) == "1" {
		t.Fatal("this test makes network namespaces: it needs root, and " + requireRootEnv + " forbids skipping it")
	}
	t.Skip("this test makes network namespaces: run it as root")
}

// ForTest makes a lab that ends with the test, and on a signal. When the test has
// failed, what the lab's processes wrote is logged.
func ForTest(t TB) *Lab {
	t.Helper()
	RequireRoot(t)
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	stop := l.CloseOnSignal()
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			l.mu.Lock()
			procs := l.procs
			l.mu.Unlock()
			for _, p := range procs {
				t.Logf("--- %s, pid %d\n%s", p.Name, p.PID(), p.Log())
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}
