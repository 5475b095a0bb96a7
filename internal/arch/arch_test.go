package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	module = "github.com/nexthopd/nexthopd"
	gobgp  = "github.com/osrg/gobgp"
	nlink  = "github.com/vishvananda"
)

// rules are this repository's. Change them together with the reason for it in docs/adr.
var rules = Rules{
	Module: module,
	Reserved: map[string][]string{
		gobgp: {"agent/bgp"},
		// The namespaces of tests are made with netlink too; nothing else is.
		nlink: {"fib/kernel", "internal/netnstest", "e2e/lab"},
		// Its errors repeat what is in the file.
		"github.com/prometheus/exporter-toolkit": {"internal/web"},
	},
	Packages: map[string]Allowed{
		"fib":         {StdOnly: true, Tests: []string{"fib/fibtest"}},
		"fib/fibtest": {Module: []string{"fib"}, StdOnly: true},
		"fib/kernel":  {Module: []string{"fib"}, Tests: []string{"fib/fibtest", "internal/netnstest"}},

		"agent/rib":      {Module: []string{"fib"}, StdOnly: true},
		"agent/policy":   {Module: []string{"agent/rib"}, StdOnly: true},
		"agent/config":   {Module: []string{"agent/policy", "internal/near", "internal/web"}},
		"agent/status":   {StdOnly: true},
		"agent/journal":  {Module: []string{"agent/config"}},
		"agent/session":  {Module: []string{"agent/rib"}, StdOnly: true},
		"agent/bgp/wire": {StdOnly: true},
		"agent/bgp":      {Module: []string{"agent/bgp/wire", "agent/rib", "agent/policy", "agent/session", "agent/config", "agent/journal", "fib"}, Tests: []string{"internal/netnstest"}},
		"agent": {
			Module: []string{"agent/rib", "agent/policy", "agent/config", "agent/session", "agent/status", "agent/journal", "fib", "metrics", "bfd"},
			Tests:  []string{"fib/fibtest"},
		},
		"bfd": {Tests: []string{"internal/netnstest", "e2e/lab"}},
		// Types to describe; nothing that could be told to do something.
		"metrics":      {Module: []string{"agent/session", "agent/status", "fib", "internal/version", "internal/web", "metrics/page"}},
		"metrics/page": {Module: []string{"agent/session", "agent/status"}, Tests: []string{"internal/netnstest"}},

		"cmd/nexthopd": {Module: []string{
			"agent", "agent/bgp", "agent/config", "agent/journal", "agent/session", "agent/status", "bfd", "fib", "fib/kernel", "metrics",
			"internal/diag", "internal/man", "internal/version",
		}, Tests: []string{"internal/netnstest"}},
		"internal/diag":         {Tests: []string{"internal/netnstest"}},
		"cmd/nexthopctl":        {Module: []string{"agent/status", "cmd/nexthopctl/doctor", "internal/man", "internal/near", "internal/version"}},
		"cmd/nexthopctl/doctor": {Module: []string{"agent/status", "internal/diag"}, Tests: []string{"internal/netnstest"}},

		// The simulated NVA shares no code with the daemon, so that one mistake can't hide another.
		"e2e/nva": {},
		"e2e/...": {Module: []string{"..."}},

		// What the packages hold is made from what the code says.
		"packaging/...": {Module: []string{"..."}},

		"docs":               {StdOnly: true},
		"internal/arch":      {StdOnly: true},
		"internal/man":       {},
		"internal/near":      {StdOnly: true},
		"internal/netnstest": {},
		"internal/version":   {StdOnly: true},
		"internal/web":       {},
	},
}

func TestImports(t *testing.T) {
	imports, err := Read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) == 0 {
		t.Fatal("no import read")
	}
	for _, broken := range rules.Check(imports) {
		t.Error(broken)
	}
}

// What a package imports through others counts too: a dependency could bring netlink in.
func TestHeavyLibrariesStayBehindTheirAdapters(t *testing.T) {
	graph := importGraph(t)
	for _, pkg := range []string{"fib", "fib/fibtest", "agent/rib", "agent/session", "agent/status", "agent/config", "agent/journal", "agent", "metrics", "cmd/nexthopctl"} {
		if _, ok := graph[module+"/"+pkg]; !ok {
			t.Errorf("package %s does not exist: drop it here", pkg)
		}
		for _, heavy := range []string{gobgp, nlink} {
			if chain := Chain(graph, module+"/"+pkg, heavy); chain != nil {
				t.Errorf("%s depends on %s: %s", pkg, heavy, strings.Join(chain, " -> "))
			}
		}
	}
	// The adapters do depend on them: else the graph is wrong, and the above proves nothing.
	for pkg, heavy := range map[string]string{"agent/bgp": gobgp, "fib/kernel": nlink} {
		if Chain(graph, module+"/"+pkg, heavy) == nil {
			t.Errorf("%s does not depend on %s; bug in this test?", pkg, heavy)
		}
	}
}

func importGraph(t *testing.T) map[string][]string {
	t.Helper()
	// -e: a file that doesn't compile is for the compiler to report.
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	graph := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatal(err)
		}
		graph[p.ImportPath] = p.Imports
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, file, path string
		want             string // part of the sentence, "" for allowed
	}{
		{"GoBGP in its adapter", "agent/bgp/speaker.go", gobgp + "/v4/api", ""},
		{"GoBGP in its adapter's test", "agent/bgp/speaker_test.go", gobgp + "/v4/pkg/server", ""},
		{"GoBGP in the agent", "agent/loop.go", gobgp + "/v4/api", "only agent/bgp may"},
		{"GoBGP in a test of the agent", "agent/loop_test.go", gobgp + "/v4/api", "only agent/bgp may"},
		{"GoBGP in the composition root", "cmd/nexthopd/main.go", gobgp + "/v4/api", "only agent/bgp may"},
		{"a name that only begins like GoBGP", "agent/loop.go", gobgp + "-tools/x", ""},
		{"netlink in its adapter", "fib/kernel/handle.go", nlink + "/netlink/nl", ""},
		{"netlink in fib", "fib/plan.go", nlink + "/netlink", "only fib/kernel and internal/netnstest and e2e/lab may"},
		{"namespaces in a test elsewhere", "agent/bgp/speaker_test.go", nlink + "/netns", "may"},
		{"fib knows no BGP", "fib/plan.go", module + "/agent/rib", "the arrow fib -> agent/rib is not among fib -> (none)"},
		{"fib is standard library only", "fib/plan.go", "golang.org/x/sys/unix", "the standard library"},
		{"fib and the standard library", "fib/plan.go", "net/netip", ""},
		{"fib's test and the fake", "fib/plan_test.go", module + "/fib/fibtest", ""},
		{"fib and the fake", "fib/plan.go", module + "/fib/fibtest", "the arrow fib -> fib/fibtest"},
		{"an external test and its own package", "fib/plan_test.go", module + "/fib", ""},
		{"rib and fib's types", "agent/rib/rank.go", module + "/fib", ""},
		{"rib and the configuration", "agent/rib/rank.go", module + "/agent/config", "the arrow agent/rib -> agent/config"},
		{"the agent and the speaker", "agent/loop.go", module + "/agent/bgp", "the arrow agent -> agent/bgp"},
		{"the agent and the kernel", "agent/loop.go", module + "/fib/kernel", "the arrow agent -> fib/kernel"},
		{"metrics drives nothing", "metrics/metrics.go", module + "/agent", "the arrow metrics -> agent"},
		{"the CLI and the daemon", "cmd/nexthopctl/main.go", module + "/agent", "the arrow cmd/nexthopctl -> agent "},
		{"a folder below e2e", "e2e/nva/nvasim/main.go", module + "/e2e/nva", ""},
		{"the simulated NVA and the daemon's code", "e2e/nva/message.go", module + "/agent/rib", "the arrow e2e/nva -> agent/rib"},
		{"the daemon and the test lab", "agent/loop.go", module + "/e2e/lab", "the arrow agent -> e2e/lab"},
		{"a package without a rule", "pkg/util/util.go", "fmt", "package pkg/util has no rule"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(rules.Check([]Import{{File: tt.file, Path: tt.path}}), "\n")
			if tt.want == "" && got != "" {
				t.Errorf("%s imports %s: got %q, want it allowed", tt.file, tt.path, got)
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("%s imports %s: got %q, want it to contain %q", tt.file, tt.path, got, tt.want)
			}
			if got != "" && !strings.HasPrefix(got, tt.file) {
				t.Errorf("got %q, want the file at its start", got)
			}
		})
	}
}

func TestCheckReportsAMissingRuleOnce(t *testing.T) {
	got := rules.Check([]Import{{"x/a.go", "fmt"}, {"x/b.go", "os"}, {"y/a.go", "fmt"}})
	want := []string{
		"x/a.go: package x has no rule; say in internal/arch what it may import",
		"y/a.go: package y has no rule; say in internal/arch what it may import",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRead(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	got, err := Read(fstest.MapFS{
		"a/a.go":                file("package a\nimport (\n\t\"fmt\"\n\tx \"net/netip\"\n)\nvar broken = \n"),
		"a/a_windows.go":        file("//go:build windows\n\npackage a\nimport \"os\"\n"),
		"a/testdata/t.go":       file("package t\nimport \"skipped/testdata\"\n"),
		"_drafts/d.go":          file("package d\nimport \"skipped/underscore\"\n"),
		".git/g.go":             file("package g\nimport \"skipped/dot\"\n"),
		"internal/tools/t.go":   file("package t\nimport \"skipped/module\"\n"),
		"internal/tools/go.mod": file("module tools\n"),
		"README.md":             file("import nothing\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Import{{"a/a.go", "fmt"}, {"a/a.go", "net/netip"}, {"a/a_windows.go", "os"}}
	if !slices.Equal(got, want) {
		t.Errorf("Read: got %v, want %v", got, want)
	}
}

func TestChain(t *testing.T) {
	graph := map[string][]string{
		"agent":    {"fib", "metrics"},
		"metrics":  {"lib"},
		"lib":      {"lib/sub"},
		"lib/sub":  {"heavy/v4/api", "agent"}, // and a cycle, as tests can make one
		"heavyish": nil,
	}
	if got, want := Chain(graph, "agent", "heavy"), []string{"agent", "metrics", "lib", "lib/sub", "heavy/v4/api"}; !slices.Equal(got, want) {
		t.Errorf("Chain(agent, heavy): got %v, want %v", got, want)
	}
	if got := Chain(graph, "fib", "heavy"); got != nil {
		t.Errorf("Chain(fib, heavy): got %v, want none", got)
	}
}
