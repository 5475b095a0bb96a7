package lab

import "time"

// flow is what is known of one flow's packets; the slices are indexed by sequence number.
type flow struct {
	sent       []time.Time
	via        []uint8 // which appliance it passed; 0: not received
	duplicates int
}

// Report sums up a traffic's packets.
type Report struct {
	Flows []FlowReport
	// LastVia is, per appliance, when the last packet was sent that passed it.
	LastVia map[string]time.Time
	// FirstLost and LastLost are when the first and the last of the lost packets were
	// sent; zero when none was lost.
	FirstLost, LastLost time.Time
}

// FlowReport sums up one flow's packets.
type FlowReport struct {
	Sent, Received int
	Duplicates     int // over the flow's whole life
	// LongestLoss is the largest number of packets lost in a row, and Interruption the
	// longest time between two packets that arrived with lost ones in between, by the
	// times they were sent. Both are 0 when nothing was lost.
	LongestLoss  int
	Interruption time.Duration
	Via          map[string]int // packets received, by appliance

	firstLost, lastLost time.Time // when those were sent
}

// report judges the packets sent from one time to another, the latter excluded.
func (f *flow) report(from, to time.Time, names []string, lastVia map[string]time.Time) FlowReport {
	r := FlowReport{Duplicates: f.duplicates, Via: map[string]int{}}
	lost := 0 // in a row, up to here
	var good time.Time
	gap := func(end time.Time) {
		if lost > 0 {
			r.LongestLoss = max(r.LongestLoss, lost)
			r.Interruption = max(r.Interruption, end.Sub(good))
		}
	}
	for i, at := range f.sent {
		if at.Before(from) {
			continue
		}
		if !at.Before(to) {
			break
		}
		if good.IsZero() { // what came before is not ours to judge
			good = at
		}
		r.Sent++
		if f.via[i] == 0 {
			if lost++; r.firstLost.IsZero() {
				r.firstLost = at
			}
			r.lastLost = at
			continue
		}
		gap(at)
		lost, good = 0, at
		r.Received++
		name := names[f.via[i]]
		r.Via[name]++
		if at.After(lastVia[name]) {
			lastVia[name] = at
		}
	}
	gap(to)
	return r
}

// Sent is the number of packets sent.
func (r Report) Sent() (n int) {
	for _, f := range r.Flows {
		n += f.Sent
	}
	return n
}

// Lost is the number of packets that did not arrive.
func (r Report) Lost() (n int) {
	for _, f := range r.Flows {
		n += f.Sent - f.Received
	}
	return n
}

// Interruption is the longest one of any flow.
func (r Report) Interruption() (d time.Duration) {
	for _, f := range r.Flows {
		d = max(d, f.Interruption)
	}
	return d
}

// Interrupted is the number of flows that lost packets.
func (r Report) Interrupted() (n int) {
	for _, f := range r.Flows {
		if f.Sent > f.Received {
			n++
		}
	}
	return n
}

// Via is the number of packets received per appliance.
func (r Report) Via() map[string]int {
	sum := map[string]int{}
	for _, f := range r.Flows {
		for name, n := range f.Via {
			sum[name] += n
		}
	}
	return sum
}
