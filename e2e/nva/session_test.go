package nva

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var loopback = netip.MustParseAddr("127.0.0.1")

// options of a speaker on the loopback.
func options(asn uint32) Options {
	return Options{
		Transport: Transport{Local: loopback, Remote: netip.AddrPortFrom(loopback, 0)},
		ASN:       asn, ID: netip.AddrFrom4([4]byte{10, 0, 0, byte(asn)}), Hold: 90 * time.Second,
		Families: []Family{IPv4, IPv6},
	}
}

// sessions brings one up between two speakers.
func sessions(t testing.TB, dialer, listener Options) (a, b *Session) {
	t.Helper()
	ctx := testContext(t)
	l, err := Listen(ctx, listener, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan error, 1)
	go func() {
		var err error
		b, err = l.Accept(ctx)
		accepted <- err
	}()
	dialer.Remote = l.Addr()
	a, err = Dial(ctx, dialer)
	if err := errors.Join(err, <-accepted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	return a, b
}

func TestSessionExchange(t *testing.T) {
	ctx := testContext(t)
	refreshed := make(chan Family, 1)
	opts := options(65147)
	opts.OnRefresh = func(f Family) { refreshed <- f }
	a, b := sessions(t, opts, options(65515))
	if asn, _ := a.Peer().ASN(); asn != 65515 {
		t.Errorf("peer's ASN is %d, want 65515", asn)
	}
	v4, v6 := prefixes("192.168.255.0/24")[0], prefixes("2001:db8::/32")[0]
	attrs := Attrs{ASPath: Prepended(65147, 2), Communities: []Community{65147<<16 | 1}, MED: ptr(uint32(9))}
	attrs6 := Attrs{ASPath: Seq(65147), NextHop: netip.MustParseAddr("2001:db8::4")}
	for _, err := range []error{a.Announce(attrs, v4), a.Announce(attrs6, v6), a.EndOfRIB(IPv4), a.EndOfRIB(IPv6)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []Family{IPv4, IPv6} {
		if err := b.Received().WaitEndOfRIB(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, p := range b.Received().Paths() {
		got = append(got, p.String())
	}
	want := []string{
		"192.168.255.0/24 next-hop 127.0.0.1 as-path 65147 65147 65147 origin IGP med 9 community 65147:1",
		"2001:db8::/32 next-hop 2001:db8::4 as-path 65147 origin IGP",
	}
	if !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
	if err := errors.Join(a.Withdraw(v4), b.Received().WaitGone(ctx, v4), b.Received().WaitLen(ctx, 1)); err != nil {
		t.Error(err)
	}
	if err := b.Write(RefreshRequest(IPv6)); err != nil {
		t.Fatal(err)
	}
	if f := <-refreshed; f != IPv6 || a.Received().WaitRefresh(ctx, 1) != nil {
		t.Errorf("refresh of family %d, want %d", f, IPv6)
	}
}

// RFC 6793 section 4.2.2: towards a two-octet speaker a large ASN becomes AS_TRANS.
func TestTwoOctetSession(t *testing.T) {
	old := options(65147)
	old.TwoOctetAS = true
	a, b := sessions(t, options(70000), old)
	if err := a.Announce(Attrs{ASPath: Seq(70000)}, prefixes("10.0.0.0/8")...); err != nil {
		t.Fatal(err)
	}
	p, err := b.Received().WaitPath(testContext(t), prefixes("10.0.0.0/8")[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := PathString(p.Attrs.ASPath); got != "23456" {
		t.Errorf("AS path %s, want 23456", got)
	}
}

func TestEnds(t *testing.T) {
	short := options(65515)
	short.Hold = 3 * time.Second
	isNotification := func(code, subcode uint8) func(error) bool {
		return func(err error) bool {
			var n Notification
			return errors.As(err, &n) && n.Code == code && n.Subcode == subcode
		}
	}
	tests := []struct {
		name string
		end  func(*Session)
		want func(error) bool // of the other side
	}{
		{"close", (*Session).Close, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"reset", (*Session).Reset, func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{"notification", func(s *Session) { s.Notify(6, 2, []byte("bye")) }, isNotification(6, 2)},
		{"silence", (*Session).Silence, func(err error) bool { return err != nil && strings.Contains(err.Error(), "hold time") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := sessions(t, options(65147), short)
			if a.Hold() != 3*time.Second {
				t.Errorf("hold time %s, want the smaller one, 3s", a.Hold())
			}
			tt.end(a)
			select {
			case <-b.Done():
			case <-testContext(t).Done():
				t.Fatal("the other side has not noticed")
			}
			if err := b.Err(); !tt.want(err) {
				t.Errorf("the other side saw %v", err)
			}
			err := b.Received().WaitLen(testContext(t), 1)
			if err == nil || !strings.Contains(err.Error(), "session ended") {
				t.Errorf("waiting on an ended session: %v", err)
			}
			a.Close()
			if err := a.Err(); !errors.Is(err, ErrClosed) {
				t.Errorf("this side saw %v, want ErrClosed", err)
			}
		})
	}
}

// A session lives on keepalives alone for longer than its hold time.
func TestKeepalives(t *testing.T) {
	t.Parallel()
	short := options(65515)
	short.Hold = 6 * time.Second
	a, b := sessions(t, options(65147), short)
	select {
	case <-a.Done():
		t.Error(a.Err())
	case <-b.Done():
		t.Error(b.Err())
	case <-time.After(7 * time.Second):
	}
}

func TestMD5(t *testing.T) {
	secret := options(65515)
	secret.Password = "secret"
	right, wrong := options(65147), options(65147)
	right.Password, wrong.Password = "secret", "guess"
	sessions(t, right, secret)
	l, err := Listen(testContext(t), secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	wrong.Remote = l.Addr()
	if _, err := Dial(ctx, wrong); err == nil {
		t.Error("a wrong secret connects")
	}
}

func TestHandshakeFailures(t *testing.T) {
	tests := []struct {
		name   string
		answer []byte // of the listener, to the OPEN
		want   string
	}{
		{"refused", Notification{2, 2, nil}.Encode(), "notification 2/2"},
		{"no open", Keepalive(), "message type 4 instead of 1"},
		{"hung up", nil, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			l, err := Listen(ctx, options(65515), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				conn, err := l.AcceptConn(ctx)
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				_, _, _ = ReadMessage(conn, nil)
				_, _ = conn.Write(tt.answer)
			}()
			o := options(65147)
			o.Remote = l.Addr()
			if _, err := Dial(ctx, o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial: %v, want %q in it", err, tt.want)
			}
		})
	}
	t.Run("context ends", func(t *testing.T) {
		l, err := Listen(testContext(t), options(65515), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		o := options(65147)
		o.Remote = l.Addr()
		if _, err := Dial(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial to a mute listener: %v, want a deadline error", err)
		}
	})
}

func TestSimulatorCommands(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	l, err := Listen(ctx, options(65515), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	o := options(65147)
	o.Remote = l.Addr()
	sim := NewSimulator(o)
	socket := filepath.Join(t.TempDir(), "s")
	control, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sim.Run(ctx)
	}()
	served := make(chan error, 1)
	go func() { served <- sim.ServeControl(ctx, control) }()

	command := func(line string) string {
		t.Helper()
		lines, err := Control(ctx, socket, line)
		if err != nil {
			return "error: " + err.Error()
		}
		return strings.Join(lines, "\n")
	}
	first, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for sim.Session() == nil && ctx.Err() == nil { // the other end may still be at its KEEPALIVE
		time.Sleep(time.Millisecond)
	}
	for line, want := range map[string]string{
		"announce":                     "error: announce: no prefix",
		"announce 10.1.2.3/8":          "error: prefix 10.1.2.3/8 has host bits set, 10.0.0.0/8 is meant",
		"announce 10.0.0.0/8 med":      `error: announce: "med" needs a value`,
		"announce 10.0.0.0/8 colour 1": "error: announce: colour: unknown word",
		"announce ::/0":                "error: announce ::/0: a session over IPv4 needs a nexthop for it",
		"withdraw":                     "error: withdraw: no prefix",
		"withdraw 10.0.0.0/8":          "error: withdraw 10.0.0.0/8: it is not announced",
		"dance":                        `error: unknown command "dance"; there are announce, withdraw, received, status, reset, close, silence`,
		"received":                     "",
	} {
		if got := command(line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	p := prefixes("192.168.255.0/24")[0]
	for _, step := range []struct{ line, want string }{
		{"announce 192.168.255.0/24", "next-hop 127.0.0.1 as-path 65147 origin IGP"},
		{"announce 192.168.255.0/24 prepend 2 nexthop 10.1.0.9 med 7 origin egp community 65147:1,65535:65282",
			"next-hop 10.1.0.9 as-path 65147 65147 65147 origin EGP med 7 community 65147:1,65535:65282"},
	} {
		if got := command(step.line); got != "" {
			t.Fatalf("%s: %s", step.line, got)
		}
		want := p.String() + " " + step.want
		if _, err := first.Received().WaitPath(ctx, p, func(p Path) bool { return p.String() == want }); err != nil {
			t.Errorf("%s: %v; have %v", step.line, err, first.Received().Paths())
		}
	}
	if err := first.Announce(Attrs{ASPath: Seq(65515)}, prefixes("10.1.0.0/16")...); err != nil {
		t.Fatal(err)
	}
	want := "10.1.0.0/16 next-hop 127.0.0.1 as-path 65515 origin IGP"
	for command("received") != want && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if got := command("status"); !strings.HasPrefix(got, "established peer 127.0.0.1 as 65515 hold 1m30s announced 1 received 1") {
		t.Errorf("status: %s", got)
	}
	// It comes back after a reset, and announces its table again; also on a refresh.
	if got := command("reset"); got != "" {
		t.Errorf("reset: %s", got)
	}
	second, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Received().WaitEndOfRIB(ctx, IPv6); err != nil || second.Received().Len() != 1 {
		t.Errorf("second session: %d prefixes: %v", second.Received().Len(), err)
	}
	before := second.Received().Updates()
	if err := second.Write(RefreshRequest(IPv4)); err != nil {
		t.Fatal(err)
	}
	for second.Received().Updates() == before && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if got := command("withdraw 192.168.255.0/24"); got != "" {
		t.Errorf("withdraw: %s", got)
	}
	if err := second.Received().WaitGone(ctx, p); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A million prefixes, packed, go out and come in within a few seconds.
func BenchmarkAnnounce1M(b *testing.B) {
	list := make([]netip.Prefix, 0, 1_000_000)
	for i := range cap(list) {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i)}), 24))
	}
	for b.Loop() {
		x, y := sessions(b, options(65147), options(65515))
		start := time.Now()
		if err := errors.Join(x.Announce(Attrs{ASPath: Seq(65147)}, list...), y.Received().WaitLen(testContext(b), len(list))); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(list))/time.Since(start).Seconds(), "prefixes/s")
		x.Close()
		y.Close()
	}
}
