package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counter counts the notifications of a network namespace about routes and about next-hop
// objects, and knows when the last one of each was. It is a netlink socket whose filter, an eBPF program, counts what arrives and
// drops it: nobody is woken up and nothing is copied, so that watching a million writes
// costs the daemon that makes them next to nothing (some 0.1 us each, in the kernel).
type counter struct {
	socket, table int
}

// insn is struct bpf_insn of linux/bpf.h.
type insn struct {
	code uint8
	regs uint8 // destination in the low half, source in the high one; the other way round on big-endian machines
	off  int16
	imm  int32
}

var native = binary.NativeEndian

// bigEndian16 is what a BPF load, which is big-endian, makes of a number that netlink
// writes in the machine's order.
func bigEndian16(v uint16) int32 {
	var b [2]byte
	native.PutUint16(b[:], v)
	return int32(binary.BigEndian.Uint16(b[:]))
}

// The map's elements.
const (
	ofRoutes uint32 = iota
	ofNextHops
	elements
)

// program adds one to the first word of the map's element that the message belongs to, and
// writes the time, CLOCK_MONOTONIC, to its second word.
func program(table int) []insn {
	regs := func(dst, src uint8) uint8 {
		if native.Uint16([]byte{1, 0}) == 1 {
			return src<<4 | dst
		}
		return dst<<4 | src
	}
	const (
		ldAbsHalf = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		movReg    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
		movImm    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		addImm    = unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_K
		jeq       = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jne       = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		call      = unix.BPF_JMP | unix.BPF_CALL
		exit      = unix.BPF_JMP | unix.BPF_EXIT
		storeWord = unix.BPF_ST | unix.BPF_W | unix.BPF_MEM
		storeReg  = unix.BPF_STX | unix.BPF_DW | unix.BPF_MEM
		atomicAdd = unix.BPF_STX | unix.BPF_DW | unix.BPF_ATOMIC // and imm BPF_ADD
		loadImm64 = unix.BPF_LD | unix.BPF_DW | unix.BPF_IMM
		lookup    = 1 // bpf_map_lookup_elem
		ktime     = 5 // bpf_ktime_get_ns
	)
	return []insn{
		{movReg, regs(6, 1), 0, 0},                    // the context, where a load expects it
		{ldAbsHalf, 0, 0, 4},                          // nlmsg_type
		{storeWord, regs(10, 0), -4, int32(ofRoutes)}, // the key
		{jeq, regs(0, 0), 4, bigEndian16(unix.RTM_NEWROUTE)},
		{jeq, regs(0, 0), 3, bigEndian16(unix.RTM_DELROUTE)},
		{storeWord, regs(10, 0), -4, int32(ofNextHops)},
		{jeq, regs(0, 0), 1, bigEndian16(unix.RTM_NEWNEXTHOP)},
		{jne, regs(0, 0), 11, bigEndian16(unix.RTM_DELNEXTHOP)},
		{movReg, regs(2, 10), 0, 0},
		{addImm, regs(2, 0), 0, -4},
		{loadImm64, regs(1, unix.BPF_PSEUDO_MAP_FD), 0, int32(table)},
		{0, 0, 0, 0}, // second half of the load
		{call, 0, 0, lookup},
		{jeq, regs(0, 0), 5, 0},
		{movReg, regs(7, 0), 0, 0},
		{movImm, regs(1, 0), 0, 1},
		{atomicAdd, regs(7, 1), 0, unix.BPF_ADD},
		{call, 0, 0, ktime},
		{storeReg, regs(7, 0), 8, 0},
		{movImm, regs(0, 0), 0, 0}, // drop
		{exit, 0, 0, 0},
	}
}

// newCounter begins to count in the network namespace of the calling thread.
func newCounter() (_ *counter, err error) {
	c := &counter{socket: -1, table: -1}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	create := struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{unix.BPF_MAP_TYPE_ARRAY, 4, 16, elements, 0}
	if c.table, err = bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create)); err != nil {
		return nil, fmt.Errorf("create BPF map: %w", err)
	}
	prog := program(c.table)
	license := []byte("Dual BSD/GPL\x00") // bpf_ktime_get_ns is for GPL-compatible programs
	load := struct {
		progType, count uint32
		insns, license  uint64
		logLevel, size  uint32
		log             uint64
	}{
		progType: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	if err != nil {
		return nil, fmt.Errorf("load BPF program: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if c.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if err = unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, fd); err != nil {
		return nil, fmt.Errorf("attach BPF program: %w", err)
	}
	if err = unix.Bind(c.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	return c, errors.Join(
		unix.SetsockoptInt(c.socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_IPV4_ROUTE),
		unix.SetsockoptInt(c.socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_NEXTHOP))
}

// read returns how many notifications of a kind there were, and when the last one was.
func (c *counter) read(key uint32) (n uint64, last instant) {
	var value [2]uint64
	arg := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(c.table), key: uint64(uintptr(unsafe.Pointer(&key))), value: uint64(uintptr(unsafe.Pointer(&value)))}
	if _, err := bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&arg), unsafe.Sizeof(arg)); err != nil {
		panic("bug: read the notification counter: " + err.Error())
	}
	runtime.KeepAlive(&key)
	return value[0], instant(value[1])
}

func (c *counter) close() {
	for _, fd := range []int{c.socket, c.table} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func bpf(cmd uintptr, arg unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(arg), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// instant is a CLOCK_MONOTONIC time in nanoseconds, which the kernel and we share.
type instant int64

func now() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("bug: clock_gettime: " + err.Error())
	}
	return instant(ts.Nano())
}

// since is the time from one instant to another; 0 when the other is earlier.
func (i instant) since(start instant) time.Duration { return max(0, time.Duration(i-start)) }
