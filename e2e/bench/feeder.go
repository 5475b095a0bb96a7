package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// redial is how long an appliance waits between two attempts to connect.
const redial = 20 * time.Millisecond

// appliance is the BGP side of an NVA. It sends UPDATEs that were encoded before, and
// drops what it receives, so that the daemon has the machine to itself.
type appliance struct {
	node *lab.Node
	opts nva.Options

	mu       sync.Mutex
	changed  chan struct{} // closed and renewed when session or held change
	table    []byte        // what a new session begins with
	held     bool          // no new session
	session  *nva.Session  // nil while there is none
	sessions int           // so far
}

func newAppliance(n *network, i int) *appliance {
	return &appliance{
		node: n.nva[i], changed: make(chan struct{}),
		opts: nva.Options{
			Transport: nva.Transport{Local: nvaAddr(i), Remote: netip.AddrPortFrom(hostAddr(i), 179)},
			ASN:       nvaASN, ID: nvaAddr(i), Hold: 180 * time.Second,
			Families: []nva.Family{nva.IPv4}, IgnoreUpdates: true,
		},
	}
}

// announcement encodes the table as NVA i announces it, its ASN so many times more.
func announcement(i int, table []netip.Prefix, prepend int) []byte {
	return nva.EncodeAnnounce(table, nva.Attrs{ASPath: nva.Prepended(nvaASN, prepend), NextHop: nvaAddr(i)}, true)
}

// run keeps a session up, unless held, until ctx ends.
func (a *appliance) run(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		held, changed := a.held, a.changed
		a.mu.Unlock()
		if held {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		session, err := a.dial(ctx)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(redial):
			}
			continue
		}
		a.serve(ctx, session)
	}
}

func (a *appliance) dial(ctx context.Context) (*nva.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var conn *net.TCPConn
	err := a.node.Do(func() (err error) {
		conn, err = nva.Connect(ctx, a.opts.Transport)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nva.Handshake(ctx, conn, a.opts)
}

// serve sends the table and waits for the session's end.
func (a *appliance) serve(ctx context.Context, session *nva.Session) {
	defer session.Close()
	a.mu.Lock()
	if a.held {
		a.mu.Unlock()
		return
	}
	if a.table != nil {
		_ = session.Write(a.table) // when it fails, Done tells
		_ = session.EndOfRIB(nva.IPv4)
	}
	a.session = session
	a.sessions++
	a.notify()
	a.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-session.Done():
	}
	a.mu.Lock()
	a.session = nil
	a.notify()
	a.mu.Unlock()
}

// notify wakes who waits for a change. mu is held.
func (a *appliance) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// waitUp waits until there is a session.
func (a *appliance) waitUp(ctx context.Context) error {
	for {
		a.mu.Lock()
		up, changed := a.session != nil, a.changed
		a.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("wait for the BGP session"), ctx.Err())
		case <-changed:
		}
	}
}

var errNoSession = errors.New("no BGP session")

// announce sends UPDATEs, with End-of-RIB where eor, and begins new sessions with them.
// It returns when the kernel has taken them.
func (a *appliance) announce(updates []byte, eor bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table = updates
	if a.session == nil {
		return errNoSession
	}
	if err := a.session.Write(updates); err != nil || !eor {
		return err
	}
	return a.session.EndOfRIB(nva.IPv4)
}

// withdraw takes the table back.
func (a *appliance) withdraw(table []netip.Prefix) error {
	updates := nva.EncodeWithdraw(table)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table = nil
	if a.session == nil {
		return errNoSession
	}
	return a.session.Write(updates)
}

// reset ends the session with a RST and holds the appliance down.
func (a *appliance) reset() error {
	a.mu.Lock()
	session := a.session
	a.held = true
	a.notify()
	a.mu.Unlock()
	if session == nil {
		return errNoSession
	}
	session.Reset()
	return nil
}

// release lets the appliance connect again.
func (a *appliance) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = false
	a.notify()
}

// nudge sends a KEEPALIVE, by which a side finds out that the other has ended the session.
func (a *appliance) nudge() {
	a.mu.Lock()
	session := a.session
	a.mu.Unlock()
	if session != nil {
		_ = session.Write(nva.Keepalive()) // the session's end shows in Done
	}
}

// both calls f for both appliances at the same time.
func both(a [nvas]*appliance, f func(i int, a *appliance) error) error {
	var wg sync.WaitGroup
	var errs [nvas]error
	for i := range a {
		wg.Go(func() { errs[i] = f(i, a[i]) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}
