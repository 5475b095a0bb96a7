package bfd

import (
	"encoding/binary"
	"errors"
	"time"
)

// Lengths on the wire (RFC 5880 sections 4.1 and 4.4).
const (
	version      = 1
	headerLen    = 24
	sha1Len      = 28 // the authentication section
	maxPacketLen = headerLen + sha1Len
)

// The bits of the second byte, below the state.
const (
	bitPoll       = 1 << 5
	bitFinal      = 1 << 4
	bitCPI        = 1 << 3
	bitAuth       = 1 << 2
	bitDemand     = 1 << 1
	bitMultipoint = 1 << 0
)

// packet is a BFD Control packet.
type packet struct {
	Diag       Diag
	State      State
	Poll       bool
	Final      bool
	CPI        bool // control plane independent, the C bit
	Demand     bool
	Multiplier uint8
	Mine       uint32 // My Discriminator
	Yours      uint32 // Your Discriminator
	// On the wire these are whole microseconds.
	DesiredMinTX      time.Duration
	RequiredMinRX     time.Duration
	RequiredMinEchoRX time.Duration
	Auth              authSection
}

// authSection is the authentication section of either SHA1 type; without one, Type is 0.
type authSection struct {
	Type     AuthType
	KeyID    uint8
	Reserved uint8 // ignored, but the digest covers it
	Sequence uint32
	Digest   [20]byte
}

// What makes parse refuse a packet. They are made once: a flood must not cost memory.
var (
	errShort         = errors.New("shorter than a BFD control packet")
	errVersion       = errors.New("version is not 1")
	errLength        = errors.New("length field does not fit the packet")
	errMultiplier    = errors.New("detect multiplier is 0")
	errMultipoint    = errors.New("multipoint bit is set")
	errPollFinal     = errors.New("poll and final bits are both set")
	errMine          = errors.New("my discriminator is 0")
	errYours         = errors.New("your discriminator is 0 in a state that needs one")
	errAuthLength    = errors.New("length of the authentication section is wrong")
	errAuthPassword  = errors.New("authentication by simple password is not supported: it shows the password to everybody on the path")
	errAuthMD5       = errors.New("authentication by MD5 is not supported: use SHA1")
	errAuthUnknown   = errors.New("authentication type is unknown")
	errAuthMissing   = errors.New("packet is not authenticated, and this session is configured to be")
	errAuthSurplus   = errors.New("packet is authenticated, and this session is not configured to be")
	errAuthKey       = errors.New("authentication type or key id is not the configured one")
	errAuthDigest    = errors.New("authentication digest does not match the key")
	errAuthSequence  = errors.New("authentication sequence number is outside the window")
	errTTL           = errors.New("hop count is under the minimum")
	errDiscriminator = errors.New("your discriminator is of no session with this peer")
	errInterface     = errors.New("arrived over another interface, or for another local address, than the session's")
)

// parse reads a packet and checks what RFC 5880 section 6.8.6 lets one check without
// knowing the session. Bytes behind the packet's own length are ignored.
func parse(b []byte) (packet, error) {
	if len(b) < headerLen {
		return packet{}, errShort
	}
	if b[0]>>5 != version {
		return packet{}, errVersion
	}
	length := int(b[3])
	if length < headerLen || length > len(b) {
		return packet{}, errLength
	}
	flags := b[1]
	p := packet{
		Diag:              Diag(b[0] & 0x1f),
		State:             State(flags >> 6),
		Poll:              flags&bitPoll != 0,
		Final:             flags&bitFinal != 0,
		CPI:               flags&bitCPI != 0,
		Demand:            flags&bitDemand != 0,
		Multiplier:        b[2],
		Mine:              binary.BigEndian.Uint32(b[4:]),
		Yours:             binary.BigEndian.Uint32(b[8:]),
		DesiredMinTX:      micros(b[12:]),
		RequiredMinRX:     micros(b[16:]),
		RequiredMinEchoRX: micros(b[20:]),
	}
	switch {
	case p.Multiplier == 0:
		return packet{}, errMultiplier
	case flags&bitMultipoint != 0:
		return packet{}, errMultipoint
	case p.Poll && p.Final: // never sent (section 6.5), and no answer to it would be right
		return packet{}, errPollFinal
	case p.Mine == 0:
		return packet{}, errMine
	case p.Yours == 0 && p.State != Down && p.State != AdminDown:
		return packet{}, errYours
	}
	if flags&bitAuth != 0 {
		var err error
		if p.Auth, err = parseAuth(b[headerLen:length]); err != nil {
			return packet{}, err
		}
	}
	return p, nil
}

func parseAuth(b []byte) (authSection, error) {
	if len(b) < 2 {
		return authSection{}, errAuthLength
	}
	switch t := b[0]; t {
	case 1:
		return authSection{}, errAuthPassword
	case 2, 3:
		return authSection{}, errAuthMD5
	case uint8(KeyedSHA1), uint8(MeticulousSHA1):
	default:
		return authSection{}, errAuthUnknown
	}
	// The digest covers the whole packet; bytes behind the section would be covered
	// by it and mean nothing.
	if len(b) != sha1Len || b[1] != sha1Len {
		return authSection{}, errAuthLength
	}
	a := authSection{Type: AuthType(b[0]), KeyID: b[2], Reserved: b[3], Sequence: binary.BigEndian.Uint32(b[4:])}
	copy(a.Digest[:], b[8:])
	return a, nil
}

// appendTo appends the packet as it goes on the wire. For every packet without surplus
// bytes it is parse's inverse, byte for byte, on which checking a digest relies.
func (p *packet) appendTo(b []byte) []byte {
	flags, length := uint8(p.State)<<6, uint8(headerLen)
	for _, f := range [...]struct {
		set bool
		bit uint8
	}{{p.Poll, bitPoll}, {p.Final, bitFinal}, {p.CPI, bitCPI}, {p.Demand, bitDemand}, {p.Auth.Type != 0, bitAuth}} {
		if f.set {
			flags |= f.bit
		}
	}
	if p.Auth.Type != 0 {
		length += sha1Len
	}
	b = append(b, version<<5|uint8(p.Diag)&0x1f, flags, p.Multiplier, length)
	b = binary.BigEndian.AppendUint32(b, p.Mine)
	b = binary.BigEndian.AppendUint32(b, p.Yours)
	b = binary.BigEndian.AppendUint32(b, uint32(p.DesiredMinTX/time.Microsecond))
	b = binary.BigEndian.AppendUint32(b, uint32(p.RequiredMinRX/time.Microsecond))
	b = binary.BigEndian.AppendUint32(b, uint32(p.RequiredMinEchoRX/time.Microsecond))
	if p.Auth.Type != 0 {
		b = append(b, uint8(p.Auth.Type), sha1Len, p.Auth.KeyID, p.Auth.Reserved)
		b = binary.BigEndian.AppendUint32(b, p.Auth.Sequence)
		b = append(b, p.Auth.Digest[:]...)
	}
	return b
}

func micros(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}
