package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func openOf(t testing.TB, body string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(body, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return finish(append(appendHeader(nil, typeOpen), b...), 0)
}

func TestReadOpenASN(t *testing.T) {
	const fixed = "04 fe7b 00b4 0a010004"
	for name, tt := range map[string]struct {
		body string
		want uint32 // 0: an error
	}{
		"no parameters":        {fixed + "00", 65147},
		"other capabilities":   {fixed + "08 0206 0104 00010001", 65147},
		"4 octets":             {"04 5ba0 00b4 0a010004 10 0206 0104 00010001 0206 4104 fa56ea01", 4200000001},
		"in one parameter":     {"04 5ba0 00b4 0a010004 0a 0208 0200 4104 fa56ea01", 4200000001},
		"extended (RFC 9072)":  {"04 5ba0 00b4 0a010004 ff ff 0009 02 0006 4104 fa56ea01", 4200000001},
		"another parameter":    {fixed + "04 0102 abcd", 65147},
		"version 3":            {"03 fe7b 00b4 0a010004 00", 0},
		"too short":            {"04 fe7b 00b4 0a0100", 0},
		"parameter too long":   {fixed + "02 0209", 0},
		"capability too long":  {fixed + "04 0202 4104", 0},
		"half a parameter":     {fixed + "01 02", 0},
		"half a capability":    {fixed + "03 0201 41", 0},
		"extended, cut in two": {fixed + "ff ff 0002 02 00", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadOpenASN(bytes.NewReader(append(openOf(t, tt.body), "more"...)))
			if got != tt.want || (err == nil) != (tt.want != 0) {
				t.Errorf("AS %d, %v, want %d", got, err, tt.want)
			}
		})
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a KEEPALIVE": appendKeepalive(nil), "another protocol": []byte("GET / HTTP/1.1\r\nHost: 10.1.2.4\r\n"), "a part": openOf(t, fixed+"00")[:25],
	} {
		if asn, err := ReadOpenASN(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: AS %d", name, asn)
		}
	}
	if got := hex.EncodeToString(BadPeerAS()[16:]); got != "0015030202" {
		t.Errorf("the NOTIFICATION is %s", got)
	}
}

func FuzzReadOpenASN(f *testing.F) {
	f.Add(openOf(f, "04 5ba0 00b4 0a010004 0a 0208 0200 4104 fa56ea01"))
	f.Add(openOf(f, "04 5ba0 00b4 0a010004 ff ff 0009 02 0006 4104 fa56ea01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if _, err := ReadOpenASN(r); err == nil && r.Len() != len(b)-int(b[16])<<8-int(b[17]) {
			t.Errorf("%d octets are left", r.Len())
		}
	})
}
