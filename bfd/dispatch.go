package bfd

import "time"

// handle takes one packet and tells whether it was good.
func (e *Engine) handle(r *receiver, d *datagram, at, now time.Duration) bool {
	e.stats.Received++
	list := e.byPeer[peerKey{d.from, r.multihop}]
	if len(list) == 0 {
		e.drops[DropNoSession]++
		return false
	}
	en, p, cause, err := find(list, d)
	if cause != accepted {
		e.drop(en, cause, err)
		return false
	}
	c, cause, err := en.s.receive(at, &p)
	if cause != accepted {
		e.drop(en, cause, err)
		return false
	}
	en.received++
	if c.happened() {
		e.changed(en, c, now, now-at)
	}
	if en.s.state == Up {
		en.gaps.packet(at)
	}
	e.reschedule(en, now)
	return true
}

func (e *Engine) drop(en *entry, cause Drop, err error) {
	e.drops[cause]++
	en.drops[cause]++
	en.lastDrop, en.lastDropAt = err, time.Now()
}

// find returns the session that a packet is for, or whom to blame for one that is not
// good: RFC 5880 section 6.8.6's checks, the cheapest first. A packet must come from the
// configured address, which section 6.3 does not ask: a peer that is configured by its
// address speaks from it, and anybody else is to be shut out.
func find(list []*entry, d *datagram) (*entry, packet, Drop, error) {
	blamed := list[0]
	least := blamed.cfg.MinTTL
	for _, en := range list[1:] {
		least = min(least, en.cfg.MinTTL)
	}
	if d.ttl < int(least) {
		return blamed, packet{}, DropTTL, errTTL
	}
	p, err := parse(d.data)
	switch err {
	case nil:
	case errAuthPassword, errAuthMD5, errAuthUnknown:
		return blamed, packet{}, DropAuth, err
	default:
		return blamed, packet{}, DropMalformed, err
	}
	en := pick(list, d, p.Yours)
	switch {
	case en == nil && p.Yours != 0:
		return blamed, packet{}, DropDiscriminator, errDiscriminator
	case en == nil:
		return blamed, packet{}, DropNoSession, errInterface
	case d.ttl < int(en.cfg.MinTTL):
		return en, packet{}, DropTTL, errTTL
	case !en.here(d):
		return en, packet{}, DropNoSession, errInterface
	}
	return en, p, accepted, nil
}

// pick finds the session by Your Discriminator, or by the addresses where that is 0.
func pick(list []*entry, d *datagram, yours uint32) *entry {
	var wildcard *entry
	for _, en := range list {
		switch {
		case yours != 0:
			if en.s.local == yours {
				return en
			}
		case en.cfg.Local == d.to && en.here(d):
			return en
		case !en.cfg.Local.IsValid() && en.here(d):
			wildcard = en
		}
	}
	return wildcard
}

// here tells whether a packet came over the session's interface.
func (en *entry) here(d *datagram) bool {
	return en.cfg.Interface == "" || en.tx == nil || en.tx.ifindex == d.ifindex
}
