package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

func limited(max int, action config.LimitAction) func(*config.Config) {
	return func(c *config.Config) {
		c.Peers[0].PrefixLimit = config.PrefixLimit{Max: max, Warning: 75, Action: action}
	}
}

func (l *lab) peer(name string) status.Peer {
	l.t.Helper()
	for _, p := range l.a.Peers() {
		if p.Name == name {
			return p
		}
	}
	l.t.Fatalf("no peer %s", name)
	return status.Peer{}
}

func (l *lab) installed(prefixes []netip.Prefix) (n int) {
	for _, p := range prefixes {
		if l.nextHops(p) != nil {
			n++
		}
	}
	return n
}

// S9: a frozen peer's first prefixes are used and stay used; the others come in as soon
// as there is room, without a reset, and say meanwhile why they are not used.
func TestS9Freeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { limited(10, config.LimitFreeze)(c) })
		l.up(quagga, bird)
		all := many(15)
		for range 3 { // what is announced again counts once
			l.announce(quagga, all[:7]...)
		}
		l.settle()
		if n := len(l.log.lines("event=prefix-limit-warning")); n != 0 {
			t.Errorf("%d warnings at 7 of 10", n)
		}
		l.announce(quagga, all[7:8]...)
		l.announce(quagga, all[8:]...)
		l.announce(bird, all[14])
		l.settle()
		for _, want := range []string{"event=prefix-limit-warning", "event=prefix-limit-reached"} {
			if lines := l.log.lines(want, "peer=10.1.0.4", "name=quagga", "family=ipv4", "limit=10"); len(lines) != 1 {
				t.Errorf("%s: %q, want one", want, lines)
			}
		}
		if n := l.installed(all[:10]); n != 10 || l.installed(all[10:14]) != 0 {
			t.Errorf("%d of the first ten are installed, %d of the others", n, l.installed(all[10:14]))
		}
		l.expect("the other peer's", all[14], "10.1.0.5")
		p := l.peer("quagga")
		if f := p.Families["ipv4"]; p.Received != 15 || p.Accepted != 10 || f.Limit != 10 || f.Beyond != 5 {
			t.Errorf("peer %+v", p)
		}
		if want := "announces 15 IPv4 prefixes, 5 beyond its prefix-limit of 10: those are not used"; p.Warning != want {
			t.Errorf("warning %q, want %q", p.Warning, want)
		}
		x, err := l.a.explain(t.Context(), all[12].String())
		if err != nil || x.Reason != "prefix-limit" || !strings.Contains(x.Verdict, "its peer announces 15 IPv4 prefixes and its prefix-limit is 10: this one came after the others, and is one of 5 that wait for a place") {
			t.Errorf("explain: %+v, %v", x, err)
		}

		l.ops()
		l.withdraw(quagga, all[0], all[1], all[2])
		l.settle()
		if n := l.installed(all[:3]); n != 0 || l.installed(all[3:13]) != 10 {
			t.Errorf("after it withdrew three: %d of those are installed, and %d of the next ten", n, l.installed(all[3:13]))
		}
		if ops := l.ops(); ops[fib.RouteAdd] != 3 || ops[fib.RouteDel] != 3 {
			t.Errorf("operations %v, want three routes in and three out", ops)
		}
		l.reload(limited(12, config.LimitFreeze))
		if n := l.installed(all[3:]); n != 12 {
			t.Errorf("with the limit raised %d are installed", n)
		}
		l.reload(limited(5, config.LimitFreeze))
		if n := l.installed(all[3:8]); n != 5 || l.installed(all[8:14]) != 0 {
			t.Errorf("with the limit lowered %d of the first five are installed, %d of the others", n, l.installed(all[8:14]))
		}
		l.expectCalls("all the time", "update 10.1.0.4")
		l.consistent()
		l.atRest()
	})
}

// S9: close is the speaker's to do, once; nothing beyond the limit is used until then.
func TestS9Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { limited(10, config.LimitClose)(c) })
		l.up(quagga)
		all := many(15)
		l.sp.asked()
		l.announce(quagga, all[:10]...)
		l.settle()
		l.expectCalls("at the limit", "")
		l.announce(quagga, all...)
		l.settle()
		l.announce(quagga, all[3])
		l.settle()
		l.expectCalls("beyond", "limit 10.1.0.4 ipv4 10: announced 15 IPv4 prefixes, its prefix-limit is 10")
		if n := l.installed(all); n != 10 {
			t.Errorf("%d routes are installed, want 10", n)
		}
		l.withdraw(quagga, all...)
		l.idle(quagga)
		l.up(quagga)
		l.announce(quagga, all...)
		l.settle()
		l.expectCalls("again", "limit 10.1.0.4 ipv4 10: announced 15 IPv4 prefixes, its prefix-limit is 10")
	})
}

// The total is shared in the order of arrival.
func TestPrefixLimitTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.PrefixLimitTotal = 10 })
		l.up(quagga, bird)
		all := many(12)
		l.announce(quagga, all[:8]...)
		l.announce(bird, all[8:]...)
		l.settle()
		if n := l.installed(all); n != 10 || l.peer("bird").Families["ipv4"].Beyond != 2 {
			t.Errorf("%d installed, bird %+v", n, l.peer("bird").Families)
		}
		if want := "2 of its 4 IPv4 prefixes are beyond prefix-limit-total: those are not used"; l.peer("bird").Warning != want {
			t.Errorf("warning %q", l.peer("bird").Warning)
		}
		x, err := l.a.explain(t.Context(), all[11].String())
		if want := "its peer announces 4 IPv4 prefixes and prefix-limit-total is 10 for all peers together"; err != nil || !strings.Contains(x.Verdict, want) {
			t.Errorf("explain: %q, %v, want %q in it", x.Verdict, err, want)
		}
		l.withdraw(quagga, all[:2]...)
		l.settle()
		if n := l.installed(all[2:]); n != 10 {
			t.Errorf("%d installed after two went", n)
		}
		l.reload(func(c *config.Config) { c.PrefixLimitTotal = 0 })
		l.consistent()
	})
}

func filterOf(t *testing.T, def policy.Action, rules ...policy.Rule) *policy.Filter {
	t.Helper()
	f := &policy.Filter{Default: def, Rules: rules}
	f.Compile()
	return f
}

func within(t *testing.T, text string) policy.Match {
	t.Helper()
	r, err := policy.ParseRange(text)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Match{Prefixes: policy.NewRanges([]policy.Range{r})}
}

// S10: a changed filter is applied to what is known, writes what changes, resets nothing,
// and says which rule it was.
func TestS10ImportFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.up(quagga, bird)
		all := many(1000)
		l.announce(quagga, all...)
		l.announce(bird, all[:500]...)
		l.settle()
		l.ops()

		few := filterOf(t, policy.Accept, policy.Rule{Name: "few", Match: within(t, "20.0.0.0/18 le 24"), Action: policy.Reject})
		l.reload(func(c *config.Config) { c.Peers[0].Import = few })
		l.expectCalls("filter", "update 10.1.0.4")
		if ops := l.ops(); ops[fib.RouteReplace] != 64 || ops[fib.RouteDel] != 0 {
			t.Errorf("operations %v, want 64 replaced: the rest of the thousand stay", ops)
		}
		l.expect("filtered", all[0], "10.1.0.5")
		l.expect("beside", all[64], "10.1.0.4", "10.1.0.5")
		x, err := l.a.explain(t.Context(), all[0].String())
		if err != nil {
			t.Fatal(err)
		}
		var path status.ExplainPath
		for _, p := range x.Paths {
			if p.Peer == "quagga" {
				path = p
			}
		}
		const rule = `rule "few" (prefix 20.0.0.0/18 le 24)`
		if path.Reason != "filtered" || path.Rule != rule || path.Detail != "the import filter of its peer rejects it: "+rule {
			t.Errorf("explain: %+v", path)
		}

		l.reload(func(c *config.Config) { c.Peers[0].Import = filterOf(t, policy.Reject) })
		if ops := l.ops(); ops[fib.RouteReplace] != 436 || ops[fib.RouteDel] != 500 {
			t.Errorf("operations %v, want 436 replaced and 500 deleted", ops)
		}
		if p := l.peer("quagga"); p.Received != 1000 || p.Accepted != 0 {
			t.Errorf("quagga: %d received, %d accepted", p.Received, p.Accepted)
		}
		l.reload(func(c *config.Config) { c.Peers[0].Import = nil })
		l.expect("without a filter", all[999], "10.1.0.4")
		l.consistent()
		l.atRest()
	})
}

// What a rule sets decides the ranking, and is resolved and protected like what a peer
// announces (S20, S21).
func TestImportSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := addr("10.1.0.77")
		for _, tt := range []struct {
			name string
			set  policy.Set
			want []string
		}{
			{"local-pref", policy.Set{LocalPref: 200}, []string{"10.1.0.4"}},
			{"a lower local-pref", policy.Set{LocalPref: 50}, []string{"10.1.0.5"}},
			{"med", policy.Set{HasMED: true, MED: 7}, []string{"10.1.0.5"}},
			{"prepend", policy.Set{Prepend: 2}, []string{"10.1.0.5"}},
			{"next-hop", policy.Set{NextHop: other}, []string{"10.1.0.5", "10.1.0.77"}},
		} {
			l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
				c.Peers[0].Import = filterOf(t, policy.Accept, policy.Rule{Name: "set", Action: policy.Accept, Set: tt.set})
			})
			l.up(quagga, bird)
			l.announce(quagga, seed)
			l.announce(bird, seed)
			l.settle()
			l.expect(tt.name, seed, tt.want...)
			if err := l.stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Whatever order filters, limits and announcements come in, the kernel ends up with what
// an agent has that starts with the last configuration and hears the paths anew.
func TestFilterLikeFromScratch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := many(64)
		filters := []*policy.Filter{
			nil, filterOf(t, policy.Reject),
			filterOf(t, policy.Accept, policy.Rule{Name: "a", Match: within(t, "20.0.0.0/19 le 24"), Action: policy.Reject}),
			filterOf(t, policy.Reject, policy.Rule{Name: "b", Match: within(t, "20.0.32.0/19 le 24"), Action: policy.Accept, Set: policy.Set{LocalPref: 150}}),
		}
		l := newLab(t, nil)
		l.up(quagga, bird)
		var last [2]*policy.Filter
		for i := range 24 {
			last = [2]*policy.Filter{filters[i%4], filters[(i/4)%4]}
			l.reload(func(c *config.Config) { c.Peers[0].Import, c.Peers[1].Import = last[0], last[1] })
			l.announce(quagga, all[i:i+20]...)
			l.withdraw(quagga, all[i])
			l.announce(bird, all[2*i%40:2*i%40+16]...)
		}
		l.settle()
		fresh := newLab(t, func(c *config.Config, _ *fibtest.Machine) { c.Peers[0].Import, c.Peers[1].Import = last[0], last[1] })
		fresh.up(quagga, bird)
		for _, p := range all {
			for _, path := range l.a.rib.Paths(p) {
				fresh.announceWith(l.a.peers.bySource[path.Source].cfg.Address, path.Attrs, p)
			}
		}
		fresh.settle()
		for _, p := range all {
			if got, want := fmt.Sprint(l.nextHops(p)), fmt.Sprint(fresh.nextHops(p)); got != want {
				t.Errorf("%s: %s, from scratch %s", p, got, want)
			}
		}
		l.consistent()
	})
}
