package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tool runs a program of the machine's. Where it is missing the test is skipped, or fails
// where tests must not be skipped.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
			t.Fatalf("%v: internal/tools/apt-packages installs it", err)
		}
		t.Skip(err)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestUnitIsHardened(t *testing.T) {
	tool(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", "files/nexthopd.service")
}

func TestUnitVerifies(t *testing.T) {
	// It looks for the programs, which are not installed here.
	text, err := os.ReadFile("files/nexthopd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "nexthopd.service")
	installed := regexp.MustCompile(`/usr/s?bin/nexthop(d|ctl)`)
	if err := os.WriteFile(unit, installed.ReplaceAll(text, []byte("/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(out, "nexthopd.service") {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
}

func TestAlertRules(t *testing.T) {
	tool(t, "promtool", "check", "rules", "prometheus/nexthopd.rules.yml")
	tool(t, "promtool", "test", "rules", "prometheus/nexthopd.rules_test.yml")
}

// Every alert has a test in which it fires.
func TestEveryAlertIsTested(t *testing.T) {
	rules, err := os.ReadFile("prometheus/nexthopd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("prometheus/nexthopd.rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1)
	if len(alerts) == 0 {
		t.Fatal("no alert found")
	}
	for _, m := range alerts {
		name := string(m[1])
		if !strings.Contains(string(tests), "alertname: "+name+"\n") && !strings.Contains(string(tests), `alertname="`+name+`"`) {
			t.Errorf("no test of %s", name)
		}
	}
}

// Grafana takes any JSON and shows an empty page for what it does not understand.
func TestDashboard(t *testing.T) {
	type target struct {
		Expr  string
		RefID string
	}
	var board struct {
		Title, UID    string
		SchemaVersion int
		Panels        []struct {
			ID          int
			Title, Type string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []target
		}
	}
	text, err := os.ReadFile("grafana/nexthopd.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	if board.Title == "" || board.UID == "" || board.SchemaVersion == 0 || len(board.Panels) == 0 {
		t.Errorf("dashboard %q, uid %q, schema %d, %d panels", board.Title, board.UID, board.SchemaVersion, len(board.Panels))
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: want an id of its own, a title, a description and targets", p.ID, p.Title)
		}
		ids[p.ID] = true
		refs := map[string]bool{}
		for _, tg := range p.Targets {
			if tg.Expr == "" || refs[tg.RefID] || !strings.Contains(tg.Expr, `job="$job", instance=~"$instance"`) {
				t.Errorf("panel %q, target %q: %q wants an id of its own and the dashboard's selection", p.Title, tg.RefID, tg.Expr)
			}
			refs[tg.RefID] = true
		}
		g := p.GridPos
		if g.X+g.W > 24 {
			t.Errorf("panel %q reaches beyond the page", p.Title)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" && other != p.Title {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// A maintainer script that fails leaves a package half installed.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("scripts/*")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, s := range scripts {
		tool(t, "sh", "-n", s)
	}
	tool(t, "bash", "-n", "build")
}
