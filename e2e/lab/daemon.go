package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
)

// Daemon is nexthopd running in a node.
type Daemon struct {
	Proc   *Proc // the present process; another one after a Restart
	Config string
	Socket string
	node   *Node
	bin    string
	args   []string     // of run
	client *http.Client // speaks over Socket
}

// StartDaemon starts nexthopd with a configuration file of that text and waits until
// it is ready. Where the text has no section "api" or "metrics", a control socket of
// its own is added and the metrics listener switched off. args are more flags of
// "nexthopd run".
func StartDaemon(ctx context.Context, n *Node, config string, args ...string) (*Daemon, error) {
	bin, err := n.lab.Binary("nexthopd")
	if err != nil {
		return nil, err
	}
	d := &Daemon{node: n, bin: bin, args: args, Config: n.file("nexthopd.yaml"), Socket: n.file("nexthopd.sock")}
	d.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
		},
		DisableKeepAlives: true, // the daemon comes and goes
	}}
	if err := d.SetConfig(config); err != nil {
		return nil, err
	}
	return d, d.Start(ctx)
}

// SetConfig writes the configuration file; it tells the daemon nothing.
func (d *Daemon) SetConfig(config string) error {
	lines := "\n" + config
	if !strings.Contains(lines, "\napi:") {
		config = strings.TrimRight(config, "\n") + "\napi: {socket: " + d.Socket + "}\n"
	}
	if !strings.Contains(lines, "\nmetrics:") {
		config += "metrics: {listen: \"\"}\n"
	}
	return os.WriteFile(d.Config, []byte(config), 0o644)
}

// Start starts the daemon again after Stop or Kill, and waits until it is ready. After a
// stop that kept routes, that is when the peers have announced theirs again: see Launch.
func (d *Daemon) Start(ctx context.Context) error {
	if err := d.Launch(ctx); err != nil {
		return err
	}
	return d.Proc.waitUp(ctx, func() error {
		st, err := d.Status(ctx)
		if err == nil && !st.Ready {
			err = errors.New("not ready: " + st.NotReady)
		}
		return err
	})
}

// Launch is Start, waiting only until the daemon answers.
func (d *Daemon) Launch(ctx context.Context) error {
	var err error
	if d.Proc, err = d.node.Start(d.bin, append([]string{"run", "--config", d.Config}, d.args...)...); err != nil {
		return err
	}
	return d.Proc.waitUp(ctx, func() error {
		_, err := d.Status(ctx)
		return err
	})
}

// stopTime is within what systemd gives a service.
const stopTime = time.Minute

// Stop ends the daemon with SIGTERM and reports an exit status other than 0. One that
// does not end in time is made to log where its goroutines are.
func (d *Daemon) Stop() error {
	if err := d.Proc.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.Proc.Done():
	case <-time.After(stopTime):
		err := errors.Join(fmt.Errorf("%s: still there %s after SIGTERM", d.Proc.Name, stopTime), d.Proc.Signal(syscall.SIGQUIT))
		select {
		case <-d.Proc.Done():
		case <-time.After(10 * time.Second):
			err = errors.Join(err, d.Proc.Kill())
		}
		return err
	}
	if code := d.Proc.ExitCode(); code != 0 {
		return fmt.Errorf("%s: exit status %d after SIGTERM", d.Proc.Name, code)
	}
	return nil
}

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill() error { return d.Proc.Kill() }

// Restart stops the daemon with SIGTERM and starts it again.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.Stop(); err != nil {
		return err
	}
	return d.Start(ctx)
}

// Reload sends SIGHUP.
func (d *Daemon) Reload() error { return d.Proc.Signal(syscall.SIGHUP) }

// Get reads one of the control socket's paths, query included, into v.
func (d *Daemon) Get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nexthopd"+path, nil)
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		var e status.Error
		_ = json.NewDecoder(resp.Body).Decode(&e) // the status says enough without it
		return fmt.Errorf("get %s: %s: %s", path, resp.Status, e.Error)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// Status reads the daemon's summary.
func (d *Daemon) Status(ctx context.Context) (status.Status, error) {
	var st status.Status
	return st, d.Get(ctx, status.PathStatus, &st)
}

// CLI runs nexthopctl against the daemon and returns its output and exit status; err
// is about not being able to run it.
func (d *Daemon) CLI(ctx context.Context, args ...string) (stdout, stderr string, exit int, err error) {
	bin, err := d.node.lab.Binary("nexthopctl")
	if err != nil {
		return "", "", 0, err
	}
	cmd := exec.CommandContext(ctx, bin, append([]string{"--socket", d.Socket}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := d.node.Do(cmd.Start); err != nil {
		return "", "", 0, err
	}
	err = cmd.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) && ctx.Err() == nil {
		err = nil
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode(), err
}
