package config

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// dynamic makes a file with one peer, and one range with the given further keys.
func dynamic(keys string) string {
	return "peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\ndynamic-peers:\n- {range: 10.1.0.0/24, name: branch, asn: 65148" + keys + "}\n"
}

func TestDynamicPeers(t *testing.T) {
	c := parse(t, dynamic(", limit: 2, gtsm: 3, import: {default: reject}"))
	r := c.DynamicPeers[0]
	if r.Range != netip.MustParsePrefix("10.1.0.0/24") || r.Limit != 2 || r.Like.GTSM != 3 || r.Like.Import == nil || r.Like.HoldTime != defaultPeer().HoldTime {
		t.Errorf("%+v", r)
	}
	if n := parse(t, dynamic("")).DynamicPeers[0].Limit; n != 16 {
		t.Errorf("limit %d by default, want 16", n)
	}
	came := func(list ...string) (out []Arrival) {
		for _, s := range list {
			out = append(out, Arrival{netip.MustParseAddr(s), 65148})
		}
		return out
	}
	// Neither the file's own, nor one of no range, nor one more than the limit.
	with := c.With(came("10.1.0.4", "10.1.1.9", "fd00::1", "10.1.0.9", "10.1.0.8", "10.1.0.7"))
	if got := with.Dynamic(); !slices.Equal(got, came("10.1.0.9", "10.1.0.8")) {
		t.Errorf("dynamic peers %v", got)
	}
	want := r.Like
	want.Dynamic, want.Name, want.Address = true, "branch-10.1.0.9", netip.MustParseAddr("10.1.0.9")
	if got := with.Peers[1]; !reflect.DeepEqual(got, want) {
		t.Errorf("peer %+v, want %+v", got, want)
	}
	if len(c.Peers) != 1 || len(with.With(nil).Peers) != 1 {
		t.Error("With changed what it was called on, or kept what it was not given")
	}
	six := parse(t, "dynamic-peers: [{range: \"fd00:1::/64\", name: b, asn: 65148}]").With(came("fd00:1::9"))
	if got := six.Peers[0].Name; got != "b-fd00-1--9" {
		t.Errorf("name %s", got)
	}
	if _, err := parseName(six.Peers[0].Name); err != nil {
		t.Error(err)
	}
}

func TestCompareDynamic(t *testing.T) {
	at := []Arrival{{netip.MustParseAddr("10.1.0.9"), 65148}}
	before := parse(t, dynamic(", limit: 2")).With(at)
	for name, tt := range map[string]struct{ after, want string }{
		"nothing": {dynamic(", limit: 2"), "no change\nsessions reset: none"},
		"limit":   {dynamic(", limit: 3"), "dynamic-peers 10.1.0.0/24: limit: 2 -> 3\nsessions reset: none"},
		"timers": {dynamic(", limit: 2, hold-time: 30s"), "peer branch-10.1.0.9: hold-time: 180s -> 30s\npeer branch-10.1.0.9: keepalive: 60s -> 10s\n" +
			"dynamic-peers 10.1.0.0/24: hold-time: 180s -> 30s\ndynamic-peers 10.1.0.0/24: keepalive: 60s -> 10s\nsessions reset: branch-10.1.0.9"},
		"range removed": {"peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n", "peer branch-10.1.0.9 removed: 10.1.0.9, AS 65148\n" +
			"dynamic-peers 10.1.0.0/24: AS 65148, limit 2 -> none\nsessions ended: branch-10.1.0.9\nsessions reset: none"},
		"named in the file": {"peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n- {name: two, address: 10.1.0.9, asn: 65148}\n" + dynamic(", limit: 2")[len(peersOne):],
			"peer two: name: branch-10.1.0.9 -> two\npeer two: dynamic: true -> false\nsessions reset: none"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(before, parse(t, tt.after).With(before.Dynamic())).String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

const peersOne = "peers:\n- {name: one, address: 10.1.0.4, asn: 65147}\n"

// Which ASNs a peer of a range may have, and what becomes of those who came when the list
// changes.
func TestDynamicASNs(t *testing.T) {
	text := func(asns string) string {
		return "dynamic-peers: [{range: 10.1.0.0/24, name: b, asn: " + asns + "}]"
	}
	c := parse(t, text("[65001, 65010-65020, 4200000001]"))
	r := c.DynamicPeers[0]
	for asn, want := range map[uint32]bool{65000: false, 65001: true, 65010: true, 65020: true, 65021: false, 4200000001: true, 0: false} {
		if got, ok := r.ASN(asn); ok != want || ok && got != asn {
			t.Errorf("AS %d: %d, %v", asn, got, ok)
		}
	}
	if r.Like.ASN != 0 {
		t.Errorf("one AS %d of a list", r.Like.ASN)
	}
	for _, one := range []string{"65001", "[65001]", "65001-65001"} {
		if asn, ok := parse(t, text(one)).DynamicPeers[0].ASN(0); asn != 65001 || !ok {
			t.Errorf("%s: AS %d, %v", one, asn, ok)
		}
	}
	a, b := Arrival{netip.MustParseAddr("10.1.0.9"), 65001}, Arrival{netip.MustParseAddr("10.1.0.8"), 65011}
	before := c.With([]Arrival{a, b, {netip.MustParseAddr("10.1.0.7"), 65002}})
	if got := before.Dynamic(); !slices.Equal(got, []Arrival{a, b}) || before.Peers[1].ASN != 65011 {
		t.Errorf("dynamic peers %v", got)
	}
	for asns, want := range map[string]string{
		"[65001-65011]":   "dynamic-peers 10.1.0.0/24: asn: 4200000001 65001 65010-65020 -> 65001-65011\nsessions reset: none",
		"[65001, 65002]":  "peer b-10.1.0.8 removed: 10.1.0.8, AS 65011\ndynamic-peers 10.1.0.0/24: asn: 4200000001 65001 65010-65020 -> 65001 65002\nsessions ended: b-10.1.0.8\nsessions reset: none",
		"65011":           "peer b-10.1.0.9: asn: 65001 -> 65011\ndynamic-peers 10.1.0.0/24: asn: 4200000001 65001 65010-65020 -> 65011\nsessions reset: b-10.1.0.9",
		"[65001,  65011]": "dynamic-peers 10.1.0.0/24: asn: 4200000001 65001 65010-65020 -> 65001 65011\nsessions reset: none",
	} {
		if got := Compare(before, parse(t, text(asns)).With(before.Dynamic())).String(); got != want {
			t.Errorf("to %s\ngot  %s\nwant %s", asns, got, want)
		}
	}
}

// The secret of a range is that of its peers; a peer inside it that has none would be
// kept out by it.
func TestDynamicPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	writeFile(t, file, "one\n", 0o600)
	text := dynamic(", password-file: " + file)
	_, err := Parse("f", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "f:4:11: dynamic-peers[0].range: the peer in line 2 is in it and has no password") {
		t.Errorf("a peer without a password in a range with one: %v", err)
	}
	text = strings.Replace(text, "asn: 65147", "asn: 65147, password-file: "+file, 1)
	before := parse(t, text).With([]Arrival{{netip.MustParseAddr("10.1.0.9"), 65148}})
	if p := before.Peers[1]; p.PasswordFile != file {
		t.Errorf("dynamic peer: %+v", p)
	}
	writeFile(t, file, "two\n", 0o600)
	const want = "peer one: password-file: old secret -> new secret\npeer branch-10.1.0.9: password-file: old secret -> new secret\n" +
		"dynamic-peers 10.1.0.0/24: password-file: old secret -> new secret\nsessions reset: none"
	if got := Compare(before, parse(t, text).With(before.Dynamic())).String(); got != want {
		t.Errorf("a new secret:\ngot  %s\nwant %s", got, want)
	}
	const gone = "peer one: password-file: "
	if got := Compare(before, parse(t, strings.Replace(dynamic(""), "10.1.0.0/24", "10.1.8.0/24", 1))).String(); !strings.Contains(got, gone) || !strings.HasSuffix(got, "sessions reset: one") {
		t.Errorf("no secret any more: %s", got)
	}
}
