package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// rekey changes the TCP MD5 key of the connection that a process has with an IPv4 address,
// as a router does that keeps its session when its password changes. FRR and BIRD don't.
func rekey(t *testing.T, pid int, remote netip.Addr, secret string) {
	t.Helper()
	process := value(unix.PidfdOpen(pid, 0))(t)
	defer unix.Close(process)
	sig := unix.TCPMD5Sig{Keylen: uint16(len(secret))}
	copy(sig.Key[:], secret)
	ip := remote.As4()
	sig.Addr.Family = unix.AF_INET
	copy(sig.Addr.Data[2:], ip[:])
	n := 0
	for _, entry := range value(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)))(t) {
		number := value(strconv.Atoi(entry.Name()))(t)
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if peer, err := unix.Getpeername(fd); err == nil {
			if a, ok := peer.(*unix.SockaddrInet4); ok && a.Addr == ip {
				must(t, unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG_EXT, &sig))
				n++
			}
		}
		unix.Close(fd)
	}
	if n != 1 {
		t.Fatalf("process %d has %d connections with %s, want 1", pid, n, remote)
	}
}

// S7: a new secret, on both sides and one after the other, resets nothing and loses no
// packet; what is announced meanwhile arrives. After that only the new one counts.
func TestS7_NewSecret(t *testing.T) {
	requireFRR(t)
	b := newSeed(t, 2)
	file := filepath.Join(b.Dir(), "password")
	write := func(secret string) { must(t, os.WriteFile(file, []byte(secret+"\n"), 0o600)) }
	write("s3cret-0")
	b.start(t, hostConfig+"peers:\n"+peer("frr", lab.SeedNVA(0), lab.SeedASN, "password-file: "+file))
	r := b.router4(0, lab.SeedBranch)
	r.session = []string{"password s3cret-0"}
	f := r.startFRR(t)
	b.up(t, "frr")
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	frrPaths(t, f, lab.SeedVNet, frrPath("65515", "10.1.2.4"))
	tr := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
	since := time.Now()
	for i := range 3 {
		secret := fmt.Sprintf("s3cret-%d", i+1)
		write(secret)
		if out := b.cli(t, "reload"); !strings.Contains(out, "old secret -> new secret") || !strings.Contains(out, "sessions reset: none") {
			t.Errorf("the reload says:\n%s", out)
		}
		p := prefix(fmt.Sprintf("172.16.%d.0/24", i))
		value(f.Vtysh(within(t), "configure terminal", fmt.Sprintf("router bgp %d", lab.SeedASN), "address-family ipv4 unicast", "network "+p.String()))(t)
		rekey(t, f.BGPD.PID(), lab.SeedHost, secret)
		b.route(t, p, lab.SeedNVA(0))
	}
	b.steady(t, tr, 300)
	if r := tr.Report(since); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
	}
	if p := b.peerStatus(t, "frr"); p.State != "Established" || p.Flaps != 0 {
		t.Errorf("the session was disturbed: %+v", p)
	}
	// FRR's own way is a session anew.
	value(f.Vtysh(within(t), "configure terminal", fmt.Sprintf("router bgp %d", lab.SeedASN), "neighbor "+lab.SeedHost.String()+" password s3cret-3"))(t)
	poll(t, "a session with the last secret", func() error {
		if p := b.peerStatus(t, "frr"); p.State != "Established" || p.Flaps == 0 {
			return fmt.Errorf("%s, %d flaps", p.State, p.Flaps)
		}
		return nil
	})
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	if log := b.d.Proc.Log(); strings.Contains(log, "s3cret") {
		t.Error("the log tells a secret")
	}
}

// S3, S7: a range with a secret and a list of ASNs.
func TestS3_DynamicSecret(t *testing.T) {
	requireFRR(t)
	b := newSeed(t, 2)
	file := filepath.Join(b.Dir(), "password")
	must(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	b.start(t, hostConfig+"dynamic-peers:\n- {range: 10.1.0.4/31, name: branch, asn: [64999, 65140-65150], password-file: "+file+"}\n")
	r := b.router4(0, lab.SeedBranch)
	r.session = []string{"password s3cret"}
	r.startFRR(t)
	name := "branch-" + lab.SeedNVA(0).String()
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	if p := b.peerStatus(t, name); !p.Dynamic || p.State != "Established" || p.ASN != lab.SeedASN {
		t.Errorf("the peer: %+v", p)
	}
	t.Run("S3/no password", func(t *testing.T) { never(t, b.NVAs[1], nva4(1)) })
	other := nva4(1)
	other.Password, other.ASN = "s3cret", 65151
	t.Run("S3/AS", func(t *testing.T) { never(t, b.NVAs[1], other) })
	other.ASN = 64999
	b.dial(t, b.NVAs[1], other)
}

// S3: whoever floods with connections, a peer or a stranger, disturbs nobody's session, and
// another peer still gets in.
func TestS3_ConnectionFlood(t *testing.T) {
	b := newBed(t, 4, hostConfig+"metrics: {listen: \"127.0.0.1:9565\"}\n"+nvaPeers(3))
	s := b.nvas(t, 2)
	announce(t, s[0], nva.Attrs{NextHop: lab.SeedNVA(0)}, lab.SeedBranch)
	announce(t, s[1], nva.Attrs{NextHop: lab.SeedNVA(1)}, lab.SeedBranch)
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	tr := b.flows(t, lab.TrafficConfig{Flows: 12, Rate: 300})
	since := time.Now()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	for _, i := range []int{0, 3} {
		go func() {
			defer func() { ended <- struct{}{} }()
			for ctx.Err() == nil {
				_ = b.NVAs[i].Do(func() error {
					short, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					conn, err := nva.Connect(short, nva4(i).Transport)
					if err == nil {
						err = conn.Close()
					}
					return err
				})
			}
		}()
	}
	for _, reason := range []string{"rate", "stranger"} {
		poll(t, "connections refused: "+reason, func() error {
			answer, err := client(b.Host).Get("http://127.0.0.1:9565/metrics")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				return err
			}
			_, rest, _ := strings.Cut(string(text), `nexthopd_bgp_connections_refused_total{reason="`+reason+`"} `)
			count, _, _ := strings.Cut(rest, "\n")
			if n, err := strconv.ParseFloat(count, 64); err != nil || n < 200 {
				return fmt.Errorf("%q", count)
			}
			return nil
		})
	}
	third := b.dial(t, b.NVAs[2], nva4(2))
	announce(t, third, nva.Attrs{NextHop: lab.SeedNVA(2)}, lab.SeedBranch)
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1), lab.SeedNVA(2))
	stop()
	<-ended
	<-ended
	b.steady(t, tr, 300)
	if r := tr.Report(since); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
	}
	for i := range 3 {
		if p := b.peerStatus(t, fmt.Sprintf("nva%d", i+1)); p.State != "Established" || p.Flaps != 0 {
			t.Errorf("a session was disturbed: %+v", p)
		}
	}
	if n := strings.Count(b.d.Proc.Log(), "connection-refused"); n == 0 {
		t.Error("the log does not tell of the flood")
	}
}
