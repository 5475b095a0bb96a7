package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
)

// BIRD is a BIRD 2 daemon.
type BIRD struct {
	Proc *Proc
	node *Node
	file string // configuration
	ctl  string // socket
}

// HaveBIRD tells whether BIRD 2 is installed.
func HaveBIRD() bool {
	_, err := exec.LookPath("bird")
	return err == nil
}

// StartBIRD starts BIRD in the node and waits until it answers. The configuration
// needs "protocol device {}" for its sessions to come up. args are more flags.
func StartBIRD(ctx context.Context, n *Node, config string, args ...string) (*BIRD, error) {
	b := &BIRD{node: n, file: n.file("bird.conf"), ctl: n.file("bird.ctl")}
	if err := os.WriteFile(b.file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	var err error
	if b.Proc, err = n.Start("bird", append([]string{"-f", "-c", b.file, "-s", b.ctl}, args...)...); err != nil {
		return nil, err
	}
	return b, b.Proc.waitUp(ctx, func() error {
		out, err := b.Birdc(ctx, "show status")
		if err == nil && !strings.Contains(out, "Daemon is up and running") {
			err = errors.New(out)
		}
		return err
	})
}

// Birdc runs one command: "show route all", "configure", ...
func (b *BIRD) Birdc(ctx context.Context, command string) (string, error) {
	return b.node.Run(ctx, "birdc", append([]string{"-s", b.ctl}, strings.Fields(command)...)...)
}

// Configure replaces the configuration, as "birdc configure" does.
func (b *BIRD) Configure(ctx context.Context, config string) error {
	if err := os.WriteFile(b.file, []byte(config), 0o644); err != nil {
		return err
	}
	out, err := b.Birdc(ctx, "configure")
	if err == nil && !strings.Contains(out, "Reconfigur") {
		err = errors.New("birdc configure: " + strings.TrimSpace(out))
	}
	return err
}
