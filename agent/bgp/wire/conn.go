package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// bufferSize is per session; a message takes its own length besides, while it is read.
	bufferSize = 16 << 10
	// refreshEvery bounds how often a peer may ask for our table anew: GoBGP walks all of
	// it for every ROUTE-REFRESH, and queues it without bound.
	refreshEvery = time.Second
)

// Socket is the connection of a session.
type Socket interface {
	net.Conn
	syscall.Conn
}

// Options of a Conn.
type Options struct {
	Session Session
	// Reset ends the session with a NOTIFICATION. It is called once, by Read, which
	// returns nothing more until the connection is closed.
	Reset func(f Fault)
	// Report hears of every faulty message, a reset's included, from within Read.
	Report func(f Fault)
	// SendHold is how long the peer may take to make room for a message (RFC 9687).
	// GoBGP waits for ever, and queues what is to be sent meanwhile.
	SendHold time.Duration
	// Refused: the session is to end without a word but the NOTIFICATION. Nothing of the
	// peer comes through, and nothing else goes to it.
	Refused bool
	// Lost hears of announcements that became too long with what was added to them, from
	// within Write.
	Lost func(prefixes int)
}

// Conn gives GoBGP what is left of a peer's messages after they were judged, and the peer
// what becomes of ours. One goroutine may read; any may write.
type Conn struct {
	Socket
	o   Options
	in  *bufio.Reader
	msg []byte // of the message being read: capacity only grows
	out []byte // judged, and not yet taken
	own []byte // what out is cut from

	dead    bool         // a reset was asked for
	refresh [2]time.Time // when a ROUTE-REFRESH was last passed, for IPv4 and IPv6

	writing sync.Mutex // guards the two below; held while the socket takes them
	part    []byte     // of a message whose end was not written yet
	sent    []byte     // what goes out: capacity only grows

	mu       sync.Mutex
	deadline bool          // GoBGP set a deadline for writing
	wake     chan struct{} // closed when reading is to end
	woken    bool
}

// NewConn reads from a socket of which nothing was read since the session came up.
func NewConn(s Socket, o Options) *Conn {
	return &Conn{Socket: s, o: o, in: bufio.NewReaderSize(s, bufferSize), wake: make(chan struct{}), dead: o.Refused}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	for len(c.out) == 0 {
		if c.dead {
			// What still comes has no meaning; the error at the end has.
			if _, err := c.in.Discard(max(c.in.Buffered(), 1)); err != nil {
				return 0, err
			}
			continue
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

// next reads one message and judges it.
func (c *Conn) next() error {
	c.msg = grow(c.msg, headerLen)
	if _, err := io.ReadFull(c.in, c.msg); err != nil {
		return err
	}
	n, f := c.o.Session.header(c.msg)
	if f.Reaction != None {
		c.judge(f)
		return nil
	}
	typ := c.msg[18]
	c.msg = grow(c.msg, headerLen+n)
	body := c.msg[headerLen:]
	if _, err := io.ReadFull(c.in, body); err != nil {
		return err
	}
	switch typ {
	case typeUpdate:
		c.own, f = c.o.Session.Update(c.own[:0], body)
		c.out = c.own
		c.judge(f)
	case typeRefresh:
		c.limitRefresh(body)
		c.out = c.msg
	default:
		c.out = c.msg
	}
	return nil
}

// grow returns a slice of n octets that begins with b's.
func grow(b []byte, n int) []byte {
	if n <= cap(b) {
		return b[:n]
	}
	g := make([]byte, n)
	copy(g, b)
	return g
}

func (c *Conn) judge(f Fault) {
	if f.Reaction == None {
		return
	}
	c.o.Report(f)
	if f.Reaction == Reset {
		c.out, c.dead = nil, true
		c.o.Reset(f)
	}
}

// limitRefresh waits until the peer may ask for its table again. Nothing of the peer is
// read meanwhile, so the flood stays in its own queue and costs its own hold time.
func (c *Conn) limitRefresh(body []byte) {
	last := &c.refresh[body[1]&1]
	if wait := refreshEvery - time.Since(*last); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.wake:
		}
	}
	*last = time.Now()
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if !c.deadline && c.o.SendHold > 0 {
		_ = c.Socket.SetWriteDeadline(time.Now().Add(c.o.SendHold)) // closed: Write says so
	}
	c.mu.Unlock()
	if r := c.o.Session.Relation; !r.Above && !r.Below && !c.o.Refused {
		return c.Socket.Write(b)
	}
	return c.rewrite(b)
}

// rewrite sends what becomes of the messages in b, which need not end where it does.
func (c *Conn) rewrite(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	rest := b
	if len(c.part) > 0 {
		c.part = append(c.part, b...)
		rest = c.part
	}
	c.sent = c.sent[:0]
	for len(rest) >= headerLen {
		n := int(binary.BigEndian.Uint16(rest[16:]))
		if n < headerLen {
			return 0, fmt.Errorf("bug: a message of %d octets is to be sent", n)
		}
		if n > len(rest) {
			break
		}
		c.outgoing(rest[:n])
		rest = rest[n:]
	}
	c.part = append(c.part[:0], rest...) // also where rest is its end
	if len(c.sent) > 0 {
		if _, err := c.Socket.Write(c.sent); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// outgoing adds what becomes of one message to what is sent.
func (c *Conn) outgoing(message []byte) {
	switch typ := message[18]; {
	case c.o.Refused && typ != typeNotification:
	case typ == typeUpdate && len(message) >= headerLen+4:
		var lost int
		if c.sent, lost = c.o.Session.Outgoing(c.sent, message); lost > 0 {
			c.o.Lost(lost)
		}
	default:
		c.sent = append(c.sent, message...)
	}
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = !t.IsZero()
	return c.Socket.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn. GoBGP sets one to end the reading goroutine.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		c.endWait()
	}
	return c.Socket.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.endWait()
	return c.Socket.Close()
}

func (c *Conn) endWait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.woken {
		c.woken = true
		close(c.wake)
	}
}
