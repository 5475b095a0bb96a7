package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	nhfib "github.com/nexthopd/nexthopd/fib"
	"github.com/nexthopd/nexthopd/fib/kernel"
	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// owner is whose routes the writer measures.
var owner = nhfib.Owner{Table: rtTableMain, Metric: 20, Protocol: 165, FirstID: nhfib.DefaultFirstID, LastID: nhfib.DefaultLastID}

// The objects of the measurement: routes are inserted with the first group and replaced
// with the second.
const (
	firstGroup  = nhfib.DefaultFirstID + 10
	secondGroup = nhfib.DefaultFirstID + 11
)

// batchSize is how many messages go into one system call: larger gains nothing more.
const batchSize = 128

// encodeRoutes makes batches of messages, one per prefix; the last one of each asks for
// an answer.
func encodeRoutes(table []netip.Prefix, one func(p netip.Prefix) (typ, flags uint16, body []byte)) [][]byte {
	var batches [][]byte
	for len(table) > 0 {
		n := min(batchSize, len(table))
		var b []byte
		for i, p := range table[:n] {
			typ, flags, body := one(p)
			if i == n-1 {
				flags |= unix.NLM_F_ACK
			}
			b = message(b, typ, flags, 0, body)
		}
		batches, table = append(batches, b), table[n:]
	}
	return batches
}

func routeBody(p netip.Prefix, protocol, scope, typ uint8) []byte {
	b := []byte{unix.AF_INET, uint8(p.Bits()), 0, 0, rtTableMain, protocol, scope, typ, 0, 0, 0, 0}
	return attr(b, unix.RTA_DST, p.Addr().AsSlice())
}

// additions insert, or replace, routes that name a group.
func additions(table []netip.Prefix, group uint32, flags uint16) [][]byte {
	return encodeRoutes(table, func(p netip.Prefix) (uint16, uint16, []byte) {
		b := routeBody(p, owner.Protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST)
		b = attrU32(b, unix.RTA_PRIORITY, owner.Metric)
		return unix.RTM_NEWROUTE, flags, attrU32(b, rtaNHID, group)
	})
}

// deletions delete the routes of the prefixes, whosever they are.
func deletions(table []netip.Prefix) [][]byte {
	return encodeRoutes(table, func(p netip.Prefix) (uint16, uint16, []byte) {
		return unix.RTM_DELROUTE, 0, routeBody(p, 0, unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC)
	})
}

// write sends batches as encodeRoutes makes them.
func (s *rtnetlink) write(batches [][]byte) error {
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	s.seq = 0 // the number of all these messages
	for _, b := range batches {
		if err := unix.Sendto(s.fd, b, 0, to); err != nil {
			return fmt.Errorf("netlink: send: %w", err)
		}
		for done := false; !done; {
			var err error
			if done, err = s.answers(func(uint16, []byte) {}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureWriter times our writer, and the same routes as messages that were encoded
// before, which is what the kernel itself takes: the floor. Both take turns with parts of
// one table, so that a slow spell of the machine hits both, and in random order, as our
// table gives them.
func measureWriter(n, run int, record func(row string, value float64)) (err error) {
	l, err := lab.New()
	if err != nil {
		return err
	}
	stop := l.CloseOnSignal()
	defer stop()
	defer func() { err = errors.Join(err, l.Close()) }()
	node, err := l.Node("writer")
	if err != nil {
		return err
	}
	if err := node.Sysctl("net.ipv4.nexthop_compat_mode=0"); err != nil {
		return err
	}
	segment, err := l.Segment("wire")
	if err != nil {
		return err
	}
	if _, err := segment.Attach(node, "eth0", "10.1.1.1/24"); err != nil {
		return err
	}
	var k *kernel.Handle
	var raw *rtnetlink
	if err := node.Do(func() (err error) {
		if raw, err = openNetlink(); err == nil {
			k, err = kernel.Open(kernel.Options{Owner: owner})
		}
		return err
	}); err != nil {
		return err
	}
	defer raw.close()
	defer k.Close()

	host, err := k.Host()
	if err != nil {
		return err
	}
	index := 0
	for i, link := range host.Links {
		if link.Name == "eth0" {
			index = i
		}
	}
	leg := func(last byte) nhfib.Leg {
		return nhfib.Leg{Gateway: netip.AddrFrom4([4]byte{10, 1, 1, last}), IfIndex: index}
	}
	hop := uint32(nhfib.DefaultFirstID + 1)
	if err := apply(k, []nhfib.Op{
		{Kind: nhfib.NextHopAdd, ID: hop, Leg: leg(2)},
		{Kind: nhfib.NextHopAdd, ID: hop + 1, Leg: leg(3)},
		{Kind: nhfib.GroupAdd, ID: firstGroup, Members: []uint32{hop, hop + 1}},
		{Kind: nhfib.GroupAdd, ID: secondGroup, Members: []uint32{hop, hop + 1}},
	}); err != nil {
		return err
	}
	table := prefixes(n)
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { table[i], table[j] = table[j], table[i] })
	steps := []struct {
		row string
		raw func(table []netip.Prefix) [][]byte
		ops func(table []netip.Prefix) []nhfib.Op
	}{
		{"insert", func(t []netip.Prefix) [][]byte { return additions(t, firstGroup, unix.NLM_F_CREATE|unix.NLM_F_EXCL) },
			routeOps(nhfib.RouteAdd, firstGroup)},
		{"replace", func(t []netip.Prefix) [][]byte { return additions(t, secondGroup, unix.NLM_F_REPLACE) },
			routeOps(nhfib.RouteReplace, secondGroup)},
		{"delete", deletions, routeOps(nhfib.RouteDel, 0)},
	}
	// Once for nothing: the first time, the kernel has to find the memory.
	for _, s := range steps {
		if err := raw.write(s.raw(table)); err != nil {
			return fmt.Errorf("%s: %w", s.row, err)
		}
	}
	for _, s := range steps {
		var took [2]time.Duration // the floor's, ours
		for i := range turns {
			part := table[i*n/turns : (i+1)*n/turns]
			batches, ops := s.raw(part), s.ops(part)
			who := (i + run) % 2
			start := time.Now()
			if who == 0 {
				err = raw.write(batches)
			} else {
				err = apply(k, ops)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.row, err)
			}
			took[who] += time.Since(start)
		}
		record("floor-"+s.row, float64(n)/2/took[0].Seconds())
		record("writer-"+s.row, float64(n)/2/took[1].Seconds())
	}
	return nil
}

// turns of the two in a measurement.
const turns = 20

func routeOps(kind nhfib.OpKind, group uint32) func([]netip.Prefix) []nhfib.Op {
	return func(table []netip.Prefix) []nhfib.Op {
		list := make([]nhfib.Op, len(table))
		for i, p := range table {
			list[i] = nhfib.Op{Kind: kind, Prefix: p, ID: group}
		}
		return list
	}
}

func apply(k *kernel.Handle, ops []nhfib.Op) error {
	refused, err := k.Apply(ops)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%s of %d refused: %w", ops[refused[0].Index].Kind, len(refused), refused[0])
	}
	return err
}
