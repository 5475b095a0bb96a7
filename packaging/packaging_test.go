package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/metrics"
	"github.com/nexthopd/nexthopd/packaging/grafana"
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

// The dashboard is of the types that Grafana expects, and its panels have their place. What
// the expressions yield is tested in e2e, with a real Prometheus.
func TestDashboard(t *testing.T) {
	board, err := grafana.Load()
	if err != nil {
		t.Fatal(err)
	}
	if board.Title == "" || board.UID == "" || board.SchemaVersion != 39 || len(board.Panels) == 0 {
		t.Errorf("dashboard %q, uid %q, schema %d, %d panels", board.Title, board.UID, board.SchemaVersion, len(board.Panels))
	}
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" && (v.Datasource == nil || v.Datasource.UID != "${datasource}") {
			t.Errorf("variable %s is not asked of the data source that was chosen", v.Name)
		}
	}
	if !slices.Equal(variables, []string{"datasource", "job", "instance"}) {
		t.Errorf("variables %v", variables)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: want an id of its own, a title, a description and targets", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "stat" && p.Type != "timeseries" {
			t.Errorf("panel %q is a %q", p.Title, p.Type)
		}
		if unit := p.FieldConfig.Defaults.Unit; !slices.Contains([]string{"short", "s", "bytes", "percentunit", "ops", "cps"}, unit) {
			t.Errorf("panel %q has the unit %q", p.Title, unit)
		}
		refs := map[string]bool{}
		for _, tg := range p.Targets {
			if tg.Expr == "" || refs[tg.RefID] || !strings.Contains(tg.Expr, `job="$job", instance=~"$instance"`) {
				t.Errorf("panel %q, target %q: %q wants an id of its own and the dashboard's selection", p.Title, tg.RefID, tg.Expr)
			}
			refs[tg.RefID] = true
			if tg.Instant == tg.Range || tg.Instant != (p.Type == "stat") || tg.LegendFormat == "" {
				t.Errorf("panel %q, target %q: instant %t, range %t, legend %q", p.Title, tg.RefID, tg.Instant, tg.Range, tg.LegendFormat)
			}
			if tg.Datasource == nil || *tg.Datasource != (grafana.Datasource{Type: "prometheus", UID: "${datasource}"}) {
				t.Errorf("panel %q, target %q: data source %+v", p.Title, tg.RefID, tg.Datasource)
			}
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

// What rules and dashboard ask for is what the daemon has.
func TestMetricsExist(t *testing.T) {
	known, err := metrics.Describe()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range known {
		names[d.Name] = true
	}
	board, err := os.ReadFile("grafana/nexthopd.json")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("prometheus/nexthopd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`nexthopd_[a-z_]+`).FindAllString(string(board)+string(rules), -1)
	if len(asked) < 30 {
		t.Fatalf("found only %v", asked)
	}
	for _, name := range asked {
		if !names[name] && !names[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("no metric is called %s", name)
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
