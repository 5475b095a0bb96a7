package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// connectAs opens a connection from an address on a node.
func connectAs(n *lab.Node, from netip.Addr) (conn *net.TCPConn, err error) {
	err = n.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err = nva.Connect(ctx, nva.Transport{Local: from, Remote: netip.AddrPortFrom(lab.SeedHost, 179)})
		return err
	})
	return conn, err
}

// connect opens a connection of a peer, which may have made too many of late.
func (h *besieged) connect(t *testing.T, e *evil) (conn *net.TCPConn) {
	t.Helper()
	poll(t, "connection of "+e.name, func() (err error) {
		conn, err = connectAs(h.evil, e.o.Local)
		return err
	})
	return conn
}

// Hostile connections: from nobody that is known, half open, many at once, and cut
// short. No session comes of what is not a peer's, and a peer's own comes up afterwards.
func TestHostileConnections(t *testing.T) {
	h := besiege(t)
	check := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			since, kernel := time.Now(), len(h.monitor.Log())
			f(t)
			h.undisturbed(t, since, kernel)
		})
	}
	stranger := addr("10.1.0.99")
	must(t, h.evil.IP("addr add 10.1.0.99/16 dev eth0"))

	check("unknown peer", func(t *testing.T) { // S3
		made := 0
		for range 200 {
			c, err := connectAs(h.evil, stranger)
			if err != nil {
				continue // refused before anything was parsed is as good
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Write(greet(""))
			if b, err := io.ReadAll(c); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("a stranger got %x, %v", b, err)
			}
			_ = c.Close()
			made++
		}
		if made == 0 {
			t.Error("no connection of a stranger was made")
		}
		if n := strings.Count(h.d.Proc.Log(), "from an address that is no peer"); n > 12 {
			t.Errorf("200 connections of a stranger made %d lines of log", n)
		}
	})
	check("half-open connections", func(t *testing.T) {
		e := <-h.idle
		defer func() { h.idle <- e }()
		for range 20 {
			c := h.connect(t, e)
			defer func() { _ = c.Close() }()
		}
		h.establish(t, e, nil) // the daemon gives up on them within seconds, not the 240 of GoBGP
		h.leave(e)
	})
	check("a peer's many connections at once", func(t *testing.T) { // RFC 4271 section 6.8
		e := <-h.idle
		defer func() { h.idle <- e }()
		var wg sync.WaitGroup
		var mu sync.Mutex // guards all
		var all []*nva.Session
		for range 10 {
			wg.Go(func() {
				if s, err := dialOnce(within(t), h.evil, e.o); err == nil {
					mu.Lock()
					all = append(all, s)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		poll(t, "one session of one peer, at the most", func() error {
			up := 0
			for _, s := range all {
				select {
				case <-s.Done():
				default:
					up++
				}
			}
			if up > 1 {
				return fmt.Errorf("%d sessions", up)
			}
			return nil
		})
		for _, s := range all {
			s.Close()
		}
		h.establish(t, e, nil)
		c := h.connect(t, e)
		_, _ = c.Write(greet(""))
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a second connection stays open")
		}
		_ = c.Close()
		must(t, e.s.Announce(nva.Attrs{ASPath: nva.Seq(evilASN)}, casePrefix(1)))
		value(h.witness.Received().WaitPath(within(t), casePrefix(1), nil))(t)
		h.leave(e)
	})
	for _, cut := range []struct {
		name  string
		after int
		reset bool
	}{
		{"cut in a header", 11, false}, {"cut after a header", 19, false}, {"cut in an UPDATE", 40, false},
		{"reset in a header", 11, true}, {"reset in an UPDATE", 40, true},
	} {
		check(cut.name, func(t *testing.T) {
			e := <-h.idle
			defer func() { h.idle <- e }()
			x := shot{four: casePrefix(2)}
			h.establish(t, e, nil)
			must(t, e.s.Announce(nva.Attrs{ASPath: nva.Seq(evilASN), NextHop: lab.SeedNVA(0)}, x.four))
			value(h.witness.Received().WaitPath(within(t), x.four, nil))(t)
			must(t, e.s.Write(x.update(goodOrigin, goodPath, goodHop)[:cut.after]))
			if cut.reset {
				e.s.Reset()
			}
			h.leave(e)
			must(t, h.witness.Received().WaitGone(within(t), x.four))
		})
	}
	check("half a message and then nothing", func(t *testing.T) { // RFC 4271 section 6.5
		e := <-h.idle
		defer func() { h.idle <- e }()
		o := e.o
		o.Hold = 3 * time.Second
		h.leave(e)
		ctx := within(t)
		must(t, lab.Eventually(ctx, "session", func() (err error) { e.s, err = dialOnce(ctx, h.evil, o); return err }))
		must(t, e.s.Write(bytes.Repeat([]byte{0xff}, 16)))
		e.s.Silence()
		h.session(t, e.name, "Idle")
		if p := h.peerOf(t, e.name); !strings.Contains(strings.ToLower(p.LastDown), "hold") {
			t.Errorf("last down: %q, want the hold timer", p.LastDown)
		}
		h.leave(e)
	})
	check("an octet at a time", func(t *testing.T) {
		e := <-h.idle
		defer func() { h.idle <- e }()
		h.establish(t, e, nil)
		x := shot{four: casePrefix(3)}
		for _, b := range x.update(goodOrigin, goodPath, goodHop) {
			must(t, e.s.Write([]byte{b}))
			time.Sleep(time.Millisecond) // so that segments have one octet
		}
		value(h.witness.Received().WaitPath(within(t), x.four, nil))(t)
		h.leave(e)
	})
	check("100 sessions in a row", func(t *testing.T) {
		var wg sync.WaitGroup
		for range evils - 4 {
			e := <-h.idle
			wg.Go(func() {
				defer func() { h.idle <- e }()
				for range 5 {
					if s, err := dialOnce(within(t), h.evil, e.o); err == nil {
						_ = s.Announce(nva.Attrs{ASPath: nva.Seq(evilASN)}, casePrefix(4))
						s.Reset()
					}
				}
			})
		}
		wg.Wait()
		must(t, h.witness.Received().WaitGone(within(t), casePrefix(4)))
	})
}

// S12: a flood of UPDATEs starves nobody: an appliance with a short hold time keeps its
// session, and a failover during the flood takes no longer than people wait.
func TestHostileFlood(t *testing.T) {
	b := newSeed(t, 2)
	evil := value(b.Node("evil"))(t)
	iface := value(b.VNet.Attach(evil, "eth0", evilAddr(0).String()+"/16"))(t)
	const floods = 3
	peers := nvaPeers(2)
	for i := range floods {
		if i > 0 {
			must(t, iface.AddAddr(evilAddr(i).String()+"/16"))
		}
		peers += peer(fmt.Sprintf("evil%d", i), evilAddr(i), evilASN, "passive: true")
	}
	b.start(t, hostConfig+peers)
	var good []*nva.Session
	for i := range 2 {
		o := nva4(i)
		o.Hold = 9 * time.Second
		good = append(good, b.dial(t, b.NVAs[i], o))
		announce(t, good[i], nva.Attrs{}, lab.SeedBranch)
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	tr := b.flows(t, lab.TrafficConfig{Rate: 50})
	memory := residentMB(t, b.d.Proc.PID())

	// Each flood is 2,000 prefixes, announced and changed again and again as fast as TCP takes it.
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	var sent [floods]int
	for i := range floods {
		o := options(evilAddr(i), lab.SeedHost)
		o.ASN, o.IgnoreUpdates = evilASN, true
		s := b.dial(t, evil, o)
		var waves [2][]byte
		for w := range waves {
			med := uint32(w)
			waves[w] = s.Encode(prefixes(nva.IPv4, 2000), nva.Attrs{ASPath: nva.Seq(evilASN), MED: &med})
		}
		wg.Go(func() {
			defer s.Close()
			stop := context.AfterFunc(ctx, s.Close)
			defer stop()
			for ctx.Err() == nil && s.Write(waves[sent[i]%2]) == nil {
				if sent[i]++; sent[i]%50 == 0 {
					_ = s.Write(bytes.Repeat(nva.RefreshRequest(nva.IPv4), 20))
				}
			}
		})
	}
	time.Sleep(20 * time.Second) // more than twice the hold time: this is what is measured
	for i, s := range good {
		select {
		case <-s.Done():
			t.Fatalf("the flood cost appliance %d its session: %v", i+1, s.Err())
		default:
		}
	}
	if r := tr.Report(time.Time{}); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost during the flood", r.Lost(), r.Sent())
	}
	// An appliance dies: it forwards nothing, and its connection is reset.
	must(t, b.NVAs[1].SetForwarding(false))
	start := time.Now()
	good[1].Reset()
	must(t, b.Host.WaitGateways(within(t), lab.SeedBranch, lab.SeedNVA(0)))
	b.steady(t, tr, 200)
	cancel()
	wg.Wait()
	r := tr.Report(time.Time{})
	t.Logf("failover during the flood: %v without the packets of the dead appliance's flows; %d waves of 2,000 prefixes; %d MB, %d MB before",
		r.LastLost.Sub(start).Round(time.Millisecond), sent[0]+sent[1]+sent[2], residentMB(t, b.d.Proc.PID()), memory)
	if d := r.LastLost.Sub(start); d > 30*time.Second {
		t.Errorf("the failover took %v during the flood", d)
	}
	select {
	case <-good[0].Done():
		t.Errorf("the appliance that is left lost its session: %v", good[0].Err())
	default:
	}
}
