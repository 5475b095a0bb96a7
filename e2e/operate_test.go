package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// fails runs nexthopctl, which must end with an exit status, and say all of the words on
// standard error.
func (b *bed) fails(t *testing.T, exit int, words []string, args ...string) {
	t.Helper()
	out, stderr, got, err := b.d.CLI(within(t), args...)
	if err != nil || got != exit {
		t.Errorf("nexthopctl %s: exit status %d, %v, want %d\n%s%s", strings.Join(args, " "), got, err, exit, out, stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			t.Errorf("nexthopctl %s says %q, want %q in it", strings.Join(args, " "), stderr, w)
		}
	}
}

// says checks what nexthopctl prints.
func (b *bed) says(t *testing.T, words []string, args ...string) string {
	t.Helper()
	out := b.cli(t, args...)
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("nexthopctl %s prints\n%swant %q in it", strings.Join(args, " "), out, w)
		}
	}
	return out
}

// wrong is the status, which must be degraded, as people read it.
func (b *bed) wrong(t *testing.T, words ...string) {
	t.Helper()
	out, stderr, exit, err := b.d.CLI(within(t), "status")
	if err != nil || exit != 4 {
		t.Errorf("nexthopctl status: exit status %d, %v, want 4\n%s", exit, err, stderr)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("nexthopctl status prints\n%swant %q in it", out, w)
		}
	}
	if out, stderr, exit, _ := b.d.CLI(within(t), "status", "-q"); exit != 4 || out+stderr != "" {
		t.Errorf("nexthopctl status -q: exit status %d, prints %q, want 4 and nothing", exit, out+stderr)
	}
}

// logged waits for a record of an event that has all of the texts.
func (b *bed) logged(t *testing.T, event string, texts ...string) {
	t.Helper()
	poll(t, "a record of "+event, func() error {
		for line := range strings.Lines(b.d.Proc.Log()) {
			found := strings.Contains(line, `"event":"`+event+`"`)
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return nil
			}
		}
		return fmt.Errorf("no record of %s with %q", event, texts)
	})
}

// A changed file is applied by `nexthopctl reload` and by SIGHUP; sessions that the change
// does not concern stay up. A dry run and a file with mistakes change nothing.
func TestReload(t *testing.T) {
	b := newSeed(t, 3)
	file := func(vnet string, n int, more string) string {
		return "router-id: 10.1.2.4\nlisten: [10.1.2.4, \"2001:db8:1::2:4\"]\nvnet: {prefixes: [" + vnet + "]}\n" + nvaPeers(n) + more
	}
	const before, after = "10.1.0.0/16", "10.1.0.0/16, 10.2.0.0/16"
	b.start(t, file(before, 2, ""))
	frr := b.router4(0, lab.SeedBranch).startFRR(t)
	second := b.dial(t, b.NVAs[1], nva4(1))
	announce(t, second, nva.Attrs{NextHop: lab.SeedNVA(1)}, lab.SeedBranch)
	b.up(t, "nva1", "nva2")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	since := map[string]time.Time{}
	for _, p := range list[status.Peer](t, b, "peers") {
		since[p.Name] = *p.Since
	}
	undisturbed := func(t *testing.T) {
		t.Helper()
		for name, at := range since {
			if p := b.peerStatus(t, name); p.State != "Established" || !p.Since.Equal(at) || p.Flaps > 0 {
				t.Errorf("%s is %s since %v with %d flaps, want the session of %v", name, p.State, p.Since, p.Flaps, at)
			}
		}
		if n, text := frrNeighbor(t, frr, lab.SeedHost); n.Established != 1 {
			t.Errorf("FRR saw %d sessions, want 1: %s", n.Established, text)
		}
		b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	}

	plan := []string{"peer nva3 added: 10.1.0.6, AS 65147", "vnet prefix announced: 10.2.0.0/16", "\nsessions reset: none\n"}
	t.Run("a dry run changes nothing", func(t *testing.T) {
		must(t, b.d.SetConfig(file(after, 3, "")))
		b.says(t, append(plan, "dry run"), "reload", "--dry-run")
		if n := len(list[status.Peer](t, b, "peers")); n != 2 {
			t.Errorf("%d peers after a dry run, want 2", n)
		}
		undisturbed(t)
	})
	t.Run("a bad file changes nothing and says where", func(t *testing.T) {
		must(t, b.d.SetConfig(file(after, 3, "branch-to-branch: perhaps\nbogus: 1\n")))
		for _, args := range [][]string{{"reload"}, {"reload", "--dry-run"}} {
			b.fails(t, 1, []string{
				b.d.Config + ":8:19: branch-to-branch: ", b.d.Config + ":9:1: bogus: ", "nothing is changed", "nexthopd check " + b.d.Config,
			}, args...)
		}
		b.logged(t, "config-refused", b.d.Config+":8:19: branch-to-branch: ")
		must(t, b.d.Reload())
		undisturbed(t)
		b.says(t, []string{"2 of 2 established"}, "status")
	})
	t.Run("reload", func(t *testing.T) {
		must(t, b.d.SetConfig(file(after, 3, "")))
		b.says(t, append(plan, "applied"), "reload")
		// It returns when the change is in force: the peer is there, and need not be waited for.
		if p := b.peerStatus(t, "nva3"); p.Address != lab.SeedNVA(2) {
			t.Errorf("nva3 is %+v", p)
		}
		b.logged(t, "config-applied", "peer nva3 added")
		third := b.dial(t, b.NVAs[2], nva4(2))
		b.up(t, "nva3")
		frrPaths(t, frr, prefix("10.2.0.0/16"), frrPath("65515", "10.1.2.4"))
		announce(t, third, nva.Attrs{NextHop: lab.SeedNVA(2)}, lab.SeedBranch)
		b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1), lab.SeedNVA(2))
		b.says(t, []string{"no change\nsessions reset: none\n"}, "reload")
	})
	t.Run("SIGHUP", func(t *testing.T) {
		must(t, b.d.SetConfig(file(before, 2, "")))
		must(t, b.d.Reload())
		b.logged(t, "config-applied", "peer nva3 removed")
		undisturbed(t)
		frrPaths(t, frr, prefix("10.2.0.0/16"), func(paths []lab.FRRPath) error {
			if len(paths) > 0 {
				return fmt.Errorf("still there: %+v", paths)
			}
			return nil
		})
	})
	t.Run("what takes a restart is said", func(t *testing.T) {
		must(t, b.d.SetConfig(strings.Replace(file(before, 2, ""), "router-id: 10.1.2.4", "router-id: 10.9.9.9", 1)))
		b.says(t, []string{"not until a restart: router-id", "sessions reset: none"}, "reload")
		b.wrong(t, "in force only after a restart: router-id", "systemctl restart nexthopd")
		undisturbed(t)
	})
}

// What an operator does to a session is heard by the peer's operator (RFC 9003), and can
// be taken back. FRR is on the other side.
func TestOperatorActions(t *testing.T) {
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("frr", lab.SeedNVA(0), lab.SeedASN)+
		peer("sim", lab.SeedNVA(1), lab.SeedASN+1, "passive: true"))
	r := b.router4(0, lab.SeedBranch)
	r.global = []string{"bgp log-neighbor-changes"}
	frr := r.startFRR(t)
	o := nva4(1)
	o.ASN++ // of another AS, so that it hears what FRR announces
	sim := b.dial(t, b.NVAs[1], o)
	b.up(t, "frr", "sim")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	heard := func(t *testing.T, texts ...string) {
		t.Helper()
		poll(t, "FRR hears of it", func() error {
			out, err := frr.Vtysh(within(t), "show bgp neighbors "+lab.SeedHost.String())
			out += frr.BGPD.Log() // has the communication, which the command leaves out of a Hard Reset
			for _, text := range texts {
				if !strings.Contains(out, text) {
					return fmt.Errorf("no %q in %s, %v", text, out, err)
				}
			}
			return err
		})
	}
	t.Run("disable", func(t *testing.T) {
		b.says(t, []string{"frr (10.1.0.4) is shut down", "nexthopctl peer frr enable"}, "peer", "frr", "disable", "--reason", "moving to zone 2, ticket 4711")
		heard(t, "Cease/Administrative Shutdown", "moving to zone 2, ticket 4711")
		b.route(t, lab.SeedBranch)
		b.wrong(t, "peer frr (10.1.0.4) is shut down by an operator", "nexthopctl peer frr enable")
		b.says(t, []string{"shut down by an operator"}, "peer", "frr")
		b.logged(t, "operator-action", `"action":"disable"`, `"peer":"10.1.0.4"`, `"reason":"moving to zone 2, ticket 4711"`)
		b.fails(t, 1, []string{"shut down already"}, "peer", "frr", "disable")
		b.says(t, []string{"no change"}, "reload")
		if p := b.peerStatus(t, "frr"); !p.Disabled {
			t.Error("a reload enabled the peer")
		}
	})
	t.Run("enable", func(t *testing.T) {
		b.cli(t, "peer", "10.1.0.4", "enable")
		b.up(t, "frr")
		b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	})
	t.Run("reset", func(t *testing.T) {
		b.cli(t, "peer", "frr", "reset", "--reason", "new filters")
		heard(t, "Cease/Administrative Reset", "new filters")
		b.up(t, "frr")
		b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	})
	t.Run("refresh", func(t *testing.T) {
		before := sim.Received().Updates()
		b.cli(t, "peer", "sim", "refresh")
		poll(t, "everything again", func() error {
			if n := sim.Received().Updates(); n == before {
				return fmt.Errorf("%d updates, as before", n)
			}
			return nil
		})
		if p := b.peerStatus(t, "sim"); p.Flaps > 0 || p.State != "Established" {
			t.Errorf("after a refresh: %+v", p)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		b.fails(t, 1, []string{`no peer "fr": did you mean "frr"?`}, "peer", "fr", "reset")
	})
	t.Run("drain", func(t *testing.T) {
		// RFC 8326: the well-known community GRACEFUL_SHUTDOWN, 65535:0.
		graceful := func(want bool) {
			t.Helper()
			for _, p := range []string{"10.1.0.0/16", lab.SeedBranch.String()} {
				must(t, errOf(sim.Received().WaitPath(within(t), prefix(p), func(x nva.Path) bool {
					has := false
					for _, c := range x.Attrs.Communities {
						has = has || c == nva.Community(65535<<16)
					}
					return has == want
				})))
			}
			poll(t, "FRR sees it", func() error {
				out, err := frr.Vtysh(within(t), "show bgp ipv4 unicast 10.1.0.0/16 json")
				if has := strings.Contains(out, `"gracefulShutdown"`); err != nil || has != want {
					return fmt.Errorf("the community is there: %t, want %t: %v %s", has, want, err, out)
				}
				return nil
			})
		}
		graceful(false)
		b.says(t, []string{"nexthopctl undrain"}, "drain")
		graceful(true)
		b.wrong(t, "drained", "nexthopctl undrain")
		b.route(t, lab.SeedBranch, lab.SeedNVA(0)) // this host goes on forwarding
		b.fails(t, 1, []string{"drained already"}, "drain")
		b.cli(t, "undrain")
		graceful(false)
		b.logged(t, "operator-action", `"action":"undrain"`)
		b.fails(t, 1, []string{"not drained"}, "undrain")
	})
	b.cli(t, "status", "-q") // nothing of it is left
}

func errOf[T any](_ T, err error) error { return err }

// flush removes what is ours and nothing else, resync brings it back; failovers tells of
// the moves.
func TestFlushResyncFailovers(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	s := b.nvas(t, 2)
	b.up(t, "nva1", "nva2")
	for i, s := range s {
		announce(t, s, nva.Attrs{NextHop: lab.SeedNVA(i)}, lab.SeedBranch)
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	must(t, b.Host.AddRoute("198.51.100.0/24 via "+lab.SeedNVA(0).String()))

	b.says(t, []string{"compared 1 route of ours in the kernel: no difference"}, "resync")
	b.logged(t, "resync", `"reason":"operator"`)
	b.says(t, []string{"removed 1 route", "nexthopctl resync --install"}, "flush")
	if left := b.ours(t); left != "" {
		t.Errorf("after a flush, the kernel has of ours:\n%s", left)
	}
	if out := b.ip(t, prefix("198.51.100.0/24")); out == "" {
		t.Error("a flush removed another program's route")
	}
	b.wrong(t, "an operator flushed the routes", "nexthopctl resync --install")
	b.fails(t, 1, []string{"flushed already"}, "flush")
	b.fails(t, 1, []string{"flushed the routes", "resync --install"}, "resync")
	b.session(t, "nva1", "Established")
	b.cli(t, "resync", "--install")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	b.cli(t, "status", "-q")

	if got := list[status.Failover](t, b, "failovers"); len(got) != 0 {
		t.Errorf("failovers before any: %+v", got)
	}
	s[1].Close()
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	poll(t, "the failover is told of", func() error {
		got := list[status.Failover](t, b, "failovers")
		if len(got) != 1 || got[0].Signal != "session 10.1.0.5" || got[0].Groups != 1 || got[0].Prefixes != 1 || got[0].Microseconds <= 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	b.says(t, []string{"session 10.1.0.5"}, "failovers")
	b.wrong(t, "failover   ", "(session 10.1.0.5): 1 prefix in 1 group moved in ")
	b.logged(t, "failover", `"peer":"10.1.0.5"`, `"groups":1`, `"prefixes":1`, `"microseconds":`)
}

// The filters of monitor, while things happen.
func TestMonitorFilters(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	ctl := value(b.Binary("nexthopctl"))(t)
	monitor := value(b.Host.Start(ctl, "--socket", b.d.Socket, "monitor", "-o", "jsonl", "--type", "session", "--peer", "10.1.0.5"))(t)
	paths := value(b.Host.Start(ctl, "--socket", b.d.Socket, "monitor", "--prefix", "192.168.0.0/16"))(t)
	poll(t, "the monitor runs", func() error {
		if !strings.Contains(paths.Log(), "MESSAGE") {
			return errors.New("no heading yet")
		}
		return nil
	})
	s := b.nvas(t, 2)
	for i := range s {
		announce(t, s[i], nva.Attrs{NextHop: lab.SeedNVA(i)}, lab.SeedBranch, prefix("203.0.113.0/24"))
	}
	poll(t, "the event of the path", func() error {
		if !strings.Contains(paths.Log(), lab.SeedBranch.String()) {
			return errors.New(paths.Log())
		}
		return nil
	})
	// JSON has no heading to wait for: this one may have come too late for the first session.
	poll(t, "the event of a session", func() error {
		if strings.Contains(monitor.Log(), "session is established") {
			return nil
		}
		s[1].Close()
		s[1] = b.dial(t, b.NVAs[1], nva4(1))
		return errors.New(monitor.Log())
	})
	if strings.Contains(paths.Log(), "203.0.113.0") || strings.Contains(paths.Log(), "session") {
		t.Errorf("--prefix lets others pass:\n%s", paths.Log())
	}
	for line := range strings.Lines(monitor.Log()) {
		var e status.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type != "session" || e.Peer != "nva2" {
			t.Errorf("--type session --peer nva2 lets pass %q, %v", line, err)
		}
	}
}

// The socket's mode keeps strangers out; who is let in without being of the daemon's
// group may look and not change.
func TestAccessToTheSocket(t *testing.T) {
	b := newBed(t, 1, hostConfig+nvaPeers(1))
	s := b.nvas(t, 1)[0]
	b.up(t, "nva1")
	announce(t, s, nva.Attrs{NextHop: lab.SeedNVA(0)}, lab.SeedBranch)
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))

	// Where it was built, others may not look.
	dir := value(os.MkdirTemp("", "nexthopctl-"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	ctl := filepath.Join(dir, "nexthopctl")
	must(t, os.WriteFile(ctl, value(os.ReadFile(value(b.Binary("nexthopctl"))(t)))(t), 0o755))
	as := func(user, group string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return b.Host.Run(ctx, "setpriv", append([]string{"--reuid=" + user, "--regid=" + group, "--clear-groups", "--", ctl, "--socket", b.d.Socket}, args...)...)
	}
	info := value(os.Stat(b.d.Socket))(t)
	if mode := info.Mode().Perm(); mode != 0o660 {
		t.Errorf("the socket has mode %04o, want 0660", mode)
	}
	const nobody = "65534"
	if out, err := as(nobody, nobody, "peers"); err == nil || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "mode 0660") {
		t.Errorf("peers as a stranger: %v %s, want permission denied and who may", err, out)
	}
	// The daemon of this test runs as root, whose group is 0.
	group := fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid)
	if out, err := as(nobody, group, "peer", "nva1", "refresh"); err != nil {
		t.Errorf("refresh as a member of the daemon's group: %v %s", err, out)
	}
	must(t, os.Chmod(b.d.Socket, 0o666)) // an administrator who wants everybody to look
	if out, err := as(nobody, nobody, "peers"); err != nil || !strings.Contains(out, "nva1") {
		t.Errorf("peers as a reader: %v %s", err, out)
	}
	for _, args := range [][]string{{"flush"}, {"reload"}, {"resync"}, {"drain"}, {"peer", "nva1", "disable", "--reason", "mine now"}} {
		out, err := as(nobody, nobody, args...)
		if err == nil || !strings.Contains(err.Error(), "you may look, not change") || !strings.Contains(err.Error(), "sudo nexthopctl "+strings.Join(args[:1], " ")) {
			t.Errorf("%q as a reader: %v %s, want a refusal that says what it takes", args, err, out)
		}
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	b.cli(t, "status", "-q")
}

// doctor on a host with wrong settings, in a namespace: it finds them, and the commands
// that it gives mend them.
func TestDoctor(t *testing.T) {
	b := newSeed(t, 2)
	must(t, b.Host.Sysctl("net.ipv4.ip_forward=0", "net.ipv4.fib_multipath_hash_policy=0", "net.ipv4.nexthop_compat_mode=1"))
	b.start(t, hostConfig+nvaPeers(2)+"fib: {table: 100}\n")
	for i, s := range b.nvas(t, 2) {
		announce(t, s, nva.Attrs{NextHop: lab.SeedNVA(i)}, lab.SeedBranch)
	}
	poll(t, "the route in table 100", func() error {
		out, err := b.Host.Run(within(t), "ip", "route", "show", "table", "100")
		if !strings.Contains(out, lab.SeedBranch.String()) {
			return fmt.Errorf("table 100: %q, %v", out, err)
		}
		return nil
	})
	type finding struct{ Check, Severity, Says, Mend string }
	var ecmp finding
	examine := func(t *testing.T) map[string]finding {
		t.Helper()
		out, stderr, exit, err := b.d.CLI(within(t), "doctor", "-o", "json")
		var found []finding
		if err = errors.Join(err, json.Unmarshal([]byte(out), &found)); err != nil {
			t.Fatalf("%v: %s%s", err, out, stderr)
		}
		wrong := map[string]finding{}
		for _, f := range found {
			if f.Severity == "warning" || f.Severity == "error" {
				wrong[f.Check] = f
			}
			if f.Check == "ecmp" {
				ecmp = f
			}
		}
		if want := map[bool]int{true: 0, false: 4}[len(wrong) == 0]; exit != want {
			t.Errorf("exit status %d with %d findings, want %d", exit, len(wrong), want)
		}
		return wrong
	}
	// The clock, and what may run on this machine, are not the namespace's.
	machine := []string{"clock", "networkd"}

	must(t, b.Host.AddRoute("10.1.0.5/32 via 10.1.0.4"))
	wrong := examine(t)
	for _, want := range []finding{
		{"ip-forward", "warning", "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"},
		{"hash-policy", "warning", "fib_multipath_hash_policy is 0", "sysctl -w net.ipv4.fib_multipath_hash_policy=1"},
		{"compat-mode", "warning", "nexthop_compat_mode is 1", "sysctl -w net.ipv4.nexthop_compat_mode=0"},
		{"rules", "error", "no rule (ip rule) asks table 100", "ip rule add priority 32000 lookup 100"},
		{"way-to-peer", "error", "captures the traffic to peer nva2 (10.1.0.5)", "ip route del 10.1.0.5/32 via 10.1.0.4 dev "},
	} {
		got := wrong[want.Check]
		if got.Severity != want.Severity || !strings.Contains(got.Says, want.Says) || !strings.HasPrefix(got.Mend, want.Mend) {
			t.Errorf("%s: %+v, want %+v", want.Check, got, want)
		}
	}
	for _, f := range wrong {
		if !slices.Contains(machine, f.Check) {
			value(b.Host.Run(within(t), "sh", "-c", f.Mend))(t)
		}
	}
	poll(t, "the host is in order", func() error {
		wrong := examine(t)
		for _, name := range machine {
			delete(wrong, name)
		}
		if len(wrong) > 0 || !strings.Contains(ecmp.Says, "are as they should be (1 compared)") {
			return fmt.Errorf("%+v, %+v", wrong, ecmp)
		}
		return nil
	})
	must(t, b.d.Stop())
	// What needs no daemon is examined without one.
	out, _, exit, err := b.d.CLI(within(t), "doctor")
	if err != nil || exit != 4 || !strings.Contains(out, "error daemon: nexthopd does not answer") {
		t.Errorf("doctor without a daemon: exit status %d, %v\n%s", exit, err, out)
	}
}
