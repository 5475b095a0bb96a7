package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Proc is a process that runs in a node.
type Proc struct {
	Name string
	cmd  *exec.Cmd
	log  string        // file with stdout and stderr
	done chan struct{} // closed when it has ended
	err  error         // of Wait; read after done
}

// Start starts a long-running process in the namespace. Its output is collected, and
// it ends with the lab. It must stay in the foreground.
func (n *Node) Start(name string, args ...string) (*Proc, error) {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock() // against Close, which must see every process
	if n.lab.closed {
		return nil, errors.New("lab is closed")
	}
	base := filepath.Base(name)
	log := n.file(fmt.Sprintf("%s.%d.log", base, len(n.lab.procs)))
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	p := &Proc{Name: n.Name + "/" + base, log: log, done: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A process group of its own: Ctrl-C is for us, who then stop things in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := n.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	n.lab.procs = append(n.lab.procs, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's id, also after it has ended.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// ExitCode waits for the process's end; -1 means that a signal ended it.
func (p *Proc) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Log is what the process has written so far, stdout and stderr.
func (p *Proc) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Signal sends a signal; to a process that has ended, it does nothing.
func (p *Proc) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for that.
func (p *Proc) Kill() error {
	err := p.Signal(os.Kill)
	<-p.done
	return err
}

// Stop asks the process to end with SIGTERM, and kills it, which is an error, when
// it has not ended in time.
func (p *Proc) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(timeout):
		return errors.Join(fmt.Errorf("%s: still there %s after SIGTERM", p.Name, timeout), p.Kill())
	}
}

// running is nil while the process lives, else an error with the end of its log.
func (p *Proc) running() error {
	select {
	case <-p.done:
		lines := strings.Split(strings.TrimSpace(p.Log()), "\n")
		return fmt.Errorf("%s ended (%v): %s", p.Name, p.err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	default:
		return nil
	}
}

// waitUp waits until ok returns nil, and gives up at once when the process ends.
func (p *Proc) waitUp(ctx context.Context, ok func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := Eventually(ctx, p.Name, ok); err != nil {
		return errors.Join(err, p.running())
	}
	return nil
}
