package lab

import (
	"fmt"
	"net/netip"
)

// Addresses of the seed case (S15), with an IPv6 twin of everything.
var (
	SeedVNet    = netip.MustParsePrefix("10.1.0.0/16")
	SeedVNet6   = netip.MustParsePrefix("2001:db8:1::/64")
	SeedHost    = netip.MustParseAddr("10.1.2.4")
	SeedHost6   = netip.MustParseAddr("2001:db8:1::2:4")
	SeedBranch  = netip.MustParsePrefix("192.168.255.0/24")
	SeedBranch6 = netip.MustParsePrefix("2001:db8:255::/64")
	SeedServer  = netip.MustParseAddr("192.168.255.10")
	SeedServer6 = netip.MustParseAddr("2001:db8:255::10")
)

// SeedASN is the ASN of every appliance of the seed case.
const SeedASN = 65147

// Seed is the network of the seed case: a client behind the host, the host and the
// appliances on the VNet's segment, and a server behind the appliances.
//
//	client --- host --- [vnet 10.1.0.0/16] --- nva1, nva2, ... --- [branch 192.168.255.0/24] --- server
//
// The host has no route to the branch: that is the route server's work.
type Seed struct {
	*Lab
	Client, Host, Server *Node
	NVAs                 []*Node
	VNet                 *Segment // for hosts and appliances more than these
	HostVNet             *Iface   // host's, on the VNet
	NVAVNet, NVABranch   []*Iface // the appliances', on either side
	ServerBranch         *Iface
}

// SeedNVA is the address of appliance i, counted from 0, on the VNet: 10.1.0.4, 10.1.0.5, ...
func SeedNVA(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(4 + i)}) }

// SeedNVA6 is the IPv6 address of appliance i on the VNet.
func SeedNVA6(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%x", 4+i)) }

// NewSeed builds the network with that many appliances, at most 200.
func NewSeed(l *Lab, appliances int) (*Seed, error) {
	s := &Seed{Lab: l}
	b := &builder{l: l}
	vnet, branch, behind := b.segment("vnet"), b.segment("branch"), b.segment("client")
	s.VNet = vnet
	s.Client, s.Host, s.Server = b.node("client"), b.node("host"), b.node("server")
	s.HostVNet = b.attach(vnet, s.Host, "eth0", "10.1.2.4/16", "2001:db8:1::2:4/64")
	b.attach(behind, s.Host, "eth1", "10.3.0.1/24", "2001:db8:3::1/64")
	b.attach(behind, s.Client, "eth0", "10.3.0.10/24", "2001:db8:3::10/64")
	b.ip(s.Client, "route add default via 10.3.0.1", "route add default via 2001:db8:3::1")
	s.ServerBranch = b.attach(branch, s.Server, "eth0", "192.168.255.10/24", "2001:db8:255::10/64")
	var back, back6 string
	for i := range appliances {
		n := b.node(fmt.Sprintf("nva%d", i+1))
		s.NVAs = append(s.NVAs, n)
		s.NVAVNet = append(s.NVAVNet, b.attach(vnet, n, "eth0", SeedNVA(i).String()+"/16", SeedNVA6(i).String()+"/64"))
		s.NVABranch = append(s.NVABranch, b.attach(branch, n, "eth1",
			fmt.Sprintf("192.168.255.%d/24", 20+i), fmt.Sprintf("2001:db8:255::%x/64", 0x20+i)))
		b.ip(n, "route add 10.3.0.0/24 via 10.1.2.4", "route add 2001:db8:3::/64 via 2001:db8:1::2:4")
		back += fmt.Sprintf(" nexthop via 192.168.255.%d", 20+i)
		back6 += fmt.Sprintf(" nexthop via 2001:db8:255::%x", 0x20+i)
	}
	if appliances > 0 {
		b.ip(s.Server, "route add default"+back, "route add default"+back6)
	}
	return s, b.err
}

// Traffic starts UDP flows from the client to the server; a zero Dst means the
// server's IPv4 address. The caller may set Flows, Rate, Port and Dst.
func (s *Seed) Traffic(c TrafficConfig) (*Traffic, error) {
	c.From, c.To, c.In, c.Via = s.Client, s.Server, s.ServerBranch, s.NVABranch
	if !c.Dst.IsValid() {
		c.Dst = SeedServer
	}
	return StartTraffic(c)
}

// builder does nothing more after its first error.
type builder struct {
	l   *Lab
	err error
}

func (b *builder) segment(name string) (s *Segment) {
	if b.err == nil {
		s, b.err = b.l.Segment(name)
	}
	return s
}

func (b *builder) node(name string) (n *Node) {
	if b.err == nil {
		n, b.err = b.l.Node(name)
	}
	return n
}

func (b *builder) attach(s *Segment, n *Node, ifname string, addrs ...string) (i *Iface) {
	if b.err == nil {
		i, b.err = s.Attach(n, ifname, addrs...)
	}
	return i
}

func (b *builder) ip(n *Node, lines ...string) {
	if b.err == nil {
		b.err = n.IP(lines...)
	}
}
