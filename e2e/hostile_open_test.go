package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// greeting is a case before the session is established.
type greeting struct {
	name, rfc string
	first     []byte   // in the place of the OPEN
	then      [][]byte // after the daemon's KEEPALIVE
	// want is "accepted", the NOTIFICATION, or "hang up": the connection ends without one.
	want string
	// rfcs is what the RFC wants where that is something else: the OPEN is GoBGP's to parse,
	// and none of these brings up a session that should not be. docs/rfc7606.md lists them.
	rfcs string
}

// open is an OPEN with hexadecimal optional parameters, whose length is right unless
// given.
func open(version byte, as uint16, hold uint16, id, params string, length ...byte) []byte {
	p := octets(params)
	n := byte(len(p))
	if len(length) > 0 {
		n = length[0]
	}
	body := cat([]byte{version, byte(as >> 8), byte(as), byte(hold >> 8), byte(hold)}, octets(id), []byte{n}, p)
	return nva.AppendMessage(nil, nva.TypeOpen, body)
}

// Capabilities in hexadecimal, as parameters of an OPEN.
const (
	evilID  = "0a010099"
	as4     = "02 06 41 04 0000fc9a"
	ipv4    = "02 06 01 04 0001 00 01"
	ipv6    = "02 06 01 04 0002 00 01"
	goodCap = ipv4 + ipv6 + as4
)

// greet is a good OPEN with one parameter more.
func greet(params string) []byte { return open(4, evilASN, 180, evilID, goodCap+params) }

var greetings = []greeting{
	{name: "a good OPEN", rfc: "RFC 4271 4.2", first: greet(""), want: "accepted"},
	{name: "version 3", rfc: "RFC 4271 6.2", first: open(3, evilASN, 180, evilID, goodCap), want: "2/1"},
	{name: "version 0", rfc: "RFC 4271 6.2", first: open(0, evilASN, 180, evilID, goodCap), want: "2/1"},
	{name: "version 5", rfc: "RFC 4271 6.2", first: open(5, evilASN, 180, evilID, goodCap), want: "2/1"},
	{name: "another AS", rfc: "RFC 4271 6.2", first: open(4, 64667, 180, evilID, ipv4), want: "2/2"},
	{name: "AS 0", rfc: "RFC 7607 2", first: open(4, 0, 180, evilID, ipv4), want: "2/2"},
	{name: "our AS", rfc: "RFC 4271 6.2", first: open(4, 65515, 180, evilID, ipv4), want: "2/2"},
	{name: "AS_TRANS without the capability", rfc: "RFC 6793 4.1", first: open(4, 23456, 180, evilID, ipv4), want: "2/2"},
	{name: "another AS in the capability", rfc: "RFC 6793 4.1", first: open(4, evilASN, 180, evilID, ipv4+"02 06 41 04 00000001"), want: "2/2"},
	{name: "AS 0 in the capability", rfc: "RFC 6793 4.1", first: open(4, evilASN, 180, evilID, ipv4+"02 06 41 04 00000000"), want: "2/2"},
	{name: "hold time 0", rfc: "RFC 4271 4.2", first: open(4, evilASN, 0, evilID, goodCap), want: "accepted"},
	{name: "hold time 1", rfc: "RFC 4271 6.2", first: open(4, evilASN, 1, evilID, goodCap), want: "2/6"},
	{name: "hold time 2", rfc: "RFC 4271 6.2", first: open(4, evilASN, 2, evilID, goodCap), want: "2/6"},
	{name: "hold time 3", rfc: "RFC 4271 4.2", first: open(4, evilASN, 3, evilID, goodCap), want: "accepted"},
	{name: "hold time 65535", rfc: "RFC 4271 4.2", first: open(4, evilASN, 65535, evilID, goodCap), want: "accepted"},
	{name: "identifier 0", rfc: "RFC 6286 2.2", first: open(4, evilASN, 180, "00000000", goodCap), want: "2/3"},
	{name: "identifier of multicast", rfc: "RFC 6286 2.1", first: open(4, evilASN, 180, "e0000001", goodCap), want: "accepted"},
	{name: "our identifier", rfc: "RFC 6286 2.2", first: open(4, evilASN, 180, "0a010204", goodCap), want: "accepted"},
	{name: "no parameters", rfc: "RFC 5492 3", first: open(4, evilASN, 180, evilID, ""), want: "accepted"},

	{name: "parameters overrun the message", rfc: "RFC 4271 6.2", first: open(4, evilASN, 180, evilID, goodCap, 255), want: "1/2", rfcs: "2/0"},
	{name: "parameters end before the message", rfc: "RFC 4271 6.2", first: open(4, evilASN, 180, evilID, goodCap, 8), want: "accepted", rfcs: "2/0"},
	{name: "a parameter overruns the parameters", rfc: "RFC 4271 6.2", first: greet("02 ff 41 04"), want: "1/2", rfcs: "2/0"},
	{name: "half a parameter", rfc: "RFC 4271 6.2", first: greet("02"), want: "1/2", rfcs: "2/0"},
	{name: "unknown parameter", rfc: "RFC 4271 6.2", first: greet("4d 02 0102"), want: "accepted", rfcs: "2/4"},
	{name: "authentication parameter", rfc: "RFC 4271 6.2", first: greet("01 02 0102"), want: "accepted", rfcs: "2/4"},
	{name: "a capability overruns its parameter", rfc: "RFC 5492 4", first: greet("02 04 41 ff 0000"), want: "2/7", rfcs: "2/0"},
	{name: "half a capability", rfc: "RFC 5492 4", first: greet("02 01 41"), want: "accepted", rfcs: "2/0"},
	{name: "no capability in a parameter", rfc: "RFC 5492 4", first: greet("02 00"), want: "accepted"},
	{name: "unknown capability", rfc: "RFC 5492 3", first: greet("02 04 c8 02 ffff"), want: "accepted"},
	{name: "unknown capability of 0 octets", rfc: "RFC 5492 3", first: greet("02 02 c8 00"), want: "accepted"},
	{name: "90 unknown capabilities in one parameter", rfc: "RFC 5492 4", first: open(4, evilASN, 180, evilID, as4+ipv4+"02 b4"+many("c8 00", 90)), want: "accepted"},
	{name: "the same capability 20 times", rfc: "RFC 5492 4", first: open(4, evilASN, 180, evilID, as4+many(ipv4, 20)), want: "accepted"},
	{name: "every capability code, empty", rfc: "RFC 5492 3", first: open(4, evilASN, 180, evilID, emptyCapabilities()), want: "2/7", rfcs: "2/0"},
	{name: "multiprotocol of 3 octets", rfc: "RFC 4760 8", first: greet("02 05 01 03 0001 00"), want: "2/7", rfcs: "2/0"},
	{name: "multiprotocol of 5 octets", rfc: "RFC 4760 8", first: greet("02 07 01 05 0001 00 01 ff"), want: "2/7", rfcs: "2/0"},
	{name: "multiprotocol of an unknown family", rfc: "RFC 4760 8", first: greet("02 06 01 04 ffff 00 ff"), want: "accepted"},
	{name: "4-octet AS of 3 octets", rfc: "RFC 6793 4.1", first: open(4, evilASN, 180, evilID, ipv4+"02 05 41 03 00fc9a"), want: "2/7", rfcs: "2/0"},
	{name: "4-octet AS of 5 octets", rfc: "RFC 6793 4.1", first: open(4, evilASN, 180, evilID, ipv4+"02 07 41 05 0000fc9aff"), want: "2/7", rfcs: "2/0"},
	{name: "graceful restart of 1 octet", rfc: "RFC 4724 3", first: greet("02 03 40 01 00"), want: "2/7", rfcs: "2/0"},
	{name: "graceful restart with half a family", rfc: "RFC 4724 3", first: greet("02 06 40 04 0078 0001"), want: "accepted"},
	{name: "ADD-PATH of 3 octets", rfc: "RFC 7911 4", first: greet("02 05 45 03 000101"), want: "2/7", rfcs: "2/0"},
	{name: "ADD-PATH with an unknown mode", rfc: "RFC 7911 4", first: greet("02 06 45 04 000101ff"), want: "accepted"},
	{name: "extended next hop of 5 octets", rfc: "RFC 8950 4", first: greet("02 07 05 05 0001000100"), want: "2/7", rfcs: "2/0"},
	{name: "long-lived graceful restart of 6 octets", rfc: "RFC 9494 4.3", first: greet("02 08 47 06 000101000000"), want: "2/7", rfcs: "2/0"},
	{name: "FQDN whose host name overruns", rfc: "draft-walton-bgp-hostname-capability", first: greet("02 04 49 02 ff41"), want: "2/7", rfcs: "2/0"},
	{name: "FQDN of control characters", rfc: "draft-walton-bgp-hostname-capability", first: greet("02 0a 49 08 05 1b5b324a0a 01 ff"), want: "accepted"},
	{name: "software version that overruns", rfc: "draft-abraitis-bgp-version-capability", first: greet("02 04 4b 02 ff41"), want: "2/7", rfcs: "2/0"},
	{name: "role of 0 octets", rfc: "RFC 9234 4.2", first: greet("02 02 09 00"), want: "accepted"},
	{name: "extended message with a value", rfc: "RFC 8654 3", first: greet("02 06 06 04 ffffffff"), want: "accepted"},

	{name: "KEEPALIVE first", rfc: "RFC 6608 4", first: nva.Keepalive(), want: "5/1"},
	{name: "UPDATE first", rfc: "RFC 6608 4", first: nva.EndOfRIB(nva.IPv4), want: "5/1"},
	{name: "ROUTE-REFRESH first", rfc: "RFC 6608 4", first: nva.RefreshRequest(nva.IPv4), want: "5/1"},
	{name: "NOTIFICATION first", rfc: "RFC 4271 8.2.2", first: nva.Notification{Code: 2, Subcode: 2}.Encode(), want: "5/1", rfcs: "hang up"},
	{name: "type 9 first", rfc: "RFC 4271 6.1", first: header(19, 9), want: "1/3"},
	{name: "noise first", rfc: "RFC 4271 6.1", first: bytes.Repeat([]byte("SSH-2.0-OpenSSH\r\n"), 5), want: "1/1"},
	{name: "OPEN of 28", rfc: "RFC 4271 6.1", first: header(28, 1, make([]byte, 9)...), want: "1/2"},
	{name: "OPEN of 4097", rfc: "RFC 4271 6.1", first: header(4097, 1, make([]byte, 4078)...), want: "1/2"},
	{name: "OPEN of 19", rfc: "RFC 4271 6.1", first: header(19, 1), want: "1/2"},
	{name: "OPEN twice", rfc: "RFC 6608 4", first: greet(""), then: [][]byte{greet("")}, want: "hang up", rfcs: "5/2"},
	{name: "UPDATE before KEEPALIVE", rfc: "RFC 6608 4", first: greet(""), then: [][]byte{nva.EndOfRIB(nva.IPv4)}, want: "hang up", rfcs: "5/2"},
	{name: "NOTIFICATION before KEEPALIVE", rfc: "RFC 4271 8.2.2", first: greet(""), then: [][]byte{nva.Notification{Code: 6}.Encode()}, want: "hang up"},
	{name: "noise before KEEPALIVE", rfc: "RFC 4271 6.1", first: greet(""), then: [][]byte{make([]byte, 64)}, want: "1/1"},
}

func many(s string, n int) string {
	var b string
	for range n {
		b += s
	}
	return b
}

func emptyCapabilities() string {
	params := as4 + ipv4
	for code := range 50 {
		params += fmt.Sprintf("02 02 %02x 00", code)
	}
	return params
}

// meet runs one greeting.
func (h *besieged) meet(t *testing.T, _ int, g greeting, e *evil) {
	typ, body := h.hears(t, e, g.first, g.then...)
	got := "hang up"
	switch typ {
	case nva.TypeKeepalive:
		got = "accepted"
	case nva.TypeNotification:
		got = fmt.Sprintf("%d/%d", body[0], body[1])
	case 0:
	default:
		got = fmt.Sprintf("message type %d", typ)
	}
	if got != g.want {
		t.Errorf("%s: %s, want %s", g.rfc, got, g.want)
	}
	if p := h.peerOf(t, e.name); p.State == "Established" {
		t.Errorf("the session is established")
	}
}

// What the RFC wants otherwise is in the manual, case by case.
func TestHostileDeviationsAreDocumented(t *testing.T) {
	page := string(value(os.ReadFile("../docs/rfc7606.md"))(t))
	for _, g := range greetings {
		row := fmt.Sprintf("| %s | %s | %s | %s |", g.name, g.rfc, g.rfcs, g.want)
		if g.rfcs != "" && !strings.Contains(page, row) {
			t.Errorf("docs/rfc7606.md lacks: %s", row)
		}
	}
}

// S12, hostile peers: whatever they send, the daemon lives, a good appliance's routes and
// traffic are left alone, and the reaction is the RFC's (docs/rfc7606.md).
func TestHostilePeers(t *testing.T) {
	h := besiege(t)
	attacks := slices.Concat(headerAttacks, updateAttacks, attributeAttacks, multiAttacks, foreignAttacks(), messageAttacks)
	if n := len(greetings) + len(attacks); n < 150 {
		t.Errorf("%d cases, 150 are promised", n)
	}
	t.Run("OPEN", func(t *testing.T) {
		siege(t, h, greetings, func(g greeting) string { return g.name }, h.meet)
	})
	t.Run("established", func(t *testing.T) {
		siege(t, h, attacks, func(a attack) string { return a.name }, h.launch)
	})
	if r := h.traffic.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d packets lost", r.Lost(), r.Sent())
	}
	must(t, h.Host.WaitGateways(within(t), lab.SeedBranch, lab.SeedNVA(0)))
}
