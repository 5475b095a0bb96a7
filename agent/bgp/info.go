package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/bgp/wire"
)

// GoBGP counts by walking over all its paths, and does nothing else meanwhile: 0.5 us for
// each path learned, and 10 us for each path announced, which it makes for the purpose. So
// the counts are kept, and made anew where somebody asks, something changed, and counting
// takes no more than a small share of the time.
const (
	countEvery = time.Second
	// countSettle is how long GoBGP may take until a change is in its tables: a count that
	// began earlier is made again.
	countSettle = time.Second
	countShare  = 100 // at most 1/countShare of the time is spent on counting
	// countWait is how long Peers waits for fresh counts before it gives the old ones.
	countWait = 200 * time.Millisecond
	// maxCounted is the number of learned paths from which on what is announced is not
	// counted: half a second of standstill for a figure is too much.
	maxCounted = 50_000
)

// counters says how old the counts are. Speaker.mu guards it.
type counters struct {
	running chan struct{} // closed when the counting under way has ended
	next    time.Time     // not before
	changed time.Time     // when something that is counted did
	walked  time.Time     // when the last walk over the paths began
}

// recount says that what is announced may have changed.
func (s *Speaker) recount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.changed = time.Now()
}

// Peers returns what is known of all peers, ordered by address. Message counters and
// Advertised may be a second or two old; Advertised is nil before the first count of a
// session, and in a big table.
func (s *Speaker) Peers() []PeerInfo {
	s.refresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]PeerInfo, 0, len(s.peers))
	for _, p := range s.peers {
		list = append(list, s.snapshot(p))
	}
	slices.SortFunc(list, func(a, b PeerInfo) int { return a.Address.Compare(b.Address) })
	return list
}

// Peer returns what is known of one peer.
func (s *Speaker) Peer(addr netip.Addr) (PeerInfo, bool) {
	s.refresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[addr]
	if p == nil {
		return PeerInfo{}, false
	}
	return s.snapshot(p), true
}

// snapshot copies what is known of p, with mu held.
func (s *Speaker) snapshot(p *peer) PeerInfo {
	i := p.info
	i.MessagesReceived = maps.Clone(i.MessagesReceived)
	i.MessagesSent = maps.Clone(i.MessagesSent)
	i.Advertised = maps.Clone(i.Advertised)
	i.Faults = maps.Clone(i.Faults)
	i.Warning = s.warning(p)
	i.RoleConfirmed = slices.Contains(i.PeerCapabilities, roleCapability+string(p.cfg.Role))
	return i
}

// refresh brings the counts up to date where it is time for that.
func (s *Speaker) refresh() {
	s.mu.Lock()
	now := time.Now()
	if s.counters.running == nil && s.server != nil && s.ctx.Err() == nil && s.walks == 0 && !now.Before(s.counters.next) {
		running := make(chan struct{})
		s.counters.running = running
		walk := !s.counters.walked.After(s.counters.changed.Add(countSettle))
		if walk {
			s.counters.walked = now
		}
		s.spawn(func() {
			s.count(walk)
			s.mu.Lock()
			s.counters.running = nil
			s.counters.next = time.Now().Add(max(countEvery, countShare*time.Since(now)))
			s.mu.Unlock()
			close(running)
		})
	}
	running := s.counters.running
	s.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-time.After(countWait):
		}
	}
}

// count asks GoBGP for the message counters, and where advertised is set for the number
// of paths announced to each peer, one peer at a time.
func (s *Speaker) count(advertised bool) {
	var up []netip.Addr
	learned := uint64(0)
	list := func(g *api.Peer) {
		addr, err := netip.ParseAddr(g.GetState().GetNeighborAddress())
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		p := s.peers[addr]
		if p == nil {
			return
		}
		p.info.MessagesReceived = messageCounts(g.GetState().GetMessages().GetReceived())
		p.info.MessagesSent = messageCounts(g.GetState().GetMessages().GetSent())
		if p.info.State != Established {
			return
		}
		p.info.HoldTime = time.Duration(g.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
		p.info.Keepalive = time.Duration(g.GetTimers().GetState().GetKeepaliveInterval()) * time.Second
		up = append(up, addr)
		for _, a := range g.AfiSafis {
			learned += a.GetState().GetReceived()
		}
	}
	if s.server.ListPeer(context.Background(), &api.ListPeerRequest{}, list) != nil || !advertised {
		return // an error says that GoBGP has stopped
	}
	for _, addr := range up {
		var counts map[Family]int
		customers := 0
		if learned <= maxCounted {
			counts, customers = s.countAdvertised(addr)
		}
		s.mu.Lock()
		if p := s.peers[addr]; p != nil && p.info.State == Established {
			p.info.Advertised, p.info.OnlyToCustomers = counts, customers
		}
		s.mu.Unlock()
	}
}

// countAdvertised counts what the peer is told, and what it is not told because that is
// for customers only.
func (s *Speaker) countAdvertised(addr netip.Addr) (counts map[Family]int, customers int) {
	counts = map[Family]int{}
	p := s.find(addr)
	if p == nil {
		return nil, 0
	}
	if s.relationOf(p).Above { // it is told less than GoBGP thinks
		list, customers, err := s.adjOut(p)
		if err != nil {
			return nil, 0
		}
		for _, a := range list {
			counts[familyOf(a.Prefix)]++
		}
		return counts, customers
	}
	request := &api.ListPeerRequest{Address: addr.String(), EnableAdvertised: true}
	err := s.server.ListPeer(context.Background(), request, func(g *api.Peer) {
		for _, a := range g.AfiSafis {
			f := IPv4
			if a.GetState().GetFamily().GetAfi() == api.Family_AFI_IP6 {
				f = IPv6
			}
			counts[f] = int(a.GetState().GetAdvertised())
		}
	})
	if err != nil {
		return nil, 0
	}
	return counts, 0
}

func messageCounts(m *api.Message) map[string]uint64 {
	return map[string]uint64{
		"open":          m.GetOpen(),
		"update":        m.GetUpdate(),
		"notification":  m.GetNotification(),
		"keepalive":     m.GetKeepalive(),
		"route-refresh": m.GetRefresh(),
	}
}

// Advertised returns what the peer is told, as it sees it, ordered by prefix; nothing
// while its session is down. GoBGP makes the list of all its paths for it and does
// nothing else meanwhile: it is for a person who asks.
func (s *Speaker) Advertised(addr netip.Addr) ([]Advertised, error) {
	p := s.find(addr)
	if p == nil {
		return nil, fmt.Errorf("advertised to peer %s: %w", addr, errUnknownPeer)
	}
	s.mu.Lock()
	up := p.info.State == Established
	s.mu.Unlock()
	if !up {
		return nil, nil
	}
	list, _, err := s.adjOut(p)
	if err != nil {
		return nil, fmt.Errorf("advertised to peer %s: %w", addr, err)
	}
	slices.SortFunc(list, func(a, b Advertised) int { return a.Prefix.Compare(b.Prefix) })
	return list, nil
}

// relationOf is relation for a peer.
func (s *Speaker) relationOf(p *peer) wire.Relation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relation(p.cfg)
}

// adjOut lists what GoBGP has in the peer's Adj-RIB-Out as it reaches the peer, and counts
// what does not because it is for customers only.
func (s *Speaker) adjOut(p *peer) (list []Advertised, customers int, err error) {
	relation, addr := s.relationOf(p), p.info.Address
	conv := converter{attrs: newInterner()}
	for _, f := range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		// EnableFiltered would change the real tables: never.
		request := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_OUT, Name: addr.String(), Family: f}
		err := s.server.ListPath(request, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, path := range paths {
				c, ok := conv.change(path)
				if !ok || c.Attrs == nil {
					continue
				}
				attrs, withheld := told(relation, c.Attrs)
				if withheld {
					customers++
					continue
				}
				list = append(list, Advertised{Prefix: c.Prefix, Attrs: attrs, From: path.PeerAddress.Unmap()})
			}
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return list, customers, nil
}

// capGracefulRestart begins the name of the capability of RFC 4724.
const capGracefulRestart = "graceful-restart"

// capabilityNames writes capabilities for a person, ordered.
func capabilityNames(list []bgp.ParameterCapabilityInterface) []string {
	var names []string
	for _, c := range list {
		switch c := c.(type) {
		case *bgp.CapMultiProtocol:
			names = append(names, "multiprotocol "+c.CapValue.String())
		case *bgp.CapGracefulRestart:
			text := fmt.Sprintf(capGracefulRestart+" %ds", c.Time)
			for _, t := range c.Tuples {
				text += " " + bgp.NewFamily(t.AFI, t.SAFI).String()
			}
			names = append(names, text)
		case *bgp.CapLongLivedGracefulRestart:
			text := "long-lived-graceful-restart"
			for _, t := range c.Tuples {
				text += fmt.Sprintf(" %s %ds", bgp.NewFamily(t.AFI, t.SAFI), t.RestartTime)
			}
			names = append(names, text)
		case *bgp.CapFourOctetASNumber:
			names = append(names, fmt.Sprintf("4-octet-as %d", c.CapValue))
		case *bgp.CapUnknown:
			if c.CapCode == capRole {
				names = append(names, roleName(c.CapValue))
				break
			}
			names = append(names, strings.ToLower(c.Code().String()))
		default:
			names = append(names, strings.ToLower(c.Code().String()))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
