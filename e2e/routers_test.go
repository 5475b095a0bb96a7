package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// router is an appliance that runs FRR or BIRD: its session and what it announces.
type router struct {
	node          *lab.Node
	id            netip.Addr // BGP identifier
	local, remote netip.Addr // of the session
	own4, own6    netip.Addr // next hops of what it announces
	asn           uint32
	prefixes      []netip.Prefix
	// session are further lines of the neighbor, without "neighbor ADDRESS" for FRR.
	session []string
	// direct: the session is not a multihop one.
	direct bool
	// bfd are BFD's interval and multiplier; 0: none.
	bfd   time.Duration
	bfdBy int
	// global are further lines of FRR's "router bgp".
	global []string
	// kernel: BIRD installs what it learns, as FRR always does.
	kernel bool
	// out is the text of a filter, in the daemon's own language, that what is announced
	// passes: "set as-path prepend 65147", "bgp_path.prepend(65147);".
	out string
}

// router4 is appliance i with a session over IPv4, router6 with one over IPv6.
func (b *bed) router4(i int, prefixes ...netip.Prefix) router {
	return router{
		node: b.NVAs[i], id: lab.SeedNVA(i), local: lab.SeedNVA(i), remote: lab.SeedHost,
		own4: lab.SeedNVA(i), own6: lab.SeedNVA6(i), asn: lab.SeedASN, prefixes: prefixes,
	}
}

func (b *bed) router6(i int, prefixes ...netip.Prefix) router {
	r := b.router4(i, prefixes...)
	r.local, r.remote = lab.SeedNVA6(i), lab.SeedHost6
	return r
}

func requireFRR(t *testing.T) {
	t.Helper()
	if !lab.HaveFRR() {
		t.Skip("FRR is not installed (package frr)")
	}
}

func requireBIRD(t *testing.T) {
	t.Helper()
	if !lab.HaveBIRD() {
		t.Skip("BIRD is not installed (package bird2)")
	}
}

// frr is the configuration of FRR's bgpd.
func (r router) frr() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// Else FRR holds its announcements back for 5 s, to see whether route-maps change;
	// without the delay, it waits for a soft clear (frrOut).
	line("bgp route-map delay-timer 0")
	line("router bgp %d", r.asn)
	for _, l := range append([]string{
		"bgp router-id " + r.id.String(), "no bgp ebgp-requires-policy",
		"no bgp network import-check", "no bgp default ipv4-unicast",
	}, r.global...) {
		line(" %s", l)
	}
	line(" neighbor %s remote-as 65515", r.remote)
	line(" neighbor %s timers connect 1", r.remote)
	multihop := !r.direct
	for _, l := range r.session {
		line(" neighbor %s %s", r.remote, l)
		multihop = multihop && !strings.HasPrefix(l, "ttl-security")
	}
	if multihop {
		line(" neighbor %s ebgp-multihop", r.remote)
	}
	if r.bfd > 0 {
		line(" neighbor %s bfd %d %d %d", r.remote, r.bfdBy, r.bfd.Milliseconds(), r.bfd.Milliseconds())
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		line(" address-family %s unicast", family)
		line("  neighbor %s activate", r.remote)
		line("  neighbor %s route-map out out", r.remote)
		for _, p := range r.prefixes {
			if p.Addr().Is4() == (family == "ipv4") {
				line("  network %s", p)
			}
		}
		line(" exit-address-family")
	}
	line("exit")
	line("route-map out permit 10")
	if r.out != "" {
		line(" %s", r.out)
	}
	return b.String()
}

// startFRR starts FRR with zebra, which alone knows the interface's IPv6 address that
// is the next hop over an IPv4 session.
func (r router) startFRR(t *testing.T) *lab.FRR {
	t.Helper()
	requireFRR(t)
	c := lab.FRRConfig{BGPD: r.frr(), Zebra: "log stdout\n"}
	if r.bfd > 0 {
		c.BFDD = "log stdout\n"
	}
	return value(lab.StartFRR(within(t), r.node, c))(t)
}

// bird is the configuration of BIRD.
func (r router) bird() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("router id %s;\nprotocol device {}", r.id)
	for _, family := range []string{"ipv4", "ipv6"} {
		line("protocol static s%s { %s;", family[3:], family)
		for _, p := range r.prefixes {
			if p.Addr().Is4() == (family == "ipv4") {
				line("\troute %s blackhole;", p)
			}
		}
		line("}")
	}
	if r.kernel {
		line("protocol direct { ipv4; ipv6; interface \"eth0\"; }") // which next hops resolve over
		line("protocol kernel k4 { ipv4 { import none; export where source = RTS_BGP; }; }")
		line("protocol kernel k6 { ipv6 { import none; export where source = RTS_BGP; }; }")
	}
	line("filter announced { if source != RTS_STATIC then reject; %s accept; }", r.out)
	hops := "multihop"
	if r.direct {
		hops = "direct"
	}
	if r.bfd > 0 {
		options := fmt.Sprintf("interval %d ms; multiplier %d;", r.bfd.Milliseconds(), r.bfdBy)
		line("protocol bfd { interface \"*\" { %s }; multihop { %s }; }", options, options)
	}
	line("protocol bgp server {\n\tlocal %s as %d;\n\tneighbor %s as 65515;\n\t%s;", r.local, r.asn, r.remote, hops)
	if r.bfd > 0 {
		line("\tbfd;")
	}
	line("\tconnect retry time 1; connect delay time 1; error wait time 1,2;")
	for _, l := range r.session {
		line("\t%s;", l)
	}
	line("\tipv4 { import all; export filter announced; next hop address %s; };", r.own4)
	line("\tipv6 { import all; export filter announced; next hop address %s; };", r.own6)
	line("}")
	return b.String()
}

func (r router) startBIRD(t *testing.T) *lab.BIRD {
	t.Helper()
	requireBIRD(t)
	return value(lab.StartBIRD(within(t), r.node, r.bird()))(t)
}

// frrOut changes what the route-map of FRR's announcements does; an empty text: nothing.
func frrOut(t *testing.T, f *lab.FRR, text string) {
	t.Helper()
	commands := []string{"configure terminal", "no route-map out permit 10", "route-map out permit 10"}
	if text != "" {
		commands = append(commands, text)
	}
	value(f.Vtysh(within(t), commands...))(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		value(f.Vtysh(within(t), "clear bgp "+family+" unicast * soft out"))(t)
	}
}

// neighbor is what FRR knows of its session with the route server.
type neighbor struct {
	State          string `json:"bgpState"`
	Established    int    `json:"connectionsEstablished"`
	HoldMsec       int    `json:"bgpTimerHoldTimeMsecs"`
	KeepaliveMsec  int    `json:"bgpTimerKeepAliveIntervalMsecs"`
	RemoteAS       uint32 `json:"remoteAs"`
	LocalAS        uint32 `json:"localAs"`
	LastResetCause string `json:"lastNotificationReason"`
	Capabilities   json.RawMessage
	Messages       struct {
		UpdatesRecv      int `json:"updatesRecv"`
		RouteRefreshSent int `json:"routeRefreshSent"`
	} `json:"messageStats"`
}

func frrNeighbor(t *testing.T, f *lab.FRR, remote netip.Addr) (n neighbor, text string) {
	t.Helper()
	text = value(f.Vtysh(within(t), "show bgp neighbors "+remote.String()+" json"))(t)
	var all map[string]json.RawMessage
	must(t, json.Unmarshal([]byte(text), &all))
	raw := all[remote.String()]
	must(t, json.Unmarshal(raw, &n))
	var caps struct {
		Capabilities json.RawMessage `json:"neighborCapabilities"`
	}
	must(t, json.Unmarshal(raw, &caps))
	n.Capabilities = caps.Capabilities
	return n, text
}

// frrPaths waits until FRR has a prefix with paths that ok accepts.
func frrPaths(t *testing.T, f *lab.FRR, p netip.Prefix, ok func([]lab.FRRPath) error) {
	t.Helper()
	family := "ipv4"
	if p.Addr().Is6() {
		family = "ipv6"
	}
	poll(t, p.String()+" in FRR", func() error {
		routes, err := f.Routes(within(t), family)
		if err != nil {
			return err
		}
		return ok(routes[p.String()])
	})
}

// frrPath is for frrPaths: one path with this AS path and next hop.
func frrPath(asPath, nextHop string) func([]lab.FRRPath) error {
	return func(paths []lab.FRRPath) error {
		if len(paths) != 1 || paths[0].Path != asPath || len(paths[0].Nexthops) == 0 || paths[0].Nexthops[0].IP != nextHop {
			return fmt.Errorf("paths %+v, want one with AS path %q and next hop %s", paths, asPath, nextHop)
		}
		return nil
	}
}

// birdRoute waits until BIRD's route to a prefix shows all of these texts.
func birdRoute(t *testing.T, b *lab.BIRD, p netip.Prefix, wants ...string) {
	t.Helper()
	poll(t, p.String()+" in BIRD", func() error {
		out, err := b.Birdc(within(t), "show route all for "+p.String())
		for _, want := range wants {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in %q, %v", want, out, err)
			}
		}
		return err
	})
}
