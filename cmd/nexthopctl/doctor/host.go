package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The settings of the kernel.

// set is the command that sets a sysctl.
func set(name, value string) string { return "sysctl -w " + name + "=" + value }

func ipForward(f *Facts) []Finding {
	const v4, v6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
	var out []Finding
	if f.Sysctl[v4] == "0" {
		out = append(out, one(Warning, set(v4, "1"), "%s is 0: the host drops what it should forward for others, only its own traffic follows the routes", v4)...)
	}
	if f.Daemon != nil && f.Daemon.IPv6 && f.Sysctl[v6] == "0" {
		out = append(out, one(Warning, set(v6, "1"), "%s is 0 and there are IPv6 routes: the host drops what it should forward for others", v6)...)
	}
	if out == nil {
		return ok("the host forwards")
	}
	return out
}

// Values of rp_filter (ip-sysctl.rst); the higher of conf.all and the interface's holds.
const rpStrict = "1"

func rpFilter(f *Facts) []Finding {
	if f.Daemon == nil {
		return unasked()
	}
	ways := interfaces(f)
	switch {
	case len(f.Strict) == 0:
		return ok("rp_filter is not strict where NVAs are")
	case len(ways) < 2:
		return ok("rp_filter is strict on %s, the only interface towards NVAs: it accepts what comes back through any of them", strings.Join(f.Strict, ", "))
	}
	return one(Warning, set("net.ipv4.conf.all.rp_filter", "2"),
		"rp_filter is strict on %s, and NVAs are reached over %s: what comes back over another interface than the route to its sender uses is dropped",
		strings.Join(f.Strict, ", "), strings.Join(ways, ", "))
}

func multipath(f *Facts) []Finding {
	if _, has := f.Sysctl["net.ipv4.fib_multipath_hash_policy"]; !has {
		return one(Warning, "uname -r    # another kernel: one with CONFIG_IP_ROUTE_MULTIPATH=y",
			"this kernel has no multipath routes: only one of several equal next hops can be used")
	}
	return ok("the kernel has multipath routes")
}

func hashPolicy(f *Facts) []Finding {
	var out []Finding
	for _, name := range []string{"net.ipv4.fib_multipath_hash_policy", "net.ipv6.fib_multipath_hash_policy"} {
		if f.Sysctl[name] == "0" {
			out = append(out, one(Warning, set(name, "1"), "%s is 0: all that two hosts say to each other goes through one NVA, whatever the ports", name)...)
		}
	}
	if out == nil {
		return ok("flows are spread over equal next hops by their ports too")
	}
	return out
}

func nextHopObjects(f *Facts) []Finding {
	_, has := f.Sysctl["net.ipv4.nexthop_compat_mode"] // came with next-hop objects
	switch {
	case f.Daemon == nil && !has:
		return one(Info, "", "this kernel has no next-hop objects (Linux 5.3): a failover has to rewrite every route")
	case f.Daemon == nil || f.Daemon.NextHopObjects:
		return ok("the kernel has next-hop objects: a failover rewrites groups, not routes")
	case has:
		return one(Info, "", "next-hop objects are switched off (fib.next-hop-objects: false): a failover has to rewrite every route")
	}
	return one(Info, "", "this kernel has no next-hop objects (Linux 5.3): a failover has to rewrite every route")
}

func compatMode(f *Facts) []Finding {
	const name = "net.ipv4.nexthop_compat_mode"
	if f.Sysctl[name] == "1" && (f.Daemon == nil || f.Daemon.NextHopObjects) {
		return one(Warning, set(name, "0"),
			"%s is 1: at the change of a next-hop group the kernel tells of every route that names it, so that a failover of a million routes takes a second instead of a millisecond", name)
	}
	return ok("a failover costs no notification per route")
}

func linkdown(f *Facts) []Finding {
	const name = "net.ipv4.conf.all.ignore_routes_with_linkdown"
	if f.Sysctl[name] == "0" {
		return one(Info, set(name, "1"),
			"%s is 0: a route of the host itself over a link without carrier stays in use, and what falls back to it is lost; nexthopd moves its own routes in any case", name)
	}
	return ok("routes over a link without carrier are not used")
}

func ecmp(f *Facts) []Finding {
	switch {
	case f.Daemon == nil:
		return unasked()
	case len(f.Daemon.Differ) > 0:
		return one(Error, "nexthopctl resync", "read back from the kernel, next hops are not what they should be: %s", strings.Join(f.Daemon.Differ, "; "))
	case f.Daemon.Compared == 0:
		return ok("no route has several next hops")
	}
	return ok("read back from the kernel, routes with several next hops are as they should be (%d compared)", f.Daemon.Compared)
}

// The host's ways to its peers.

// interfaces are those of the ways to peers and next hops.
func interfaces(f *Facts) []string {
	ways := slices.Clone(f.Daemon.Legs)
	for _, p := range f.Daemon.Peers {
		ways = append(ways, p.Interfaces...)
	}
	slices.Sort(ways)
	return slices.Compact(ways)
}

func wayToPeer(f *Facts) []Finding {
	if f.Daemon == nil {
		return unasked()
	}
	var out []Finding
	for _, p := range f.Daemon.Peers {
		switch {
		case p.Why != "":
			out = append(out, one(Error, "ip route get "+p.Address.String(), "the host has no way to peer %s (%s): %s", p.Name, p.Address, p.Why)...)
		case p.Captured != "":
			out = append(out, one(Error, release(p.Captured), "a route captures the traffic to peer %s (%s), which is in the subnet of %s: %s",
				p.Name, p.Address, orNone(p.Connected), p.Captured)...)
		}
	}
	if out != nil {
		return out
	}
	return ok("the host has a way of its own to every peer (%d)", len(f.Daemon.Peers))
}

// release is the command that removes a route that captures. One of ours is for the
// daemon to explain.
func release(route string) string {
	words := strings.Fields(route)
	if slices.Contains(words, "nexthopd") {
		return "nexthopctl explain " + words[0]
	}
	family := ""
	if p, err := netip.ParsePrefix(words[0]); err == nil && p.Addr().Is6() {
		family = "-6 "
	}
	return "ip " + family + "route del " + route
}

func orNone(s string) string {
	if s == "" {
		return "no interface"
	}
	return s
}

func mtu(f *Facts) []Finding {
	if f.Daemon == nil {
		return unasked()
	}
	least, most := 0, 0
	var all []string
	var low []Finding
	for _, p := range f.Daemon.Peers {
		if p.MTU == 0 {
			continue
		}
		if least == 0 || p.MTU < least {
			least = p.MTU
		}
		most = max(most, p.MTU)
		all = append(all, fmt.Sprintf("%s %d (%s)", p.Name, p.MTU, strings.Join(p.Interfaces, ", ")))
		if p.MTU < 1280 && len(p.Interfaces) > 0 { // RFC 8200 section 5
			low = append(low, one(Warning, "ip link set dev "+p.Interfaces[0]+" mtu 1500",
				"the MTU towards peer %s is %d: IPv6 needs 1280, and a BGP message may take 4096 octets in one go", p.Name, p.MTU)...)
		}
	}
	switch {
	case low != nil:
		return low
	case least == 0:
		return ok("no way to a peer whose MTU could be looked at")
	case least != most:
		return one(Warning, "ip -d link show    # then: ip link set dev INTERFACE mtu N",
			"the MTU differs between NVAs that may share traffic: %s; large packets of some flows are dropped or fragmented and those of others are not", strings.Join(all, ", "))
	}
	return ok("the MTU towards NVAs is %d", least)
}

// Who else changes routes.

// Tables and the name of the first (linux/rtnetlink.h).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

func rules(f *Facts) []Finding {
	if f.Daemon == nil {
		return unasked()
	}
	table := f.Daemon.Table
	var out []Finding
	for _, family := range []struct {
		ipv6 bool
		ip   string
	}{{false, "ip"}, {true, "ip -6"}} {
		at, some, vrf, there := int64(-1), false, false, false
		var before []string // unconditional lookups of other tables that come first
		main := int64(-1)
		for _, r := range f.Daemon.Rules {
			if r.IPv6 != family.ipv6 {
				continue
			}
			there = true
			vrf = vrf || r.VRF
			switch {
			case r.VRF || !r.Lookup && !r.All:
			case r.Lookup && r.Table == table:
				some = true
				if r.All && at < 0 {
					at = int64(r.Priority)
				}
			case r.All && at < 0 && r.Table != tableLocal:
				if r.Table == tableMain && r.Lookup {
					main = int64(r.Priority)
					continue
				}
				before = append(before, fmt.Sprintf("%s rule %d", family.ip, r.Priority))
			}
		}
		if !there || family.ipv6 && !f.Daemon.IPv6 {
			continue // this kernel has no such family or no rules, or there are no such routes
		}
		add := fmt.Sprintf("%s rule add priority 32000 lookup %d", family.ip, table)
		switch {
		case vrf && !some:
			out = append(out, one(Info, "", "no rule asks table %d; where it is the table of a VRF, what comes in on the VRF's interfaces does", table)...)
		case !some:
			out = append(out, one(Error, add, "no rule (%s rule) asks table %d: its routes are not used", family.ip, table)...)
		case at < 0:
			out = append(out, one(Info, "", "table %d is asked only for what the rules select (%s rule)", table, family.ip)...)
		case main >= 0 && table != tableMain && table != tableDefault:
			out = append(out, one(Warning, add, "%s rule %d asks table main before table %d: where main has a default route, the routes of table %d are not used", family.ip, main, table, table)...)
		case len(before) > 0:
			out = append(out, one(Info, "", "before table %d, all packets meet %s: what is found there wins over our routes", table, strings.Join(before, ", "))...)
		}
	}
	if out == nil {
		return ok("the rules ask table %d", table)
	}
	return out
}

func vrf(f *Facts) []Finding {
	if _, has := f.Sysctl["net.ipv4.tcp_l3mdev_accept"]; !has {
		return ok("this kernel has no VRF (CONFIG_NET_VRF), which is needed only where fib.table is the table of one")
	}
	return ok("this kernel can have VRFs")
}

func protocol(f *Facts) []Finding {
	var out []Finding
	number := uint8(165)
	if f.Daemon != nil {
		number = f.Daemon.Protocol
		if len(f.Daemon.SameProtocol) > 0 {
			out = append(out, one(Warning, fmt.Sprintf("ip route show table all proto %d    # find who makes them, or set fib.protocol", number),
				"routes that are not ours carry our protocol number %d: %s", number, strings.Join(f.Daemon.SameProtocol, "; "))...)
		}
	}
	for _, name := range f.ProtocolNames {
		if name != "nexthopd" {
			out = append(out, one(Warning, fmt.Sprintf("grep -rw %d /etc/iproute2 /usr/share/iproute2    # then set fib.protocol to a number that is free", number),
				"iproute2 calls our protocol number %d %q: another program may use it", number, name)...)
		}
	}
	if out == nil {
		return ok("nobody else uses route protocol %d", number)
	}
	return out
}

func metric(f *Facts) []Finding {
	switch {
	case f.Daemon == nil:
		return unasked()
	case len(f.Daemon.SameMetric) > 0:
		return one(Warning, fmt.Sprintf("ip route show table %d metric %d    # find who makes them, or set fib.metric", f.Daemon.Table, f.Daemon.Metric),
			"routes of others have our metric %d in our table %d, so that ours to the same prefix cannot be installed: %s",
			f.Daemon.Metric, f.Daemon.Table, strings.Join(f.Daemon.SameMetric, "; "))
	}
	return ok("nobody else uses metric %d in table %d", f.Daemon.Metric, f.Daemon.Table)
}

// networkdDropIn has what the package installs.
const networkdDropIn = "/etc/systemd/networkd.conf.d/50-nexthopd.conf"

func networkd(f *Facts) []Finding {
	switch {
	case !f.Networkd.Running:
		return ok("systemd-networkd does not run")
	case len(f.Networkd.Manages) == 0:
		return ok("systemd-networkd leaves alone what others made")
	}
	text := `[Network]\n`
	for _, key := range foreignKeys {
		text += key + `=no\n`
	}
	return one(Warning, fmt.Sprintf("mkdir -p /etc/systemd/networkd.conf.d && printf '%s' >%s && systemctl restart systemd-networkd", text, networkdDropIn),
		"systemd-networkd removes routes, rules and next hops of others when it starts or reconfigures an interface (%s): ours are gone until nexthopd has repaired them",
		strings.Join(f.Networkd.Manages, ", "))
}

func networkManager(f *Facts) []Finding {
	if len(f.Managed) == 0 {
		return ok("NetworkManager manages no interface towards NVAs")
	}
	return one(Info, "", "NetworkManager manages %s: when it activates or reapplies a connection it may remove routes it did not make; nexthopd puts its own back",
		strings.Join(f.Managed, ", "))
}
