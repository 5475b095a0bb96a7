// Package diag opens the daemon's listeners and checks what it may do, and when that
// fails finds out what is in the way: the process that holds a port or socket, the
// capability that is missing. It needs no shell and changes nothing but its own sockets.
package diag

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ListenTCP listens on addr (host:port, the host may be empty). what names the setting,
// for the error.
func ListenTCP(ctx context.Context, what, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, ListenError(what, addr, err)
	}
	return ln, nil
}

// ListenError explains why listening on addr failed, also where somebody else's code
// tried it. What it says ends up as the daemon's last line, so it names what to change.
func ListenError(what, addr string, err error) error {
	var why string
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		why = "the port is taken"
		if who := WhoListens(addr); who != "" {
			why += " by " + who
		}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		why = "not an address of this host"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		why = "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE or root"
	default:
		return fmt.Errorf("%s: listen on %s: %w", what, addr, err)
	}
	return &listenError{fmt.Sprintf("%s: listen on %s: %s", what, addr, why), err}
}

// listenError says it in our words, and is still the error it was for errors.Is.
type listenError struct {
	text string
	err  error
}

func (e *listenError) Error() string { return e.text }
func (e *listenError) Unwrap() error { return e.err }
