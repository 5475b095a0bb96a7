package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Plan says what a reload would do: the difference of two configurations. Its zero
// value is the plan that changes nothing.
type Plan struct {
	// A peer is told by its address: a name that moved to another address is a peer
	// removed and one added.
	Added, Removed []Peer
	Changed        []PeerChange
	// Announced and Withdrawn are VNet prefixes.
	Announced, Withdrawn []netip.Prefix
	// BranchToBranch says that it changed; it is among Settings too.
	BranchToBranch bool
	// Settings are the other changes that take effect at once. They disturb no session.
	Settings []Change
	// NeedsRestart are the changed keys that keep their old values until a restart.
	NeedsRestart []string
}

// Change is a key whose value differs. From and To are for people.
type Change struct {
	Field    string
	From, To string
	effect   effect
}

func (c Change) String() string { return fmt.Sprintf("%s: %s -> %s", c.Field, c.From, c.To) }

// PeerChange is a peer that both configurations have, with different values.
type PeerChange struct {
	Old, New Peer
	Changes  []Change
	// Reset says that the changes take a new session: what the session is built on changed.
	Reset bool
}

// resets says whether a session is disturbed: a peer that was shut down has none.
func (c PeerChange) resets() bool { return c.Reset && !c.Old.Shutdown && !c.New.Shutdown }

// ends says whether a session is ended without a new one.
func (c PeerChange) ends() bool { return !c.Old.Shutdown && c.New.Shutdown }

// Compare tells what changes from before to after. Both are results of Load or Parse.
func Compare(before, after *Config) Plan {
	var p Plan
	for _, c := range diffKeys("", before, after, configKeys) {
		switch c.effect {
		case live:
			p.Settings = append(p.Settings, c)
		case restart:
			p.NeedsRestart = append(p.NeedsRestart, c.Field)
		case announce:
			p.Announced = without(after.VNet.Prefixes, before.VNet.Prefixes)
			p.Withdrawn = without(before.VNet.Prefixes, after.VNet.Prefixes)
		}
	}
	p.BranchToBranch = before.BranchToBranch != after.BranchToBranch

	known := make(map[netip.Addr]*Peer, len(before.Peers))
	for i := range before.Peers {
		known[before.Peers[i].Address] = &before.Peers[i]
	}
	for i := range after.Peers {
		peer := &after.Peers[i]
		old, ok := known[peer.Address]
		if !ok {
			p.Added = append(p.Added, *peer)
			continue
		}
		delete(known, peer.Address)
		changes := diffKeys("", old, peer, peerKeys)
		if old.Dynamic != peer.Dynamic {
			changes = append(changes, Change{"dynamic", show(old.Dynamic), show(peer.Dynamic), live})
		}
		if len(changes) > 0 {
			p.Changed = append(p.Changed, PeerChange{
				Old: *old, New: *peer, Changes: changes,
				Reset: slices.ContainsFunc(changes, func(c Change) bool { return c.effect == reset }),
			})
		}
	}
	for _, peer := range before.Peers {
		if _, gone := known[peer.Address]; gone {
			p.Removed = append(p.Removed, peer)
		}
	}
	return p
}

// Live is what is in force once the difference between two configurations is applied to a
// running daemon: after, but for the keys that take a restart, which stay as before.
func Live(before, after *Config) *Config {
	c := *after
	c.ASN, c.RouterID, c.Listen, c.Metrics, c.API = before.ASN, before.RouterID, before.Listen, before.Metrics, before.API
	c.FIB = before.FIB
	c.FIB.SweepAfter, c.FIB.SweepShare, c.FIB.Audit = after.FIB.SweepAfter, after.FIB.SweepShare, after.FIB.Audit
	c.FIB.BlastRadius = after.FIB.BlastRadius
	c.FIB.Probe, c.FIB.Persist, c.FIB.OnStop, c.FIB.BFDNextHops = after.FIB.Probe, after.FIB.Persist, after.FIB.OnStop, after.FIB.BFDNextHops
	c.Log.Format = before.Log.Format
	return &c
}

// diffKeys compares what the table of keys knows.
func diffKeys[S any](path string, before, after *S, keys []key[S]) []Change {
	var changes []Change
	for _, k := range keys {
		if k.diff != nil && k.effect != alias {
			changes = append(changes, k.diff(join(path, k.name), before, after)...)
		}
	}
	return changes
}

// without returns the members of a that b does not have.
func without(a, b []netip.Prefix) []netip.Prefix {
	var rest []netip.Prefix
	for _, p := range a {
		if !slices.Contains(b, p) {
			rest = append(rest, p)
		}
	}
	return rest
}

// Empty says that nothing changes.
func (p Plan) Empty() bool {
	return len(p.Added) == 0 && len(p.Removed) == 0 && len(p.Changed) == 0 &&
		len(p.Announced) == 0 && len(p.Withdrawn) == 0 && len(p.Settings) == 0 && len(p.NeedsRestart) == 0
}

// String lists the changes, a line each. The last line names the sessions that are
// reset; those that end for good are named in the line before.
func (p Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	var ended, resets []string
	if p.Empty() {
		line("no change")
	}
	for _, peer := range p.Removed {
		line("peer %s removed: %s, AS %d", peer.Name, peer.Address, peer.ASN)
		if !peer.Shutdown {
			ended = append(ended, peer.Name)
		}
	}
	for _, peer := range p.Added {
		line("peer %s added: %s, AS %d", peer.Name, peer.Address, peer.ASN)
	}
	for _, c := range p.Changed {
		for _, change := range c.Changes {
			line("peer %s: %s", c.New.Name, change)
		}
		if c.resets() {
			resets = append(resets, c.New.Name)
		}
		if c.ends() {
			ended = append(ended, c.New.Name)
		}
	}
	for _, prefix := range p.Withdrawn {
		line("vnet prefix withdrawn: %s", prefix)
	}
	for _, prefix := range p.Announced {
		line("vnet prefix announced: %s", prefix)
	}
	for _, change := range p.Settings {
		line("%s", change)
	}
	if len(p.NeedsRestart) > 0 {
		line("not until a restart: %s", strings.Join(p.NeedsRestart, ", "))
	}
	if len(ended) > 0 {
		line("sessions ended: %s", strings.Join(ended, ", "))
	}
	if len(resets) == 0 {
		resets = []string{"none"}
	}
	b.WriteString("sessions reset: " + strings.Join(resets, ", "))
	return b.String()
}
