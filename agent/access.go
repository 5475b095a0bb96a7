package agent

import (
	"context"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"github.com/nexthopd/nexthopd/agent/status"
)

// caller is who is at the other end of a connection to the control socket, as the kernel
// says: at the time of connect(2), and not to be forged.
type caller struct {
	uid    uint32
	groups []uint32
}

type callerKey struct{}

// withCaller notes who connected. A connection of which the kernel knows nothing has no
// caller, and may only read.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var who caller
	cerr := raw.Control(func(fd uintptr) { who, err = peerOf(int(fd)) })
	if cerr != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, who)
}

// peerOf asks the kernel who connected (SO_PEERCRED and SO_PEERGROUPS, unix(7)).
func peerOf(fd int) (caller, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return caller{}, err
	}
	return caller{uid: cred.Uid, groups: append(peerGroups(fd), cred.Gid)}, nil
}

// soPeerGroups is SO_PEERGROUPS of asm-generic/socket.h (Linux 4.13).
const soPeerGroups = 59

// peerGroups are the supplementary groups of who connected; nil where the kernel does not
// tell, which leaves the primary one.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 16)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno == syscall.ERANGE && int(size/4) > len(groups): // size says how many there are
			groups = make([]uint32, size/4)
		default:
			return nil
		}
	}
}

// mayChange tells whether the caller may change something: root, the daemon's own user,
// and members of the daemon's group, which the unit makes nexthopd.
func (c caller) mayChange(uid, gid int) bool {
	return c.uid == 0 || c.uid == uint32(uid) || slices.Contains(c.groups, uint32(gid))
}

// changes wraps what changes something: whoever may open the socket may read, but this
// takes more.
func changes(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := r.Context().Value(callerKey{}).(caller)
		if !ok || !who.mayChange(os.Geteuid(), os.Getegid()) {
			refuse(w, http.StatusForbidden, status.Error{
				Error: "you may look, not change: that takes root or a member of the daemon's group (nexthopd)",
				Next:  "sudo nexthopctl",
			})
			return
		}
		h(w, r)
	}
}
