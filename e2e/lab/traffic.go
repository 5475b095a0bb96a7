package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Packets of the traffic: a magic word, the flow, the sequence number.
const (
	trafficMagic = 0x6e686c74
	trafficLen   = 16
)

// TrafficConfig says what is sent from where to where.
type TrafficConfig struct {
	From *Node
	To   *Node
	// In is the receiver's interface that packets arrive on.
	In  *Iface
	Dst netip.Addr // an address of To
	// Dsts, where not empty, are the destinations of the flows in turn, all of one
	// family and local to To; Dst is not used.
	Dsts []netip.Addr
	Port uint16 // UDP; 9 when 0
	// Flows differ in their source port, so that layer-4 hashing spreads them. 8 when 0.
	Flows int
	// Rate is in packets per second and flow. 1000 when 0.
	Rate int
	// Via names the appliances by the interface they send to the receiver with:
	// every received packet's source MAC tells which of them it passed.
	Via []*Iface
}

// Traffic is a running set of UDP flows.
type Traffic struct {
	cfg    TrafficConfig
	conns  []net.Conn   // per flow
	sink   *net.UDPConn // keeps the port open, else ICMP errors come back
	packet *os.File     // AF_PACKET socket on cfg.In
	raw    syscall.RawConn
	cancel context.CancelFunc
	sender sync.WaitGroup
	wg     sync.WaitGroup // receiver

	mu    sync.Mutex // guards the rest, and the reading of packet
	buf   [2048]byte
	flows []flow
	via   map[[6]byte]uint8 // source MAC to index in names
	names []string          // names[0] is of no appliance: lost
}

// StartTraffic starts sending. Loss is judged by sequence numbers and the times of
// sending, so that a slow receiver is not taken for an interruption.
func StartTraffic(c TrafficConfig) (*Traffic, error) {
	if c.Port == 0 {
		c.Port = 9
	}
	if c.Flows == 0 {
		c.Flows = 8
	}
	if c.Rate == 0 {
		c.Rate = 1000
	}
	if len(c.Dsts) == 0 {
		c.Dsts = []netip.Addr{c.Dst}
	}
	t := &Traffic{cfg: c, flows: make([]flow, c.Flows), via: map[[6]byte]uint8{}, names: []string{""}}
	for _, i := range c.Via {
		t.via[[6]byte(i.MAC)] = uint8(len(t.names))
		t.names = append(t.names, i.node.Name)
	}
	if err := errors.Join(c.To.Do(t.openReceiver), c.From.Do(t.openSender)); err != nil {
		t.closeSockets()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.wg.Go(t.receive)
	t.sender.Go(func() { t.send(ctx) })
	return t, nil
}

func (t *Traffic) openReceiver() error {
	var err error
	addr := netip.AddrPortFrom(t.cfg.Dsts[0], t.cfg.Port)
	if len(t.cfg.Dsts) > 1 {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), t.cfg.Port) // both families
	}
	if t.sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
		return err
	}
	_ = t.sink.SetReadBuffer(1) // nobody reads it: let the kernel drop early
	link, err := net.InterfaceByName(t.cfg.In.Name)
	if err != nil {
		return err
	}
	proto := uint16(unix.ETH_P_IP)
	if t.cfg.Dsts[0].Is6() {
		proto = unix.ETH_P_IPV6
	}
	be := proto<<8 | proto>>8
	// A packet socket, because the source MAC tells which appliance a packet passed.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	t.packet = os.NewFile(uintptr(fd), "packet socket")
	if t.raw, err = t.packet.SyscallConn(); err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return fmt.Errorf("packet socket: receive buffer: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: be, Ifindex: link.Index}); err != nil {
		return fmt.Errorf("packet socket: bind to %s: %w", t.cfg.In.Name, err)
	}
	return nil
}

func (t *Traffic) openSender() error {
	for i := range t.cfg.Flows {
		dst := t.cfg.Dsts[i%len(t.cfg.Dsts)]
		// The kernel's choice of source ports is as good a spread as any.
		c, err := net.Dial("udp", netip.AddrPortFrom(dst, t.cfg.Port).String())
		if err != nil {
			return err
		}
		t.conns = append(t.conns, c)
	}
	return nil
}

// maxBurst is how many packets one tick sends at the most: more, after the machine let
// nobody run for a while, would overrun the kernel's queues, and count as lost.
const maxBurst = 200

// send sends what is due every millisecond, the flows in turn, so that there is always
// some packet under way; after a late tick it catches up, within limits.
func (t *Traffic) send(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begun, skipped := time.Now(), 0
	buf := make([]byte, trafficLen)
	binary.BigEndian.PutUint32(buf, trafficMagic)
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := int(time.Since(begun).Seconds()*float64(t.cfg.Rate*len(t.conns))) - skipped
		if late := due - n - maxBurst; late > 0 {
			skipped, due = skipped+late, due-late
		}
		for ; n < due; n++ {
			i := n % len(t.conns)
			t.mu.Lock()
			f := &t.flows[i]
			seq := len(f.sent)
			f.sent, f.via = append(f.sent, time.Now()), append(f.via, 0)
			t.mu.Unlock()
			binary.BigEndian.PutUint32(buf[4:], uint32(i))
			binary.BigEndian.PutUint64(buf[8:], uint64(seq))
			_, _ = t.conns[i].Write(buf) // what the kernel refuses (no route, say) is lost, and counts so
		}
	}
}

// receive reads the packet socket until it is closed.
func (t *Traffic) receive() {
	_ = t.raw.Read(func(fd uintptr) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.drain(int(fd))
		return false // wait for more
	})
}

// drain takes in what the packet socket holds. t.mu is held.
func (t *Traffic) drain(fd int) {
	for {
		n, from, err := unix.Recvfrom(fd, t.buf[:], 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBADF) {
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok || ll.Pkttype != unix.PACKET_HOST {
			continue // ENETDOWN while the interface is down; a frame that the segment floods
		}
		t.count(t.buf[:n], [6]byte(ll.Addr[:6]))
	}
}

// count takes one IP packet in. t.mu is held.
func (t *Traffic) count(packet []byte, mac [6]byte) {
	header := 40
	if t.cfg.Dsts[0].Is4() {
		if len(packet) == 0 {
			return
		}
		header = int(packet[0]&0xf) * 4
	}
	if len(packet) < header+8+trafficLen {
		return
	}
	payload := packet[header+8:]
	if binary.BigEndian.Uint32(payload) != trafficMagic ||
		binary.BigEndian.Uint16(packet[header+2:]) != t.cfg.Port {
		return
	}
	id, seq := binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint64(payload[8:])
	if int(id) >= len(t.flows) || seq >= uint64(len(t.flows[id].sent)) {
		return // of an earlier Traffic
	}
	via, ok := t.via[mac]
	if !ok { // past the appliances
		via = uint8(len(t.names))
		t.via[mac] = via
		t.names = append(t.names, net.HardwareAddr(mac[:]).String())
	}
	f := &t.flows[id]
	if f.via[seq] != 0 {
		f.duplicates++
		return
	}
	f.via[seq] = via
}

func (t *Traffic) closeSockets() {
	for _, c := range t.conns {
		_ = c.Close()
	}
	if t.sink != nil {
		_ = t.sink.Close()
	}
	if t.packet != nil {
		_ = t.packet.Close()
	}
}

// inFlight is how long a packet may take before it counts as lost. On a busy machine the
// kernel forwards from a thread of its own, which has to wait for its turn.
const inFlight = 400 * time.Millisecond

// Stop stops sending, gives the last packets time to arrive, and reports on all.
func (t *Traffic) Stop() Report {
	t.cancel()
	t.sender.Wait() // what it sends past its end would count as lost
	end := time.Now()
	for t.report(time.Time{}, end).Lost() > 0 && time.Since(end) < 2*inFlight {
		time.Sleep(5 * time.Millisecond)
	}
	r := t.report(time.Time{}, time.Now())
	t.closeSockets()
	t.wg.Wait()
	return r
}

// Report tells how the packets fared that were sent since a time, without those that
// may still be on their way. The zero time means all.
func (t *Traffic) Report(since time.Time) Report {
	return t.report(since, time.Now().Add(-inFlight))
}

func (t *Traffic) report(from, to time.Time) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	// What has arrived has not been lost, though the receiver may not have had its turn.
	_ = t.raw.Control(func(fd uintptr) { t.drain(int(fd)) })
	r := Report{LastVia: map[string]time.Time{}}
	for _, f := range t.flows {
		fr := f.report(from, to, t.names, r.LastVia)
		if at := fr.firstLost; r.FirstLost.IsZero() || !at.IsZero() && at.Before(r.FirstLost) {
			r.FirstLost = at
		}
		if fr.lastLost.After(r.LastLost) {
			r.LastLost = fr.lastLost
		}
		r.Flows = append(r.Flows, fr)
	}
	return r
}
