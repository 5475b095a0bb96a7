package kernel

import (
	"fmt"
	"slices"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// ntfUse asks the kernel to resolve a neighbour as if there were a packet for it.
const ntfUse = 0x1 // NTF_USE of linux/neighbour.h

// Probe makes the kernel ask the legs' gateways, by ARP or neighbour discovery, whether
// they are there; Watch tells the answer. A neighbour that is thought reachable gets
// unicast probes at once (it goes on being used meanwhile), an unknown or failed one is
// looked for. Permanent neighbours, and links without addresses of that kind, are left
// alone: an administrator's word outranks a probe's.
func (h *Handle) Probe(legs []fib.Leg) error {
	states := make(map[fib.Leg]uint16, len(legs))
	err := retryInterrupted("neighbours", func() error {
		return h.dump(dumpNeighbors, func(typ uint16, body []byte) error {
			if typ != unix.RTM_NEWNEIGH {
				return nil
			}
			addr, index, state, err := parseNeigh(body)
			states[fib.Leg{Gateway: addr, IfIndex: index}] = state
			return err
		})
	})
	if err != nil {
		return err
	}
	const known = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY
	legs = slices.DeleteFunc(slices.Clone(legs), func(l fib.Leg) bool {
		s := states[l]
		return s&^(known|unix.NUD_FAILED) != 0 // permanent, without ARP, or being probed
	})
	for len(legs) > 0 {
		n := min(len(legs), h.maxBatch)
		h.enc.reset(h.w.seq + 1)
		at := 0
		for _, l := range legs[:n] {
			at = h.enc.probe(l, states[l]&known != 0)
		}
		h.enc.setFlags(at, unix.NLM_F_ACK)
		h.w.seq += uint32(n)
		// A link or neighbour that went away meanwhile has its own event.
		if err := h.exchange(n, func(int, unix.Errno, string) {}); err != nil {
			return fmt.Errorf("fib/kernel: probe neighbours: %w", err)
		}
		legs = legs[n:]
	}
	return nil
}

func dumpNeighbors(e *encoder) {
	at := e.begin(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	e.ndmsg(unix.AF_UNSPEC, 0, 0, 0)
	e.end(at)
}

// probe appends the question for one neighbour; known: it has a link-layer address.
func (e *encoder) probe(l fib.Leg, known bool) (at int) {
	family := uint8(unix.AF_INET)
	if l.Gateway.Is6() {
		family = unix.AF_INET6
	}
	// Both are done by an administrator's right, and would make a permanent neighbour one
	// like all others (net/core/neighbour.c, __neigh_update; seen on Linux 6.18).
	if known {
		at = e.begin(unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE)
		e.ndmsg(family, l.IfIndex, unix.NUD_PROBE, 0)
	} else {
		at = e.begin(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
		e.ndmsg(family, l.IfIndex, unix.NUD_NONE, ntfUse)
	}
	e.attrAddr(unix.NDA_DST, l.Gateway)
	e.end(at)
	return at
}

// ndmsg appends struct ndmsg of linux/neighbour.h.
func (e *encoder) ndmsg(family uint8, index int, state uint16, flags uint8) {
	e.buf = append(e.buf, family, 0, 0, 0)
	e.buf = native.AppendUint32(e.buf, uint32(index))
	e.buf = native.AppendUint16(e.buf, state)
	e.buf = append(e.buf, flags, 0)
}
