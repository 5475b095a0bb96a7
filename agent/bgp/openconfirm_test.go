package bgp

import (
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// A peer that opens a session and does not confirm it (its packets are lost from then
// on, or do not pass GTSM) must not keep its next one out.
func TestUnconfirmedPeer(t *testing.T) {
	s, r, _ := startSpeaker(t, nil)
	s.openTimeout = 2 * time.Second
	theirs := peerAddr(4)
	mustAdd(t, s, peerConf(4, 65147))
	eventually(t, "readiness", func() bool { return r.state(theirs) == Active }) // before, GoBGP closes what it is given
	f := connect(t, theirs, fakeOptions{noOpen: true})
	open, err := bgp.NewBGPOpenMessage(65147, 9, theirs, []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{bgp.NewCapFourOctetASNumber(65147)}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.send(open); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the attempt to be given up", func() bool { return r.lastDown(theirs).Down.Cause != "" })
	if d := r.lastDown(theirs).Down; d.Cause != "connection-lost" || d.Text != "the peer took the connection and sent no KEEPALIVE within 2s" {
		t.Errorf("reason = %+v", d)
	}
	connect(t, theirs, fakeOptions{asn: 65147})
}
