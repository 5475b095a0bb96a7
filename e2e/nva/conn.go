package nva

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Transport says how the TCP connection is made.
type Transport struct {
	Local    netip.Addr     // source address; any when invalid
	Remote   netip.AddrPort // the peer; a listener needs only its address, for the MD5 key
	Password string         // TCP MD5 (RFC 2385); none when empty
	TTL      int            // the kernel's default when 0
}

// Connect opens the TCP connection and sends nothing. The socket belongs to the
// network namespace of the calling thread.
func Connect(ctx context.Context, t Transport) (*net.TCPConn, error) {
	d := net.Dialer{Control: t.control}
	if t.Local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.Local, 0))
	}
	c, err := d.DialContext(ctx, "tcp", t.Remote.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// listen opens a listening socket on t.Local and port.
func listen(ctx context.Context, t Transport, port uint16) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: t.control}
	// Go listens with MPTCP by default, on which TCP_MD5SIG fails with ENOPROTOOPT.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(t.Local, port).String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// control sets the socket's options before it connects or listens.
func (t Transport) control(_, _ string, raw syscall.RawConn) error {
	var err error
	cerr := raw.Control(func(fd uintptr) {
		if t.TTL > 0 {
			if t.Remote.Addr().Is4() {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, t.TTL)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, t.TTL)
			}
			if err != nil {
				err = fmt.Errorf("set TTL %d: %w", t.TTL, err)
				return
			}
		}
		if t.Password != "" {
			err = setMD5(int(fd), t.Remote.Addr(), t.Password)
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// setMD5 ties the secret to the peer's address; the port plays no part.
func setMD5(fd int, peer netip.Addr, secret string) error {
	var sig unix.TCPMD5Sig
	if len(secret) > len(sig.Key) {
		return fmt.Errorf("MD5 secret of %d bytes, the kernel takes %d", len(secret), len(sig.Key))
	}
	// struct sockaddr_in: port, address. struct sockaddr_in6: port, flow label, address.
	if peer.Is4() {
		sig.Addr.Family = unix.AF_INET
		a := peer.As4()
		copy(sig.Addr.Data[2:], a[:])
	} else {
		sig.Addr.Family = unix.AF_INET6
		a := peer.As16()
		copy(sig.Addr.Data[6:], a[:])
	}
	sig.Keylen = uint16(copy(sig.Key[:], secret))
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("set MD5 secret for %s: %w", peer, err)
	}
	return nil
}

// Listener waits for the peer to connect.
type Listener struct {
	l *net.TCPListener
	o Options
}

// Listen opens o.Transport.Local on port; 0 lets the kernel choose. The socket
// belongs to the network namespace of the calling thread, and so do the sessions.
func Listen(ctx context.Context, o Options, port uint16) (*Listener, error) {
	l, err := listen(ctx, o.Transport, port)
	if err != nil {
		return nil, err
	}
	return &Listener{l, o}, nil
}

// Addr is the address that peers connect to.
func (l *Listener) Addr() netip.AddrPort { return l.l.Addr().(*net.TCPAddr).AddrPort() }

// Close stops listening; sessions live on.
func (l *Listener) Close() error { return l.l.Close() }

// AcceptConn waits for a connection and sends nothing on it.
func (l *Listener) AcceptConn(ctx context.Context) (*net.TCPConn, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := l.l.AcceptTCP()
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("accept: %w", ctx.Err())
	}
	return c, err
}

// Accept waits for a connection and brings the session up on it.
func (l *Listener) Accept(ctx context.Context) (*Session, error) {
	c, err := l.AcceptConn(ctx)
	if err != nil {
		return nil, err
	}
	return Handshake(ctx, c, l.o)
}
