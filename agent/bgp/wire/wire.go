// Package wire judges what a peer sends on an established session, octet by octet,
// before GoBGP parses it. It stands between the socket and GoBGP (Conn) and reacts as
// RFC 7606 says: a broken UPDATE becomes the withdrawal that it must be treated as, an
// attribute that is to be discarded is cut out, and what calls for a reset ends the
// session with the NOTIFICATION that the RFC names. What passes is well-formed, of the
// families that were negotiated, and without attributes that nobody here uses.
//
// It decides about form only. What an announcement means, and whether it is wanted, is
// for others to say. The exception is the attribute Only to Customer (RFC 9234), which
// GoBGP does not know: it is added and acted upon here, in both directions. It imports
// nothing of GoBGP.
package wire

import (
	"encoding/binary"
	"fmt"
)

// Session is what the two sides agreed upon.
type Session struct {
	IPv4, IPv6      bool // families
	TwoByteAS       bool // the peer lacks 4-octet AS numbers (RFC 6793)
	ExtendedNextHop bool // IPv6 next hops for IPv4 prefixes (RFC 8950)
	ExtendedMessage bool // RFC 8654
	Relation        Relation
}

// Reaction is what a fault leads to, the weakest first.
type Reaction uint8

// The reactions. Ignore leaves out what belongs to a family that was not negotiated.
const (
	None Reaction = iota
	Ignore
	Discard
	Withdraw
	Reset
)

// Reactions are all that a Fault can have, weakest first.
var Reactions = [...]Reaction{Ignore, Discard, Withdraw, Reset}

func (r Reaction) String() string {
	return [...]string{"none", "ignored", "attribute-discard", "treat-as-withdraw", "session-reset"}[r]
}

// Fault is the worst that was wrong with a message.
type Fault struct {
	Reaction Reaction
	// Code, Subcode and Data are of the NOTIFICATION, where Reaction is Reset.
	Code, Subcode uint8
	Data          []byte
	Text          string
	Withdrawn     int // prefixes treated as withdrawn
}

// worse keeps the stronger fault (RFC 7606 section 3, h); the first of equals.
func (f *Fault) worse(g Fault) {
	if g.Reaction > f.Reaction {
		*f = g
	}
}

// Message types, and the lengths that they may have.
const (
	headerLen = 19

	typeOpen         = 1
	typeUpdate       = 2
	typeNotification = 3
	typeKeepalive    = 4
	typeRefresh      = 5

	maxLen         = 4096
	maxExtendedLen = 65535
)

// Codes of NOTIFICATIONs (RFC 4271 section 4.5, RFC 6608).
const (
	codeHeader = 1
	codeUpdate = 3
	codeFSM    = 5

	notSynchronized = 1
	badLength       = 2
	badType         = 3

	malformedList         = 1
	unrecognizedWellKnown = 2
	missingWellKnown      = 3
	flagsError            = 4
	lengthError           = 5
	invalidOrigin         = 6
	invalidNextHop        = 8
	optionalError         = 9
	invalidNetwork        = 10
	malformedASPath       = 11

	unexpectedInEstablished = 3
)

// header checks a header of 19 octets and returns the length of the body.
func (s Session) header(h []byte) (body int, f Fault) {
	for _, b := range h[:16] {
		if b != 0xff {
			return 0, reset(codeHeader, notSynchronized, nil, "the marker is not all ones")
		}
	}
	n := int(binary.BigEndian.Uint16(h[16:]))
	least, most := 0, maxExtendedLen
	switch h[18] {
	case typeOpen:
		// Nothing of it is looked at: there is no OPEN in Established (RFC 6608).
		return 0, reset(codeFSM, unexpectedInEstablished, nil, "an OPEN on an established session")
	case typeUpdate:
		least = 23
	case typeNotification:
		least = 21
	case typeKeepalive:
		least, most = headerLen, headerLen
	case typeRefresh:
		least, most = 23, 23
	default:
		return 0, reset(codeHeader, badType, h[18:19], fmt.Sprintf("message type %d", h[18]))
	}
	if n < least || n > min(most, s.limit()) {
		return 0, reset(codeHeader, badLength, h[16:18], fmt.Sprintf("a message of type %d and length %d", h[18], n))
	}
	return n - headerLen, Fault{}
}

func reset(code, subcode uint8, data []byte, text string) Fault {
	return Fault{Reaction: Reset, Code: code, Subcode: subcode, Data: append([]byte(nil), data...), Text: text}
}

func withdraw(subcode uint8, text string) Fault {
	return Fault{Reaction: Withdraw, Code: codeUpdate, Subcode: subcode, Text: text}
}

// appendHeader starts a message, whose length finish fills in.
func appendHeader(b []byte, typ byte) []byte {
	for range 16 {
		b = append(b, 0xff)
	}
	return append(b, 0, 0, typ)
}

func finish(b []byte, start int) []byte {
	binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	return b
}

func appendKeepalive(b []byte) []byte {
	return finish(appendHeader(b, typeKeepalive), len(b))
}
