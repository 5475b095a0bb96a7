package kernel

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socket is a netlink socket that is read with a deadline.
type socket struct {
	s    *nl.NetlinkSocket
	fd   int
	port uint32 // our own port id, which the kernel puts into replies and notifications
	seq  uint32
	buf  []byte
	// kernel is port id 0. Sendto scribbles in it, so that sockets must not share one.
	kernel unix.SockaddrNetlink
	// timeout is replyTimeout, but for a test that waits for it.
	timeout time.Duration
}

// replyTimeout is for replies that got lost: the kernel works a batch off inside sendto,
// so that the replies are already there when it returns.
const replyTimeout = 5 * time.Second

// readBuffer is how much one read takes. The kernel fills up to 32 kB of it in a dump
// (net/netlink/af_netlink.c), and less when it was never offered as much.
const readBuffer = 128 << 10

func openSocket(rcvbuf, sndbuf int) (*socket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("fib/kernel: netlink socket: %w", err)
	}
	k := &socket{s: s, fd: s.GetFd(), buf: make([]byte, readBuffer), timeout: replyTimeout}
	k.kernel.Family = unix.AF_NETLINK
	setBuffer(k.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, rcvbuf)
	setBuffer(k.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sndbuf)
	for _, o := range [...]struct {
		opt  int
		name string
	}{
		{unix.NETLINK_EXT_ACK, "NETLINK_EXT_ACK"},
		{unix.NETLINK_CAP_ACK, "NETLINK_CAP_ACK"},
		{unix.NETLINK_GET_STRICT_CHK, "NETLINK_GET_STRICT_CHK"},
	} {
		if err := unix.SetsockoptInt(k.fd, unix.SOL_NETLINK, o.opt, 1); err != nil {
			s.Close()
			return nil, fmt.Errorf("fib/kernel: set %s (Linux 4.20 or later is needed): %w", o.name, err)
		}
	}
	if k.port, err = s.GetPid(); err != nil {
		s.Close()
		return nil, fmt.Errorf("fib/kernel: port id of the netlink socket: %w", err)
	}
	return k, nil
}

// setBuffer sets a socket buffer, beyond net.core.[rw]mem_max where we may. A smaller
// one than wished for is no error: batches are fitted to what there is.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

func (k *socket) receiveBuffer() int {
	n, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0
	}
	return n
}

func (k *socket) nextSeq() uint32 {
	k.seq++
	return k.seq
}

func (k *socket) send(b []byte) error {
	for {
		err := unix.Sendto(k.fd, b, 0, &k.kernel)
		// A signal is only noticed before the kernel took the message.
		if err != unix.EINTR {
			return err
		}
	}
}

// receive returns the next datagram from the kernel, valid until the next call, or
// errTimeout.
func (k *socket) receive() ([]byte, error) {
	deadline := time.Now().Add(k.timeout)
	for {
		n, from, err := unix.Recvfrom(k.fd, k.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EAGAIN:
			if err := wait(k.fd, deadline); err != nil {
				return nil, err
			}
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		if n > len(k.buf) {
			return nil, errTruncated
		}
		return k.buf[:n], nil
	}
}

var (
	errTimeout   = errors.New("no reply in time")
	errTruncated = errors.New("a message is longer than the read buffer")
)

func wait(fd int, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errTimeout
		}
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p[:], int(left.Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
