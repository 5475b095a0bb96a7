package wire

import (
	"encoding/binary"
	"fmt"
)

// Flags and types of path attributes.
const (
	flagOptional   = 0x80
	flagTransitive = 0x40
	flagPartial    = 0x20
	flagExtended   = 0x10

	wellKnown          = flagTransitive
	optional           = flagOptional
	optionalTransitive = flagOptional | flagTransitive

	attrOrigin          = 1
	attrASPath          = 2
	attrNextHop         = 3
	attrMED             = 4
	attrLocalPref       = 5
	attrAtomicAggregate = 6
	attrAggregator      = 7
	attrCommunities     = 8
	attrOriginatorID    = 9
	attrClusterList     = 10
	attrReach           = 14
	attrUnreach         = 15
	attrExtended        = 16
	attrAS4Path         = 17
	attrAS4Aggregator   = 18
	attrPMSITunnel      = 22
	attrTunnelEncap     = 23
	attrExtendedIPv6    = 25
	attrAIGP            = 26
	attrLinkState       = 29
	attrLarge           = 32
	attrOTC             = 35
	attrPrefixSID       = 40
)

// attribute is one path attribute where it stands.
type attribute struct {
	flags, typ byte
	raw, value []byte
}

// next cuts the first attribute off. It fails where the attribute overruns what is left,
// or where not even its header fits (RFC 7606 section 4).
func next(b []byte) (a attribute, rest []byte, ok bool) {
	if len(b) < 3 {
		return a, nil, false
	}
	a.flags, a.typ = b[0], b[1]
	n, head := int(b[2]), 3
	if a.flags&flagExtended != 0 {
		if len(b) < 4 {
			return a, nil, false
		}
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	}
	if head+n > len(b) {
		return a, nil, false
	}
	a.raw, a.value = b[:head+n], b[head:head+n]
	return a, b[head+n:], true
}

// rule is what the RFCs say about one type of attribute. Of a type without a rule
// nothing is known but its flags.
type rule struct {
	flags byte
	// drop: to be left out without a word, whatever it holds: what an external peer may
	// not send (RFC 7606 sections 7.5, 7.9 and 7.10), and what belongs to applications
	// that are not spoken here.
	drop bool
	// valid judges the value; nil: any is.
	valid func(s Session, v []byte) bool
	// else this happens
	reaction Reaction
	subcode  uint8
}

var rules = map[byte]rule{
	attrOrigin:          {flags: wellKnown, valid: validOrigin, reaction: Withdraw, subcode: invalidOrigin},           // 7.1
	attrASPath:          {flags: wellKnown, valid: validASPath, reaction: Withdraw, subcode: malformedASPath},         // 7.2
	attrNextHop:         {flags: wellKnown, valid: validNextHop, reaction: Withdraw, subcode: invalidNextHop},         // 7.3
	attrMED:             {flags: optional, valid: length(4), reaction: Withdraw, subcode: lengthError},                // 7.4
	attrLocalPref:       {flags: wellKnown, drop: true},                                                               // 7.5
	attrAtomicAggregate: {flags: wellKnown, valid: length(0), reaction: Discard, subcode: lengthError},                // 7.6
	attrAggregator:      {flags: optionalTransitive, valid: validAggregator, reaction: Discard, subcode: lengthError}, // 7.7
	attrCommunities:     {flags: optionalTransitive, valid: multiple(4), reaction: Withdraw, subcode: lengthError},    // 7.8
	attrOriginatorID:    {flags: optional, drop: true},                                                                // 7.9
	attrClusterList:     {flags: optional, drop: true},                                                                // 7.10
	attrReach:           {flags: optional},
	attrUnreach:         {flags: optional},
	attrExtended:        {flags: optionalTransitive, valid: multiple(8), reaction: Withdraw, subcode: lengthError},       // 7.14
	attrAS4Path:         {flags: optionalTransitive, valid: validAS4Path, reaction: Discard, subcode: malformedASPath},   // RFC 6793 section 6
	attrAS4Aggregator:   {flags: optionalTransitive, valid: validAS4Aggregator, reaction: Discard, subcode: lengthError}, // RFC 6793 section 6
	attrPMSITunnel:      {flags: optionalTransitive, drop: true},
	attrTunnelEncap:     {flags: optionalTransitive, drop: true},                                                    // RFC 9012 section 11: filtered at the AS's border
	attrExtendedIPv6:    {flags: optionalTransitive, valid: multiple(20), reaction: Withdraw, subcode: lengthError}, // 7.15
	attrAIGP:            {flags: optional, drop: true},                                                              // RFC 7311 section 3.1
	attrLinkState:       {flags: optional, drop: true},
	attrLarge:           {flags: optionalTransitive, valid: multiple(12), reaction: Withdraw, subcode: lengthError}, // RFC 8092 section 6
	attrOTC:             {flags: optionalTransitive, valid: length(4), reaction: Withdraw, subcode: lengthError},    // RFC 9234 section 5
	attrPrefixSID:       {flags: optionalTransitive, drop: true},                                                    // RFC 8669 section 5: not from outside the domain
}

// check judges an attribute other than MP_REACH_NLRI and MP_UNREACH_NLRI. It returns the
// flags to go on with, and keep where the attribute stays.
func (s Session) check(a attribute) (flags byte, keep bool, f Fault) {
	r, known := rules[a.typ]
	switch {
	case !known && a.flags&flagOptional == 0:
		return 0, false, reset(codeUpdate, unrecognizedWellKnown, a.raw, fmt.Sprintf("well-known attribute %d is not known", a.typ))
	case !known && a.flags&flagTransitive == 0:
		return 0, false, Fault{} // RFC 4271 section 5: quietly ignored
	case !known:
		return a.flags&^0x0f | flagPartial, true, Fault{} // RFC 4271 section 5
	case r.drop:
		return 0, false, Fault{}
	case !s.TwoByteAS && (a.typ == attrAS4Path || a.typ == attrAS4Aggregator):
		return 0, false, Fault{} // RFC 6793 section 4.1
	case a.flags&(flagOptional|flagTransitive) != r.flags:
		return 0, false, wrongFlags(a)
	case r.valid != nil && !r.valid(s, a.value):
		text := fmt.Sprintf("malformed %s attribute", name(a.typ))
		return 0, false, Fault{Reaction: r.reaction, Code: codeUpdate, Subcode: r.subcode, Text: text}
	}
	return normal(a.flags, r.flags), true, Fault{}
}

func wrongFlags(a attribute) Fault {
	return withdraw(flagsError, fmt.Sprintf("%s attribute with flags %#02x", name(a.typ), a.flags&0xf0))
}

// normal clears what is to be ignored: the unused bits, and the Partial bit where it has
// no meaning (RFC 7606 section 3, c, speaks of the other two only).
func normal(flags, want byte) byte {
	flags &= 0xf0
	if want != optionalTransitive {
		flags &^= flagPartial
	}
	return flags
}

func length(n int) func(Session, []byte) bool {
	return func(_ Session, v []byte) bool { return len(v) == n }
}

func multiple(n int) func(Session, []byte) bool {
	return func(_ Session, v []byte) bool { return len(v) > 0 && len(v)%n == 0 }
}

func validOrigin(_ Session, v []byte) bool { return len(v) == 1 && v[0] <= 2 }

// validNextHop asks for a host's address (RFC 4271 section 6.3). Loopback is left to
// those who know what the session runs over.
func validNextHop(_ Session, v []byte) bool { return len(v) == 4 && v[0] != 0 && v[0] < 224 }

// AS 0 is malformed (RFC 7607 section 2). In AS_PATH it is left to those who show what is
// refused: for them it is a withdrawal, too.
func validAggregator(s Session, v []byte) bool {
	if s.TwoByteAS {
		return len(v) == 6 && binary.BigEndian.Uint16(v) != 0
	}
	return validAS4Aggregator(s, v)
}

func validAS4Aggregator(_ Session, v []byte) bool {
	return len(v) == 8 && binary.BigEndian.Uint32(v) != 0
}

// Types of segments; those of a confederation are malformed outside of one (RFC 5065
// section 5).
const (
	segmentSet      = 1
	segmentSequence = 2
)

func validASPath(s Session, v []byte) bool {
	size := 4
	if s.TwoByteAS {
		size = 2
	}
	return validSegments(v, size)
}

func validAS4Path(_ Session, v []byte) bool { return len(v) > 0 && validSegments(v, 4) }

func validSegments(v []byte, size int) bool {
	for len(v) > 0 {
		if len(v) < 2 || v[0] != segmentSet && v[0] != segmentSequence || v[1] == 0 {
			return false
		}
		n := 2 + int(v[1])*size
		if n > len(v) {
			return false
		}
		v = v[n:]
	}
	return true
}

var names = map[byte]string{
	attrOrigin: "ORIGIN", attrASPath: "AS_PATH", attrNextHop: "NEXT_HOP", attrMED: "MULTI_EXIT_DISC",
	attrAtomicAggregate: "ATOMIC_AGGREGATE", attrAggregator: "AGGREGATOR", attrCommunities: "COMMUNITIES",
	attrReach: "MP_REACH_NLRI", attrUnreach: "MP_UNREACH_NLRI", attrExtended: "EXTENDED_COMMUNITIES",
	attrAS4Path: "AS4_PATH", attrAS4Aggregator: "AS4_AGGREGATOR", attrExtendedIPv6: "IPv6 extended communities",
	attrLarge: "LARGE_COMMUNITY", attrOTC: "OTC",
}

func name(typ byte) string {
	if n := names[typ]; n != "" {
		return n
	}
	return fmt.Sprint(typ)
}
