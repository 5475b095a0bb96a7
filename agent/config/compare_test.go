package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/policy"
)

func names(peers []Peer) (all []string) {
	for _, p := range peers {
		all = append(all, p.Name)
	}
	return all
}

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "s"), "x\n", 0o600)
	const base = "vnet: {prefixes: [10.1.0.0/16, 10.2.0.0/16]}\nlisten: [10.1.2.4, 10.1.2.5]\npeers:\n" +
		"- {name: a, address: 10.1.0.4, asn: 65147}\n- {name: b, address: 10.1.0.5, asn: 65148}\n" +
		"- {name: c, address: 10.1.0.6, asn: 65149, shutdown: true}\n"
	change := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	for name, c := range map[string]struct{ after, want string }{
		"nothing": {base, "no change\nsessions reset: none"},
		"order and notation": {
			change("[10.1.0.0/16, 10.2.0.0/16]", "[10.2.0.0/16, 10.1.0.0/16]", "[10.1.2.4, 10.1.2.5]", "[10.1.2.5:179, 10.1.2.4]", "asn: 65147", "asn: 65147, hold-time: 3m"),
			"no change\nsessions reset: none",
		},
		"neutral": {
			change("asn: 65147", "asn: 65147, description: x, next-hop: self"),
			"peer a: description: none -> x\npeer a: next-hop: unchanged -> self\nsessions reset: none",
		},
		"renamed": {change("name: a", "name: z"), "peer z: name: a -> z\nsessions reset: none"},
		"shut down": {
			change("asn: 65147", "asn: 65147, shutdown: true"),
			"peer a: shutdown: false -> true\nsessions ended: a\nsessions reset: none",
		},
		"started": {change(", shutdown: true", ""), "peer c: shutdown: true -> false\nsessions reset: none"},
		"no session to reset": {
			change("asn: 65149", "asn: 65150"), "peer c: asn: 65149 -> 65150\nsessions reset: none",
		},
		"reset": {
			change("asn: 65147", "asn: 65147, hold-time: 9s, local-address: 10.1.2.4", "asn: 65148", "asn: 65148, password-file: "+dir+"/s"),
			"peer a: local-address: default -> 10.1.2.4\npeer a: hold-time: 180s -> 9s\npeer a: keepalive: 60s -> 3s\n" +
				"peer b: password-file: none -> " + dir + "/s\nsessions reset: a, b",
		},
		"added and removed": {
			change("- {name: b, address: 10.1.0.5, asn: 65148}", "- {name: d, address: 10.1.0.7, asn: 65150}"),
			"peer b removed: 10.1.0.5, AS 65148\npeer d added: 10.1.0.7, AS 65150\nsessions ended: b\nsessions reset: none",
		},
		"another address": {
			change("10.1.0.5", "10.1.0.9"),
			"peer b removed: 10.1.0.5, AS 65148\npeer b added: 10.1.0.9, AS 65148\nsessions ended: b\nsessions reset: none",
		},
		"prefixes": {
			change("10.2.0.0/16", "10.3.0.0/16"),
			"vnet prefix withdrawn: 10.2.0.0/16\nvnet prefix announced: 10.3.0.0/16\nsessions reset: none",
		},
		"settings": {
			base + "branch-to-branch: false\nfib: {sweep-after: 60s, on-stop: flush}\nlog: {level: debug}\n",
			"branch-to-branch: true -> false\nfib.sweep-after: 120s -> 60s\n" +
				"fib.on-stop: keep -> flush\nlog.level: INFO -> DEBUG\nsessions reset: none",
		},
		"graceful restart": {
			change("asn: 65147", "asn: 65147, graceful-restart: {stale-time: 1h}", "asn: 65148", "asn: 65148, graceful-restart: {long-lived: 1h}"),
			"peer a: graceful-restart.stale-time: 360s -> 3600s\npeer b: graceful-restart.long-lived: 0s -> 3600s\nsessions reset: b",
		},
		"vnet settings": {
			change("vnet: {", "vnet: {next-hop: 10.1.2.9, allow-inside-vnet: 10.1.1.0/24, "),
			"vnet.allow-inside-vnet: none -> 10.1.1.0/24\nvnet.next-hop: none -> 10.1.2.9\nsessions reset: none",
		},
		"restart": {
			change("[10.1.2.4, 10.1.2.5]", "[10.1.2.4]") + "asn: 65001\nrouter-id: 10.1.2.4\nfib: {table: 100, metric: 3, protocol: 200, max-paths: 2, mode: observe, next-hop-objects: false}\n" +
				"metrics: {listen: off}\napi: {socket: /x}\nlog: {format: json}\n",
			"not until a restart: asn, router-id, listen, fib.table, fib.metric, fib.protocol, fib.max-paths, fib.mode, fib.next-hop-objects, metrics.listen, api.socket, log.format\nsessions reset: none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan := Compare(parse(t, base), parse(t, c.after))
			if got := plan.String(); got != c.want {
				t.Errorf("Compare\ngot  %s\nwant %s", got, c.want)
			}
			if got, want := plan.Empty(), strings.HasPrefix(c.want, "no change"); got != want {
				t.Errorf("Empty() = %v, want %v", got, want)
			}
		})
	}
}

// A secret that was changed in its file, and is not in the plan's text.
func TestCompareSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	text := peers("password-file: " + file)
	writeFile(t, file, "one\n", 0o600)
	before := parse(t, text)
	if plan := Compare(before, parse(t, text)); !plan.Empty() {
		t.Errorf("the same secret: %s", plan)
	}
	writeFile(t, file, "two\n", 0o600)
	const want = "peer two: password-file: old secret -> new secret\nsessions reset: none"
	if got := Compare(before, parse(t, text)).String(); got != want {
		t.Errorf("a new secret:\ngot  %s\nwant %s", got, want)
	}
}

// What the agent reads from a plan, beside the text.
func TestPlanFields(t *testing.T) {
	before := parse(t, "vnet: {prefixes: 10.1.0.0/16}\npeers:\n- {name: a, address: 10.1.0.4, asn: 65147}\n- {name: b, address: 10.1.0.5, asn: 65148, shutdown: true}\n")
	after := parse(t, "vnet: {prefixes: 10.2.0.0/16}\nbranch-to-branch: false\npeers:\n- {name: b, address: 10.1.0.5, asn: 65149, shutdown: true}\n- {name: d, address: 10.1.0.7, asn: 65150}\n")
	p := Compare(before, after)
	if got := names(p.Added); !slices.Equal(got, []string{"d"}) {
		t.Errorf("Added = %v", got)
	}
	if got := names(p.Removed); !slices.Equal(got, []string{"a"}) {
		t.Errorf("Removed = %v", got)
	}
	// Reset also while shut down: the next session must be made of the new values.
	if len(p.Changed) != 1 || p.Changed[0].Old.ASN != 65148 || p.Changed[0].New.ASN != 65149 || !p.Changed[0].Reset {
		t.Errorf("Changed = %+v", p.Changed)
	}
	if !slices.Equal(p.Announced, after.VNet.Prefixes) || !slices.Equal(p.Withdrawn, before.VNet.Prefixes) {
		t.Errorf("Announced %v, Withdrawn %v", p.Announced, p.Withdrawn)
	}
	if !p.BranchToBranch || len(p.Settings) != 1 || p.Settings[0].Field != "branch-to-branch" {
		t.Errorf("BranchToBranch %v, Settings %v", p.BranchToBranch, p.Settings)
	}
}

// Every field of the structs is behind a key: a difference in it is not Empty.
func TestCompareSeesEveryField(t *testing.T) {
	before := parse(t, peers("port: 1"))
	var walk func(v func(*Config) reflect.Value, path string)
	walk = func(at func(*Config) reflect.Value, path string) {
		v := at(before)
		switch {
		case v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeFor[Config]().PkgPath():
			for i := range v.NumField() {
				walk(func(c *Config) reflect.Value { return at(c).Field(i) }, path+"."+v.Type().Field(i).Name)
			}
			return
		case path == ".Peers":
			walk(func(c *Config) reflect.Value { return at(c).Index(0) }, path+"[0]")
		}
		after := parse(t, peers("port: 1"))
		change := at(after)
		switch change.Kind() {
		case reflect.String:
			change.SetString(change.String() + "x")
		case reflect.Bool:
			change.SetBool(!change.Bool())
		case reflect.Slice:
			change.Set(reflect.Append(change, reflect.Zero(change.Type().Elem())))
		case reflect.Pointer:
			change.Set(reflect.ValueOf(&policy.Filter{Default: policy.Reject}))
		case reflect.Struct: // netip.Addr
			change.Set(reflect.ValueOf(after.Peers[1].Address))
		default:
			if change.CanInt() {
				change.SetInt(change.Int() + 1_000_000_000)
			} else {
				change.SetUint(change.Uint() + 1)
			}
		}
		if plan := Compare(before, after); plan.Empty() {
			t.Errorf("a change of Config%s makes an empty plan", path)
		}
	}
	walk(func(c *Config) reflect.Value { return reflect.ValueOf(c).Elem() }, "")
}
