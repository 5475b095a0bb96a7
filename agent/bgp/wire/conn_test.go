package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// ends are the two ends of a connection.
func ends(t *testing.T) (ours, peers *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); a.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

func options() Options {
	return Options{Session: both, Report: func(Fault) {}, Reset: func(Fault) {}}
}

func message(body []byte) []byte { return finish(append(appendHeader(nil, typeUpdate), body...), 0) }

// Messages come through in order and whole, however they are cut on either side.
func TestConnReads(t *testing.T) {
	ours, peers := ends(t)
	c := NewConn(ours, options())
	clean := message(body(t, q4, good, p4))
	send := bytes.Join([][]byte{appendKeepalive(nil), clean, message(body(t, "", good+"40 05 04 00000001", p4)), appendKeepalive(nil)}, nil)
	want := bytes.Join([][]byte{appendKeepalive(nil), clean, message(body(t, "", good, p4)), appendKeepalive(nil)}, nil)
	go func() {
		for _, b := range send {
			_, _ = peers.Write([]byte{b})
		}
		_ = peers.CloseWrite()
	}()
	var got []byte
	buf := make([]byte, 7)
	for {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("read\n%x, want\n%x", got, want)
	}
}

// After a reset nothing of the peer comes through, and the end of the connection does.
func TestConnReset(t *testing.T) {
	ours, peers := ends(t)
	o := options()
	var reported, reset []Fault
	o.Report = func(f Fault) { reported = append(reported, f) }
	o.Reset = func(f Fault) { reset = append(reset, f) }
	c := NewConn(ours, o)
	bad := finish(appendHeader(nil, 99), 0)
	_, _ = peers.Write(bytes.Join([][]byte{appendKeepalive(nil), bad, bad, appendKeepalive(nil)}, nil))
	_ = peers.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, appendKeepalive(nil)) {
		t.Errorf("read %x, %v; want the KEEPALIVE before the reset", got, err)
	}
	if len(reset) != 1 || len(reported) != 1 || reset[0].Code != codeHeader || reset[0].Subcode != badType {
		t.Errorf("reset %+v, reported %+v; want one of 1/3", reset, reported)
	}
}

// The second ROUTE-REFRESH of a family waits, one of the other does not; closing and
// GoBGP's read deadline end the wait.
func TestRefreshIsPaced(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(*Conn)
	}{{"time", func(*Conn) {}}, {"close", func(c *Conn) { c.Close() }}, {"deadline", func(c *Conn) { c.SetReadDeadline(time.Now()) }}} {
		t.Run(end.name, func(t *testing.T) {
			ours, peers := ends(t)
			c := NewConn(ours, options())
			refresh := func(afi byte) []byte { return finish(append(appendHeader(nil, typeRefresh), 0, afi, 0, 1), 0) }
			_, _ = peers.Write(bytes.Join([][]byte{refresh(1), refresh(2), refresh(1)}, nil))
			start := time.Now()
			buf := make([]byte, 23)
			for range 2 {
				if _, err := io.ReadFull(c, buf); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan time.Duration, 1)
			go func() {
				_, _ = io.ReadFull(c, buf)
				done <- time.Since(start)
			}()
			end.end(c)
			took := <-done
			if end.name == "time" && took < refreshEvery {
				t.Errorf("three ROUTE-REFRESHes within %v", took)
			}
		})
	}
}

// RFC 9687: a peer that reads nothing makes the write fail, in time; a deadline that
// GoBGP sets counts instead.
func TestSendHold(t *testing.T) {
	ours, _ := ends(t)
	o := options()
	o.SendHold = 50 * time.Millisecond
	c := NewConn(ours, o)
	message := make([]byte, 64<<10)
	var sent atomic.Int64
	var err error
	for err == nil && sent.Load() < 1<<30 {
		_, err = c.Write(message)
		sent.Add(1 << 16)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after %d octets: %v, want a deadline error", sent.Load(), err)
	}
	if err := c.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(message); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write past GoBGP's deadline: %v", err)
	}
}

var _ Socket = (*net.TCPConn)(nil)
var _ syscall.Conn = (*Conn)(nil)
