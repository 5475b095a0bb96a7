package diag

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The files of the calling thread: its network namespace may differ from the process's.
var procNetTCP = []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}

// Unseen begins the name of a process that the caller may not look at.
const Unseen = "a process that only root can see"

// WhoListens names the process whose TCP listener keeps others from listening on addr
// (host:port, the host may be empty): "bird (pid 812, 0.0.0.0:179)". It is empty when
// there is none in this network namespace. Only root sees the sockets of other users.
func WhoListens(addr string) string {
	want, ok := parseListenAddr(addr)
	if !ok {
		return ""
	}
	for _, file := range procNetTCP {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // tcp6 is absent where IPv6 is off
		}
		for _, l := range parseListeners(string(data)) {
			if !conflict(want, l.addr) {
				continue
			}
			if pid := pidOfSocket(l.inode); pid != 0 {
				return fmt.Sprintf("%s (pid %d, %s)", processName(pid), pid, l.addr)
			}
			return fmt.Sprintf("%s (uid %d, %s)", Unseen, l.uid, l.addr)
		}
	}
	return ""
}

// parseListenAddr reads host:port with an IP address or nothing as the host.
func parseListenAddr(addr string) (netip.AddrPort, bool) {
	if port, ok := strings.CutPrefix(addr, ":"); ok {
		addr = "[::]:" + port // how Go listens: both families at once
	}
	ap, err := netip.ParseAddrPort(addr)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err == nil
}

// conflict tells whether two listeners exclude each other: the same port, and the same
// address or one of them the unspecified one. [::] takes IPv4 too unless IPV6_V6ONLY,
// which /proc/net/tcp6 doesn't show: the suspicion is enough here, for listening failed.
func conflict(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	x, y := a.Addr(), b.Addr()
	switch {
	case x.Is4() == y.Is4():
		return x.WithZone("") == y.WithZone("") || x.IsUnspecified() || y.IsUnspecified()
	case x.Is6():
		return x.IsUnspecified()
	default:
		return y.IsUnspecified()
	}
}

type listener struct {
	addr  netip.AddrPort
	uid   int
	inode uint64
}

// stateListen is TCP_LISTEN in include/net/tcp_states.h.
const stateListen = "0A"

// parseListeners reads /proc/net/tcp or tcp6 (tcp4_seq_show in net/ipv4/tcp_ipv4.c: the
// local address is the second column, the state the fourth, uid the eighth and the
// inode the tenth).
func parseListeners(data string) []listener {
	var out []listener
	for line := range strings.Lines(data) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		addr, ok := parseProcAddr(f[1])
		if !ok {
			continue
		}
		uid, err1 := strconv.Atoi(f[7])
		inode, err2 := strconv.ParseUint(f[9], 10, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		out = append(out, listener{addr, uid, inode})
	}
	return out
}

// parseProcAddr reads "0100007F:00B3": the address as 32-bit words of the host's byte
// order, the port as a number.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		// %08X printed the word's value: write that value back as it lies in memory.
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), ok && err == nil
}

// pidOfSocket finds the process that has the socket open, 0 when none can be seen. A
// socket shared by several (after a fork) is the one's with the lowest pid.
func pidOfSocket(inode uint64) int {
	want := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range pids() {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // gone, or another user's
		}
		for _, fd := range fds {
			if link, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && link == want {
				return pid
			}
		}
	}
	return 0
}

func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// processName is the name a process gave itself, fit to be printed.
func processName(pid int) string {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	name := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, strings.TrimSuffix(string(comm), "\n"))
	if err != nil || name == "" {
		return "a process"
	}
	return name
}
