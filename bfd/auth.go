package bfd

import (
	"crypto/sha1"
	"crypto/subtle"
	"fmt"
)

// AuthType is a way to authenticate packets, with its number on the wire (RFC 5880
// section 4.1).
type AuthType uint8

// The types that RFC 5880 section 6.7 requires. Simple password and both MD5 types are
// refused: the first protects nothing, and every implementation that has MD5 must have
// SHA1.
const (
	KeyedSHA1      AuthType = 4
	MeticulousSHA1 AuthType = 5 // each packet has another sequence number: no replay at all
)

// String is the RFC's name in lower case.
func (t AuthType) String() string {
	switch t {
	case KeyedSHA1:
		return "keyed SHA1"
	case MeticulousSHA1:
		return "meticulous keyed SHA1"
	}
	return fmt.Sprintf("authentication type %d", uint8(t))
}

// Auth is how a session authenticates, in both directions. It never prints its key.
type Auth struct {
	Type  AuthType
	KeyID uint8
	Key   []byte `json:"-"` // 1 to 20 bytes
}

// String names type and key id.
func (a Auth) String() string { return fmt.Sprintf("%s, key id %d", a.Type, a.KeyID) }

// GoString is String, for %#v must not show the key either.
func (a Auth) GoString() string { return a.String() }

func (a *Auth) check() error {
	switch {
	case a.Type != KeyedSHA1 && a.Type != MeticulousSHA1:
		return fmt.Errorf("%s is not supported, only %s and %s are", a.Type, KeyedSHA1, MeticulousSHA1)
	case len(a.Key) < 1 || len(a.Key) > sha1.Size:
		return fmt.Errorf("authentication key has %d bytes, not 1 to %d", len(a.Key), sha1.Size)
	}
	return nil
}

// digest computes p's digest: over the packet with the key, padded with zeros, in the
// place of the digest (RFC 5880 section 6.7.4).
func digest(p *packet, key []byte) [sha1.Size]byte {
	keyed := *p
	keyed.Auth.Digest = [sha1.Size]byte{}
	copy(keyed.Auth.Digest[:], key)
	var buf [maxPacketLen]byte
	return sha1.Sum(keyed.appendTo(buf[:0]))
}

// verify says what is wrong with p's authentication, the sequence number apart.
func (a *Auth) verify(p *packet) error {
	switch {
	case a == nil && p.Auth.Type == 0:
		return nil
	case a == nil:
		return errAuthSurplus
	case p.Auth.Type == 0:
		return errAuthMissing
	case p.Auth.Type != a.Type || p.Auth.KeyID != a.KeyID:
		return errAuthKey
	}
	want := digest(p, a.Key)
	if subtle.ConstantTimeCompare(want[:], p.Auth.Digest[:]) != 1 {
		return errAuthDigest
	}
	return nil
}

// inWindow tells whether a sequence number may follow the last one: from it (the next,
// when meticulous) to three detection times' worth of packets further on, circularly
// (RFC 5880 section 6.7.4).
func inWindow(t AuthType, last, seq uint32, multiplier uint8) bool {
	ahead := seq - last
	return ahead <= 3*uint32(multiplier) && (ahead > 0 || t != MeticulousSHA1)
}
