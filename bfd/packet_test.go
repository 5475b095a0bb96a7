package bfd

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What RFC 5880 section 4.1 draws, written out by hand.
const goodPacket = "20" + "c8" + "03" + "18" + // version 1, no diagnostic; Up, C bit; 3; 24
	"01020304" + "05060708" + "000493e0" + "000f4240" + "0000c350"

func TestParse(t *testing.T) {
	want := packet{State: Up, CPI: true, Multiplier: 3, Mine: 0x01020304, Yours: 0x05060708,
		DesiredMinTX: 300 * time.Millisecond, RequiredMinRX: time.Second, RequiredMinEchoRX: 50 * time.Millisecond}
	got, err := parse(unhex(t, goodPacket))
	if err != nil || got != want {
		t.Errorf("parse: %+v, %v; want %+v", got, err, want)
	}
	if got, err := parse(unhex(t, goodPacket+"ffff")); err != nil || got != want {
		t.Errorf("parse with bytes behind it: %+v, %v; want %+v", got, err, want)
	}
	if b := want.appendTo(nil); hex.EncodeToString(b) != goodPacket {
		t.Errorf("appendTo: %x, want %s", b, goodPacket)
	}
}

// The discards of RFC 5880 section 6.8.6 that need no session.
func TestParseRefuses(t *testing.T) {
	edit := func(offset int, with string) []byte {
		b := unhex(t, goodPacket)
		copy(b[offset:], unhex(t, with))
		return b
	}
	authenticated := func(section string) []byte {
		b := append(edit(1, "c4"), unhex(t, section)...)
		b[3] = uint8(len(b))
		return b
	}
	zeros := hex.EncodeToString(make([]byte, 20))
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, errShort},
		{"a byte too short", unhex(t, goodPacket)[:23], errShort},
		{"version 0", edit(0, "00"), errVersion},
		{"version 2", edit(0, "40"), errVersion},
		{"length field under the minimum", edit(3, "17"), errLength},
		{"length field beyond the payload", edit(3, "19"), errLength},
		{"multiplier 0", edit(2, "00"), errMultiplier},
		{"multipoint", edit(1, "c1"), errMultipoint},
		{"poll and final", edit(1, "f0"), errPollFinal},
		{"my discriminator 0", edit(4, "00000000"), errMine},
		{"your discriminator 0 in Up", edit(8, "00000000"), errYours},
		{"your discriminator 0 in Init", append(append([]byte{0x20, 0x80}, edit(8, "00000000")[2:]...), 0), errYours},
		{"authentication bit without a section", edit(1, "c4"), errAuthLength},
		{"simple password", authenticated("0105" + "01" + "6161"), errAuthPassword},
		{"keyed MD5", authenticated("0218" + "0100" + "00000001" + zeros[:32]), errAuthMD5},
		{"meticulous MD5", authenticated("0318" + "0100" + "00000001" + zeros[:32]), errAuthMD5},
		{"unknown authentication", authenticated("0905" + "01" + "6161"), errAuthUnknown},
		{"SHA1, too short", authenticated("041b" + "0100" + "00000001" + zeros[:38]), errAuthLength},
		{"SHA1, wrong length field", authenticated("041b" + "0100" + "00000001" + zeros), errAuthLength},
		{"SHA1, bytes behind it", authenticated("041c" + "0100" + "00000001" + zeros + "00"), errAuthLength},
	}
	for _, tt := range tests {
		if _, err := parse(tt.b); err != tt.want {
			t.Errorf("%s: parse %x: %v, want %v", tt.name, tt.b, err, tt.want)
		}
	}
	for _, state := range []string{"00", "40"} { // AdminDown and Down may not know us yet
		b := edit(1, state)
		copy(b[8:], make([]byte, 4))
		if _, err := parse(b); err != nil {
			t.Errorf("parse %x: %v", b, err)
		}
	}
}

// What is parsed and written again is the same, byte for byte: the digest depends on it.
func FuzzParse(f *testing.F) {
	f.Add(unhex(f, goodPacket))
	signed := packet{State: Up, Multiplier: 3, Mine: 1, Yours: 2, Auth: authSection{Type: KeyedSHA1, KeyID: 7, Sequence: 9}}
	f.Add(signed.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		out := p.appendTo(nil)
		if p.Auth.Type == 0 {
			b = bytes.Clone(b[:headerLen])
			b[3] = headerLen // without authentication, a longer packet is allowed
		} else {
			b = b[:headerLen+sha1Len]
		}
		if !bytes.Equal(out, b) {
			t.Errorf("parsed and written again:\n%x\nwas\n%x", out, b)
		}
		if again, err := parse(out); err != nil || again != p {
			t.Errorf("parse again: %+v, %v; want %+v", again, err, p)
		}
	})
}

// A digest computed with another program: printf of the packet with the key in the place
// of the digest, through sha1sum.
func TestDigest(t *testing.T) {
	p := packet{State: Up, Multiplier: 3, Mine: 0x01020304, Yours: 0x05060708,
		DesiredMinTX: 300 * time.Millisecond, RequiredMinRX: time.Second,
		Auth: authSection{Type: MeticulousSHA1, KeyID: 5, Sequence: 0x0a0b0c0d}}
	got := digest(&p, []byte("secret"))
	if want := "046bd997a6bee38f5d039d4b361ac1ba37d15f19"; hex.EncodeToString(got[:]) != want {
		t.Errorf("digest: %x, want %s", got, want)
	}
}

func TestVerify(t *testing.T) {
	auth := &Auth{Type: KeyedSHA1, KeyID: 5, Key: []byte("secret")}
	sign := func(edit func(*packet)) *packet {
		p := &packet{State: Up, Multiplier: 3, Mine: 1, Yours: 2, Auth: authSection{Type: KeyedSHA1, KeyID: 5, Sequence: 1}}
		p.Auth.Digest = digest(p, auth.Key)
		edit(p)
		return p
	}
	tests := []struct {
		name string
		auth *Auth
		p    *packet
		want error
	}{
		{"good", auth, sign(func(*packet) {}), nil},
		{"none wanted, none there", nil, &packet{}, nil},
		{"none wanted", nil, sign(func(*packet) {}), errAuthSurplus},
		{"none there", auth, &packet{}, errAuthMissing},
		{"other key id", auth, sign(func(p *packet) { p.Auth.KeyID++ }), errAuthKey},
		{"other type", auth, sign(func(p *packet) { p.Auth.Type = MeticulousSHA1 }), errAuthKey},
		{"other digest", auth, sign(func(p *packet) { p.Auth.Digest[19]++ }), errAuthDigest},
		{"state changed on the way", auth, sign(func(p *packet) { p.State = Down }), errAuthDigest},
		{"reserved byte changed", auth, sign(func(p *packet) { p.Auth.Reserved = 1 }), errAuthDigest},
		{"other key", &Auth{Type: KeyedSHA1, KeyID: 5, Key: []byte("secret2")}, sign(func(*packet) {}), errAuthDigest},
	}
	for _, tt := range tests {
		if err := tt.auth.verify(tt.p); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// RFC 5880 section 6.7.4, "when treated as an unsigned 32-bit circular number space".
func TestInWindow(t *testing.T) {
	tests := []struct {
		last, seq         uint32
		keyed, meticulous bool
	}{
		{100, 100, true, false},
		{100, 101, true, true},
		{100, 109, true, true},
		{100, 110, false, false},
		{100, 99, false, false},
		{0xffffffff, 0, true, true},
		{0xfffffffe, 7, true, true},
		{0xfffffffe, 8, false, false},
		{3, 0xffffffff, false, false},
	}
	for _, tt := range tests {
		if got := inWindow(KeyedSHA1, tt.last, tt.seq, 3); got != tt.keyed {
			t.Errorf("keyed, %d after %d: %v", tt.seq, tt.last, got)
		}
		if got := inWindow(MeticulousSHA1, tt.last, tt.seq, 3); got != tt.meticulous {
			t.Errorf("meticulous, %d after %d: %v", tt.seq, tt.last, got)
		}
	}
}
