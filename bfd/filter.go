package bfd

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// source is an address that packets are accepted from, with their least TTL.
type source struct {
	addr   netip.Addr
	minTTL uint8
}

// Where classic BPF loads from (linux/filter.h): the IP header, and a random number. The
// kernel takes them for negative offsets.
const (
	skfNetOff uint32 = 0xffffffff - 0x100000 + 1 // SKF_NET_OFF
	skfRandom uint32 = 0xffffffff - 0x1000 + 1 + 56

	ttl4, source4 = 8, 12
	ttl6, source6 = 7, 8
)

// sampleMask: of 4 packets with a low TTL from a configured address the filter passes
// one, so that the session's counters can say why it does not come up.
const sampleMask = 3

// filter is a classic BPF program that passes what may be a session's packet, in the
// kernel and before it takes space in the socket's queue: a flood from elsewhere, or
// with a TTL that shows it comes from afar, displaces nothing (RFC 5082's aim). It
// returns nil where the sources are too many for a program; the engine checks the same
// itself.
func filter(sources []source, v6 bool) []unix.SockFilter {
	ttlAt, sourceAt, words := uint32(ttl4), uint32(source4), 1
	if v6 {
		ttlAt, sourceAt, words = ttl6, source6, 4
	}
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: at}
	}
	pass := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}
	perSource := 2*words + 4
	sample := 2 + len(sources)*perSource + 1 // index of the last block
	if sample+4 > unix.BPF_MAXINSNS {
		return nil
	}
	prog := []unix.SockFilter{
		load(unix.BPF_B, skfNetOff+ttlAt),
		{Code: unix.BPF_MISC | unix.BPF_TAX}, // X keeps the TTL
	}
	for _, s := range sources {
		b := s.addr.AsSlice()
		next := len(prog) + perSource
		// From the end: peers often share a prefix with whoever floods.
		for w := words - 1; w >= 0; w-- {
			prog = append(prog, load(unix.BPF_W, skfNetOff+sourceAt+uint32(4*w)))
			prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
				K: binary.BigEndian.Uint32(b[4*w:]), Jf: uint8(next - len(prog) - 1)})
		}
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TXA},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(s.minTTL), Jf: 1},
			pass,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(sample - len(prog) - 4)})
	}
	return append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}, // nobody's
		load(unix.BPF_W, skfRandom),
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: sampleMask},
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1},
		pass,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
}
