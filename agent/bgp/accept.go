package bgp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/bgp/wire"
	"github.com/nexthopd/nexthopd/agent/journal"
)

// The listeners are ours, and GoBGP is given the connections of peers alone, through the
// channel that its own listeners would use (docs/adr/0021). Whatever is to happen to a
// connection before GoBGP has it, happens in admit.

const (
	// acceptPause is how long nothing is accepted after it failed, as without a free file
	// descriptor.
	acceptPause = 100 * time.Millisecond
	// mostAsked bounds the connections of no peer whose OPEN is waited for. Each address has
	// one at most.
	mostAsked = 64
	// refusedEvery bounds how often connections that are refused are told of, for each reason.
	refusedEvery = 10 * time.Second
)

// listen opens the listeners. The error is a *ListenError.
func (s *Speaker) listen() error {
	for _, at := range s.opts.Listen {
		if at.Addr().Is6() && at.Addr().IsUnspecified() && len(s.opts.Listen) > 1 && !hasIPv6() {
			continue // ipv6.disable=1
		}
		l, err := listenOne(at)
		if err != nil {
			s.closeListeners()
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

func listenOne(at netip.AddrPort) (*net.TCPListener, error) {
	network, level, option := "tcp4", unix.IPPROTO_IP, unix.IP_TTL
	if at.Addr().Is6() {
		network, level, option = "tcp6", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	c := net.ListenConfig{
		KeepAlive: -1, // BGP has its own
		// A peer with GTSM expects 255 in the answer to its SYN already.
		Control: func(_, _ string, raw syscall.RawConn) error {
			var refused error
			if err := raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), level, option, 255) }); err != nil {
				return err
			}
			return refused
		},
	}
	c.SetMultipathTCP(false) // knows no MD5
	l, err := c.Listen(context.Background(), network, net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(at.Port()))))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, &ListenError{Address: at, Err: err}
	}
	return l.(*net.TCPListener), nil
}

func hasIPv6() bool {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	syscall.Close(fd)
	return true
}

func (s *Speaker) closeListeners() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// acceptLoop takes the connections of one listener until it is closed.
func (s *Speaker) acceptLoop(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			s.admit(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.log.Warn("cannot accept connections for the moment", "local", l.Addr().String(), "err", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(acceptPause):
			}
		}
	}
}

// admit gives GoBGP a connection of a peer, and closes any other before anything is read
// from it; but for one from a range that has a list of ASNs.
func (s *Speaker) admit(conn *net.TCPConn) {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		conn.Close()
		return
	}
	addr := remote.AddrPort().Addr().Unmap()
	s.mu.Lock()
	known := s.peers[addr] != nil
	r := s.rangeOf(addr)
	expected := known || r != nil
	within := expected && s.connections.allow(addr, time.Now())
	asks := within && !known && r.Like.ASN == 0
	room := asks && s.ctx.Err() == nil && len(s.asked) < mostAsked && !s.asked[addr]
	if room {
		s.asked[addr] = true
		s.spawn(func() { s.ask(conn, addr) })
	}
	s.mu.Unlock()
	switch {
	case !expected:
		s.refuse(conn, addr, RefusedStranger)
	case !within:
		_ = conn.SetLinger(0) // nothing is kept of it in the kernel either
		s.refuse(conn, addr, RefusedRate)
	case known:
		select {
		case s.accepted <- conn:
		case <-s.ctx.Done():
			conn.Close()
		}
	case room:
	case asks:
		s.refuse(conn, addr, RefusedOpen)
	default:
		conn.Close()
		s.stranger(addr, 0)
	}
}

// ask reads the OPEN of somebody of a range who is no peer yet, for the ASN. What comes of
// it is a peer for the next connection, for GoBGP is not ready for this one.
func (s *Speaker) ask(conn *net.TCPConn, addr netip.Addr) {
	defer context.AfterFunc(s.ctx, func() { conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(s.openTimeout)) // closed: to read says so
	asn, err := wire.ReadOpenASN(conn)
	s.mu.Lock()
	delete(s.asked, addr)
	r := s.rangeOf(addr)
	allowed := false
	if err == nil && r != nil {
		asn, allowed = r.ASN(asn)
	}
	s.mu.Unlock()
	switch {
	case allowed:
		conn.Close()
		s.stranger(addr, asn)
	case err != nil:
		s.refuse(conn, addr, RefusedOpen)
	default:
		_, _ = conn.Write(wire.BadPeerAS()) // it is told why, if it is there still
		s.refuse(conn, addr, RefusedASN)
	}
}

func (s *Speaker) stranger(addr netip.Addr, asn uint32) {
	if s.opts.OnStranger != nil {
		s.opts.OnStranger(addr, asn)
	}
}

// refuse closes a connection, and has it told.
func (s *Speaker) refuse(conn *net.TCPConn, addr netip.Addr, why Refusal) {
	conn.Close()
	now := time.Now()
	s.mu.Lock()
	tell := now.Sub(s.refused[why]) >= refusedEvery
	if tell {
		s.refused[why] = now
	}
	s.mu.Unlock()
	if s.opts.OnRefused != nil {
		s.opts.OnRefused(why)
	}
	switch {
	case !tell:
	case why == RefusedStranger:
		s.log.Info("closed a connection from an address that is no peer", "address", addr)
	default:
		journal.Log(s.log, journal.ConnectionRefused, slog.String("address", addr.String()), slog.String("reason", string(why)))
	}
}
