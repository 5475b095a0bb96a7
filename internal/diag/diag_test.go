package diag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("NEXTHOPD_REQUIRE_ROOT") == "1" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// self is how this process is named.
func self() string { return fmt.Sprintf("%s (pid %d", processName(os.Getpid()), os.Getpid()) }

func TestWhoListens(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]", "0.0.0.0", ""} {
		t.Run("on "+host, func(t *testing.T) {
			ln, err := net.Listen("tcp", host+":0")
			if err != nil {
				t.Skipf("no such listener here: %v", err)
			}
			defer ln.Close()
			port := ln.Addr().(*net.TCPAddr).Port
			for _, want := range []string{fmt.Sprintf("%s:%d", host, port), fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf(":%d", port)} {
				if host == "[::1]" && strings.HasPrefix(want, "0") {
					continue // no conflict
				}
				if got := WhoListens(want); !strings.HasPrefix(got, self()) || !strings.Contains(got, fmt.Sprint(":", port)) {
					t.Errorf("WhoListens(%q) = %q, want this process %q and the address", want, got, self())
				}
			}
			ln.Close()
			if got := WhoListens(fmt.Sprintf("%s:%d", host, port)); got != "" {
				t.Errorf("WhoListens after Close = %q, want nothing", got)
			}
		})
	}
	if got := WhoListens("not an address"); got != "" {
		t.Errorf("WhoListens of nonsense = %q", got)
	}
}

func TestConflict(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"10.1.2.4:179", "10.1.2.4:179", true},
		{"10.1.2.4:179", "10.1.2.5:179", false},
		{"10.1.2.4:179", "10.1.2.4:1790", false},
		{"0.0.0.0:179", "10.1.2.4:179", true},
		{"10.1.2.4:179", "[::]:179", true},
		{"[::]:179", "10.1.2.4:179", true},
		{"10.1.2.4:179", "[2001:db8::1]:179", false},
		{"[2001:db8::1]:179", "0.0.0.0:179", false},
		{"[2001:db8::1]:179", "[::]:179", true},
		{"[fe80::1%eth0]:179", "[fe80::1]:179", true},
	}
	for _, tt := range tests {
		if got := conflict(netip.MustParseAddrPort(tt.a), netip.MustParseAddrPort(tt.b)); got != tt.want {
			t.Errorf("conflict(%s, %s) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestParseListeners(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the lines are those of a little-endian machine")
	}
	const data = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0402010A:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000   107        0 27058 2 00000000881cac47 100 0 0 10 0
   1: 0402010A:00B3 0500010A:C350 01 00000000:00000000 00:00000000 00000000     0        0 27059 2 00000000881cac48 100 0 0 10 0
   2: B80D0120000000000000000001000000:255D 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 27060 1 0 100 0 0 10 0
   3: 0000000000000000FFFF00000402010A:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 27061 1 0 100 0 0 10 0
   4: truncated
   5: XX02010A:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 27062 1 0
`
	want := []listener{
		{netip.MustParseAddrPort("10.1.2.4:179"), 107, 27058},
		{netip.MustParseAddrPort("[2001:db8::1]:9565"), 0, 27060},
		{netip.MustParseAddrPort("10.1.2.4:80"), 0, 27061},
	}
	got := parseListeners(data)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("parseListeners = %v, want %v", got, want)
	}
}

func TestListenTCPErrors(t *testing.T) {
	ln, err := ListenTCP(t.Context(), "metrics.listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tests := []struct {
		name, addr string
		is         error
		want       string
	}{
		{"taken", ln.Addr().String(), syscall.EADDRINUSE, "metrics.listen: listen on " + ln.Addr().String() + ": the port is taken by " + self()},
		{"not ours", "192.0.2.1:9565", syscall.EADDRNOTAVAIL, "metrics.listen: listen on 192.0.2.1:9565: not an address of this host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ListenTCP(t.Context(), "metrics.listen", tt.addr)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !errors.Is(err, tt.is) {
				t.Errorf("ListenTCP(%q) = %v, want %q, being %v", tt.addr, err, tt.want, tt.is)
			}
		})
	}
	// A listener that is not ours to open, such as GoBGP's: its error, our words.
	if err := ListenError("listen", "10.1.2.4:179", fmt.Errorf("bind: %w", syscall.EACCES)); !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("ListenError(EACCES) = %v, want the capability named", err)
	}
	if err := ListenError("listen", "10.1.2.4:179", errors.New("something else")); err.Error() != "listen: listen on 10.1.2.4:179: something else" {
		t.Errorf("ListenError of another error = %v", err)
	}
}

// leaveSocket makes a socket file as a killed daemon leaves it.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "nexthopd.sock") // the directory is made
	for _, state := range []string{"absent", "stale"} {
		if state == "stale" {
			leaveSocket(t, path)
		}
		ln, err := ListenUnix(t.Context(), path, 0o660)
		if err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		st, err := os.Lstat(path)
		if err != nil || st.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("%s: mode %v, %v; want a socket of mode 0660", state, st.Mode(), err)
		}
		_, err = ListenUnix(t.Context(), path, 0o660)
		if err == nil || !strings.HasPrefix(err.Error(), "listen on "+path+": "+self()+") listens there") {
			t.Errorf("%s: second daemon: %v, want this process named", state, err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("%s: the first one no longer answers: %v", state, err)
		} else {
			conn.Close()
		}
		ln.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file stays after Close: %v", state, err)
		}
	}
}

// What is not a dead socket of ours is never removed.
func TestListenUnixLeavesOtherFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"link to a dead socket", func(t *testing.T, path string) {
			leaveSocket(t, path+".other")
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"datagram socket in use", func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, "in use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			tt.make(t, path)
			if _, err := ListenUnix(t.Context(), path, 0o660); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ListenUnix = %v, want an error with %q", err, tt.want)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the file is gone: %v", err)
			}
		})
	}
	if _, err := ListenUnix(t.Context(), "/nonexistent/dir/s", 0o660); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ListenUnix in a directory that can't be made = %v", err)
	}
}

// Of many that start at once over a stale file, exactly one gets it.
func TestListenUnixOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	leaveSocket(t, path)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards won
	var won []net.Listener
	for range 8 {
		wg.Go(func() {
			if ln, err := ListenUnix(t.Context(), path, 0o600); err == nil {
				mu.Lock()
				won = append(won, ln)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d listeners on one path, want 1", len(won))
	}
	for _, ln := range won {
		ln.Close()
	}
}

func TestListenUnixLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ListenUnix(ctx, filepath.Join(dir, "s"), 0o600); err == nil || !strings.Contains(err.Error(), "holds a lock on "+dir) {
		t.Errorf("ListenUnix in a locked directory = %v", err)
	}
	unlock()
	ln, err := ListenUnix(t.Context(), filepath.Join(dir, "s"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

func TestNetAdmin(t *testing.T) {
	needRoot(t)
	if err := NetAdmin(); err != nil {
		t.Errorf("NetAdmin as root = %v", err)
	}
	// Capabilities are a thread's. This one drops its own, and ends with the goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not used again
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		done <- NetAdmin()
	}()
	err := <-done
	if err == nil || !strings.HasPrefix(err.Error(), "CAP_NET_ADMIN is missing") || strings.Contains(err.Error(), "\n") {
		t.Errorf("NetAdmin without the capability = %v, want one line that says so", err)
	}
}

// FuzzListeners: whatever /proc/net/tcp holds, what is read of it is a listener.
func FuzzListeners(f *testing.F) {
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18231 1 0000000000000000 100 0 0 10 0\n")
	f.Add("   1: 00000000000000000000000001000000:00B3 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 7 1\n")
	f.Add("0: :: 0 0A 0 0 0 -1 0 18446744073709551616")
	f.Fuzz(func(t *testing.T, data string) {
		for _, l := range parseListeners(data) {
			if !l.addr.IsValid() || l.addr.Addr().Is4In6() {
				t.Errorf("%q: %+v", data, l)
			}
		}
		if ap, ok := parseListenAddr(data); ok && (!ap.IsValid() || ap.Addr().Is4In6()) {
			t.Errorf("parseListenAddr(%q) = %v", data, ap)
		}
	})
}
