package metrics

import (
	"maps"
	"slices"

	"github.com/nexthopd/nexthopd/agent/status"
)

// ofBFD is a series per BFD session; "peer" is the address, also of a next hop that is
// no peer.
func ofBFD(name, help string, k kind, more ...string) series {
	return newSeries("nexthopd_bfd_"+name, help, k, append([]string{"peer", "mode"}, more...)...)
}

// The series of BFD. Without sessions there are none.
var (
	descBFDUp          = ofBFD("session_up", "1 when the BFD session is up, else 0.", gauge)
	descBFDFailed      = ofBFD("session_failed", "1 while nothing is sent to the peer or next hop because its BFD session failed, else 0.", gauge)
	descBFDTransitions = ofBFD("transitions_total", "Changes of the BFD session's state.", counter)
	descBFDDetection   = ofBFD("session_detection_time_seconds", "Silence after which the session fails, as agreed; absent before the first packet.", gauge)
	descBFDIn          = ofBFD("packets_received_total", "BFD packets that the session accepted.", counter)
	descBFDOut         = ofBFD("packets_sent_total", "BFD packets sent.", counter)
	descBFDSendErrors  = ofBFD("send_errors_total", "BFD packets that could not be sent.", counter)
	descBFDDropped     = ofBFD("packets_dropped_total", "BFD packets for the session that were ignored, by cause.", counter, "cause")
	descBFDJitter      = ofBFD("session_jitter_seconds",
		"Mean deviation of the times between the other side's packets from one another, since the session came up.", gauge)
	descBFDGap = ofBFD("session_gap_max_seconds",
		"Longest time between two packets of the other side since the session came up; near the detection time it is a false alarm in waiting.", gauge)
	descBFDLate = ofBFD("session_late_max_seconds", "By how much a packet of ours was late at worst since the session came up.", gauge)

	descBFDEngine     = newSeries("nexthopd_bfd_engine_up", "1 when the process that runs the BFD sessions answers, else 0.", gauge)
	descBFDEngineLate = newSeries("nexthopd_bfd_timer_late_max_seconds", "By how much a BFD timer was served late at worst.", gauge)
	descBFDStray      = newSeries("nexthopd_bfd_stray_packets_total",
		"BFD packets that no session took, by cause; kernel: refused before they were read (foreign address, low TTL, full queue).", counter, "cause")
)

func (s sink) bfd(b status.BFD) {
	if len(b.Sessions) == 0 {
		return
	}
	s.flag(descBFDEngine, b.Engine.Running)
	if b.Engine.Running {
		s.value(descBFDEngineLate, b.Engine.MaxLate)
		s.causes(descBFDStray, b.Engine.Dropped)
		s.value(descBFDStray, float64(b.Engine.KernelDrops), "kernel")
	}
	for _, x := range b.Sessions {
		s.session(&x, b.Engine.Running)
	}
}

func (s sink) session(x *status.BFDSession, running bool) {
	labels := []string{x.Address.String(), x.Mode}
	s.flag(descBFDUp, x.State == "up", labels...)
	s.flag(descBFDFailed, x.Failed, labels...)
	s.value(descBFDTransitions, float64(x.Changes), labels...)
	if !running {
		return // the rest is the engine's to tell
	}
	if x.DetectionTime > 0 {
		s.value(descBFDDetection, x.DetectionTime, labels...)
	}
	s.value(descBFDIn, float64(x.Received), labels...)
	s.value(descBFDOut, float64(x.Sent), labels...)
	s.value(descBFDSendErrors, float64(x.SendErrors), labels...)
	s.causes(descBFDDropped, x.Dropped, labels...)
	s.value(descBFDJitter, x.Jitter, labels...)
	s.value(descBFDGap, x.MaxGap, labels...)
	s.value(descBFDLate, x.MaxLate, labels...)
}

func (s sink) causes(d series, counts map[string]uint64, labels ...string) {
	for _, cause := range slices.Sorted(maps.Keys(counts)) {
		s.value(d, float64(counts[cause]), append(slices.Clip(labels), cause)...)
	}
}
