// Package e2e installs the packages on real systems: Debian 12 and 13 roots, booted with
// their own systemd inside a lab's network namespace, with FRR outside. It takes root, and
// the first time a Debian mirror.
package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cacheEnv names the folder that roots are kept in; built once, they serve for a week.
const cacheEnv = "NEXTHOPD_ROOTS"

// Root is a Debian installation in a folder, to boot throw-away copies of.
type Root struct {
	Suite    string
	Packages []string
}

var (
	// What the tests need beside a bootable system: a Prometheus of the release itself.
	bookworm = Root{"bookworm", []string{"systemd", "systemd-sysv", "iproute2", "procps", "prometheus", "ca-certificates"}}
	// The packagers' tools, of the newer release; dnf and zypper to install the rpm with, and
	// D-Bus, which every distribution with rpm has and the rpm's scriptlets need.
	trixie = Root{"trixie", append([]string{"lintian", "man-db", "dnf", "zypper", "rpm", "createrepo-c", "dbus"}, bookworm.Packages...)}
)

// Dir returns the root's folder, after building it where the cache has none of this week.
// Any number of processes may ask at the same time.
func (r Root) Dir(ctx context.Context) (string, error) {
	cache := os.Getenv(cacheEnv)
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil { // no $HOME, as under some CI
			user = "/var/cache"
		}
		cache = filepath.Join(user, "nexthopd", "roots")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	year, week := time.Now().ISOWeek()
	key := sha256.Sum256(fmt.Append(nil, r, year, week))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", r.Suite, key[:6]))
	lock, err := os.OpenFile(filepath.Join(cache, r.Suite+".lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() // unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	old, err := filepath.Glob(filepath.Join(cache, r.Suite+"-*"))
	if err != nil {
		return "", err
	}
	for _, o := range old {
		// A younger one may be another checkout's, and in use.
		if info, err := os.Stat(o); err != nil || time.Since(info.ModTime()) < 14*24*time.Hour {
			continue
		}
		if err := os.RemoveAll(o); err != nil {
			return "", err
		}
	}
	tmp := filepath.Join(cache, r.Suite+"-building")
	if err := os.RemoveAll(tmp); err != nil { // of a run that was killed
		return "", err
	}
	if err := r.build(ctx, tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return dir, os.Rename(tmp, dir)
}

func (r Root) build(ctx context.Context, dir string) error {
	mirror, err := mirror(ctx)
	if err != nil {
		return err
	}
	args := []string{"--mode=root", "--variant=minbase", "--include=" + strings.Join(r.Packages, ",")}
	proxy, err := exec.CommandContext(ctx, "apt-config", "dump", "--format=%f %v%n", "Acquire::http::Proxy", "Acquire::https::Proxy").Output()
	if err != nil {
		return fmt.Errorf("apt-config: %w", err)
	}
	for line := range strings.Lines(string(proxy)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && value != "" {
			args = append(args, fmt.Sprintf("--aptopt=%s %q", name, value))
		}
	}
	out, err := exec.CommandContext(ctx, "mmdebstrap", append(args, r.Suite, dir, mirror)...).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("mmdebstrap %s: %w: %s", r.Suite, err, strings.Join(lines[max(0, len(lines)-5):], "\n"))
	}
	// Only what the tests start.
	for _, unit := range []string{"prometheus.service", "prometheus-node-exporter.service", "systemd-networkd-wait-online.service",
		"apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"} {
		link := filepath.Join(dir, "etc/systemd/system", unit)
		want := "/dev/null"
		if unit == "prometheus.service" {
			link, want = filepath.Join(dir, "etc/systemd/system/multi-user.target.wants", unit), ""
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if want != "" {
			if err := os.Symlink(want, link); err != nil {
				return err
			}
		}
	}
	return nil
}

// mirror is the Debian mirror that the machine itself uses.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Identifier: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	lines := strings.Split(string(out), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Debian|Debian|") })
	if i < 0 {
		return "", errors.New("no Debian mirror among apt's sources (apt-get update may be due)")
	}
	return strings.TrimPrefix(lines[i], "Debian|Debian|"), nil
}
