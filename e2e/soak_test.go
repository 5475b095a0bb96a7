package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// soakFor is how long the soak lasts: SOAK, which make soak sets, or some seconds.
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	if text := os.Getenv("SOAK"); text != "" {
		return value(time.ParseDuration(text))(t)
	}
	return 8 * time.Second
}

// pprofAt is where the daemon of the soak serves its profiles, in the host's namespace.
const pprofAt = "127.0.0.1:6060"

// usage is what the daemon holds, garbage collected.
type usage struct{ heapKB, goroutines, residentMB int }

var (
	heapAlloc  = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`)
	goroutines = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

func (b *bed) usage(t *testing.T) usage {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = b.Host.Do(func() error {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		}}}
	read := func(path string, number *regexp.Regexp) int {
		resp := value(client.Get("http://" + pprofAt + "/debug/pprof/" + path))(t)
		defer func() { _ = resp.Body.Close() }()
		m := number.FindSubmatch(value(io.ReadAll(resp.Body))(t))
		if m == nil {
			t.Fatalf("/debug/pprof/%s has no %v", path, number)
		}
		return value(strconv.Atoi(string(m[1])))(t)
	}
	read("heap?debug=1&gc=1", heapAlloc) // finalizers and weak pointers take a second collection
	return usage{read("heap?debug=1&gc=1", heapAlloc) >> 10, read("goroutine?debug=1", goroutines), residentMB(t, b.d.Proc.PID())}
}

// restingUsage waits until the daemon's usage no longer changes.
func (b *bed) restingUsage(t *testing.T) (u usage) {
	t.Helper()
	same := 0
	must(t, lab.Eventually(within(t), "rest of the daemon", func() error {
		last := u
		time.Sleep(300 * time.Millisecond)
		if u = b.usage(t); u.goroutines != last.goroutines || abs(u.heapKB-last.heapKB) > 32 {
			same = 0
		}
		if same++; same < 4 {
			return fmt.Errorf("%v, then %v", last, u)
		}
		return nil
	}))
	return u
}

func (u usage) String() string {
	return fmt.Sprintf("heap %d KiB, %d goroutines, resident %d MiB", u.heapKB, u.goroutines, u.residentMB)
}

// hooligan opens sessions and misbehaves on each, at random.
type hooligan struct {
	b    *bed
	node *lab.Node
	o    nva.Options
	rng  *rand.Rand
	// what it saw itself, to compare the daemon's counters with
	sessions, attacks int
}

// mutate changes some octets, so that most of the message still makes sense.
func (x *hooligan) mutate(b []byte) []byte {
	b = append([]byte(nil), b...)
	for range 1 + x.rng.IntN(4) {
		switch i := x.rng.IntN(len(b)); x.rng.IntN(4) {
		case 0:
			b[i] ^= 1 << x.rng.IntN(8)
		case 1:
			b[i] = byte(x.rng.Uint32())
		case 2:
			b = append(b[:i:i], append([]byte{byte(x.rng.Uint32())}, b[i:]...)...)
		case 3:
			if len(b) > 1 {
				b = append(b[:i:i], b[i+1:]...)
			}
		}
	}
	return b
}

// rampage goes on until ctx ends. Its prefixes are not the good appliances': those are
// the business of other tests.
func (x *hooligan) rampage(ctx context.Context, mild, fatal []attack) {
	for ctx.Err() == nil {
		o := x.o
		if x.rng.IntN(8) == 0 {
			o.RawOpen = x.mutate(o.OpenMessage().Encode())
		}
		s, err := dialOnce(ctx, x.node, o)
		if err != nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		x.sessions++
		for range 400 {
			i := x.rng.IntN(200)
			target := shot{four: casePrefix(i), six: casePrefix6(i), i: i}
			message := mild[x.rng.IntN(len(mild))].bytes(target)
			switch n := x.rng.IntN(100); {
			case n == 0:
				message = fatal[x.rng.IntN(len(fatal))].bytes(target)
			case n < 5:
				message = x.mutate(message)
			case n < 30:
				message = s.Encode([]netip.Prefix{target.four}, nva.Attrs{ASPath: nva.Seq(o.ASN), NextHop: lab.SeedNVA(0)})
			}
			x.attacks++
			if s.Write(message) != nil || ctx.Err() != nil {
				break
			}
			wait(ctx, time.Duration(x.rng.IntN(4))*time.Millisecond)
		}
		if x.rng.IntN(2) == 0 {
			s.Reset()
		}
		s.Close()
	}
}

// flap brings a session up as often as it can, announces, and ends it within the second.
func (x *hooligan) flap(ctx context.Context) {
	list := prefixes(nva.IPv4, 200)
	for ctx.Err() == nil {
		s, err := dialOnce(ctx, x.node, x.o)
		if err != nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		x.sessions++
		_ = s.Announce(nva.Attrs{ASPath: nva.Seq(x.o.ASN), NextHop: lab.SeedNVA(1)}, list...)
		wait(ctx, time.Duration(x.rng.IntN(1000))*time.Millisecond)
		switch x.rng.IntN(3) {
		case 0:
			s.Reset()
		case 1:
			s.Notify(6, 4, nil)
		}
		s.Close()
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Two good appliances, one that sends whatever comes to its mind, one whose link and
// session flap every second: at the end the good ones have lost nothing, and the daemon
// holds what it held before.
func TestSoak(t *testing.T) {
	long := soakFor(t)
	b := newSeed(t, 2)
	evil, flapping := value(b.Node("evil"))(t), value(b.Node("flapping"))(t)
	value(b.VNet.Attach(evil, "eth0", evilAddr(0).String()+"/16"))(t)
	link := value(b.VNet.Attach(flapping, "eth0", evilAddr(1).String()+"/16"))(t)
	config := hostConfig + nvaPeers(2) + peer("evil", evilAddr(0), evilASN, "passive: true") + peer("flapping", evilAddr(1), evilASN, "passive: true")
	d, err := lab.StartDaemon(within(t), b.Host, config, "--pprof", pprofAt)
	must(t, err)
	b.d = d
	t.Cleanup(func() {
		if t.Failed() {
			b.picture(t)
		}
	})
	good := b.nvas(t, 2)
	list := append(prefixes(nva.IPv4, 1000)[500:], lab.SeedBranch)
	for _, s := range good {
		announce(t, s, nva.Attrs{}, list...)
		must(t, errors.Join(s.EndOfRIB(nva.IPv4), s.EndOfRIB(nva.IPv6)))
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	tr := b.flows(t, lab.TrafficConfig{Rate: 25})
	started := time.Now()

	seed := uint64(started.UnixNano())
	t.Logf("seed %d", seed)
	var mild, fatal []attack // the latter end the session
	for _, a := range slices.Concat(headerAttacks, updateAttacks, attributeAttacks, multiAttacks, foreignAttacks(), messageAttacks) {
		switch {
		case a.open != nil || strings.Contains(a.name, "the good appliance"):
		case a.want.reset != "" || a.want.hangup:
			fatal = append(fatal, a)
		default:
			mild = append(mild, a)
		}
	}
	var people []*hooligan
	for i, n := range []*lab.Node{evil, flapping} {
		o := options(evilAddr(i), lab.SeedHost)
		o.ASN, o.IgnoreUpdates = evilASN, true
		people = append(people, &hooligan{b: b, node: n, o: o, rng: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	// storm lets them loose, and waits until all they left behind is gone.
	storm := func(d time.Duration) usage {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { people[0].rampage(ctx, mild, fatal) })
		wg.Go(func() { people[1].flap(ctx) })
		for up := true; ctx.Err() == nil; up = !up {
			wait(ctx, time.Second)
			if up {
				must(t, link.Unplug())
			} else {
				must(t, link.Plug())
			}
		}
		must(t, link.Plug())
		wg.Wait()
		must(t, lab.Eventually(within(t), "rest", func() error {
			for _, p := range b.everyPeer(t) {
				if bad := p.Name == "evil" || p.Name == "flapping"; bad && (p.State == "Established" || p.Received > 0) {
					return fmt.Errorf("%s is %s, %d prefixes", p.Name, p.State, p.Received)
				}
			}
			return nil
		}))
		return b.restingUsage(t)
	}
	before := storm(max(long/10, 4*time.Second)) // what is kept for good, such as each peer's counters, is there now
	after := storm(long)
	t.Logf("%v: %d sessions and %d messages of the hostile peer, %d sessions of the flapping one; before: %v; after: %v",
		long, people[0].sessions, people[0].attacks, people[1].sessions, before, after)

	if after.heapKB > before.heapKB+max(before.heapKB/10, 1024) {
		t.Errorf("the heap grew from %d to %d KiB", before.heapKB, after.heapKB)
	}
	// Some are at work at any time, timers' and those of a peer's next try; there were many
	// more sessions than this.
	if after.goroutines > before.goroutines+5 {
		t.Errorf("%d goroutines, %d before", after.goroutines, before.goroutines)
	}
	for i, s := range good {
		select {
		case <-s.Done():
			t.Errorf("appliance %d lost its session: %v", i+1, s.Err())
		default:
		}
	}
	if r := tr.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost, first %v after the start", r.Lost(), r.Sent(), r.FirstLost.Sub(started))
	} else {
		t.Logf("%d packets, none lost", r.Sent())
	}
	// The counters tell the story: what the bad ones saw, and nothing of the good ones.
	for _, p := range b.everyPeer(t) {
		switch p.Name {
		case "evil":
			if p.Flaps == 0 || p.Flaps > uint64(people[0].sessions)+2 || faults(p) == 0 {
				t.Errorf("evil: %d flaps and faults %v, after %d sessions", p.Flaps, p.Faults, people[0].sessions)
			}
			t.Logf("faults of the hostile peer: %v", p.Faults)
		case "flapping":
			if p.Flaps == 0 || p.Flaps > uint64(people[1].sessions)+2 || faults(p) > 0 {
				t.Errorf("flapping: %d flaps and faults %v, after %d sessions", p.Flaps, p.Faults, people[1].sessions)
			}
		default:
			if p.Flaps > 0 || faults(p) > 0 || p.Received != len(list) {
				t.Errorf("%s: %d flaps, %d prefixes, faults %v", p.Name, p.Flaps, p.Received, p.Faults)
			}
		}
	}
	if n := strings.Count(value(b.Host.Run(within(t), "ip", "-4", "route", "show", "proto", "165"))(t), "\n10"); n > len(list) {
		t.Errorf("%d routes, %d are announced", n, len(list))
	}
	for _, word := range []string{"panic", "bug:"} {
		if strings.Contains(b.d.Proc.Log(), word) {
			t.Errorf("the log has %q", word)
		}
	}
}

// everyPeer is the daemon's view of all peers.
func (b *bed) everyPeer(t *testing.T) []status.Peer {
	t.Helper()
	var rows []status.Peer
	must(t, b.d.Get(within(t), status.PathPeers, &rows))
	return rows
}

func faults(p status.Peer) (n uint64) {
	for _, k := range p.Faults {
		n += k
	}
	return n
}

func abs(n int) int { return max(n, -n) }
