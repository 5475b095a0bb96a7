package diag

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A live daemon accepts in microseconds; one that is stopped still has a backlog.
	dialTimeout = time.Second
	// How long another start's look at the same directory may take.
	lockTimeout = 3 * time.Second
	lockPause   = 10 * time.Millisecond
)

// ListenUnix listens on the socket file path with the given permissions, which hold from
// the file's first moment. A file that a killed daemon left behind is replaced; a socket
// somebody listens on is an error that names the process. Closing the listener removes
// the file.
func ListenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	// systemd made the directory (RuntimeDirectory=); started by hand, we do.
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Between the look at an old file and its removal another daemon could put its own
	// there. Locking the directory keeps two starts apart and leaves no lock file.
	unlock, err := lockDir(ctx, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The file gets the socket's own mode less the umask (unix_bind_bsd in
		// net/unix/af_unix.c), so nobody can connect before chmod below widens it.
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), ln.Close())
	}
	return ln, nil
}

// removeStale removes a socket file that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is a file of that name which is not a socket (%s); remove it or set api.socket", st.Mode())
	}
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if errors.Is(err, syscall.ECONNREFUSED) { // bound once, and no longer: connect(2)
		return os.Remove(path)
	}
	if err != nil {
		// EAGAIN, a full backlog, means alive; anything else isn't known to be dead.
		return fmt.Errorf("the socket is in use, and does not answer: %w", err)
	}
	defer conn.Close()
	return fmt.Errorf("%s listens there: is nexthopd running already? Stop it, or set api.socket", peerOf(conn))
}

// peerOf names the process that listens at the other end (SO_PEERCRED, socket(7)).
func peerOf(conn net.Conn) string {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return "a process"
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return "a process"
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if cerr != nil || err != nil || cred.Pid == 0 { // 0: of a pid namespace we can't see into
		return "a process"
	}
	return fmt.Sprintf("%s (pid %d)", processName(int(cred.Pid)), cred.Pid)
}

// lockDir takes the directory's lock, which ends with the process in any case.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process holds a lock on %s", dir), d.Close())
		case <-time.After(lockPause):
		}
	}
}
