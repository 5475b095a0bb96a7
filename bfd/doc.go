// Package bfd speaks Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode
// over IPv4 and IPv6, for one hop (RFC 5881) and for several (RFC 5883), with SHA1
// authentication. An [Engine] runs any number of sessions and tells at once when one of
// them changes its state.
//
// It decides nothing about BGP or routes, reads no configuration file and imports
// nothing of this module. Demand mode and the Echo function are not offered: a peer that
// asks for demand mode gets it, and Required Min Echo RX is 0.
//
// # What the caller decides (RFC 5882)
//
//   - A session that was never Up says nothing about the path: the peer may not speak
//     BFD (section 3.2). [Info.EverUp] tells, and there is no [Event] before the first
//     change.
//   - AdminDown, on either side, is not a failure (section 3.2): [Event.Failure] is false
//     for it, whichever side it came from. While [Info.RemoteState] is AdminDown, the
//     path's other signs count alone.
//   - Where graceful restart was negotiated, a failed session means a dead path only if
//     the peer's BFD does not share its control plane's fate, which its C bit says
//     (section 4.3): [Event.ControlPlaneIndependent]. Our own C bit is 0: this engine dies
//     with its process.
//   - Remove and the end of Run say AdminDown to the peer, so that it doesn't take our
//     leaving for a failure.
//
// # Timing
//
// One goroutine, locked to its thread, does it all: it reads the sockets, keeps the
// timers, owns every session and calls OnChange. It allocates nothing while sessions run
// quietly, so it never has to help the garbage collector. Packets carry the kernel's
// time of arrival, and all that have arrived are read before a session is declared down,
// so that a thread that runs late does not take its own delay for the peer's silence.
// What remains is sending late, which the peer sees. In a process that has other work
// this cannot be helped: two goroutines that never rest were enough, on two cores, to
// lose every session of 3 x 50 ms within seconds. So the daemon uses a [Process], which
// is an Engine in a process of its own, with SCHED_RR ([Options.Priority]); that is what
// keeps such sessions up on a machine with more work than processors. Stats shows how
// late timers are served, and whether the priority was granted.
package bfd
