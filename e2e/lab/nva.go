package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/nexthopd/nexthopd/e2e/nva"
)

// Simulator is the built-in appliance, running as a process of its own.
type Simulator struct {
	Proc   *Proc
	Socket string // for nvasim ctl
}

// StartSimulator starts an appliance at local that speaks to the route server at
// remote, with commands (see nva.Usage) to begin with, and waits until it answers; its
// session may come up later.
func StartSimulator(ctx context.Context, n *Node, local, remote netip.Addr, asn uint32, commands ...string) (*Simulator, error) {
	bin, err := n.lab.Binary("nvasim")
	if err != nil {
		return nil, err
	}
	n.lab.mu.Lock()
	s := &Simulator{Socket: n.file(fmt.Sprintf("nvasim.%d.sock", len(n.lab.procs)))}
	n.lab.mu.Unlock()
	args := []string{"run", "--local", local.String(), "--remote", netip.AddrPortFrom(remote, 179).String(),
		"--asn", fmt.Sprint(asn), "--socket", s.Socket}
	if local.Is6() {
		// Identifiers must differ: two peers with the same one do not get each other's routes.
		a := local.As16()
		args = append(args, "--id", netip.AddrFrom4([4]byte(a[12:])).String())
	}
	if s.Proc, err = n.Start(bin, append(args, commands...)...); err != nil {
		return nil, err
	}
	return s, s.Proc.waitUp(ctx, func() error {
		_, err := s.Command(ctx, "status")
		return err
	})
}

// Command runs one line of the simulator's control language.
func (s *Simulator) Command(ctx context.Context, line string) ([]string, error) {
	lines, err := nva.Control(ctx, s.Socket, line)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.Proc.Name, line, err)
	}
	return lines, nil
}
