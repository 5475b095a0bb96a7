package wire

import "net/netip"

// prefixes walks over NLRI and tells whether they are syntactically correct (RFC 7606
// section 5.3). each may be nil; raw is the prefix as it was encoded.
func prefixes(nlri []byte, six bool, each func(p netip.Prefix, raw []byte)) (n int, ok bool) {
	most := 32
	if six {
		most = 128
	}
	for len(nlri) > 0 {
		bits := int(nlri[0])
		size := 1 + (bits+7)/8
		if bits > most || size > len(nlri) {
			return n, false
		}
		if each != nil {
			var a [16]byte
			copy(a[:], nlri[1:size])
			addr := netip.AddrFrom16(a)
			if !six {
				addr = netip.AddrFrom4([4]byte(a[:4]))
			}
			p, _ := addr.Prefix(bits) // masks: bits beyond the length mean nothing
			each(p, nlri[:size])
		}
		n++
		nlri = nlri[size:]
	}
	return n, true
}

// subtract returns the withdrawn prefixes without those that the same UPDATE announces:
// it is to be treated as if it did not withdraw them (RFC 4271 section 4.3). GoBGP
// withdraws last.
func subtract(withdrawn, announced []byte, six bool) []byte {
	if len(withdrawn) == 0 || len(announced) == 0 {
		return withdrawn
	}
	known := map[netip.Prefix]struct{}{}
	prefixes(announced, six, func(p netip.Prefix, _ []byte) { known[p] = struct{}{} })
	var rest []byte
	prefixes(withdrawn, six, func(p netip.Prefix, raw []byte) {
		if _, ok := known[p]; !ok {
			rest = append(rest, raw...)
		}
	})
	return rest
}
