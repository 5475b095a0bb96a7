package bgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// fake is a BGP peer of a few lines, which sends exactly what a test wants to see.
type fake struct {
	t    testing.TB
	conn net.Conn
	asn  uint32

	mu           sync.Mutex
	table        map[netip.Prefix]route
	endOfRIB     int
	notification *bgp.BGPNotification
	open         *bgp.BGPOpen
	updates      int
	closed       bool
}

// route is a path as the fake received it.
type route struct {
	asPath, origin string
	nextHop        netip.Addr
	med            string
	communities    []uint32
	large          []string // not shown by String
	otc            string   // likewise
}

func (r route) String() string {
	return fmt.Sprintf("%s via %s [%s] med %s %v", r.asPath, r.nextHop, r.origin, r.med, r.communities)
}

type fakeOptions struct {
	asn         uint32
	id          netip.Addr // default: the address it comes from
	hold        uint16
	noRestart   bool // no graceful restart capability
	restartTime uint16
	families    []bgp.Family // whose forwarding state it keeps; nil: both
	notifies    bool         // RFC 8538
	lost        bool         // the forwarding state was not kept over the restart
	longLived   []uint32     // RFC 9494: for how long, IPv4 and IPv6
	noOpen      bool         // only connects
	roles       []byte       // a capability for each
	password    string       // TCP MD5
}

// connect connects from an address to the speaker and brings the session up.
func connect(t testing.TB, from netip.Addr, o fakeOptions) *fake {
	t.Helper()
	to := listenOn.String()
	if from.Is6() {
		to = netip.AddrPortFrom(ours6, 179).String()
	}
	var f *fake
	// GoBGP turns a connection away while the peer is idle, up to 5 s after a session.
	eventually(t, fmt.Sprintf("session of %s", from), func() bool {
		d := net.Dialer{LocalAddr: tcpFrom(from), Timeout: 10 * time.Second, Control: signed(o.password)}
		conn, err := d.Dial("tcp", to)
		if err != nil {
			return false
		}
		f = &fake{t: t, conn: conn, asn: o.asn, table: map[netip.Prefix]route{}}
		if o.noOpen {
			return true
		}
		if err := f.handshake(from, o); err != nil {
			conn.Close()
			time.Sleep(50 * time.Millisecond)
			return false
		}
		return true
	})
	t.Cleanup(func() { f.conn.Close() })
	if !o.noOpen {
		go f.read()
	}
	return f
}

func (f *fake) handshake(from netip.Addr, o fakeOptions) error {
	caps := []bgp.ParameterCapabilityInterface{
		bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC),
		bgp.NewCapFourOctetASNumber(o.asn), bgp.NewCapRouteRefresh(),
	}
	if !o.noRestart {
		if o.families == nil {
			o.families = []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}
		}
		var tuples []*bgp.CapGracefulRestartTuple
		for _, x := range o.families {
			tuples = append(tuples, bgp.NewCapGracefulRestartTuple(x, !o.lost))
		}
		if o.restartTime == 0 {
			o.restartTime = 60
		}
		caps = append(caps, bgp.NewCapGracefulRestart(false, o.notifies, o.restartTime, tuples))
		var long []*bgp.CapLongLivedGracefulRestartTuple
		for i, seconds := range o.longLived {
			long = append(long, bgp.NewCapLongLivedGracefulRestartTuple(o.families[i], !o.lost, seconds))
		}
		if long != nil {
			caps = append(caps, bgp.NewCapLongLivedGracefulRestart(long))
		}
	}
	for _, r := range o.roles {
		caps = append(caps, bgp.NewCapUnknown(capRole, []byte{r}))
	}
	if !o.id.IsValid() {
		o.id = from
		if from.Is6() {
			b := from.As16()
			o.id = netip.AddrFrom4([4]byte{10, 6, b[14], b[15]})
		}
	}
	if o.hold == 0 {
		o.hold = 180
	}
	as := uint16(bgp.AS_TRANS)
	if o.asn < 1<<16 {
		as = uint16(o.asn)
	}
	open, err := bgp.NewBGPOpenMessage(as, o.hold, o.id, []bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		f.t.Fatalf("OPEN: %v", err)
	}
	f.conn.SetDeadline(time.Now().Add(10 * time.Second))
	defer f.conn.SetDeadline(time.Time{})
	if err := f.send(open); err != nil {
		return err
	}
	for {
		m, err := f.receive()
		if err != nil {
			return err
		}
		switch body := m.Body.(type) {
		case *bgp.BGPOpen:
			f.open = body
			if err := f.send(bgp.NewBGPKeepAliveMessage()); err != nil {
				return err
			}
		case *bgp.BGPKeepAlive:
			return nil
		case *bgp.BGPNotification:
			return fmt.Errorf("NOTIFICATION %d/%d", body.ErrorCode, body.ErrorSubcode)
		}
	}
}

func (f *fake) send(m *bgp.BGPMessage) error {
	b, err := m.Serialize()
	if err != nil {
		f.t.Errorf("serialize: %v", err)
		return err
	}
	_, err = f.conn.Write(b)
	return err
}

func (f *fake) receive() (*bgp.BGPMessage, error) {
	head := make([]byte, 19)
	if _, err := io.ReadFull(f.conn, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[16:])-19)
	if _, err := io.ReadFull(f.conn, body); err != nil {
		return nil, err
	}
	h := &bgp.BGPHeader{}
	if err := h.DecodeFromBytes(head); err != nil {
		return nil, err
	}
	return bgp.ParseBGPBody(h, body)
}

func (f *fake) read() {
	for {
		m, err := f.receive()
		f.mu.Lock()
		if err != nil {
			f.closed = true
			f.mu.Unlock()
			return
		}
		switch body := m.Body.(type) {
		case *bgp.BGPNotification:
			f.notification = body
		case *bgp.BGPUpdate:
			f.update(body)
		}
		f.mu.Unlock()
	}
}

func (f *fake) update(u *bgp.BGPUpdate) {
	if eor, _ := u.IsEndOfRib(); eor {
		f.endOfRIB++
		return
	}
	f.updates++
	r := route{med: "-"}
	var prefixes []bgp.PathNLRI
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeAsPath:
			r.asPath = bgp.AsPathString(a)
		case *bgp.PathAttributeOrigin:
			r.origin = [...]string{"igp", "egp", "incomplete"}[a.Value]
		case *bgp.PathAttributeNextHop:
			r.nextHop = a.Value
		case *bgp.PathAttributeMultiExitDisc:
			r.med = fmt.Sprint(a.Value)
		case *bgp.PathAttributeCommunities:
			r.communities = a.Value
		case *bgp.PathAttributeLargeCommunities:
			for _, l := range a.Values {
				r.large = append(r.large, l.String())
			}
		case *bgp.PathAttributeUnknown:
			if a.Type == attrOTC {
				r.otc = fmt.Sprintf("%02x %x", uint8(a.Flags), a.Value)
			}
		case *bgp.PathAttributeMpReachNLRI:
			r.nextHop = a.Nexthop
			prefixes = append(prefixes, a.Value...)
		case *bgp.PathAttributeMpUnreachNLRI:
			for _, n := range a.Value {
				delete(f.table, n.NLRI.(*bgp.IPAddrPrefix).Prefix)
			}
		}
	}
	for _, n := range u.WithdrawnRoutes {
		delete(f.table, n.NLRI.(*bgp.IPAddrPrefix).Prefix)
	}
	for _, n := range append(prefixes, u.NLRI...) {
		f.table[n.NLRI.(*bgp.IPAddrPrefix).Prefix] = r
	}
}

// announce is one UPDATE. asPath is as people write it, with sets in braces:
// "65147 {1,2}".
type announce struct {
	prefixes    []string
	asPath      string
	nextHop     string
	origin      uint8
	med         int // -1: none
	communities []uint32
	large       [][3]uint32
	otc         uint32 // 0: none
}

func (f *fake) announce(a announce) {
	f.t.Helper()
	var list []netip.Prefix
	for _, p := range a.prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	f.announceAll(a, list)
}

func (f *fake) announceAll(a announce, prefixes []netip.Prefix) {
	f.t.Helper()
	var params []bgp.AsPathParamInterface
	for _, word := range strings.Fields(a.asPath) {
		kind, as := uint8(bgp.BGP_ASPATH_ATTR_TYPE_SEQ), []uint32{}
		if set, ok := strings.CutPrefix(word, "{"); ok {
			kind, word = bgp.BGP_ASPATH_ATTR_TYPE_SET, strings.TrimSuffix(set, "}")
		}
		for _, s := range strings.Split(word, ",") {
			var n uint32
			fmt.Sscan(s, &n)
			as = append(as, n)
		}
		if last := len(params) - 1; last >= 0 && kind == bgp.BGP_ASPATH_ATTR_TYPE_SEQ && params[last].GetType() == kind {
			p := params[last].(*bgp.As4PathParam)
			p.AS = append(p.AS, as...)
			p.Num++
			continue
		}
		params = append(params, bgp.NewAs4PathParam(kind, as))
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(a.origin), bgp.NewPathAttributeAsPath(params)}
	hop := netip.MustParseAddr(a.nextHop)
	v6 := prefixes[0].Addr().Is6()
	if !v6 {
		nh, _ := bgp.NewPathAttributeNextHop(hop)
		attrs = append(attrs, nh)
	}
	if a.med > 0 {
		attrs = append(attrs, bgp.NewPathAttributeMultiExitDisc(uint32(a.med)))
	}
	if len(a.communities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(a.communities))
	}
	if len(a.large) > 0 {
		var list []*bgp.LargeCommunity
		for _, l := range a.large {
			list = append(list, &bgp.LargeCommunity{ASN: l[0], LocalData1: l[1], LocalData2: l[2]})
		}
		attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(list))
	}
	if a.otc != 0 {
		attrs = append(attrs, bgp.NewPathAttributeUnknown(bgp.BGP_ATTR_FLAG_OPTIONAL|bgp.BGP_ATTR_FLAG_TRANSITIVE, attrOTC, binary.BigEndian.AppendUint32(nil, a.otc)))
	}
	per := 700 // what fits into 4096 octets
	if v6 {
		per = 200
	}
	for batch := range slices.Chunk(prefixes, per) {
		nlri := make([]bgp.PathNLRI, len(batch))
		for i, p := range batch {
			nlri[i] = bgp.PathNLRI{NLRI: mustNLRI(p)}
		}
		m := bgp.NewBGPUpdateMessage(nil, attrs, nlri)
		if v6 {
			reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv6_UC, nlri, hop)
			if err != nil {
				f.t.Fatalf("MP_REACH_NLRI: %v", err)
			}
			m = bgp.NewBGPUpdateMessage(nil, append(slices.Clone(attrs), reach), nil)
		}
		if err := f.send(m); err != nil {
			f.t.Errorf("announce: %v", err)
			return
		}
	}
}

func (f *fake) withdraw(prefixes ...string) {
	f.t.Helper()
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		m := bgp.NewBGPUpdateMessage([]bgp.PathNLRI{{NLRI: mustNLRI(p)}}, nil, nil)
		if p.Addr().Is6() {
			un, err := bgp.NewPathAttributeMpUnreachNLRI(bgp.RF_IPv6_UC, []bgp.PathNLRI{{NLRI: mustNLRI(p)}})
			if err != nil {
				f.t.Fatalf("MP_UNREACH_NLRI: %v", err)
			}
			m = bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{un}, nil)
		}
		if err := f.send(m); err != nil {
			f.t.Errorf("withdraw: %v", err)
		}
	}
}

func (f *fake) sendEndOfRIB(family bgp.Family) {
	f.t.Helper()
	if err := f.send(bgp.NewEndOfRib(family)); err != nil {
		f.t.Errorf("End-of-RIB: %v", err)
	}
}

// route returns what we announced for the prefix, "" for nothing.
func (f *fake) route(prefix string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.table[netip.MustParsePrefix(prefix)]; ok {
		return r.String()
	}
	return ""
}

func (f *fake) routes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.table)
}

// received returns the NOTIFICATION received as "6/2 text", or "".
func (f *fake) received() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.notification
	if n == nil {
		return ""
	}
	s := fmt.Sprintf("%d/%d", n.ErrorCode, n.ErrorSubcode)
	if len(n.Data) > 1 {
		s += " " + string(n.Data[1:])
	}
	return s
}

// notified returns the data of the NOTIFICATION received.
func (f *fake) notified() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.notification == nil {
		return nil
	}
	return f.notification.Data
}

func (f *fake) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// wantRoute waits until the fake has the route, as route.String writes it.
func (f *fake) wantRoute(prefix, want string) {
	f.t.Helper()
	got := ""
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if got = f.route(prefix); got == want {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s at the peer: got %q, want %q", prefix, got, want)
		}
	}
}
