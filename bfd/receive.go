package bfd

import (
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize = 32
	// A packet's length is one byte; what is longer is cut off.
	maxDatagram = 256
	controlLen  = 128
)

// batch is what one recvmmsg(2) fills. It is made once and used for every read.
type batch struct {
	msgs    [batchSize]mmsghdr
	iovs    [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet6 // has room for either family
	data    [batchSize][maxDatagram]byte
	control [batchSize][controlLen / 8]uint64 // uint64: the kernel's alignment
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// datagram is a packet with what the kernel says of it. Its data is valid until the
// next read.
type datagram struct {
	data    []byte
	from    netip.Addr // without zone
	to      netip.Addr
	ttl     int // -1: unknown
	ifindex int
	stamp   int64 // time of arrival, Unix nanoseconds; 0: unknown
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(maxDatagram)
		h := &b.msgs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&b.control[i][0]))
	}
	return b
}

// read reads what is there, up to batchSize packets, and waits for nothing.
func (b *batch) read(fd int) (int, error) {
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlLen)
	}
	for {
		// RawSyscall as in sender.write.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func (b *batch) datagram(i int) datagram {
	h := &b.msgs[i].hdr
	d := datagram{data: b.data[i][:min(b.msgs[i].len, maxDatagram)], ttl: -1}
	if b.names[i].Family == unix.AF_INET6 {
		d.from = netip.AddrFrom16(b.names[i].Addr)
	} else {
		d.from = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&b.names[i])).Addr)
	}
	// The kernel wrote well-formed messages, each aligned (CMSG_NXTHDR).
	p := unsafe.Pointer(&b.control[i][0])
	for left := int(h.Controllen); left >= unix.SizeofCmsghdr; {
		c := (*unix.Cmsghdr)(p)
		size := int(c.Len)
		if size < unix.SizeofCmsghdr || size > left {
			break
		}
		d.control(c, unsafe.Add(p, unix.CmsgLen(0)))
		step := unix.CmsgSpace(size - unix.CmsgLen(0))
		if step >= left {
			break
		}
		p, left = unsafe.Add(p, step), left-step
	}
	return d
}

func (d *datagram) control(c *unix.Cmsghdr, data unsafe.Pointer) {
	switch {
	case c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_TIMESTAMPNS:
		d.stamp = (*unix.Timespec)(data).Nano()
	case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_TTL, c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_HOPLIMIT:
		d.ttl = int(*(*int32)(data))
	case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO:
		info := (*unix.Inet4Pktinfo)(data)
		d.ifindex, d.to = int(info.Ifindex), netip.AddrFrom4(info.Addr)
	case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO:
		info := (*unix.Inet6Pktinfo)(data)
		d.ifindex, d.to = int(info.Ifindex), netip.AddrFrom16(info.Addr)
	}
}

// arrival converts the kernel's stamp, of a clock that may be set, into a reading of
// ours: not before the queue was last seen empty, and not after now. wall is what the
// kernel's clock says now.
func (r *receiver) arrival(stamp, wall int64, now time.Duration) time.Duration {
	if stamp == 0 {
		return now
	}
	return min(now, max(r.emptyAt, now-time.Duration(wall-stamp)))
}
