package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/bfd"
	"github.com/nexthopd/nexthopd/fib"
)

// BFD is what the agent needs of bfd.Process. Its events go to Agent.BFDEvent.
type BFD interface {
	Add(bfd.Config) (bfd.ID, error)
	Update(bfd.ID, bfd.Config) error
	Remove(bfd.ID) error
	Sessions() ([]bfd.Info, error)
	Stats() (bfd.Stats, error)
}

const (
	// bfdLook is how often sessions are looked at while something waits for what brings
	// no event: AdminDown of a peer whose session is down already, or its silence.
	bfdLook = time.Second
	// bfdRetry is when a session is tried again that could not be started.
	bfdRetry = 10 * time.Second
	// bfdSilence is how long a peer whose BGP session is up again after a failure may say
	// nothing by BFD, until it counts as one that does not speak it any more: BGP then
	// says that the path works (RFC 5882 section 3.2).
	bfdSilence = 10 * time.Second
	// bfdSignaled is how long a peer's word that its session is down waits for the end of the
	// BGP session, which would say that the peer restarts. Silence does not wait.
	bfdSignaled = 100 * time.Millisecond
	// bfdEndAgain is when the end of a BGP session is asked for again.
	bfdEndAgain = 30 * time.Second
)

// liveness is what BFD tells of one address: a peer's, or that of a next hop that is none.
type liveness struct {
	bfdTarget
	name string // of the peer; "" for a next hop

	state, remote bfd.State
	everUp        bool
	since         time.Time // of state; zero: no event yet
	changes       uint64
	why           string // of the last time it left Up
	// failed: the path is dead, and carries no traffic, until BFD says otherwise.
	failed   bool
	failedAt time.Time
	end      bool      // the BGP session is to be ended for that
	endAsked time.Time // when it last was
	err      string    // why it does not run
}

// bfdTarget is a session as it is wanted.
type bfdTarget struct {
	addr, local netip.Addr
	multihop    bool
	cfg         config.BFDSession
}

// sameSession tells whether two targets differ in nothing but parameters.
func (t bfdTarget) sameSession(o bfdTarget) bool {
	t.cfg = o.cfg
	return t == o
}

// bfdWatch is the agent's part of BFD. Agent.mu guards it, but for process and poke.
type bfdWatch struct {
	process BFD           // nil: none
	poke    chan struct{} // wakes RunBFD; one slot, as Agent.poke

	all    map[netip.Addr]*liveness
	dead   map[netip.Addr]bool // next hops that failed; replaced, never changed
	stale  bool                // what is wanted may have changed
	reload uint64              // counts configurations: keys are read again with each
}

func newBFDWatch(process BFD) bfdWatch {
	return bfdWatch{process: process, poke: make(chan struct{}, 1), stale: true}
}

func (a *Agent) pokeBFD() {
	select {
	case a.bfd.poke <- struct{}{}:
	default:
	}
}

// planBFD works out which sessions there should be. It is called in the loop.
func (a *Agent) planBFD() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.bfd.stale {
		return
	}
	a.bfd.stale = false
	before := a.bfd.all
	a.bfd.all = make(map[netip.Addr]*liveness)
	want := func(name string, addr, local netip.Addr, cfg config.BFDSession) {
		l := before[addr]
		t := bfdTarget{addr: addr, local: local, cfg: cfg, multihop: severalHops(cfg.Mode, addr, a.host, a.resolver, l)}
		if l == nil || !l.sameSession(t) {
			l = &liveness{state: bfd.Down, remote: bfd.Down}
		}
		l.bfdTarget, l.name = t, name
		a.bfd.all[addr] = l
	}
	for _, p := range a.peers.list {
		if c := p.cfg; c.BFD.Enabled && !c.Shutdown && !p.disabled {
			want(c.Name, c.Address, c.LocalAddress, c.BFD.BFDSession)
		}
	}
	for _, addr := range a.cfg.FIB.BFDNextHops.Addresses {
		want("", addr, netip.Addr{}, a.cfg.FIB.BFDNextHops.BFDSession)
	}
	for addr, l := range before {
		if a.bfd.all[addr] != l {
			a.bfdLift(l)
		}
	}
	a.pokeBFD()
}

// severalHops decides a session's mode. Auto is single-hop on a connected subnet. While
// there is no route at all, a link being down say, it stays what it was.
func severalHops(mode config.BFDMode, addr netip.Addr, host *fib.Host, resolver *fib.Resolver, before *liveness) bool {
	if mode != config.BFDAuto {
		return mode == config.BFDMultihop
	}
	for _, a := range host.Addrs {
		if p := a.Prefix; p.Bits() < p.Addr().BitLen() && p.Contains(addr) {
			return false
		}
	}
	connected, known := resolver.Connected(addr)
	if !known && before != nil {
		return before.multihop
	}
	return !connected
}

// BFDEvent takes a change of a BFD session. It is what must be quick: traffic moves now,
// and the BGP session is ended afterwards (S24).
func (a *Agent) BFDEvent(e bfd.Event) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.bfd.all[e.Peer]
	if l == nil || l.multihop != e.Multihop || l.local != e.Local {
		return // of a session that is not wanted any more
	}
	l.state, l.remote, l.since = e.To, e.RemoteState, e.At
	l.changes++
	p := a.peers.byAddr[l.addr]
	switch {
	case e.To == bfd.Up:
		l.everUp = true
		a.bfdLift(l)
	case e.Failure() && e.Diag == bfd.DiagNeighborDown && p != nil && p.up:
		// The peer says so itself, which it also does when the rest of its control plane
		// restarts: the end of the BGP session is on its way then.
		l.why = diagnosis(e)
		changes := l.changes
		time.AfterFunc(bfdSignaled, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.bfd.all[l.addr] == l && l.changes == changes {
				a.bfdFailed(l, e, time.Now())
			}
			a.bfdTell(l, e)
		})
		return
	case e.Failure():
		l.why = diagnosis(e)
		a.bfdFailed(l, e, now)
	case e.RemoteState == bfd.AdminDown: // no failure (RFC 5882 section 3.2)
		l.why = "the peer took it down on purpose"
		a.bfdLift(l)
	}
	a.bfdTell(l, e)
}

// bfdTell has the loop and RunBFD look at what an event changed. mu is held.
func (a *Agent) bfdTell(l *liveness, e bfd.Event) {
	a.inbox.bfd = append(a.inbox.bfd, bfdNews{e, l.name, l.failed})
	a.inbox.stamp(time.Now())
	a.wake()
	a.pokeBFD()
}

// diagnosis says why a session failed: what we saw, or what the peer says it saw.
func diagnosis(e bfd.Event) string {
	if e.Diag == bfd.DiagNeighborDown && e.RemoteDiag != bfd.DiagNone {
		return fmt.Sprintf("%s (%s)", e.Diag, e.RemoteDiag)
	}
	return e.Diag.String()
}

// bfdFailed takes the traffic off an address. mu is held.
func (a *Agent) bfdFailed(l *liveness, e bfd.Event, now time.Time) {
	p := a.peers.byAddr[l.addr]
	if p != nil && !p.up && p.offered != fib.SourceDown && !e.ControlPlaneIndependent {
		// The peer restarts, and its BFD most likely went down with the rest of its
		// control plane: its stale paths stay (RFC 5882 section 4.3.2). With the C bit
		// it says that BFD would have lived on (section 4.3.1). While the BGP session is
		// up, a failure is one, restart promised or not (section 4.3.2.2).
		return
	}
	l.failed, l.failedAt = true, now
	a.bfdDeadChanged()
	if p == nil {
		a.inbox.lose("bfd "+l.addr.String(), now)
	} else {
		p.silenced = true
		offered := p.offered
		if p.up {
			offered = fib.SourceDown // until the next session, which is to come
			l.end = true
		}
		a.inbox.source(p, offered, "bfd", now)
	}
}

// bfdLift ends a failure. A peer's traffic is back when its session is. mu is held.
func (a *Agent) bfdLift(l *liveness) {
	if !l.failed {
		return
	}
	l.failed = false
	a.bfdDeadChanged()
	if p := a.peers.byAddr[l.addr]; p != nil {
		p.silenced = false
		if p.offered != fib.SourceDown {
			a.inbox.source(p, p.offered, "", time.Now())
		}
	}
	a.wake()
}

// bfdDeadChanged tells the loop which next hops are dead. mu is held.
func (a *Agent) bfdDeadChanged() {
	dead := make(map[netip.Addr]bool)
	for addr, l := range a.bfd.all {
		if l.failed {
			dead[addr] = true
		}
	}
	a.bfd.dead, a.inbox.dead = dead, true
}

// keeper is RunBFD's own state.
type keeper struct {
	a       *Agent
	running map[bfdTarget]bfdRunning // by target without parameters
	keys    map[string][]byte        // by file
	reload  uint64
	strict  map[netip.Addr]bool // peers that may be held down
}

type bfdRunning struct {
	id  bfd.ID
	cfg bfd.Config
}

// RunBFD keeps the BFD sessions as they are wanted, ends the BGP sessions of peers that
// failed, and holds those down that have to wait for BFD, until ctx ends. None of this is
// quick: calls of the speaker may wait for seconds. It is called once.
func (a *Agent) RunBFD(ctx context.Context) error {
	k := keeper{a: a, running: map[bfdTarget]bfdRunning{}, strict: map[netip.Addr]bool{}}
	for ctx.Err() == nil {
		wait := time.NewTimer(k.round(time.Now()))
		select {
		case <-ctx.Done():
		case <-a.bfd.poke:
		case <-wait.C:
		}
		wait.Stop()
	}
	return nil
}

// round does what is to be done, and returns when it has to be called again at the latest.
func (k *keeper) round(now time.Time) time.Duration {
	wait := k.keep()
	k.end(now)
	waiting := k.hold()
	k.a.mu.Lock()
	for _, l := range k.a.bfd.all {
		waiting = waiting || l.failed || l.end
	}
	k.a.mu.Unlock()
	if waiting {
		k.look(now)
		wait = bfdLook
	}
	return wait
}

// keep starts, changes and removes sessions.
func (k *keeper) keep() (wait time.Duration) {
	a := k.a
	a.mu.Lock()
	var targets []bfdTarget
	for _, l := range a.bfd.all {
		targets = append(targets, l.bfdTarget)
	}
	if k.reload != a.bfd.reload {
		k.reload, k.keys = a.bfd.reload, nil
	}
	a.mu.Unlock()

	wanted := make(map[bfdTarget]bool)
	for _, t := range targets {
		wanted[t.identity()] = true
	}
	for id, r := range k.running {
		if !wanted[id] {
			if err := a.bfd.process.Remove(r.id); err != nil {
				a.log.Debug("cannot remove a BFD session", "peer", id.addr, "err", err) // its worker has ended: so has the session
			}
			delete(k.running, id)
		}
	}
	wait = time.Hour
	for _, t := range targets {
		text := ""
		if err := k.keepOne(t); err != nil {
			text, wait = err.Error(), bfdRetry
		}
		a.mu.Lock()
		l, tell := a.bfd.all[t.addr], false
		if l != nil && l.bfdTarget == t {
			tell = text != "" && l.err != text
			l.err = text
		}
		a.mu.Unlock()
		if tell {
			a.log.Error("cannot run a BFD session, trying again", "peer", t.addr, "err", text, "pause", bfdRetry)
		}
	}
	return wait
}

// identity is the target without its parameters.
func (t bfdTarget) identity() bfdTarget {
	t.cfg = config.BFDSession{}
	return t
}

func (k *keeper) keepOne(t bfdTarget) error {
	cfg := bfd.Config{
		Peer: t.addr, Local: t.local, Multihop: t.multihop,
		Interval: t.cfg.Interval, Multiplier: t.cfg.Multiplier,
	}
	if t.multihop {
		cfg.MinTTL = t.cfg.MinTTL
	}
	if auth := t.cfg.Auth; auth.Type != "" {
		key, err := k.key(auth.KeyFile)
		if err != nil {
			return err
		}
		cfg.Auth = &bfd.Auth{Type: authTypes[auth.Type], KeyID: auth.KeyID, Key: key}
	}
	r, runs := k.running[t.identity()]
	if runs && sameBFD(r.cfg, cfg) {
		return nil
	}
	var err error
	if runs {
		err = k.a.bfd.process.Update(r.id, cfg)
	} else {
		r.id, err = k.a.bfd.process.Add(cfg)
	}
	if err != nil {
		return err
	}
	k.running[t.identity()] = bfdRunning{r.id, cfg}
	return nil
}

var authTypes = map[config.BFDAuthType]bfd.AuthType{
	config.BFDKeyedSHA1:      bfd.KeyedSHA1,
	config.BFDMeticulousSHA1: bfd.MeticulousSHA1,
}

func sameBFD(a, b bfd.Config) bool {
	x, y := a.Auth, b.Auth
	a.Auth, b.Auth = nil, nil
	if a != b || (x == nil) != (y == nil) {
		return false
	}
	return x == nil || x.Type == y.Type && x.KeyID == y.KeyID && string(x.Key) == string(y.Key)
}

// key reads a one-line secret, once per configuration. No error of it holds any of it.
func (k *keeper) key(file string) ([]byte, error) {
	if key, ok := k.keys[file]; ok {
		return key, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" || len(text) > maxBFDKey || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("the key file %s does not hold one line of 1 to %d bytes", file, maxBFDKey)
	}
	note(&k.keys, file, []byte(text))
	return k.keys[file], nil
}

// maxBFDKey is the most that RFC 5880 section 6.7.4 has room for.
const maxBFDKey = 20

// end ends the BGP sessions of peers that failed.
func (k *keeper) end(now time.Time) {
	a := k.a
	type job struct {
		addr netip.Addr
		why  string
	}
	var jobs []job
	a.mu.Lock()
	speaker := a.speaker
	for addr, l := range a.bfd.all {
		p := a.peers.byAddr[addr]
		switch {
		case !l.end:
		case p == nil || p.state != session.Established || p.since.After(l.failedAt):
			l.end, l.endAsked = false, time.Time{}
		case now.Sub(l.endAsked) > bfdEndAgain:
			l.endAsked = now
			jobs = append(jobs, job{addr, l.why})
		}
	}
	a.mu.Unlock()
	for _, j := range jobs {
		if err := speaker.BFDDown(j.addr, j.why); err != nil {
			a.log.Error("cannot end the session of a peer that BFD found dead, trying again", "peer", j.addr, "err", err, "pause", bfdEndAgain)
		}
	}
}

// hold keeps the BGP sessions down that have to wait for BFD; waiting tells whether any
// has to. A session that is up already is left alone.
func (k *keeper) hold() (waiting bool) {
	a := k.a
	holds := make(map[netip.Addr]bool)
	a.mu.Lock()
	speaker := a.speaker
	for _, p := range a.peers.list {
		addr := p.cfg.Address
		strict := p.cfg.BFD.Enabled && p.cfg.BFD.Strict
		if !strict && !k.strict[addr] {
			continue
		}
		k.strict[addr] = strict
		l := a.bfd.all[addr]
		passes := l == nil || l.state == bfd.Up || l.remote == bfd.AdminDown
		up := p.state == session.Established
		waiting = waiting || strict && l != nil && !up
		holds[addr] = strict && !passes && !up
	}
	maps.DeleteFunc(k.strict, func(addr netip.Addr, _ bool) bool { return a.peers.byAddr[addr] == nil })
	a.mu.Unlock()
	if speaker == nil {
		return waiting
	}
	for addr, on := range holds {
		// A peer that is unknown is about to be added, or was removed.
		if err := speaker.HoldDown(addr, on); err != nil {
			a.log.Debug("cannot hold a session down, or release it", "peer", addr, "hold", on, "err", err)
		}
	}
	return waiting
}

// look takes from the sessions what brings no event.
func (k *keeper) look(now time.Time) {
	a := k.a
	infos, err := a.bfd.process.Sessions()
	if err != nil {
		return // the worker is being started: nothing to see
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range infos {
		l := a.bfd.all[i.Config.Peer]
		if l == nil || l.multihop != i.Config.Multihop || l.state == bfd.Up || i.State == bfd.Up {
			continue
		}
		l.remote = i.RemoteState
		if !l.failed {
			continue
		}
		p := a.peers.byAddr[l.addr]
		switch {
		case l.remote == bfd.AdminDown:
			a.bfdLift(l)
		case p != nil && p.state == session.Established && p.since.After(l.failedAt) &&
			now.Sub(p.since) > bfdSilence && i.LastReceived.Before(p.since):
			a.log.Warn("peer is back without BFD, counting on BGP alone", "peer", l.addr, "name", l.name)
			a.bfdLift(l)
		}
	}
}

// bfdInfo is what the sessions say, by address, and what the worker says of itself.
func (a *Agent) bfdInfo() (map[netip.Addr]bfd.Info, bfd.Stats, error) {
	if a.bfd.process == nil {
		return nil, bfd.Stats{}, errors.New("this daemon runs without BFD")
	}
	stats, err := a.bfd.process.Stats()
	if err != nil {
		return nil, stats, err
	}
	infos, err := a.bfd.process.Sessions()
	by := make(map[netip.Addr]bfd.Info, len(infos))
	for _, i := range infos {
		by[i.Config.Peer] = i
	}
	return by, stats, err
}

// bfdSeen is a copy of what is known of all addresses.
func (a *Agent) bfdSeen() map[netip.Addr]liveness {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[netip.Addr]liveness, len(a.bfd.all))
	for addr, l := range a.bfd.all {
		out[addr] = *l
	}
	return out
}
