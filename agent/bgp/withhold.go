package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/nexthopd/nexthopd/agent/session"
)

// Paths that must not be announced (S31) are refused by the import policy: then GoBGP's
// best path is another peer's, and that is announced. There are two prefix sets per peer,
// one per family. GoBGP looks at a path again only with all others of its peer (a soft
// reset in), and everything else in GoBGP waits for that: some 10 ms per 1,000 paths. So
// changes are collected, and a run waits for withholdShare times as long as the last took.
const (
	withholdSettle = 100 * time.Millisecond
	withholdShare  = 3
	withholdMost   = 10 * time.Second
	withholdRetry  = time.Second
	// withholdChunk bounds the prefixes of one change of a set, which GoBGP's policy waits for.
	withholdChunk = 4096
)

// pathKey names a path.
type pathKey struct {
	peer   netip.Addr
	prefix netip.Prefix
}

// withholding is what is to be withheld. Speaker.mu guards pending, op the rest.
type withholding struct {
	pending map[pathKey]session.Withheld // asked for and not done yet
	poke    chan struct{}                // one slot; a poke that finds it full is not needed
	// held are the paths that the policy refuses. A peer that has none any more keeps its
	// empty sets: making new ones takes a new policy.
	held map[netip.Addr]map[netip.Prefix]struct{}
}

// Withhold takes the paths out of what is announced to other peers, or back into it. It
// returns at once; what is asked for last holds.
func (s *Speaker) Withhold(changes []session.Withheld) {
	s.mu.Lock()
	for _, c := range changes {
		s.withheld.pending[pathKey{c.Peer, c.Prefix}] = c
	}
	s.mu.Unlock()
	s.pokeWithhold()
}

func (s *Speaker) pokeWithhold() {
	select {
	case s.withheld.poke <- struct{}{}:
	default:
	}
}

// withholdLoop carries out what Withhold was asked for.
func (s *Speaker) withholdLoop() {
	pause := withholdSettle
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.withheld.poke:
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
		s.op.Lock()
		start := time.Now()
		err := s.applyWithheld()
		s.op.Unlock()
		took := time.Since(start)
		pause = min(max(withholdSettle, withholdShare*took), withholdMost)
		s.log.Debug("changed what is withheld from the peers", "took", took)
		if err != nil && s.ctx.Err() == nil {
			s.log.Error("could not change what is withheld from the peers", "err", err)
			pause = max(pause, withholdRetry)
			s.pokeWithhold()
		}
	}
}

// withholdChange is what changes for one peer.
type withholdChange struct {
	add, remove []netip.Prefix
	look        bool // GoBGP has to look at the peer's paths again
}

// applyWithheld brings GoBGP in line with what is pending. It is called with op held.
func (s *Speaker) applyWithheld() error {
	changes := s.takeWithheld()
	if len(changes) == 0 {
		return nil
	}
	defer s.recount()
	rebuilt, err := s.applyPolicy()
	for addr, c := range changes {
		if !rebuilt && err == nil {
			err = s.changeWithheld(addr, c)
		}
	}
	if err != nil {
		s.policy = "" // the sets may be anything: make them anew
		s.putBackWithheld(changes)
		return err
	}
	var errs []error
	for addr, c := range changes {
		if s.find(addr) == nil {
			s.forgetWithheld(addr)
			continue
		}
		if !c.look {
			continue
		}
		s.noteWithheld(addr, c)
		err := s.server.ResetPeer(s.ctx, &api.ResetPeerRequest{
			Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_IN,
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("look at the paths of %s again: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}

// putBackWithheld makes what could not be done pending again, but for what was asked for
// since.
func (s *Speaker) putBackWithheld(changes map[netip.Addr]*withholdChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := func(addr netip.Addr, p netip.Prefix, held bool) {
		if _, newer := s.withheld.pending[pathKey{addr, p}]; !newer {
			s.withheld.pending[pathKey{addr, p}] = session.Withheld{Peer: addr, Prefix: p, Held: held}
		}
	}
	for addr, c := range changes {
		for _, p := range c.add {
			again(addr, p, true)
			delete(s.withheld.held[addr], p)
		}
		for _, p := range c.remove {
			again(addr, p, false)
			s.withheld.held[addr][p] = struct{}{}
		}
	}
}

// forgetWithheld drops the sets of a peer that is gone. Those that are not empty go when
// what its paths were withheld for is taken back: it may be added again before.
func (s *Speaker) forgetWithheld(addr netip.Addr) {
	if len(s.withheld.held[addr]) == 0 {
		delete(s.withheld.held, addr)
	}
}

// takeWithheld turns what is pending into what changes, and counts it as held.
func (s *Speaker) takeWithheld() map[netip.Addr]*withholdChange {
	s.mu.Lock()
	pending := s.withheld.pending
	s.withheld.pending = map[pathKey]session.Withheld{}
	s.mu.Unlock()

	changes := map[netip.Addr]*withholdChange{}
	for k, w := range pending {
		held := s.withheld.held[k.peer]
		if _, was := held[k.prefix]; was == w.Held {
			continue
		}
		c := changes[k.peer]
		if c == nil {
			c = &withholdChange{}
			changes[k.peer] = c
		}
		c.look = c.look || !w.Gone
		if !w.Held {
			delete(held, k.prefix)
			c.remove = append(c.remove, k.prefix)
			continue
		}
		if held == nil {
			held = map[netip.Prefix]struct{}{}
			s.withheld.held[k.peer] = held
		}
		held[k.prefix] = struct{}{}
		c.add = append(c.add, k.prefix)
	}
	return changes
}

// changeWithheld changes a peer's sets in place.
func (s *Speaker) changeWithheld(addr netip.Addr, c *withholdChange) error {
	for _, f := range []Family{IPv4, IPv6} {
		for part := range slices.Chunk(ofFamily(c.add, f), withholdChunk) {
			err := s.server.AddDefinedSet(s.ctx, &api.AddDefinedSetRequest{DefinedSet: prefixSet(withheldSet(addr, f), part)})
			if err != nil {
				return fmt.Errorf("withhold paths of %s: %w", addr, err)
			}
		}
		for part := range slices.Chunk(ofFamily(c.remove, f), withholdChunk) {
			err := s.server.DeleteDefinedSet(s.ctx, &api.DeleteDefinedSetRequest{DefinedSet: prefixSet(withheldSet(addr, f), part)})
			if err != nil {
				return fmt.Errorf("withhold paths of %s no more: %w", addr, err)
			}
		}
	}
	return nil
}

// noteWithheld counts a change as an UPDATE of the peer, for sessions that come up: what
// is announced or withdrawn now may miss them.
func (s *Speaker) noteWithheld(addr netip.Addr, c *withholdChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[addr]
	if p == nil {
		return
	}
	p.lastHeldAt, p.lastHeld = time.Now(), c.add[:min(len(c.add), maxMissed+1)]
	for _, q := range s.peers {
		if q != p && q.missed != nil {
			q.missed.add(p.lastHeld...)
		}
	}
}

// withheldStatements refuse what is withheld; fillWithheld says what that is.
func (s *Speaker) withheldStatements(b *policyBuilder) []*api.Statement {
	var list []*api.Statement
	for _, addr := range s.withheldPeers() {
		peer := b.neighbors([]netip.Addr{addr})
		for _, f := range []Family{IPv4, IPv6} {
			set := withheldSet(addr, f)
			b.sets = append(b.sets, prefixSet(set, nil))
			list = append(list, &api.Statement{
				Name: set,
				Conditions: &api.Conditions{
					NeighborSet: &api.MatchSet{Name: peer, Type: api.MatchSet_TYPE_ANY},
					PrefixSet:   &api.MatchSet{Name: set, Type: api.MatchSet_TYPE_ANY},
				},
				Actions: reject(),
			})
		}
	}
	return list
}

// fillWithheld puts the prefixes into the sets of a complete policy.
func (s *Speaker) fillWithheld(policy *api.SetPoliciesRequest) {
	sets := map[string]*api.DefinedSet{}
	for _, d := range policy.DefinedSets {
		sets[d.Name] = d
	}
	for addr, held := range s.withheld.held {
		for p := range held {
			if d := sets[withheldSet(addr, familyOf(p))]; d != nil {
				d.Prefixes = append(d.Prefixes, exactly(p))
			}
		}
	}
}

func (s *Speaker) withheldPeers() []netip.Addr {
	list := make([]netip.Addr, 0, len(s.withheld.held))
	for addr := range s.withheld.held {
		list = append(list, addr)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

func withheldSet(peer netip.Addr, f Family) string {
	return fmt.Sprintf("withheld-%s-ipv%d", peer, f)
}

func prefixSet(name string, prefixes []netip.Prefix) *api.DefinedSet {
	d := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name}
	for _, p := range prefixes {
		d.Prefixes = append(d.Prefixes, exactly(p))
	}
	return d
}

func exactly(p netip.Prefix) *api.Prefix {
	return &api.Prefix{IpPrefix: p.String(), MaskLengthMin: uint32(p.Bits()), MaskLengthMax: uint32(p.Bits())}
}

func familyOf(p netip.Prefix) Family {
	if p.Addr().Is6() {
		return IPv6
	}
	return IPv4
}

func ofFamily(prefixes []netip.Prefix, f Family) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range prefixes {
		if familyOf(p) == f {
			list = append(list, p)
		}
	}
	return list
}
