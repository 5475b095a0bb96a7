package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// ownPrefixes are the n prefixes that appliance i alone announces.
func ownPrefixes(i, n int) []netip.Prefix {
	return prefixes(nva.IPv4, (i+1)*n)[i*n:]
}

// otherASN is that of an appliance that hears what those of the seed case announce: among
// themselves they would see a loop.
const otherASN = 65200

// other opens the session of appliance i with that ASN.
func (b *bed) other(t *testing.T, i int) *nva.Session {
	t.Helper()
	o := nva4(i)
	o.ASN = otherASN
	return b.dial(t, b.NVAs[i], o)
}

// S9: eight peers beyond their limit, four that are closed and four that are frozen, and
// a ninth that must not notice.
func TestS9_EightPeersBeyondTheirLimit(t *testing.T) {
	const limit, sent, peers = 200, 300, 8
	config := hostConfig + "metrics: {listen: \"127.0.0.1:9565\"}\npeers:\n"
	for i := range peers {
		action := "close"
		if i >= peers/2 {
			action = "freeze"
		}
		config += peer(fmt.Sprintf("nva%d", i+1), lab.SeedNVA(i), lab.SeedASN, "passive: true",
			fmt.Sprintf("prefix-limit: {max: %d, action: %s, idle: 1s}", limit, action))
	}
	config += peer("good", lab.SeedNVA(peers), otherASN, "passive: true")
	b := newBed(t, peers+1, config)
	good := b.other(t, peers)
	goods := ownPrefixes(peers, sent)
	announce(t, good, nva.Attrs{ASPath: nva.Seq(otherASN)}, goods...)
	b.route(t, goods[sent-1], lab.SeedNVA(peers))

	s := b.nvas(t, peers)
	for i := range s {
		own := ownPrefixes(i, sent)
		for range 3 { // what is known counts once
			announce(t, s[i], nva.Attrs{}, own[:limit]...)
		}
	}
	for i := range s {
		name := fmt.Sprintf("nva%d", i+1)
		poll(t, name+" at its limit", func() error {
			if p := b.peerStatus(t, name); p.Received != limit || p.Flaps != 0 || p.Warning != "announces 200 IPv4 prefixes, its prefix-limit is 200" {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		announce(t, s[i], nva.Attrs{}, ownPrefixes(i, sent)[limit:]...)
	}
	for i := range peers / 2 {
		name := fmt.Sprintf("nva%d", i+1)
		<-s[i].Done()
		var n nva.Notification
		if err := s[i].Err(); !errors.As(err, &n) || n.Code != 6 || n.Subcode != 1 || !bytes.Equal(n.Data, []byte{0, 1, 1, 0, 0, 0, limit}) {
			t.Errorf("%s: the session ended with %v, want Cease/Maximum Number of Prefixes Reached for 200 IPv4 prefixes", name, err)
		}
		poll(t, "what "+name+" shows", func() error {
			p := b.peerStatus(t, name)
			if p.Received != 0 || !strings.HasPrefix(p.LastDown, "announced 300 IPv4 prefixes, its prefix-limit is 200; the next attempt is in ") {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	}
	for i := peers / 2; i < peers; i++ {
		name, own := fmt.Sprintf("nva%d", i+1), ownPrefixes(i, sent)
		poll(t, name+" frozen", func() error {
			if p := b.peerStatus(t, name); p.Received != sent || p.Accepted != limit || p.Families["ipv4"].Beyond != sent-limit || p.Flaps != 0 {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		b.route(t, own[limit-1], lab.SeedNVA(i))
		b.learned(t, name, own[limit], reason("prefix-limit"))
	}
	// What is not used, nobody hears of; what is used, all do.
	poll(t, "what the ninth hears", func() error {
		r := good.Received()
		for i := peers / 2; i < peers; i++ {
			own := ownPrefixes(i, sent)
			for j, want := range map[int]bool{0: true, limit - 1: true, limit: false, sent - 1: false} {
				if _, got := r.Path(own[j]); got != want {
					return fmt.Errorf("%s of nva%d: heard %v, want %v", own[j], i+1, got, want)
				}
			}
		}
		return nil
	})
	metrics := b.scrape(t)
	for _, want := range []string{
		`nexthopd_bgp_peer_prefix_limit{family="ipv4",peer="10.1.0.4",peer_as="65147"} 200`,
		`nexthopd_bgp_peer_prefixes_received{family="ipv4",peer="10.1.0.8",peer_as="65147"} 300`,
		`nexthopd_bgp_peer_prefixes_accepted{family="ipv4",peer="10.1.0.8",peer_as="65147"} 200`,
		`nexthopd_bgp_peer_prefixes_beyond_limit{family="ipv4",peer="10.1.0.8",peer_as="65147"} 100`,
		`nexthopd_bgp_peer_prefixes_beyond_limit{family="ipv4",peer="10.1.0.12",peer_as="65200"} 0`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}

	// A frozen peer that shrinks gets the rest in; one that was closed is tried again.
	i := peers - 1
	own := ownPrefixes(i, sent)
	must(t, s[i].Withdraw(own[:sent-limit]...))
	b.route(t, own[sent-1], lab.SeedNVA(i))
	again := b.dial(t, b.NVAs[0], nva4(0))
	announce(t, again, nva.Attrs{}, ownPrefixes(0, sent)[:limit]...)
	b.route(t, ownPrefixes(0, sent)[0], lab.SeedNVA(0))

	for _, name := range []string{"good", fmt.Sprintf("nva%d", peers)} {
		if p := b.peerStatus(t, name); p.Flaps != 0 || p.State != "Established" || p.Accepted < limit {
			t.Errorf("%s: %+v, want it undisturbed", name, p)
		}
	}
	b.route(t, goods[sent-1], lab.SeedNVA(peers))
}

// S9 with a router that operators know: what FRR is told, and that it comes back when the
// limit is raised.
func TestS9_FRRHearsTheLimit(t *testing.T) {
	requireFRR(t)
	config := func(limit int) string {
		return hostConfig + "peers:\n" + peer("frr", lab.SeedNVA(0), lab.SeedASN, fmt.Sprintf("prefix-limit: {max: %d, idle: 1h}", limit))
	}
	b := newBed(t, 1, config(2))
	own := prefixes(nva.IPv4, 3)
	f := b.router4(0, own...).startFRR(t)
	poll(t, "the Cease in FRR", func() error {
		n, text := frrNeighbor(t, f, lab.SeedHost)
		if !strings.Contains(n.LastResetCause, "Maximum Number of Prefixes Reached") {
			return fmt.Errorf("last notification %q\n%s", n.LastResetCause, text)
		}
		return nil
	})
	if gws := value(b.Host.Gateways(within(t), own[0]))(t); len(gws) != 0 {
		t.Errorf("%s is installed via %v", own[0], gws)
	}
	must(t, b.d.SetConfig(config(10)))
	b.cli(t, "reload")
	b.route(t, own[2], lab.SeedNVA(0))
}

// S10, issue 6: a changed filter on 100,000 learned routes is applied in less than 5 s,
// resets nothing, and writes what changes to the kernel and no more.
func TestS10_FilterChangeOnAFullTable(t *testing.T) {
	const n, bound = 100_000, 5 * time.Second
	config := func(keys string) string {
		return hostConfig + "peers:\n" + peer("nva1", lab.SeedNVA(0), lab.SeedASN, "passive: true"+keys) +
			peer("nva2", lab.SeedNVA(1), otherASN, "passive: true")
	}
	b := newBed(t, 2, config(""))
	s := append(b.nvas(t, 1), b.other(t, 1))
	all := prefixes(nva.IPv4, n)
	go func() { _ = s[0].Write(s[0].Encode(all, nva.Attrs{ASPath: nva.Seq(lab.SeedASN)})) }()
	installed := func(want int) error {
		st, err := b.d.Status(within(t))
		if err == nil && st.FIB.Installed != want {
			err = fmt.Errorf("%d installed, want %d", st.FIB.Installed, want)
		}
		return err
	}
	start := time.Now()
	poll(t, "100,000 routes", func() error { return installed(n) })
	load := time.Since(start)
	t.Logf("load %s", load)
	poll(t, "100,000 routes at the other peer", func() error {
		if got := s[1].Received().Len(); got < n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	monitor := value(b.Host.Start("ip", "-4", "-o", "monitor", "route"))(t)
	change := func(keys string, want int) {
		t.Helper()
		must(t, b.d.SetConfig(config(keys)))
		start := time.Now()
		var plan string
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			plan, _, _, _ = b.d.CLI(within(t), "reload")
		}()
		poll(t, keys, func() error { return installed(want) })
		took := time.Since(start)
		<-returned
		t.Logf("%q: %s for the kernel, %s until GoBGP has it too", keys, took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
		// A machine that is slow to load may be slow to change, too.
		if took > max(bound, 2*load) || !strings.Contains(plan, "sessions reset: none") {
			t.Errorf("%q: took %s; plan %s", keys, took, plan)
		}
	}
	// A rule that changes the rank of the only path changes no route.
	change(", import: {rules: [{action: accept, set: {local-pref: 200}}]}", n)
	// 1,024 of the routes are rejected, as was said before.
	const few = ", import: {rules: [{name: few, match: {prefix: 100.0.0.0/14 le 24}, action: reject}]}"
	file := filepath.Join(t.TempDir(), "new.yaml")
	must(t, os.WriteFile(file, []byte(config(few)), 0o600))
	out := b.cli(t, "policy", "test", "--peer", "nva1", "--against-learned", "--file", file)
	if !strings.Contains(out, "nva1 announces 100000 paths\n") || !strings.Contains(out, "\n1024 paths decided otherwise than now\n") || !strings.Contains(out, "and 24 more\n") {
		t.Errorf("policy test: %.600s", out)
	}
	change(few, n-1024)
	poll(t, "the kernel's notifications", func() error {
		deleted, other := 0, ""
		for line := range strings.Lines(monitor.Log()) {
			if strings.HasPrefix(line, "Deleted 100.") {
				deleted++
			} else {
				other += line
			}
		}
		if deleted != 1024 || other != "" {
			return fmt.Errorf("%d routes deleted, want 1024 and nothing else: %.300s", deleted, other)
		}
		return nil
	})
	must(t, monitor.Stop(patience))
	poll(t, "their withdrawal at the other peer", func() error {
		if got := s[1].Received().Len(); got >= n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	b.learned(t, "nva1", all[0], reason("filtered"))
	if _, text := b.explain(t, all[0].String()); !strings.Contains(text, `rule "few" (prefix 100.0.0.0/14 le 24)`) {
		t.Errorf("explain does not name the rule:\n%s", text)
	}
	change("", n)
	for _, name := range []string{"nva1", "nva2"} {
		if p := b.peerStatus(t, name); p.Flaps != 0 {
			t.Errorf("%s: %+v, want no reset", name, p)
		}
	}
}
