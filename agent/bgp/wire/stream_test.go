package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// stream is a socket that a peer wrote so many octets to.
type stream struct {
	*net.TCPConn // nothing else of it is asked for
	in           *bytes.Reader
}

func (s stream) Read(b []byte) (int, error)      { return s.in.Read(b) }
func (s stream) SetReadDeadline(time.Time) error { return nil }

// FuzzStream: whatever a peer writes, what is passed on are whole messages with good
// headers; a session is reset once at most, and nothing is passed on afterwards.
func FuzzStream(f *testing.F) {
	refresh := finish(append(appendHeader(nil, typeRefresh), 0, 1, 0, 1), 0)
	update := message(body(f, "", good, p4))
	f.Add(bytes.Join([][]byte{appendKeepalive(nil), update, refresh, refresh, update}, nil), uint8(3))
	f.Add(append(update, bytes.Repeat([]byte{0xff}, headerLen)...), uint8(7))
	f.Add(message(body(f, "", reach6+origin+path, ""))[:30], uint8(19))
	f.Add(finish(append(appendHeader(nil, typeNotification), 6, 2), 0), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, flags uint8) {
		s := Session{IPv4: flags&1 != 0, IPv6: flags&2 != 0, TwoByteAS: flags&4 != 0, ExtendedNextHop: flags&8 != 0, ExtendedMessage: flags&16 != 0}
		resets := 0
		c := NewConn(stream{in: bytes.NewReader(in)}, Options{Session: s, Report: func(Fault) {}, Reset: func(fault Fault) {
			if resets++; fault.Reaction != Reset || fault.Code == 0 || fault.Subcode == 0 {
				t.Errorf("reset with %+v", fault)
			}
		}})
		if err := c.SetReadDeadline(time.Now()); err != nil { // so that no ROUTE-REFRESH waits
			t.Fatal(err)
		}
		out, err := io.ReadAll(c)
		if resets > 1 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d resets, %v", resets, err)
		}
		for rest := out; len(rest) > 0; {
			if len(rest) < headerLen {
				t.Fatalf("passed on %x", rest)
			}
			// What was judged may be longer than what came: attributes are written anew.
			n, bad := Session{ExtendedMessage: true}.header(rest[:headerLen])
			if bad.Reaction != None || headerLen+n > len(rest) {
				t.Fatalf("passed on a message of %d octets, %s", n, bad.Text)
			}
			rest = rest[headerLen+n:]
		}
	})
}
