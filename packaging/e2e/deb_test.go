package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// The life of a deb: each step goes on where the one before left off.
func TestDebian(t *testing.T) {
	for _, root := range []Root{bookworm, trixie} {
		t.Run(root.Suite, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, root)
			h.life(t, []step{
				{name: "newcomer", run: func(h *host) { h.newcomer(manual[root.Suite][0], manual[root.Suite][1]) }},
				{name: "configure", run: (*host).configure},
				{name: "journal", run: (*host).journal},
				{name: "prometheus", run: (*host).prometheus, alone: true},
				{name: "metrics", run: (*host).metrics, alone: true},
				{name: "access", run: (*host).access, alone: true},
				{name: "secrets", run: (*host).secrets},
				{name: "bad configuration", run: (*host).badConfiguration},
				{name: "upgrade", run: func(h *host) { h.upgrade("apt-get install -y /packages/" + deb(newVersion, "amd64")) }},
				{name: "watchdog", run: (*host).watchdog},
				{name: "doctor", run: (*host).doctor, alone: true},
				{name: "networkd", run: (*host).networkd},
				{name: "reload", run: (*host).reload},
				{name: "bfd", run: (*host).bfd},
				{name: "remove", run: (*host).remove},
				{name: "purge", run: (*host).purge},
			})
		})
	}
}

// fresh is for what was just installed: it runs, says that it has no peers, and changed
// no route.
func (h *host) fresh(before string) {
	h.t.Helper()
	h.Run("systemctl is-active nexthopd && systemctl is-enabled nexthopd")
	h.Wait("no peers are configured", "nexthopctl status || [ $? -eq 4 ]")
	h.Wait("no peers", "systemctl show -p StatusText nexthopd")
	if after := h.Run("ip route"); after != before {
		h.t.Errorf("installing changed the routes from\n%sto\n%s", before, after)
	}
	h.wantSysctls()
	if out := h.Run("systemd-analyze security --threshold=20 nexthopd.service | tail -1; systemd-analyze verify --man=no nexthopd.service 2>&1"); strings.Count(out, "nexthopd.service") != 1 {
		h.t.Errorf("systemd-analyze: %s", out) // the first line of the two is the exposure
	}
}

// wantSysctls checks what the package sets, without a reboot.
func (h *host) wantSysctls() {
	for name, want := range map[string]string{
		"net.ipv4.nexthop_compat_mode": "0", "net.ipv4.fib_multipath_hash_policy": "1", "net.ipv6.fib_multipath_hash_policy": "1",
	} {
		if got := strings.TrimSpace(h.Run("cat /proc/sys/" + strings.ReplaceAll(name, ".", "/"))); got != want {
			h.t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func (h *host) journal() {
	out := h.Wait("session is established", "journalctl -u nexthopd PEER=10.1.0.4 -o cat")
	if strings.Contains(out, "10.1.0.5") {
		h.t.Errorf("journalctl PEER=10.1.0.4 shows another peer's records:\n%s", out)
	}
	h.Wait("reached Established; routes are being", "journalctl -x -u nexthopd PEER=10.1.0.4")
	if out := h.Run("journalctl -u nexthopd -o cat | grep -c goroutine || true"); out != "0\n" {
		h.t.Errorf("%s lines of goroutines in the journal", out)
	}
	if out := h.Run("ip route show proto nexthopd"); !strings.HasPrefix(out, "192.168.255.0/24 ") {
		h.t.Errorf("ip route show proto nexthopd: %q", out)
	}
}

func (h *host) metrics() {
	var text string
	check(h.t, h.get("http://127.0.0.1:9565/metrics", &text))
	if _, err := exec.LookPath("promtool"); err != nil {
		h.t.Fatalf("%v: internal/tools/apt-packages installs it", err)
	}
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = strings.NewReader(text)
	out, err := lint.CombinedOutput()
	if err != nil || len(out) > 0 {
		h.t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// The socket is for root and the group; everybody else is told so.
func (h *host) access() {
	h.Run("useradd member && usermod -aG nexthopd member && useradd stranger")
	h.Run("runuser -u member -- nexthopctl peers")
	_, err := h.Try(h.ctx, "runuser -u stranger -- nexthopctl peers")
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		h.t.Errorf("nexthopctl as a stranger: %v, want permission denied", err)
	}
}

// A secret goes from a file that only root can read to the daemon, and nowhere else.
func (h *host) secrets() {
	const secret = "correct-horse-battery"
	h.Write("/etc/nexthopd/secrets.d/nva-b", secret)
	h.Run("chmod 600 /etc/nexthopd/secrets.d/nva-b")
	h.frrPassword(secret)
	h.Write("/etc/nexthopd/nexthopd.yaml", strings.Replace(hostConfig, "{name: nva-b, ", "{password-credential: peers_nva-b, name: nva-b, ", 1))
	h.Run("systemctl restart nexthopd")
	h.Wait("2 of 2 established", "nexthopctl status")
	h.Run("! { journalctl -u nexthopd; nexthopctl peers -o json; systemctl status nexthopd; } | grep -q " + secret)
	h.Run("rm /etc/nexthopd/secrets.d/nva-b")
	h.frrPassword("")
	h.configure()
}

// frrPassword sets the second appliance's secret, none if it is empty.
func (h *host) frrPassword(secret string) {
	h.t.Helper()
	command := "no neighbor 10.1.2.4 password"
	if secret != "" {
		command = "neighbor 10.1.2.4 password " + secret
	}
	_, err := h.frr[1].Vtysh(h.ctx, "configure terminal", "router bgp 65147", command)
	check(h.t, err)
}

// A mistake is no restart loop, its place is in the journal, and the routes stay.
func (h *host) badConfiguration() {
	h.Write("/etc/nexthopd/nexthopd.yaml", hostConfig+"nonsense: 1\n")
	if _, err := h.Try(h.ctx, "systemctl restart nexthopd"); err == nil {
		h.t.Error("started with a mistake in the configuration")
	}
	out := h.Run("systemctl show -p ExecMainStatus -p NRestarts -p ActiveState nexthopd | sort")
	if want := "ActiveState=failed\nExecMainStatus=78\nNRestarts=0\n"; out != want {
		h.t.Errorf("after a bad configuration: %q, want %q", out, want)
	}
	h.Wait("nexthopd.yaml:7:1: nonsense", "journalctl -u nexthopd -o cat")
	h.wantRoute()
	h.configure()
}

// upgrade loses no packet, and keeps the routes and the edited configuration.
func (h *host) upgrade(command string) {
	began := time.Now()
	traffic, err := h.net.Traffic(lab.TrafficConfig{Rate: 200})
	check(h.t, err)
	missing := h.keepRoute(func() {
		h.Run(command)
		h.Wait("2 of 2 established", "nexthopctl status")
	})
	report := traffic.Stop()
	if report.Lost() > 0 || missing > 500*time.Millisecond {
		h.t.Errorf("upgrade: %d of %d packets lost, from %s to %s after the start, route missing for up to %s; want none",
			report.Lost(), report.Sent(), report.FirstLost.Sub(began), report.LastLost.Sub(began), missing)
		h.t.Logf("lost at %s, stopped at %s", report.FirstLost.UTC(), time.Now().UTC())
	}
	h.Wait("nexthopctl "+newVersion, "nexthopctl --version")
	if out := h.Run("nexthopctl status || [ $? -eq 4 ]"); !strings.HasPrefix(out, "nexthopd "+newVersion) {
		h.t.Errorf("the daemon after the upgrade says %q", out)
	}
	if got := h.Run("cat /etc/nexthopd/nexthopd.yaml"); got != hostConfig {
		h.t.Errorf("the upgrade changed the configuration to\n%s", got)
	}
	h.wantRoute()
}

// A hung daemon is killed and restarted, says where it hung, and the route stays.
func (h *host) watchdog() {
	h.Write("/etc/systemd/system/nexthopd.service.d/test.conf", "[Service]\nWatchdogSec=6\nRestartSec=100ms\n")
	h.Run("systemctl daemon-reload && systemctl restart nexthopd")
	h.wantRoute()
	pid := strings.TrimSpace(h.Run("systemctl show -p MainPID --value nexthopd"))
	missing := h.keepRoute(func() {
		h.Run("kill -STOP " + pid)
		h.Wait("1", "systemctl show -p NRestarts --value nexthopd")
		h.Wait("active", "systemctl is-active nexthopd")
		h.Wait("2 of 2 established", "nexthopctl status")
	})
	if missing > 500*time.Millisecond {
		h.t.Errorf("the route was missing for %s", missing)
	}
	if now := strings.TrimSpace(h.Run("systemctl show -p MainPID --value nexthopd")); now == pid {
		h.t.Errorf("the hung process %s is still the daemon", pid)
	}
	h.Wait("Watchdog timeout", "journalctl -u nexthopd -o cat")
	h.Wait("SIGABRT: abort", "journalctl -u nexthopd -o cat")
	h.Run("rm -r /etc/systemd/system/nexthopd.service.d && systemctl daemon-reload && systemctl restart nexthopd")
	h.wantRoute()
}

// networkd removes what it does not know, unless told otherwise, which the package does.
func (h *host) networkd() {
	for name, addr := range map[string]string{"eth0": "10.1.2.4/16", "eth1": "10.3.0.1/24"} {
		network := "Address=" + addr
		if strings.HasPrefix(h.Run("systemctl --version"), "systemd 252 ") {
			// On a kernel much newer than its own (6.18) networkd 252 is refused addresses with
			// ERANGE, tries again without a pause, and ends for lack of buffers.
			network = "KeepConfiguration=static"
		}
		h.Write("/etc/systemd/network/10-"+name+".network", "[Match]\nName="+name+"\n[Network]\n"+network+"\nIPv6AcceptRA=no\n")
	}
	restart := func() {
		h.Run("systemctl restart systemd-networkd")
		// Not networkctl, which wants D-Bus.
		h.Wait("ADMIN_STATE=configured", "cat /run/systemd/netif/links/$(cat /sys/class/net/eth0/ifindex)")
	}
	missing := h.keepRoute(func() {
		restart()
		restart()
		h.wantRoute()
	})
	if missing > 10*time.Second {
		h.t.Errorf("networkd's restart cost the route %s, want it back at once", missing)
	}
	// Nor does it take the daemon's repairs.
	h.Run("systemctl stop nexthopd")
	if missing := h.keepRoute(restart); missing > 500*time.Millisecond {
		h.t.Errorf("with the daemon stopped, networkd's restart cost the route %s", missing)
	}
	h.wantRoute()
	h.Run("systemctl stop systemd-networkd.socket systemd-networkd && systemctl start nexthopd")
	h.Wait("2 of 2 established", "nexthopctl status")
}

// reload applies what is changed, and resets what the change concerns and nothing else.
func (h *host) reload() {
	write := func(config string) { h.Write("/etc/nexthopd/nexthopd.yaml", config) }
	since := func(peer string) string {
		h.t.Helper()
		var peers []struct{ Name, Since string }
		check(h.t, json.Unmarshal([]byte(h.Run("nexthopctl peers -o json")), &peers))
		for _, p := range peers {
			if p.Name == peer && p.Since != "" {
				return p.Since
			}
		}
		h.t.Fatalf("nexthopctl peers does not say since when %s: %+v", peer, peers)
		return ""
	}
	a, b := since("nva-a"), since("nva-b")

	changed := strings.Replace(hostConfig, "10.1.0.0/16", "10.1.0.0/16, 10.3.0.0/24", 1)
	write(changed)
	h.Run("systemctl reload nexthopd")
	advertised := func(when string) {
		h.t.Helper()
		h.t.Log("what nva-a is told", when)
		h.Wait("10.3.0.0/24", "nexthopctl advertised nva-a")
	}
	advertised("after the reload")

	// A mistake: the reload fails, its place is in the journal, and nothing changes.
	write(hostConfig + "nonsense: 1\n")
	if _, err := h.Try(h.ctx, "systemctl reload nexthopd"); err == nil {
		h.t.Error("reloaded a configuration with a mistake")
	}
	h.Wait("nexthopd.yaml:7:1: nonsense", "journalctl -u nexthopd -o cat -n 20")
	h.Run("systemctl is-active nexthopd")
	advertised("after the reload that failed")

	write(hostConfig)
	h.Run("systemctl reload nexthopd")
	if now := since("nva-a") + " " + since("nva-b"); now != a+" "+b {
		h.t.Errorf("the sessions were up since %s %s and now are since %s", a, b, now)
	}

	// A secret that is changed in its file, on both sides.
	write(strings.Replace(hostConfig, "{name: nva-b, ", "{password-file: /etc/nexthopd/nva-b.secret, name: nva-b, ", 1))
	for _, secret := range []string{"first", "second"} {
		h.Write("/tmp/secret", secret)
		h.Run("install -o nexthopd -m 400 /tmp/secret /etc/nexthopd/nva-b.secret")
		h.frrPassword(secret)
		h.Run("systemctl reload nexthopd")
		h.Wait("2 of 2 established", "nexthopctl status")
	}
	if now := since("nva-a"); now != a {
		h.t.Errorf("another peer's secret reset the session of %s, which now is since %s", a, now)
	}
	h.frrPassword("")
	write(hostConfig)
	h.Run("systemctl reload nexthopd && rm /etc/nexthopd/nva-b.secret")
	h.Wait("2 of 2 established", "nexthopctl status")
}

// bfd has its own process, whose threads the unit lets have a real-time priority; the
// daemon's have none.
func (h *host) bfd() {
	if _, err := h.Try(h.ctx, "prlimit --rtprio=1:1 true"); err != nil {
		// Not even root may raise the limit here, so systemd can't: the capability stands for it.
		h.Write("/etc/systemd/system/nexthopd.service.d/test.conf", "[Service]\nCapabilityBoundingSet=CAP_SYS_NICE\nAmbientCapabilities=CAP_SYS_NICE\n")
		h.Run("systemctl daemon-reload")
	}
	h.Write("/etc/nexthopd/nexthopd.yaml", strings.Replace(hostConfig, "{name: nva-b, ", "{bfd: true, name: nva-b, ", 1))
	h.Run("systemctl restart nexthopd")
	h.Wait(" SCHED_RR 1,", "nexthopctl bfd -o wide")
	// proc(5): policy is the 39th value after the name, which may hold blanks.
	const policies = `for p in $(cat /sys/fs/cgroup/system.slice/nexthopd.service/cgroup.procs); do
	echo "$p $(sed 's/.*) //' /proc/$p/task/*/stat | cut -d' ' -f39 | sort | uniq -c | tr -s ' \n' ' ')"
done`
	main := strings.TrimSpace(h.Run("systemctl show -p MainPID --value nexthopd"))
	out := h.Run(policies)
	for line := range strings.Lines(out) {
		f := strings.Fields(line) // the pid, then pairs of a number of threads and their policy
		want := "2"               // SCHED_RR
		if f[0] == main {
			want = "0"
		}
		if len(f) != 3 || f[2] != want {
			h.t.Errorf("threads by policy: %q, want all of process %s to have %s", line, f[0], want)
		}
	}
	if strings.Count(out, "\n") != 2 {
		h.t.Errorf("processes of the service:\n%s", out)
	}
	h.Run("rm -rf /etc/systemd/system/nexthopd.service.d && systemctl daemon-reload")
	h.configure()
}

// wantNothing is for after a removal: nothing of ours is in the kernel.
func (h *host) wantNothing() {
	if out := h.Run("ip route show table all proto 165; ip -6 route show table all proto 165; ip nexthop show proto 165"); out != "" {
		h.t.Errorf("left in the kernel:\n%s", out)
	}
	if out, err := h.Try(h.ctx, "systemctl cat nexthopd; pgrep -x nexthopd"); err == nil || out != "" {
		h.t.Errorf("left of the service: %s", out)
	}
}

func (h *host) remove() {
	h.Run("apt-get remove -y nexthopd")
	h.wantNothing()
	if got := h.Run("cat /etc/nexthopd/nexthopd.yaml"); got != hostConfig {
		h.t.Errorf("apt remove changed the configuration to\n%s", got)
	}
}

func (h *host) purge() {
	h.Run("apt-get purge -y nexthopd")
	h.wantNothing()
	if out := h.Run("find / -xdev '(' -name '*nexthopd*' -o -name '*nexthopctl*' ')' -not -path '/proc/*' -not -path '/sys/*' -not -path '/packages/*'"); out != "" {
		h.t.Errorf("purge left\n%s", out)
	}
	h.Run("getent passwd nexthopd") // files elsewhere may be its
}
