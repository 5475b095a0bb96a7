package e2e_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/bfd"
	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// bfdSoakEnv is how long TestBFDSoak takes, "10m" say, instead of seconds.
const bfdSoakEnv = "NEXTHOPD_BFD_SOAK"

// bfdStatus is what nexthopctl bfd tells.
func (b *bed) bfdStatus(t *testing.T) (s status.BFD) {
	t.Helper()
	must(t, json.Unmarshal([]byte(b.cli(t, "bfd", "-o", "json")), &s))
	return s
}

// Eight sessions of 50 ms raise no false alarm while the daemon loads 100,000 prefixes
// from each of two appliances, and loads and loses them again and again. The soak is with
// a multiplier of 3; without it, any machine will do.
func TestBFDSoak(t *testing.T) {
	lasts, n, multiplier := 8*time.Second, 100_000, uint8(40)
	if v := os.Getenv(bfdSoakEnv); v != "" {
		lasts, multiplier = value(time.ParseDuration(v))(t), 3
	}
	const watched = 8
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 9, byte(1 + i)}) }
	b := newSeed(t, 2)
	config := hostConfig + "branch-to-branch: false\n" + nvaPeers(2)
	for i := range watched {
		must(t, b.NVAVNet[1].AddAddr(at(i).String()+"/16"))
		config += peer(fmt.Sprintf("watched%d", i), at(i), lab.SeedASN, "passive: true", fmt.Sprintf("bfd: {enabled: true, interval: 50ms, multiplier: %d}", multiplier))
	}
	b.start(t, config)

	// The other ends: the same engine, in a process with the same priority.
	var alarms atomic.Int32
	far := bfd.NewProcess(bfd.Options{Priority: 1, OnChange: func(e bfd.Event) {
		if e.From == bfd.Up {
			alarms.Add(1)
			t.Logf("at the other end: %+v", e)
		}
	}}, slog.New(slog.DiscardHandler), func() *exec.Cmd {
		bin := filepath.Join(os.Getenv(lab.BinDirEnv), "nexthopd")
		return exec.Command("ip", "netns", "exec", b.NVAs[1].Namespace, bin, "bfd-worker")
	})
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = far.Run(ctx) }) // ends with ctx
	defer func() {
		cancel()
		task.Wait()
	}()
	for i := range watched {
		value(far.Add(bfd.Config{Peer: lab.SeedHost, Local: at(i), Interval: 50 * time.Millisecond, Multiplier: multiplier}))(t)
	}
	for i := range watched {
		b.bfdSession(t, fmt.Sprintf("watched%d", i), func(s status.BFDSession) error {
			if s.State != "up" || s.Polling || s.DetectionTime != float64(multiplier)*0.05 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	if s := b.bfdStatus(t).Engine.Scheduling; !strings.HasPrefix(s, "SCHED_RR") {
		t.Skipf("no promise without SCHED_RR: %s", s)
	}
	before := map[string]uint64{}
	for _, s := range b.bfdStatus(t).Sessions {
		before[s.Peer] = s.Changes
	}

	sessions := b.nvas(t, 2)
	table := prefixes(nva.IPv4, n)
	load := [][]byte{sessions[0].Encode(table, attrs(lab.SeedNVA(0), lab.SeedASN)), sessions[1].Encode(table, attrs(lab.SeedNVA(1), lab.SeedASN))}
	prepended := sessions[0].Encode(table, attrs(lab.SeedNVA(0), lab.SeedASN, lab.SeedASN))
	start, rounds := time.Now(), 0
	for ; rounds < 1 || time.Since(start) < lasts; rounds++ {
		must(t, sessions[1].Write(load[1]))
		must(t, sessions[0].Write(load[0]))
		b.route(t, table[n-1], lab.SeedNVA(0), lab.SeedNVA(1))
		must(t, sessions[0].Write(prepended))
		b.route(t, table[n-1], lab.SeedNVA(1))
		must(t, sessions[1].Write(nva.EncodeWithdraw(table)))
		b.route(t, table[n-1], lab.SeedNVA(0))
	}
	after := b.bfdStatus(t)
	var gap, late float64
	for _, s := range after.Sessions {
		gap, late = max(gap, s.MaxGap), max(late, s.MaxLate)
		if s.State != "up" || s.Changes != before[s.Peer] {
			t.Errorf("false alarm: %+v", s)
		}
	}
	t.Logf("%s, %d rounds of %d prefixes: longest gap between two packets %.1f ms, our latest packet %.1f ms late; %s, timers %.1f ms late at worst",
		time.Since(start).Round(time.Second), rounds, n, gap*1000, late*1000, after.Engine.Scheduling, after.Engine.MaxLate*1000)
	if n := alarms.Load(); n > 0 {
		t.Errorf("%d false alarms at the other end", n)
	}
}

// outsider sends what is no good BFD packet.
type outsider struct {
	conn *net.UDPConn
	to   []netip.AddrPort
	what [][]byte
}

// newOutsider sends from an address of a node, with a TTL.
func newOutsider(t *testing.T, n *lab.Node, from netip.Addr, ttl int, what ...[]byte) *outsider {
	t.Helper()
	o := &outsider{what: what}
	for _, port := range []uint16{3784, 4784} {
		o.to = append(o.to, netip.AddrPortFrom(lab.SeedHost, port))
	}
	must(t, n.Do(func() (err error) {
		o.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
		return err
	}))
	t.Cleanup(func() { _ = o.conn.Close() })
	raw := value(o.conn.SyscallConn())(t)
	var err error
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) }))
	must(t, err)
	return o
}

func (o *outsider) send(n int) {
	// What the queue has no room for is not sent: the test counts what was.
	_, _ = o.conn.WriteToUDPAddrPort(o.what[n/len(o.to)%len(o.what)], o.to[n%len(o.to)])
}

// bfdControl is a control packet that says Down, to a discriminator (RFC 5880 section 4.1).
func bfdControl(yours uint32) []byte {
	p := []byte{0x20, 0x40, 3, 24}
	for _, v := range []uint32{4711, yours, 1_000_000, 1_000_000, 0} {
		p = binary.BigEndian.AppendUint32(p, v)
	}
	return p
}

// 10,000 bad packets a second on each of both ports, from configured and foreign
// addresses, take no session down and little CPU.
func TestBFDFlood(t *testing.T) {
	requireBIRD(t)
	b := newBed(t, 2, hostConfig+"peers:\n"+peer("nva1", lab.SeedNVA(0), lab.SeedASN, "passive: true", "bfd: {enabled: true, multiplier: 10}")+
		peer("nva2", lab.SeedNVA(1), lab.SeedASN, "passive: true", "bfd: {enabled: true, multiplier: 10, mode: multihop, min-ttl: 60}"))
	for i := range 2 {
		r := b.router4(i, lab.SeedBranch)
		r.direct, r.bfd, r.bfdBy = i == 0, 300*time.Millisecond, 10
		r.startBIRD(t)
	}
	for _, name := range []string{"nva1", "nva2"} {
		b.bfdSession(t, name, bfdIs("up"))
	}
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	b.quiet(t)
	before := b.bfdStatus(t)
	must(t, b.NVAVNet[0].AddAddr("10.1.0.66/16")) // nobody's
	wrong, malformed := bfdControl(before.Sessions[0].LocalDiscriminator+1), make([]byte, 24)
	right := bfdControl(before.Sessions[0].LocalDiscriminator) // too far, or from elsewhere
	senders := []*outsider{
		newOutsider(t, b.NVAs[0], lab.SeedNVA(0), 255, wrong, malformed),
		newOutsider(t, b.NVAs[1], lab.SeedNVA(1), 255, wrong, malformed),
		newOutsider(t, b.NVAs[0], lab.SeedNVA(0), 59, right),
		newOutsider(t, b.NVAs[0], netip.MustParseAddr("10.1.0.66"), 255, right, wrong),
	}
	pids := []int{b.d.Proc.PID()}
	for _, file := range value(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0])))(t) {
		for _, child := range strings.Fields(string(value(os.ReadFile(file))(t))) {
			pids = append(pids, value(strconv.Atoi(child))(t))
		}
	}
	cpu := func() (sum time.Duration) {
		for _, pid := range pids {
			sum += cpuTime(t, pid)
		}
		return sum
	}
	const rate, lasts = 20_000, 4 * time.Second
	used, ours, start, sent := cpu(), cpuTime(t, os.Getpid()), time.Now(), 0
	for time.Since(start) < lasts {
		for due := int(time.Since(start).Seconds() * rate); sent < due; sent++ {
			senders[sent%len(senders)].send(sent / len(senders))
		}
		time.Sleep(time.Millisecond)
	}
	elapsed := time.Since(start)
	used, ours = cpu()-used, cpuTime(t, os.Getpid())-ours
	share := used.Seconds() / elapsed.Seconds()
	after := b.bfdStatus(t)
	t.Logf("%d bad packets in %s: %.1f %% of a core for %d processes; %+v", sent, elapsed.Round(time.Millisecond), 100*share, len(pids), after.Engine)
	// On a slow machine the flood costs everybody more, who makes it, too.
	if share > 0.25 && used > 2*ours || len(pids) < 2 {
		t.Errorf("the flood costs %.1f %% of a core in processes %v, and %s of CPU to make; want at most 25 %%, and the worker among them", 100*share, pids, ours)
	}
	if counted := after.Engine.Received - before.Engine.Received + after.Engine.KernelDrops - before.Engine.KernelDrops; counted < uint64(sent)*9/10 {
		t.Errorf("%d of %d packets were counted: was there a flood?", counted, sent)
	}
	for i, s := range after.Sessions {
		if s.State != "up" || s.Changes != before.Sessions[i].Changes {
			t.Errorf("before %+v, after %+v", before.Sessions[i], s)
		}
	}
	for _, name := range []string{"nva1", "nva2"} {
		if p := b.peerStatus(t, name); p.Flaps != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// Mode auto takes several hops where a router is in between, over both families.
func TestBFDThroughARouter(t *testing.T) {
	requireFRR(t)
	requireBIRD(t)
	b := newSeed(t, 0)
	router, segment := value(b.Node("router"))(t), value(b.Segment("far"))(t)
	value(b.VNet.Attach(router, "eth0", "10.1.0.200/16", "2001:db8:1::200/64"))(t)
	value(segment.Attach(router, "eth1", "10.50.0.1/24", "2001:db8:50::1/64"))(t)
	far := make([]*lab.Node, 2)
	ifaces := make([]*lab.Iface, 2)
	for i := range far {
		far[i] = value(b.Node(fmt.Sprintf("far%d", i+1)))(t)
		ifaces[i] = value(segment.Attach(far[i], "eth0", fmt.Sprintf("10.50.0.%d/24", 4+i), fmt.Sprintf("2001:db8:50::%d/64", 4+i)))(t)
		must(t, far[i].IP("route add default via 10.50.0.1", "route add default via 2001:db8:50::1"))
	}
	must(t, b.Host.IP("route add 10.50.0.0/24 via 10.1.0.200", "route add 2001:db8:50::/64 via 2001:db8:1::200"))
	first, second := netip.MustParseAddr("10.50.0.4"), netip.MustParseAddr("2001:db8:50::5")
	b.start(t, hostConfig+"peers:\n"+
		peer("far1", first, lab.SeedASN, "bfd: {enabled: true, min-ttl: 254}")+peer("far2", second, lab.SeedASN, "bfd: {enabled: true, min-ttl: 63}"))
	for i, local := range []netip.Addr{first, second} {
		r := router4At(far[i], local, i, lab.SeedBranch)
		r.bfd, r.bfdBy = 300*time.Millisecond, 3
		nvaKinds[i].start(t, r)
	}
	for _, name := range []string{"far1", "far2"} {
		if s := b.bfdSession(t, name, bfdIs("up")); s.Mode != "multihop" {
			t.Errorf("%+v", s)
		}
		b.up(t, name)
	}
	via := netip.MustParseAddr("10.1.0.200")
	b.route(t, lab.SeedBranch, via)
	must(t, ifaces[0].Cut())
	must(t, ifaces[1].Cut())
	b.route(t, lab.SeedBranch)
	for _, name := range []string{"far1", "far2"} {
		if p := b.session(t, name, "Idle"); p.LastDown != "BFD: control detection time expired" {
			t.Errorf("%+v", p)
		}
	}
}

// router4At is an appliance beyond the VNet, with its session over the family of local.
func router4At(n *lab.Node, local netip.Addr, i int, prefixes ...netip.Prefix) router {
	remote := lab.SeedHost
	if local.Is6() {
		remote = lab.SeedHost6
	}
	return router{
		node: n, id: lab.SeedNVA(i), local: local, remote: remote, asn: lab.SeedASN, prefixes: prefixes,
		own4: netip.AddrFrom4([4]byte{10, 50, 0, byte(4 + i)}), own6: netip.MustParseAddr(fmt.Sprintf("2001:db8:50::%d", 4+i)),
	}
}
