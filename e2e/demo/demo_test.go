package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// S15: the demo asserts every sentence of it, with the simulator and with FRR.
func TestDemoS15(t *testing.T) {
	lab.RequireRoot(t)
	for _, kind := range []string{"simulator", "frr"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "frr" && !lab.HaveFRR() {
				t.Skip("FRR is not installed")
			}
			t.Setenv("NVA", kind)
			t.Setenv("HOLD", "")
			file := filepath.Join(t.TempDir(), "out")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			err = run(ctx, newScreen(f))
			b, rerr := os.ReadFile(file)
			if rerr != nil {
				t.Fatal(rerr)
			}
			out := string(b)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				"nexthopctl learned quagga", "via 10.1.0.4", "via 10.1.0.5", "10.1.0.0/16", "not interrupted", "10.1.0.4 dies",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("the demo does not show %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") {
				t.Error("colours in a file")
			}
		})
	}
}

func TestUnknownAppliance(t *testing.T) {
	if _, err := applianceKind("cisco"); err == nil {
		t.Error("NVA=cisco is taken")
	}
}
