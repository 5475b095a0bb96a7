package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// BinDirEnv names a directory with ready-made binaries, which are then used as they are.
const BinDirEnv = "NEXTHOPD_BIN"

// Programs are the names that Binary and Build know.
var Programs = []string{"nexthopd", "nexthopctl", "nvasim"}

// sources are the folders of the programs.
var sources = map[string]string{
	"nexthopd":   "cmd/nexthopd",
	"nexthopctl": "cmd/nexthopctl",
	"nvasim":     "e2e/nva/nvasim",
}

// Build builds programs into a directory. A test suite with many labs does it once, in
// its TestMain, and sets $NEXTHOPD_BIN.
func Build(dir string, programs ...string) error {
	// Import paths, so that it works from any folder of the module.
	module, err := exec.Command("go", "list", "-m").Output()
	if err != nil {
		return fmt.Errorf("go list -m: %w", err)
	}
	args := []string{"build", "-o", dir + "/"}
	for _, p := range programs {
		if sources[p] == "" {
			return fmt.Errorf("lab: no program called %s", p)
		}
		args = append(args, strings.TrimSpace(string(module))+"/"+sources[p])
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w: %s", programs, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// binaries remembers what this lab has built.
type binaries struct {
	mu    sync.Mutex
	built map[string]bool
}

// Binary returns the path of one of our programs: in the directory that $NEXTHOPD_BIN
// names; what is not there is built from source, once per lab.
func (l *Lab) Binary(name string) (string, error) {
	if dir := os.Getenv(BinDirEnv); dir != "" {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	l.bin.mu.Lock()
	defer l.bin.mu.Unlock()
	path := filepath.Join(l.dir, name)
	if l.bin.built[name] {
		return path, nil
	}
	if err := Build(l.dir, name); err != nil {
		return "", err
	}
	if l.bin.built == nil {
		l.bin.built = map[string]bool{}
	}
	l.bin.built[name] = true
	return path, nil
}
