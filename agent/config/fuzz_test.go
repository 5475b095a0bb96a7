package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/policy"
)

// FuzzParse: no input panics; an error is Errors, one line each, sorted, placed inside
// the file; a valid result holds what the package promises, and says the same when it
// is written out and read again.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("seeds: %v, %v", seeds, err)
	}
	for _, seed := range append(seeds, "../../docs/nexthopd.yaml") {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			var errs Errors
			if c != nil || !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("Parse = %+v, %T", c, err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(errs) {
				t.Fatalf("%d errors on %d lines:\n%s", len(errs), len(lines), err)
			}
			if !slices.IsSortedFunc(errs, func(a, b *Error) int {
				return 2*min(1, max(-1, a.Line-b.Line)) + min(1, max(-1, a.Col-b.Col))
			}) {
				t.Fatalf("not sorted:\n%s", err)
			}
			last := 1 + strings.Count(string(data), "\n") + strings.Count(string(data), "\r")
			for _, e := range errs {
				if e.Line < 1 || e.Line > last || e.Col < 1 || e.Msg == "" {
					t.Fatalf("%+v: no place in a file of %d lines", e, last)
				}
			}
			return
		}
		checkPromises(t, c)
		text := render(c)
		again, err := Parse("f", []byte(text))
		if err != nil {
			t.Fatalf("written out and read again: %v\n%s", err, text)
		}
		if !reflect.DeepEqual(c, again) || !Compare(c, again).Empty() {
			t.Fatalf("written out and read again:\ngot  %+v\nwant %+v\n%s", again, c, text)
		}
	})
}

// checkPromises says again, in other words than the code, what a Config may hold.
func checkPromises(t *testing.T, c *Config) {
	t.Helper()
	must := func(ok bool, what string) {
		if !ok {
			t.Fatalf("%s: %+v", what, c)
		}
	}
	asn := func(n uint32) bool { return n != 0 && n != 23456 && n != 65535 && n != 1<<32-1 }
	must(asn(c.ASN), "asn")
	must(len(c.Listen) > 0, "listen")
	for _, l := range c.Listen {
		must(l.IsValid() && l.Port() == c.Listen[0].Port() && l.Port() != 0, "listen")
	}
	for i, p := range c.VNet.Prefixes {
		must(p.IsValid() && p == p.Masked() && p.Bits() > 0, "prefixes")
		for _, other := range c.VNet.Prefixes[:i] {
			must(!p.Overlaps(other), "prefixes overlap")
		}
	}
	for _, p := range c.VNet.AllowInside {
		must(p == p.Masked() && slices.ContainsFunc(c.VNet.Prefixes, func(v netip.Prefix) bool {
			return v.Overlaps(p) && v.Bits() <= p.Bits()
		}), "allow-inside-vnet")
	}
	seenName, seenAddress := map[string]bool{}, map[netip.Addr]bool{}
	for _, p := range c.Peers {
		must(p.Name != "" && !seenName[p.Name], "peer name")
		must(p.Address.IsValid() && p.Address.Zone() == "" && !p.Address.IsMulticast() && !seenAddress[p.Address], "peer address")
		must(asn(p.ASN) && p.ASN != c.ASN, "peer asn")
		must(p.HoldTime == 0 && p.Keepalive == 0 || p.HoldTime.Seconds() >= 3 && p.Keepalive > 0 && p.Keepalive < p.HoldTime, "timers")
		must(p.Port > 0 && p.MultihopTTL > 0 && p.GTSM < 255, "port, ttl")
		must(p.PasswordFile == "" || filepath.IsAbs(p.PasswordFile), "password-file")
		seenName[p.Name], seenAddress[p.Address] = true, true
	}
	must(c.FIB.Table != 0 && c.FIB.Table != 255 && c.FIB.Metric != 0 && c.FIB.Protocol > 4, "fib")
	must(c.FIB.MaxPaths >= 1 && c.FIB.MaxPaths <= 256 && c.FIB.SweepAfter > 0, "fib")
	must(filepath.IsAbs(c.API.Socket), "socket")
}

// render writes a configuration out in full.
func render(c *Config) string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	quoteAll := func(values any) string {
		var quoted []string
		for v, i := reflect.ValueOf(values), 0; i < v.Len(); i++ {
			quoted = append(quoted, fmt.Sprintf("%q", fmt.Sprint(v.Index(i))))
		}
		return strings.Join(quoted, ", ")
	}
	addr := func(key string, a netip.Addr) {
		if a.IsValid() {
			add("%s: %q", key, a)
		}
	}
	add("asn: %d", c.ASN)
	addr("router-id", c.RouterID)
	add("listen: [%s]", quoteAll(c.Listen))
	var nextHops []netip.Addr
	for _, a := range []netip.Addr{c.VNet.NextHop4, c.VNet.NextHop6} {
		if a.IsValid() {
			nextHops = append(nextHops, a)
		}
	}
	add("vnet:\n  prefixes: [%s]\n  allow-inside-vnet: [%s]\n  next-hop: [%s]",
		quoteAll(c.VNet.Prefixes), quoteAll(c.VNet.AllowInside), quoteAll(nextHops))
	peer := func(p Peer) {
		add("  name: %q\n  description: '%s'", p.Name, strings.ReplaceAll(p.Description, "'", "''"))
		add("  port: %d\n  passive: %t", p.Port, p.Passive)
		addr("  local-address", p.LocalAddress)
		if p.GTSM != 0 {
			add("  gtsm: %d", p.GTSM)
		} else {
			add("  multihop-ttl: %d", p.MultihopTTL)
		}
		add("  hold-time: %s\n  keepalive: %s\n  next-hop: %s", p.HoldTime, p.Keepalive, p.NextHop)
		g := p.Guards
		add("  role: %s\n  role-strict: %t\n  guards: {martian: %t, own-address: %t, first-as: %t, empty-as-path: %t, as-set: %t, confederation: %t, private-as: %s, max-as-path: %d, ipv4-lengths: %s, ipv6-lengths: %s}",
			p.Role, p.RoleStrict, g.Martian, g.OwnAddress, g.FirstAS, g.EmptyASPath, g.ASSet, g.Confederation, g.PrivateAS, g.MaxASPath, g.IPv4, g.IPv6)
		if p.PasswordFile != "" {
			add("  password-file: %q", p.PasswordFile)
		}
		l := p.PrefixLimit
		add("  prefix-limit:\n    max: %d\n    warning: %d\n    action: %s\n    idle: %s", l.Max, l.Warning, l.Action, l.Idle)
		for _, f := range []struct {
			key string
			n   FamilyLimit
		}{{"ipv4", l.IPv4}, {"ipv6", l.IPv6}} {
			if f.n != 0 {
				add("    %s: %d", f.key, f.n)
			}
		}
		renderFilter(add, "import", p.Import)
		renderFilter(add, "export", p.Export)
	}
	add("peers:")
	for _, p := range c.Peers {
		add("- address: %q\n  asn: %d\n  shutdown: %t", p.Address, p.ASN, p.Shutdown)
		peer(p)
	}
	add("dynamic-peers:")
	for _, r := range c.DynamicPeers {
		add("- range: %q\n  asn: [%s]\n  limit: %d", r.Range, quoteAll(r.ASNs), r.Limit)
		peer(r.Like)
	}
	add("branch-to-branch: %t\nannounce: %s\nprefix-limit-total: %d", c.BranchToBranch, c.Announce, c.PrefixLimitTotal)
	add("fib:\n  table: %d\n  metric: %d\n  protocol: %d\n  max-paths: %d\n  mode: %s\n  next-hop-objects: %t\n  sweep-after: %s\n  on-stop: %s\n  blast-radius: {share: %d, min: %d}",
		c.FIB.Table, c.FIB.Metric, c.FIB.Protocol, c.FIB.MaxPaths, c.FIB.Mode, c.FIB.NextHopObjects, c.FIB.SweepAfter, c.FIB.OnStop, c.FIB.BlastRadius.Share, c.FIB.BlastRadius.Min)
	add("metrics:\n  listen: %q", c.Metrics.Listen)
	add("api:\n  socket: '%s'", strings.ReplaceAll(c.API.Socket, "'", "''"))
	add("log:\n  level: %s\n  format: %s", strings.ToLower(c.Log.Level.String()), c.Log.Format)
	return b.String()
}

func renderFilter(add func(string, ...any), key string, f *policy.Filter) {
	if f == nil {
		return
	}
	add("  %s:\n    default: %s\n    rules:", key, f.Default)
	for _, r := range f.Rules {
		add("    - name: %q\n      action: %s\n      match:", r.Name, r.Action)
		if r.Match.Family != "" {
			add("        family: %s", r.Match.Family)
		}
		each := func(key string, texts []string) {
			for i, t := range texts {
				texts[i] = "'" + strings.ReplaceAll(t, "'", "''") + "'"
			}
			if len(texts) > 0 {
				add("        %s: [%s]", key, strings.Join(texts, ", "))
			}
		}
		each("prefix", stringsOf(r.Match.Prefixes.List()))
		each("next-hop", stringsOf(r.Match.NextHops))
		each("community", stringsOf(r.Match.Communities))
		each("large-community", stringsOf(r.Match.Large))
		if len(r.Match.ASPaths) > 0 {
			add("        as-path:")
		}
		for _, p := range r.Match.ASPaths {
			if p.Regexp != "" {
				add("        - '%s'", strings.ReplaceAll(p.Regexp, "'", "''"))
			} else {
				add("        - %s", p)
			}
		}
		add("      set:")
		if r.Set.LocalPref != 0 {
			add("        local-pref: %d", r.Set.LocalPref)
		}
		if r.Set.HasMED {
			add("        med: %d", r.Set.MED)
		}
		if r.Set.Prepend != 0 {
			add("        prepend: %d", r.Set.Prepend)
		}
		if r.Set.NextHop.IsValid() {
			add("        next-hop: %q", r.Set.NextHop)
		}
		add("        community:")
		each("  add", stringsOf(r.Set.Add))
		each("  remove", stringsOf(r.Set.Remove))
		add("        large-community:")
		each("  add", stringsOf(r.Set.AddLarge))
		each("  remove", stringsOf(r.Set.RemoveLarge))
	}
}

func stringsOf[V fmt.Stringer](list []V) (texts []string) {
	for _, v := range list {
		texts = append(texts, v.String())
	}
	return texts
}
