package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
	"golang.org/x/sys/unix"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
)

// Options of a Speaker.
type Options struct {
	ASN      uint32
	RouterID netip.Addr // an IPv4 address
	// Listen is where peers may connect to.
	Listen  []netip.AddrPort
	Logger  *slog.Logger
	Handler Handler
	// BranchToBranch: announce to a peer what the other peers announced (S29).
	BranchToBranch bool
	// Restarting: the routes of the process before this one are still in the kernel, so
	// the OPEN carries the Restart State and Forwarding State bits (RFC 4724 section 4.1).
	Restarting bool
	// OnPeerDown, if set, is called the moment an established session ends, before GoBGP
	// walks over the peer's paths and so, in a big table, seconds before Handler hears of
	// it. graceful: the peer promised to keep forwarding for at least one family. It runs on
	// the goroutine that does that walk next, and must return quickly. Where Handler was so far
	// behind that it had not heard of the session, it is called again when Handler has.
	OnPeerDown func(peer netip.Addr, why DownReason, graceful bool)
	// OnStranger, if set, is called when an address of a range connected that is no peer,
	// and was disconnected. asn is what it told, where the range allows several. Other
	// connections wait for it to return.
	OnStranger func(addr netip.Addr, asn uint32)
	// OnRefused, if set, is called for each connection that was refused.
	OnRefused func(why Refusal)
}

// ListenError says which address could not be listened on.
type ListenError struct {
	Address netip.AddrPort
	Err     error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Address, e.Err) }

func (e *ListenError) Unwrap() error { return e.Err }

// Speaker speaks BGP with the configured peers. Its methods may be called from any
// goroutine, but not from a Handler.
//
// Locks: op serialises what changes GoBGP's configuration and is held across calls
// into GoBGP. mu guards the fields below it, and is never held across a call into
// GoBGP or the Handler: GoBGP logs with its own locks held, and our log handler takes mu.
type Speaker struct {
	opts   Options
	log    *slog.Logger
	server *server.BgpServer
	// ctx ends when Stop begins, watching when GoBGP has stopped: what it still tells
	// until then must be taken from it, or it would block.
	ctx, watching         context.Context
	cancel, cancelWatcher context.CancelFunc
	started               time.Time
	openTimeout           time.Duration // a test has no 10 s
	stop                  sync.Once
	tasks                 sync.WaitGroup

	op     sync.Mutex
	policy string // the policy in force, as text, to tell whether it changes
	vnet   vnet
	mark   [3]uint32 // see marked

	withheld withholding

	listeners []*net.TCPListener
	accepted  chan net.Conn           // what GoBGP takes connections from
	keys      map[netip.Prefix]string // on the listeners; see applyKeys

	inside *inside // see inside.go
	in     learner // of the watching goroutine alone

	mu             sync.Mutex
	peers          map[netip.Addr]*peer
	branchToBranch bool
	closed         []netip.Prefix // see RefuseInside
	open           []netip.Prefix
	drained        bool
	vnetChanged    time.Time
	walks          int // sessions that ended and whose paths GoBGP is walking over
	counters       counters
	ranges         []addressRange
	connections    throttle
	asked          map[netip.Addr]bool   // whose OPEN is waited for; see ask
	refused        map[Refusal]time.Time // when that was last told of
}

// New returns a Speaker; nothing runs until Start.
func New(opts Options) *Speaker {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Speaker{
		opts:           opts,
		log:            log,
		peers:          map[netip.Addr]*peer{},
		branchToBranch: opts.BranchToBranch,
		in:             learner{attrs: newInterner()},
		openTimeout:    openTimeout,
		accepted:       make(chan net.Conn),
		keys:           map[netip.Prefix]string{},
		connections:    throttle{},
		asked:          map[netip.Addr]bool{},
		refused:        map[Refusal]time.Time{},
		withheld: withholding{
			pending: map[pathKey]session.Withheld{},
			poke:    make(chan struct{}, 1),
			held:    map[netip.Addr]map[netip.Prefix]struct{}{},
		},
		mark: newMark(),
	}
}

// Start listens and begins to speak; peers come with AddPeer. Where an address cannot
// be listened on, the error is a *ListenError. The speaker runs until Stop, or until
// ctx ends, which is a Stop that keeps nothing.
func (s *Speaker) Start(ctx context.Context) error {
	if !s.opts.RouterID.Is4() {
		return fmt.Errorf("start BGP: router id %q is not an IPv4 address", s.opts.RouterID)
	}
	if len(s.opts.Listen) == 0 {
		return errors.New("start BGP: no address to listen on")
	}
	handler := &logHandler{speaker: s, out: s.log.Handler()}
	s.server = server.NewBgpServer(server.LoggerOption(slog.New(handler), new(slog.LevelVar)))
	var err error
	if s.inside, err = lookInside(s.server); err == nil {
		err = s.listen()
	}
	if err != nil {
		s.server = nil
		return fmt.Errorf("start BGP: %w", err)
	}
	*s.inside.accept = s.accepted
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.watching, s.cancelWatcher = context.WithCancel(context.Background())
	s.started = time.Now()
	s.tasks.Go(s.server.Serve)
	if err := s.start(); err != nil {
		s.Stop(context.Background(), false)
		return fmt.Errorf("start BGP: %w", err)
	}
	for _, l := range s.listeners {
		s.tasks.Go(func() { s.acceptLoop(l) })
	}
	s.tasks.Go(s.guard)
	s.tasks.Go(s.withholdLoop)
	context.AfterFunc(ctx, func() { s.Stop(context.Background(), false) })
	return nil
}

func (s *Speaker) start() error {
	err := s.server.StartBgp(s.ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:        s.opts.ASN,
		RouterId:   s.opts.RouterID.String(),
		ListenPort: -1, // we do, see accept.go
		Families:   []uint32{familyIPv4, familyIPv6},
		RouteSelectionOptions: &api.RouteSelectionOptionsConfig{
			// What GoBGP announces as best must be what the RIB forwards to, and the RIB
			// compares MED across neighbouring ASes, for the tiers to be an order.
			AlwaysCompareMed: true,
		},
	}})
	if err != nil {
		return err
	}
	s.op.Lock()
	defer s.op.Unlock()
	if err := s.startPolicy(); err != nil {
		return err
	}
	return s.watch()
}

// stopTime bounds the end of GoBGP, which withdraws path by path what each peer announced
// before it turns to the next peer: many seconds at a million paths, in which a restarting
// daemon would be away. The tests, which go on in the same process, wait longer.
var stopTime = 3 * time.Second

// Stop ends all sessions and waits until the speaker has stopped, for stopTime at the
// most: then the caller's process is to end, and its connections with it. With keep, a peer
// that negotiated graceful restart is left without a NOTIFICATION, so that it goes on
// forwarding to us (RFC 4724 section 4); the others get Cease/Administrative Shutdown. The
// Handler hears nothing more: with the speaker, not with the peers, something ended.
func (s *Speaker) Stop(ctx context.Context, keep bool) {
	if s.server == nil {
		return
	}
	s.stop.Do(func() {
		s.mu.Lock()
		s.cancel() // spawn starts nothing from here on
		s.mu.Unlock()
		s.closeListeners()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.op.Lock()
			if keep {
				s.hangUp()
			}
			s.dismiss(ctx, keep)
			if err := s.server.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: keep}); err != nil {
				s.log.Warn("BGP did not stop cleanly", "err", err)
			}
			s.server.Stop() // only the goroutine of its BFD is left
			s.op.Unlock()
			s.cancelWatcher()
			s.tasks.Wait()
		}()
		select {
		case <-stopped:
		case <-time.After(stopTime):
			s.log.Info("not waiting for GoBGP to withdraw everything: the sessions end with the process", "waited", stopTime)
		}
	})
}

// restarts tells whether the peer negotiated graceful restart.
func (p *peer) restarts() bool {
	return slices.ContainsFunc(p.info.PeerCapabilities, func(c string) bool { return strings.HasPrefix(c, capGracefulRestart) })
}

// hangUp closes the connections of the peers that Stop leaves without a NOTIFICATION, all of
// them before anything else. GoBGP takes its peers away one by one and withdraws the paths of
// each from those whose sessions are still up, which would keep what they had else.
func (s *Speaker) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.info.State != Established || !p.restarts() || p.socket == nil {
			continue
		}
		raw, err := p.socket.SyscallConn()
		if err == nil {
			var failed error
			err = raw.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
			err = errors.Join(err, failed)
		}
		if err != nil {
			s.log.Debug("cannot close a connection", "peer", p.info.Address, "err", err) // it is closed already
		}
	}
}

// dismissTime bounds the wait for sessions to end.
const dismissTime = time.Second

// dismiss ends the sessions that Stop ends with a NOTIFICATION and waits until it is out.
// That of StopBgp would say that the peer was removed from the configuration.
func (s *Speaker) dismiss(ctx context.Context, keep bool) {
	type ending struct {
		p     *peer
		downs uint64
	}
	var list []ending
	s.mu.Lock()
	for _, p := range s.peers {
		if p.info.State == Established && !(keep && p.restarts()) {
			list = append(list, ending{p, p.losses})
		}
	}
	s.mu.Unlock()
	for _, e := range list {
		if err := s.server.ShutdownPeer(ctx, &api.ShutdownPeerRequest{Address: e.p.info.Address.String()}); err != nil {
			s.log.Warn("cannot tell a peer that this speaker stops", "peer", e.p.info.Address, "err", err)
		}
	}
	gone := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !slices.ContainsFunc(list, func(e ending) bool { return e.p.losses == e.downs })
	}
	for deadline := time.Now().Add(dismissTime); !gone() && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
}

// spawn runs f on a goroutine that Stop waits for, unless Stop has begun. With mu held.
func (s *Speaker) spawn(f func()) {
	if s.ctx.Err() == nil {
		s.tasks.Go(f)
	}
}

// peer is what the speaker knows of one peer. Speaker.mu guards it.
type peer struct {
	cfg     config.Peer
	secret  string       // of TCP MD5; empty: none
	rekeyed bool         // GoBGP may be trying to connect with the secret before; see reconnect
	socket  syscall.Conn // of the established session; else nil
	stale   bool         // the session was lost, and GoBGP keeps the paths of a graceful restart
	info    PeerInfo
	telling bool // the Handler is being told of info.State
	// otherAddress is ours in the family that the session does not run over, next to
	// the session's own address: the next hop for prefixes of that family.
	otherAddress netip.Addr
	losses       uint64 // of an established session, as GoBGP's first word tells them
	up           bool   // likewise; info.State comes later, in the order of the watched events
	// restartable are the families that GoBGP keeps when the session is lost. It never
	// forgets one while the peer exists (see checkRestart).
	restartable map[Family]bool
	longLived   longLived
	// notifies: the peer set the N bit of RFC 8538. GoBGP never forgets that either.
	notifies bool

	notification notification // the last one on this session, from GoBGP's log
	holdExpired  bool
	downs        []down     // from GoBGP's log, for the state events to come
	expect       DownReason // the reason to give when we end the session ourselves
	hardReset    bool       // the peer takes a Cease for a restart unless it is a Hard Reset (RFC 8538)
	held         bool       // kept down until BFD is up

	farewell       chan struct{} // closed when GoBGP has told all of a peer that is removed
	stateSince     time.Time
	openConfirm    time.Time // when the coming session got that far
	opensSeen      bool      // since the state began
	opensSent      uint64    // OPENs sent when last looked at
	opensSentSince time.Time // when they were found to have grown
	lastUpdate     time.Time // when an UPDATE was last received
	lastWithdrawn  []netip.Prefix
	lastHeldAt     time.Time // when paths of the peer were last withheld, or not any more
	lastHeld       []netip.Prefix
	missed         *missed // withdrawals that the peer may miss; see guard.go
	limit          limitHold
}
