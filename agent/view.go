package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib"
)

// Status sums the daemon up.
func (a *Agent) Status(ctx context.Context) (status.Status, error) {
	cfg := a.config()
	s := status.Status{
		Version: a.opts.Version, PID: os.Getpid(), StartedAt: a.started,
		ASN: cfg.ASN, RouterID: cfg.RouterID, Config: a.opts.ConfigFile, Degraded: []status.Problem{},
	}
	for _, l := range cfg.Listen {
		s.Listen = append(s.Listen, l.String())
	}
	var kept string
	if err := a.do(ctx, func() { s.FIB, kept = a.fibNow(), a.keptText() }); err != nil {
		return s, err
	}
	s.Ready, s.NotReady = a.Ready()
	if last := a.Failovers(ctx); len(last) > 0 {
		s.LastFailover = &last[0]
	}
	problem := func(next, format string, args ...any) {
		s.Degraded = append(s.Degraded, status.Problem{What: fmt.Sprintf(format, args...), Next: next})
	}
	a.ownDoing(problem)
	if kept != "" {
		problem("nexthopctl resume", "%s", kept)
	}
	if f := &s.FIB; f.Persisted > 0 && f.PersistUntil != nil {
		problem("nexthopctl peers", "all sessions are lost: %d path%s kept unconfirmed until %s (fib.persist)",
			f.Persisted, plural(f.Persisted, " is", "s are"), f.PersistUntil.Format(time.TimeOnly))
	}
	if len(cfg.Peers)+len(cfg.DynamicPeers) == 0 {
		problem("edit "+a.opts.ConfigFile+", then nexthopctl reload", "no peers are configured: nothing is learned and nothing installed")
	}
	for _, p := range a.Peers() {
		if p.Dynamic && p.State != string(session.Established) && !p.Restarting && !p.Shutdown {
			continue // it left, or is not who it should be: nobody counts on it
		}
		s.Peers.Configured++
		switch {
		case p.Shutdown:
			s.Peers.Shutdown++
			if p.Disabled {
				problem("nexthopctl peer "+p.Name+" enable", "peer %s (%s) is shut down by an operator", p.Name, p.Address)
			}
		case p.State == string(session.Established):
			s.Peers.Established++
			if p.Restarting {
				problem("nexthopctl learned "+p.Name, "peer %s (%s) is back from a restart and has not announced everything again: the rest is kept as stale", p.Name, p.Address)
			}
		case p.Restarting && p.LongLivedUntil != nil:
			problem("nexthopctl learned "+p.Name, "peer %s (%s) is away for longer than a restart takes: %d path%s kept as the last choice until %s (long-lived)",
				p.Name, p.Address, p.LongLivedStale, plural(p.LongLivedStale, " is", "s are"), p.LongLivedUntil.Format(time.DateTime))
		case p.Restarting:
			problem("nexthopctl learned "+p.Name, "peer %s (%s) is restarting: its routes are kept as stale", p.Name, p.Address)
		default:
			why := ""
			if p.LastDown != "" {
				why = ": " + p.LastDown
			}
			problem("nexthopctl peer "+p.Name, "peer %s (%s) is %s%s", p.Name, p.Address, p.State, why)
		}
		if p.Warning != "" {
			problem("nexthopctl peer "+p.Name, "peer %s (%s): %s", p.Name, p.Address, p.Warning)
		}
	}
	a.bfdProblems(problem)
	if n := s.FIB.Unanswered; n > 0 {
		problem("ip neigh show nud failed", "%d next hop%s not answer (ARP or ND): avoided while there are others", n, plural(n, " does", "s do"))
	}
	for _, r := range []rib.Reason{rib.ForeignRoute, rib.Refused, rib.Unreachable} {
		if n := s.FIB.Rejected[string(r)]; n > 0 {
			problem("nexthopctl learned -o wide", "%d prefix%s not installed: %s", n, plural(n, " is", "es are"), r)
		}
	}
	return s, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// fibNow is called in the loop, or before it runs.
func (a *Agent) fibNow() status.FIBStatus {
	c := a.table.Counts()
	f := status.FIBStatus{
		Mode: string(a.cfg.FIB.Mode), Table: a.cfg.FIB.Table, Metric: a.cfg.FIB.Metric, Protocol: a.cfg.FIB.Protocol,
		NextHopObjects: a.kernel.HasNextHopObjects(),
		Desired:        c.Desired, Installed: c.Present, Single: a.table.Single(), Groups: c.Groups, NextHops: c.NextHops,
		Rejected: make(map[string]int), Sweep: "done", At: time.Now(),
	}
	a.mu.Lock()
	f.Prefixes = a.rib.Len()
	f.Persisted, f.PersistUntil = a.persisted(), timeOrNil(a.persistence.until)
	if a.held != nil {
		f.Held = a.held.removes
	}
	a.mu.Unlock()
	f.Kept = a.keptNow()
	f.Held += f.Kept
	count := func(r rib.Reason, n int) {
		if n > 0 {
			f.Rejected[string(r)] += n
		}
	}
	for why, n := range a.rejected.counts {
		count(why, n)
	}
	count(rib.Unreachable, c.Unreachable)
	count(rib.ForeignRoute, c.Foreign)
	count(rib.Refused, c.Failed-c.Foreign)
	switch {
	case !a.install():
		f.Installed, f.Groups, f.NextHops = 0, 0, 0
		count(rib.ObserveMode, c.Desired)
	case a.table.Held():
		f.Sweep = "pending"
	}
	if !f.NextHopObjects {
		f.Groups = 0 // those in the table are a way to speak of routes
	}
	f.Unanswered = len(a.avoided)
	f.LastSync = timeOrNil(a.synced)
	a.fibSeen.Store(&f)
	return f
}

// FIB implements metrics.Source. Where the loop is busy for long, it answers what was
// true last.
func (a *Agent) FIB() status.FIBStatus {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var f status.FIBStatus
	if a.do(ctx, func() { f = a.fibNow() }) != nil {
		f = *a.fibSeen.Load()
	}
	return f
}

// Peers lists the configured peers and their sessions, in the order of the file.
func (a *Agent) Peers() []status.Peer {
	a.mu.Lock()
	speaker := a.speaker
	a.mu.Unlock()
	info := make(map[netip.Addr]session.PeerInfo)
	if speaker != nil {
		for _, i := range speaker.Peers() {
			info[i.Address] = i
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]status.Peer, 0, len(a.peers.list))
	for _, p := range a.peers.list {
		i := info[p.cfg.Address]
		received, refused := a.rib.Received(p.source), a.refused.counts[p.source]
		s := status.Peer{
			Name: p.cfg.Name, Dynamic: p.cfg.Dynamic, Description: p.cfg.Description, Address: p.cfg.Address, ASN: p.cfg.ASN,
			State: string(p.state), Shutdown: p.cfg.Shutdown || p.disabled, Disabled: p.disabled, Restarting: p.graceful && !p.kept,
			HoldTime: seconds(p.cfg.HoldTime), Keepalive: seconds(p.cfg.Keepalive), Flaps: i.Flaps,
			Received:         received.Total(),
			MessagesReceived: i.MessagesReceived, MessagesSent: i.MessagesSent, Faults: i.Faults,
			PeerCapabilities: i.PeerCapabilities, LastDown: i.LastDown.Text, Warning: i.Warning, BFD: a.bfdState(p.cfg.Address),
		}
		s.Refused = a.refused.of(p.source)
		if s.LongLivedStale = a.rib.LongLived(p.source); p.longLived {
			until := p.staleUntil
			s.LongLivedUntil = &until
		}
		s.OnlyToCustomers, s.RoleConfirmed = i.OnlyToCustomers, i.RoleConfirmed
		if p.cfg.Role != config.RoleNone {
			s.Role = string(p.cfg.Role)
		}
		// What was refused counts what was ranked so far.
		four, six := status.Prefixes{Received: received.IPv4, Accepted: max(received.IPv4-refused.IPv4, 0)},
			status.Prefixes{Received: received.IPv6, Accepted: max(received.IPv6-refused.IPv6, 0)}
		beyond, limit := a.rib.Waiting(p.source), p.cfg.PrefixLimit
		four.Limit, four.Beyond = limit.For(true), beyond.IPv4
		six.Limit, six.Beyond = limit.For(false), beyond.IPv6
		if s.Warning == "" {
			s.Warning = a.limitWarning(p)
		}
		if i.Advertised != nil || p.state != session.Established {
			n4, n6 := i.Advertised[session.IPv4], i.Advertised[session.IPv6]
			four.Advertised, six.Advertised = &n4, &n6
			s.Advertised = n4 + n6
		}
		s.Accepted = four.Accepted + six.Accepted
		s.Families = map[string]status.Prefixes{session.IPv4.String(): four, session.IPv6.String(): six}
		if i.HoldTime > 0 || i.State == session.Established {
			s.HoldTime, s.Keepalive = seconds(i.HoldTime), seconds(i.Keepalive)
		}
		s.Since, s.LastDownAt = timeOrNil(p.since), timeOrNil(i.LastDownAt)
		if p.local.IsValid() {
			local, id := p.local, p.remoteID
			s.LocalAddress, s.RemoteID = &local, &id
		}
		out = append(out, s)
	}
	return out
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// protocolName is the name that iproute2 gives a route's protocol, or its number.
func protocolName(p uint8) string {
	switch p {
	case 1:
		return "redirect"
	case 2:
		return "kernel"
	case 3:
		return "boot"
	case 4:
		return "static"
	case 9:
		return "ra"
	case 12:
		return "bird"
	case 16:
		return "dhcp"
	case 165:
		return "nexthopd"
	case 186:
		return "bgp"
	}
	return fmt.Sprint(p)
}

// legText writes a leg as ip(8) does.
func legText(l fib.Leg, links map[int]fib.Link) string {
	if l == fib.Blackhole {
		return l.String()
	}
	dev := fmt.Sprintf("if%d", l.IfIndex)
	if link, ok := links[l.IfIndex]; ok {
		dev = link.Name
	}
	if !l.Gateway.IsValid() {
		return "dev " + dev
	}
	return "via " + l.Gateway.String() + " dev " + dev
}
