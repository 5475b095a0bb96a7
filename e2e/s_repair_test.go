package e2e_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// objects are the kernel's routes, groups and next hops of ours, read with ip(8).
type objects struct {
	routes map[netip.Prefix]string   // to the id that they name
	groups map[string][]string       // id to the ids of its members
	hops   map[string]netip.Addr     // id to gateway
	legs   map[netip.Prefix][]string // gateways of each route, ascending
}

func (b *bed) objects(t *testing.T) objects {
	t.Helper()
	o := objects{map[netip.Prefix]string{}, map[string][]string{}, map[string]netip.Addr{}, map[netip.Prefix][]string{}}
	for line := range strings.Lines(value(b.Host.Run(within(t), "ip", "-N", "-o", "nexthop", "show", "proto", "165"))(t)) {
		switch f := strings.Fields(line); f[2] {
		case "group":
			o.groups[f[1]] = strings.Split(f[3], "/")
		case "via":
			o.hops[f[1]] = addr(f[3])
		}
	}
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(value(b.Host.Run(within(t), "ip", family, "-N", "-o", "route", "show", "proto", "165"))(t)) {
			f := strings.Fields(line)
			if f[1] == "nhid" {
				o.routes[prefix(f[0])] = f[2]
			}
		}
	}
	for p, id := range o.routes {
		for _, m := range o.groups[id] {
			o.legs[p] = append(o.legs[p], o.hops[m].String())
		}
		slices.Sort(o.legs[p])
	}
	return o
}

// leaked lists what nothing uses.
func (o objects) leaked() []string {
	used := map[string]bool{}
	for _, id := range o.routes {
		used[id] = true
	}
	for id, members := range o.groups {
		if used[id] {
			for _, m := range members {
				used[m] = true
			}
		}
	}
	var list []string
	for _, id := range slices.Concat(slices.Collect(maps.Keys(o.groups)), slices.Collect(maps.Keys(o.hops))) {
		if !used[id] {
			list = append(list, id)
		}
	}
	return list
}

// sabotageFor is how long others interfere: REPAIR_FOR, or some seconds.
func sabotageFor(t *testing.T) time.Duration {
	t.Helper()
	if text := os.Getenv("REPAIR_FOR"); text != "" {
		return value(time.ParseDuration(text))(t)
	}
	return 8 * time.Second
}

// S26: while two appliances change 1,000 prefixes a second, somebody deletes routes,
// next hops and groups of ours at random. A moment after the last deletion everything is
// as the appliances want it, nothing is left over, and the daemon rests.
func TestS26_Sabotage(t *testing.T) {
	b := newBed(t, 2, hostConfig+nvaPeers(2))
	s := b.nvas(t, 2)
	all := append(prefixes(nva.IPv4, 2000), lab.SeedBranch)
	// want is what each appliance announces: 0 nothing, else the length of the AS path.
	var want [2]map[netip.Prefix]int
	for i := range s {
		want[i] = map[netip.Prefix]int{}
		for _, p := range all {
			want[i][p] = 1
		}
		must(t, s[i].Write(s[i].Encode(all, attrs(lab.SeedNVA(i), lab.SeedASN))))
	}
	b.route(t, all[0], lab.SeedNVA(0), lab.SeedNVA(1))
	b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
	tr := b.flows(t, lab.TrafficConfig{Flows: 8, Rate: 200})

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	duration := sabotageFor(t)
	deadline := time.Now().Add(duration)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deleted := 0
	var last time.Time
	for time.Now().Before(deadline) {
		<-tick.C
		// 100 prefixes change, and never the branch that the traffic goes to.
		i := rnd.IntN(2)
		changed := map[netip.Prefix]int{}
		for range 100 {
			changed[all[rnd.IntN(len(all)-1)]] = rnd.IntN(4)
		}
		maps.Copy(want[i], changed)
		byLength := map[int][]netip.Prefix{}
		for p, n := range changed {
			byLength[n] = append(byLength[n], p)
		}
		for n, list := range byLength {
			if n == 0 {
				must(t, s[i].Withdraw(list...))
			} else {
				must(t, s[i].Write(s[i].Encode(list, attrs(lab.SeedNVA(i), slices.Repeat([]uint32{lab.SeedASN}, n)...))))
			}
		}
		// 20 routes, a group and a next hop go.
		o := b.objects(t)
		var script strings.Builder
		routes := slices.SortedFunc(maps.Keys(o.routes), netip.Prefix.Compare)
		for range min(20, len(routes)) {
			fmt.Fprintf(&script, "route del %s proto 165\n", routes[rnd.IntN(len(routes))])
		}
		if ids := slices.Sorted(maps.Keys(o.groups)); len(ids) > 0 && rnd.IntN(3) == 0 {
			fmt.Fprintf(&script, "nexthop del id %s\n", ids[rnd.IntN(len(ids))])
		}
		if ids := slices.Sorted(maps.Keys(o.hops)); len(ids) > 0 && rnd.IntN(5) == 0 {
			fmt.Fprintf(&script, "nexthop del id %s\n", ids[rnd.IntN(len(ids))])
		}
		deleted += strings.Count(script.String(), "\n")
		b.batch(t, script.String())
		last = time.Now()
	}

	poll(t, "the state that the appliances want", func() error {
		o := b.objects(t)
		wrong, sample := 0, ""
		for _, p := range all {
			best := 0
			for i := range want {
				if n := want[i][p]; n > 0 && (best == 0 || n < best) {
					best = n
				}
			}
			var legs []string
			for i := range want {
				if n := want[i][p]; n > 0 && n == best {
					legs = append(legs, lab.SeedNVA(i).String())
				}
			}
			if !slices.Equal(o.legs[p], legs) {
				wrong, sample = wrong+1, fmt.Sprintf("%s has %v, want %v", p, o.legs[p], legs)
			}
		}
		if leaked := o.leaked(); wrong > 0 || len(leaked) > 0 {
			return fmt.Errorf("%d routes are wrong (%s), %v are left over", wrong, sample, leaked)
		}
		return nil
	})
	t.Logf("%d deletions in %s; all in order %s after the last", deleted, duration, time.Since(last).Round(time.Millisecond))
	b.steady(t, tr, 300)
	poll(t, "rest", func() error {
		const window = 2 * time.Second
		before := cpuTime(t, b.d.Proc.PID())
		time.Sleep(window)
		if used := cpuTime(t, b.d.Proc.PID()) - before; used > window/10 {
			return fmt.Errorf("the daemon used %s of CPU in %s, with nothing to do", used, window)
		}
		return nil
	})
}

// batch runs ip(8) commands on the host; those that fail, for what they delete is gone
// already, are passed over.
func (b *bed) batch(t *testing.T, script string) {
	t.Helper()
	file := t.TempDir() + "/batch"
	must(t, os.WriteFile(file, []byte(script), 0o600))
	_, _ = b.Host.Run(within(t), "ip", "-force", "-batch", file)
}

// S26: what others remove or change comes back, routes included whose group was deleted
// under them, and is counted.
func TestS26_Repair(t *testing.T) {
	b := newBed(t, 2, hostConfig+"metrics: {listen: \"127.0.0.1:9565\"}\n"+nvaPeers(2))
	s := b.nvas(t, 2)
	all := append(prefixes(nva.IPv4, 1999), lab.SeedBranch)
	all6 := append(prefixes(nva.IPv6, 199), lab.SeedBranch6)
	for i := range s {
		must(t, s[i].Write(s[i].Encode(all, attrs(lab.SeedNVA(i), lab.SeedASN))))
		must(t, s[i].Write(s[i].Encode(all6, attrs(lab.SeedNVA6(i), lab.SeedASN))))
	}
	whole := func(t *testing.T) {
		t.Helper()
		b.route(t, lab.SeedBranch, lab.SeedNVA(0), lab.SeedNVA(1))
		b.route(t, lab.SeedBranch6, lab.SeedNVA6(0), lab.SeedNVA6(1))
		poll(t, "all routes", func() error {
			n4 := strings.Count(value(b.Host.Run(within(t), "ip", "-4", "-o", "route", "show", "proto", "165"))(t), "\n")
			n6 := strings.Count(value(b.Host.Run(within(t), "ip", "-6", "-o", "route", "show", "proto", "165"))(t), "\n")
			if n4 != len(all) || n6 != len(all6) {
				return fmt.Errorf("%d IPv4 and %d IPv6 routes", n4, n6)
			}
			return nil
		})
	}
	whole(t)
	id := func(t *testing.T) string { return b.objects(t).routes[lab.SeedBranch] }
	for _, harm := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"route deleted", func(t *testing.T) { must(t, b.Host.IP("route del "+lab.SeedBranch.String()+" proto 165")) }},
		{"route replaced", func(t *testing.T) {
			o := b.objects(t)
			must(t, b.Host.IP("route replace "+lab.SeedBranch.String()+" nhid "+o.routes[lab.SeedBranch6]+" metric 20 proto 165"))
		}},
		{"table emptied", func(t *testing.T) { // ip route flush fails of routes with both group and next hops
			var script strings.Builder
			for p := range b.objects(t).routes {
				fmt.Fprintf(&script, "route del %s proto 165\n", p)
			}
			b.batch(t, script.String())
		}},
		{"group deleted", func(t *testing.T) { must(t, b.Host.IP("nexthop del id "+id(t))) }},
		{"group replaced", func(t *testing.T) {
			must(t, b.Host.IP("nexthop replace id "+id(t)+" group "+b.objects(t).groups[id(t)][0]+" proto 165"))
		}},
		{"next hops flushed", func(t *testing.T) { must(t, b.Host.IP("nexthop flush proto 165")) }},
		{"interface down and up", func(t *testing.T) {
			must(t, b.HostVNet.Down())
			must(t, b.HostVNet.Up())
			must(t, b.HostVNet.AddAddr("2001:db8:1::2:4/64")) // the kernel drops it with the interface
		}},
		{"interface made anew", func(t *testing.T) {
			must(t, b.Host.IP("link del eth0"))
			b.HostVNet = value(b.VNet.Attach(b.Host, "eth0", "10.1.2.4/16", "2001:db8:1::2:4/64"))(t)
		}},
	} {
		t.Run("S26/"+harm.name, func(t *testing.T) {
			harm.do(t)
			start := time.Now()
			whole(t)
			t.Logf("whole again %s later", time.Since(start).Round(time.Millisecond))
			if leaked := b.objects(t).leaked(); len(leaked) > 0 {
				poll(t, "nothing left over", func() error {
					if leaked := b.objects(t).leaked(); len(leaked) > 0 {
						return fmt.Errorf("%v", leaked)
					}
					return nil
				})
			}
		})
	}
	repairs := 0.0
	for line := range strings.Lines(b.scrape(t)) {
		if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "nexthopd_fib_repairs_total{") {
			repairs += value(strconv.ParseFloat(n, 64))(t)
		}
	}
	if repairs < float64(len(all)) {
		t.Errorf("the metrics count %g repairs, want at least the %d of the flushed table", repairs, len(all))
	}
}

// scrape reads the daemon's metrics.
func (b *bed) scrape(t *testing.T) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = b.Host.Do(func() error { // the namespace is that of the thread
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}, DisableKeepAlives: true}}
	resp := value(client.Get("http://127.0.0.1:9565/metrics"))(t)
	defer resp.Body.Close()
	return string(value(io.ReadAll(resp.Body))(t))
}
