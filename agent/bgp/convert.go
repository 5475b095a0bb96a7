package bgp

import (
	"encoding/binary"
	"net/netip"
	"weak"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/nexthopd/nexthopd/agent/rib"
)

// converter turns GoBGP's paths into ours. The paths of one UPDATE share their
// attributes, so those are converted once.
type converter struct {
	attrs   *interner
	last    []bgp.PathAttributeInterface
	lastHop netip.Addr
	lastOut *rib.Attrs
}

// change converts a path; ok is false for what is not IPv4 or IPv6 unicast.
func (c *converter) change(p *apiutil.Path) (ch rib.Change, ok bool) {
	nlri, ok := p.Nlri.(*bgp.IPAddrPrefix)
	if !ok || p.Family != bgp.RF_IPv4_UC && p.Family != bgp.RF_IPv6_UC {
		return rib.Change{}, false
	}
	ch.Prefix = nlri.Prefix.Masked()
	if !p.Withdrawal {
		ch.Attrs = c.convert(p.Attrs)
	}
	return ch, true
}

func (c *converter) convert(list []bgp.PathAttributeInterface) *rib.Attrs {
	hop := nextHop(list)
	if c.lastOut == nil || hop != c.lastHop || !sameAttributes(list, c.last) {
		c.lastOut = c.attrs.intern(attributes(list, hop))
		c.last, c.lastHop = list, hop
	}
	return c.lastOut
}

// sameAttributes tells whether two paths came in one UPDATE, by identity. MP_REACH_NLRI
// is made anew for each path (table.ProcessMessage) and gives only the next hop.
func sameAttributes(a, b []bgp.PathAttributeInterface) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && (a[i].GetType() != bgp.BGP_ATTR_TYPE_MP_REACH_NLRI || b[i].GetType() != bgp.BGP_ATTR_TYPE_MP_REACH_NLRI) {
			return false
		}
	}
	return true
}

// nextHop is the NEXT_HOP, or the global address of MP_REACH_NLRI (RFC 2545 section 3).
func nextHop(list []bgp.PathAttributeInterface) netip.Addr {
	for _, a := range list {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			return a.Value.Unmap().WithZone("")
		case *bgp.PathAttributeMpReachNLRI:
			return a.Nexthop.Unmap().WithZone("")
		}
	}
	return netip.Addr{}
}

func attributes(list []bgp.PathAttributeInterface, hop netip.Addr) *rib.Attrs {
	out := &rib.Attrs{NextHop: hop}
	for _, a := range list {
		switch a := a.(type) {
		case *bgp.PathAttributeOrigin:
			out.Origin = rib.Origin(a.Value)
		case *bgp.PathAttributeAsPath:
			out.ASPath = make(rib.ASPath, 0, len(a.Value))
			for _, segment := range a.Value {
				out.ASPath = append(out.ASPath, rib.Segment{Type: segment.GetType(), ASNs: segment.GetAS()})
			}
		case *bgp.PathAttributeMultiExitDisc:
			out.HasMED, out.MED = true, a.Value
		case *bgp.PathAttributeCommunities:
			out.Communities = a.Value
		case *bgp.PathAttributeLargeCommunities:
			for _, l := range a.Values {
				out.LargeCommunities = append(out.LargeCommunities, [3]uint32{l.ASN, l.LocalData1, l.LocalData2})
			}
		case *bgp.PathAttributeUnknown:
			// GoBGP passes it on as it is. RFC 9234 section 5: of another length, it is malformed.
			if a.Type == attrOTC && len(a.Value) == 4 {
				out.HasOTC, out.OTC = true, binary.BigEndian.Uint32(a.Value)
			}
		}
	}
	return out
}

// attrOTC is the type of the attribute Only to Customer (RFC 9234 section 5).
const attrOTC = 35

// interner gives equal attributes one address, as long as somebody holds them: the
// tables of two appliances that announce a million prefixes alike then hold a few
// thousand Attrs. It is for one goroutine.
type interner struct {
	known map[string]weak.Pointer[rib.Attrs]
	sweep int // size at which the dead are swept out
	key   []byte
}

// minSweep keeps a small table from being swept all the time.
const minSweep = 1024

func newInterner() *interner {
	return &interner{known: map[string]weak.Pointer[rib.Attrs]{}, sweep: minSweep}
}

func (i *interner) intern(a *rib.Attrs) *rib.Attrs {
	i.key = appendKey(i.key[:0], a)
	if known := i.known[string(i.key)].Value(); known != nil {
		return known
	}
	if len(i.known) >= i.sweep {
		for k, p := range i.known {
			if p.Value() == nil {
				delete(i.known, k)
			}
		}
		i.sweep = max(2*len(i.known), minSweep)
	}
	i.known[string(i.key)] = weak.Make(a)
	return a
}

// appendKey writes a so that different Attrs never get the same bytes.
func appendKey(b []byte, a *rib.Attrs) []byte {
	hop := a.NextHop.AsSlice()
	b = append(b, byte(len(hop)))
	b = append(b, hop...)
	b = append(b, byte(a.Origin))
	if a.HasMED {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint32(b, a.MED)
	} else {
		b = append(b, 0)
	}
	if a.HasOTC {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint32(b, a.OTC)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(a.ASPath)))
	for _, s := range a.ASPath {
		b = append(b, s.Type)
		b = appendUint32s(b, s.ASNs)
	}
	b = appendUint32s(b, a.Communities)
	for _, l := range a.LargeCommunities {
		b = appendUint32s(b, l[:])
	}
	return b
}

func appendUint32s(b []byte, list []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, v := range list {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
