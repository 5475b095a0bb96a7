package nva

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Message types, RFC 4271 section 4.1 and RFC 2918.
const (
	TypeOpen         = 1
	TypeUpdate       = 2
	TypeNotification = 3
	TypeKeepalive    = 4
	TypeRouteRefresh = 5
)

// Sizes of RFC 4271 section 4.1: a message never exceeds MaxMessage, its header included.
const (
	HeaderLen  = 19
	MaxMessage = 4096
)

// ASTrans stands for an ASN that does not fit in two bytes (RFC 6793).
const ASTrans = 23456

// Path attribute types.
const (
	AttrOrigin           = 1
	AttrASPath           = 2
	AttrNextHop          = 3
	AttrMED              = 4
	AttrLocalPref        = 5
	AttrCommunities      = 8
	AttrMPReach          = 14
	AttrMPUnreach        = 15
	AttrLargeCommunities = 32
)

// Path attribute flags, RFC 4271 section 4.3.
const (
	FlagOptional   = 0x80
	FlagTransitive = 0x40
	FlagExtLen     = 0x10
)

// Origin is the value of the ORIGIN attribute.
type Origin uint8

// The values of ORIGIN.
const (
	IGP Origin = iota
	EGP
	Incomplete
)

func (o Origin) String() string {
	switch o {
	case IGP:
		return "IGP"
	case EGP:
		return "EGP"
	case Incomplete:
		return "incomplete"
	}
	return "origin(" + strconv.Itoa(int(o)) + ")"
}

// Family is an address family; the sub-family is always unicast.
type Family uint16

// The address family numbers of IANA.
const (
	IPv4 Family = 1
	IPv6 Family = 2
)

// FamilyOf tells the family a prefix belongs to.
func FamilyOf(p netip.Prefix) Family {
	if p.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// Capability codes.
const (
	CapMultiprotocol   = 1
	CapRouteRefresh    = 2
	CapGracefulRestart = 64
	CapFourOctetAS     = 65
)

// Capability is one capability of an OPEN, its value uninterpreted (RFC 5492).
type Capability struct {
	Code  uint8
	Value []byte
}

// Multiprotocol is the capability of RFC 4760 for unicast of a family.
func Multiprotocol(f Family) Capability {
	return Capability{CapMultiprotocol, []byte{byte(f >> 8), byte(f), 0, 1}}
}

// RouteRefresh is the capability of RFC 2918.
func RouteRefresh() Capability { return Capability{Code: CapRouteRefresh} }

// FourOctetAS is the capability of RFC 6793.
func FourOctetAS(asn uint32) Capability {
	return Capability{CapFourOctetAS, binary.BigEndian.AppendUint32(nil, asn)}
}

// GracefulRestart says what the capability of RFC 4724 carries.
type GracefulRestart struct {
	Restarting bool   // the R bit: this speaker has restarted
	Time       uint16 // seconds, 12 bits
	Forwarding bool   // the F bit of each family: forwarding state was preserved
	Families   []Family
}

// Capability encodes g.
func (g GracefulRestart) Capability() Capability {
	word := g.Time & 0x0fff
	if g.Restarting {
		word |= 0x8000
	}
	v := binary.BigEndian.AppendUint16(nil, word)
	for _, f := range g.Families {
		var flags byte
		if g.Forwarding {
			flags = 0x80
		}
		v = append(v, byte(f>>8), byte(f), 1, flags)
	}
	return Capability{CapGracefulRestart, v}
}

// Open is an OPEN message.
type Open struct {
	Version  uint8
	AS       uint16 // My Autonomous System, ASTrans for a large one
	HoldTime uint16
	ID       netip.Addr // BGP identifier, IPv4
	Caps     []Capability
}

// ASN is the peer's real ASN: that of the 4-octet capability, where there is one.
func (o Open) ASN() (asn uint32, fourOctet bool) {
	for _, c := range o.Caps {
		if c.Code == CapFourOctetAS && len(c.Value) == 4 {
			return binary.BigEndian.Uint32(c.Value), true
		}
	}
	return uint32(o.AS), false
}

// Has tells whether a capability with that code is among o's.
func (o Open) Has(code uint8) bool {
	for _, c := range o.Caps {
		if c.Code == code {
			return true
		}
	}
	return false
}

// Segment types of an AS_PATH.
const (
	ASSet      = 1
	ASSequence = 2
)

// Segment is one segment of an AS_PATH.
type Segment struct {
	Type uint8
	ASNs []uint32
}

// Seq is an AS_PATH of one AS_SEQUENCE.
func Seq(asns ...uint32) []Segment {
	if len(asns) == 0 {
		return nil
	}
	return []Segment{{ASSequence, asns}}
}

// Prepended is an AS_PATH that holds asn once and times more.
func Prepended(asn uint32, times int) []Segment {
	asns := make([]uint32, times+1)
	for i := range asns {
		asns[i] = asn
	}
	return Seq(asns...)
}

// PathString writes an AS_PATH as routers print it; sets are in braces.
func PathString(path []Segment) string {
	var words []string
	for _, s := range path {
		var as []string
		for _, a := range s.ASNs {
			as = append(as, strconv.FormatUint(uint64(a), 10))
		}
		if s.Type == ASSequence {
			words = append(words, as...)
		} else {
			words = append(words, "{"+strings.Join(as, ",")+"}")
		}
	}
	return strings.Join(words, " ")
}

// Community is a community of RFC 1997, written 65515:1.
type Community uint32

func (c Community) String() string { return fmt.Sprintf("%d:%d", c>>16, c&0xffff) }

// LargeCommunity is a community of RFC 8092.
type LargeCommunity [3]uint32

// Attrs are the path attributes of an announcement.
type Attrs struct {
	Origin           Origin
	ASPath           []Segment
	NextHop          netip.Addr
	MED              *uint32
	LocalPref        *uint32
	Communities      []Community
	LargeCommunities []LargeCommunity
	// Raw is appended as it is when encoding; decoding puts attributes in it that it
	// does not know, whole.
	Raw []byte
}

// Update is a decoded UPDATE, both families together.
type Update struct {
	Withdrawn []netip.Prefix
	Announced []netip.Prefix
	Attrs     Attrs
	// EndOfRIB is the family that an End-of-RIB marker closes (RFC 4724 section 2), else 0.
	EndOfRIB Family
}

// Notification is a NOTIFICATION message.
type Notification struct {
	Code, Subcode uint8
	Data          []byte
}

func (n Notification) Error() string {
	return fmt.Sprintf("notification %d/%d (data %x)", n.Code, n.Subcode, n.Data)
}

// AppendMessage frames body as a message of that type.
func AppendMessage(b []byte, typ uint8, body []byte) []byte {
	for range 16 {
		b = append(b, 0xff)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(HeaderLen+len(body)))
	b = append(b, typ)
	return append(b, body...)
}

// Keepalive is a KEEPALIVE message.
func Keepalive() []byte { return AppendMessage(nil, TypeKeepalive, nil) }

// Encode makes the message.
func (n Notification) Encode() []byte {
	return AppendMessage(nil, TypeNotification, append([]byte{n.Code, n.Subcode}, n.Data...))
}

// RefreshRequest is a ROUTE-REFRESH message for a family.
func RefreshRequest(f Family) []byte {
	return AppendMessage(nil, TypeRouteRefresh, []byte{byte(f >> 8), byte(f), 0, 1})
}

// Encode makes the message, with one Capabilities parameter per capability as most
// implementations do.
func (o Open) Encode() []byte {
	var params []byte
	for _, c := range o.Caps {
		params = append(params, 2, byte(2+len(c.Value)), c.Code, byte(len(c.Value)))
		params = append(params, c.Value...)
	}
	body := []byte{o.Version}
	body = binary.BigEndian.AppendUint16(body, o.AS)
	body = binary.BigEndian.AppendUint16(body, o.HoldTime)
	id := o.ID.As4()
	body = append(body, id[:]...)
	body = append(body, byte(len(params)))
	return AppendMessage(nil, TypeOpen, append(body, params...))
}

// AppendAttr appends one path attribute; the extended length bit is set when needed.
func AppendAttr(b []byte, flags, typ uint8, value []byte) []byte {
	if len(value) > 255 {
		b = append(b, flags|FlagExtLen, typ)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	} else {
		b = append(b, flags, typ, byte(len(value)))
	}
	return append(b, value...)
}

// AppendPrefix appends p in NLRI form (RFC 4271 section 4.3).
func AppendPrefix(b []byte, p netip.Prefix) []byte {
	b = append(b, byte(p.Bits()))
	n := (p.Bits() + 7) / 8
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(b, a[:n]...)
	}
	a := p.Addr().As16()
	return append(b, a[:n]...)
}

// encodePath writes an AS_PATH with ASNs of four or, towards an old speaker, two bytes.
func encodePath(path []Segment, fourOctet bool) []byte {
	var b []byte
	for _, s := range path {
		b = append(b, s.Type, byte(len(s.ASNs)))
		for _, a := range s.ASNs {
			switch {
			case fourOctet:
				b = binary.BigEndian.AppendUint32(b, a)
			case a > 0xffff:
				b = binary.BigEndian.AppendUint16(b, ASTrans)
			default:
				b = binary.BigEndian.AppendUint16(b, uint16(a))
			}
		}
	}
	return b
}

// append appends the attributes in order of their type, but for NEXT_HOP and
// MP_REACH_NLRI: their presence depends on the family of the NLRI.
func (a Attrs) append(b []byte, nextHop []byte, fourOctet bool) []byte {
	b = AppendAttr(b, FlagTransitive, AttrOrigin, []byte{byte(a.Origin)})
	b = AppendAttr(b, FlagTransitive, AttrASPath, encodePath(a.ASPath, fourOctet))
	if nextHop != nil {
		b = AppendAttr(b, FlagTransitive, AttrNextHop, nextHop)
	}
	if a.MED != nil {
		b = AppendAttr(b, FlagOptional, AttrMED, binary.BigEndian.AppendUint32(nil, *a.MED))
	}
	if a.LocalPref != nil {
		b = AppendAttr(b, FlagTransitive, AttrLocalPref, binary.BigEndian.AppendUint32(nil, *a.LocalPref))
	}
	if len(a.Communities) > 0 {
		var v []byte
		for _, c := range a.Communities {
			v = binary.BigEndian.AppendUint32(v, uint32(c))
		}
		b = AppendAttr(b, FlagOptional|FlagTransitive, AttrCommunities, v)
	}
	if len(a.LargeCommunities) > 0 {
		var v []byte
		for _, c := range a.LargeCommunities {
			for _, part := range c {
				v = binary.BigEndian.AppendUint32(v, part)
			}
		}
		b = AppendAttr(b, FlagOptional|FlagTransitive, AttrLargeCommunities, v)
	}
	return append(b, a.Raw...)
}

// UpdateMessage frames the three variable parts of an UPDATE as they are: whatever
// bytes a test wants to send.
func UpdateMessage(withdrawn, attrs, nlri []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	body = append(body, withdrawn...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(attrs)))
	body = append(body, attrs...)
	return AppendMessage(nil, TypeUpdate, append(body, nlri...))
}

// EndOfRIB is the End-of-RIB marker of a family (RFC 4724 section 2).
func EndOfRIB(f Family) []byte {
	if f == IPv4 {
		return UpdateMessage(nil, nil, nil)
	}
	return UpdateMessage(nil, AppendAttr(nil, FlagOptional, AttrMPUnreach, []byte{byte(f >> 8), byte(f), 1}), nil)
}

// mpReach is the value of MP_REACH_NLRI (RFC 4760 section 3).
func mpReach(nextHop netip.Addr, nlri []byte) []byte {
	nh := nextHop.AsSlice()
	v := []byte{0, byte(IPv6), 1, byte(len(nh))}
	v = append(v, nh...)
	v = append(v, 0)
	return append(v, nlri...)
}

// EncodeAnnounce makes the UPDATEs that announce prefixes, all of one family, with
// the same attributes; as many prefixes go in a message as fit.
func EncodeAnnounce(prefixes []netip.Prefix, a Attrs, fourOctet bool) []byte {
	if len(prefixes) == 0 {
		return nil
	}
	if FamilyOf(prefixes[0]) == IPv4 {
		attrs := a.append(nil, a.NextHop.AsSlice(), fourOctet)
		return pack(prefixes, MaxMessage-HeaderLen-4-len(attrs), func(nlri []byte) []byte {
			return UpdateMessage(nil, attrs, nlri)
		})
	}
	// MP_REACH_NLRI goes first (RFC 7606 section 5.1). 4 bytes of attribute header and
	// 21 bytes up to its NLRI.
	attrs := a.append(nil, nil, fourOctet)
	return pack(prefixes, MaxMessage-HeaderLen-4-len(attrs)-4-21, func(nlri []byte) []byte {
		b := AppendAttr(nil, FlagOptional, AttrMPReach, mpReach(a.NextHop, nlri))
		return UpdateMessage(nil, append(b, attrs...), nil)
	})
}

// EncodeWithdraw makes the UPDATEs that withdraw prefixes, all of one family.
func EncodeWithdraw(prefixes []netip.Prefix) []byte {
	if len(prefixes) == 0 {
		return nil
	}
	if FamilyOf(prefixes[0]) == IPv4 {
		return pack(prefixes, MaxMessage-HeaderLen-4, func(nlri []byte) []byte {
			return UpdateMessage(nlri, nil, nil)
		})
	}
	return pack(prefixes, MaxMessage-HeaderLen-4-4-3, func(nlri []byte) []byte {
		v := append([]byte{0, byte(IPv6), 1}, nlri...)
		return UpdateMessage(nil, AppendAttr(nil, FlagOptional, AttrMPUnreach, v), nil)
	})
}

// pack cuts the prefixes into runs of at most room bytes and frames each.
func pack(prefixes []netip.Prefix, room int, frame func(nlri []byte) []byte) []byte {
	var out []byte
	nlri := make([]byte, 0, MaxMessage)
	for _, p := range prefixes {
		if len(nlri) > 0 && len(nlri)+1+(p.Bits()+7)/8 > room {
			out = append(out, frame(nlri)...)
			nlri = nlri[:0]
		}
		nlri = AppendPrefix(nlri, p)
	}
	return append(out, frame(nlri)...)
}
