// Package doctor examines the host that nexthopd forwards for: what in its settings would
// spoil what the daemon does, and the command that mends it. Gather reads, Judge decides;
// neither changes anything.
package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/internal/diag"
)

// Severity says what a finding asks for.
type Severity string

// The severities.
const (
	OK      Severity = "ok"
	Info    Severity = "info"    // good to know; nothing has to be done
	Warning Severity = "warning" // works, and worse than it could, or until something happens
	Error   Severity = "error"   // traffic or sessions suffer now
	Skipped Severity = "skipped" // could not be examined
)

// Action tells whether somebody should do something about it.
func (s Severity) Action() bool { return s == Warning || s == Error }

// Finding is the result of one check. Every check has one at least.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Says     string   `json:"says"`           // what is, and why it matters
	Mend     string   `json:"mend,omitempty"` // the command that mends it
}

// Facts are all that is judged.
type Facts struct {
	Daemon      *status.Doctor // nil: it did not answer
	DaemonError string         // why
	DaemonNext  string         // the command to try then
	Namespace   string         // of our network, as /proc/PID/ns/net names it; "": not known

	Sysctl map[string]string // by name with dots, of those that exist
	// Strict are the interfaces of the ways to peers and next hops on which rp_filter is
	// strict; nil where those are not known.
	Strict []string

	Networkd Networkd
	// Managed are those interfaces that NetworkManager has under its care.
	Managed []string
	// ProtocolNames are the names that iproute2 has for our route protocol.
	ProtocolNames []string
	// Listeners are who holds an address that we listen on: "bird (pid 812, 0.0.0.0:179)".
	Listeners []string
	// Capabilities of the daemon, as bits; nil: not known.
	Capabilities *uint64
	// Clock: whether it is synchronised; nil: not known.
	Clock *bool
}

// Networkd is what systemd-networkd is set to.
type Networkd struct {
	Running bool
	Manages []string // the keys that let it delete what others made: ManageForeignRoutes, ...
}

// check is one question about the host.
type check struct {
	name  string
	judge func(*Facts) []Finding
}

// checks in the order in which they are reported.
var checks = [...]check{
	{"daemon", daemon},
	{"namespace", namespace},
	{"capabilities", capabilities},
	{"port", port},
	{"way-to-peer", wayToPeer},
	{"mtu", mtu},
	{"ip-forward", ipForward},
	{"rp-filter", rpFilter},
	{"multipath", multipath},
	{"hash-policy", hashPolicy},
	{"next-hop-objects", nextHopObjects},
	{"compat-mode", compatMode},
	{"linkdown", linkdown},
	{"ecmp", ecmp},
	{"rules", rules},
	{"vrf", vrf},
	{"protocol", protocol},
	{"metric", metric},
	{"networkd", networkd},
	{"network-manager", networkManager},
	{"clock", clock},
}

// Judge examines the facts. It returns at least one finding of every check, in a fixed
// order.
func Judge(f *Facts) []Finding {
	var all []Finding
	for _, c := range checks {
		for _, finding := range c.judge(f) {
			finding.Check = c.name
			all = append(all, finding)
		}
	}
	return all
}

// one makes a single finding; its arguments are for the sentence.
func one(s Severity, mend, says string, args ...any) []Finding {
	return []Finding{{Severity: s, Says: fmt.Sprintf(says, args...), Mend: mend}}
}

func ok(says string, args ...any) []Finding { return one(OK, "", says, args...) }

// unasked is what a check says that needs the daemon's view.
func unasked() []Finding { return one(Skipped, "", "the daemon has to be asked, and does not answer") }

// daemon and what it may do.

func daemon(f *Facts) []Finding {
	if f.Daemon == nil {
		return one(Error, f.DaemonNext, "nexthopd does not answer: %s", f.DaemonError)
	}
	if f.Daemon.Mode == "observe" {
		return one(Info, "", "nexthopd answers (pid %d) and only observes: fib.mode is observe, nothing is installed", f.Daemon.PID)
	}
	return ok("nexthopd answers (pid %d)", f.Daemon.PID)
}

func namespace(f *Facts) []Finding {
	switch {
	case f.Daemon == nil:
		return unasked()
	case f.Namespace == "" || f.Daemon.Namespace == "" || f.Namespace == f.Daemon.Namespace:
		return ok("you are in the daemon's network namespace")
	}
	return one(Warning, fmt.Sprintf("nsenter --net=/proc/%d/ns/net nexthopctl doctor", f.Daemon.PID),
		"the daemon is in another network namespace than you: what is said of settings here is about yours, not its")
}

// Bits of capabilities (linux/capability.h).
const (
	capNetBindService = 1 << 10
	capNetAdmin       = 1 << 12
)

func capabilities(f *Facts) []Finding {
	if f.Daemon == nil {
		return unasked()
	}
	if f.Capabilities == nil {
		return one(Skipped, "", "the daemon's capabilities cannot be read")
	}
	const mend = "systemctl edit nexthopd    # [Service] AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE, then: systemctl restart nexthopd"
	var missing []string
	if *f.Capabilities&capNetAdmin == 0 && f.Daemon.Mode != "observe" {
		missing = append(missing, "CAP_NET_ADMIN, without which no route can be written")
	}
	low := false
	for _, l := range f.Daemon.Listen {
		if ap, err := netip.ParseAddrPort(l); err == nil && ap.Port() < 1024 {
			low = true
		}
	}
	if *f.Capabilities&capNetBindService == 0 && low {
		missing = append(missing, "CAP_NET_BIND_SERVICE, without which it cannot listen on a port under 1024 after its next start")
	}
	if len(missing) > 0 {
		return one(Error, mend, "the daemon lacks %s", strings.Join(missing, ", and "))
	}
	return ok("the daemon has the capabilities it needs")
}

func port(f *Facts) []Finding {
	switch {
	case f.Daemon != nil:
		return ok("the daemon listens on %s", strings.Join(f.Daemon.Listen, ", "))
	case slices.ContainsFunc(f.Listeners, func(who string) bool { return strings.HasPrefix(who, "nexthopd ") }):
		return ok("TCP port 179 is held by %s", strings.Join(f.Listeners, ", "))
	case slices.ContainsFunc(f.Listeners, func(who string) bool { return strings.HasPrefix(who, diag.Unseen) }):
		return one(Skipped, "sudo nexthopctl doctor", "TCP port 179 is held by %s", strings.Join(f.Listeners, ", "))
	case len(f.Listeners) > 0:
		return one(Error, "ss -ltnp 'sport = :179'    # find its service, then: systemctl disable --now SERVICE",
			"TCP port 179 is taken by %s: nexthopd cannot start beside it", strings.Join(f.Listeners, ", "))
	}
	return ok("nobody holds TCP port 179")
}

func clock(f *Facts) []Finding {
	switch {
	case f.Clock == nil:
		return one(Skipped, "", "the state of the clock cannot be read")
	case !*f.Clock:
		return one(Warning, "timedatectl set-ntp true",
			"the clock is not synchronised: times in the journal cannot be compared with those of the NVAs")
	}
	return ok("the clock is synchronised")
}
