package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Limits of a Config. Under 10 ms, the timing of a Linux host without a real-time kernel
// is not to be trusted; over a minute, BGP's own timers are as good.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
)

// Config is what one session is to do. Peer, Local, Interface and Multihop are its
// identity; Update changes the rest.
type Config struct {
	Peer netip.Addr
	// Local is our address. Without one it is the kernel's choice, made when the
	// session's socket is opened.
	Local netip.Addr
	// Interface is where a single-hop session's packets leave and must arrive; needed
	// for a link-local peer, and else free to be empty.
	Interface string
	Multihop  bool
	// MinTTL is the least TTL or hop limit of packets that are accepted, of several
	// hops only; 0 accepts any. What a peer sends RFC 5883 leaves open: FRR and this
	// package 255, so that 254 lets one router be in between; BIRD 2 the system's
	// default, 64. For a single hop it is 255, always (RFC 5881 section 5).
	MinTTL uint8

	// Interval is both the Desired Min TX and the Required Min RX Interval, in whole
	// microseconds. The slower side of each direction wins.
	Interval time.Duration
	// Multiplier is how many of our packets the peer must miss to declare us down.
	// How many of the peer's we may miss, the peer decides.
	Multiplier uint8
	Auth       *Auth // nil: none
}

// identity is what a packet without Your Discriminator is told apart by.
type identity struct {
	peer, local netip.Addr
	iface       string
	multihop    bool
}

func (c Config) identity() identity {
	return identity{c.Peer, c.Local, c.Interface, c.Multihop}
}

// updatable tells whether n may follow c.
func (c Config) updatable(n Config) error {
	if c.identity() != n.identity() {
		return fmt.Errorf("peer, local address, interface or mode differ from those of the session with %s: that is another session", c.Peer)
	}
	return nil
}

// withoutKey is c as it may be shown.
func (c Config) withoutKey() Config {
	if c.Auth != nil {
		c.Auth = &Auth{Type: c.Auth.Type, KeyID: c.Auth.KeyID}
	}
	return c
}

func (c Config) params() params {
	return params{interval: c.Interval, multiplier: c.Multiplier, auth: c.Auth}
}

// normal returns the Config with its defaults filled in, or what is wrong with it.
func (c Config) normal() (Config, error) {
	c.Peer, c.Local = c.Peer.Unmap(), c.Local.Unmap()
	if zone := c.Peer.Zone(); zone != "" {
		if c.Interface == "" {
			c.Interface = zone
		}
		if c.Interface != zone {
			return c, fmt.Errorf("peer %s is not on interface %s", c.Peer, c.Interface)
		}
		c.Peer = c.Peer.WithZone("")
	}
	c.Local = c.Local.WithZone("")
	switch {
	case !c.Peer.IsValid() || c.Peer.IsUnspecified() || c.Peer.IsMulticast():
		return c, fmt.Errorf("peer %s is no unicast address", c.Peer)
	case c.Local.IsValid() && (c.Local.IsUnspecified() || c.Local.IsMulticast()):
		return c, fmt.Errorf("local %s is no unicast address", c.Local)
	case c.Local.IsValid() && c.Local.Is4() != c.Peer.Is4():
		return c, fmt.Errorf("local %s and peer %s are of different families", c.Local, c.Peer)
	case c.Multihop && c.Interface != "":
		return c, fmt.Errorf("several hops are not bound to an interface (%s)", c.Interface)
	case c.Peer.IsLinkLocalUnicast() && c.Peer.Is6() && c.Interface == "":
		return c, fmt.Errorf("link-local peer %s needs an interface", c.Peer)
	case !c.Multihop && c.MinTTL != 0 && c.MinTTL != 255:
		return c, errors.New("the minimum TTL of a single hop is 255")
	case c.Interval < MinInterval || c.Interval > MaxInterval:
		return c, fmt.Errorf("interval %s is not within %s to %s", c.Interval, MinInterval, MaxInterval)
	case c.Interval%time.Microsecond != 0:
		return c, fmt.Errorf("interval %s is not in whole microseconds", c.Interval)
	case c.Multiplier == 0:
		return c, errors.New("multiplier is 0")
	}
	if c.Auth != nil {
		if err := c.Auth.check(); err != nil {
			return c, err
		}
		a := *c.Auth
		a.Key = append([]byte(nil), a.Key...) // the caller keeps its own
		c.Auth = &a
	}
	if !c.Multihop {
		c.MinTTL = 255
	}
	return c, nil
}
