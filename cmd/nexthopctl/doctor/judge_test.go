package doctor

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
)

// fine is a host in order.
func fine() *Facts {
	caps, clock := uint64(capNetAdmin|capNetBindService), true
	peer := func(name, addr string) status.DoctorPeer {
		return status.DoctorPeer{
			Name: name, Address: netip.MustParseAddr(addr), Way: []string{"via " + addr + " dev eth0"}, Interfaces: []string{"eth0"}, MTU: 1500, Connected: "eth0",
		}
	}
	rule := func(v6 bool, priority, table uint32) status.DoctorRule {
		return status.DoctorRule{IPv6: v6, Priority: priority, Table: table, Lookup: true, All: true}
	}
	return &Facts{
		Daemon: &status.Doctor{
			PID: 4711, Namespace: "net:[1]", Listen: []string{"0.0.0.0:179"}, Mode: "install", Table: 254, Metric: 20, Protocol: 165,
			NextHopObjects: true, IPv6: true, Legs: []string{"eth0"}, Compared: 3,
			Peers: []status.DoctorPeer{peer("quagga", "10.1.0.4"), peer("bird", "10.1.0.5")},
			Rules: []status.DoctorRule{rule(false, 0, 255), rule(false, 32766, 254), rule(false, 32767, 253), rule(true, 0, 255), rule(true, 32766, 254)},
		},
		Namespace: "net:[1]",
		Sysctl: map[string]string{
			"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1",
			"net.ipv4.fib_multipath_hash_policy": "1", "net.ipv6.fib_multipath_hash_policy": "1",
			"net.ipv4.nexthop_compat_mode": "0", "net.ipv4.tcp_l3mdev_accept": "0", "net.ipv4.conf.all.ignore_routes_with_linkdown": "1",
		},
		ProtocolNames: []string{"nexthopd"}, Capabilities: &caps, Clock: &clock,
	}
}

func TestAHostInOrder(t *testing.T) {
	found := Judge(fine())
	for _, f := range found {
		if f.Severity != OK || f.Mend != "" || f.Says == "" {
			t.Errorf("%+v, want ok and nothing to mend", f)
		}
	}
	if len(found) != len(checks) {
		t.Errorf("%d findings of %d checks", len(found), len(checks))
	}
}

func TestJudge(t *testing.T) {
	rules := func(list ...status.DoctorRule) func(*Facts) {
		return func(f *Facts) { f.Daemon.Table, f.Daemon.Rules = 100, append(f.Daemon.Rules, list...) }
	}
	sysctl := func(name, value string) func(*Facts) {
		return func(f *Facts) { f.Sysctl[name] = value }
	}
	for _, tt := range []struct {
		name     string
		change   func(*Facts)
		check    string
		severity Severity
		says     string
		mend     string // the beginning of the command
	}{
		{"no daemon", func(f *Facts) { f.Daemon, f.DaemonError, f.DaemonNext = nil, "permission denied", "sudo x" }, "daemon", Error, "permission denied", "sudo x"},
		{"no daemon to ask", func(f *Facts) { f.Daemon = nil }, "ecmp", Skipped, "does not answer", ""},
		{"observes", func(f *Facts) { f.Daemon.Mode = "observe" }, "daemon", Info, "nothing is installed", ""},
		{"elsewhere", func(f *Facts) { f.Namespace = "net:[2]" }, "namespace", Warning, "another network namespace", "nsenter --net=/proc/4711/ns/net nexthopctl doctor"},
		{"no CAP_NET_ADMIN", func(f *Facts) { *f.Capabilities = capNetBindService }, "capabilities", Error, "CAP_NET_ADMIN", "systemctl edit nexthopd"},
		{"none needed to observe", func(f *Facts) { *f.Capabilities, f.Daemon.Mode = capNetBindService, "observe" }, "capabilities", OK, "", ""},
		{"no CAP_NET_BIND_SERVICE", func(f *Facts) { *f.Capabilities = capNetAdmin }, "capabilities", Error, "CAP_NET_BIND_SERVICE", "systemctl edit nexthopd"},
		{"not needed on a high port", func(f *Facts) { *f.Capabilities, f.Daemon.Listen = capNetAdmin, []string{"[::]:1790"} }, "capabilities", OK, "", ""},
		{"capabilities hidden", func(f *Facts) { f.Capabilities = nil }, "capabilities", Skipped, "cannot be read", ""},
		{"port taken", func(f *Facts) { f.Daemon, f.Listeners = nil, []string{"bird (pid 812, 0.0.0.0:179)"} }, "port", Error, "bird (pid 812", "ss -ltnp"},
		{"port held by the daemon", func(f *Facts) { f.Daemon, f.Listeners = nil, []string{"nexthopd (pid 812, 0.0.0.0:179)"} }, "port", OK, "held by nexthopd", ""},
		{"port held by who knows", func(f *Facts) {
			f.Daemon, f.Listeners = nil, []string{"a process that only root can see (uid 998, 0.0.0.0:179)"}
		}, "port", Skipped, "only root can see", "sudo nexthopctl doctor"},
		{"no way", func(f *Facts) { f.Daemon.Peers[1].Why = "next-hop-unreachable" }, "way-to-peer", Error, "peer bird (10.1.0.5): next-hop-unreachable", "ip route get 10.1.0.5"},
		{"captured", func(f *Facts) {
			f.Daemon.Peers[0].Captured = "10.1.0.4/32 via 172.16.0.2 dev eth1 proto static metric 5 table 254"
		}, "way-to-peer", Error, "in the subnet of eth0", "ip route del 10.1.0.4/32 via 172.16.0.2 dev eth1 proto static metric 5 table 254"},
		{"captured, IPv6", func(f *Facts) { f.Daemon.Peers[0].Captured = "2001:db8::/64 dev wg0 proto static" }, "way-to-peer", Error, "", "ip -6 route del 2001:db8::/64"},
		{"captured by us", func(f *Facts) { f.Daemon.Peers[0].Captured = "10.1.0.0/24 proto nexthopd metric 20" }, "way-to-peer", Error, "", "nexthopctl explain 10.1.0.0/24"},
		{"small MTU", func(f *Facts) { f.Daemon.Peers[0].MTU = 1200 }, "mtu", Warning, "quagga is 1200", "ip link set dev eth0 mtu 1500"},
		{"MTU differs", func(f *Facts) { f.Daemon.Peers[0].MTU = 9000 }, "mtu", Warning, "quagga 9000 (eth0), bird 1500 (eth0)", "ip -d link show"},
		{"no forwarding", sysctl("net.ipv4.ip_forward", "0"), "ip-forward", Warning, "drops", "sysctl -w net.ipv4.ip_forward=1"},
		{"no IPv6 forwarding", sysctl("net.ipv6.conf.all.forwarding", "0"), "ip-forward", Warning, "IPv6", "sysctl -w net.ipv6.conf.all.forwarding=1"},
		{"IPv6 is not used", func(f *Facts) { f.Sysctl["net.ipv6.conf.all.forwarding"], f.Daemon.IPv6 = "0", false }, "ip-forward", OK, "", ""},
		{"strict with one way", func(f *Facts) { f.Strict = []string{"eth0"} }, "rp-filter", OK, "the only interface", ""},
		{"strict with two", func(f *Facts) { f.Strict, f.Daemon.Legs = []string{"eth1"}, []string{"eth0", "eth1"} }, "rp-filter", Warning, "strict on eth1, and NVAs are reached over eth0, eth1", "sysctl -w net.ipv4.conf.all.rp_filter=2"},
		{"no multipath", func(f *Facts) { delete(f.Sysctl, "net.ipv4.fib_multipath_hash_policy") }, "multipath", Warning, "no multipath", "uname -r"},
		{"addresses only", sysctl("net.ipv4.fib_multipath_hash_policy", "0"), "hash-policy", Warning, "whatever the ports", "sysctl -w net.ipv4.fib_multipath_hash_policy=1"},
		{"addresses only, IPv6", sysctl("net.ipv6.fib_multipath_hash_policy", "0"), "hash-policy", Warning, "net.ipv6", "sysctl -w net.ipv6.fib_multipath_hash_policy=1"},
		{"compat mode", sysctl("net.ipv4.nexthop_compat_mode", "1"), "compat-mode", Warning, "every route", "sysctl -w net.ipv4.nexthop_compat_mode=0"},
		{"compat mode, classic routes", func(f *Facts) { f.Sysctl["net.ipv4.nexthop_compat_mode"], f.Daemon.NextHopObjects = "1", false }, "compat-mode", OK, "", ""},
		{"classic routes", func(f *Facts) { f.Daemon.NextHopObjects = false }, "next-hop-objects", Info, "switched off", ""},
		{"old kernel", func(f *Facts) { f.Daemon.NextHopObjects = false; delete(f.Sysctl, "net.ipv4.nexthop_compat_mode") }, "next-hop-objects", Info, "Linux 5.3", ""},
		{"linkdown", sysctl("net.ipv4.conf.all.ignore_routes_with_linkdown", "0"), "linkdown", Info, "without carrier", "sysctl -w net.ipv4.conf.all.ignore_routes_with_linkdown=1"},
		{"not what it should be", func(f *Facts) { f.Daemon.Differ = []string{"10.9.0.0/16 has a, and should have b"} }, "ecmp", Error, "10.9.0.0/16 has a", "nexthopctl resync"},
		{"no rule", rules(), "rules", Error, "no rule (ip rule) asks table 100", "ip rule add priority 32000 lookup 100"},
		{"a rule after main", rules(status.DoctorRule{Priority: 40000, Table: 100, Lookup: true, All: true}), "rules", Warning, "asks table main before table 100", "ip rule add priority 32000 lookup 100"},
		{"a rule for some", rules(status.DoctorRule{Priority: 40000, Table: 100, Lookup: true}), "rules", Info, "only for what the rules select", ""},
		{"a VRF's", rules(status.DoctorRule{Priority: 1000, Lookup: true, VRF: true}), "rules", Info, "VRF", ""},
		{"a tunnel for all", func(f *Facts) {
			f.Daemon.Rules = append([]status.DoctorRule{{Priority: 99, Table: 51820, Lookup: true, All: true}}, f.Daemon.Rules...)
		}, "rules", Info, "ip rule 99", ""},
		{"no VRF", func(f *Facts) { delete(f.Sysctl, "net.ipv4.tcp_l3mdev_accept") }, "vrf", OK, "no VRF", ""},
		{"same protocol", func(f *Facts) { f.Daemon.SameProtocol = []string{"10.9.0.0/16 dev eth0"} }, "protocol", Warning, "10.9.0.0/16 dev eth0", "ip route show table all proto 165"},
		{"another name", func(f *Facts) { f.ProtocolNames = []string{"nexthopd", "zebra2"} }, "protocol", Warning, `"zebra2"`, "grep -rw 165"},
		{"same metric", func(f *Facts) { f.Daemon.SameMetric = []string{"10.9.0.0/16 dev eth0"} }, "metric", Warning, "our metric 20 in our table 254", "ip route show table 254 metric 20"},
		{"networkd deletes", func(f *Facts) { f.Networkd = Networkd{true, []string{"ManageForeignRoutes"}} }, "networkd", Warning, "ManageForeignRoutes", "mkdir -p /etc/systemd/networkd.conf.d && printf"},
		{"networkd doesn't", func(f *Facts) { f.Networkd.Running = true }, "networkd", OK, "leaves alone", ""},
		{"NetworkManager", func(f *Facts) { f.Managed = []string{"eth0"} }, "network-manager", Info, "manages eth0", ""},
		{"clock", func(f *Facts) { *f.Clock = false }, "clock", Warning, "not synchronised", "timedatectl set-ntp true"},
		{"clock hidden", func(f *Facts) { f.Clock = nil }, "clock", Skipped, "cannot be read", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fine()
			tt.change(f)
			for _, got := range Judge(f) {
				if got.Check == tt.check && got.Severity == tt.severity && strings.Contains(got.Says, tt.says) && strings.HasPrefix(got.Mend, tt.mend) {
					if got.Severity.Action() && got.Mend == "" {
						t.Errorf("%+v asks for an action, and does not say which", got)
					}
					return
				}
			}
			t.Errorf("no finding %s of %s that says %q and mends with %q: %+v", tt.severity, tt.check, tt.says, tt.mend, Judge(f))
		})
	}
}

// The commands that mend are for a shell: they must be some at least.
func TestMendingCommandsAreForAShell(t *testing.T) {
	f := fine()
	f.Networkd = Networkd{true, foreignKeys[:]}
	f.Daemon.SameProtocol, f.Listeners = []string{"x"}, []string{"bird"}
	for name := range f.Sysctl {
		f.Sysctl[name] = map[bool]string{true: "1", false: "0"}[name == "net.ipv4.nexthop_compat_mode"]
	}
	*f.Capabilities, *f.Clock = 0, false
	for _, found := range Judge(f) {
		if out, err := exec.Command("sh", "-n", "-c", found.Mend).CombinedOutput(); err != nil {
			t.Errorf("sh -n: %s: %v %s", found.Mend, err, out)
		}
	}
}

// Nothing that a daemon answers makes it panic: it may be of another version.
func TestJudgeTheLeastOfFacts(t *testing.T) {
	for _, f := range []*Facts{{}, {Daemon: &status.Doctor{}}, {Daemon: &status.Doctor{Peers: make([]status.DoctorPeer, 1), Rules: make([]status.DoctorRule, 1)}}} {
		if got := Judge(f); len(got) < len(checks) {
			t.Errorf("%d findings of %d checks", len(got), len(checks))
		}
	}
}
