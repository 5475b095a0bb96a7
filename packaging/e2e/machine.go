package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// Machine is a root that was booted by its own systemd, in the network namespace of a
// lab's node. What it writes is gone with it.
type Machine struct {
	t       *testing.T
	leader  int // the pid of its pid 1
	console string
}

var machines atomic.Int32

// boot starts systemd-nspawn. The three mounts, in a mount namespace of our own: nspawn
// refuses a /run that is on disk; a systemd of 256 or later does not boot where the host
// has cgroup v1, of which hybrid hosts have the v2 hierarchy in unified/; and the
// namespace's file has to be reachable in spite of the first.
const bootScript = `
echo $$ >"$CG/cgroup.procs"
mount --bind "/run/netns/$NS" "$WORK/ns"
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --quiet --directory="$ROOT" --volatile=overlay --boot --machine="$NAME" \
	--network-namespace-path="$WORK/ns" --capability=CAP_NET_ADMIN --register=no --keep-unit \
	--resolv-conf=off --timezone=off --console=pipe --bind-ro="$PACKAGES:/packages"
`

// Boot boots root with the folder packages at /packages, and waits until it is up.
func Boot(t *testing.T, root string, n *lab.Node, packages string) *Machine {
	t.Helper()
	work := t.TempDir()
	name := fmt.Sprintf("nexthopd-boot-%d-%d", os.Getpid(), machines.Add(1))
	base := "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/unified/cgroup.procs"); err == nil {
		base += "/unified"
	}
	cg := filepath.Join(base, name)
	m := &Machine{t: t, console: filepath.Join(work, "console")}
	out, err := os.Create(m.console)
	check(t, err)
	defer out.Close()
	check(t, os.WriteFile(filepath.Join(work, "ns"), nil, 0o600))
	check(t, os.Mkdir(cg, 0o755))
	// In a pid namespace of its own, so that nothing survives unshare: nspawn's death alone
	// would leave the booted system running.
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-euc", bootScript)
	cmd.Env = append(os.Environ(), "CG="+cg, "NS="+n.Namespace, "WORK="+work, "ROOT="+root, "NAME="+name, "PACKAGES="+packages)
	cmd.Stdout, cmd.Stderr = out, out
	// Started by a thread that lives as long as the node, for Pdeathsig goes by the thread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	check(t, n.Do(cmd.Start))
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		if t.Failed() {
			m.report()
		}
		check(t, cmd.Process.Kill())
		<-ended
		removeCgroup(t, cg)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	check(t, lab.Eventually(ctx, "pid 1", func() error {
		select {
		case <-ended:
			return errors.New("systemd-nspawn ended: " + m.consoleTail())
		default:
		}
		m.leader = leaderOf(cmd.Process.Pid)
		if m.leader == 0 {
			return errors.New("not there")
		}
		return nil
	}))
	check(t, lab.Eventually(ctx, "boot", func() error {
		state, err := m.Try(ctx, "systemctl is-system-running")
		if s := strings.TrimSpace(state); s != "running" && s != "degraded" {
			return fmt.Errorf("%s (%w); %s", s, err, m.consoleTail())
		}
		return nil
	}))
	return m
}

// leaderOf finds the container's pid 1 below nspawn: the process whose innermost pid is 1.
func leaderOf(pid int) int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0 // it ended
	}
	for _, f := range strings.Fields(string(children)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ns, ok := strings.CutPrefix(line, "NSpid:"); ok {
				ids := strings.Fields(ns)
				if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", child)); len(ids) > 1 && ids[len(ids)-1] == "1" && strings.HasSuffix(exe, "/systemd") {
					return child
				}
			}
		}
		if found := leaderOf(child); found != 0 {
			return found
		}
	}
	return 0
}

func removeCgroup(t *testing.T, dir string) {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, d := range slices.Backward(dirs) {
		// The kernel takes its time with what was just killed.
		check(t, lab.Eventually(ctx, "remove "+d, func() error { return syscall.Rmdir(d) }))
	}
}

// Try runs shell commands as root in the machine; what they write to stderr is in the error.
func (m *Machine) Try(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.leader), "-a", "--", "/bin/bash", "-c", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0", "TERM=dumb"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Dir = "/"
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", script, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Run is Try for commands that must succeed.
func (m *Machine) Run(script string) string {
	m.t.Helper()
	out, err := m.Try(m.t.Context(), script)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Write writes a file in the machine.
func (m *Machine) Write(path, text string) {
	m.t.Helper()
	m.Run(fmt.Sprintf("mkdir -p \"$(dirname %[1]s)\" && cat >%[1]s <<'END-OF-FILE'\n%[2]s\nEND-OF-FILE", path, strings.TrimSuffix(text, "\n")))
}

// patience is how long anything may take to show: a bound for slow machines that boot
// three systems at once, not what is expected.
const patience = 3 * time.Minute

// Wait polls shell commands until they succeed and their output contains want.
func (m *Machine) Wait(want, script string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	var out string
	err := lab.Eventually(ctx, script, func() error {
		var err error
		out, err = m.Try(ctx, script)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("printed %q, want %q in it", out, want)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *Machine) consoleTail() string {
	b, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	return "console: " + string(b[max(0, len(b)-2000):])
}

// report logs what one wants to see of a failed test.
func (m *Machine) report() {
	if m.leader == 0 {
		m.t.Log(m.consoleTail())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := m.Try(ctx, "systemctl --failed; systemctl status nexthopd; journalctl -b -n 60 -o short-precise; ip route; ip nexthop")
	m.t.Logf("--- %v\n%s", err, out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
