package bgp

import "testing"

// RFC 8538 section 3.1: a Hard Reset carries the NOTIFICATION that is meant.
func TestHardReset(t *testing.T) {
	hard := notification{code: 6, subcode: 9}
	for name, tt := range map[string]struct {
		n    notification
		data string
		want string
	}{
		"shutdown":               {hard, "\x06\x02\x04noon", "NOTIFICATION received: Cease/Administrative Shutdown (6/2), as a Hard Reset: noon"},
		"no communication":       {hard, "\x06\x04", "NOTIFICATION received: Cease/Administrative Reset (6/4), as a Hard Reset"},
		"empty communication":    {hard, "\x06\x02\x00", "NOTIFICATION received: Cease/Administrative Shutdown (6/2), as a Hard Reset"},
		"length beyond the data": {hard, "\x06\x02\x05noon", "NOTIFICATION received: Cease/Administrative Shutdown (6/2), as a Hard Reset"},
		"unprintable":            {hard, "\x06\x02\x03a\x1bb", "NOTIFICATION received: Cease/Administrative Shutdown (6/2), as a Hard Reset: a?b"},
		"another code":           {hard, "\x03\x0b\x01x", "NOTIFICATION received: UPDATE Message Error/Malformed AS_PATH (3/11), as a Hard Reset"},
		"nothing inside":         {hard, "\x06", "NOTIFICATION received: Cease/Hard Reset (6/9)"},
		"no hard reset":          {notification{code: 6, subcode: 3}, "\x06\x02", "NOTIFICATION received: Cease/Peer De-configured (6/3)"},
	} {
		if got := tt.n.unwrap([]byte(tt.data)).String(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
