package config

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// mistakes parses text that must be wrong, and returns its errors as lines.
func mistakes(t *testing.T, text string) []string {
	t.Helper()
	c, err := Parse("f", []byte(text))
	var errs Errors
	if c != nil || !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("Parse(%q) = %+v, %v, want Errors", text, c, err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(errs) {
		t.Errorf("Parse(%q): %d errors on %d lines:\n%s", text, len(errs), len(lines), err)
	}
	return lines
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatalf("Parse(%q):\n%v", text, err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	want := &Config{
		ASN:            65515,
		Listen:         []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:179"), netip.MustParseAddrPort("[::]:179")},
		BranchToBranch: true,
		Announce:       AnnounceForwarding,
		FIB: FIB{
			Table: 254, Metric: 20, Protocol: 165, MaxPaths: 64, Mode: ModeInstall,
			NextHopObjects: true, SweepAfter: 2 * time.Minute, SweepShare: 50, BlastRadius: BlastRadius{50, 100}, Audit: time.Minute, OnStop: OnStopKeep, BFDNextHops: BFDNextHops{BFDSession: defaultBFD()},
		},
		Metrics: Metrics{Listen: ":9565"},
		API:     API{Socket: "/run/nexthopd/nexthopd.sock"},
		Log:     Log{Level: slog.LevelInfo, Format: "auto"},
	}
	for name, text := range map[string]string{
		"empty":               "",
		"comment":             "# nothing\n",
		"document":            "---\n",
		"null":                "~\n",
		"groups without keys": "vnet:\npeers:\nfib:\nmetrics:\napi:\nlog:\n",
		"empty collections":   "peers: []\nvnet: {prefixes: []}\nfib: {}\n",
		"byte order mark":     "\ufeff# nothing\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := parse(t, text); !reflect.DeepEqual(got, want) {
				t.Errorf("Parse(%q) = %+v, want %+v", text, got, want)
			}
		})
	}
}

// S2: a peer is a name, an address and an ASN, everything else has a default.
// S5: keepalive 60 s and hold 180 s by default.
func TestPeerDefaults(t *testing.T) {
	c := parse(t, "peers:\n- {name: quagga, address: 10.1.0.4, asn: 65147}\n- {name: six, address: \"fd00:1::5\", asn: 4200000000}\n")
	want := []Peer{
		{Name: "quagga", Address: netip.MustParseAddr("10.1.0.4"), ASN: 65147, Port: 179, MultihopTTL: 64,
			HoldTime: 180 * time.Second, Keepalive: 60 * time.Second, NextHop: NextHopUnchanged, BFD: defaultPeer().BFD, GracefulRestart: defaultPeer().GracefulRestart, Damping: defaultPeer().Damping, Guards: defaultGuards(), Role: RoleNone,
			PrefixLimit: PrefixLimit{Max: 4000, Warning: 75, Action: LimitClose, Idle: 5 * time.Minute}},
		{Name: "six", Address: netip.MustParseAddr("fd00:1::5"), ASN: 4200000000, Port: 179, MultihopTTL: 64,
			HoldTime: 180 * time.Second, Keepalive: 60 * time.Second, NextHop: NextHopUnchanged, BFD: defaultPeer().BFD, GracefulRestart: defaultPeer().GracefulRestart, Damping: defaultPeer().Damping, Guards: defaultGuards(), Role: RoleNone,
			PrefixLimit: PrefixLimit{Max: 4000, Warning: 75, Action: LimitClose, Idle: 5 * time.Minute}},
	}
	if !reflect.DeepEqual(c.Peers, want) {
		t.Errorf("Peers = %+v, want %+v", c.Peers, want)
	}
}

func TestEveryKey(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "one")
	writeFile(t, secret, "hunter2\n", 0o640)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	c := parse(t, `
asn: 4200000000
router-id: 10.1.2.4
listen: [10.1.2.4, "fd00:1::4"]
vnet:
  prefixes: [10.1.0.0/16, "fd00:1::/48"]
  allow-inside-vnet: [10.1.200.0/24, "fd00:1:0:2::/64"]
  next-hop: [10.1.2.9, "fd00:1::9"]
peers:
- name: a.b-c_1
  description: 'zone 1, é'
  address: 10.1.0.4
  asn: "65147"
  port: 1790
  passive: true
  local-address: 10.1.2.4
  multihop-ttl: 3
  hold-time: 1m30s
  keepalive: 20s
  next-hop: self
  prefix-limit: {max: 10, ipv4: 20, ipv6: 30, warning: 50, action: freeze, idle: 10s}
  shutdown: true
  password-file: `+secret+`
  bfd: {enabled: true, interval: 50ms, multiplier: 5, mode: multihop, min-ttl: 254, strict: true, auth: {type: meticulous-keyed-sha1, key-id: 0, key-file: `+secret+`}}
  damping: {enabled: true, half-life: 5m, suppress: 2000, reuse: 500, max-suppress: 10m}
  graceful-restart: {restart-time: 1s, stale-time: 24h, long-lived: 168h}
  guards: {martian: false, own-address: false, first-as: false, empty-as-path: false, as-set: false, confederation: false,
    private-as: refuse, max-as-path: 0, ipv4-lengths: 8-28, ipv6-lengths: 64}
  role: rs-client
  role-strict: true
- {name: b, address: "fd00:1::5", asn: 65148, prefix-limit: 7, gtsm: 2, hold-time: 10s, password-credential: one, bfd: true}
- {name: c, address: 127.0.0.2, asn: 65149, hold-time: 0}
branch-to-branch: false
announce: all
prefix-limit-total: 1000
fib: {table: 100, metric: 4294967295, protocol: 255, max-paths: 1, mode: observe, next-hop-objects: false, sweep-after: 5m, sweep-share: 0, blast-radius: {share: 100, min: 1}, probe: 1s, persist: 5m, audit: 0s, on-stop: flush,
  bfd-next-hops: {addresses: [10.1.0.100, "fd00:1::100"], interval: 1s, multiplier: 4, mode: single-hop}}
metrics: {listen: off}
api: {socket: /tmp/x.sock}
log: {level: debug, format: json}
`)
	want := &Config{
		ASN:      4200000000,
		RouterID: netip.MustParseAddr("10.1.2.4"),
		Listen:   []netip.AddrPort{netip.MustParseAddrPort("10.1.2.4:179"), netip.MustParseAddrPort("[fd00:1::4]:179")},
		VNet: VNet{
			Prefixes:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/48")},
			AllowInside: []netip.Prefix{netip.MustParsePrefix("10.1.200.0/24"), netip.MustParsePrefix("fd00:1:0:2::/64")},
			NextHop4:    netip.MustParseAddr("10.1.2.9"),
			NextHop6:    netip.MustParseAddr("fd00:1::9"),
		},
		Peers: []Peer{
			{Name: "a.b-c_1", Description: "zone 1, é", Address: netip.MustParseAddr("10.1.0.4"), ASN: 65147, Port: 1790,
				Passive: true, LocalAddress: netip.MustParseAddr("10.1.2.4"), MultihopTTL: 3, HoldTime: 90 * time.Second,
				Keepalive: 20 * time.Second, NextHop: NextHopSelf, Shutdown: true, PasswordFile: secret,
				PrefixLimit: PrefixLimit{Max: 10, IPv4: 20, IPv6: 30, Warning: 50, Action: LimitFreeze, Idle: 10 * time.Second}, BFD: BFD{
					Enabled: true, Strict: true, BFDSession: BFDSession{
						Interval: 50 * time.Millisecond, Multiplier: 5, Mode: BFDMultihop, MinTTL: 254,
						Auth: BFDAuth{Type: BFDMeticulousSHA1, KeyID: 0, KeyFile: secret},
					}}, Damping: Damping{true, 5 * time.Minute, 2000, 500, 10 * time.Minute}, GracefulRestart: GracefulRestart{Enabled: true, RestartTime: time.Second, StaleTime: 24 * time.Hour, LongLived: 168 * time.Hour}, Guards: Guards{PrivateAS: PrivateASRefuse, IPv4: Lengths{8, 28}, IPv6: Lengths{64, 64}}, Role: RoleClient, RoleStrict: true},
			{Name: "b", Address: netip.MustParseAddr("fd00:1::5"), ASN: 65148, Port: 179, MultihopTTL: 64, GTSM: 2,
				HoldTime: 10 * time.Second, Keepalive: 3 * time.Second, NextHop: NextHopUnchanged, PasswordFile: secret,
				PrefixLimit: PrefixLimit{Max: 7, Warning: 75, Action: LimitClose, Idle: 5 * time.Minute},
				BFD:         BFD{Enabled: true, BFDSession: BFDSession{Interval: 300 * time.Millisecond, Multiplier: 3, Mode: BFDAuto, Auth: BFDAuth{KeyID: 1}}}, GracefulRestart: defaultPeer().GracefulRestart, Damping: defaultPeer().Damping, Guards: defaultGuards(), Role: RoleNone},
			{Name: "c", Address: netip.MustParseAddr("127.0.0.2"), ASN: 65149, Port: 179, MultihopTTL: 64, NextHop: NextHopUnchanged, BFD: defaultPeer().BFD, GracefulRestart: defaultPeer().GracefulRestart, Damping: defaultPeer().Damping, Guards: defaultGuards(), Role: RoleNone,
				PrefixLimit: PrefixLimit{Max: 4000, Warning: 75, Action: LimitClose, Idle: 5 * time.Minute}},
		},
		Announce:         AnnounceAll,
		PrefixLimitTotal: 1000,
		FIB: FIB{Table: 100, Metric: 4294967295, Protocol: 255, MaxPaths: 1, Mode: ModeObserve, SweepAfter: 5 * time.Minute, BlastRadius: BlastRadius{100, 1}, Probe: time.Second, Persist: 5 * time.Minute, OnStop: OnStopFlush,
			BFDNextHops: BFDNextHops{
				Addresses:  []netip.Addr{netip.MustParseAddr("10.1.0.100"), netip.MustParseAddr("fd00:1::100")},
				BFDSession: BFDSession{Interval: time.Second, Multiplier: 4, Mode: BFDSingleHop, Auth: BFDAuth{KeyID: 1}},
			}},
		API: API{Socket: "/tmp/x.sock"},
		Log: Log{Level: slog.LevelDebug, Format: "json"},
	}
	for i := range want.Peers {
		want.Peers[i].PasswordSum = sumFile(want.Peers[i].PasswordFile)
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if plan := Compare(c, want); !plan.Empty() {
		t.Errorf("Compare of equals: %s", plan)
	}
}

// A single value stands for a list of one.
func TestScalarForList(t *testing.T) {
	c := parse(t, "listen: 10.1.2.4:1790\nvnet: {prefixes: 10.1.0.0/16, next-hop: \"fd00::1\"}\n")
	if len(c.Listen) != 1 || c.Listen[0] != netip.MustParseAddrPort("10.1.2.4:1790") {
		t.Errorf("Listen = %v", c.Listen)
	}
	if len(c.VNet.Prefixes) != 1 || c.VNet.NextHop4.IsValid() || c.VNet.NextHop6 != netip.MustParseAddr("fd00::1") {
		t.Errorf("VNet = %+v", c.VNet)
	}
}

func TestFiveMistakes(t *testing.T) {
	text := "asn: 65535\n" +
		"vnet:\n" +
		"  prefixes: [10.1.0.0/16, 10.1.4.1/16]\n" +
		"peers:\n" +
		"  - name: quagga # a comment\n" +
		"    adress: 10.1.0.4\n" +
		"    asn: 65147\n" +
		"  - {name: frr, address: 10.1.0.5, asn: 65148, keepalive: 60}\n" +
		"fib: {metric: 0}\n"
	want := []string{
		`f:1:6: asn: AS 65535 is reserved (RFC 7300), allowed: 1 to 4294967294, except 23456 and 65535, as a plain number`,
		`f:3:27: vnet.prefixes[1]: 10.1.4.1/16 has host bits set (did you mean 10.1.0.0/16?), allowed: unicast address/length without host bits, not the default route`,
		`f:5:5: peers[0].address: is missing, allowed: unicast IPv4 or IPv6 address without a zone`,
		`f:6:5: peers[0].adress: unknown key, did you mean "address"? allowed: ` + keyNames(peerKeys),
		`f:8:59: peers[1].keepalive: 60 has no unit (did you mean 60s?), allowed: 1s to 65534s in whole seconds, less than hold-time`,
		`f:9:15: fib.metric: 0 is the metric of routes that were added without one: ours would be in their place instead of below them, allowed: 1 to 4294967295`,
	}
	// Line ends of another system must not move the places.
	for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
		if got := mistakes(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%q)\ngot  %s\nwant %s", text, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// peers makes a file with one good peer, and one with the given further keys.
func peers(keys string) string {
	return "peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n- {name: two, address: 10.1.0.5, asn: 65148, " + keys + "}\n"
}

// One mistake each: the place and a part of the text.
func TestMistakes(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	cases := map[string]struct{ text, place, want string }{
		"unknown key":                 {"color: red", "1:1", "color: unknown key, allowed: asn,"},
		"underscores":                 {"branch_to_branch: true", "1:1", `did you mean "branch-to-branch"?`},
		"camel case":                  {peers("holdTime: 3s"), "3:46", `did you mean "hold-time"?`},
		"password in the file":        {peers("password: hunter2"), "3:46", `did you mean "password-file"?`},
		"unknown key in group":        {"fib:\n  metrik: 20", "2:3", `fib.metrik: unknown key, did you mean "metric"?`},
		"duplicate key":               {"asn: 65001\nlisten: 10.0.0.1\nasn: 65002", "3:1", "asn: duplicate key, first in line 1"},
		"duplicate group":             {"fib: {metric: 3}\nfib: {metric: 4}", "2:1", "fib: duplicate key, first in line 1"},
		"duplicate key of peer":       {peers("asn: 65149"), "3:46", "peers[1].asn: duplicate key, first in line 3"},
		"key with a line break":       {"\"a\\nb\": 1", "1:1", `"a\nb": unknown key`},
		"number as key":               {"1: 1", "1:1", "is not a plain key"},
		"merge key":                   {"<<: {asn: 1}", "1:1", "is not a plain key"},
		"list at the top":             {"- asn: 65001", "1:1", "is a list, must be a mapping"},
		"text at the top":             {"hello", "1:1", "is a single value, must be a mapping"},
		"scalar for group":            {"fib: 3", "1:6", "fib: is a single value, must be a mapping with keys among: table, metric"},
		"list for scalar":             {"asn: [65001]", "1:6", "asn: is a list, allowed: 1 to"},
		"mapping for scalar":          {"asn:\n  a: 1", "2:3", "asn: is a mapping, allowed: 1 to"},
		"nothing for scalar":          {"asn:\nlisten: 10.0.0.1", "1:1", "asn: is empty, allowed: 1 to"},
		"tilde for scalar":            {"asn: ~", "1:6", "asn: is empty, allowed: 1 to"},
		"mapping for list":            {"listen: {a: 1}", "1:9", "listen: is a mapping, must be a list of: address"},
		"list in list":                {"listen: [[10.0.0.1]]", "1:10", "listen[0]: is a list, allowed: address"},
		"scalar for peer":             {"peers: [10.1.0.4]", "1:9", "peers[0]: is a single value, must be a mapping"},
		"empty peer":                  {"peers:\n  -\n", "2:3", "peers[0]: is empty, must be a mapping"},
		"anchor":                      {"asn: &a 65001", "1:6", "asn: is a YAML anchor, alias or tag, which are not supported"},
		"tag":                         {"asn: !!int 65001", "1:6", "not supported"},
		"second document":             {"asn: 65001\n---\nasn: 65002", "3:1", "a second YAML document, must be one"},
		"tab":                         {"fib:\n\tmetric: 3", "2:1", "not valid YAML: found character '\t' that cannot start any token (indent with spaces, not with tabs)"},
		"IPv6 that ends with a colon": {"router-id: fd00::", "1:12", "quote a value that ends with a colon"},
		"open bracket":                {"listen: [10.0.0.1\nasn: 65001", "2:1", "not valid YAML: ',' or ']' must be specified"},
		"not UTF-8":                   {"asn: 65001\n# \xff\n", "2:1", "is not UTF-8 text"},

		"asn zero":           {"asn: 0", "1:6", "AS 0 is reserved (RFC 7607), allowed: 1 to"},
		"asn AS_TRANS":       {"asn: 23456", "1:6", "AS_TRANS"},
		"asn last":           {"asn: 4294967295", "1:6", "is reserved"},
		"asn too large":      {"asn: 4294967296", "1:6", "4294967296 is out of range, allowed"},
		"asn huge":           {"asn: 99999999999999999999", "1:6", "is out of range"},
		"asn asdot":          {"asn: 1.10", "1:6", "1.10 is in asdot notation (did you mean 65546?), allowed: 1 to 4294967294, except 23456 and 65535, as a plain number"},
		"asn hexadecimal":    {"asn: 0xfffe", "1:6", `"0xfffe" is not a plain decimal number`},
		"asn leading zero":   {"asn: 065001", "1:6", "is not a plain decimal number"},
		"asn underscore":     {"asn: 65_001", "1:6", "is not a plain decimal number"},
		"asn negative":       {"asn: -1", "1:6", "is not a plain decimal number"},
		"asn word":           {"asn: private", "1:6", "is not a plain decimal number"},
		"router-id IPv6":     {"router-id: \"fd00::1\"", "1:12", "fd00::1 is not an IPv4 address"},
		"router-id zero":     {"router-id: 0.0.0.0", "1:12", "allowed: IPv4 address, not 0.0.0.0"},
		"router-id number":   {"router-id: 17", "1:12", `"17" is not an IP address`},
		"listen host name":   {"listen: [localhost]", "1:10", `listen[0]: "localhost" is neither an IP address nor address:port`},
		"listen empty":       {"listen: []", "1:9", "listen: is empty; to listen on all addresses, leave the key out"},
		"listen port zero":   {"listen: [10.0.0.1:0]", "1:10", "port 0"},
		"listen multicast":   {"listen: [224.0.0.1]", "1:10", "multicast"},
		"listen link-local":  {"listen: [\"[fe80::1%eth0]:179\"]", "1:10", "has a zone"},
		"listen mapped":      {"listen: [\"::ffff:10.0.0.1\"]", "1:10", "did you mean 10.0.0.1?"},
		"listen twice":       {"listen:\n- 10.0.0.1\n- 10.0.0.1:179", "3:3", "listen[1]: 10.0.0.1:179 is listed twice, first in line 2"},
		"listen two ports":   {"listen: [10.0.0.1, 10.0.0.2:1790]", "1:20", "port 1790 differs from port 179 in line 1"},
		"listen any and one": {"listen: [0.0.0.0, 10.0.0.2]", "1:19", "10.0.0.2:179 and 0.0.0.0:179 (line 1) overlap"},

		"vnet default route":     {"vnet: {prefixes: [0.0.0.0/0]}", "1:19", "0.0.0.0/0 is the default route"},
		"vnet IPv6 default":      {"vnet: {prefixes: [\"::/0\"]}", "1:19", "is the default route"},
		"vnet multicast":         {"vnet: {prefixes: [224.0.0.0/4]}", "1:19", "multicast"},
		"vnet loopback":          {"vnet: {prefixes: [127.0.0.0/8]}", "1:19", "loopback"},
		"vnet without length":    {"vnet: {prefixes: [10.1.0.0]}", "1:19", "has no length (did you mean 10.1.0.0/32?)"},
		"vnet host bits":         {"vnet: {prefixes: [10.1.4.0/16]}", "1:19", "10.1.4.0/16 has host bits set (did you mean 10.1.0.0/16?)"},
		"vnet IPv6 host bits":    {"vnet: {prefixes: [\"fd00::1/64\"]}", "1:19", "did you mean fd00::/64?"},
		"vnet mapped":            {"vnet: {prefixes: [\"::ffff:10.0.0.0/104\"]}", "1:19", "IPv4-mapped"},
		"vnet overlap":           {"vnet:\n  prefixes:\n  - 10.1.0.0/16\n  - 10.2.0.0/16\n  - 10.1.128.0/17", "5:5", "10.1.128.0/17 overlaps 10.1.0.0/16 in line 3"},
		"vnet same twice":        {"vnet: {prefixes: [10.1.0.0/16, 10.1.0.0/16]}", "1:32", "overlaps 10.1.0.0/16 in line 1"},
		"allow outside":          {"vnet: {prefixes: [10.1.0.0/16], allow-inside-vnet: [10.0.0.0/8]}", "1:53", "10.0.0.0/8 is not inside any of vnet.prefixes"},
		"allow other family":     {"vnet: {prefixes: [10.1.0.0/16], allow-inside-vnet: [\"fd00::/64\"]}", "1:53", "is not inside any"},
		"allow twice":            {"vnet: {prefixes: 10.1.0.0/16, allow-inside-vnet: [10.1.1.0/24, 10.1.1.0/24]}", "1:64", "listed twice, first in line 1"},
		"next-hop two of family": {"vnet: {next-hop: [10.1.2.4, 10.1.2.5]}", "1:29", "a second address of its family, after 10.1.2.4"},
		"next-hop any":           {"vnet: {next-hop: 0.0.0.0}", "1:18", "unspecified"},

		"range missing":           {"dynamic-peers:\n- {name: b, asn: 65148}", "2:3", "dynamic-peers[0].range: is missing"},
		"range default route":     {"dynamic-peers:\n- {range: 0.0.0.0/0, name: b, asn: 65148}", "2:11", "dynamic-peers[0].range: 0.0.0.0/0 is the default route"},
		"range without asn":       {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b}", "2:3", "dynamic-peers[0].asn: is missing"},
		"range of our asn":        {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: 65515}", "2:38", "dynamic-peers[0].asn: 65515 is the local AS"},
		"range limit":             {dynamic(", limit: 0"), "4:57", "dynamic-peers[0].limit: 0 is out of range, allowed: 1 to 1000"},
		"range password":          {dynamic(", password-file: x"), "4:65", "dynamic-peers[0].password-file: is not an absolute path"},
		"range address":           {dynamic(", address: 10.1.0.9"), "4:50", "dynamic-peers[0].address: unknown key"},
		"range no asn":            {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: []}", "2:38", "dynamic-peers[0].asn: is empty"},
		"range bad asn":           {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: [65001, 23456]}", "2:46", "dynamic-peers[0].asn[1]: AS 23456 is AS_TRANS"},
		"range asns backwards":    {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: 65020-65010}", "2:38", "65020-65010 ends before it begins"},
		"range asns half":         {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: [65010-]}", "2:39", "dynamic-peers[0].asn[0]"},
		"range asns with ours":    {"dynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: [65001, 65510-65520]}", "2:46", "65510-65520 has the local AS 65515"},
		"range timers":            {dynamic(", keepalive: 300s"), "4:61", "dynamic-peers[0].keepalive: 300s is not less than hold-time"},
		"range overlap":           {dynamic("") + "- {range: 10.1.0.128/25, name: c, asn: 65148}", "5:11", "10.1.0.128/25 overlaps 10.1.0.0/24 in line 4"},
		"range of no listener":    {"listen: 10.1.2.4\ndynamic-peers:\n- {range: \"fd00::/64\", name: b, asn: 65148}", "3:11", "listen has no address of its family"},
		"range long name":         {"dynamic-peers:\n- {range: 10.1.8.0/24, name: a23456789012345678901234, asn: 65148}", "2:30", "allowed: at most 23"},
		"range name taken":        {"peers: [{name: b-10.1.8.9, address: 10.1.0.4, asn: 65147}]\ndynamic-peers:\n- {range: 10.1.8.0/24, name: b, asn: 65148}", "3:30", "a peer from 10.1.8.9 would have the name of the peer in line 1"},
		"long-lived too long":     {"peers:\n- {name: b, address: 10.1.0.4, asn: 65147, graceful-restart: {long-lived: 169h}}", "2:75", "graceful-restart.long-lived: 169h is out of range, allowed: 0s, or 1s to 168h"},
		"long-lived by itself":    {"peers:\n- {name: b, address: 10.1.0.4, asn: 65147, graceful-restart: {enabled: false, long-lived: 1h}}", "2:91", "graceful-restart.long-lived: 3600s with enabled: false"},
		"peer without name":       {"peers:\n- address: 10.1.0.4\n  asn: 65147", "2:3", "peers[0].name: is missing, allowed: 1 to 63 letters"},
		"peer without address":    {"peers:\n- name: one\n  asn: 65147", "2:3", "peers[0].address: is missing"},
		"peer without asn":        {"peers:\n- name: one\n  address: 10.1.0.4", "2:3", "peers[0].asn: is missing"},
		"peer name":               {"peers: [{name: -x, address: 10.1.0.4, asn: 65147}]", "1:16", `"-x" is not a name`},
		"peer name too long":      {"peers: [{name: " + strings.Repeat("a", 64) + ", address: 10.1.0.4, asn: 65147}]", "1:16", "is not a name, allowed: 1 to 63"},
		"peer name is address":    {"peers: [{name: 10.1.0.9, address: 10.1.0.4, asn: 65147}]", "1:16", "10.1.0.9 is an address"},
		"peer name twice":         {"peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n- {name: one, address: 10.1.0.5, asn: 65147}", "3:10", `peers[1].name: "one" is the name of the peer in line 2 too`},
		"peer address twice":      {"peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n- {name: two, address: 10.1.0.4, asn: 65147}", "3:24", "peers[1].address: 10.1.0.4 is the address of peer one in line 2 too"},
		"peer address prefix":     {"peers: [{name: one, address: 10.1.0.4/32, asn: 65147}]", "1:30", "is a prefix (did you mean 10.1.0.4?)"},
		"peer address name":       {"peers: [{name: one, address: nva1, asn: 65147}]", "1:30", `"nva1" is not an IP address`},
		"peer address multicast":  {"peers: [{name: one, address: 224.0.0.5, asn: 65147}]", "1:30", "multicast"},
		"peer address any":        {"peers: [{name: one, address: \"::\", asn: 65147}]", "1:30", "unspecified"},
		"peer address broadcast":  {"peers: [{name: one, address: 255.255.255.255, asn: 65147}]", "1:30", "broadcast"},
		"peer address link-local": {"peers: [{name: one, address: \"fe80::1\", asn: 65147}]", "1:30", "link-local"},
		"peer address zone":       {"peers: [{name: one, address: \"fe80::1%eth0\", asn: 65147}]", "1:30", "link-local addresses are not supported"},
		"peer address mapped":     {"peers: [{name: one, address: \"::ffff:10.1.0.4\", asn: 65147}]", "1:30", "did you mean 10.1.0.4?"},
		"peer is ourselves":       {"listen: [10.1.2.4]\npeers: [{name: one, address: 10.1.2.4, asn: 65147}]", "2:30", "10.1.2.4 is the local address in line 1, a peer cannot be ourselves"},
		"peer has default AS":     {"peers: [{name: one, address: 10.1.0.4, asn: 65515}]", "1:45", "65515 is the local AS (the default), and only eBGP is spoken"},
		"peer has our AS":         {"asn: 65001\npeers: [{name: one, address: 10.1.0.4, asn: 65001}]", "2:45", "65001 is the local AS (line 1)"},
		"peer has AS 0":           {"peers: [{name: one, address: 10.1.0.4, asn: 0}]", "1:45", "AS 0 is reserved"},
		"peer has AS 23456":       {"peers: [{name: one, address: 10.1.0.4, asn: 23456}]", "1:45", "AS_TRANS"},
		"peer has AS 65535":       {"peers: [{name: one, address: 10.1.0.4, asn: 65535}]", "1:45", "is reserved"},
		"peer has AS 4294967295":  {"peers: [{name: one, address: 10.1.0.4, asn: 4294967295}]", "1:45", "is reserved"},
		"port zero":               {peers("port: 0"), "3:52", "0 is out of range, allowed: 1 to 65535"},
		"port too large":          {peers("port: 65536"), "3:52", "65536 is out of range"},
		"passive word":            {peers("passive: yes"), "3:55", `"yes" is neither true nor false, allowed: true or false`},
		"passive, no family":      {"listen: \"fd00::1\"\n" + peers("passive: true"), "4:55", "the peer could never connect"},
		"local-address family":    {peers("local-address: \"fd00::1\""), "3:61", "of different families"},
		"local-address same":      {peers("local-address: 10.1.0.5"), "3:61", "10.1.0.5 is the peer's address"},
		"multihop-ttl":            {peers("multihop-ttl: 256"), "3:60", "allowed: 1 to 255"},
		"gtsm":                    {peers("gtsm: 255"), "3:52", "255 is out of range, allowed: 1 to 254"},
		"gtsm and multihop":       {peers("gtsm: 1, multihop-ttl: 3"), "3:69", "peers[1].multihop-ttl: cannot go with peers[1].gtsm in line 3"},
		"damping without effect":  {peers("damping: {suppress: 13000}"), "3:55", "suppress 13000 is never reached: with this half-life, reuse and max-suppress no penalty exceeds 12000"},
		"damping for ever":        {peers("damping: {reuse: 6000}"), "3:55", "reuse 6000 is not below suppress 6000"},
		"hold-time 2s":            {peers("hold-time: 2s"), "3:57", "2s is out of range, allowed: 0s, or 3s to 65535s"},
		"hold-time negative":      {peers("hold-time: -3s"), "3:57", "out of range"},
		"hold-time fraction":      {peers("hold-time: 3500ms"), "3:57", "3500ms is not in whole seconds"},
		"hold-time no unit":       {peers("hold-time: 180"), "3:57", "180 has no unit (did you mean 180s?)"},
		"hold-time too large":     {peers("hold-time: 65536s"), "3:57", "out of range"},
		"hold-time word":          {peers("hold-time: long"), "3:57", `"long" is not a duration such as 60s`},
		"keepalive too long":      {peers("keepalive: 180s"), "3:57", "180s is not less than hold-time 180s (the default)"},
		"keepalive and hold":      {peers("hold-time: 9s, keepalive: 10s"), "3:72", "10s is not less than hold-time 9s (line 3)"},
		"keepalive zero":          {peers("keepalive: 0s"), "3:57", "0s would let the session end"},
		"keepalive without hold":  {peers("hold-time: 0s, keepalive: 10s"), "3:72", "10s with hold-time 0s (line 3), allowed: 0s"},
		"next-hop word":           {peers("next-hop: us"), "3:56", `"us" is not known here, allowed: unchanged, self`},
		"description lines":       {peers("description: \"a\\nb\""), "3:59", "cannot be printed"},
		"description long":        {peers("description: " + strings.Repeat("é", 256)), "3:59", "has 256 characters, allowed: one line of at most 255"},
		"credential without unit": {peers("password-credential: one"), "3:67", "CREDENTIALS_DIRECTORY is not set"},
		"credential path":         {peers("password-credential: ../one"), "3:67", "is not the name of a credential"},

		"table local":        {"fib: {table: local}", "1:14", "local is the table of the host's own addresses"},
		"table 255":          {"fib: {table: 255}", "1:14", "255 is the table of the host's own addresses"},
		"table 0":            {"fib: {table: 0}", "1:14", "0 means no table"},
		"table too large":    {"fib: {table: 4294967296}", "1:14", "out of range"},
		"table unknown":      {"fib: {table: no-such-table}", "1:14", `"no-such-table" is no table that iproute2 knows, allowed: main, default, a number`},
		"metric zero":        {"fib: {metric: 0}", "1:15", "0 is the metric of routes that were added without one"},
		"metric too large":   {"fib: {metric: 4294967296}", "1:15", "out of range"},
		"protocol kernel":    {"fib: {protocol: 2}", "1:17", "2 is the protocol number of the kernel, allowed: 5 to 255"},
		"protocol BIRD":      {"fib: {protocol: 12}", "1:17", "12 is the protocol number of BIRD"},
		"protocol too large": {"fib: {protocol: 256}", "1:17", "out of range"},
		"max-paths 0":        {"fib: {max-paths: 0}", "1:18", "allowed: 1 to 256"},
		"max-paths 257":      {"fib: {max-paths: 257}", "1:18", "allowed: 1 to 256"},
		"mode":               {"fib: {mode: dry-run}", "1:13", `"dry-run" is not known here, allowed: install, observe`},
		"next-hop-objects":   {"fib: {next-hop-objects: auto}", "1:25", "allowed: true or false"},
		"sweep-after 0":      {"fib: {sweep-after: 0s}", "1:20", "allowed: 1s to 1h"},
		"on-stop":            {"fib: {on-stop: drop}", "1:16", "allowed: keep, flush"},
		"role-strict alone":  {peers("role-strict: true"), "3:59", "has no use without a role"},
		"bfd next hop twice": {"fib: {bfd-next-hops: {addresses: [10.1.0.9, 10.1.0.9]}}", "1:45", "10.1.0.9 is listed twice"},
		"bfd next hop peer":  {peers("port: 179") + "fib: {bfd-next-hops: {addresses: [10.1.0.5]}}", "4:35", "10.1.0.5 is peer two in line 3, allowed: next hops that are no peers"},
		"bfd next hop TTL":   {"fib: {bfd-next-hops: {mode: single-hop, min-ttl: 9}}", "1:50", "has no use with mode single-hop"},
		"metrics port":       {"metrics: {listen: \"127.0.0.1\"}", "1:19", `"127.0.0.1" is not host:port, allowed: host:port, :port, or "off"`},
		"metrics port 0":     {"metrics: {listen: \":0\"}", "1:19", "has no port from 1 to 65535"},
		"metrics host":       {"metrics: {listen: \"a b:9565\"}", "1:19", "neither an address nor a host name"},
		"socket relative":    {"api: {socket: x.sock}", "1:15", `"x.sock" is not an absolute path`},
		"socket directory":   {"api: {socket: /run/}", "1:15", "is not the plain path of a file"},
		"socket too long":    {"api: {socket: /" + strings.Repeat("x", 107) + "}", "1:15", "has 108 characters, allowed: absolute path of at most 107"},
		"log level":          {"log: {level: verbose}", "1:14", "allowed: debug, info, warn, error"},
		"log format":         {"log: {format: xml}", "1:15", "allowed: auto, journal, text, json"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := mistakes(t, c.text)
			if len(got) != 1 || !strings.HasPrefix(got[0], "f:"+c.place+": ") || !strings.Contains(got[0], c.want) {
				t.Errorf("Parse(%q)\ngot  %s\nwant one mistake at %s with %s", c.text, strings.Join(got, "\n     "), c.place, c.want)
			}
		})
	}
}

// A mistake in one value must not make up others in the values that relate to it.
func TestNoMistakesThatFollow(t *testing.T) {
	for name, text := range map[string]string{
		"local AS":    "asn: 0\npeers: [{name: one, address: 10.1.0.4, asn: 65515}]",
		"hold time":   peers("hold-time: 1s, keepalive: 200s"),
		"vnet":        "vnet: {prefixes: [10.1.0.1/16], allow-inside-vnet: [10.1.1.0/24]}",
		"vnet kind":   "vnet: {prefixes: {a: b}, allow-inside-vnet: [10.1.1.0/24]}",
		"listen":      "listen: [fd00]\n" + peers("passive: true"),
		"two garbled": "peers: [{name: a b, address: 10.1.0.4, asn: 65147}, {name: c, address: 10.1.0.5, asn: 65147}]",
	} {
		t.Run(name, func(t *testing.T) {
			if got := mistakes(t, text); len(got) != 1 {
				t.Errorf("Parse(%q): want one mistake, got\n%s", text, strings.Join(got, "\n"))
			}
		})
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// S7: the secret is never echoed. It is not even read.
func TestPasswordFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	writeFile(t, filepath.Join(dir, "good"), "hunter2\n", 0o640)
	writeFile(t, filepath.Join(dir, "open"), "hunter2\n", 0o644)
	writeFile(t, filepath.Join(dir, "writable"), "hunter2\n", 0o602)
	writeFile(t, filepath.Join(dir, "empty"), "", 0o600)
	for name, c := range map[string]struct{ keys, want string }{
		"missing file":       {"password-file: " + dir + "/none", dir + "/none: no such file"},
		"readable by others": {"password-file: " + dir + "/open", dir + "/open: has mode 0644 and must not be readable by others, chmod 0640"},
		"writable by others": {"password-file: " + dir + "/writable", "chmod 0640"},
		"empty file":         {"password-file: " + dir + "/empty", dir + "/empty: is empty"},
		"directory":          {"password-file: " + dir, dir + ": is not a regular file"},
		"not a path":         {"password-file: hunter2", "is not an absolute path"},
		"list":               {"password-file: [hunter2]", "is a list"},
		"mapping":            {"password-file: {hunter2: 1}", "is a mapping"},
		"missing credential": {"password-credential: none", dir + "/none: no such file"},
		"credential path":    {"password-credential: hunter2/x", "is not the name of a credential"},
		"open credential":    {"password-credential: open", "chmod 0640"},
		"both":               {"password-file: " + dir + "/good, password-credential: good", "peers[1].password-credential: cannot go with peers[1].password-file in line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			got := mistakes(t, peers(c.keys))
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %s\nwant one mistake with %s", strings.Join(got, "\n"), c.want)
			}
			if strings.Contains(strings.Join(got, "\n"), "hunter2") {
				t.Errorf("the secret is in the error: %s", got)
			}
		})
	}
}

// What a web configuration has wrong is found before it is used, and not repeated.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	hash := "$2y$04$V1cQzGqmjlRyVC0iPjCfWOE4hZ9ZJyc5ML4OvmBWuSyK8rkG5GQtG"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string // "": it is valid
	}{
		"users":               {"basic_auth_users: {prometheus: " + hash + "}\n", 0o640, ""},
		"nothing to do":       {"{}\n", 0o640, ""},
		"readable by others":  {"{}\n", 0o644, "chmod 0640"},
		"empty":               {"", 0o640, "is empty"},
		"not YAML":            {"a: b: c\n", 0o640, "yaml: "},
		"no hash":             {"basic_auth_users: {prometheus: hunter2}\n", 0o640, "a password is not a bcrypt hash (make one with: htpasswd"},
		"password for users":  {"basic_auth_users: hunter2\n", 0o640, "line 1: cannot unmarshal !!str a value into"},
		"misspelt":            {"basic_auth_user: {prometheus: hunter2}\n", 0o640, "line 1: field basic_auth_user not found"},
		"missing certificate": {"tls_server_config: {cert_file: none.crt, key_file: none.key}\n", 0o640, dir + "/none.crt"},
		"missing key":         {"tls_server_config: {cert_file: none.crt}\n", 0o640, "missing one of key or key_file"},
		"relative header":     {"http_server_config: {headers: {X-Mine: a}}\n", 0o640, "can not be configured"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "web.yml")
			writeFile(t, path, c.text, c.mode)
			cfg, err := Parse("f", []byte("metrics: {web-config: "+path+"}\n"))
			switch {
			case c.want == "":
				if err != nil || cfg.Metrics.WebConfig != path {
					t.Errorf("Parse = %+v, %v, want it taken", cfg, err)
				}
			case err == nil || !strings.HasPrefix(err.Error(), "f:1:23: metrics.web-config: "+path+": ") || !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v\nwant the place, the file and %q", err, c.want)
			case strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "'h'"):
				t.Errorf("the secret is in the error: %v", err)
			}
		})
	}
	if got := mistakes(t, "metrics: {web-config: web.yml}\n"); len(got) != 1 || !strings.Contains(got[0], "is not an absolute path") {
		t.Errorf("got %q", got)
	}
}

func TestTableByName(t *testing.T) {
	root := fstest.MapFS{
		"etc/iproute2/rt_tables":             {Data: []byte("# comment\n255\tlocal\n100 blue # ours\n0x65 red\nx broken\n")},
		"etc/iproute2/rt_tables.d/a.conf":    {Data: []byte("102 green\n")},
		"etc/iproute2/rt_tables.d/a.ignored": {Data: []byte("103 grey\n")},
		"usr/share/iproute2/rt_tables":       {Data: []byte("200 blue\n104 black\n")},
	}
	for name, want := range map[string]uint64{
		"blue": 100, "red": 101, "green": 102, "black": 104, "local": 255, "grey": 0, "broken": 0, "": 0,
	} {
		if got, ok := tableByName(root, name); got != want || ok != (want != 0) {
			t.Errorf("tableByName(%q) = %d, %v, want %d", name, got, ok, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	writeFile(t, good, "asn: 65001\n", 0o644)
	writeFile(t, bad, "asn: 0\n", 0o644)
	large := filepath.Join(dir, "large.yaml")
	writeFile(t, large, string(bytes.Repeat([]byte("#\n"), maxSize)), 0o644)
	if c, err := Load(good); err != nil || c.ASN != 65001 {
		t.Errorf("Load(good) = %+v, %v", c, err)
	}
	for path, want := range map[string]string{
		bad:                  bad + ":1:6: asn: AS 0 is reserved",
		large:                large + ":1:1: is larger than 1048576 bytes",
		dir:                  dir + ": is a directory, must be a file",
		dir + "/none":        dir + "/none: no such file",
		good + "/none":       good + "/none: not a directory",
		dir + "/a\x00b.yaml": "invalid argument",
	} {
		c, err := Load(path)
		var errs Errors
		if c != nil || !errors.As(err, &errs) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Load(%q) = %v, %v, want one line with %q", path, c, err, want)
		}
	}
}
