package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps its namespaces.
const netnsDir = "/run/netns"

// Node is a host of the lab: a network namespace, and a thread that lives in it.
type Node struct {
	Name      string
	Namespace string // for ip -n and ip netns exec
	lab       *Lab
	calls     chan func() // unbuffered: who calls waits anyway
	quit      chan struct{}
	closeOnce sync.Once
	gone      chan struct{} // closed when the thread has ended

	mu     sync.Mutex
	ifaces map[string]*Iface // by name
}

// newNode makes the namespace and its thread.
func (l *Lab) newNode(name string) (*Node, error) {
	n := &Node{
		Name: name, Namespace: namePrefix + l.id + "-" + name, lab: l,
		calls: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{}),
		ifaces: map[string]*Iface{},
	}
	if out, err := exec.Command("ip", "netns", "add", n.Namespace).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("node %s: ip netns add: %w: %s", name, err, bytes.TrimSpace(out))
	}
	started := make(chan error)
	go n.thread(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("node %s: %w", name, err), removeNamespace(n.Namespace))
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.nodes[name] = n
	}
	l.mu.Unlock()
	if closed {
		return nil, errors.Join(errors.New("lab is closed"), n.close())
	}
	return n, n.IP("link set lo up")
}

// thread enters the namespace and runs what Do hands it. It never unlocks its thread,
// which therefore ends with it instead of going back to the scheduler in a strange
// namespace. It lives as long as the node because the kernel sends Pdeathsig when
// the thread that started a process dies, not when the whole process does.
func (n *Node) thread(started chan<- error) {
	defer close(n.gone)
	runtime.LockOSThread()
	f, err := os.Open(filepath.Join(netnsDir, n.Namespace))
	if err != nil {
		started <- err
		return
	}
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	_ = f.Close()
	started <- err
	if err != nil {
		return
	}
	for {
		select {
		case call := <-n.calls:
			call()
		case <-n.quit:
			return
		}
	}
}

// Do runs f on a thread inside the namespace: sockets made there belong to the node
// for good. f should not block, other calls wait for it.
func (n *Node) Do(f func() error) error {
	done := make(chan error, 1) // f's only result
	select {
	case n.calls <- func() { done <- f() }:
		return <-done
	case <-n.quit:
		return fmt.Errorf("node %s is closed", n.Name)
	}
}

func (n *Node) close() error {
	n.closeOnce.Do(func() { close(n.quit) })
	<-n.gone
	return removeNamespace(n.Namespace)
}

// Run runs a command in the namespace to its end and returns what it wrote to stdout.
func (n *Node) Run(ctx context.Context, name string, args ...string) (string, error) {
	return n.run(ctx, "", name, args...)
}

func (n *Node) run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("%s: %s %s: %w: %s", n.Name, filepath.Base(name),
			strings.Join(args, " "), err, strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

// IP gives ip(8) lines to execute, such as "route add 10.3.0.0/16 via 10.1.2.4"; it
// stops at the first that fails.
func (n *Node) IP(lines ...string) error {
	_, err := n.run(context.Background(), strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	if err != nil {
		return fmt.Errorf("%q: %w", lines, err)
	}
	return nil
}

// Sysctl sets net.* values, each written name=value. Dots separate the parts.
func (n *Node) Sysctl(settings ...string) error {
	return n.Do(func() error {
		for _, s := range settings {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				return fmt.Errorf("node %s: sysctl %q has no value", n.Name, s)
			}
			file := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				return fmt.Errorf("node %s: sysctl: %w", n.Name, err)
			}
		}
		return nil
	})
}

// SetForwarding switches the forwarding of both families: off is how an appliance
// looks that died without its link going down.
func (n *Node) SetForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return n.Sysctl("net.ipv4.ip_forward="+value, "net.ipv6.conf.all.forwarding="+value)
}

// AddRoute adds a route the way ip(8) writes it: "10.3.0.0/24 via 10.1.2.4".
func (n *Node) AddRoute(route string) error {
	family := "-4"
	if strings.Contains(route, ":") {
		family = "-6"
	}
	_, err := n.Run(context.Background(), "ip", append([]string{family, "route", "add"}, strings.Fields(route)...)...)
	return err
}

// file names a file of the node's in the lab's directory.
func (n *Node) file(name string) string {
	return filepath.Join(n.lab.dir, n.Name+"."+name)
}

// Iface is a node's interface; its other end is a port of a segment.
type Iface struct {
	Name string
	MAC  net.HardwareAddr
	node *Node
	port string // on the switch
}

// Segment is an Ethernet that joins nodes.
type Segment struct {
	lab    *Lab
	bridge string
}

// Segment adds an Ethernet. Its name has at most 15 characters, as an interface's.
func (l *Lab) Segment(name string) (*Segment, error) {
	// Without snooping, multicast (and so neighbour discovery) reaches every port at once.
	err := l.sw.IP("link add "+name+" type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		"link set "+name+" up")
	return &Segment{l, name}, err
}

// Attach plugs an interface of a node into the segment, with its addresses, and sets it up.
func (s *Segment) Attach(n *Node, ifname string, addrs ...string) (*Iface, error) {
	s.lab.mu.Lock()
	s.lab.ports++
	port := fmt.Sprintf("p%d", s.lab.ports)
	s.lab.mu.Unlock()
	i := &Iface{Name: ifname, node: n, port: port}
	if err := s.lab.sw.IP(
		"link add "+port+" type veth peer name "+ifname+" netns "+n.Namespace,
		"link set "+port+" master "+s.bridge+" up"); err != nil {
		return nil, err
	}
	if err := n.IP("link set " + ifname + " up"); err != nil {
		return nil, err
	}
	if err := n.Do(func() error {
		link, err := net.InterfaceByName(ifname)
		if err == nil {
			i.MAC = link.HardwareAddr
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	for _, a := range addrs {
		if err := i.AddAddr(a); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	n.ifaces[ifname] = i
	n.mu.Unlock()
	return i, nil
}

// AddAddr adds an address with its prefix length: "10.1.2.4/16".
func (i *Iface) AddAddr(addr string) error {
	p, err := netip.ParsePrefix(addr)
	if err != nil {
		return err
	}
	flags := ""
	if p.Addr().Is6() {
		flags = " nodad"
	}
	return i.node.IP("addr add " + addr + " dev " + i.Name + flags)
}

// DelAddr removes an address with its prefix length.
func (i *Iface) DelAddr(addr string) error {
	return i.node.IP("addr del " + addr + " dev " + i.Name)
}

// Down sets the interface down as its administrator would.
func (i *Iface) Down() error { return i.node.IP("link set " + i.Name + " down") }

// Up undoes Down. The kernel has dropped its IPv6 addresses and all routes through it.
func (i *Iface) Up() error { return i.node.IP("link set " + i.Name + " up") }

// Unplug takes the carrier away from the interface.
func (i *Iface) Unplug() error { return i.node.lab.sw.IP("link set " + i.port + " down") }

// Plug gives the carrier back.
func (i *Iface) Plug() error { return i.node.lab.sw.IP("link set " + i.port + " up") }

// Cut drops every packet from and to the interface while its carrier stays: what a
// dead machine behind a live switch looks like.
func (i *Iface) Cut() error { return i.setPort("disabled") }

// Mend undoes Cut.
func (i *Iface) Mend() error { return i.setPort("forwarding") }

func (i *Iface) setPort(state string) error {
	_, err := i.node.lab.sw.Run(context.Background(), "bridge", "link", "set", "dev", i.port, "state", state)
	return err
}
