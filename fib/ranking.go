package fib

import (
	"slices"
	"strings"
)

// Use says what becomes of a way to forward at present.
type Use uint8

// The uses of a way.
const (
	InUse   Use = iota + 1 // traffic takes it
	Standby                // it would take some, were the ones that do lost
	Dead                   // it leads nowhere
)

// The reasons for a dead way, besides those of a Resolution.
const (
	SourceLost = "peer-down"
	NoAnswer   = "neighbor-failed"
	RefusedLeg = "kernel-refused"
)

// Way is a way to forward, and how it fares.
type Way struct {
	Via
	Use Use
	Why string // it is dead: see the constants
}

// Ranking is what the prefixes of a group have in common.
type Ranking struct {
	Ways     []Way // in the order of the ranking; none: found in the kernel, and not confirmed by a peer yet
	Prefixes int   // that should be forwarded so
	Present  int   // routes in the kernel that are
}

// Rest sums up the groups that a list leaves out.
type Rest struct{ Groups, Prefixes, Present int }

// Rankings lists the groups that prefixes or routes have: first those without a way in
// use, then those with the most prefixes. Beyond most, they are only summed up.
func (t *Table) Rankings(most int) (all []Ranking, rest Rest) {
	var groups []*group
	for _, g := range t.groups {
		if g.users > 0 || g.routes > 0 {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b *group) int {
		if x, y := len(a.want) == 0, len(b.want) == 0; x != y {
			if x {
				return -1
			}
			return 1
		}
		if c := b.users + b.routes - a.users - a.routes; c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	for i, g := range groups {
		if i < most {
			all = append(all, Ranking{Ways: t.ways(g), Prefixes: g.users, Present: g.routes})
			continue
		}
		rest.Groups++
		rest.Prefixes += g.users
		rest.Present += g.routes
	}
	return all, rest
}

// Single counts the prefixes that a single source forwards: with it, they are lost.
func (t *Table) Single() int {
	n := 0
	alive := make(map[Via]bool) // many groups, few next hops
	for _, g := range t.groups {
		if g.users == 0 || len(g.want) == 0 {
			continue
		}
		if !slices.ContainsFunc(g.vias, func(v Via) bool {
			if v.Source == g.used[0].Source {
				return false
			}
			v.Tier = 0
			ok, known := alive[v]
			if !known {
				ok = t.dead(v) == ""
				alive[v] = ok
			}
			return ok
		}) {
			n += g.users
		}
	}
	return n
}

func (t *Table) ways(g *group) []Way {
	ways := make([]Way, len(g.vias))
	for i, v := range g.vias {
		ways[i] = Way{Via: v, Use: Standby}
		if slices.Contains(g.used, v) {
			ways[i].Use = InUse // perhaps for want of a better one
		} else if why := t.dead(v); why != "" {
			ways[i].Use, ways[i].Why = Dead, why
		}
	}
	return ways
}

// dead says why a way cannot be used; "": it can.
func (t *Table) dead(v Via) string {
	if t.State(v.Source) == SourceDown {
		return SourceLost
	}
	res := t.resolve(v.NextHop)
	why := string(res.Why)
	for _, l := range res.Legs {
		switch {
		case t.bad[l] != nil:
			why = RefusedLeg
		case t.avoid[l]:
			why = NoAnswer
		default:
			return ""
		}
	}
	return why
}
