package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// patience is how long anything may take to show: a bound for slow machines, not what
// is expected.
const patience = 2 * time.Minute

// TestMain builds the programs once for all labs.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 || os.Getenv(lab.BinDirEnv) != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "nexthopd-bin-")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			err = errors.Join(lab.Build(dir, lab.Programs...), os.Setenv(lab.BinDirEnv, dir))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// must fails the test on an error that is not what is tested.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// within is a context for one step.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// poll waits until ok returns nil.
func poll(t *testing.T, what string, ok func() error) {
	t.Helper()
	must(t, lab.Eventually(within(t), what, ok))
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// prefixes are n prefixes of a family that nothing else uses, each one a /24 or a /64.
func prefixes(family nva.Family, n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		if family == nva.IPv4 {
			list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(100 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		} else {
			list[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xf0, byte(i >> 16), byte(i >> 8), byte(i)}), 64)
		}
	}
	return list
}

// bed is the seed network with nexthopd on its host.
type bed struct {
	*lab.Seed
	d        *lab.Daemon
	sessions []*nva.Session
}

// hostConfig is where the daemon of a bed listens, and its VNet.
const hostConfig = `router-id: 10.1.2.4
listen: [10.1.2.4, "2001:db8:1::2:4"]
vnet: {prefixes: [10.1.0.0/16, "2001:db8:1::/64"]}
`

// newBed builds the network and starts nexthopd. When the test fails, what an
// operator would look at is logged.
func newBed(t *testing.T, appliances int, config string) *bed {
	t.Helper()
	b := newSeed(t, appliances)
	b.start(t, config)
	return b
}

// newSeed is newBed without the daemon.
func newSeed(t *testing.T, appliances int) *bed {
	t.Helper()
	b := &bed{Seed: value(lab.NewSeed(lab.ForTest(t), appliances))(t)}
	t.Cleanup(func() {
		for _, s := range b.sessions {
			s.Close()
		}
	})
	return b
}

func (b *bed) start(t *testing.T, config string) {
	t.Helper()
	d, err := lab.StartDaemon(within(t), b.Host, config)
	b.d = d
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			b.picture(t)
		}
	})
}

// picture logs what nexthopctl and ip say. With 10,000 routes, the beginning has to do.
func (b *bed) picture(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	show := func(name, text string) {
		const most = 4000
		if len(text) > most {
			text = text[:most] + "\n[...]"
		}
		t.Logf("$ %s\n%s", name, text)
	}
	for _, command := range []string{"status", "peers -o wide", "learned -o wide", "advertised", "routes -o wide"} {
		out, stderr, exit, err := b.d.CLI(ctx, strings.Fields(command)...)
		if exit != 0 || err != nil {
			out += fmt.Sprintf("%s(exit status %d, %v)", stderr, exit, err)
		}
		show("nexthopctl "+command, out)
	}
	for _, command := range []string{"ip route", "ip -6 route", "ip nexthop"} {
		words := strings.Fields(command)
		out, err := b.Host.Run(ctx, words[0], words[1:]...)
		if err != nil {
			out += err.Error()
		}
		show(command, out)
	}
}

// peer writes a peer for the configuration; more are further keys. Tests announce as much
// as they like, unless they say a limit.
func peer(name string, address netip.Addr, asn uint32, more ...string) string {
	keys := append([]string{"name: " + name, fmt.Sprintf("address: %q", address), fmt.Sprintf("asn: %d", asn)}, more...)
	if !slices.ContainsFunc(more, func(k string) bool { return strings.HasPrefix(k, "prefix-limit:") }) {
		keys = append(keys, "prefix-limit: 2000000")
	}
	return "  - {" + strings.Join(keys, ", ") + "}\n"
}

// nvaPeers are the peers nva1, nva2, ... on their IPv4 addresses, and waiting for
// connections: the appliances of these tests come from their own side.
func nvaPeers(n int, more ...string) string {
	text := "peers:\n"
	for i := range n {
		text += peer(fmt.Sprintf("nva%d", i+1), lab.SeedNVA(i), lab.SeedASN, append([]string{"passive: true"}, more...)...)
	}
	return text
}

// cli runs nexthopctl, which must succeed.
func (b *bed) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, stderr, exit, err := b.d.CLI(within(t), args...)
	if err != nil || exit != 0 {
		t.Fatalf("nexthopctl %s: exit status %d, %v\n%s%s", strings.Join(args, " "), exit, err, out, stderr)
	}
	return out
}

// list reads the rows that nexthopctl prints as JSON.
func list[T any](t *testing.T, b *bed, args ...string) []T {
	t.Helper()
	var rows []T
	out := b.cli(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("nexthopctl %v: %v\n%s", args, err, out)
	}
	return rows
}

// explain is nexthopctl's explanation, as JSON and as people read it.
func (b *bed) explain(t *testing.T, query string) (status.Explanation, string) {
	t.Helper()
	var x status.Explanation
	must(t, json.Unmarshal([]byte(b.cli(t, "explain", query, "-o", "json")), &x))
	return x, b.cli(t, "explain", query)
}

// peerStatus is the peer's line of nexthopctl peers.
func (b *bed) peerStatus(t *testing.T, name string) status.Peer {
	t.Helper()
	all := list[status.Peer](t, b, "peers")
	i := slices.IndexFunc(all, func(p status.Peer) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("nexthopctl peers does not list %s: %+v", name, all)
	}
	return all[i]
}

// up waits until the sessions of these peers are established.
func (b *bed) up(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		b.session(t, name, "Established")
	}
}

// session waits until the peer's session has a state.
func (b *bed) session(t *testing.T, name, state string) status.Peer {
	t.Helper()
	var p status.Peer
	poll(t, "session of "+name, func() error {
		if p = b.peerStatus(t, name); p.State != state {
			return fmt.Errorf("%s is %s, last down: %q", name, p.State, p.LastDown)
		}
		return nil
	})
	return p
}

// route waits until the host has exactly these next hops for the prefix, and where
// there is one, exactly one route.
func (b *bed) route(t *testing.T, p netip.Prefix, gateways ...netip.Addr) {
	t.Helper()
	ctx := within(t)
	if err := b.Host.WaitGateways(ctx, p, gateways...); err != nil {
		_, text := b.explain(t, p.String())
		t.Fatalf("%v\n%s", err, text)
	}
	if out := b.ip(t, p); len(gateways) > 0 && strings.Count(out, "\n") != 1 {
		t.Errorf("%s has more than one route:\n%s", p, out)
	}
}

// ip is what ip(8) shows of exactly that prefix, one route a line.
func (b *bed) ip(t *testing.T, p netip.Prefix) string {
	t.Helper()
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
	}
	return value(b.Host.Run(within(t), "ip", family, "-o", "route", "show", "exact", p.String()))(t)
}

// learned waits until the learned view shows the peer's path of a prefix as ok wants it.
func (b *bed) learned(t *testing.T, peer string, p netip.Prefix, ok func(status.Path) error) {
	t.Helper()
	poll(t, "the learned path of "+p.String()+" from "+peer, func() error {
		for _, row := range list[status.Path](t, b, "learned", peer) {
			if row.Network == p.String() {
				return ok(row)
			}
		}
		return errors.New("not in the learned view")
	})
}

// reason is for learned: the path is kept, and not installed because of why.
func reason(why string) func(status.Path) error {
	return func(p status.Path) error {
		if p.Reason != why || p.Installed != (why == "") {
			return fmt.Errorf("reason %q, installed %t", p.Reason, p.Installed)
		}
		return nil
	}
}

// gone waits until the learned view lacks the prefix.
func (b *bed) gone(t *testing.T, peer string, p netip.Prefix) {
	t.Helper()
	poll(t, "withdrawal of "+p.String(), func() error {
		for _, row := range list[status.Path](t, b, "learned", peer) {
			if row.Network == p.String() {
				return fmt.Errorf("still learned: %+v", row)
			}
		}
		return nil
	})
}

// options is an appliance of the seed case at an address.
func options(local, remote netip.Addr) nva.Options {
	id := local
	if local.Is6() {
		a := local.As16()
		id = netip.AddrFrom4([4]byte{10, 6, a[14], a[15]}) // identifiers must differ
	}
	return nva.Options{
		Transport: nva.Transport{Local: local, Remote: netip.AddrPortFrom(remote, 179)},
		ASN:       lab.SeedASN, ID: id, Hold: 180 * time.Second,
		Families: []nva.Family{nva.IPv4, nva.IPv6},
	}
}

// nva4 and nva6 are appliance i on its address of a family.
func nva4(i int) nva.Options { return options(lab.SeedNVA(i), lab.SeedHost) }
func nva6(i int) nva.Options { return options(lab.SeedNVA6(i), lab.SeedHost6) }

// dialOnce opens a session from a node.
func dialOnce(ctx context.Context, n *lab.Node, o nva.Options) (*nva.Session, error) {
	var conn *net.TCPConn
	err := n.Do(func() (err error) { // the namespace is that of the thread
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		conn, err = nva.Connect(short, o.Transport)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nva.Handshake(ctx, conn, o)
}

// dial opens a session from a node, again and again as a router does. It lives as long
// as the bed, beyond the sub-test that opened it.
func (b *bed) dial(t *testing.T, n *lab.Node, o nva.Options) *nva.Session {
	t.Helper()
	ctx := within(t)
	var s *nva.Session
	poll(t, "session of "+o.Local.String(), func() (err error) {
		s, err = dialOnce(ctx, n, o)
		return err
	})
	b.sessions = append(b.sessions, s)
	return s
}

// nvas opens the IPv4 sessions of the first n appliances.
func (b *bed) nvas(t *testing.T, n int) []*nva.Session {
	t.Helper()
	var list []*nva.Session
	for i := range n {
		list = append(list, b.dial(t, b.NVAs[i], nva4(i)))
	}
	return list
}

// announce sends prefixes with an AS path that holds the appliance's own ASN and then
// the others.
func announce(t *testing.T, s *nva.Session, a nva.Attrs, list ...netip.Prefix) {
	t.Helper()
	if a.ASPath == nil {
		a.ASPath = nva.Seq(lab.SeedASN)
	}
	must(t, s.Announce(a, list...))
}

// flows starts traffic from the client to the server and waits until it arrives. The
// time it returns is when it did.
func (b *bed) flows(t *testing.T, c lab.TrafficConfig) *lab.Traffic {
	t.Helper()
	tr := value(b.Traffic(c))(t)
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			tr.Stop()
		}
	})
	b.steady(t, tr, 500)
	return tr
}

// steady waits until enough packets in a row have arrived without a loss, and returns
// how they fared.
func (b *bed) steady(t *testing.T, tr *lab.Traffic, enough int) lab.Report {
	t.Helper()
	since := time.Now()
	var r lab.Report
	poll(t, "traffic without loss", func() error {
		if r = tr.Report(since); r.Lost() > 0 {
			since = time.Now()
			return fmt.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
		}
		if r.Sent() < enough {
			return fmt.Errorf("%d packets sent", r.Sent())
		}
		return nil
	})
	return r
}

// medIs and asPathIs are for learned.
func medIs(med uint32) func(status.Path) error {
	return func(p status.Path) error {
		if p.MED == nil || *p.MED != med {
			return fmt.Errorf("MED of %+v, want %d", p, med)
		}
		return nil
	}
}

func asPathIs(want string) func(status.Path) error {
	return func(p status.Path) error {
		if p.AsPath != want {
			return fmt.Errorf("AS path %q, want %q", p.AsPath, want)
		}
		return nil
	}
}

// ours lists every kernel object of the agent on the host.
func (b *bed) ours(t *testing.T) string {
	t.Helper()
	var all string
	for _, what := range []string{"-4 route show table all", "-6 route show table all", "nexthop show"} {
		all += value(b.Host.Run(within(t), "ip", append(strings.Fields("-N -o "+what), "proto", "165")...))(t)
	}
	return all
}

// fibModes are the two ways to write routes, as configuration.
var fibModes = []struct{ name, config string }{
	{"groups", ""},
	{"classic", "fib: {next-hop-objects: false}\n"},
}

// cpuTime is how much CPU a process has used (proc(5): utime and stime, in ticks of 10 ms).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat := string(value(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))(t))
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var ticks time.Duration
	for _, field := range f[11:13] {
		ticks += time.Duration(value(strconv.Atoi(field))(t))
	}
	return ticks * 10 * time.Millisecond
}

// residentMB is a process's resident memory.
func residentMB(t *testing.T, pid int) int {
	t.Helper()
	statm := string(value(os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)))(t))
	return value(strconv.Atoi(strings.Fields(statm)[1]))(t) * os.Getpagesize() >> 20
}
