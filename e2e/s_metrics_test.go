package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
	"github.com/nexthopd/nexthopd/packaging/grafana"
	"github.com/nexthopd/nexthopd/packaging/prometheus"
)

// The password of the metrics listener, and its hash (bcrypt).
const (
	scrapePassword = "only-for-the-lab"
	scrapeHash     = "$2a$04$WupwezrfiAho1JrT/8obvOfk/7fA2zeSDuqJ8NcriF0ZhxcS3X4dG"
)

// certificate writes one for 127.0.0.1 that vouches for itself: web.crt and web.key.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key := value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	for file, block := range map[string]*pem.Block{
		"web.crt": {Type: "CERTIFICATE", Bytes: value(x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key))(t)},
		"web.key": {Type: "EC PRIVATE KEY", Bytes: value(x509.MarshalECPrivateKey(key))(t)},
	} {
		must(t, os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600))
	}
}

// client is one that speaks from a node.
func client(n *lab.Node) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // Prometheus verifies it
		DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
			err = n.Do(func() error {
				conn, err = net.DialTimeout(network, address, patience)
				return err
			})
			return conn, err
		},
	}}
}

// get reads what the daemon's HTTP listener says.
func (b *bed) get(t *testing.T, path, password string) (status int, body string) {
	t.Helper()
	req := value(http.NewRequestWithContext(within(t), http.MethodGet, "https://127.0.0.1:9565"+path, nil))(t)
	if password != "" {
		req.SetBasicAuth("prometheus", password)
	}
	resp, err := client(b.Host).Do(req)
	must(t, err)
	defer resp.Body.Close()
	return resp.StatusCode, string(value(io.ReadAll(resp.Body))(t))
}

// sample is one line of a scrape: "name{labels}".
func (b *bed) sample(t *testing.T, series string) float64 {
	t.Helper()
	_, text := b.get(t, "/metrics", scrapePassword)
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value(strconv.ParseFloat(v, 64))(t)
		}
	}
	return math.NaN() // equal to nothing
}

// prom is a Prometheus on the host's loopback.
type prom struct {
	proc *lab.Proc
	c    *http.Client
	base string
}

// startPrometheus starts one that scrapes the daemon every second, under the alert rules
// that the packages bring.
func (b *bed) startPrometheus(t *testing.T, ca string, port int, flags ...string) *prom {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "nexthopd.rules.yml"), prometheus.Rules, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [nexthopd.rules.yml]
scrape_configs:
  - job_name: nexthopd
    scheme: https
    tls_config: {ca_file: `+ca+`}
    basic_auth: {username: prometheus, password: `+scrapePassword+`}
    static_configs: [{targets: ["127.0.0.1:9565"]}]
`), 0o600))
	p := &prom{c: client(b.Host), base: fmt.Sprintf("http://127.0.0.1:%d", port)}
	var err error
	p.proc, err = b.Host.Start("prometheus", append([]string{
		"--config.file=" + dir + "/prometheus.yml", "--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + strings.TrimPrefix(p.base, "http://"),
	}, flags...)...)
	must(t, err)
	t.Cleanup(func() {
		if err := p.proc.Stop(patience); err != nil {
			t.Error(err)
		}
	})
	poll(t, "first scrape", func() error {
		v, err := p.query(t, `count(up{job="nexthopd"} == 1)`)
		if err == nil && len(v) == 0 {
			err = errors.New("not scraped")
		}
		return err
	})
	return p
}

func (p *prom) api(t *testing.T, path string, data any) error {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := p.c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// query evaluates an expression now and returns the values, which are numbers all.
func (p *prom) query(t *testing.T, expr string) ([]float64, error) {
	t.Helper()
	var data struct {
		ResultType string
		Result     []struct{ Value [2]any }
	}
	if err := p.api(t, "/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return nil, err
	}
	var values []float64
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) {
			return nil, fmt.Errorf("%s yields %q", expr, text)
		}
		values = append(values, v)
	}
	return values, nil
}

// waitFor waits until the expressions all yield something.
func (p *prom) waitFor(t *testing.T, exprs ...string) {
	t.Helper()
	for _, e := range exprs {
		poll(t, e, func() error {
			v, err := p.query(t, e)
			if err == nil && len(v) == 0 {
				err = errors.New("yields nothing")
			}
			return err
		})
	}
}

// A real Prometheus scrapes the daemon, by TLS and with a password: what it is told is true, every
// expression of the dashboard yields something, and the alerts that should come do.
func TestS38_Prometheus(t *testing.T) {
	dir := t.TempDir()
	web := filepath.Join(dir, "web.yml")
	certificate(t, dir)
	const tlsPart = "tls_server_config: {cert_file: web.crt, key_file: web.key}\n"
	must(t, os.WriteFile(web, []byte(tlsPart+"basic_auth_users: {prometheus: "+scrapeHash+"}\n"), 0o600))
	b := newBed(t, 2, hostConfig+"metrics: {listen: \"127.0.0.1:9565\", web-config: "+web+"}\n"+nvaPeers(2))
	p := b.startPrometheus(t, dir+"/web.crt", 9090)
	native := b.startPrometheus(t, dir+"/web.crt", 9091, "--enable-feature=native-histograms")

	t.Run("password", func(t *testing.T) {
		for _, path := range []string{"/", "/metrics", "/-/ready"} {
			if status, _ := b.get(t, path, ""); status != http.StatusUnauthorized {
				t.Errorf("%s without a password: %d", path, status)
			}
		}
	})

	const n = 40
	s := b.nvas(t, 2)
	b.up(t, "nva1", "nva2")
	both := prefixes(nva.IPv4, n)
	announce(t, s[0], attrs(lab.SeedNVA(0), lab.SeedASN), both...)
	announce(t, s[1], attrs(lab.SeedNVA(1), lab.SeedASN), both[:n/2]...)
	announce(t, s[0], attrs(lab.SeedNVA(0), lab.SeedASN), prefix("10.1.77.0/24")) // inside the VNet
	b.route(t, both[0], lab.SeedNVA(0), lab.SeedNVA(1))
	b.route(t, both[n-1], lab.SeedNVA(0))
	// What the kernel and the peers have is what a scrape says right then.
	truth := func(when string, up1, up2, received1, received2, single float64) {
		t.Helper()
		b.learned(t, "nva1", prefix("10.1.77.0/24"), reason("inside-vnet"))
		for name, want := range map[string]float64{"nva1": received1, "nva2": received2} {
			poll(t, "all paths of "+name, func() error {
				if p := b.peerStatus(t, name); float64(p.Received) != want {
					return fmt.Errorf("%d received", p.Received)
				}
				return nil
			})
		}
		b.quiet(t)
		routes := strings.Count(value(b.Host.Run(within(t), "ip", "-4", "-o", "route", "show", "proto", "165"))(t), "\n")
		for series, want := range map[string]float64{
			`nexthopd_bgp_peer_up{peer="10.1.0.4",peer_as="65147"}`:                              up1,
			`nexthopd_bgp_peer_up{peer="10.1.0.5",peer_as="65147"}`:                              up2,
			`nexthopd_bgp_peer_state{peer="10.1.0.4",peer_as="65147",state="Established"}`:       up1,
			`nexthopd_bgp_peer_prefixes_received{family="ipv4",peer="10.1.0.4",peer_as="65147"}`: received1,
			`nexthopd_bgp_peer_prefixes_received{family="ipv4",peer="10.1.0.5",peer_as="65147"}`: received2,
			`nexthopd_bgp_peer_prefixes_received{family="ipv6",peer="10.1.0.4",peer_as="65147"}`: 0,
			`nexthopd_bgp_peer_flaps_total{peer="10.1.0.5",peer_as="65147"}`:                     1 - up2,
			`nexthopd_fib_routes{state="installed"}`:                                             float64(routes),
			`nexthopd_fib_routes{state="desired"}`:                                               n,
			`nexthopd_fib_routes{state="known"}`:                                                 n + 1,
			`nexthopd_fib_rejected_routes{reason="inside-vnet"}`:                                 1,
			`nexthopd_fib_routes_without_redundancy`:                                             single,
			`nexthopd_ready`:                                                                     1,
		} {
			if got := b.sample(t, series); got != want {
				t.Errorf("%s: %s is %v, want %v", when, series, got, want)
			}
		}
		// The VNet's prefixes; what the other one announces has nva1's own AS in its path.
		for series, want := range map[string]float64{
			`nexthopd_bgp_peer_prefixes_advertised{family="ipv6",peer="10.1.0.4",peer_as="65147"}`: 1,
			`nexthopd_bgp_peer_prefixes_advertised{family="ipv4",peer="10.1.0.4",peer_as="65147"}`: 1,
		} {
			poll(t, series, func() error {
				if got := b.sample(t, series); got != want {
					return fmt.Errorf("%v, want %v", got, want)
				}
				return nil
			})
		}
		if routes != n {
			t.Errorf("%s: the kernel has %d routes, want %d", when, routes, n)
		}
		if age := float64(time.Now().UnixMilli())/1000 - b.sample(t, "nexthopd_fib_read_timestamp_seconds"); age > 30 {
			t.Errorf("%s: the figures are %v seconds old", when, age)
		}
	}
	truth("both are up", 1, 1, n+1, n/2, n/2)

	s[1].Close()
	b.route(t, both[0], lab.SeedNVA(0))
	poll(t, "the session is gone", func() error {
		if st := b.peerStatus(t, "nva2"); st.State == "Established" || st.Received > 0 {
			return fmt.Errorf("%s with %d prefixes", st.State, st.Received)
		}
		return nil
	})
	truth("one is lost", 1, 0, n+1, 0, n)

	t.Run("dashboard", func(t *testing.T) {
		board := value(grafana.Load())(t)
		fill := strings.NewReplacer("$job", "nexthopd", "$instance", ".*", "$__rate_interval", "5m")
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				p.waitFor(t, fill.Replace(target.Expr))
			}
		}
	})
	t.Run("alerts", func(t *testing.T) {
		p.waitFor(t, `ALERTS{alertname="NexthopdPeerDown", name="nva2", peer="10.1.0.5", severity="page"}`, `ALERTS{alertname="NexthopdNoRedundancy"}`)
		var rules struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		must(t, p.api(t, "/api/v1/rules", &rules))
		evaluated := 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if evaluated++; r.Health != "ok" {
					t.Errorf("alert %s: %s %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if evaluated < 10 {
			t.Errorf("%d alerts were evaluated", evaluated)
		}
		// A scrape that came late may have made one of them pending.
		poll(t, "no alert that should not be", func() error {
			v, err := p.query(t, `ALERTS{alertname=~"NexthopdDown|NexthopdStale|NexthopdNotReady|NexthopdRoutesMissing|NexthopdConfigRefused"}`)
			if err == nil && len(v) > 0 {
				err = fmt.Errorf("%d", len(v))
			}
			return err
		})
	})
	t.Run("native histograms", func(t *testing.T) {
		native.waitFor(t, "histogram_count(nexthopd_failover_seconds) > 0", "histogram_quantile(0.99, nexthopd_fib_convergence_seconds)")
	})
	t.Run("status page", func(t *testing.T) {
		status, page := b.get(t, "/", scrapePassword)
		for _, want := range []string{"1 problem", "nva1", "nva2", "10.1.0.5", "40 prefixes", "inside-vnet", "session 10.1.0.5"} {
			if !strings.Contains(page, want) {
				t.Errorf("status %d, the page lacks %q:\n%s", status, want, page)
			}
		}
	})
	t.Run("a reload that is refused", func(t *testing.T) {
		const series = "nexthopd_config_last_reload_successful"
		good := string(value(os.ReadFile(b.d.Config))(t))
		reload := func(config string, want float64) {
			must(t, os.WriteFile(b.d.Config, []byte(config), 0o644))
			must(t, b.d.Reload())
			poll(t, series, func() error {
				if got := b.sample(t, series); got != want {
					return fmt.Errorf("%v, want %v", got, want)
				}
				return nil
			})
		}
		reload(good+"nonsense: 1\n", 0)
		reload(good, 1)
		must(t, os.WriteFile(web, []byte(tlsPart+"basic_auth_users: {prometheus: "+scrapePassword+"}\n"), 0o600))
		_, stderr, exit, err := b.d.CLI(within(t), "reload", "--dry-run")
		if err != nil || exit == 0 || !strings.Contains(stderr, "is not a bcrypt hash") || strings.Contains(stderr+b.d.Proc.Log(), scrapePassword) {
			t.Errorf("reload --dry-run with a bad web configuration: exit status %d, %v\n%s", exit, err, stderr)
		}
	})
}
