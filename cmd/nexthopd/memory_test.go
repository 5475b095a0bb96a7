package main

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestGCPace(t *testing.T) {
	var p gcPace
	for i, step := range []struct {
		changes          uint64
		changed, loading bool
	}{
		{0, false, false},
		{4999, false, false}, // a busy second, and no load
		{10_000, true, true},
		{20_000, false, true},
		{20_000, false, true},
		{20_001, false, true},
		{30_000, false, true}, // it goes on
		{30_000, false, true},
		{30_000, false, true},
		{30_000, true, false},
		{30_000, false, false},
	} {
		if changed := p.tick(step.changes); changed != step.changed || p.loading != step.loading {
			t.Fatalf("step %d: changed %t, loading %t; want %t, %t", i, changed, p.loading, step.changed, step.loading)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	const meminfo = "MemTotal:        1000000 kB\nMemFree: 1 kB\n"
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"nothing readable": {fstest.MapFS{}, 0},
		"machine":          {fstest.MapFS{"proc/meminfo": file(meminfo)}, 1000000 * 1024 / 100 * 80},
		"cgroup v2": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/system.slice/nexthopd.service\n"),
			"sys/fs/cgroup/system.slice/nexthopd.service/memory.max": file("max\n"), "sys/fs/cgroup/system.slice/memory.max": file("100000000\n")}, 80_000_000},
		"cgroup v1": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("5:cpu:/x\n4:memory:/x\n0::/\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("50000000")}, 40_000_000},
		"v1 without a limit": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("4:memory:/x\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("9223372036854771712")}, 1000000 * 1024 / 100 * 80},
	} {
		t.Run(name, func(t *testing.T) {
			if got := memoryLimit(c.files); got != c.want {
				t.Errorf("memoryLimit is %d, want %d", got, c.want)
			}
		})
	}
}

// FuzzMemoryLimit: whatever the files hold, the limit is none, or less than what a machine has.
func FuzzMemoryLimit(f *testing.F) {
	f.Add("0::/system.slice/nexthopd.service\n", "max\n", "MemTotal:       16318472 kB\n")
	f.Add("9:memory:/a/../../b\n0::/\n", "536870912\n", "MemTotal: -1\n")
	f.Fuzz(func(t *testing.T, cgroup, limit, meminfo string) {
		files := fstest.MapFS{}
		for name, text := range map[string]string{
			"proc/self/cgroup": cgroup, "proc/meminfo": meminfo,
			"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
		} {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryLimit(files); got < 0 || got > math.MaxInt64/100*memoryShare {
			t.Errorf("memoryLimit = %d", got)
		}
	})
}
