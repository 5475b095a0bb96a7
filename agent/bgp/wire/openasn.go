package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

// Of an OPEN (RFC 4271 section 4.2).
const (
	openVersion      = 4
	openFixed        = 10 // up to the length of the optional parameters
	openCapabilities = 2  // the optional parameter that holds capabilities (RFC 5492)
	openExtended     = 255
	capFourOctetASN  = 65

	codeOpen  = 2
	badPeerAS = 2
)

var errNoOpen = errors.New("what came is no OPEN")

// ReadOpenASN reads the first message of a connection, and returns the AS number in it, if
// it is an OPEN. It reads no more than that message, and at most 4096 octets.
func ReadOpenASN(r io.Reader) (uint32, error) {
	h := make([]byte, headerLen)
	if _, err := io.ReadFull(r, h); err != nil {
		return 0, err
	}
	for _, b := range h[:16] {
		if b != 0xff {
			return 0, errNoOpen
		}
	}
	n := int(binary.BigEndian.Uint16(h[16:]))
	if h[18] != typeOpen || n < headerLen+openFixed || n > maxLen {
		return 0, errNoOpen
	}
	body := make([]byte, n-headerLen)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, err
	}
	return openASN(body)
}

// openASN is the AS number in the body of an OPEN: that of the capability of RFC 6793,
// where there is one.
func openASN(b []byte) (uint32, error) {
	if len(b) < openFixed || b[0] != openVersion {
		return 0, errNoOpen
	}
	asn := uint32(binary.BigEndian.Uint16(b[1:]))
	params, lengthLen := b[openFixed:], 1
	if len(params) >= 3 && params[0] == openExtended { // RFC 9072
		params, lengthLen = params[3:], 2
	}
	for len(params) > 0 {
		typ, value, rest, ok := cutTLV(params, lengthLen)
		if !ok {
			return 0, errNoOpen
		}
		params = rest
		for typ == openCapabilities && len(value) > 0 {
			code, c, rest, ok := cutTLV(value, 1)
			if !ok {
				return 0, errNoOpen
			}
			if value = rest; code == capFourOctetASN && len(c) == 4 {
				asn = binary.BigEndian.Uint32(c)
			}
		}
	}
	return asn, nil
}

// cutTLV takes the first type, length and value off.
func cutTLV(b []byte, lengthLen int) (typ byte, value, rest []byte, ok bool) {
	if len(b) < 1+lengthLen {
		return 0, nil, nil, false
	}
	n := int(b[1])
	if lengthLen == 2 {
		n = int(binary.BigEndian.Uint16(b[1:]))
	}
	typ, b = b[0], b[1+lengthLen:]
	if len(b) < n {
		return 0, nil, nil, false
	}
	return typ, b[:n], b[n:], true
}

// BadPeerAS is the NOTIFICATION for an OPEN whose AS number is not wanted.
func BadPeerAS() []byte {
	return finish(append(appendHeader(nil, typeNotification), codeOpen, badPeerAS), 0)
}
