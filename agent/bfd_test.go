package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/bfd"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

// bfdProcess is a bfd.Process without BFD.
type bfdProcess struct {
	mu       sync.Mutex // guards the rest
	last     bfd.ID
	sessions map[bfd.ID]*bfd.Info
	calls    []string
	err      error // of Add
}

func (b *bfdProcess) failing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *bfdProcess) note(what string, c bfd.Config) {
	text := fmt.Sprintf("%s %s %s x %d", what, c.Peer, c.Interval, c.Multiplier)
	if c.Multihop {
		text += " multihop"
	}
	if c.MinTTL > 0 {
		text += fmt.Sprintf(" ttl %d", c.MinTTL)
	}
	if c.Auth != nil {
		text += fmt.Sprintf(" auth %d %s", c.Auth.KeyID, c.Auth.Key)
	}
	b.calls = append(b.calls, text)
}

func (b *bfdProcess) Add(c bfd.Config) (bfd.ID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note("add", c)
	if b.err != nil {
		return 0, b.err
	}
	b.last++
	note(&b.sessions, b.last, &bfd.Info{Config: c, State: bfd.Down, RemoteState: bfd.Down})
	return b.last, nil
}

func (b *bfdProcess) Update(id bfd.ID, c bfd.Config) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note("update", c)
	b.sessions[id].Config = c
	return nil
}

func (b *bfdProcess) Remove(id bfd.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note("remove", b.sessions[id].Config)
	delete(b.sessions, id)
	return nil
}

func (b *bfdProcess) Sessions() ([]bfd.Info, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []bfd.Info
	for _, i := range b.sessions {
		out = append(out, *i)
	}
	return out, nil
}

func (b *bfdProcess) Stats() (bfd.Stats, error) { return bfd.Stats{Scheduling: "fake"}, nil }

// asked returns the calls since it was last asked, in any order.
func (b *bfdProcess) asked() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.calls)
	text := strings.Join(b.calls, ", ")
	b.calls = nil
	return text
}

// becomes moves the session with peer to a state and has it tell the agent, if that
// changes anything.
func (l *lab) becomes(peer netip.Addr, state, remote bfd.State, diag bfd.Diag, c bool) {
	l.t.Helper()
	l.bfd.mu.Lock()
	var e bfd.Event
	for _, i := range l.bfd.sessions {
		if i.Config.Peer == peer {
			e = bfd.Event{Peer: peer, Multihop: i.Config.Multihop, From: i.State, To: state, Diag: diag, RemoteState: remote,
				ControlPlaneIndependent: c, At: time.Now(), DetectedIn: 900 * time.Millisecond}
			i.State, i.RemoteState, i.LastReceived = state, remote, time.Now()
		}
	}
	l.bfd.mu.Unlock()
	if !e.Peer.IsValid() {
		l.t.Fatalf("there is no BFD session with %s", peer)
	}
	if e.From != e.To {
		l.a.BFDEvent(e)
	}
	synctest.Wait()
}

func (l *lab) bfdUp(peer netip.Addr) { l.becomes(peer, bfd.Up, bfd.Up, bfd.DiagNone, false) }
func (l *lab) bfdSilent(peer netip.Addr) {
	l.becomes(peer, bfd.Down, bfd.Up, bfd.DiagTimeExpired, false)
}

// withBFD has both peers watched.
func withBFD(c *config.Config, _ *fibtest.Machine) {
	for i := range c.Peers {
		c.Peers[i].BFD = config.BFD{Enabled: true, BFDSession: bfdSession()}
	}
}

func bfdSession() config.BFDSession {
	return config.BFDSession{Interval: 300 * time.Millisecond, Multiplier: 3, Mode: config.BFDAuto, Auth: config.BFDAuth{KeyID: 1}}
}

// bfdLab has both peers up in every way, with the seed case in the kernel.
func bfdLab(t *testing.T, change func(*config.Config, *fibtest.Machine)) *lab {
	l := newLab(t, func(c *config.Config, m *fibtest.Machine) {
		withBFD(c, m)
		if change != nil {
			change(c, m)
		}
	})
	l.up(quagga, bird)
	l.bfdUp(quagga)
	l.bfdUp(bird)
	l.announce(quagga, seed)
	l.announce(bird, seed)
	l.settle()
	l.expect("at first", seed, "10.1.0.4", "10.1.0.5")
	l.sp.asked()
	l.bfd.asked()
	return l
}

// S24, S37: a silent peer's traffic moves before anything is said by BGP, and is back when
// both are.
func TestBFDMovesTrafficFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.expect("bird is silent", seed, "10.1.0.4")
		if got := l.sp.asked(); got != "bfd-down 10.1.0.5" {
			t.Errorf("asked of the speaker: %q", got)
		}
		if got := l.log.lines("event=bfd-down", "peer=10.1.0.5", "control detection time expired", "failed=true", "milliseconds=900"); len(got) != 1 {
			t.Errorf("journal: %q", got)
		}
		if f := l.a.Failovers(t.Context()); len(f) != 1 || f[0].Signal != "bfd 10.1.0.5" || f[0].Prefixes != 1 {
			t.Errorf("failovers: %+v", f)
		}
		x, err := l.a.explain(t.Context(), seed.String())
		if err != nil || !strings.Contains(text(x.Paths), "BFD says that the path to its peer is dead: control detection time expired") {
			t.Errorf("explain: %+v, %v", x, err)
		}
		st, err := l.a.Status(t.Context())
		if err != nil || !strings.Contains(text(st.Degraded), "BFD with peer bird (10.1.0.5) is down: control detection time expired") {
			t.Errorf("status: %+v, %v", st, err)
		}
		// The BGP session lives on for a while: what it says counts for nothing.
		l.announce(bird, seed, prefix("192.168.7.0/24"))
		l.settle()
		l.expect("bird talks on", seed, "10.1.0.4")
		l.expect("bird talks on", prefix("192.168.7.0/24"))
		l.withdraw(bird, seed, prefix("192.168.7.0/24"))
		l.idle(bird)

		// BGP comes back before BFD.
		l.up(bird)
		l.announce(bird, seed)
		l.settle()
		l.expect("BGP alone is back", seed, "10.1.0.4")
		l.bfdUp(bird)
		l.settle()
		l.expect("BFD is back too", seed, "10.1.0.4", "10.1.0.5")
		if got := l.sp.asked(); got != "" {
			t.Errorf("asked of the speaker: %q", got)
		}
		l.atRest()
	})
}

// A path that fails for a moment, or whose BGP session does not end at once: the traffic
// is back with the next BGP session, not before.
func TestBFDBackBeforeBGPEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.bfdUp(bird)
		l.settle()
		l.expect("BFD is back at once", seed, "10.1.0.4")
		time.Sleep(bfdEndAgain + 2*time.Second)
		if got := l.sp.asked(); got != "bfd-down 10.1.0.5, bfd-down 10.1.0.5" {
			t.Errorf("asked of the speaker: %q", got)
		}
		l.idle(bird)
		l.up(bird)
		l.settle()
		l.expect("the next session", seed, "10.1.0.4", "10.1.0.5")
		l.atRest()
	})
}

// RFC 5882 section 3.2: AdminDown is no failure, and ends one; nor is it one that a peer
// never spoke BFD, or does not any more.
func TestBFDIsNoFailure(t *testing.T) {
	bubble(t, "the peer takes it down", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.becomes(bird, bfd.Down, bfd.AdminDown, bfd.DiagNeighborDown, false)
		l.settle()
		l.expect("AdminDown", seed, "10.1.0.4", "10.1.0.5")
		if got := l.sp.asked(); got != "" {
			t.Errorf("asked of the speaker: %q", got)
		}
		if got := l.log.lines("event=bfd-down", "failed=false", "remote=admin-down"); len(got) != 1 {
			t.Errorf("journal: %q", got)
		}
	})
	bubble(t, "it was never up", func(t *testing.T) {
		l := newLab(t, withBFD)
		l.up(bird)
		l.announce(bird, seed)
		l.settle()
		l.expect("without BFD", seed, "10.1.0.5")
		time.Sleep(bfdSilence)
		if st, err := l.a.Status(t.Context()); err != nil || !strings.Contains(text(st.Degraded), "BFD with peer bird (10.1.0.5) was never up") {
			t.Errorf("status: %+v, %v", st, err)
		}
	})
	bubble(t, "AdminDown after a failure", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.idle(bird)
		l.up(bird)
		l.becomes(bird, bfd.Down, bfd.AdminDown, bfd.DiagTimeExpired, false) // which is no event
		l.expect("not seen yet", seed, "10.1.0.4")
		time.Sleep(2 * bfdLook)
		l.settle()
		l.expect("AdminDown", seed, "10.1.0.4", "10.1.0.5")
	})
	bubble(t, "BFD is gone from the peer", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.idle(bird)
		time.Sleep(time.Minute)
		l.up(bird)
		time.Sleep(bfdSilence - time.Second)
		l.settle()
		l.expect("perhaps it comes", seed, "10.1.0.4")
		time.Sleep(3 * bfdLook)
		l.settle()
		l.expect("it does not", seed, "10.1.0.4", "10.1.0.5")
		if got := l.log.lines("peer is back without BFD", "peer=10.1.0.5"); len(got) != 1 {
			t.Errorf("log: %q", got)
		}
		l.atRest()
	})
	bubble(t, "we don't watch any more", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.idle(bird)
		l.up(bird)
		l.reload(func(c *config.Config) { c.Peers[1].BFD.Enabled = false })
		l.settle()
		l.expect("disabled", seed, "10.1.0.4", "10.1.0.5")
		if got := l.bfd.asked(); got != "remove 10.1.0.5 300ms x 3" {
			t.Errorf("asked of BFD: %q", got)
		}
	})
}

// RFC 5882 section 4.3: during a graceful restart the C bit decides.
func TestBFDAndGracefulRestart(t *testing.T) {
	for name, c := range map[string]bool{"shares the control plane's fate": false, "is independent of it": true} {
		bubble(t, name, func(t *testing.T) {
			l := bfdLab(t, nil)
			only := prefix("192.168.7.0/24")
			l.announce(bird, only)
			l.settle()
			l.restarting(bird)
			l.expect("bird restarts", only, "10.1.0.5")
			l.becomes(bird, bfd.Down, bfd.Up, bfd.DiagTimeExpired, c)
			l.settle()
			if c {
				l.expect("its forwarding is dead", only)
			} else {
				l.expect("its BFD went with its BGP", only, "10.1.0.5")
			}
			l.up(bird)
			l.announce(bird, seed, only)
			l.eor(bird)
			l.bfdUp(bird)
			l.settle()
			l.expect("bird is back", seed, "10.1.0.4", "10.1.0.5")
			l.expect("bird is back", only, "10.1.0.5")
			if got := l.sp.asked(); got != "" {
				t.Errorf("asked of the speaker: %q", got)
			}
		})
	}
	bubble(t, "its BFD is quicker than its BGP", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.becomes(bird, bfd.Down, bfd.Down, bfd.DiagNeighborDown, false)
		l.expect("bird says that BFD is down", seed, "10.1.0.4", "10.1.0.5")
		l.restarting(bird)
		time.Sleep(bfdSignaled)
		l.settle()
		l.withdraw(quagga, seed)
		l.expect("because it restarts", seed, "10.1.0.5")
		if got := l.log.lines("event=bfd-down", "failed=false"); len(got) != 1 {
			t.Errorf("journal: %q", got)
		}
	})
	bubble(t, "it says so and does not restart", func(t *testing.T) {
		l := bfdLab(t, nil)
		l.becomes(bird, bfd.Down, bfd.Down, bfd.DiagNeighborDown, false)
		time.Sleep(bfdSignaled)
		l.settle()
		l.expect("one way is cut", seed, "10.1.0.4")
		if got := l.log.lines("event=bfd-down", "failed=true"); len(got) != 1 {
			t.Errorf("journal: %q", got)
		}
	})
	bubble(t, "no restart has begun", func(t *testing.T) { // section 4.3.2.2
		l := bfdLab(t, nil)
		l.bfdSilent(bird)
		l.expect("bird is silent", seed, "10.1.0.4")
	})
}

// bfd.strict: BGP waits for BFD.
func TestBFDStrict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, m *fibtest.Machine) {
			withBFD(c, m)
			c.Peers[0].BFD.Strict = true
		})
		holds := func(when, want string) {
			t.Helper()
			got := l.sp.asked()
			last := got[strings.LastIndex(got, ", ")+1:]
			if strings.TrimSpace(last) != want {
				t.Errorf("%s: asked of the speaker: %q, want %q in the end", when, got, want)
			}
		}
		l.settle()
		holds("at first", "hold-down true 10.1.0.4")
		l.bfdUp(quagga)
		holds("BFD is up", "hold-down false 10.1.0.4")
		l.up(quagga)
		time.Sleep(2 * bfdLook)
		l.sp.asked()
		l.idle(quagga) // the speaker may have made the session anew, and that waits for BFD again
		time.Sleep(2 * bfdLook)
		holds("the session is lost, and BFD is up", "hold-down false 10.1.0.4")
		l.up(quagga)
		time.Sleep(2 * bfdLook)
		l.sp.asked()
		l.bfdSilent(quagga)
		l.idle(quagga)
		l.settle()
		time.Sleep(2 * bfdLook)
		holds("quagga is silent", "hold-down true 10.1.0.4")
		l.becomes(quagga, bfd.Down, bfd.AdminDown, bfd.DiagTimeExpired, false)
		time.Sleep(2 * bfdLook)
		holds("quagga takes BFD down", "hold-down false 10.1.0.4")
		l.reload(func(c *config.Config) { c.Peers[0].BFD.Strict = false })
		l.up(quagga)
		time.Sleep(2 * bfdLook)
		l.sp.asked()
		l.atRest()
	})
}

// S11: a next hop that is no peer, whoever announces it.
func TestBFDNextHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb := addr("10.1.0.100")
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			c.FIB.BFDNextHops = config.BFDNextHops{Addresses: []netip.Addr{lb}, BFDSession: bfdSession()}
		})
		l.up(quagga, bird)
		l.announceWith(quagga, attrs(lb, 1), seed)
		l.announceWith(bird, attrs(bird, 2), seed)
		only := prefix("192.168.7.0/24")
		l.announceWith(quagga, attrs(lb, 1), only)
		l.settle()
		l.expect("never up", seed, "10.1.0.100")
		l.bfdUp(lb)
		l.bfdSilent(lb)
		l.expect("silent", seed, "10.1.0.5")
		l.expect("silent", only)
		if f := l.a.Failovers(t.Context()); len(f) != 1 || f[0].Signal != "bfd 10.1.0.100" {
			t.Errorf("failovers: %+v", f)
		}
		x, err := l.a.explain(t.Context(), only.String())
		if err != nil || x.Reason != "next-hop-unreachable" || !strings.Contains(text(x), "BFD says that the path to next hop 10.1.0.100 is dead") {
			t.Errorf("explain: %+v, %v", x, err)
		}
		l.m.AddLink("eth1", prefix("10.9.0.1/24")) // the host is read again
		l.settle()
		l.expect("silent still", seed, "10.1.0.5")
		l.bfdUp(lb)
		l.settle()
		l.expect("up again", seed, "10.1.0.100")
		l.expect("up again", only, "10.1.0.100")
		if got := l.sp.asked(); strings.Contains(got, "bfd-down") {
			t.Errorf("asked of the speaker: %q", got)
		}
	})
}

// Sessions follow the configuration and the host, and survive what only changes their
// parameters.
func TestBFDFollowsTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		key := filepath.Join(dir, "key")
		far := addr("10.9.0.4")
		l := newLab(t, func(c *config.Config, m *fibtest.Machine) {
			withBFD(c, m)
			c.Peers[1].BFD.MinTTL = 254
			c.Peers[1].Address = far
		})
		asked := func(when, want string) {
			t.Helper()
			l.settle()
			if got := l.bfd.asked(); got != want {
				t.Errorf("%s: asked of BFD: %q, want %q", when, got, want)
			}
		}
		asked("start", "add 10.1.0.4 300ms x 3, add 10.9.0.4 300ms x 3 multihop ttl 254")
		l.bfdUp(quagga)
		l.reload(func(c *config.Config) { c.Peers[0].BFD.Interval = 50 * time.Millisecond; c.Peers[0].Name = "renamed" })
		asked("interval", "update 10.1.0.4 50ms x 3")
		if b := l.a.BFD(); len(b.Sessions) != 2 || b.Sessions[1].Peer != "renamed" || b.Sessions[1].State != "up" || b.Sessions[1].Interval != 0.05 {
			t.Errorf("BFD() = %+v", b)
		}

		l.reload(func(c *config.Config) {
			c.Peers[0].BFD.Auth = config.BFDAuth{Type: config.BFDKeyedSHA1, KeyID: 7, KeyFile: key}
		})
		asked("no key", "")
		if b := l.a.BFD(); !strings.Contains(b.Sessions[1].Error, key) {
			t.Errorf("BFD() = %+v, want the file that is missing", b)
		}
		write := func(text string) {
			if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("one\n")
		time.Sleep(bfdRetry)
		asked("a key", "update 10.1.0.4 50ms x 3 auth 7 one")
		write("two\n")
		l.becomes(quagga, bfd.Up, bfd.Up, bfd.DiagNone, false)
		asked("another key in the file", "")
		l.reload(func(*config.Config) {})
		asked("reload", "update 10.1.0.4 50ms x 3 auth 7 two")
		if got := l.log.lines("two"); len(got) > 0 {
			t.Errorf("the key is in the log: %q", got)
		}

		l.reload(func(c *config.Config) { c.Peers[0].BFD.Mode = config.BFDMultihop })
		asked("mode", "add 10.1.0.4 50ms x 3 multihop auth 7 two, remove 10.1.0.4 50ms x 3 auth 7 two")
		eth1 := l.m.AddLink("eth1", prefix("10.9.0.1/24"))
		asked("another subnet", "add 10.9.0.4 300ms x 3, remove 10.9.0.4 300ms x 3 multihop ttl 254")
		l.m.SetCarrier(eth1, false)
		asked("no carrier", "")

		l.bfd.failing(errors.New("bind UDP port 3784: address already in use"))
		l.reload(func(c *config.Config) {
			c.FIB.BFDNextHops = config.BFDNextHops{Addresses: []netip.Addr{addr("10.1.0.100")}, BFDSession: bfdSession()}
		})
		if got := l.bfd.asked(); !strings.Contains(got, "add 10.1.0.100 300ms x 3") {
			t.Errorf("refused: asked of BFD: %q", got)
		}
		if st, err := l.a.Status(t.Context()); err != nil || !strings.Contains(text(st.Degraded), "BFD with next hop 10.1.0.100 does not run: bind UDP port 3784") {
			t.Errorf("status: %+v, %v", st, err)
		}
		l.bfd.failing(nil)
		time.Sleep(bfdRetry)
		asked("again", "add 10.1.0.100 300ms x 3")
		l.reload(func(c *config.Config) {
			c.Peers = c.Peers[:1]
			c.FIB.BFDNextHops.Addresses = nil
			c.Peers[0].Shutdown = true
		})
		asked("all removed", "remove 10.1.0.100 300ms x 3, remove 10.1.0.4 50ms x 3 multihop auth 7 two, remove 10.9.0.4 300ms x 3")
	})
}
