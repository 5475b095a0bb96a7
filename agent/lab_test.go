package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
	"github.com/nexthopd/nexthopd/metrics"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// The seed case of S15: two NVAs, and a prefix behind both.
var (
	quagga = addr("10.1.0.4")
	bird   = addr("10.1.0.5")
	seed   = prefix("192.168.255.0/24")
)

const nvaASN = 65147

var owner = fib.Owner{Table: 254, Metric: 20, Protocol: 165, FirstID: fib.DefaultFirstID, LastID: fib.DefaultLastID}

// testConfig is a valid configuration with the two NVAs.
func testConfig() *config.Config {
	peer := func(name string, a netip.Addr) config.Peer {
		return config.Peer{Name: name, Address: a, ASN: nvaASN, Port: 179, HoldTime: 180 * time.Second, Keepalive: 60 * time.Second,
			GracefulRestart: config.GracefulRestart{Enabled: true, RestartTime: 2 * time.Minute, StaleTime: 6 * time.Minute}}
	}
	return &config.Config{
		ASN: 65515, RouterID: addr("10.1.2.4"),
		Listen: []netip.AddrPort{netip.MustParseAddrPort("10.1.2.4:179")},
		VNet:   config.VNet{Prefixes: []netip.Prefix{prefix("10.1.0.0/16"), prefix("fd00:1::/64")}},
		Peers:  []config.Peer{peer("quagga", quagga), peer("bird", bird)},
		FIB: config.FIB{
			Table: owner.Table, Metric: owner.Metric, Protocol: owner.Protocol, MaxPaths: 64, Mode: config.ModeInstall,
			NextHopObjects: true, SweepAfter: 2 * time.Minute, SweepShare: 100, OnStop: config.OnStopKeep,
		},
		Announce: config.AnnounceForwarding,
	}
}

// lab is an agent on a fake host, inside a synctest bubble.
type lab struct {
	t    *testing.T
	cfg  *config.Config
	m    *fibtest.Machine
	eth0 int
	k    *kernel
	a    *Agent
	sp   *speaker
	bfd  *bfdProcess
	log  *logBuffer
	stop func() error // ends the loop and returns its error
}

// kernel counts the calls of a fake kernel and can fail them.
type kernel struct {
	*fibtest.Kernel
	mu      sync.Mutex // guards the rest
	applies int
	dumps   int
	hosts   int
	lookups int
	// fail, if set, is asked before every call: "apply", "dump", "host", "lookup".
	fail func(call string) error
}

func (k *kernel) call(name string, n *int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	*n++
	if k.fail != nil {
		return k.fail(name)
	}
	return nil
}

func (k *kernel) Apply(ops []fib.Op) ([]fib.OpError, error) {
	if err := k.call("apply", &k.applies); err != nil {
		// The outcome is unknown: some of it was done.
		_, _ = k.Kernel.Apply(ops[:len(ops)/2])
		return nil, err
	}
	return k.Kernel.Apply(ops)
}

func (k *kernel) Dump(urgent func() bool) (fib.Snapshot, error) {
	if err := k.call("dump", &k.dumps); err != nil {
		return fib.Snapshot{}, err
	}
	return k.Kernel.Dump(urgent)
}

func (k *kernel) Host() (*fib.Host, error) {
	if err := k.call("host", &k.hosts); err != nil {
		return nil, err
	}
	return k.Kernel.Host()
}

func (k *kernel) Lookup(p netip.Prefix) ([]fib.Route, error) {
	if err := k.call("lookup", &k.lookups); err != nil {
		return nil, err
	}
	return k.Kernel.Lookup(p)
}

func (k *kernel) failing(f func(call string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = f
}

// failNth makes the nth call of one name fail, once.
func failNth(name string, n int) func(string) error {
	return func(call string) error {
		if call != name {
			return nil
		}
		if n--; n == -1 {
			return errors.New("no buffer space available")
		}
		return nil
	}
}

func (k *kernel) counts() (applies, dumps, hosts int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.applies, k.dumps, k.hosts
}

// speaker is a BGP speaker without BGP.
type speaker struct {
	mu         sync.Mutex // guards the rest
	peers      []config.Peer
	vnet       []netip.Prefix
	info       map[netip.Addr]session.PeerInfo
	advertised map[netip.Addr][]session.Advertised
	err        error
	calls      []string // what was asked of it
	refuse     string   // the call to fail
	withheld   map[session.Withheld]bool
}

func (s *speaker) RefuseInside(prefixes, _ []netip.Prefix) error { return nil }

func (s *speaker) Withhold(changes []session.Withheld) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withheld == nil {
		s.withheld = make(map[session.Withheld]bool)
	}
	for _, c := range changes {
		key := session.Withheld{Peer: c.Peer, Prefix: c.Prefix, Held: true}
		if c.Held == s.withheld[key] {
			panic(fmt.Sprintf("no change: %+v", c))
		}
		if c.Held {
			s.withheld[key] = true
		} else {
			delete(s.withheld, key)
		}
	}
}

// held lists what is withheld, "peer prefix", in order.
func (s *speaker) held() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for k := range s.withheld {
		list = append(list, fmt.Sprint(k.Peer, " ", k.Prefix))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (s *speaker) AddPeer(p config.Peer) error {
	s.mu.Lock()
	s.peers = append(s.peers, p)
	err := s.err
	s.mu.Unlock()
	return errors.Join(err, s.call("add", p.Address))
}

func (s *speaker) SetRanges([]config.DynamicPeers) error { return nil }

func (s *speaker) SetVNet(prefixes []netip.Prefix, _, _ netip.Addr) error {
	s.mu.Lock()
	s.vnet = prefixes
	s.mu.Unlock()
	return s.call("vnet", prefixes)
}

func (s *speaker) Peers() []session.PeerInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []session.PeerInfo
	for _, i := range s.info {
		out = append(out, i)
	}
	return out
}

func (s *speaker) Advertised(peer netip.Addr) ([]session.Advertised, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.advertised[peer]), s.err
}

// call notes what the agent asked for, "verb subject"; refuse fails the calls it names.
func (s *speaker) call(what string, subject any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprint(what, " ", subject)
	s.calls = append(s.calls, text)
	if s.refuse == text {
		return errors.New("refused by the test")
	}
	return nil
}

// asked returns the calls since it was last asked.
func (s *speaker) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.calls, ", ")
	s.calls = nil
	return text
}

func (s *speaker) RemovePeer(a netip.Addr) error         { return s.call("remove", a) }
func (s *speaker) UpdatePeer(p config.Peer) error        { return s.call("update", p.Address) }
func (s *speaker) Shutdown(a netip.Addr, _ string) error { return s.call("shutdown", a) }
func (s *speaker) Enable(a netip.Addr) error             { return s.call("enable", a) }
func (s *speaker) Reset(a netip.Addr, _ string) error    { return s.call("reset", a) }
func (s *speaker) Resend(a netip.Addr) error             { return s.call("resend", a) }
func (s *speaker) EndRestart(a netip.Addr)               { _ = s.call("end-restart", a) }
func (s *speaker) SetBranchToBranch(on bool) error       { return s.call("branch-to-branch", on) }
func (s *speaker) SetDrain(on bool) error                { return s.call("drain", on) }
func (s *speaker) BFDDown(a netip.Addr, _ string) error  { return s.call("bfd-down", a) }
func (s *speaker) HoldDown(a netip.Addr, on bool) error {
	return s.call(fmt.Sprint("hold-down ", on), a)
}
func (s *speaker) LimitReached(a netip.Addr, f session.Family, limit int, text string) {
	_ = s.call("limit", fmt.Sprintf("%s %s %d: %s", a, f, limit, text))
}

// logBuffer keeps the log for the test to look at.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns the records at info and above that hold all of the texts.
func (l *logBuffer) lines(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.b.String()) {
		if !strings.Contains(line, "level=DEBUG") && !slices.ContainsFunc(texts, func(x string) bool { return !strings.Contains(line, x) }) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// newHost is a host with one interface in the VNet.
func newHost() (m *fibtest.Machine, eth0 int) {
	m = fibtest.NewMachine()
	eth0 = m.AddLink("eth0", prefix("10.1.2.4/16"), prefix("fd00:1::4/64"))
	return m, eth0
}

// newLab starts an agent on a new host. change may alter the configuration and the host
// before.
func newLab(t *testing.T, change func(*config.Config, *fibtest.Machine)) *lab {
	cfg := testConfig()
	m, eth0 := newHost()
	if change != nil {
		change(cfg, m)
	}
	return startLab(t, cfg, m, eth0)
}

// newAgent is an agent that logs nothing.
func newAgent(cfg *config.Config, k fib.Kernel) *Agent {
	return New(Options{Config: cfg, Owner: owner, Kernel: k, Log: slog.New(slog.DiscardHandler), Metrics: metrics.NewInstruments()})
}

// startLab starts an agent on a host that may have been in use before.
func startLab(t *testing.T, cfg *config.Config, m *fibtest.Machine, eth0 int) *lab {
	t.Helper()
	l := &lab{t: t, cfg: cfg, m: m, eth0: eth0, sp: &speaker{info: map[netip.Addr]session.PeerInfo{}}, log: &logBuffer{}, bfd: &bfdProcess{}}
	l.k = &kernel{Kernel: m.Open(owner, !cfg.FIB.NextHopObjects)}
	l.a = New(Options{
		Config: cfg, ConfigFile: "/etc/nexthopd/nexthopd.yaml", Version: "1.0.0", Owner: owner, Kernel: l.k, BFD: l.bfd,
		Log: slog.New(catalogued{t, slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})}), Metrics: metrics.NewInstruments(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	subscribed := make(chan struct{})
	tasks.Go(func() {
		_ = l.k.Watch(ctx, func(e fib.Event) {
			if e.Kind == fib.Subscribed {
				close(subscribed)
				return
			}
			l.a.KernelEvent(e)
		})
	})
	<-subscribed
	if _, err := l.a.Adopt(); err != nil {
		t.Fatalf("Adopt: %v", err)
	}
	if err := l.a.Connect(l.sp); err != nil {
		t.Fatalf("Connect: %v", err)
	}
	var failure error
	tasks.Go(func() { failure = l.a.Run(ctx) })
	tasks.Go(func() { _ = l.a.RunBFD(ctx) }) // never fails
	tasks.Go(func() { l.a.RunDynamic(ctx) })
	l.stop = sync.OnceValue(func() error {
		cancel()
		tasks.Wait()
		return failure
	})
	t.Cleanup(func() { _ = l.stop() })
	synctest.Wait()
	return l
}

// settle lets the agent come to rest.
func (l *lab) settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

func (l *lab) up(peers ...netip.Addr) {
	for _, p := range peers {
		l.a.Session(session.Event{
			Peer: p, State: session.Established, Previous: session.OpenConfirm, At: time.Now(),
			LocalAddress: addr("10.1.2.4"), RemoteID: p, PeerASN: nvaASN, Families: families, Preserved: families,
		})
	}
	synctest.Wait()
}

// accident is why a session may end.
var accident = session.DownReason{Cause: "hold-timer", Text: "hold timer expired"}

// down tells that a session ended, as the speaker does before it withdraws the paths.
func (l *lab) down(peer netip.Addr) {
	l.a.PeerDown(peer, accident, false)
	synctest.Wait()
}

// idle tells that a session ended, as the speaker does after it withdrew the paths.
func (l *lab) idle(peer netip.Addr) {
	l.a.Session(session.Event{
		Peer: peer, State: session.Idle, Previous: session.Established, At: time.Now(),
		Down: accident,
	})
	synctest.Wait()
}

func (l *lab) restarting(peer netip.Addr) {
	l.a.PeerDown(peer, session.DownReason{}, true)
	l.a.Session(session.Event{
		Peer: peer, State: session.Idle, Previous: session.Established, At: time.Now(), Graceful: true,
		Down: session.DownReason{Cause: "graceful-restart", Text: "the peer restarts and goes on forwarding"},
	})
	synctest.Wait()
}

func (l *lab) eor(peer netip.Addr) {
	l.a.EndOfRIB(peer, session.IPv4)
	l.a.EndOfRIB(peer, session.IPv6)
	synctest.Wait()
}

func sequence(n int) rib.ASPath {
	asns := make([]uint32, n)
	for i := range asns {
		asns[i] = nvaASN
	}
	return rib.ASPath{{Type: rib.ASSequence, ASNs: asns}}
}

// attrs are those of a path with its AS path n long.
func attrs(nextHop netip.Addr, n int) *rib.Attrs {
	return &rib.Attrs{NextHop: nextHop, ASPath: sequence(n)}
}

// announce tells of prefixes with the peer as next hop.
func (l *lab) announce(peer netip.Addr, prefixes ...netip.Prefix) {
	l.announceWith(peer, attrs(peer, 1), prefixes...)
}

func (l *lab) announceWith(peer netip.Addr, at *rib.Attrs, prefixes ...netip.Prefix) {
	var changes []rib.Change
	for _, p := range prefixes {
		changes = append(changes, rib.Change{Prefix: p, Attrs: at})
	}
	l.a.Learned(peer, changes)
	synctest.Wait()
}

func (l *lab) withdraw(peer netip.Addr, prefixes ...netip.Prefix) {
	l.announceWith(peer, nil, prefixes...)
}

// nextHops are the gateways of our route in the kernel; nil: there is none.
func (l *lab) nextHops(p netip.Prefix) []string { return nextHopsOf(l.m, p) }

func nextHopsOf(m *fibtest.Machine, p netip.Prefix) []string {
	for _, r := range m.Routes(p, owner.Table) {
		if r.Protocol == owner.Protocol && r.Metric == owner.Metric {
			out := []string{}
			for _, leg := range r.Legs {
				out = append(out, leg.Gateway.String())
			}
			return out
		}
	}
	return nil
}

// expect compares our route for a prefix with the gateways wanted; none: no route.
func (l *lab) expect(when string, p netip.Prefix, want ...string) {
	l.t.Helper()
	if got := l.nextHops(p); !slices.Equal(got, want) {
		l.t.Errorf("%s: route %s has next hops %q, want %q", when, p, got, want)
	}
}

// ops counts the operations since the last call, by kind.
func (l *lab) ops() map[fib.OpKind]int {
	n := make(map[fib.OpKind]int)
	for _, op := range l.k.TakeOps() {
		n[op.Kind]++
	}
	return n
}

// many returns n prefixes.
func many(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
	}
	return out
}

// atRest fails the test when the agent does anything while nothing happens. What a foreign
// route is in the way of may be tried every 30 s.
func (l *lab) atRest() {
	l.t.Helper()
	l.settle()
	a1, d1, h1 := l.k.counts()
	beat := l.a.beat.Load()
	cycles := 0
	for range 60 {
		time.Sleep(time.Second)
		synctest.Wait()
		if b := l.a.beat.Load(); b != beat {
			beat = b
			cycles++
		}
	}
	retries := 3 * l.a.FIB().Rejected["foreign-route"]
	if a2, d2, h2 := l.k.counts(); a2-a1 > retries || d1 != d2 || h1 != h2 {
		l.t.Errorf("in an idle minute: %d writes, %d dumps, %d readings of the host, want none but for %d retries", a2-a1, d2-d1, h2-h1, retries)
	}
	if most := int(time.Minute/beatEvery) + 2 + retries; cycles > most {
		l.t.Errorf("the loop went round in %d of 60 idle seconds, want at most %d", cycles, most)
	}
}

// consistent checks that the agent's own counts add up, and agree with the kernel.
func (l *lab) consistent() {
	l.t.Helper()
	f := l.a.FIB()
	rejected := 0
	for _, n := range f.Rejected {
		rejected += n
	}
	if f.Prefixes != f.Installed+rejected {
		l.t.Errorf("%d prefixes, %d installed, rejected %v: they don't add up", f.Prefixes, f.Installed, f.Rejected)
	}
	snap, err := l.k.Kernel.Dump(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if len(snap.Routes) != f.Installed || len(snap.Groups) != f.Groups || len(snap.NextHops) != f.NextHops {
		l.t.Errorf("the kernel has %d routes, %d groups, %d next hops; the agent says %d, %d, %d",
			len(snap.Routes), len(snap.Groups), len(snap.NextHops), f.Installed, f.Groups, f.NextHops)
	}
	if got, want := l.sp.held(), l.shouldHold(); got != want {
		l.t.Errorf("withheld: %q, want %q", got, want)
	}
}

// shouldHold lists the paths that must not be announced, as the views tell (S31).
func (l *lab) shouldHold() string {
	var list []string
	_ = l.a.do(context.Background(), func() {
		l.a.mu.Lock()
		defer l.a.mu.Unlock()
		for _, p := range l.a.rib.Prefixes() {
			j := l.a.judge(p)
			whole := []rib.Reason{rib.InsideVNet, rib.CoversNextHop, rib.ForeignRoute}
			each := []rib.Reason{rib.Unreachable, rib.IsSelf, rib.Refused, rib.PrefixLimit}
			for _, v := range j.verdicts {
				if v.Attrs.NextHop == fib.Discard || slices.Contains(whole, j.why) || slices.Contains(each, v.Reason) || l.a.policy.Path(p, v.Path) != "" || l.a.table.Refused(p) {
					list = append(list, fmt.Sprint(l.a.peers.bySource[v.Path.Source].cfg.Address, " ", p))
				}
			}
		}
	})
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func text(v any) string { return fmt.Sprintf("%+v", v) }
