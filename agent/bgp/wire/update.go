package wire

import (
	"encoding/binary"
	"fmt"
)

// reach is what MP_REACH_NLRI or MP_UNREACH_NLRI holds.
type reach struct {
	present bool
	six     bool
	hop     []byte
	nlri    []byte
	n       int // prefixes
}

// update is an UPDATE on its way through the checks.
type update struct {
	withdrawn, nlri []byte
	announced       int // prefixes in nlri
	attrs           []attribute
	seen            [256]bool
	reach, unreach  reach
	foreign         bool // MP_REACH_NLRI of a family that was not negotiated
	others          bool // there are attributes other than MP_UNREACH_NLRI
	changed         bool
	fault           Fault
}

// Update checks the body of an UPDATE and appends to out what is to be parsed instead:
// the same, something smaller, or a KEEPALIVE where nothing is left (it restarts the
// hold timer as the UPDATE would have). Nothing is appended where the fault calls for a
// reset.
func (s Session) Update(out, body []byte) ([]byte, Fault) {
	u, ok := s.parse(body)
	if !ok {
		return out, u.fault
	}
	s.missing(u)
	if u.fault.Reaction == Withdraw && u.others && u.announced == 0 && u.reach.n == 0 && !u.foreign {
		// RFC 7606 section 5.2: where no prefix is found, those to withdraw may have been
		// lost together with the attribute.
		u.fault.Reaction = Reset
	}
	switch u.fault.Reaction {
	case Reset:
		return out, u.fault
	case Withdraw:
		u.fault.Withdrawn = u.announced + u.reach.n
		return u.appendWithdrawal(out), u.fault
	}
	if rest := subtract(u.withdrawn, u.nlri, false); len(rest) != len(u.withdrawn) {
		u.withdrawn, u.changed = rest, true
	}
	if u.reach.six == u.unreach.six {
		if rest := subtract(u.unreach.nlri, u.reach.nlri, u.reach.six); len(rest) != len(u.unreach.nlri) {
			u.unreach.nlri, u.changed = rest, true
		}
	}
	s.arrived(u)
	if !u.changed {
		start := len(out)
		out = append(appendHeader(out, typeUpdate), body...)
		return finish(out, start), u.fault
	}
	out, lost := u.appendWithin(out, s.limit())
	if lost > 0 {
		u.fault.worse(withdraw(lengthError, "no room for the attribute OTC"))
		u.fault.Withdrawn = lost
	}
	return out, u.fault
}

// parse takes the UPDATE apart. ok is false where the session must be reset for it: its
// parts can't be told apart, or prefixes can't be read (RFC 7606 section 3, b and j).
func (s Session) parse(body []byte) (u *update, ok bool) {
	u = &update{}
	fail := func(f Fault) (*update, bool) {
		u.fault = f
		return u, false
	}
	rest := body
	for _, field := range []*[]byte{&u.withdrawn, nil} {
		n := int(binary.BigEndian.Uint16(rest)) // the header's check left 4 octets at least
		if len(rest) < 2+n || field != nil && len(rest) < 4+n {
			return fail(reset(codeUpdate, malformedList, nil, "a field overruns the message"))
		}
		value := rest[2 : 2+n]
		rest = rest[2+n:]
		if field != nil {
			*field = value
			continue
		}
		u.nlri = rest
		if _, ok := prefixes(u.withdrawn, false, nil); !ok {
			return fail(reset(codeUpdate, invalidNetwork, nil, "malformed withdrawn routes"))
		}
		if u.announced, ok = prefixes(u.nlri, false, nil); !ok {
			return fail(reset(codeUpdate, invalidNetwork, nil, "malformed NLRI"))
		}
		if !s.IPv4 && len(u.withdrawn)+len(u.nlri) > 0 {
			u.foreign, u.changed = u.announced > 0, true
			u.withdrawn, u.nlri, u.announced = nil, nil, 0
			u.fault.worse(Fault{Reaction: Ignore, Text: "IPv4 prefixes, and IPv4 was not negotiated"})
		}
		s.attributes(u, value)
	}
	return u, u.fault.Reaction != Reset
}

// attributes goes over the path attributes; the fault of the worst of them stays.
func (s Session) attributes(u *update, b []byte) {
	for len(b) > 0 {
		a, rest, ok := next(b)
		if !ok {
			u.others = true
			u.fault.worse(withdraw(lengthError, fmt.Sprintf("attribute %d overruns the attributes", b[min(1, len(b)-1)])))
			return
		}
		b = rest
		u.others = u.others || a.typ != attrUnreach
		multi := a.typ == attrReach || a.typ == attrUnreach
		switch {
		case u.seen[a.typ] && multi: // RFC 7606 section 3, g
			u.fault.worse(reset(codeUpdate, malformedList, nil, name(a.typ)+" appears twice"))
			continue
		case u.seen[a.typ]:
			u.changed = true
			u.fault.worse(Fault{Reaction: Discard, Text: name(a.typ) + " appears twice"})
			continue
		}
		u.seen[a.typ] = true
		if multi {
			s.multi(u, a)
			continue
		}
		flags, keep, f := s.check(a)
		u.fault.worse(f)
		// RFC 4760 section 3: no meaning for the prefixes of MP_REACH_NLRI.
		if a.typ == attrNextHop && len(u.nlri) == 0 {
			keep = false
		}
		if !keep {
			u.changed = true
			continue
		}
		u.changed = u.changed || flags != a.flags
		a.flags = flags
		u.attrs = append(u.attrs, a)
	}
}

// multi takes MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760).
func (s Session) multi(u *update, a attribute) {
	bad := func(what string) {
		u.fault.worse(reset(codeUpdate, optionalError, a.raw, what+" in "+name(a.typ)))
	}
	v := a.value
	least := 3 // RFC 7606 section 5.3
	if a.typ == attrReach {
		least = 5
	}
	if len(v) < least {
		bad("too few octets")
		return
	}
	afi, safi := binary.BigEndian.Uint16(v), v[2]
	r := reach{present: true, six: afi == 2, nlri: v[3:]}
	if safi != 1 || !(afi == 1 && s.IPv4) && !(afi == 2 && s.IPv6) {
		u.changed = true
		u.foreign = u.foreign || a.typ == attrReach
		u.fault.worse(Fault{Reaction: Ignore, Text: fmt.Sprintf("AFI %d SAFI %d was not negotiated", afi, safi)})
		return
	}
	if a.typ == attrReach {
		hop := int(v[3])
		if len(v) < 5+hop {
			bad("the next hop overruns what is left")
			return
		}
		// The next hop comes before the prefixes, so these can't be trusted (7.11).
		if !(hop == 4 && !r.six) && !((hop == 16 || hop == 32) && (r.six || s.ExtendedNextHop)) {
			bad(fmt.Sprintf("a next hop of %d octets", hop))
			return
		}
		r.hop, r.nlri = v[4:4+hop], v[5+hop:]
	}
	n, ok := prefixes(r.nlri, r.six, nil)
	if !ok {
		bad("malformed prefixes")
		return
	}
	r.n = n
	if a.typ == attrReach {
		u.reach = r
	} else {
		u.unreach = r
	}
	if a.flags&(flagOptional|flagTransitive) != optional {
		u.fault.worse(wrongFlags(a))
	}
	if a.flags&^flagExtended != optional {
		u.changed = true
	}
}

// missing looks for the attributes that an announcement must have (RFC 7606 section 3, d).
func (s Session) missing(u *update) {
	if len(u.nlri) == 0 && u.reach.n == 0 {
		return
	}
	for _, typ := range []byte{attrOrigin, attrASPath, attrNextHop} {
		if !u.seen[typ] && (typ != attrNextHop || len(u.nlri) > 0) {
			u.fault.worse(withdraw(missingWellKnown, name(typ)+" is missing"))
		}
	}
}

// appendWithdrawal withdraws what the UPDATE announces and what it withdraws.
func (u *update) appendWithdrawal(out []byte) []byte {
	start := len(out)
	if len(u.withdrawn)+len(u.nlri) > 0 {
		out = appendUpdate(out, [][]byte{u.withdrawn, u.nlri}, nil, nil)
	}
	for _, r := range []reach{u.unreach, u.reach} {
		if r.n > 0 {
			out = appendUpdate(out, nil, r.appendUnreach(nil), nil)
		}
	}
	if len(out) == start {
		return appendKeepalive(out)
	}
	return out
}

// append writes what is left of the UPDATE. It never makes it an End-of-RIB that it was
// not.
func (u *update) append(out []byte) []byte {
	var attrs []byte
	if u.unreach.present && (u.unreach.n == 0 || len(u.unreach.nlri) > 0) {
		attrs = u.unreach.appendUnreach(attrs)
	}
	if u.reach.n > 0 {
		attrs = u.reach.appendReach(attrs)
	}
	if u.announces() {
		for _, a := range u.attrs {
			attrs = append(attrs, a.raw...)
			attrs[len(attrs)-len(a.raw)] = a.flags
		}
	} else if len(attrs)+len(u.withdrawn) == 0 {
		return appendKeepalive(out)
	}
	return appendUpdate(out, [][]byte{u.withdrawn}, attrs, u.nlri)
}

func appendUpdate(out []byte, withdrawn [][]byte, attrs, nlri []byte) []byte {
	start, n := len(out), 0
	for _, w := range withdrawn {
		n += len(w)
	}
	out = binary.BigEndian.AppendUint16(appendHeader(out, typeUpdate), uint16(n))
	for _, w := range withdrawn {
		out = append(out, w...)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(attrs)))
	out = append(append(out, attrs...), nlri...)
	return finish(out, start)
}

func (r reach) family() []byte {
	if r.six {
		return []byte{0, 2, 1}
	}
	return []byte{0, 1, 1}
}

func (r reach) appendUnreach(b []byte) []byte {
	b = append(appendAttribute(b, attrUnreach, 3+len(r.nlri)), r.family()...)
	return append(b, r.nlri...)
}

func (r reach) appendReach(b []byte) []byte {
	b = append(appendAttribute(b, attrReach, 5+len(r.hop)+len(r.nlri)), r.family()...)
	b = append(append(b, byte(len(r.hop))), r.hop...)
	return append(append(b, 0), r.nlri...)
}

// appendAttribute starts an optional attribute. It takes no octet more than the peer
// did: the message must not outgrow what is allowed.
func appendAttribute(b []byte, typ byte, n int) []byte {
	if n < 256 {
		return append(b, flagOptional, typ, byte(n))
	}
	return binary.BigEndian.AppendUint16(append(b, flagOptional|flagExtended, typ), uint16(n))
}
