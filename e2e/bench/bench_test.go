package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

func TestFormat(t *testing.T) {
	tests := []struct {
		row  row
		v    float64
		want string
	}{
		{row{unit: seconds}, 0, "0.00 ms"},
		{row{unit: seconds}, 0.00123, "1.23 ms"},
		{row{unit: seconds}, 0.0123, "12.3 ms"},
		{row{unit: seconds}, 0.123, "123 ms"},
		{row{unit: seconds}, 1.234, "1.23 s"},
		{row{unit: seconds}, 12.34, "12.3 s"},
		{row{unit: seconds, most: 5}, 5, "> 5.00 s"},
		{row{unit: bytes}, 1.4e9, "1400 MB"},
		{row{unit: count}, 1323, "1323"},
		{row{unit: perSecond}, 392_600, "393k/s"},
	}
	for _, tt := range tests {
		if got := tt.row.format(tt.v); got != tt.want {
			t.Errorf("format(%v) = %q, want %q", tt.v, got, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	r := &results{}
	for run, v := range []float64{9, 1, 5} {
		r.Values = append(r.Values, value{"nexthopd", 1000, run, "load", v}, value{"bird", 1000, run, "load", 100})
	}
	if m, ok := r.median("nexthopd", 1000, "load"); m != 5 || !ok {
		t.Errorf("median of 9, 1, 5: %v, %v", m, ok)
	}
	if _, ok := r.median("nexthopd", 2000, "load"); ok {
		t.Error("a median of nothing")
	}
	r.Values = append(r.Values, value{"nexthopd", 1000, 3, "load", 6})
	if m, _ := r.median("nexthopd", 1000, "load"); m != 5.5 {
		t.Errorf("median of 9, 1, 5, 6: %v", m)
	}
}

// A target that is set for a size that was not measured is judged by the largest size
// that was, and says so.
func TestTargets(t *testing.T) {
	result := func(figures map[string]float64, n int) *results {
		r := &results{Sizes: []int{1000, n}, Runs: 1}
		for key, v := range figures {
			column, row, _ := strings.Cut(key, " ")
			r.Values = append(r.Values, value{column, n, 0, row, v})
		}
		return r
	}
	tests := []struct {
		name    string
		what    string
		figures map[string]float64
		n       int
		want    string
	}{
		{"met", "load", map[string]float64{"nexthopd load": 1, "bird load": 2}, 100_000, "| 0.50 x | met |"},
		{"missed", "load", map[string]float64{"nexthopd load": 3, "bird load": 2}, 100_000, "| 1.50 x | **missed** |"},
		{"at a smaller size", "resident", map[string]float64{"nexthopd rss-steady": 2e8}, 100_000, "| 200 MB | met at 100,000 |"},
		{"missed at a smaller size", "resident", map[string]float64{"nexthopd rss-steady": 3e9}, 100_000, "| 3000 MB | **missed** at 100,000 |"},
		{"without the peer", "prepend", map[string]float64{"nexthopd prepend": 3}, 100_000, "| not measured |  |"},
		{"failover", "failover", map[string]float64{"nexthopd reset": 0.003}, 1_000_000, "| 3.00 ms | met |"},
		{"slow failover", "failover", map[string]float64{"nexthopd reset": 0.021}, 1_000_000, "| 21.0 ms | **missed** |"},
		{"nothing lost", "packets lost by SIGKILL", map[string]float64{"nexthopd kill-lost": 0}, 100_000, "| 0 | met |"},
		{"one lost", "packets lost by SIGKILL", map[string]float64{"nexthopd kill-lost": 1}, 100_000, "| 1 | **missed** |"},
		{"writer", "FIB writer", map[string]float64{"writer writer-insert": 8, "writer floor-insert": 10}, 100_000, "| 0.80 x | met |"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := result(tt.figures, tt.n)
			for _, target := range targets {
				if strings.HasPrefix(target.what, tt.what) {
					if line := target.line(r); !strings.Contains(line, tt.want) {
						t.Errorf("got %q, want it to contain %q", line, tt.want)
					}
					return
				}
			}
			t.Fatalf("no target begins with %q", tt.what)
		})
	}
}

func TestUpdate(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + markBegin + "\nold\n" + markEnd + "\nafter\n")
	for range 2 { // once more changes nothing
		if err := update(page, "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if want := "before\n" + markBegin + "\n\nnew\n\n" + markEnd + "\nafter\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	write("no marks\n")
	if err := update(page, "new\n"); err == nil {
		t.Error("a page without marks was updated")
	}
}

// Whatever the kernel sends, reading it ends.
func FuzzEachAttr(f *testing.F) {
	f.Add(attrU32(nil, unix.RTA_TABLE, 254))
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		eachAttr(b, func(uint16, []byte) { n++ })
		if n > len(b)/4 {
			t.Errorf("%d attributes in %d bytes", n, len(b))
		}
	})
}

// The observer sees routes through one NVA, through both, and none, however they are
// written, and the counter their number.
func TestObserver(t *testing.T) {
	l := lab.ForTest(t)
	n, err := newNetwork(l)
	if err != nil {
		t.Fatal(err)
	}
	o, err := newObserver(n.host)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	table := prefixes(3)
	ip := func(lines ...string) {
		t.Helper()
		if err := n.host.IP(lines...); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, total int, h hops, count uint64) {
		t.Helper()
		begun := now()
		if _, err := o.await(ctx, total, h); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if f, err := o.s.routes(); err != nil || f.routes != total || h != 0 && f.by[h] != total {
			t.Errorf("%s: got %s, %v", what, f, err)
		}
		if got, last := o.c.read(ofRoutes); got < count || last > now() || last == 0 {
			t.Errorf("%s: %d notifications, the last one at %d, now %d; want at least %d", what, got, last, begun, count)
		}
	}
	via := func(i int) string { return nvaAddr(i).String() }
	ip("route add "+table[0].String()+" nexthop via "+via(0)+" nexthop via "+via(1),
		"nexthop add id 1 via "+via(0)+" dev eth1", "nexthop add id 2 via "+via(1)+" dev eth2",
		"nexthop add id 3 group 1/2", "route add "+table[1].String()+" nhid 3")
	check("a multipath route and one that names a group", 2, allNVAs, 2)
	ip("route replace "+table[0].String()+" via "+via(1), "nexthop replace id 3 group 2")
	if _, err := o.awaitMove(ctx, 2, 1<<1, 1<<0, map[uint32]bool{3: true}); err != nil {
		t.Error(err)
	}
	if count, _ := o.c.read(ofNextHops); count < 4 {
		t.Errorf("%d notifications of next hops, want 4", count)
	}
	ip("route replace "+table[1].String()+" nhid 2", "nexthop del id 3")
	check("routes through nva2", 2, 1<<1, 4)
	if err := o.s.write(deletions(table[:2])); err != nil {
		t.Error(err)
	}
	check("no route", 0, 0, 6)
	if err := o.s.write(deletions([]netip.Prefix{table[2]})); err == nil {
		t.Error("the deletion of a route that is not there succeeded")
	}
}

// The whole benchmark, small: every phase with nexthopd, and the way through with the
// other daemons that there are.
func TestBenchmark(t *testing.T) {
	lab.RequireRoot(t)
	out := filepath.Join(t.TempDir(), "results.json")
	bench := func(args ...string) *results {
		t.Helper()
		if err := run(t.Context(), append([]string{"-n", "100", "-runs", "1", "-out", out}, args...)); err != nil {
			t.Fatal(err)
		}
		r, err := readResults(out)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := bench("-columns", "nexthopd,writer")
	for _, row := range rows {
		if _, ok := r.median("nexthopd", 100, row.key); !ok && row.key != "repair" {
			t.Errorf("row %s has no figure", row.key)
		}
	}
	for _, c := range []struct {
		name string
		have bool
	}{{"bird", lab.HaveBIRD()}, {"frr", lab.HaveFRR()}} {
		if !c.have {
			continue
		}
		if _, ok := bench("-columns", c.name, "-phases", "withdraw").median(c.name, 100, "withdraw"); !ok {
			t.Errorf("%s: nothing was withdrawn", c.name)
		}
	}
}
