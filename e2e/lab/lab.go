// Package lab builds small networks out of namespaces for tests, the demo and the
// benchmark: nodes, segments that join them, daemons that run in them, and traffic
// that is counted packet by packet.
//
// It needs root and the ip and bridge commands of iproute2 (essential on Debian); FRR
// and BIRD only where they are asked for. It must not import GoBGP or netlink: what
// tests the daemon shares no library with it.
//
// Everything a Lab makes carries the pid of its process in its name, so that what a
// killed run left behind is found and removed by the next one.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// namePrefix starts the name of every namespace and directory of a lab.
const namePrefix = "nhlab-"

// labs numbers the labs of this process: their namespaces must not clash.
var labs atomic.Int32

// Lab is a network. Its methods, and those of its nodes, may be called from any goroutine.
type Lab struct {
	bin binaries
	id  string // unique on this machine while this process lives
	dir string

	mu     sync.Mutex
	nodes  map[string]*Node
	sw     *Node // holds a bridge per segment
	ports  int   // numbers the switch's ports
	procs  []*Proc
	closed bool
}

// New makes an empty lab, after removing what dead processes left of theirs.
func New() (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: network namespaces need root")
	}
	for _, tool := range []string{"ip", "bridge"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("lab: %w (package iproute2)", err)
		}
	}
	if err := RemoveLeftovers(); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%d-%d", os.Getpid(), labs.Add(1))
	dir := filepath.Join(os.TempDir(), namePrefix+id)
	// Whoever had our pid before us is dead, and so is its directory.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	l := &Lab{id: id, dir: dir, nodes: map[string]*Node{}}
	sw, err := l.newNode("switch")
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.sw = sw
	return l, nil
}

// Dir is a directory of this lab's, removed with it.
func (l *Lab) Dir() string { return l.dir }

// Node adds a namespace: a host of its own, forwarding on, multipath hashing over
// layer 4, no reverse path filter, no duplicate address detection.
func (l *Lab) Node(name string) (*Node, error) {
	l.mu.Lock()
	_, exists := l.nodes[name]
	l.mu.Unlock()
	if exists {
		return nil, fmt.Errorf("lab: node %s exists", name)
	}
	n, err := l.newNode(name)
	if err != nil {
		return nil, err
	}
	return n, n.Sysctl(
		"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
		"net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
		"net.ipv6.conf.default.accept_ra=0",
		// A forwarder that tells hosts of better gateways would change what is tested.
		"net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.default.send_redirects=0",
	)
}

// Close stops every process and removes every namespace and file of the lab. It may
// be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	procs, nodes := l.procs, l.nodes
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range slices.Backward(procs) {
		wg.Go(func() { _ = p.Stop(2 * time.Second) }) // killed when it does not end
	}
	wg.Wait()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// CloseOnSignal closes the lab and exits with status 130 on SIGINT or SIGTERM, until
// the function it returns is called.
func (l *Lab) CloseOnSignal() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			if err := l.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(130)
		case <-done:
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
	})
}

// leftover matches the name of a lab's namespace or directory, and its pid.
var leftover = regexp.MustCompile(`^` + namePrefix + `([0-9]+)-`)

// RemoveLeftovers removes the namespaces, directories and processes of labs whose
// process is dead. A pid that was given to another process since keeps them until
// that one is gone too.
func RemoveLeftovers() error {
	var errs []error
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			m := leftover.FindStringSubmatch(e.Name())
			if m == nil {
				continue
			}
			pid, err := strconv.Atoi(m[1])
			if err != nil || alive(pid) {
				continue
			}
			if dir == netnsDir {
				errs = append(errs, removeNamespace(e.Name()))
			} else {
				errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// removeNamespace ends the processes inside, which only a lab can have started, and
// then removes the namespace.
func removeNamespace(name string) error {
	out, err := exec.Command("ip", "netns", "pids", name).Output()
	if err == nil {
		for _, field := range strings.Fields(string(out)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
			}
		}
	}
	out, err = exec.Command("ip", "netns", "del", name).CombinedOutput()
	// Another lab of another process may clean up at the same time.
	if _, gone := os.Stat(filepath.Join(netnsDir, name)); err != nil && gone == nil {
		return fmt.Errorf("remove namespace %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Eventually calls ok every few milliseconds until it returns nil, and returns its
// last error when ctx ends first.
func Eventually(ctx context.Context, what string, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
