package config

import (
	"net/netip"
	"reflect"
	"slices"
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
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	// Neither the file's own, nor one of no range, nor one more than the limit.
	with := c.With(addrs("10.1.0.4", "10.1.1.9", "fd00::1", "10.1.0.9", "10.1.0.8", "10.1.0.7"))
	if got := with.Dynamic(); !slices.Equal(got, addrs("10.1.0.9", "10.1.0.8")) {
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
	six := parse(t, "dynamic-peers: [{range: \"fd00:1::/64\", name: b, asn: 65148}]").With(addrs("fd00:1::9"))
	if got := six.Peers[0].Name; got != "b-fd00-1--9" {
		t.Errorf("name %s", got)
	}
	if _, err := parseName(six.Peers[0].Name); err != nil {
		t.Error(err)
	}
}

func TestCompareDynamic(t *testing.T) {
	at := []netip.Addr{netip.MustParseAddr("10.1.0.9")}
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
