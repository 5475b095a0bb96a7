package bfd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	portSingleHop = 3784 // RFC 5881 section 4
	portMultihop  = 4784 // RFC 5883 section 5
	// The source ports of a session's packets (RFC 5881 section 4).
	firstPort, lastPort = 49152, 65535

	// receiveBuffer holds half a second of a flood of 10,000 packets a second: the
	// kernel charges 768 bytes for each.
	receiveBuffer = 4 << 20

	// What routing protocols mark their packets with (RFC 4271 appendix E), and the
	// highest class of the queues of an interface that a process may ask for.
	tosControl      = 0xc0
	priorityControl = 6
)

// receiver is a socket that receives all packets of a family and a port.
type receiver struct {
	fd       int
	v6       bool
	multihop bool
	// emptyAt is a moment at which the queue held nothing: what is read later came
	// later.
	emptyAt time.Duration
}

func family(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func port(multihop bool) int {
	if multihop {
		return portMultihop
	}
	return portSingleHop
}

// openReceiver binds to the wildcard address: a session whose address comes later must
// not fail now. It does not share the port: two BFD speakers on one host would steal
// each other's packets.
func openReceiver(v6, multihop bool) (_ *receiver, err error) {
	fd, err := unix.Socket(family(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	options := [][2]int{{unix.IPPROTO_IP, unix.IP_RECVTTL}, {unix.IPPROTO_IP, unix.IP_PKTINFO}}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: port(multihop)}
	if v6 {
		options = [][2]int{{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}}
		sa = &unix.SockaddrInet6{Port: port(multihop)}
	}
	options = append(options, [2]int{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS})
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
			return nil, fmt.Errorf("set up UDP socket: level %d option %d: %w", o[0], o[1], err)
		}
	}
	// Over the system's limit only with CAP_NET_ADMIN; else as much as it allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.Bind(fd, sa); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("bind UDP port %d: %w; does another BFD daemon run on this host?", port(multihop), err)
		}
		return nil, fmt.Errorf("bind UDP port %d: %w", port(multihop), err)
	}
	return &receiver{fd: fd, v6: v6, multihop: multihop}, nil
}

// setFilter installs the filter for the sources, or none where it cannot be: no memory,
// or too many sources. Then the engine's own checks do its work.
func (r *receiver) setFilter(sources []source) {
	prog := filter(sources, r.v6)
	if prog != nil {
		fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
		if unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog) == nil {
			return
		}
	}
	// The old one would drop a new session's packets; ENOENT says that there is none.
	_ = unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// drops reads how many packets the filter refused or the queue had no room for.
func (r *receiver) drops() uint64 {
	const skMeminfoDrops = 8 // linux/sock_diag.h
	var info [skMeminfoDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[skMeminfoDrops])
}

// sender is a connected socket that sends one session's packets. Nothing is received
// there but errors: the peer answers to the well-known port.
type sender struct {
	fd      int
	ifindex int // 0: any
}

// openSender opens a socket with the source port, or with err EADDRINUSE if another
// process has it.
func openSender(c *Config, sourcePort uint16) (_ *sender, err error) {
	s := &sender{}
	if c.Interface != "" {
		link, err := net.InterfaceByName(c.Interface)
		if err != nil {
			return nil, fmt.Errorf("find interface %s: %w", c.Interface, err)
		}
		s.ifindex = link.Index
	}
	v6 := c.Peer.Is6()
	if s.fd, err = unix.Socket(family(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP); err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	options := [][3]int{
		{unix.IPPROTO_IP, unix.IP_TTL, 255}, // RFC 5881 section 5; for several hops, the peer's minimum counts from it
		{unix.IPPROTO_IP, unix.IP_TOS, tosControl},
	}
	if v6 {
		options = [][3]int{{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tosControl}}
	}
	options = append(options, [3]int{unix.SOL_SOCKET, unix.SO_PRIORITY, priorityControl})
	for _, o := range options {
		if err := unix.SetsockoptInt(s.fd, o[0], o[1], o[2]); err != nil {
			return nil, fmt.Errorf("set up UDP socket: level %d option %d: %w", o[0], o[1], err)
		}
	}
	if c.Interface != "" {
		if err := unix.BindToDevice(s.fd, c.Interface); err != nil {
			return nil, fmt.Errorf("bind to interface %s: %w", c.Interface, err)
		}
	}
	local := c.Local
	if !local.IsValid() {
		local = netip.IPv4Unspecified()
		if v6 {
			local = netip.IPv6Unspecified()
		}
	}
	if err := unix.Bind(s.fd, sockaddr(local, sourcePort, s.ifindex)); err != nil {
		return nil, fmt.Errorf("bind %s: %w", local, err)
	}
	if err := unix.Connect(s.fd, sockaddr(c.Peer, uint16(port(c.Multihop)), s.ifindex)); err != nil {
		return nil, fmt.Errorf("connect %s: %w", c.Peer, err)
	}
	return s, nil
}

func sockaddr(a netip.Addr, port uint16, ifindex int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	sa := &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
	if a.IsLinkLocalUnicast() {
		sa.ZoneId = uint32(ifindex)
	}
	return sa
}

func (s *sender) close() { _ = unix.Close(s.fd) }

// send sends one packet and waits for nothing.
func (s *sender) send(b []byte) error {
	err := s.write(b)
	if err == unix.ECONNREFUSED {
		// An ICMP error for the packet before, reported in place of sending this one.
		err = s.write(b)
	}
	return err
}

func (s *sender) write(b []byte) error {
	// RawSyscall: it does not block, and the thread must keep its P, which the Go
	// scheduler may be late to give back.
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}

// ports hands out source ports, each to one session (RFC 5881 section 4).
type ports map[uint16]bool

// take returns a random free port, marked as taken.
func (p ports) take() (uint16, error) {
	const n = lastPort - firstPort + 1
	if len(p) >= n {
		return 0, errors.New("all source ports are taken")
	}
	for {
		port := uint16(firstPort + rand.IntN(n))
		if !p[port] {
			p[port] = true
			return port, nil
		}
	}
}

// openWithPort opens a sender with a port that neither another session nor another
// process has.
func (p ports) openWithPort(c *Config) (*sender, uint16, error) {
	for try := 0; ; try++ {
		port, err := p.take()
		if err != nil {
			return nil, 0, err
		}
		s, err := openSender(c, port)
		if err == nil {
			return s, port, nil
		}
		delete(p, port)
		if !errors.Is(err, unix.EADDRINUSE) || try == 100 {
			return nil, 0, err
		}
	}
}
