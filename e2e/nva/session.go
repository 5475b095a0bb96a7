package nva

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options say who the appliance is and what it offers.
type Options struct {
	Transport
	ASN  uint32
	ID   netip.Addr // BGP identifier; needed
	Hold time.Duration
	// Families that are negotiated with the multiprotocol capability.
	Families []Family
	// TwoOctetAS leaves the 4-octet AS capability out, as an old speaker does.
	TwoOctetAS bool
	// NoRouteRefresh leaves the route refresh capability out.
	NoRouteRefresh bool
	GR             *GracefulRestart
	Caps           []Capability // more capabilities, sent last
	// IgnoreUpdates drops the peer's UPDATEs unread: Received stays empty. For who sends
	// a large table and must not spend the machine's time on getting it back.
	IgnoreUpdates bool
	// RawOpen is sent instead of the OPEN that the fields above make.
	RawOpen []byte
	// OnRefresh is called, on the reader's goroutine, when the peer sends a
	// ROUTE-REFRESH. It must not block.
	OnRefresh func(Family)
}

// OpenMessage is the OPEN that o makes.
func (o Options) OpenMessage() Open {
	open := Open{Version: 4, AS: ASTrans, HoldTime: uint16(o.Hold / time.Second), ID: o.ID}
	if o.ASN <= 0xffff {
		open.AS = uint16(o.ASN)
	}
	for _, f := range o.Families {
		open.Caps = append(open.Caps, Multiprotocol(f))
	}
	if !o.NoRouteRefresh {
		open.Caps = append(open.Caps, RouteRefresh())
	}
	if !o.TwoOctetAS {
		open.Caps = append(open.Caps, FourOctetAS(o.ASN))
	}
	if o.GR != nil {
		open.Caps = append(open.Caps, o.GR.Capability())
	}
	open.Caps = append(open.Caps, o.Caps...)
	return open
}

// Session is an established session. Its methods may be called from any goroutine.
type Session struct {
	conn      *net.TCPConn
	opts      Options
	peer      Open
	fourOctet bool
	hold      time.Duration // negotiated; 0: none
	rib       *Received

	silent   atomic.Bool
	writeMu  sync.Mutex // one message at a time on the wire
	stopOnce sync.Once
	stop     chan struct{} // closed when the session ends: the keepalives stop
	done     chan struct{} // closed when both goroutines have returned
	err      error         // why it ended; read after done
}

// ErrClosed is what Err says of a session that this side ended.
var ErrClosed = errors.New("closed by this side")

// Dial connects to o.Remote and returns when the session is Established.
func Dial(ctx context.Context, o Options) (*Session, error) {
	conn, err := Connect(ctx, o.Transport)
	if err != nil {
		return nil, err
	}
	return Handshake(ctx, conn, o)
}

// Handshake exchanges OPEN and KEEPALIVE on a connection, which it closes when that fails.
func Handshake(ctx context.Context, conn *net.TCPConn, o Options) (*Session, error) {
	unblock := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s, err := handshake(conn, o)
	if !unblock() && err == nil {
		err = ctx.Err()
	} else if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("session with %s: %w", conn.RemoteAddr(), err)
	}
	s.start()
	return s, nil
}

func handshake(conn *net.TCPConn, o Options) (*Session, error) {
	open := o.RawOpen
	if open == nil {
		open = o.OpenMessage().Encode()
	}
	if _, err := conn.Write(open); err != nil {
		return nil, fmt.Errorf("send open: %w", err)
	}
	s := &Session{conn: conn, opts: o, rib: newReceived(), stop: make(chan struct{}), done: make(chan struct{})}
	buf := make([]byte, MaxMessage)
	body, err := expect(conn, buf, TypeOpen)
	if err != nil {
		return nil, err
	}
	if s.peer, err = DecodeOpen(body); err != nil {
		return nil, err
	}
	_, peerFour := s.peer.ASN()
	s.fourOctet = peerFour && !o.TwoOctetAS
	s.hold = min(o.Hold, time.Duration(s.peer.HoldTime)*time.Second)
	if _, err := conn.Write(Keepalive()); err != nil {
		return nil, fmt.Errorf("send keepalive: %w", err)
	}
	if _, err := expect(conn, buf, TypeKeepalive); err != nil {
		return nil, err
	}
	return s, nil
}

// expect reads one message, which must be of that type.
func expect(conn *net.TCPConn, buf []byte, want uint8) ([]byte, error) {
	typ, body, err := ReadMessage(conn, buf)
	if err != nil {
		return nil, fmt.Errorf("wait for message type %d: %w", want, err)
	}
	if typ == TypeNotification {
		n, err := DecodeNotification(body)
		if err != nil {
			return nil, err
		}
		return nil, n
	}
	if typ != want {
		return nil, fmt.Errorf("message type %d instead of %d", typ, want)
	}
	return body, nil
}

func (s *Session) start() {
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		s.err = s.read()
		s.end()
	}()
	go func() {
		defer wg.Done()
		s.keepalives()
	}()
	go func() {
		wg.Wait()
		s.rib.end(s.err)
		close(s.done)
	}()
}

// end closes the connection and tells the goroutines so.
func (s *Session) end() {
	s.stopOnce.Do(func() {
		close(s.stop)
		_ = s.conn.Close()
	})
}

// stopping tells whether this side has ended the session.
func (s *Session) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// read takes messages in until the session ends, and says why it did.
func (s *Session) read() error {
	buf := make([]byte, MaxMessage)
	r := bufio.NewReaderSize(s.conn, 1<<16)
	for {
		if s.hold > 0 && !s.silent.Load() {
			_ = s.conn.SetReadDeadline(time.Now().Add(s.hold))
		}
		typ, body, err := ReadMessage(r, buf)
		switch {
		case s.silent.Load():
			<-s.stop // the connection stays open, unread, until Close or Reset
			return ErrClosed
		case err != nil && s.stopping():
			return ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = s.Write(Notification{Code: 4}.Encode())
			return fmt.Errorf("nothing heard for the hold time of %s", s.hold)
		case err != nil:
			return err
		}
		switch typ {
		case TypeUpdate:
			if s.opts.IgnoreUpdates {
				continue
			}
			u, err := DecodeUpdate(body, s.fourOctet)
			if err != nil {
				return err
			}
			s.rib.update(u)
		case TypeNotification:
			n, err := DecodeNotification(body)
			if err != nil {
				return err
			}
			return n
		case TypeRouteRefresh:
			if len(body) == 4 && s.opts.OnRefresh != nil {
				s.opts.OnRefresh(Family(uint16(body[0])<<8 | uint16(body[1])))
			}
			s.rib.refresh()
		}
	}
}

// keepalives sends one every third of the hold time (RFC 4271 section 4.4).
func (s *Session) keepalives() {
	if s.hold == 0 {
		<-s.stop
		return
	}
	tick := time.NewTicker(s.hold / 3)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if !s.silent.Load() {
				_ = s.Write(Keepalive()) // an error shows in read
			}
		}
	}
}

// Peer is the OPEN that the peer sent.
func (s *Session) Peer() Open { return s.peer }

// Hold is the negotiated hold time; 0: none.
func (s *Session) Hold() time.Duration { return s.hold }

// LocalAddr is this side's address.
func (s *Session) LocalAddr() netip.Addr {
	return s.conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// Received is what the peer has sent, kept up to date.
func (s *Session) Received() *Received { return s.rib }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session ended: a Notification when the peer sent one, ErrClosed
// when this side ended it, io.EOF when the peer just closed. It waits for Done.
func (s *Session) Err() error {
	<-s.done
	return s.err
}

// Write sends bytes as they are. It blocks when the peer does not read.
func (s *Session) Write(b []byte) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	_, err := s.conn.Write(b)
	return err
}

// Encode makes the UPDATEs of Announce without sending them: for what must go out
// at full speed, or be sent again.
func (s *Session) Encode(prefixes []netip.Prefix, a Attrs) []byte {
	if !a.NextHop.IsValid() {
		a.NextHop = s.LocalAddr()
	}
	return EncodeAnnounce(prefixes, a, s.fourOctet)
}

// Announce sends prefixes of one family with the same attributes. The next hop is
// this side's address unless a names one.
func (s *Session) Announce(a Attrs, prefixes ...netip.Prefix) error {
	return s.Write(s.Encode(prefixes, a))
}

// Withdraw takes prefixes of one family back.
func (s *Session) Withdraw(prefixes ...netip.Prefix) error {
	return s.Write(EncodeWithdraw(prefixes))
}

// EndOfRIB says that the initial announcements of a family are complete.
func (s *Session) EndOfRIB(f Family) error { return s.Write(EndOfRIB(f)) }

// Close ends the session with a FIN and no word (what a killed process leaves).
func (s *Session) Close() {
	s.end()
	<-s.done
}

// Reset ends the session with a RST: unsent data is dropped (SO_LINGER 0).
func (s *Session) Reset() {
	_ = s.conn.SetLinger(0)
	s.Close()
}

// Notify ends the session with a NOTIFICATION.
func (s *Session) Notify(code, subcode uint8, data []byte) {
	_ = s.Write(Notification{code, subcode, data}.Encode()) // the session ends either way
	s.Close()
}

// Silence stops reading and sending, keepalives too, and keeps the connection open:
// a hung appliance, which only the peer's hold timer finds out. Close or Reset ends it.
func (s *Session) Silence() {
	s.silent.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}

// Offered is what this side offered.
func (s *Session) Offered() Options { return s.opts }
