package bgp

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/nexthopd/nexthopd/agent/bgp/wire"
)

// The fields that inside.go uses are there, in the version of GoBGP that is built in.
func TestLookInside(t *testing.T) {
	if _, err := lookInside(server.NewBgpServer()); err != nil {
		t.Error(err)
	}
}

// updateBody makes the body of an UPDATE from hexadecimal octets.
func updateBody(t testing.TB, withdrawn, attrs, nlri string) []byte {
	t.Helper()
	part := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	w, a := part(withdrawn), part(attrs)
	b := append(binary.BigEndian.AppendUint16(nil, uint16(len(w))), w...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(a))), a...)
	return append(b, part(nlri)...)
}

const goodAttributes = "40 01 01 00 40 02 06 02 01 0000fe7b 40 03 04 0a010004"

// RFC 7606 section 4: an attribute that overruns the attributes makes the UPDATE a
// withdrawal. GoBGP alone leaves the peer's old path in use.
func TestOverrunWithdraws(t *testing.T) {
	s, r, log := startSpeaker(t, nil)
	mustAdd(t, s, peerConf(4, 65147), peerConf(5, 65148))
	a := connect(t, peerAddr(4), fakeOptions{asn: 65147})
	b := connect(t, peerAddr(5), fakeOptions{asn: 65148})
	a.announce(announce{prefixes: []string{"192.168.7.0/24"}, asPath: "65147", nextHop: "10.1.0.4"})
	b.wantRoute("192.168.7.0/24", "65515 65147 via 10.1.0.4 [igp] med - []")
	body := updateBody(t, "", goodAttributes+"80 04 05 00000001", "18 c0a807")
	header, err := (&bgp.BGPHeader{Type: bgp.BGP_MSG_UPDATE, Len: uint16(19 + len(body))}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.conn.Write(append(header, body...)); err != nil {
		t.Fatal(err)
	}
	b.wantRoute("192.168.7.0/24", "")
	eventually(t, "withdrawal in what is learned", func() bool { return r.path(peerAddr(4), "192.168.7.0/24") == nil })
	if a.isClosed() {
		t.Error("the session did not stay up")
	}
	if p, _ := s.Peer(peerAddr(4)); p.Faults["treat-as-withdraw"] != 1 {
		t.Errorf("faults %v, want one treated as withdrawal", p.Faults)
	}
	if !strings.Contains(log.String(), "attribute 4 overruns the attributes") {
		t.Error("the log does not say what was wrong")
	}
}

// Whatever a peer sends: what passes the judge, GoBGP parses without an error.
func FuzzJudgedUpdate(f *testing.F) {
	for _, attrs := range []string{
		goodAttributes, goodAttributes + "80 04 05 00000001", goodAttributes + "c0 07 08 0000fe7b 0a010004 c0 10 08 0002fe7b00000001",
		"80 0e 1a 0002 01 10 fd000000000000000000000000000004 00 20 20010db8 40 01 01 00 40 02 06 02 01 0000fe7b",
		"80 0f 08 0002 01 20 20010db8", goodAttributes + "c0 20 0c 0000fe7b 00000001 00000002 c0 11 06 02 01 0000fe7b",
		goodAttributes + "c0 c8 02 ffff c0 19 14 " + strings.Repeat("00", 20) + "c0 23 04 0000fe7b",
	} {
		f.Add(updateBody(f, "08 0a", attrs, "18 c0a8ff"), uint8(3))
		f.Add(updateBody(f, "08 0a", attrs, "18 c0a8ff"), uint8(7))
	}
	f.Fuzz(func(t *testing.T, body []byte, flags uint8) {
		if len(body) < 4 || len(body) > 4000 {
			return
		}
		session := wire.Session{IPv4: flags&1 != 0, IPv6: flags&2 != 0, TwoByteAS: flags&4 != 0, ExtendedNextHop: flags&8 != 0}
		out, _ := session.Update(nil, body)
		families := map[bgp.Family]bgp.BGPAddPathMode{}
		if session.IPv4 {
			families[bgp.RF_IPv4_UC] = bgp.BGP_ADD_PATH_NONE
		}
		if session.IPv6 {
			families[bgp.RF_IPv6_UC] = bgp.BGP_ADD_PATH_NONE
		}
		for len(out) > 0 {
			h := &bgp.BGPHeader{}
			if err := h.DecodeFromBytes(out[:19]); err != nil {
				t.Fatal(err)
			}
			m, err := bgp.ParseBGPBody(h, out[19:h.Len], &bgp.MarshallingOption{AddPath: families, Use2ByteAS: session.TwoByteAS})
			if err != nil {
				t.Fatalf("GoBGP can't parse what passed: %v\nin  %x\nout %x", err, body, out)
			}
			if u, ok := m.Body.(*bgp.BGPUpdate); ok {
				if ok, err := bgp.ValidateUpdateMsg(u, families, true, false, true); !ok {
					t.Fatalf("GoBGP refuses what passed: %v\nin  %x\nout %x", err, body, out)
				}
			}
			out = out[h.Len:]
		}
	})
}
