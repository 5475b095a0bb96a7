// Package rib turns what the peers announced into what the host should do: the
// paths of a prefix in, the ranking of ways to forward and a reason for every path
// that is not used out. It is pure: no socket, clock, goroutine or logger.
package rib

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/nexthopd/nexthopd/fib"
)

// Origin is the ORIGIN attribute (RFC 4271 section 5.1.1). Lower is preferred.
type Origin uint8

// The values of ORIGIN on the wire.
const (
	OriginIGP Origin = iota
	OriginEGP
	OriginIncomplete
)

func (o Origin) String() string {
	switch o {
	case OriginIGP:
		return "igp"
	case OriginEGP:
		return "egp"
	case OriginIncomplete:
		return "incomplete"
	}
	return "origin-" + strconv.Itoa(int(o))
}

// Segment types of an AS_PATH (RFC 4271 section 4.3, RFC 5065 section 3).
const (
	ASSet       = 1
	ASSequence  = 2
	ASConfedSeq = 3
	ASConfedSet = 4
)

// Segment is one segment of an AS_PATH.
type Segment struct {
	Type uint8
	ASNs []uint32
}

// ASPath is an AS_PATH, leftmost (nearest) segment first.
type ASPath []Segment

// Len is the length that the decision compares: an AS_SET counts as one, a
// confederation segment as none (RFC 4271 section 9.1.2.2 a, RFC 5065 section 5.3).
func (p ASPath) Len() int {
	n := 0
	for _, s := range p {
		switch s.Type {
		case ASSequence:
			n += len(s.ASNs)
		case ASSet:
			n++
		}
	}
	return n
}

// Contains tells whether asn occurs anywhere in the path.
func (p ASPath) Contains(asn uint32) bool {
	for _, s := range p {
		for _, a := range s.ASNs {
			if a == asn {
				return true
			}
		}
	}
	return false
}

// Join writes the path with sep between the ASNs and AS_SETs in braces: "65001 65002"
// as routers print it, or "65001-65002" as the learned view does (S32).
func (p ASPath) Join(sep string) string {
	var b strings.Builder
	for i, s := range p {
		if i > 0 {
			b.WriteString(sep)
		}
		inner, open, end := sep, "", ""
		switch s.Type {
		case ASSet:
			inner, open, end = ",", "{", "}"
		case ASConfedSeq:
			inner, open, end = " ", "(", ")"
		case ASConfedSet:
			inner, open, end = ",", "[", "]"
		}
		b.WriteString(open)
		for j, a := range s.ASNs {
			if j > 0 {
				b.WriteString(inner)
			}
			b.WriteString(strconv.FormatUint(uint64(a), 10))
		}
		b.WriteString(end)
	}
	return b.String()
}

func (p ASPath) String() string { return p.Join(" ") }

// Attrs are the attributes of a path that we use or show. They are immutable and
// shared by all paths that were announced together.
type Attrs struct {
	NextHop          netip.Addr // unmapped, without zone
	ASPath           ASPath
	Origin           Origin
	HasMED           bool
	MED              uint32 // 0 where absent, the most preferred value
	LocalPref        uint32 // given by an import filter, never by a peer; 0: the usual 100
	Communities      []uint32
	LargeCommunities [][3]uint32
	HasOTC           bool
	OTC              uint32 // Only to Customer (RFC 9234): who said so
}

// localPref is LOCAL_PREF, by default what routers take for it.
func (a *Attrs) localPref() uint32 {
	if a.LocalPref == 0 {
		return 100
	}
	return a.LocalPref
}

// Path is one peer's announcement of a prefix.
type Path struct {
	Attrs *Attrs
	// Since is when the path last changed, in seconds since 1970.
	Since int64
	// seq is the path's place in the order of arrival. A path that changes keeps it.
	seq    uint64
	Source fib.Source
	// Stale: kept over the peer's graceful restart and not announced again yet.
	Stale bool
	// LongLived: stale, and for longer than a restart takes (RFC 9494): the last choice.
	LongLived bool
	// Over: beyond a prefix limit, and not used for that (see Table.SetLimit).
	Over Over
	// Damped: it flapped, and is held back for now (see Damping).
	Damped bool
}

// Change is one announcement (Attrs set) or withdrawal (Attrs nil) of a prefix.
type Change struct {
	Prefix netip.Prefix // masked
	Attrs  *Attrs
}
