package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/config"
)

// TCP MD5 (RFC 2385). The kernel checks the signatures, with the key that a socket has for
// the peer's address: a connection inherits it from its listener, or is given it before it
// is made (by GoBGP), and it can be changed while the connection is up.

// setMD5 sets a socket's key for the addresses of a prefix; an empty one removes it.
func setMD5(socket syscall.Conn, p netip.Prefix, key string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(key))}
	copy(sig.Key[:], key)
	if a := p.Addr(); a.Is4() {
		sig.Addr.Family = unix.AF_INET
		ip := a.As4()
		copy(sig.Addr.Data[2:], ip[:]) // struct sockaddr_in: after the port
	} else {
		sig.Addr.Family = unix.AF_INET6
		ip := a.As16()
		copy(sig.Addr.Data[6:], ip[:]) // struct sockaddr_in6: after port and flow label
	}
	if !p.IsSingleIP() {
		sig.Flags, sig.Prefixlen = unix.TCP_MD5SIG_FLAG_PREFIX, uint8(p.Bits())
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG_EXT, &sig)
	}); err != nil {
		return err
	}
	return refused
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// applyKeys brings the keys of the listeners in line with the secrets of peers and ranges.
// A key that the kernel refuses is a warning of its peer. With op held.
func (s *Speaker) applyKeys() {
	want := map[netip.Prefix]string{}
	s.mu.Lock()
	for _, r := range s.ranges {
		if r.secret != "" {
			want[r.Range] = r.secret
		}
	}
	for addr, p := range s.peers {
		// The key of a range is good for its peers; the kernel has room for few.
		if r := s.rangeOf(addr); p.secret != "" && (r == nil || r.secret != p.secret) {
			want[hostPrefix(addr)] = p.secret
		}
	}
	s.mu.Unlock()
	for prefix, key := range want {
		if s.keys[prefix] == key {
			continue
		}
		s.keys[prefix] = key
		err := s.setListeners(prefix, key)
		if err == nil {
			continue
		}
		s.log.Error("the kernel refused a TCP MD5 key", "prefix", prefix, "err", err)
		s.mu.Lock()
		if p := s.peers[prefix.Addr()]; p != nil && prefix.IsSingleIP() {
			p.info.Warning = "the kernel refused the TCP MD5 key: " + err.Error()
		}
		s.mu.Unlock()
	}
	for prefix := range s.keys {
		if _, ok := want[prefix]; ok {
			continue
		}
		delete(s.keys, prefix)
		if err := s.setListeners(prefix, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.Error("the kernel did not remove a TCP MD5 key", "prefix", prefix, "err", err)
		}
	}
}

// setListeners sets the key on the listeners of the prefix's family.
func (s *Speaker) setListeners(prefix netip.Prefix, key string) (err error) {
	for _, l := range s.listeners {
		if local, ok := l.Addr().(*net.TCPAddr); ok && local.AddrPort().Addr().Is4() == prefix.Addr().Is4() {
			err = errors.Join(err, setMD5(l, prefix, key))
		}
	}
	return err
}

// rotate gives a peer another secret. Its session stays, if the other side gets the secret
// before the hold time ends: the kernel drops what is signed with the other one, and sends
// again what was not acknowledged. With op held.
func (s *Speaker) rotate(p *peer, secret string) error {
	addr := p.info.Address
	s.mu.Lock()
	old := p.secret
	p.secret, p.rekeyed = secret, true
	s.mu.Unlock()
	s.applyKeys()
	if !s.inside.setPassword(addr, secret) {
		return fmt.Errorf("bug: GoBGP does not know peer %s", addr)
	}
	s.mu.Lock()
	socket, stale := p.socket, p.stale
	s.mu.Unlock()
	switch {
	case socket != nil:
		err := setMD5(socket, hostPrefix(addr), secret)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			s.mu.Lock()
			p.secret = old // the next reload is to try again
			s.mu.Unlock()
			return fmt.Errorf("change the TCP MD5 key of a connection: %w", err)
		}
		return nil
	case stale: // GoBGP drops what the peer had when it goes to Idle
		return nil
	}
	return s.reconnect(p)
}

// reconnect makes GoBGP forget a secret with which it may still be trying to connect to a
// peer without a session. With op held.
func (s *Speaker) reconnect(p *peer) error {
	s.mu.Lock()
	needed := s.peers[p.info.Address] == p && p.rekeyed && p.socket == nil && !p.stale
	if needed {
		p.rekeyed = false
		needed = !p.down() // which ended the attempts
	}
	s.mu.Unlock()
	if !needed {
		return nil
	}
	if err := s.setAdmin(p, false, DownReason{Cause: "operator", Text: "the secret changed"}); err != nil {
		return err
	}
	return s.setAdmin(p, true, DownReason{})
}

// reconnectLater is reconnect, for the watching goroutine. With mu held.
func (s *Speaker) reconnectLater(p *peer) {
	s.spawn(func() {
		s.op.Lock()
		defer s.op.Unlock()
		if err := s.reconnect(p); err != nil && s.ctx.Err() == nil {
			s.log.Warn("a peer may not be connected to with its new secret", "peer", p.info.Address, "err", err)
		}
	})
}

// addressRange is a range of addresses whose owners become peers when they connect.
type addressRange struct {
	config.DynamicPeers
	secret string
}

// SetRanges says from where peers come that are not named. Passwords are read now; where
// one can't be, nothing changes.
func (s *Speaker) SetRanges(list []config.DynamicPeers) error {
	s.op.Lock()
	defer s.op.Unlock()
	ranges := make([]addressRange, len(list))
	for i, d := range list {
		secret, err := readPassword(d.Like.PasswordFile)
		if err != nil {
			return fmt.Errorf("peers of %s: %w", d.Range, err)
		}
		ranges[i] = addressRange{d, secret}
	}
	s.mu.Lock()
	s.ranges = ranges
	s.mu.Unlock()
	s.applyKeys()
	return nil
}

// rangeOf returns the range that an address is in, or nil. With mu held.
func (s *Speaker) rangeOf(addr netip.Addr) *addressRange {
	for i := range s.ranges {
		if s.ranges[i].Range.Contains(addr) {
			return &s.ranges[i]
		}
	}
	return nil
}
