package agent

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/nexthopd/nexthopd/agent/journal"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/bfd"
)

// bfdNews is a BFD event on its way to the journal.
type bfdNews struct {
	bfd.Event
	name   string
	failed bool // and the traffic was moved
}

// bfdChanged tells of a session that came up or left Up. It is called in the loop.
func (a *Agent) bfdChanged(e bfdNews) {
	attrs := []slog.Attr{slog.String("peer", e.Peer.String())}
	if e.name != "" {
		attrs = append(attrs, slog.String("name", e.name))
	}
	a.mu.Lock()
	p := a.peers.byAddr[e.Peer]
	a.mu.Unlock()
	fields := map[string]string{"address": e.Peer.String(), "state": e.To.String(), "previous": e.From.String(), "remote": e.RemoteState.String()}
	switch {
	case e.To == bfd.Up:
		a.journal(journal.BFDUp, attrs...)
		a.event("bfd", p, netip.Prefix{}, "BFD is up", fields)
		return
	case e.From != bfd.Up:
		return
	}
	why := diagnosis(e.Event)
	fields["reason"] = why
	if e.Diag == bfd.DiagTimeExpired {
		a.metrics.BFDDetection(e.DetectedIn)
	}
	a.journal(journal.BFDDown, append(attrs, slog.String("reason", why), slog.String("remote", e.RemoteState.String()),
		slog.Bool("failed", e.failed), slog.Int64("milliseconds", e.DetectedIn.Milliseconds()))...)
	a.event("bfd", p, netip.Prefix{}, "BFD is down: "+why, fields)
}

// BFD lists the sessions, by address.
func (a *Agent) BFD() status.BFD {
	seen := a.bfdSeen()
	out := status.BFD{Sessions: []status.BFDSession{}}
	if len(seen) == 0 {
		return out
	}
	infos, stats, err := a.bfdInfo()
	if err != nil {
		out.Engine.Error = err.Error()
	} else {
		out.Engine = bfdEngine(stats)
	}
	for addr, l := range seen {
		s := status.BFDSession{
			Peer: l.name, Address: addr, Mode: "single-hop", State: l.state.String(), RemoteState: l.remote.String(),
			Failed: l.failed, LastDown: l.why, Since: timeOrNil(l.since), Changes: l.changes, Error: l.err,
			Interval: l.cfg.Interval.Seconds(), Multiplier: int(l.cfg.Multiplier), Auth: string(l.cfg.Auth.Type),
		}
		if l.multihop {
			s.Mode = "multihop"
		}
		if i, ok := infos[addr]; ok {
			bfdDetails(&s, &i)
		}
		out.Sessions = append(out.Sessions, s)
	}
	slices.SortFunc(out.Sessions, func(x, y status.BFDSession) int {
		return cmp.Or(cmp.Compare(x.Peer, y.Peer), x.Address.Compare(y.Address))
	})
	return out
}

func bfdDetails(s *status.BFDSession, i *bfd.Info) {
	s.RemoteState = i.RemoteState.String()
	s.TXInterval, s.RXInterval, s.DetectionTime = i.TXInterval.Seconds(), i.RXInterval.Seconds(), i.DetectionTime.Seconds()
	s.RemoteMultiplier, s.Polling = int(i.RemoteMultiplier), i.Polling
	s.LocalDiscriminator, s.RemoteDiscriminator = i.LocalDiscriminator, i.RemoteDiscriminator
	s.Sent, s.Received, s.SendErrors = i.Sent, i.Received, i.SendErrors
	s.Dropped, s.LastDrop, s.LastDropAt = drops(i.Dropped), i.LastDrop, timeOrNil(i.LastDropAt)
	s.Jitter, s.MaxGap, s.MaxLate = i.Jitter.Seconds(), i.MaxGap.Seconds(), i.MaxLate.Seconds()
	s.ControlPlaneIndependent = i.ControlPlaneIndependent
	if s.Error == "" {
		s.Error = i.SocketError
	}
}

func bfdEngine(stats bfd.Stats) status.BFDEngine {
	return status.BFDEngine{
		Running: true, Scheduling: stats.Scheduling, Received: stats.Received, Dropped: drops(stats.Dropped),
		KernelDrops: stats.KernelDrops, MaxLate: stats.MaxLate.Seconds(),
	}
}

func drops(m map[bfd.Drop]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for why, n := range m {
		out[why.String()] = n
	}
	return out
}

// bfdProblems adds what is wrong with BFD to the list of problems.
func (a *Agent) bfdProblems(problem func(next, format string, args ...any)) {
	seen := a.bfdSeen()
	addrs := make([]netip.Addr, 0, len(seen))
	for addr := range seen {
		addrs = append(addrs, addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, addr := range addrs {
		l := seen[addr]
		who := "next hop " + addr.String()
		up, left := true, false
		a.mu.Lock()
		if p := a.peers.byAddr[addr]; p != nil {
			who = fmt.Sprintf("peer %s (%s)", l.name, addr)
			up = p.state == session.Established
			left = p.cfg.Dynamic && !up
		}
		a.mu.Unlock()
		switch {
		case left:
		case l.err != "":
			problem("nexthopctl bfd -o wide", "BFD with %s does not run: %s", who, l.err)
		case l.failed:
			problem("nexthopctl bfd", "BFD with %s is down: %s; it gets no traffic until BFD is up again", who, l.why)
		case l.state == bfd.Up:
		case l.remote == bfd.AdminDown:
			problem("nexthopctl bfd", "BFD with %s is shut down by the other side, which is no failure: only BGP watches it", who)
		case l.everUp:
			problem("nexthopctl bfd", "BFD with %s is down: %s", who, l.why)
		case up && time.Since(a.started) > bfdSilence:
			problem("nexthopctl bfd", "BFD with %s was never up: is it configured there, in the same mode, and does the packet filter pass it?", who)
		}
	}
}

// bfdState is a peer's BFD in a word; "": not watched. mu is held.
func (a *Agent) bfdState(addr netip.Addr) string {
	if l := a.bfd.all[addr]; l != nil {
		return l.state.String()
	}
	return ""
}

// bfdVerdicts says of the paths that BFD keeps out of use that it was BFD. mu is held.
func (a *Agent) bfdVerdicts(j *judgement) {
	for i := range j.verdicts {
		v := &j.verdicts[i]
		addr := v.Path.Attrs.NextHop
		switch p := a.peers.bySource[v.Path.Source]; {
		case v.Reason == rib.PeerDown && p.silenced:
			addr = p.cfg.Address
			v.Detail = "BFD says that the path to its peer is dead"
		case v.Reason == rib.Unreachable && a.resolver.IsDead(addr):
			v.Detail = fmt.Sprintf("BFD says that the path to next hop %s is dead", addr)
		default:
			continue
		}
		if l := a.bfd.all[addr]; l != nil {
			v.Detail += ": " + l.why
		}
	}
}
