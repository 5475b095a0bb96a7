package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// memoryShare is how much of what the machine or the cgroup has is Go's limit, in percent.
const memoryShare = 80

// memoryLimit is the limit in bytes for this process, from the smallest of the machine's
// memory and the limits of its cgroup and those above (cgroups(7), both versions); 0 where
// none can be read. root is "/".
func memoryLimit(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	take := func(n int64, err error) {
		if err == nil && n > 0 {
			least = min(least, n)
		}
	}
	take(memTotal(root))
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // none: the machine's memory alone counts
	for line := range strings.Lines(string(groups)) {
		// hierarchy-ID:controllers:path
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		switch {
		case f[1] == "memory":
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case f[0] != "0":
			continue
		}
		for p := path.Clean("/" + f[2]); ; p = path.Dir(p) {
			take(readBytes(root, path.Join(dir, p, file)))
			if p == "/" {
				break
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least / 100 * memoryShare
}

// readBytes reads a number of bytes; "max" is an error, for it limits nothing.
func readBytes(root fs.FS, name string) (int64, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
}

func memTotal(root fs.FS) (int64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no MemTotal in /proc/meminfo")
}
