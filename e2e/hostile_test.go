package e2e_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// The hostile peers: as many as it takes to hide the 5 s that a session takes to come
// back after a reset.
const (
	evils   = 24
	evilASN = 64666 // fc9a
)

// besieged is a daemon with a good appliance, a witness that hears what is announced on,
// and hostile peers. All its checks may run at the same time.
type besieged struct {
	*bed
	evil          *lab.Node
	good, witness *nva.Session
	traffic       *lab.Traffic
	monitor       *lab.Proc // ip monitor route
	idle          chan *evil
}

// evil is one hostile peer.
type evil struct {
	name string
	o    nva.Options
	s    *nva.Session // established, when not nil
}

func evilAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(100 + i)}) }

func besiege(t *testing.T) *besieged {
	t.Helper()
	h := &besieged{bed: newSeed(t, 2), idle: make(chan *evil, evils)}
	h.evil = value(h.Node("evil"))(t)
	iface := value(h.VNet.Attach(h.evil, "eth0", evilAddr(0).String()+"/16"))(t)
	// The witness has an ASN of its own, or it would not be told of the appliance's routes.
	peers := nvaPeers(1) + peer("nva2", lab.SeedNVA(1), 65148, "passive: true")
	for i := range evils {
		if i > 0 {
			must(t, iface.AddAddr(evilAddr(i).String()+"/16"))
		}
		e := &evil{name: fmt.Sprintf("evil%d", i), o: options(evilAddr(i), lab.SeedHost)}
		e.o.ASN = evilASN
		peers += peer(e.name, evilAddr(i), evilASN, "passive: true")
		h.idle <- e
	}
	h.start(t, hostConfig+peers)
	h.monitor = value(h.Host.Start("ip", "monitor", "route"))(t)
	h.good = h.dial(t, h.NVAs[0], nva4(0))
	announce(t, h.good, nva.Attrs{}, lab.SeedBranch)
	o := nva4(1)
	o.ASN = 65148
	h.witness = h.dial(t, h.NVAs[1], o)
	h.route(t, lab.SeedBranch, lab.SeedNVA(0))
	value(h.witness.Received().WaitPath(within(t), lab.SeedBranch, nil))(t)
	h.traffic = h.flows(t, lab.TrafficConfig{Rate: 50})
	return h
}

// undisturbed checks what no attack may touch: the daemon, the good sessions, the good
// route in the kernel and at the witness, and every packet sent since then.
func (h *besieged) undisturbed(t *testing.T, since time.Time, kernel int) {
	t.Helper()
	select {
	case <-h.d.Proc.Done():
		t.Fatal("the daemon ended")
	case <-h.good.Done():
		t.Errorf("the good appliance lost its session: %v", h.good.Err())
	case <-h.witness.Done():
		t.Errorf("the witness lost its session: %v", h.witness.Err())
	default:
	}
	if p, ok := h.witness.Received().Path(lab.SeedBranch); !ok || nva.PathString(p.Attrs.ASPath) != "65515 65147" {
		t.Errorf("the witness has %v for the good prefix", p)
	}
	if log := h.monitor.Log()[kernel:]; strings.Contains(log, lab.SeedBranch.Addr().String()) {
		t.Errorf("the good route changed in the kernel:\n%s", log)
	}
	if r := h.traffic.Report(since); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
	}
}

// peerOf reads the daemon's view of a peer.
func (h *besieged) peerOf(t *testing.T, name string) status.Peer {
	t.Helper()
	all := h.everyPeer(t)
	i := slices.IndexFunc(all, func(p status.Peer) bool { return p.Name == name })
	return all[i]
}

// siege runs the cases, each as a test of its own on whatever hostile peer is idle.
func siege[T any](t *testing.T, h *besieged, cases []T, name func(T) string, run func(*testing.T, int, T, *evil)) {
	t.Helper()
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for i, c := range cases {
		if seen[name(c)] {
			t.Errorf("two cases are called %q", name(c))
		}
		seen[name(c)] = true
		e := <-h.idle
		wg.Go(func() {
			defer func() { h.idle <- e }()
			t.Run(name(c), func(t *testing.T) {
				since, kernel := time.Now(), len(h.monitor.Log())
				run(t, i, c, e)
				h.undisturbed(t, since, kernel)
			})
		})
	}
	wg.Wait()
}

// establish gives the hostile peer a session; change, when not nil, changes what it
// offers and makes it a session of its own.
func (h *besieged) establish(t *testing.T, e *evil, change func(*nva.Options)) {
	t.Helper()
	if e.s != nil && change == nil {
		select {
		case <-e.s.Done():
		default:
			return
		}
	}
	h.leave(e)
	o := e.o
	if change != nil {
		change(&o)
	}
	ctx := within(t)
	must(t, lab.Eventually(ctx, "session of "+e.name, func() (err error) {
		if e.s, err = dialOnce(ctx, h.evil, o); err != nil {
			time.Sleep(100 * time.Millisecond) // turned away for some seconds after a session
		}
		return err
	}))
}

func (h *besieged) leave(e *evil) {
	if e.s != nil {
		e.s.Close()
		e.s = nil
	}
}

// notification is why the peer was refused; ok is false where it just hung up.
func notification(err error) (n nva.Notification, ok bool) {
	ok = errors.As(err, &n)
	return n, ok
}

// octets reads hexadecimal digits.
func octets(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic("bug: " + err.Error())
	}
	return b
}

// casePrefix, casePrefix6 and markerPrefix make prefixes that belong to a case alone.
func casePrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
}

func casePrefix6(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x2a, 0x0f, byte(i >> 8), byte(i)}), 48)
}

func markerPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{21, byte(i >> 8), byte(i), 0}), 24)
}

// hears opens a connection, waits for the peer's OPEN, sends the bytes and returns the
// first message that answers them; typ is 0 where the peer just hangs up. Turned away, it
// tries again.
func (h *besieged) hears(t *testing.T, e *evil, first []byte, then ...[]byte) (typ uint8, body []byte) {
	t.Helper()
	h.leave(e)
	must(t, lab.Eventually(within(t), "connection of "+e.name, func() error {
		var conn io.ReadWriteCloser
		if err := h.evil.Do(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			c, err := nva.Connect(ctx, e.o.Transport)
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				conn = c
			}
			return err
		}); err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		buf := make([]byte, nva.MaxMessage)
		if got, _, err := nva.ReadMessage(conn, buf); err != nil || got != nva.TypeOpen {
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("no OPEN of the daemon: message type %d, %v", got, err)
		}
		_, _ = conn.Write(first) // refused already: the answer says so
		for _, b := range then {
			got, _, err := nva.ReadMessage(conn, buf)
			if err != nil || got != nva.TypeKeepalive {
				return fmt.Errorf("the OPEN was not accepted: message type %d, %v", got, err)
			}
			_, _ = conn.Write(b)
		}
		got, b, err := nva.ReadMessage(conn, buf)
		typ, body = got, append([]byte(nil), b...)
		if err != nil {
			typ = 0
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				return fmt.Errorf("no answer, and no end of the connection: %w", err)
			}
		}
		return nil
	}))
	return typ, body
}
