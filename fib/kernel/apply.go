package kernel

import (
	"errors"
	"fmt"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// Apply carries the operations out in order, in batches of one system call each. An
// operation that fails stops none of the others.
//
// What the caller guarantees: RouteReplace and GroupReplace are for keys and ids that
// are known to be ours by a Dump or a RouteAdd, and not known to be lost since (Watch).
// The kernel's key is (table, prefix, TOS, metric): a RouteReplace takes over whatever
// route stands there, whose protocol it may be of (measured on Linux 6.18, IPv4 and
// IPv6), and no flag prevents that. RouteAdd and NextHopAdd are safe at all times, and
// so is RouteDel unless somebody else uses our protocol number with our metric. An
// identical IPv4 RouteReplace is free and silent; an IPv6 one is neither. In classic
// mode an IPv6 RouteReplace of several legs is not atomic: the kernel adds the legs one
// after the other.
func (h *Handle) Apply(ops []fib.Op) (refused []fib.OpError, err error) {
	for done := 0; done < len(ops); {
		var n int
		refused, n, err = h.applyBatch(ops, done, refused)
		if err != nil {
			return refused, fmt.Errorf("fib/kernel: apply, outcome of operations %d to %d unknown: %w", done, done+n-1, err)
		}
		done += n
	}
	return refused, nil
}

// applyBatch sends as many of the operations from first on as fit into a batch.
func (h *Handle) applyBatch(ops []fib.Op, first int, refused []fib.OpError) (_ []fib.OpError, n int, err error) {
	e := &h.enc
	e.reset(h.w.seq + 1)
	last := -1
	for first+n < len(ops) && n < h.maxBatch && len(e.buf) < maxBatchBytes {
		at := len(e.buf)
		if reason := e.op(&ops[first+n]); reason != "" {
			if last >= 0 {
				break // refused in its turn, as first of the next batch
			}
			return append(refused, fib.OpError{Index: first, Errno: unix.EINVAL, Text: reason}), 1, nil
		}
		last = at
		n++
	}
	e.setFlags(last, unix.NLM_F_ACK)
	h.w.seq += uint32(n)
	err = h.exchange(n, func(i int, errno unix.Errno, text string) {
		if !absent(ops[first+i].Kind, errno) {
			refused = append(refused, fib.OpError{Index: first + i, Errno: errno, Text: text})
		}
	})
	return refused, n, err
}

// absent tells whether a deletion failed only because there was nothing to delete.
func absent(k fib.OpKind, errno unix.Errno) bool {
	switch k {
	case fib.RouteDel:
		return errno == unix.ESRCH
	case fib.GroupDel, fib.NextHopDel:
		return errno == unix.ENOENT
	}
	return false
}

// exchange sends the n encoded messages, whose numbers end with h.w.seq, and reads
// replies until the last one's: failures come in order, by number, with or without
// NLM_F_ACK, so what was not reported before the last message's reply has succeeded.
func (h *Handle) exchange(n int, failed func(i int, errno unix.Errno, text string)) error {
	first := h.w.seq - uint32(n) + 1
	if err := h.w.send(h.enc.buf); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		b, err := h.w.receive()
		if err != nil {
			// ENOBUFS: replies did not fit. Those that did will be skipped by their
			// numbers on the next call.
			return fmt.Errorf("receive: %w", err)
		}
		for len(b) > 0 {
			var m message
			if m, b, err = nextMessage(b); err != nil {
				return err
			}
			i := m.seq - first // wraps around with the numbers
			if m.typ != unix.NLMSG_ERROR || i >= uint32(n) {
				continue // of an exchange that was given up
			}
			errno, text, err := parseError(m)
			if err != nil {
				return err
			}
			if errno != 0 {
				failed(int(i), errno, h.intern(text))
			}
			if i == uint32(n-1) {
				return nil
			}
		}
	}
}

var errBadMessage = errors.New("malformed netlink message")
