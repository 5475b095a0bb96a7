package lab

import (
	"strings"
	"testing"
	"time"
)

func TestFlowReport(t *testing.T) {
	start := time.Now()
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Millisecond) }
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	tests := []struct {
		name         string
		via          string // a digit per packet, one each millisecond; 0: lost
		from, to     int
		sent, recv   int
		loss         int
		interruption time.Duration
	}{
		{"none lost", "11111", 0, 5, 5, 5, 0, 0},
		{"two in a row", "11001", 0, 5, 5, 3, 2, ms(3)},
		{"longest of two runs", "1010001", 0, 7, 7, 3, 3, ms(4)},
		{"lost until the end", "11000", 0, 5, 5, 2, 3, ms(4)},
		{"lost from the start", "00011", 0, 5, 5, 2, 3, ms(3)},
		{"all lost", "0000", 0, 4, 4, 0, 4, ms(4)},
		{"only the window counts", "0011011000", 2, 7, 5, 4, 1, ms(2)},
		{"empty window", "111", 3, 3, 0, 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f flow
			for i, c := range tt.via {
				f.sent, f.via = append(f.sent, at(i)), append(f.via, uint8(c-'0'))
			}
			last := map[string]time.Time{}
			r := f.report(at(tt.from), at(tt.to), []string{"", "a", "b"}, last)
			if r.Sent != tt.sent || r.Received != tt.recv || r.LongestLoss != tt.loss || r.Interruption != tt.interruption {
				t.Errorf("report(%q) = %+v, want sent %d received %d loss %d interruption %s",
					tt.via, r, tt.sent, tt.recv, tt.loss, tt.interruption)
			}
			if i := strings.IndexByte(tt.via[tt.from:tt.to], '0'); i < 0 && !r.firstLost.IsZero() || i >= 0 &&
				(r.firstLost != at(tt.from+i) || r.lastLost != at(strings.LastIndexByte(tt.via[:tt.to], '0'))) {
				t.Errorf("report(%q): lost from %s to %s", tt.via, r.firstLost.Sub(start), r.lastLost.Sub(start))
			}
			if r.Via["a"] != tt.recv {
				t.Errorf("via %v, want a: %d", r.Via, tt.recv)
			}
		})
	}
}
