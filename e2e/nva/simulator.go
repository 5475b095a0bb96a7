package nva

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// redial is how long a Simulator waits between two attempts to connect.
const redial = 200 * time.Millisecond

// Simulator is a whole appliance: it connects again and again, remembers what it
// announces, and announces it on every new session and after a ROUTE-REFRESH.
type Simulator struct {
	opts Options
	poke chan struct{} // capacity 1: full means that the table is sent again anyway

	mu      sync.Mutex
	table   map[netip.Prefix]Attrs
	session *Session // nil while there is none
	last    error    // why the last attempt or session ended
}

// NewSimulator makes an appliance that connects to o.Remote once it runs.
func NewSimulator(o Options) *Simulator {
	s := &Simulator{opts: o, poke: make(chan struct{}, 1), table: map[netip.Prefix]Attrs{}}
	s.opts.OnRefresh = func(Family) {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
	return s
}

// Run keeps a session up until ctx ends, then closes it without a word.
func (s *Simulator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		session, err := Dial(ctx, s.opts)
		if err == nil {
			err = s.serve(ctx, session)
		}
		s.mu.Lock()
		s.session, s.last = nil, err
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
}

// serve announces the table and waits for the session's end.
func (s *Simulator) serve(ctx context.Context, session *Session) error {
	defer session.Close()
	s.mu.Lock()
	s.session = session
	err := s.announceAll()
	s.mu.Unlock()
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-session.Done():
			return session.Err()
		case <-s.poke:
			s.mu.Lock()
			err = s.announceAll()
			s.mu.Unlock()
		}
	}
	return err
}

// announceAll sends the table and the End-of-RIB markers; mu is held.
func (s *Simulator) announceAll() error {
	for _, p := range slices.SortedFunc(maps.Keys(s.table), netip.Prefix.Compare) {
		if err := s.session.Announce(s.table[p], p); err != nil {
			return err
		}
	}
	for _, f := range s.opts.Families {
		if err := s.session.EndOfRIB(f); err != nil {
			return err
		}
	}
	return nil
}

// Announce adds a prefix to the table, and sends it when there is a session. An
// empty AS path in a becomes the appliance's own ASN.
func (s *Simulator) Announce(p netip.Prefix, a Attrs) error {
	if a.ASPath == nil {
		a.ASPath = Seq(s.opts.ASN)
	}
	if FamilyOf(p) == IPv6 && !a.NextHop.IsValid() && s.opts.Remote.Addr().Is4() {
		return fmt.Errorf("announce %s: a session over IPv4 needs a nexthop for it", p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table[p] = a
	if s.session != nil {
		_ = s.session.Announce(a, p) // when it fails the session ends, and the next one gets the table
	}
	return nil
}

// Withdraw removes a prefix from the table and takes it back from the peer.
func (s *Simulator) Withdraw(p netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.table[p]; !ok {
		return fmt.Errorf("withdraw %s: it is not announced", p)
	}
	delete(s.table, p)
	if s.session != nil {
		_ = s.session.Withdraw(p) // as in Announce
	}
	return nil
}

// Session is the present session, or nil.
func (s *Simulator) Session() *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// Status says in one line how the session is.
func (s *Simulator) Status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		asn, _ := s.session.Peer().ASN()
		return fmt.Sprintf("established peer %s as %d hold %s announced %d received %d",
			s.opts.Remote.Addr(), asn, s.session.Hold(), len(s.table), s.session.Received().Len())
	}
	if s.last != nil {
		return "down: " + s.last.Error()
	}
	return "down: connecting"
}

// Received lists what the peer announces now, one path a line.
func (s *Simulator) Received() ([]string, error) {
	session := s.Session()
	if session == nil {
		return nil, errors.New("no session")
	}
	var lines []string
	for _, p := range session.Received().Paths() {
		lines = append(lines, p.String())
	}
	return lines, nil
}

// Command runs one line of the control language, see Usage, and returns its answer.
func (s *Simulator) Command(line string) ([]string, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil, errors.New("empty command")
	}
	switch words[0] {
	case "announce":
		prefixes, a, err := parseAnnounce(words[1:], s.opts.ASN)
		if err != nil {
			return nil, err
		}
		for _, p := range prefixes {
			if err := s.Announce(p, a); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case "withdraw":
		if len(words) == 1 {
			return nil, errors.New("withdraw: no prefix")
		}
		for _, w := range words[1:] {
			p, err := parsePrefix(w)
			if err != nil {
				return nil, err
			}
			if err := s.Withdraw(p); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case "received":
		return s.Received()
	case "status":
		return []string{s.Status()}, nil
	case "reset", "close", "silence":
		session := s.Session()
		if session == nil {
			return nil, errors.New("no session")
		}
		switch words[0] {
		case "reset":
			session.Reset()
		case "close":
			session.Notify(6, 2, nil) // Cease, Administrative Shutdown
		case "silence":
			session.Silence()
		}
		return nil, nil
	}
	return nil, fmt.Errorf("unknown command %q; there are announce, withdraw, received, status, reset, close, silence", words[0])
}
