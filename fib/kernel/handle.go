// Package kernel carries the FIB's operations out on Linux over rtnetlink, and reports
// what others do there. It decides nothing: what should be in the kernel is fib's to
// say. It is the only package that knows netlink.
//
// Messages are encoded and parsed here rather than by github.com/vishvananda/netlink:
// at a million routes that library's 39 allocations per route cost five times the
// kernel's own work, and v1.3.1 knows neither next-hop objects nor RTA_NH_ID. Sockets
// come from its nl package.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// ErrNoNetAdmin is returned by Open when the process may not change routes.
var ErrNoNetAdmin = errors.New("fib/kernel: CAP_NET_ADMIN is missing: run as root, or grant it " +
	"(systemd: AmbientCapabilities=CAP_NET_ADMIN; containers: --cap-add=NET_ADMIN; a file: setcap cap_net_admin+ep)")

// Options of a Handle.
type Options struct {
	Owner fib.Owner
	// Classic puts the legs into every route even where the kernel has next-hop
	// objects.
	Classic bool
}

// Handle writes to and reads from the kernel of one network namespace. It implements
// fib.Kernel. Apply, Dump, Lookup and Host belong to one goroutine at a time; Watch
// and CompatMode may run beside them. None of them cares which thread it runs on.
type Handle struct {
	owner   fib.Owner
	objects bool // routes name groups
	// hasObjects: the kernel has next-hop objects, be they used or not.
	hasObjects bool

	w       *socket     // for writes and dumps
	r       *socket     // for dumps that may be given up, and only while one is read
	urgent  func() bool // of that dump; nil: it may not
	unread  uint32      // the dump on r that was given up halfway; 0: none
	monitor *os.File
	closed  atomic.Bool
	compat  *os.File // net.ipv4.nexthop_compat_mode; nil when this kernel has none

	enc      encoder
	maxBatch int
	texts    map[string]string // kernel's error texts, each kept once
	sizeHint int               // routes in the last dump
}

var _ fib.Kernel = (*Handle)(nil)

const (
	// writerBuffer holds the replies to a batch, writerSend the batch itself.
	writerBuffer = 4 << 20
	writerSend   = 1 << 20
	// replySize is what an error reply with text can take of the receive buffer;
	// 832 were measured on Linux 6.18, the next allocation size is 1280.
	replySize = 1280
	// maxBatch operations or maxBatchBytes go into one sendto: the gain of larger
	// batches ends at 64, and the replies to 160 fit into the default buffer.
	maxBatch      = 128
	maxBatchBytes = 64 << 10
)

// Open opens sockets in the network namespace of the calling thread, for good, and
// probes what the kernel can do and whether we may.
func Open(opts Options) (_ *Handle, err error) {
	o := opts.Owner
	if o.Table == 0 || o.Metric == 0 || o.Protocol <= unix.RTPROT_STATIC || o.FirstID == 0 || o.FirstID > o.LastID {
		return nil, fmt.Errorf("fib/kernel: owner %+v: table, metric and first id must not be 0, the protocol must be over %d, and the range not empty", o, unix.RTPROT_STATIC)
	}
	h := &Handle{owner: o, maxBatch: maxBatch, texts: make(map[string]string)}
	h.enc.owner = o
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if h.w, err = openSocket(writerBuffer, writerSend); err != nil {
		return nil, err
	}
	if h.r, err = openSocket(writerBuffer, writerSend); err != nil {
		return nil, err
	}
	h.maxBatch = min(maxBatch, max(1, h.w.receiveBuffer()/replySize))
	if err := h.probeWrite(); err != nil {
		return nil, err
	}
	if h.hasObjects, err = h.probeNextHops(); err != nil {
		return nil, err
	}
	h.objects = h.hasObjects && !opts.Classic
	if h.monitor, err = openMonitor(h.w.port); err != nil {
		return nil, err
	}
	// proc_sys binds the file to the namespace of the thread that opens it, not of
	// the one that reads (fs/proc/proc_sysctl.c): opened here, read from anywhere.
	h.compat, err = os.Open("/proc/sys/net/ipv4/nexthop_compat_mode")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("fib/kernel: %w", err)
	}
	return h, nil
}

// Close ends a running Watch and releases the sockets. It changes nothing in the kernel.
func (h *Handle) Close() {
	h.closed.Store(true)
	for _, s := range [...]*socket{h.w, h.r} {
		if s != nil {
			s.s.Close()
		}
	}
	if h.monitor != nil {
		h.monitor.Close()
	}
	if h.compat != nil {
		h.compat.Close()
	}
}

// HasNextHopObjects tells whether routes name groups; in classic mode they carry legs.
func (h *Handle) HasNextHopObjects() bool { return h.objects }

// CompatMode reads net.ipv4.nexthop_compat_mode of the Handle's namespace. Where it is
// on (the kernel's default), the replacement of a group costs a notification per route:
// a second per million. Kernels without next-hop objects answer false.
func (h *Handle) CompatMode() (bool, error) {
	if h.compat == nil {
		return false, nil
	}
	var b [8]byte
	n, err := h.compat.ReadAt(b[:], 0)
	if n == 0 && err != nil {
		return false, fmt.Errorf("fib/kernel: nexthop_compat_mode: %w", err)
	}
	return strings.TrimSpace(string(b[:n])) != "0", nil
}

// probeWrite sends a write that can't do anything, the deletion of a next hop without
// id. The permission is checked first (net/core/rtnetlink.c, rtnetlink_rcv_msg), and
// against the user namespace that owns the network namespace, which no look at our
// capabilities could tell.
func (h *Handle) probeWrite() error {
	e := &h.enc
	e.reset(h.w.nextSeq())
	m := e.begin(unix.RTM_DELNEXTHOP, unix.NLM_F_ACK)
	e.nhmsg(unix.AF_UNSPEC, 0, 0)
	e.end(m)
	var errno unix.Errno
	if err := h.exchange(1, func(_ int, no unix.Errno, _ string) { errno = no }); err != nil {
		return err
	}
	if errno == unix.EPERM {
		return ErrNoNetAdmin
	}
	return nil
}

// probeNextHops asks for all next hops: before Linux 5.3 there is nobody to answer.
func (h *Handle) probeNextHops() (bool, error) {
	err := h.dump(dumpNextHops, func(uint16, []byte) error { return nil })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("fib/kernel: probe for next-hop objects: %w", err)
	}
	return true, nil
}

// intern keeps one copy of each error text: a hundred thousand refused routes share it.
func (h *Handle) intern(text []byte) string {
	if s, ok := h.texts[string(text)]; ok {
		return s
	}
	if len(h.texts) >= 256 {
		clear(h.texts) // texts with ids or names in them must not pile up
	}
	s := string(text)
	h.texts[s] = s
	return s
}
