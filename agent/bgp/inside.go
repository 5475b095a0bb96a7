package bgp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/nexthopd/nexthopd/agent/bgp/wire"
	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/journal"
)

// This file puts wire.Conn between GoBGP and its sockets, gives GoBGP the connections
// that we accepted, and changes a secret without a reset, for none of which GoBGP v4.8.0
// has a hook (docs/adr/0013, 0021). It goes past the type system in one place, and checks
// at the start that GoBGP looks as it was when this was written.
//
// When a session comes up, GoBGP logs "Peer Up" from the goroutine of the session
// (fsmHandler.loop), between OpenConfirm, whose readers have ended, and Established,
// whose have not begun. For that moment nobody but this goroutine uses fsm.conn.

// inside knows where in GoBGP things are.
type inside struct {
	mu        *sync.RWMutex // guards neighbors
	neighbors reflect.Value // map[netip.Addr]*peer
	accept    *chan net.Conn
	fsm       uintptr // of the *fsm in a peer
	// in an fsm
	conn, recvOpen, notification, lock, conf uintptr
}

// lookInside finds the fields, or says what is not as expected.
func lookInside(s *server.BgpServer) (*inside, error) {
	v := reflect.ValueOf(s).Elem()
	var err error
	field := func(t reflect.Type, name string, want reflect.Type) reflect.StructField {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		var f reflect.StructField
		ok := false
		if t.Kind() == reflect.Struct {
			f, ok = t.FieldByName(name)
		}
		if err == nil && (!ok || want != nil && f.Type != want) {
			err = fmt.Errorf("bug: this GoBGP has no %s.%s of type %v", t, name, want)
		}
		if !ok {
			f.Type = reflect.TypeFor[struct{}]()
		}
		return f
	}
	shared := field(v.Type(), "shared", nil)
	mu := field(shared.Type, "mu", reflect.TypeFor[sync.RWMutex]())
	neighbors := field(v.Type(), "neighborMap", nil)
	accept := field(v.Type(), "acceptCh", reflect.TypeFor[chan net.Conn]())
	if err == nil && (shared.Type.Kind() != reflect.Pointer || neighbors.Type.Kind() != reflect.Map || neighbors.Type.Key() != reflect.TypeFor[netip.Addr]()) {
		err = fmt.Errorf("bug: this GoBGP keeps its peers in %v", neighbors.Type)
	}
	if err != nil {
		return nil, err
	}
	fsm := field(neighbors.Type.Elem(), "fsm", nil)
	conf := field(fsm.Type, "pConf", nil)
	in := &inside{
		fsm:          fsm.Offset,
		conn:         field(fsm.Type, "conn", reflect.TypeFor[net.Conn]()).Offset,
		recvOpen:     field(fsm.Type, "recvOpen", reflect.TypeFor[*bgp.BGPMessage]()).Offset,
		notification: field(fsm.Type, "notification", reflect.TypeFor[chan *bgp.BGPMessage]()).Offset,
		lock:         field(fsm.Type, "lock", reflect.TypeFor[sync.Mutex]()).Offset,
		conf:         conf.Offset + field(conf.Type, "conf", reflect.TypeFor[atomic.Pointer[oc.Neighbor]]()).Offset,
	}
	if err == nil && (neighbors.Type.Elem().Kind() != reflect.Pointer || fsm.Type.Kind() != reflect.Pointer) {
		err = fmt.Errorf("bug: this GoBGP has peers of type %v with an fsm of type %v", neighbors.Type.Elem(), fsm.Type)
	}
	if err != nil {
		return nil, err
	}
	base := v.Addr().UnsafePointer()
	in.mu = (*sync.RWMutex)(unsafe.Add(*(*unsafe.Pointer)(unsafe.Add(base, shared.Offset)), mu.Offset))
	in.accept = (*chan net.Conn)(unsafe.Add(base, accept.Offset))
	in.neighbors = reflect.NewAt(neighbors.Type, unsafe.Add(base, neighbors.Offset)).Elem()
	return in, nil
}

// fsmFields are what is used of a peer's fsm.
type fsmFields struct {
	conn         *net.Conn
	recvOpen     *bgp.BGPMessage
	notification chan *bgp.BGPMessage
	lock         *sync.Mutex // is held by who stores conf
	conf         *atomic.Pointer[oc.Neighbor]
}

// peerFields finds a peer's fsm.
func (in *inside) peerFields(addr netip.Addr) (fsmFields, bool) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	p := in.neighbors.MapIndex(reflect.ValueOf(addr))
	if !p.IsValid() || p.IsNil() {
		return fsmFields{}, false
	}
	fsm := *(*unsafe.Pointer)(unsafe.Add(p.UnsafePointer(), in.fsm))
	return fsmFields{
		conn:         (*net.Conn)(unsafe.Add(fsm, in.conn)),
		recvOpen:     *(**bgp.BGPMessage)(unsafe.Add(fsm, in.recvOpen)),
		notification: *(*chan *bgp.BGPMessage)(unsafe.Add(fsm, in.notification)),
		lock:         (*sync.Mutex)(unsafe.Add(fsm, in.lock)),
		conf:         (*atomic.Pointer[oc.Neighbor])(unsafe.Add(fsm, in.conf)),
	}, true
}

// setPassword changes the TCP MD5 secret with which GoBGP connects to a peer from its next
// round of attempts on. UpdatePeer would end the session. It is false for no such peer.
func (in *inside) setPassword(addr netip.Addr, password string) bool {
	f, ok := in.peerFields(addr)
	if !ok {
		return false
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	c := *f.conf.Load() // what is stored is never changed
	c.Config.AuthPassword = password
	f.conf.Store(&c)
	return true
}

// judge puts the judge in front of the session that comes up. It runs on the session's
// goroutine, without any lock held.
func (s *Speaker) judge(addr netip.Addr) {
	f, ok := s.inside.peerFields(addr)
	if !ok {
		s.log.Error("bug: no session to judge the messages of", "peer", addr)
		return
	}
	socket, ok := (*f.conn).(wire.Socket)
	open, isOpen := f.recvOpen.Body.(*bgp.BGPOpen)
	if !ok || !isOpen {
		s.log.Error("bug: a session whose messages can't be judged", "peer", addr, "conn", fmt.Sprintf("%T", *f.conn))
		return
	}
	s.mu.Lock()
	var c config.Peer
	if p := s.peers[addr]; p != nil {
		c = p.cfg
		p.socket, p.stale = socket, false
	}
	s.mu.Unlock()
	s.noteRestartable(addr, open)
	notification := f.notification
	session := agreed(open)
	session.Relation = s.relation(c)
	mismatch := roleMismatch(c, open)
	if mismatch != "" {
		s.refuseRole(addr, notification, mismatch)
	}
	*f.conn = wire.NewConn(socket, wire.Options{
		Session:  session,
		Refused:  mismatch != "",
		SendHold: sendHold(time.Duration(open.HoldTime) * time.Second),
		Report:   func(fault wire.Fault) { s.faulty(addr, fault) },
		Reset: func(fault wire.Fault) {
			select {
			case notification <- bgp.NewBGPNotificationMessage(fault.Code, fault.Subcode, fault.Data):
			default: // the session ends already
			}
		},
		Lost: func(prefixes int) {
			s.log.Warn("withdrew what has no room for the attribute Only to Customer", "peer", addr, "prefixes", prefixes)
		},
	})
}

// capabilities are all those of an OPEN, which may have them in several parameters.
func capabilities(open *bgp.BGPOpen) (list []bgp.ParameterCapabilityInterface) {
	for _, o := range open.OptParams {
		if o, ok := o.(*bgp.OptionParameterCapability); ok {
			list = append(list, o.Capability...)
		}
	}
	return list
}

// agreed is what the peer's OPEN and ours have in common; GoBGP offers all of it.
func agreed(open *bgp.BGPOpen) wire.Session {
	session := wire.Session{TwoByteAS: true}
	families := false
	for _, c := range capabilities(open) {
		switch c := c.(type) {
		case *bgp.CapMultiProtocol:
			families = true
			session.IPv4 = session.IPv4 || c.CapValue == bgp.RF_IPv4_UC
			session.IPv6 = session.IPv6 || c.CapValue == bgp.RF_IPv6_UC
		case *bgp.CapFourOctetASNumber:
			session.TwoByteAS = false
		case *bgp.CapExtendedNexthop:
			session.ExtendedNextHop = true
		case *bgp.CapExtendedMessage:
			session.ExtendedMessage = true
		}
	}
	if !families {
		session.IPv4 = true // RFC 4760 section 8
	}
	return session
}

// sendHold is twice the hold time, as RFC 9687 section 3.2, but not its eight minutes at
// least: what is to be sent queues up in memory meanwhile.
func sendHold(hold time.Duration) time.Duration { return max(2*hold, time.Minute) }

// faulty counts and logs a message that was wrong.
func (s *Speaker) faulty(addr netip.Addr, f wire.Fault) {
	s.mu.Lock()
	if p := s.peers[addr]; p != nil {
		p.info.Faults[f.Reaction.String()]++
	}
	s.mu.Unlock()
	attrs := []slog.Attr{slog.String("peer", addr.String()), slog.String("reaction", f.Reaction.String()), slog.String("err", f.Text)}
	if f.Withdrawn > 0 {
		attrs = append(attrs, slog.Int("prefixes", f.Withdrawn))
	}
	journal.Log(s.log, journal.FaultyMessage, attrs...)
}

// noFaults has a zero for each reaction, for a counter must be there before it grows.
func noFaults() map[string]uint64 {
	none := map[string]uint64{}
	for _, r := range wire.Reactions {
		none[r.String()] = 0
	}
	return none
}
