package doctor

import (
	"errors"
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/netnstest"
)

// files makes a file system of names and texts.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

func TestGather(t *testing.T) {
	d := &status.Doctor{PID: 4711, Protocol: 165, Listen: []string{"0.0.0.0:179"}, Legs: []string{"eth0", "eth1"}}
	f := Gather(Host{
		Files: files(
			"proc/sys/net/ipv4/ip_forward", "1\n",
			"proc/sys/net/ipv4/conf/all/rp_filter", "0\n",
			"proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n",
			"proc/sys/net/ipv4/conf/eth1/rp_filter", "1\n",
			"proc/4711/status", "Name:\tnexthopd\nCapPrm:\t0\nCapEff:\t0000000000001400\n",
			"sys/class/net/eth0/ifindex", "2\n",
			"sys/class/net/eth1/ifindex", "3\n",
			"run/NetworkManager/devices/2", "[device]\nmanaged=true\n",
			"run/NetworkManager/devices/3", "[device]\nmanaged=false\n",
			"usr/share/iproute2/rt_protos", "# names\n4\tstatic\n0xa5 other\n",
			"etc/iproute2/rt_protos.d/nexthopd.conf", "165\tnexthopd\n",
		),
		Namespace: func() (string, error) { return "net:[7]", nil },
		Clock:     func() (bool, error) { return false, nil },
	}, d, nil)
	if f.Sysctl["net.ipv4.ip_forward"] != "1" {
		t.Errorf("sysctl %v", f.Sysctl)
	}
	if _, has := f.Sysctl["net.ipv4.nexthop_compat_mode"]; has {
		t.Error("a sysctl that does not exist has a value")
	}
	if !slices.Equal(f.Strict, []string{"eth1"}) || !slices.Equal(f.Managed, []string{"eth0"}) {
		t.Errorf("strict %q, managed %q, want eth1 and eth0", f.Strict, f.Managed)
	}
	if f.Capabilities == nil || *f.Capabilities != capNetAdmin|capNetBindService {
		t.Errorf("capabilities %v", f.Capabilities)
	}
	if !slices.Equal(f.ProtocolNames, []string{"other", "nexthopd"}) || f.Namespace != "net:[7]" || f.Clock == nil || *f.Clock {
		t.Errorf("facts %+v", f)
	}
}

func TestGatherWithoutADaemon(t *testing.T) {
	f := Gather(Host{
		Files:   files(),
		Listens: func(addr string) string { return map[string]string{"0.0.0.0:179": "bird (pid 812)"}[addr] },
		Clock:   func() (bool, error) { return false, errors.New("not permitted") },
	}, nil, errors.New("no socket"))
	if !slices.Equal(f.Listeners, []string{"bird (pid 812)"}) || f.DaemonError != "no socket" || f.Clock != nil {
		t.Errorf("facts %+v", f)
	}
}

func TestNetworkd(t *testing.T) {
	const state, off = "run/systemd/netif/state", "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules = false\nManageForeignNextHops=0\n"
	for _, tt := range []struct {
		name  string
		files fstest.MapFS
		want  Networkd
	}{
		{"does not run", files("usr/lib/systemd/networkd.conf", ""), Networkd{}},
		{"as it comes", files(state, "", "etc/systemd/networkd.conf", "[Network]\n#ManageForeignRoutes=no\n"), Networkd{true, foreignKeys[:]}},
		{"our drop-in", files(state, "", "usr/lib/systemd/networkd.conf.d/50-nexthopd.conf", off), Networkd{true, nil}},
		{"a later one wins", files(state, "", "usr/lib/systemd/networkd.conf.d/50-nexthopd.conf", off, "etc/systemd/networkd.conf.d/60-x.conf", "[Network]\nManageForeignRoutes=yes\n"),
			Networkd{true, foreignKeys[:1]}},
		{"one in /etc hides one in /usr", files(state, "", "usr/lib/systemd/networkd.conf.d/50-nexthopd.conf", off, "etc/systemd/networkd.conf.d/50-nexthopd.conf", ""),
			Networkd{true, foreignKeys[:]}},
		{"another section", files(state, "", "etc/systemd/networkd.conf", "[DHCPv4]\nManageForeignRoutes=no\n"), Networkd{true, foreignKeys[:]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Host{Files: tt.files}.networkd()
			if got.Running != tt.want.Running || !slices.Equal(got.Manages, tt.want.Manages) {
				t.Errorf("networkd = %+v, want %+v", got, tt.want)
			}
		})
	}
}

// In a real network namespace, the settings are those of the namespace.
func TestGatherHere(t *testing.T) {
	netnstest.RequireRoot(t)
	netnstest.New(t)
	for _, want := range []string{"1", "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(want), 0); err != nil {
			t.Fatal(err)
		}
		f := Gather(Here(), &status.Doctor{PID: os.Getpid(), Protocol: 165, Legs: []string{"lo"}}, nil)
		if got := f.Sysctl["net.ipv4.ip_forward"]; got != want {
			t.Errorf("ip_forward = %q, want %q", got, want)
		}
		if f.Namespace == "" || f.Capabilities == nil || f.Clock == nil {
			t.Errorf("facts %+v", f)
		}
	}
}

// FuzzGather: whatever the host's files hold, doctor reads them to the end.
func FuzzGather(f *testing.F) {
	f.Add("CapEff:\t0000000000001400\n", "[Network]\nManageForeignRoutes=no\n", "165\tnexthopd\n0xa5 other\n", "managed=true\n")
	f.Add("CapEff:", "[\n=\nManageForeignRoutes", "#\n \n165", "managed")
	f.Fuzz(func(t *testing.T, caps, networkd, protocols, manager string) {
		facts := Gather(Host{
			Files: files(
				"proc/4711/status", caps, "proc/sys/net/ipv4/ip_forward", caps, "run/systemd/netif/state", "",
				"etc/systemd/networkd.conf", networkd, "run/systemd/networkd.conf.d/a.conf", networkd,
				"usr/share/iproute2/rt_protos", protocols, "sys/class/net/eth0/ifindex", "2\n", "run/NetworkManager/devices/2", manager,
			),
			Namespace: func() (string, error) { return "net:[7]", nil },
			Clock:     func() (bool, error) { return true, nil },
		}, &status.Doctor{PID: 4711, Protocol: 165, Legs: []string{"eth0"}}, nil)
		if facts == nil {
			t.Error("no facts")
		}
	})
}
