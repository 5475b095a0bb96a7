package doctor

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/diag"
)

// Host is where Gather reads.
type Host struct {
	Files fs.FS // of the root folder
	// Namespace names the network namespace of the caller, Listens says who holds a
	// listening address ("": nobody), Clock whether the clock is synchronised.
	Namespace func() (string, error)
	Listens   func(addr string) string
	Clock     func() (synchronised bool, err error)
}

// Here is this machine, in the network namespace of the calling thread.
func Here() Host {
	return Host{
		Files:     os.DirFS("/"),
		Namespace: func() (string, error) { return os.Readlink("/proc/thread-self/ns/net") },
		Listens:   diag.WhoListens,
		Clock: func() (bool, error) {
			var t unix.Timex // without modes, adjtimex(2) only reads
			state, err := unix.Adjtimex(&t)
			return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
		},
	}
}

// Gather reads the facts. daemon is what nexthopd says of the host, nil where it does not
// answer, which err explains. What cannot be read is left out.
func Gather(h Host, daemon *status.Doctor, err error) *Facts {
	f := &Facts{Daemon: daemon, Sysctl: map[string]string{}}
	if err != nil {
		f.DaemonError = err.Error()
	}
	if h.Namespace != nil {
		f.Namespace, _ = h.Namespace()
	}
	for _, name := range []string{
		"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding",
		"net.ipv4.fib_multipath_hash_policy", "net.ipv6.fib_multipath_hash_policy",
		"net.ipv4.nexthop_compat_mode", "net.ipv4.tcp_l3mdev_accept",
		"net.ipv4.conf.all.ignore_routes_with_linkdown", "net.ipv4.conf.all.rp_filter",
	} {
		if v, ok := h.word(path.Join("proc/sys", strings.ReplaceAll(name, ".", "/"))); ok {
			f.Sysctl[name] = v
		}
	}
	number := uint8(165)
	listen := []string{"0.0.0.0:179", "[::]:179"}
	if daemon != nil {
		number, listen = daemon.Protocol, daemon.Listen
		for _, name := range interfaces(f) {
			own, _ := h.word("proc/sys/net/ipv4/conf/" + name + "/rp_filter")
			if max(own, f.Sysctl["net.ipv4.conf.all.rp_filter"]) == rpStrict {
				f.Strict = append(f.Strict, name)
			}
			if index, ok := h.word("sys/class/net/" + name + "/ifindex"); ok && h.managed(index) {
				f.Managed = append(f.Managed, name)
			}
		}
		f.Capabilities = h.capabilities(daemon.PID)
	}
	f.Networkd = h.networkd()
	f.ProtocolNames = h.protocolNames(number)
	if daemon == nil && h.Listens != nil {
		for _, addr := range listen {
			if who := h.Listens(addr); who != "" && !slices.Contains(f.Listeners, who) {
				f.Listeners = append(f.Listeners, who)
			}
		}
	}
	if h.Clock != nil {
		if synchronised, err := h.Clock(); err == nil {
			f.Clock = &synchronised
		}
	}
	return f
}

// word reads a file that holds one word.
func (h Host) word(name string) (string, bool) {
	b, err := fs.ReadFile(h.Files, name)
	return strings.TrimSpace(string(b)), err == nil
}

// lines calls f for each line of a file that is no comment; a file that cannot be read
// has none.
func (h Host) lines(name string, f func(line string)) {
	b, err := fs.ReadFile(h.Files, name)
	if err != nil {
		return
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' && line[0] != ';' {
			f(line)
		}
	}
}

// capabilities reads CapEff of proc_pid_status(5).
func (h Host) capabilities(pid int) *uint64 {
	var caps *uint64
	h.lines("proc/"+strconv.Itoa(pid)+"/status", func(line string) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil {
				caps = &bits
			}
		}
	})
	return caps
}

// foreignKeys are the settings of networkd.conf(5) that keep it from deleting what others
// made; each is on unless it is set to no.
var foreignKeys = [...]string{"ManageForeignRoutes", "ManageForeignRoutingPolicyRules", "ManageForeignNextHops"}

// networkd reads networkd.conf(5) and its drop-ins as systemd does: sorted by name,
// whatever the folder, the same name in an earlier folder hiding later ones.
func (h Host) networkd() Networkd {
	var n Networkd
	if _, err := fs.Stat(h.Files, "run/systemd/netif/state"); err != nil {
		return n
	}
	n.Running = true
	folders := []string{"etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"}
	dropIns := map[string]string{}
	for _, folder := range folders {
		entries, _ := fs.ReadDir(h.Files, folder+"/networkd.conf.d") // most are not there
		for _, e := range entries {
			if _, hidden := dropIns[e.Name()]; !hidden && strings.HasSuffix(e.Name(), ".conf") {
				dropIns[e.Name()] = folder + "/networkd.conf.d/" + e.Name()
			}
		}
	}
	var files []string
	for _, folder := range folders {
		if _, err := fs.Stat(h.Files, folder+"/networkd.conf"); err == nil {
			files = append(files, folder+"/networkd.conf")
			break
		}
	}
	names := make([]string, 0, len(dropIns))
	for name := range dropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		files = append(files, dropIns[name])
	}
	value := map[string]string{}
	for _, file := range files {
		section := ""
		h.lines(file, func(line string) {
			if strings.HasPrefix(line, "[") {
				section = line
			} else if k, v, ok := strings.Cut(line, "="); ok && section == "[Network]" {
				value[strings.TrimSpace(k)] = strings.ToLower(strings.TrimSpace(v))
			}
		})
	}
	for _, key := range foreignKeys {
		if !slices.Contains([]string{"no", "n", "false", "f", "off", "0"}, value[key]) {
			n.Manages = append(n.Manages, key)
		}
	}
	return n
}

// managed tells whether NetworkManager manages the interface (its state files; they are
// not there where it does not run).
func (h Host) managed(index string) bool {
	is := false
	h.lines("run/NetworkManager/devices/"+index, func(line string) { is = is || line == "managed=true" || line == "managed=1" })
	return is
}

// protocolNames are iproute2's names of a route protocol.
func (h Host) protocolNames(number uint8) []string {
	var files, names []string
	for _, folder := range []string{"usr/share/iproute2", "etc/iproute2"} {
		files = append(files, folder+"/rt_protos")
		more, _ := fs.Glob(h.Files, folder+"/rt_protos.d/*.conf") // the pattern is well-formed
		files = append(files, more...)
	}
	for _, file := range files {
		h.lines(file, func(line string) {
			w := strings.Fields(line)
			if n, err := strconv.ParseUint(w[0], 0, 8); err == nil && uint8(n) == number && len(w) > 1 && !slices.Contains(names, w[1]) {
				names = append(names, w[1])
			}
		})
	}
	return names
}
