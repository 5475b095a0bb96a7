package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// host is a machine with the route server's addresses, and two FRR appliances outside.
type host struct {
	*Machine
	net *lab.Seed
	frr []*lab.FRR
	ctx context.Context
}

// step is a part of a package's life; the next ones go on where it left off, unless it
// stands alone.
type step struct {
	name  string
	run   func(h *host)
	alone bool
}

// life runs the steps, to the first that fails and that others build on.
func (h *host) life(t *testing.T, steps []step) {
	for _, s := range steps {
		ok := t.Run(s.name, func(t *testing.T) {
			at, machine := *h, *h.Machine
			at.Machine = &machine
			at.t = t
			s.run(&at)
		})
		if !ok && !s.alone {
			return
		}
	}
}

// What an appliance announces: a branch, and a prefix inside the VNet, which is refused (S18).
const frrConfig = `router bgp 65147
 bgp router-id %[1]s
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.1.2.4 remote-as 65515
 neighbor 10.1.2.4 ebgp-multihop
 neighbor 10.1.2.4 timers connect 1
 address-family ipv4 unicast
  network 192.168.255.0/24
  network 10.1.77.0/24
 exit-address-family
`

const hostConfig = `# edited by hand
vnet:
  prefixes: [10.1.0.0/16]
peers:
  - {name: nva-a, address: 10.1.0.4, asn: 65147}
  - {name: nva-b, address: 10.1.0.5, asn: 65147}
`

// newHost boots root with the appliances running.
func newHost(t *testing.T, r Root) *host {
	t.Helper()
	dir := rootDir(t, r)
	if !lab.HaveFRR() {
		t.Fatal("FRR is not installed: internal/tools/apt-packages installs it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	t.Cleanup(cancel)
	s, err := lab.NewSeed(lab.ForTest(t), 2)
	check(t, err)
	h := &host{net: s, ctx: ctx}
	for i, n := range s.NVAs {
		f, err := lab.StartFRR(ctx, n, lab.FRRConfig{BGPD: fmt.Sprintf(frrConfig, lab.SeedNVA(i))})
		check(t, err)
		h.frr = append(h.frr, f)
	}
	h.Machine = Boot(t, dir, s.Host, packages)
	return h
}

var appliances = []netip.Addr{lab.SeedNVA(0), lab.SeedNVA(1)}

// configure is what a newcomer does: edit the file, restart, look.
func (h *host) configure() {
	h.t.Helper()
	h.Write("/etc/nexthopd/nexthopd.yaml", hostConfig)
	h.Run("systemctl restart nexthopd")
	h.Wait("2 of 2 established", "nexthopctl status")
	h.wantRoute()
}

// wantRoute waits for the route over both appliances, in the kernel.
func (h *host) wantRoute() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	check(h.t, h.net.Host.WaitGateways(ctx, lab.SeedBranch, appliances...))
}

// keepRoute watches the route while f runs, and returns the longest time for which it
// was surely not there, or not over both appliances: from one look that missed it to the
// last in a row that did, however long a look takes.
func (h *host) keepRoute(f func()) (longest time.Duration) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan time.Duration)
	go func() {
		var worst time.Duration
		var missed time.Time // since when; zero: it is there
		for ctx.Err() == nil {
			begun := time.Now()
			got, err := h.net.Host.Gateways(context.WithoutCancel(ctx), lab.SeedBranch)
			switch {
			case err == nil && slices.Equal(got, appliances):
				missed = time.Time{}
			case missed.IsZero():
				missed = time.Now()
			default:
				worst = max(worst, begun.Sub(missed))
			}
			time.Sleep(10 * time.Millisecond) // the interval of measuring, nothing waits for it
		}
		done <- worst
	}()
	f()
	cancel()
	return <-done
}

// get reads a URL of the machine's.
func (h *host) get(rawURL string, v any) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			err = h.net.Host.Do(func() error {
				c, err = net.DialTimeout(network, addr, patience)
				return err
			})
			return c, err
		},
	}}
	resp, err := client.Get(rawURL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300s", rawURL, resp.Status, body)
	}
	if text, ok := v.(*string); ok {
		*text = string(body)
		return nil
	}
	return json.Unmarshal(body, v)
}

const prometheusConfig = `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [/usr/share/doc/nexthopd/examples/prometheus/nexthopd.rules.yml]
scrape_configs:
  - job_name: nexthopd
    static_configs: [{targets: ["127.0.0.1:9565"]}]
`

// prometheus starts the release's own Prometheus with the rules of the package. What the
// figures say, and the dashboard's expressions, are e2e's.
func (h *host) prometheus() {
	t := h.t
	h.Write("/etc/prometheus/prometheus.yml", prometheusConfig)
	h.Run("systemctl start prometheus")
	const api = "http://127.0.0.1:9090/api/v1/"
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	query := func(expr string) (results int, err error) {
		var answer struct {
			Data struct{ Result []any }
		}
		err = h.get(api+"query?query="+url.QueryEscape(expr), &answer)
		return len(answer.Data.Result), err
	}
	check(t, lab.Eventually(ctx, "a scrape", func() error {
		n, err := query(`nexthopd_bgp_peer_up{job="nexthopd"} == 1`)
		if err == nil && n != 2 {
			err = fmt.Errorf("%d sessions are up in Prometheus, want 2", n)
		}
		return err
	}))
	var loaded struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health string }
			}
		}
	}
	check(t, lab.Eventually(ctx, "rules", func() error {
		check(t, h.get(api+"rules", &loaded))
		if len(loaded.Data.Groups) != 1 || len(loaded.Data.Groups[0].Rules) == 0 {
			return fmt.Errorf("loaded %+v", loaded.Data.Groups)
		}
		for _, r := range loaded.Data.Groups[0].Rules {
			if r.Health != "ok" {
				return fmt.Errorf("rule %s is %s", r.Name, r.Health)
			}
		}
		return nil
	}))
	if n, err := query(`ALERTS{alertname=~"Nexthopd.*", alertstate="firing"}`); err != nil || n != 0 {
		t.Errorf("%d alerts fire (%v), want none", n, err)
	}
	h.Run("systemctl stop prometheus")
}
