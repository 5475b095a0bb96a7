package main

import (
	"fmt"
	"net/netip"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// The addresses of the network. Each NVA has a link of its own to the host, so that a
// link can be lost without the other NVA's.
const (
	hostASN = 65515
	nvaASN  = 65147 // of both NVAs, as in the seed case (S15)
	nvas    = 2
)

var vnet = netip.MustParsePrefix("10.1.0.0/16")

// hostAddr is the host's address on the link of NVA i, counted from 0.
func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(1 + i), 1}) }

// nvaAddr is the NVA's address there.
func nvaAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(1 + i), 2}) }

// network is where one daemon is measured:
//
//	client --- host --- [link1] --- nva1 --- [branch] --- server
//	             +----- [link2] --- nva2 -------+
//
// The server answers for every address that the NVAs announce.
type network struct {
	*lab.Lab
	client, host, server *lab.Node
	nva                  [nvas]*lab.Node
	hostLink             [nvas]*lab.Iface // the host's, towards the NVAs
	nvaLink              [nvas]*lab.Iface // the other ends
	nvaBranch            [nvas]*lab.Iface
	serverBranch         *lab.Iface
}

func newNetwork(l *lab.Lab) (_ *network, err error) {
	n := &network{Lab: l}
	check := func(e error) {
		if err == nil {
			err = e
		}
	}
	node := func(name string) *lab.Node {
		n, e := l.Node(name)
		check(e)
		return n
	}
	segment := func(name string) *lab.Segment {
		s, e := l.Segment(name)
		check(e)
		return s
	}
	attach := func(s *lab.Segment, n *lab.Node, ifname, addr string) *lab.Iface {
		if err != nil {
			return nil
		}
		i, e := s.Attach(n, ifname, addr)
		check(e)
		return i
	}
	ip := func(n *lab.Node, lines ...string) {
		if err == nil {
			check(n.IP(lines...))
		}
	}
	n.client, n.host, n.server = node("client"), node("host"), node("server")
	behind, branch := segment("client"), segment("branch")
	attach(behind, n.host, "eth0", "10.3.0.1/24")
	attach(behind, n.client, "eth0", "10.3.0.10/24")
	ip(n.client, "route add default via 10.3.0.1")
	n.serverBranch = attach(branch, n.server, "eth0", "10.9.0.10/24")
	for i := range nvas {
		link := segment(fmt.Sprintf("link%d", i+1))
		n.nva[i] = node(fmt.Sprintf("nva%d", i+1))
		n.hostLink[i] = attach(link, n.host, fmt.Sprintf("eth%d", i+1), hostAddr(i).String()+"/24")
		n.nvaLink[i] = attach(link, n.nva[i], "eth0", nvaAddr(i).String()+"/24")
		n.nvaBranch[i] = attach(branch, n.nva[i], "eth1", fmt.Sprintf("10.9.0.%d/24", 1+i))
		ip(n.nva[i], "route add default via 10.9.0.10", "route add 10.3.0.0/24 via "+hostAddr(i).String())
	}
	// 16.0.0.0 to 47.255.255.255: all that prefixes() can give.
	ip(n.server, "route add local 16.0.0.0/4 dev lo", "route add local 32.0.0.0/4 dev lo")
	return n, err
}

// prefixes is the table that both NVAs announce: n prefixes of 24 bits from 20.0.0.0 on,
// in order, as a router walks its table.
func prefixes(n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		a := uint32(20)<<24 + uint32(i)<<8
		list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), 0}), 24)
	}
	return list
}

// flows of the traffic, and packets per second of each: a packet every 0.3 ms in all.
const (
	flows    = 64
	flowRate = 50
)

// startTraffic sends to addresses spread over the whole table, its first and last prefix
// included.
func (n *network) startTraffic(table []netip.Prefix) (*lab.Traffic, error) {
	dsts := make([]netip.Addr, flows)
	for i := range dsts {
		a := table[i*(len(table)-1)/(flows-1)].Addr().As4()
		a[3] = 10
		dsts[i] = netip.AddrFrom4(a)
	}
	return lab.StartTraffic(lab.TrafficConfig{
		From: n.client, To: n.server, In: n.serverBranch, Dsts: dsts,
		Flows: flows, Rate: flowRate, Via: n.nvaBranch[:],
	})
}
