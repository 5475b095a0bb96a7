package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// frrDir is where Debian's package puts FRR's daemons.
const frrDir = "/usr/lib/frr"

// FRR is FRR's bgpd, with zebra and bfdd where they were asked for.
type FRR struct {
	BGPD  *Proc
	Zebra *Proc // nil: bgpd runs alone
	BFDD  *Proc // nil: none
	node  *Node
	dir   string // vty sockets, pid files, configuration
	bgpd  func(ctx context.Context, config string) (*Proc, error)
}

// FRRConfig is the configuration of FRR's daemons, as their files hold it.
type FRRConfig struct {
	BGPD string
	// Zebra, when not empty, starts zebra too: bgpd then resolves next hops and
	// installs routes. Without it bgpd takes every next hop for reachable.
	Zebra string
	// ZebraArgs are more flags of zebra.
	ZebraArgs []string
	// BFDD, when not empty, starts bfdd too, which talks to bgpd through zebra.
	BFDD string
}

// Dir is where its sockets and files are: for vtysh --vty_socket.
func (f *FRR) Dir() string { return f.dir }

// HaveFRR tells whether FRR is installed.
func HaveFRR() bool {
	_, err := os.Stat(frrDir + "/bgpd")
	return err == nil
}

// StartFRR starts FRR in the node and waits until it answers. Announcing a network
// needs "no bgp network import-check", and a session without policies "no bgp
// ebgp-requires-policy".
func StartFRR(ctx context.Context, n *Node, c FRRConfig) (*FRR, error) {
	f := &FRR{node: n, dir: n.file("frr")}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, err
	}
	// The daemons drop to the package's user (zebra cannot be talked out of it), who
	// then makes sockets and pid files here.
	if err := chown(f.dir, "frr"); err != nil {
		return nil, err
	}
	start := func(ctx context.Context, daemon, config string, more ...string) (*Proc, error) {
		file := filepath.Join(f.dir, daemon+".conf")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return nil, err
		}
		args := append([]string{"-f", file, "-i", filepath.Join(f.dir, daemon+".pid"),
			"--vty_socket", f.dir, "-P", "0", // no TCP vty
			"--log", "stdout", "-z", filepath.Join(f.dir, "zserv.api")}, more...)
		p, err := n.Start(frrDir+"/"+daemon, args...)
		if err != nil {
			return nil, err
		}
		return p, p.waitUp(ctx, func() error {
			_, err := f.vtysh(ctx, daemon, "show version")
			return err
		})
	}
	var err error
	args := []string{"-Z"}
	if c.Zebra != "" {
		args = nil
		if f.Zebra, err = start(ctx, "zebra", c.Zebra, c.ZebraArgs...); err != nil {
			return nil, err
		}
	}
	if c.BFDD != "" {
		if f.BFDD, err = start(ctx, "bfdd", c.BFDD, "--bfdctl", filepath.Join(f.dir, "bfdd.sock")); err != nil {
			return nil, err
		}
	}
	f.bgpd = func(ctx context.Context, config string) (*Proc, error) { return start(ctx, "bgpd", config, args...) }
	if f.BGPD, err = f.bgpd(ctx, c.BGPD); err != nil {
		return nil, err
	}
	return f, nil
}

// RestartBGPD kills bgpd alone, and starts it with another configuration once meanwhile
// has returned: an upgrade, during which the kernel goes on forwarding.
func (f *FRR) RestartBGPD(ctx context.Context, config string, meanwhile func()) error {
	err := f.BGPD.Kill()
	meanwhile()
	if err == nil {
		f.BGPD, err = f.bgpd(ctx, config)
	}
	return err
}

// chown gives a file to a user by name.
func chown(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, -1)
}

// Vtysh runs commands in bgpd, one after the other: "show bgp summary", or a way into
// the configuration: "configure terminal", "router bgp 65147", ...
func (f *FRR) Vtysh(ctx context.Context, commands ...string) (string, error) {
	return f.vtysh(ctx, "bgpd", commands...)
}

// BFD runs commands in bfdd.
func (f *FRR) BFD(ctx context.Context, commands ...string) (string, error) {
	return f.vtysh(ctx, "bfdd", commands...)
}

func (f *FRR) vtysh(ctx context.Context, daemon string, commands ...string) (string, error) {
	args := []string{"--vty_socket", f.dir, "-d", daemon}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := f.node.Run(ctx, "vtysh", args...)
	if err == nil && strings.Contains(out, "% ") { // an unknown command does not change vtysh's status
		err = fmt.Errorf("%s: vtysh %q: %s", f.node.Name, commands, strings.TrimSpace(out))
	}
	return out, err
}

// FRRPath is one path of FRR's table.
type FRRPath struct {
	Valid    bool   `json:"valid"`
	Best     bool   `json:"bestpath"`
	Path     string `json:"path"` // AS path
	Origin   string `json:"origin"`
	PeerID   string `json:"peerId"`
	Nexthops []struct {
		IP string `json:"ip"`
	} `json:"nexthops"`
}

// Routes reads bgpd's table of a family, "ipv4" or "ipv6", by prefix.
func (f *FRR) Routes(ctx context.Context, family string) (map[string][]FRRPath, error) {
	out, err := f.Vtysh(ctx, "show bgp "+family+" unicast json")
	if err != nil {
		return nil, err
	}
	var table struct {
		Routes map[string][]FRRPath `json:"routes"`
	}
	return table.Routes, json.Unmarshal([]byte(out), &table)
}

// Kill ends all its daemons with SIGKILL.
func (f *FRR) Kill() error {
	var errs []error
	for _, p := range []*Proc{f.BGPD, f.BFDD, f.Zebra} {
		if p != nil {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}
