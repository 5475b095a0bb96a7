package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Relation is what the peer is to us, as far as the attribute Only to Customer depends on
// it (RFC 9234 section 5). The zero value is none: the attribute then means nothing.
type Relation struct {
	Above    bool   // a Provider, a Peer or a Route Server: what it knows is for our customers
	Below    bool   // a Customer, a Peer or a client of our Route Server: what it gets is for its customers
	LocalASN uint32 // says so to those below
	PeerASN  uint32 // says so of what comes from above
}

// otc is the attribute as it is added.
func otc(asn uint32) attribute {
	value := binary.BigEndian.AppendUint32(nil, asn)
	return attribute{flags: optionalTransitive, typ: attrOTC, value: value, raw: append([]byte{optionalTransitive, attrOTC, 4}, value...)}
}

// mark adds Only to Customer, at the place that its number gives it.
func (u *update) mark(asn uint32) {
	at := slices.IndexFunc(u.attrs, func(a attribute) bool { return a.typ > attrOTC })
	if at < 0 {
		at = len(u.attrs)
	}
	u.attrs = slices.Insert(u.attrs, at, otc(asn))
	u.seen[attrOTC], u.changed = true, true
}

func (u *update) announces() bool { return len(u.nlri) > 0 || u.reach.n > 0 }

// arrived marks what came from above without a mark: ingress rule 3 of the RFC.
func (s Session) arrived(u *update) {
	if s.Relation.Above && u.announces() && !u.seen[attrOTC] {
		u.mark(s.Relation.PeerASN)
	}
}

// Outgoing appends to out what goes to the peer in place of an UPDATE of ours: to those
// below an announcement has the mark, and where it had one before, those above get a
// withdrawal of the same prefixes, so that nothing older stays in use there. A message
// that grows beyond what is allowed is cut into several. lost are the prefixes that are
// withdrawn because they and their attributes fit into no message.
func (s Session) Outgoing(out, message []byte) (_ []byte, lost int) {
	r := s.Relation
	u, ok := s.parse(message[headerLen:])
	switch {
	case !ok || !u.announces() || !(r.Above && u.seen[attrOTC]) && !(r.Below && !u.seen[attrOTC]):
		return append(out, message...), 0
	case u.seen[attrOTC] || u.fault.Reaction == Withdraw:
		return u.appendWithdrawal(out), 0
	}
	u.mark(r.LocalASN)
	return u.appendWithin(out, s.limit())
}

// limit is how long a message may be.
func (s Session) limit() int {
	if s.ExtendedMessage {
		return maxExtendedLen
	}
	return maxLen
}

// appendWithin is append where the UPDATE may have outgrown the limit: then it becomes
// several. What fits into none is withdrawn (RFC 4271 section 9.2), and counted.
func (u *update) appendWithin(out []byte, limit int) (_ []byte, lost int) {
	start := len(out)
	if out = u.append(out); len(out)-start <= limit {
		return out, 0
	}
	out = out[:start]
	if gone := (update{withdrawn: u.withdrawn, unreach: u.unreach}); len(gone.withdrawn)+len(gone.unreach.nlri) > 0 {
		gone.unreach.present = len(gone.unreach.nlri) > 0
		out = gone.append(out)
	}
	own, others := 0, 0 // octets of the attributes for nlri, and for MP_REACH_NLRI
	var shared []attribute
	for _, a := range u.attrs {
		own += len(a.raw)
		if a.typ != attrNextHop {
			others += len(a.raw)
			shared = append(shared, a)
		}
	}
	const fixed = headerLen + 4 // the lengths of the two parts
	for rest := u.reach; rest.n > 0; {
		part := rest
		part.nlri, rest.nlri = fit(rest.nlri, limit-fixed-others-(4+5+len(rest.hop)))
		if part.n, _ = prefixes(part.nlri, rest.six, nil); part.n == 0 {
			out, lost = (&update{reach: rest}).appendWithdrawal(out), lost+rest.n
			break
		}
		rest.n -= part.n
		out = (&update{attrs: shared, reach: part}).append(out)
	}
	for rest := u.nlri; len(rest) > 0; {
		var part []byte
		if part, rest = fit(rest, limit-fixed-own); len(part) == 0 {
			n, _ := prefixes(rest, false, nil)
			out, lost = (&update{nlri: rest}).appendWithdrawal(out), lost+n
			break
		}
		out = (&update{attrs: u.attrs, nlri: part}).append(out)
	}
	return out, lost
}

// fit cuts off as many prefixes as take no more octets than there is room for.
func fit(nlri []byte, room int) (part, rest []byte) {
	n := 0
	for n < len(nlri) {
		size := 1 + (int(nlri[n])+7)/8
		if n+size > room {
			break
		}
		n += size
	}
	return nlri[:n], nlri[n:]
}

// CodeOpen and RoleMismatch are of the NOTIFICATION that refuses a peer's role (RFC 9234
// section 4.2).
const (
	CodeOpen     = 2
	RoleMismatch = 11
)

// Role is what a speaker says that it is to the other one, by its number in the
// capability (RFC 9234 section 4.1).
type Role uint8

// The roles.
const (
	Provider Role = iota
	RouteServer
	RouteServerClient
	Customer
	Peer
)

func (r Role) String() string {
	if names := [...]string{"provider", "rs", "rs-client", "customer", "peer"}; int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Opposite is the only role that the other side of a session may have.
func (r Role) Opposite() Role {
	return [...]Role{Provider: Customer, RouteServer: RouteServerClient, RouteServerClient: RouteServer, Customer: Provider, Peer: Peer}[r]
}

// Relation is what follows from the role of the peer.
func (r Role) Relation(localASN, peerASN uint32) Relation {
	return Relation{
		Above: r == Provider || r == Peer || r == RouteServer, Below: r == Customer || r == Peer || r == RouteServerClient,
		LocalASN: localASN, PeerASN: peerASN,
	}
}

// CheckRoles compares the role that the peer has here with the values of the role
// capabilities in its OPEN, and says why they don't agree; "" where they do. One of
// another length than an octet counts as none. strict wants one to be there.
func CheckRoles(peer Role, values [][]byte, strict bool) string {
	said := false
	for _, v := range values {
		if len(v) != 1 {
			continue
		}
		said = true
		if got := Role(v[0]); got != peer {
			return fmt.Sprintf("the peer says that it is our %s, and is configured here as our %s (RFC 9234)", got, peer)
		}
	}
	if strict && !said {
		return fmt.Sprintf("the peer does not say what it is to us, and role-strict wants it to say %s (RFC 9234)", peer)
	}
	return ""
}
