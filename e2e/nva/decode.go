package nva

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// errShort is the one thing that can be wrong with most fields.
var errShort = errors.New("shorter than its fields")

// cutter takes fields off the front of a buffer and remembers when it ran dry, so
// that a decoder checks once instead of at every field.
type cutter struct {
	b     []byte
	short bool
}

func (c *cutter) bytes(n int) []byte {
	if n > len(c.b) {
		c.short, c.b = true, nil
		return make([]byte, n)
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cutter) u8() uint8   { return c.bytes(1)[0] }
func (c *cutter) u16() uint16 { return binary.BigEndian.Uint16(c.bytes(2)) }
func (c *cutter) u32() uint32 { return binary.BigEndian.Uint32(c.bytes(4)) }
func (c *cutter) more() bool  { return !c.short && len(c.b) > 0 }

// ReadMessage reads one message into buf, which is grown when it is too small, and
// returns its type and its body; the body lives in the buffer.
func ReadMessage(r io.Reader, buf []byte) (typ uint8, body []byte, err error) {
	if len(buf) < MaxMessage {
		buf = make([]byte, MaxMessage)
	}
	if _, err := io.ReadFull(r, buf[:HeaderLen]); err != nil {
		return 0, nil, err
	}
	typ, n, err := DecodeHeader(buf[:HeaderLen])
	if err != nil {
		return 0, nil, err
	}
	body = buf[HeaderLen:n]
	_, err = io.ReadFull(r, body)
	return typ, body, err
}

// DecodeHeader checks a header and returns the message's type and its whole length.
func DecodeHeader(b []byte) (typ uint8, length int, err error) {
	if len(b) < HeaderLen {
		return 0, 0, fmt.Errorf("header: %w", errShort)
	}
	for _, m := range b[:16] {
		if m != 0xff {
			return 0, 0, fmt.Errorf("header: marker %x is not all ones", b[:16])
		}
	}
	length = int(binary.BigEndian.Uint16(b[16:]))
	if length < HeaderLen || length > MaxMessage {
		return 0, 0, fmt.Errorf("header: length %d", length)
	}
	return b[18], length, nil
}

// DecodeOpen reads the body of an OPEN.
func DecodeOpen(body []byte) (Open, error) {
	c := &cutter{b: body}
	o := Open{Version: c.u8(), AS: c.u16(), HoldTime: c.u16(), ID: netip.AddrFrom4([4]byte(c.bytes(4)))}
	params := &cutter{b: c.bytes(int(c.u8()))}
	if c.short {
		return Open{}, fmt.Errorf("open: %w", errShort)
	}
	if len(c.b) > 0 {
		return Open{}, fmt.Errorf("open: %d bytes after the parameters", len(c.b))
	}
	for params.more() {
		typ := params.u8()
		value := params.bytes(int(params.u8()))
		if typ != 2 { // Capabilities, RFC 5492
			continue
		}
		caps := &cutter{b: value}
		for caps.more() {
			code := caps.u8()
			v := caps.bytes(int(caps.u8()))
			if !caps.short {
				o.Caps = append(o.Caps, Capability{code, append([]byte(nil), v...)})
			}
		}
		if caps.short {
			return Open{}, fmt.Errorf("open: capability: %w", errShort)
		}
	}
	if params.short {
		return Open{}, fmt.Errorf("open: parameter: %w", errShort)
	}
	return o, nil
}

// DecodeNotification reads the body of a NOTIFICATION.
func DecodeNotification(body []byte) (Notification, error) {
	c := &cutter{b: body}
	n := Notification{Code: c.u8(), Subcode: c.u8()}
	if c.short {
		return Notification{}, fmt.Errorf("notification: %w", errShort)
	}
	n.Data = append([]byte(nil), c.b...)
	return n, nil
}

// DecodeUpdate reads the body of an UPDATE. fourOctet says how wide ASNs in AS_PATH
// are, which only the session knows (RFC 6793).
func DecodeUpdate(body []byte, fourOctet bool) (Update, error) {
	c := &cutter{b: body}
	withdrawn := c.bytes(int(c.u16()))
	attrs := c.bytes(int(c.u16()))
	if c.short {
		return Update{}, fmt.Errorf("update: %w", errShort)
	}
	var u Update
	var err error
	if u.Withdrawn, err = decodePrefixes(nil, withdrawn, IPv4); err != nil {
		return Update{}, fmt.Errorf("update: withdrawn routes: %w", err)
	}
	if u.Announced, err = decodePrefixes(nil, c.b, IPv4); err != nil {
		return Update{}, fmt.Errorf("update: NLRI: %w", err)
	}
	if len(body) == 4 {
		u.EndOfRIB = IPv4
	}
	a := &cutter{b: attrs}
	for a.more() {
		start := a.b
		flags, typ := a.u8(), a.u8()
		var n int
		if flags&FlagExtLen != 0 {
			n = int(a.u16())
		} else {
			n = int(a.u8())
		}
		value := a.bytes(n)
		if a.short {
			return Update{}, fmt.Errorf("update: attribute %d: %w", typ, errShort)
		}
		known, err := u.decodeAttr(typ, value, fourOctet)
		if err != nil {
			return Update{}, fmt.Errorf("update: attribute %d: %w", typ, err)
		}
		if !known {
			u.Attrs.Raw = append(u.Attrs.Raw, start[:len(start)-len(a.b)]...)
		}
		if typ == AttrMPUnreach && len(value) == 3 && len(attrs) == len(start)-len(a.b) && len(withdrawn)+len(c.b) == 0 {
			u.EndOfRIB = Family(binary.BigEndian.Uint16(value))
		}
	}
	return u, nil
}

// decodeAttr reads one attribute's value; known is false for one that is only kept.
func (u *Update) decodeAttr(typ uint8, value []byte, fourOctet bool) (known bool, err error) {
	c := &cutter{b: value}
	switch typ {
	case AttrOrigin:
		u.Attrs.Origin = Origin(c.u8())
	case AttrASPath:
		u.Attrs.ASPath = nil
		for c.more() {
			s := Segment{Type: c.u8()}
			for n := int(c.u8()); n > 0 && !c.short; n-- {
				if fourOctet {
					s.ASNs = append(s.ASNs, c.u32())
				} else {
					s.ASNs = append(s.ASNs, uint32(c.u16()))
				}
			}
			u.Attrs.ASPath = append(u.Attrs.ASPath, s)
		}
	case AttrNextHop:
		u.Attrs.NextHop = netip.AddrFrom4([4]byte(c.bytes(4)))
	case AttrMED:
		v := c.u32()
		u.Attrs.MED = &v
	case AttrLocalPref:
		v := c.u32()
		u.Attrs.LocalPref = &v
	case AttrCommunities:
		u.Attrs.Communities = nil
		for c.more() {
			u.Attrs.Communities = append(u.Attrs.Communities, Community(c.u32()))
		}
	case AttrLargeCommunities:
		u.Attrs.LargeCommunities = nil
		for c.more() {
			u.Attrs.LargeCommunities = append(u.Attrs.LargeCommunities, LargeCommunity{c.u32(), c.u32(), c.u32()})
		}
	case AttrMPReach:
		return true, u.decodeMPReach(c)
	case AttrMPUnreach:
		f, safi := Family(c.u16()), c.u8()
		if c.short || safi != 1 || (f != IPv4 && f != IPv6) {
			return true, fmt.Errorf("MP_UNREACH_NLRI of family %d/%d", f, safi)
		}
		u.Withdrawn, err = decodePrefixes(u.Withdrawn, c.b, f)
		return true, err
	default:
		return false, nil
	}
	if c.short {
		return true, errShort
	}
	return true, nil
}

func (u *Update) decodeMPReach(c *cutter) error {
	f, safi := Family(c.u16()), c.u8()
	if c.short || safi != 1 || (f != IPv4 && f != IPv6) {
		return fmt.Errorf("MP_REACH_NLRI of family %d/%d", f, safi)
	}
	nh := c.bytes(int(c.u8()))
	c.u8() // reserved
	if c.short {
		return errShort
	}
	// 32 bytes are a global and a link-local address (RFC 2545 section 3); the
	// link-local one says nothing that a test asks for.
	switch len(nh) {
	case 4, 16:
		u.Attrs.NextHop, _ = netip.AddrFromSlice(nh)
	case 32:
		u.Attrs.NextHop, _ = netip.AddrFromSlice(nh[:16])
	default:
		return fmt.Errorf("next hop of %d bytes", len(nh))
	}
	var err error
	u.Announced, err = decodePrefixes(u.Announced, c.b, f)
	return err
}

// decodePrefixes reads NLRI; bits beyond the length are dropped, as RFC 4271 section
// 4.3 calls them irrelevant.
func decodePrefixes(to []netip.Prefix, b []byte, f Family) ([]netip.Prefix, error) {
	c := &cutter{b: b}
	for c.more() {
		bits := int(c.u8())
		var addr [16]byte
		max := 128
		if f == IPv4 {
			max = 32
		}
		if bits > max {
			return to, fmt.Errorf("prefix of %d bits", bits)
		}
		copy(addr[:], c.bytes((bits+7)/8))
		a := netip.AddrFrom16(addr)
		if f == IPv4 {
			a = netip.AddrFrom4([4]byte(addr[:4]))
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return to, err
		}
		if !c.short {
			to = append(to, p)
		}
	}
	if c.short {
		return to, errShort
	}
	return to, nil
}
