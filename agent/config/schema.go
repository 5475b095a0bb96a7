package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/policy"
)

// The tables of keys. A new key is a field of the struct, one line here, its default
// in defaults or defaultPeer, and its paragraph in docs/nexthopd.yaml (a test finds
// what is missing there). Checks between values are in check.go.

var configKeys = []key[Config]{
	value("asn", restart, func(c *Config) *uint32 { return &c.ASN }, asNumber),
	value("router-id", restart, func(c *Config) *netip.Addr { return &c.RouterID }, routerID),
	list("listen", restart, func(c *Config) *[]netip.AddrPort { return &c.Listen }, listenAddress),
	group("vnet", func(c *Config) *VNet { return &c.VNet }, vnetKeys),
	{name: "peers", read: readPeers, allowed: "list of mappings with name, address and asn", shape: peersShape},
	{name: "dynamic-peers", read: readDynamic, allowed: "list of mappings with range, name and asn", shape: dynamicShape, diff: diffDynamic},
	value("branch-to-branch", live, func(c *Config) *bool { return &c.BranchToBranch }, boolean),
	value("announce", live, func(c *Config) *Announce { return &c.Announce }, oneOf(AnnounceForwarding, AnnounceAll)),
	value("prefix-limit-total", live, func(c *Config) *int { return &c.PrefixLimitTotal }, number(0, maxPrefixes)),
	{name: "sets", allowed: "mapping with keys among: " + keyNames(setKeys), shape: func() Key { return Key{Keys: describe(setKeys)} },
		read: func(d *decoder, _ node, _ *Config) { d.named() }},
	group("fib", func(c *Config) *FIB { return &c.FIB }, fibKeys),
	group("metrics", func(c *Config) *Metrics { return &c.Metrics }, metricsKeys),
	group("api", func(c *Config) *API { return &c.API }, apiKeys),
	group("log", func(c *Config) *Log { return &c.Log }, logKeys),
}

var vnetKeys = []key[VNet]{
	list("prefixes", announce, func(v *VNet) *[]netip.Prefix { return &v.Prefixes }, vnetPrefix),
	list("allow-inside-vnet", live, func(v *VNet) *[]netip.Prefix { return &v.AllowInside }, prefix),
	nextHops("next-hop", live),
}

var peerKeys = []key[Peer]{
	required(value("name", live, func(p *Peer) *string { return &p.Name }, peerName)),
	required(value("address", reset, func(p *Peer) *netip.Addr { return &p.Address }, unicastAddress)),
	required(value("asn", reset, func(p *Peer) *uint32 { return &p.ASN }, asNumber)),
	value("description", live, func(p *Peer) *string { return &p.Description }, description),
	value("port", reset, func(p *Peer) *uint16 { return &p.Port }, number[uint16](1, 65535)),
	value("passive", reset, func(p *Peer) *bool { return &p.Passive }, boolean),
	value("local-address", reset, func(p *Peer) *netip.Addr { return &p.LocalAddress }, unicastAddress),
	value("multihop-ttl", reset, func(p *Peer) *uint8 { return &p.MultihopTTL }, number[uint8](1, 255)),
	value("hold-time", reset, func(p *Peer) *time.Duration { return &p.HoldTime }, holdTime),
	value("keepalive", reset, func(p *Peer) *time.Duration { return &p.Keepalive }, keepalive),
	value("next-hop", live, func(p *Peer) *NextHop { return &p.NextHop }, oneOf(NextHopUnchanged, NextHopSelf)),
	value("shutdown", live, func(p *Peer) *bool { return &p.Shutdown }, boolean),
	secret("password-file", passwordFile, false),
	secret("password-credential", passwordCredential, true),
	value("gtsm", reset, func(p *Peer) *uint8 { return &p.GTSM }, number[uint8](1, 254)),
	orSwitch(group("bfd", func(p *Peer) *BFD { return &p.BFD }, bfdKeys), func(p *Peer) *bool { return &p.BFD.Enabled }),
	orSwitch(group("graceful-restart", func(p *Peer) *GracefulRestart { return &p.GracefulRestart }, gracefulRestartKeys),
		func(p *Peer) *bool { return &p.GracefulRestart.Enabled }),
	orSwitch(group("damping", func(p *Peer) *Damping { return &p.Damping }, dampingKeys), func(p *Peer) *bool { return &p.Damping.Enabled }),
	group("guards", func(p *Peer) *Guards { return &p.Guards }, guardKeys),
	value("blackhole", live, func(p *Peer) *bool { return &p.Blackhole }, boolean),
	value("role", reset, func(p *Peer) *Role { return &p.Role }, oneOf(RoleNone, RoleProvider, RoleCustomer, RolePeer, RoleServer, RoleClient)),
	value("role-strict", reset, func(p *Peer) *bool { return &p.RoleStrict }, boolean),
	orValue(group("prefix-limit", func(p *Peer) *PrefixLimit { return &p.PrefixLimit }, prefixLimitKeys),
		func(p *Peer) *int { return &p.PrefixLimit.Max }, prefixLimit),
	filter("import", false, func(p *Peer) **policy.Filter { return &p.Import }),
	filter("export", true, func(p *Peer) **policy.Filter { return &p.Export }),
}

// maxPrefixes is more than this host could hold.
const maxPrefixes = 100_000_000

var prefixLimit = number(1, maxPrefixes)

var prefixLimitKeys = []key[PrefixLimit]{
	value("max", live, func(l *PrefixLimit) *int { return &l.Max }, prefixLimit),
	value("ipv4", live, func(l *PrefixLimit) *FamilyLimit { return &l.IPv4 }, number[FamilyLimit](1, maxPrefixes)),
	value("ipv6", live, func(l *PrefixLimit) *FamilyLimit { return &l.IPv6 }, number[FamilyLimit](1, maxPrefixes)),
	value("warning", live, func(l *PrefixLimit) *int { return &l.Warning }, number(1, 100)),
	value("action", live, func(l *PrefixLimit) *LimitAction { return &l.Action }, oneOf(LimitClose, LimitFreeze)),
	value("idle", live, func(l *PrefixLimit) *time.Duration { return &l.Idle }, limitIdle),
}

var dampingKeys = []key[Damping]{
	value("enabled", live, func(d *Damping) *bool { return &d.Enabled }, boolean),
	value("half-life", live, func(d *Damping) *time.Duration { return &d.HalfLife }, halfLife),
	value("suppress", live, func(d *Damping) *int { return &d.Suppress }, number(1000, 100_000)),
	value("reuse", live, func(d *Damping) *int { return &d.Reuse }, number(100, 100_000)),
	value("max-suppress", live, func(d *Damping) *time.Duration { return &d.MaxSuppress }, maxSuppress),
}

var gracefulRestartKeys = []key[GracefulRestart]{
	value("enabled", reset, func(g *GracefulRestart) *bool { return &g.Enabled }, boolean),
	value("restart-time", reset, func(g *GracefulRestart) *time.Duration { return &g.RestartTime }, restartTime),
	value("stale-time", live, func(g *GracefulRestart) *time.Duration { return &g.StaleTime }, staleTime),
	value("long-lived", reset, func(g *GracefulRestart) *time.Duration { return &g.LongLived }, longLived),
}

var bfdKeys = slices.Concat([]key[BFD]{
	value("enabled", live, func(b *BFD) *bool { return &b.Enabled }, boolean),
}, within(func(b *BFD) *BFDSession { return &b.BFDSession }, bfdSessionKeys), []key[BFD]{
	value("strict", live, func(b *BFD) *bool { return &b.Strict }, boolean),
})

var bfdNextHopKeys = append([]key[BFDNextHops]{
	list("addresses", live, func(b *BFDNextHops) *[]netip.Addr { return &b.Addresses }, unicastAddress),
}, within(func(b *BFDNextHops) *BFDSession { return &b.BFDSession }, bfdSessionKeys)...)

var bfdSessionKeys = []key[BFDSession]{
	value("interval", live, func(b *BFDSession) *time.Duration { return &b.Interval }, bfdInterval),
	value("multiplier", live, func(b *BFDSession) *uint8 { return &b.Multiplier }, number[uint8](1, 255)),
	value("mode", live, func(b *BFDSession) *BFDMode { return &b.Mode }, oneOf(BFDAuto, BFDSingleHop, BFDMultihop)),
	value("min-ttl", live, func(b *BFDSession) *uint8 { return &b.MinTTL }, number[uint8](1, 255)),
	group("auth", func(b *BFDSession) *BFDAuth { return &b.Auth }, bfdAuthKeys),
}

var bfdAuthKeys = []key[BFDAuth]{
	required(value("type", live, func(a *BFDAuth) *BFDAuthType { return &a.Type }, oneOf(BFDKeyedSHA1, BFDMeticulousSHA1))),
	value("key-id", live, func(a *BFDAuth) *uint8 { return &a.KeyID }, number[uint8](0, 255)),
	required(value("key-file", live, func(a *BFDAuth) *string { return &a.KeyFile }, passwordFile)),
}

var fibKeys = []key[FIB]{
	value("table", restart, func(f *FIB) *uint32 { return &f.Table }, table),
	value("metric", restart, func(f *FIB) *uint32 { return &f.Metric }, metric),
	value("protocol", restart, func(f *FIB) *uint8 { return &f.Protocol }, protocol),
	value("max-paths", restart, func(f *FIB) *int { return &f.MaxPaths }, number[int](1, 256)),
	value("mode", restart, func(f *FIB) *Mode { return &f.Mode }, oneOf(ModeInstall, ModeObserve)),
	value("next-hop-objects", restart, func(f *FIB) *bool { return &f.NextHopObjects }, boolean),
	value("sweep-after", live, func(f *FIB) *time.Duration { return &f.SweepAfter }, sweepAfter),
	group("blast-radius", func(f *FIB) *BlastRadius { return &f.BlastRadius }, blastRadiusKeys),
	value("sweep-share", live, func(f *FIB) *int { return &f.SweepShare }, number[int](0, 100)),
	value("probe", live, func(f *FIB) *time.Duration { return &f.Probe }, probeInterval),
	value("persist", live, func(f *FIB) *time.Duration { return &f.Persist }, persistTime),
	value("audit", live, func(f *FIB) *time.Duration { return &f.Audit }, auditInterval),
	value("on-stop", live, func(f *FIB) *OnStop { return &f.OnStop }, oneOf(OnStopKeep, OnStopFlush)),
	group("bfd-next-hops", func(f *FIB) *BFDNextHops { return &f.BFDNextHops }, bfdNextHopKeys),
}

var blastRadiusKeys = []key[BlastRadius]{
	value("share", live, func(b *BlastRadius) *int { return &b.Share }, number(1, 100)),
	value("min", live, func(b *BlastRadius) *int { return &b.Min }, number(1, 100_000_000)),
}

var metricsKeys = []key[Metrics]{
	value("listen", restart, func(m *Metrics) *string { return &m.Listen }, hostPort),
	value("web-config", restart, func(m *Metrics) *string { return &m.WebConfig }, webConfig),
}

var apiKeys = []key[API]{
	value("socket", restart, func(a *API) *string { return &a.Socket }, socketPath),
}

var logKeys = []key[Log]{
	value("level", live, func(l *Log) *slog.Level { return &l.Level }, logLevel),
	value("format", restart, func(l *Log) *string { return &l.Format }, oneOf("auto", "journal", "text", "json")),
}

// defaults is what an empty file means.
func defaults() Config {
	return Config{
		ASN: 65515, // S1
		Listen: []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv4Unspecified(), bgpPort),
			netip.AddrPortFrom(netip.IPv6Unspecified(), bgpPort),
		},
		BranchToBranch: true,
		Announce:       AnnounceForwarding, // S31
		FIB: FIB{
			Table:          tableMain,
			Metric:         20,
			Protocol:       165,
			MaxPaths:       64, // S14
			Mode:           ModeInstall,
			NextHopObjects: true,
			SweepAfter:     120 * time.Second,
			SweepShare:     50,
			BlastRadius:    BlastRadius{Share: 50, Min: 100},
			Audit:          60 * time.Second,
			OnStop:         OnStopKeep,
			BFDNextHops:    BFDNextHops{BFDSession: defaultBFD()},
		},
		Metrics: Metrics{Listen: ":9565"},
		API:     API{Socket: "/run/nexthopd/nexthopd.sock"},
		Log:     Log{Level: slog.LevelInfo, Format: "auto"},
	}
}

// defaultPeer is a peer of which nothing was said (S2, S5).
func defaultPeer() Peer {
	return Peer{
		Port:        bgpPort,
		MultihopTTL: 64,
		HoldTime:    180 * time.Second,
		Keepalive:   60 * time.Second,
		NextHop:     NextHopUnchanged,
		BFD:         BFD{BFDSession: defaultBFD()},
		GracefulRestart: GracefulRestart{
			Enabled:     true, // S6
			RestartTime: 120 * time.Second,
			StaleTime:   360 * time.Second,
		},
		Damping: Damping{ // RFC 7196 section 6
			HalfLife:    15 * time.Minute,
			Suppress:    6000,
			Reuse:       750,
			MaxSuppress: time.Hour,
		},
		Guards:      defaultGuards(),
		Role:        RoleNone,
		PrefixLimit: PrefixLimit{Max: 4000, Warning: 75, Action: LimitClose, Idle: 5 * time.Minute}, // S9
	}
}

func defaultBFD() BFDSession {
	return BFDSession{
		Interval:   300 * time.Millisecond,
		Multiplier: 3,
		Mode:       BFDAuto,
		Auth:       BFDAuth{KeyID: 1},
	}
}

// effect says what a change of a key at run time means.
type effect uint8

const (
	live     effect = iota // takes effect at once, disturbs no session
	reset                  // ends the peer's session, and starts one anew
	restart                // has to wait for a restart of the daemon
	announce               // compared member by member, see Compare
	alias                  // another way to write a key of the same table; compared there
)

// key is one key of a mapping that is read into an S.
type key[S any] struct {
	name     string
	allowed  string // what its value may be, as error texts say it
	required bool
	effect   effect
	read     func(d *decoder, n node, s *S)
	shape    func() Key // see Keys
	// diff lists what differs; nil for what Compare looks at on its own.
	diff func(path string, before, after *S) []Change
}

func required[S any](k key[S]) key[S] {
	k.required = true
	return k
}

// scalar is a kind of value: how its text is read, and what is allowed.
type scalar[V any] struct {
	allowed string
	// parse says only what is wrong; what is allowed is added to it.
	parse func(text string) (V, error)
}

// read reads one value. What is wrong is reported, and the zero value returned.
func (t scalar[V]) read(d *decoder, n node) (V, bool) {
	var zero V
	text, ok := n.scalar()
	if !ok {
		d.fail(n, "is %s, allowed: %s", n.kind(), t.allowed)
		return zero, false
	}
	v, err := t.parse(text)
	if err != nil {
		d.fail(n, "%s, allowed: %s", err, t.allowed)
		return zero, false
	}
	return v, true
}

// value is a key with a single value.
func value[S any, V comparable](name string, e effect, field func(*S) *V, t scalar[V]) key[S] {
	return key[S]{
		name: name, allowed: t.allowed, effect: e, shape: t.shape,
		read: func(d *decoder, n node, s *S) {
			if v, ok := t.read(d, n); ok {
				*field(s) = v
			}
		},
		diff: func(path string, before, after *S) []Change {
			if *field(before) == *field(after) {
				return nil
			}
			return []Change{{path, show(*field(before)), show(*field(after)), e}}
		},
	}
}

// secret is a key of a peer that names the file of its password: what is in there counts.
// Another secret leaves the session up; one where there was none, or none, does not.
func secret(name string, t scalar[string], other bool) key[Peer] {
	k := value(name, reset, func(p *Peer) *string { return &p.PasswordFile }, t)
	if other {
		k.effect = alias
	}
	readPath, diffPath := k.read, k.diff
	k.read = func(d *decoder, n node, p *Peer) {
		readPath(d, n, p)
		p.PasswordSum = sumFile(p.PasswordFile)
	}
	k.diff = func(path string, before, after *Peer) []Change {
		changes := diffPath(path, before, after)
		if len(changes) == 0 && before.PasswordSum != after.PasswordSum {
			changes = []Change{{path, "old secret", "new secret", live}}
		}
		if before.PasswordFile != "" && after.PasswordFile != "" {
			for i := range changes {
				changes[i].effect = live
			}
		}
		return changes
	}
	return k
}

// list is a key with any number of values, whose order means nothing.
func list[S any, V comparable](name string, e effect, field func(*S) *[]V, t scalar[V]) key[S] {
	return key[S]{
		name: name, allowed: "list of: " + t.allowed, effect: e, shape: listShape(t),
		read: func(d *decoder, n node, s *S) {
			var values []V
			for _, element := range d.elements(n, t.allowed) {
				// Also one with a mistake takes its seat, so that checks know the
				// path of those after it.
				v, _ := t.read(d, element)
				values = append(values, v)
			}
			if len(values) > 0 {
				*field(s) = values
			}
		},
		diff: func(path string, before, after *S) []Change {
			from, to := showAll(*field(before)), showAll(*field(after))
			if from == to {
				return nil
			}
			return []Change{{path, from, to, e}}
		},
	}
}

// group is a key with keys of its own.
func group[S, T any](name string, field func(*S) *T, keys []key[T]) key[S] {
	return key[S]{
		name: name, allowed: "mapping with keys among: " + keyNames(keys),
		shape: func() Key { return Key{Keys: describe(keys)} },
		read:  func(d *decoder, n node, s *S) { readMap(d, n, field(s), keys) },
		diff: func(path string, before, after *S) []Change {
			return diffKeys(path, field(before), field(after), keys)
		},
	}
}

// within are the keys of a T as keys of the S that holds it.
func within[S, T any](field func(*S) *T, keys []key[T]) []key[S] {
	var out []key[S]
	for _, k := range keys {
		out = append(out, key[S]{
			name: k.name, allowed: k.allowed, required: k.required, effect: k.effect, shape: k.shape,
			read: func(d *decoder, n node, s *S) { k.read(d, n, field(s)) },
			diff: func(path string, before, after *S) []Change { return k.diff(path, field(before), field(after)) },
		})
	}
	return out
}

// orSwitch lets a group of keys be written as true or false too, for one of them.
func orSwitch[S any](k key[S], field func(*S) *bool) key[S] { return orValue(k, field, boolean) }

// orValue lets a group of keys be written as a single value too, for one of them.
func orValue[S, V any](k key[S], field func(*S) *V, t scalar[V]) key[S] {
	t.allowed += ", or a " + k.allowed
	k.allowed = t.allowed
	readGroup, groupShape := k.read, k.shape
	k.read = func(d *decoder, n node, s *S) {
		if _, single := n.scalar(); !single {
			readGroup(d, n, s)
			return
		}
		if v, ok := t.read(d, n); ok {
			*field(s) = v
		}
	}
	k.shape = func() Key {
		shape := groupShape()
		shape.Type = t.shape().Type
		return shape
	}
	return k
}

// nextHops is the key of one address per family.
func nextHops(name string, e effect) key[VNet] {
	fields := func(v *VNet) []netip.Addr {
		return slices.DeleteFunc([]netip.Addr{v.NextHop4, v.NextHop6}, func(a netip.Addr) bool { return !a.IsValid() })
	}
	allowed := unicastAddress.allowed + ", at most one per family"
	return key[VNet]{
		name: name, allowed: allowed, effect: e, shape: listShape(unicastAddress),
		read: func(d *decoder, n node, v *VNet) {
			for _, element := range d.elements(n, allowed) {
				a, ok := unicastAddress.read(d, element)
				if !ok {
					continue
				}
				field := &v.NextHop4
				if a.Is6() {
					field = &v.NextHop6
				}
				if field.IsValid() {
					d.fail(element, "a second address of its family, after %s, allowed: %s", *field, allowed)
					continue
				}
				*field = a
			}
		},
		diff: func(path string, before, after *VNet) []Change {
			from, to := showAll(fields(before)), showAll(fields(after))
			if from == to {
				return nil
			}
			return []Change{{path, from, to, e}}
		},
	}
}

// readPeers reads the list of peers. Each starts as defaultPeer.
func readPeers(d *decoder, n node, c *Config) {
	for _, element := range d.elements(n, "mapping with keys among "+keyNames(peerKeys)) {
		p := defaultPeer()
		if element.isNull() {
			// `-` and nothing more: readMap would list each required key.
			d.fail(element, "is empty, must be a mapping with keys among: %s", keyNames(peerKeys))
		} else {
			readMap(d, element, &p, peerKeys)
		}
		c.Peers = append(c.Peers, p)
	}
}

// show writes a value as a person reads it.
func show(v any) string {
	switch v := v.(type) {
	case netip.Addr:
		if !v.IsValid() {
			return "default"
		}
	case time.Duration:
		if v%time.Second == 0 {
			return fmt.Sprintf("%ds", v/time.Second)
		}
	case string:
		if v == "" {
			return "none"
		}
	}
	return fmt.Sprint(v)
}

func showAll[V any](values []V) string {
	if len(values) == 0 {
		return "none"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = show(v)
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}
