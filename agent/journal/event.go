// Package journal is how the daemon speaks to its operator: the catalogue of events
// with their stable MESSAGE_IDs, and slog handlers that write native journal records,
// text or JSON, and hold back repetitions. It decides nothing, and it has no way to
// print a struct: what is logged is named attribute by attribute.
package journal

import (
	"context"
	"log/slog"
)

// LevelNotice is between Info and Warn: normal, and worth an operator's attention
// (PRIORITY 5 in the journal).
const LevelNotice = slog.LevelInfo + 2

// Event is a kind of record that an operator acts on or filters by. Its ID is the
// journal's MESSAGE_ID: it never changes and is never used again, for scripts and the
// journal's catalogue refer to it.
type Event struct {
	ID      string // 128 bits, as systemd writes them
	Name    string
	Level   slog.Level
	Message string // constant; what varies goes into attributes
	// Fields are the attributes of its records, in lower case; those in parentheses are
	// not in every one. Fields says what each means.
	Fields string
	// Cause and Next are the catalogue's text: what this means, and what to do.
	Cause string
	Next  string
}

// The events. Those about one peer carry "peer" (its address); those about one prefix
// carry "prefix" and, where something was refused, "reason" or "err".
var (
	Started = Event{
		ID: "d077b2760fe6498da4bdd08d40c59b27", Name: "started", Level: LevelNotice,
		Message: "nexthopd is ready",
		Fields:  "asn router_id peers mode nexthop_objects",
		Cause:   "The BGP listener is open and the routes of an earlier run, if there were any, have been adopted.",
		Next:    "Nothing. `nexthopctl status` shows sessions and routes.",
	}
	Stopping = Event{
		ID: "ec9e85fef49b46b683ff62a5e9bbf28c", Name: "stopping", Level: LevelNotice,
		Message: "nexthopd is stopping",
		Fields:  "routes",
		Cause:   "The daemon was asked to stop. With `on-stop: keep` its routes stay in the kernel and go on forwarding.",
		Next:    "Nothing, if it was intended. The next start adopts the routes that stayed.",
	}
	Failed = Event{
		ID: "14c78407ccef4a7291ff3f1891242b1f", Name: "failed", Level: slog.LevelError,
		Message: "nexthopd ends with an error",
		Fields:  "err",
		Cause:   "A part of the daemon could not start or go on; ERR says which and why. Routes that were installed stay in the kernel.",
		Next:    "Mend what ERR names: a port or socket that another process holds, a missing capability. The unit starts the daemon again by itself.",
	}
	SessionUp = Event{
		ID: "ae2d35535fff47878bf1ae9e78c949aa", Name: "session-up", Level: LevelNotice,
		Message: "session is established",
		Fields:  "peer name local",
		Cause:   "The BGP session with the peer reached Established; routes are being exchanged.",
		Next:    "Nothing. `nexthopctl learned PEER` shows what the peer announces.",
	}
	SessionDown = Event{
		ID: "e5d73807f6ab49619cd835acab55bc49", Name: "session-down", Level: slog.LevelWarn,
		Message: "session is down",
		Fields:  "peer name cause reason graceful",
		Cause: "The BGP session with the peer ended. CAUSE is one of hold-timer (nothing was heard for the hold time), notification-received or " +
			"notification-sent (REASON has code and subcode by name), connection-lost, bfd, prefix-limit, bad-peer-as, role-mismatch, operator, deconfigured, " +
			"graceful-restart (the peer promised to keep forwarding, so its routes stay for now). The traffic has been moved to the peers that remain.",
		Next: "For hold-timer and connection-lost check the network between here and the peer; for a notification read the peer's own log; " +
			"for bad-peer-as compare the ASNs on both sides, for role-mismatch the roles. `nexthopctl peers` shows whether it is trying again.",
	}
	RestartExpired = Event{
		ID: "8833c2c5ba224e8d9d5e903a25db502e", Name: "restart-expired", Level: slog.LevelWarn,
		Message: "peer took too long to restart",
		Fields:  "peer name routes",
		Cause: "The peer announced a graceful restart, or came back to routes that `fib.persist` kept, and did not announce everything again, with its End-of-RIB, within `graceful-restart.stale-time`, `graceful-restart.long-lived`, or `fib.sweep-after`. " +
			"ROUTES is how many of its paths were kept until now and are dropped.",
		Next: "Read the peer's log: it is not back, or does not send End-of-RIB. Where it only needs longer, raise `stale-time`.",
	}
	LongLivedStart = Event{
		ID: "1fd6cd5724b949378e9d3b8814ca4f8f", Name: "long-lived-start", Level: slog.LevelWarn,
		Message: "peer is away for longer than a restart takes",
		Fields:  "peer name routes until",
		Cause: "The peer is not back from its graceful restart within its restart time, or `graceful-restart.stale-time`. As both sides have agreed " +
			"(`graceful-restart.long-lived`), ROUTES of its paths are kept, until UNTIL, as the last choice: what another peer announces, too, is forwarded there.",
		Next: "Find out why the peer's BGP is not back. `nexthopctl learned PEER -o wide` shows what is kept, and what of it still carries traffic (INSTALLED).",
	}
	LongLivedEnd = Event{
		ID: "6cd117ae0b7d4e4a93e4fdb5c54b1304", Name: "long-lived-end", Level: LevelNotice,
		Message: "no path of the peer is long-lived stale any more",
		Fields:  "peer name back",
		Cause: "BACK true: the peer's session is up again, and what was kept has been announced again or dropped. false: the time for it is over, or somebody " +
			"ended it, and it was dropped; `fib.persist` may keep it on.",
		Next: "Where BACK is false, as for session-down. Otherwise nothing.",
	}
	BFDUp = Event{
		ID: "c5a21ee379d94d19b65a7041f7b8b2ba", Name: "bfd-up", Level: LevelNotice,
		Message: "BFD is up",
		Fields:  "peer (name)",
		Cause:   "The BFD session with the peer or next hop came up: packets of both sides arrive, and silence is noticed from now on.",
		Next:    "Nothing. `nexthopctl bfd` shows the intervals that were agreed.",
	}
	BFDDown = Event{
		ID: "33279885b95147cbab251b4798aa2ffd", Name: "bfd-down", Level: slog.LevelWarn,
		Message: "BFD is down",
		Fields:  "peer (name) reason remote failed milliseconds",
		Cause: "The BFD session left the state up. REASON is the diagnostic of RFC 5880; REMOTE is the state that the other side last told: with admin-down it " +
			"ended the session on purpose, which is no failure. FAILED=true: the path is dead, its traffic was moved, and a BGP session over it is being ended. " +
			"MILLISECONDS is how long nothing had been heard when the detection time expired.",
		Next: "Check the way between here and the peer, for both directions: `ping`, `nexthopctl bfd -o wide`. If sessions fail under load while the way is fine, " +
			"allow longer intervals, or see there whether the process got its real-time priority.",
	}
	PersistStart = Event{
		ID: "34acc9266941482ba3b12cdaea2144c2", Name: "persist-start", Level: slog.LevelError,
		Message: "all sessions are lost; routes are kept for now",
		Fields:  "routes until",
		Cause: "The last session ended, and nobody here or there asked for it. As `fib.persist` says, its routes go on forwarding as they were, although nobody " +
			"confirms them any more: ROUTES of them, until UNTIL.",
		Next: "Find out why this host has no session: its network, its firewall, or all peers at once. `nexthopctl peers` has the cause of each.",
	}
	PersistEnd = Event{
		ID: "8c4f3dea59fa40c69fd7ba1053fc3d7e", Name: "persist-end", Level: slog.LevelWarn,
		Message: "routes without a session are kept no longer",
		Fields:  "outcome routes",
		Cause: "OUTCOME recovered: a session is back, and its peer has announced what it has, or was given time for it. expired: none came back in time. " +
			"dropped: their peers were removed or shut down. " +
			"ROUTES is how many paths were dropped, of peers that are not back.",
		Next: "After recovered nothing. After expired the host has no learned route left: see persist-start.",
	}
	PrefixLimitWarning = Event{
		ID: "5be0b94424744736b7e0ba93e1178491", Name: "prefix-limit-warning", Level: slog.LevelWarn,
		Message: "peer is near its prefix limit",
		Fields:  "peer name family received limit",
		Cause:   "The peer announces (RECEIVED) at least three quarters of the distinct prefixes it is allowed (LIMIT), or what `prefix-limit.warning` says. Beyond the limit the configured action is taken.",
		Next:    "If so many prefixes are expected, raise the peer's limit; if not, look at what it announces: `nexthopctl learned PEER`.",
	}
	PrefixLimitReached = Event{
		ID: "1c900bed687e4a2f92b4ad78e471dab7", Name: "prefix-limit-reached", Level: slog.LevelWarn,
		Message: "peer is beyond its prefix limit",
		Fields:  "peer name family received limit",
		Cause: "The peer announces more distinct prefixes (RECEIVED) than it is allowed (LIMIT). With `action: freeze` those that came first are used and the " +
			"others are not, while the session stays; with `action: close` the session ends, and session-down tells of it.",
		Next: "If so many prefixes are expected, raise the peer's limit and reload: nothing is reset. If not, look at what it announces: " +
			"`nexthopctl learned PEER`. What is beyond comes in by itself as soon as the peer withdraws enough.",
	}
	DynamicRefused = Event{
		ID: "b50d364a595e409db0a38ec6f9ba2689", Name: "dynamic-refused", Level: slog.LevelWarn,
		Message: "range has no room for another peer",
		Fields:  "prefix limit address",
		Cause:   "ADDRESS connected and is in the range PREFIX of `dynamic-peers`, of which there are as many peers as its LIMIT allows. The connection was closed. Other addresses of the range may have met the same since.",
		Next:    "If there are so many, raise the limit of the range and reload: nothing is reset. `nexthopctl peers` shows who came; one whose session is down makes room after 5 minutes.",
	}
	ConnectionRefused = Event{
		ID: "f4051ad07b43468cb1f378fba96ff4fc", Name: "connection-refused", Level: slog.LevelWarn,
		Message: "connection is refused before BGP has it",
		Fields:  "address reason",
		Cause: "ADDRESS connected, and was disconnected before anything of it was parsed. REASON rate: it is a peer, or in a range of `dynamic-peers`, and connects far more often than a peer does (30 times, then twice a second). " +
			"open: it is in a range that has a list of ASNs, and sent no OPEN within 10 s, or came while so many others did not. asn: its ASN is not in that list. " +
			"Others may have met the same since; the metric `nexthopd_bgp_connections_refused_total` counts all.",
		Next: "rate: look at what runs on ADDRESS; its session and those of others are not disturbed. asn: if it is to be a peer, add its ASN to the range's `asn` and reload.",
	}
	FIBRefused = Event{
		ID: "4a0f018e50864f8fba16aa1b57b66613", Name: "fib-refused", Level: slog.LevelError,
		Message: "kernel refused a write",
		Fields:  "prefix op err",
		Cause:   "The kernel did not accept a route, next hop or group; ERR has its own words. The write is retried with growing pauses, other prefixes are not affected.",
		Next:    "`nexthopctl explain PREFIX` shows the next hops tried and when the next attempt is.",
	}
	ForeignConflict = Event{
		ID: "5bffac30eba84e4ea75706ce61b20398", Name: "foreign-conflict", Level: slog.LevelWarn,
		Message: "another program's route is in the way",
		Fields:  "prefix table reason protocol",
		Cause:   "A route that nexthopd did not make holds the same table, prefix and metric. It is never changed; ours is installed once it is gone.",
		Next:    "`ip route show PREFIX` shows it, its protocol tells who made it. Remove it, or give nexthopd another `fib.metric`.",
	}
	Repair = Event{
		ID: "89c1d8f04f5f4967add4851653e4788b", Name: "repair", Level: slog.LevelWarn,
		Message: "repaired what another program changed",
		Fields:  "reason routes (by) (prefix)",
		Cause:   "Routes, next hops or groups of nexthopd were deleted or changed by another program, or lost when an interface went down, and have been written again.",
		Next: "If it goes on, find who does it: another routing daemon that uses the same protocol number, or a network manager that removes foreign " +
			"routes (systemd-networkd: ManageForeignRoutes=no).",
	}
	Resync = Event{
		ID: "e8f469666d6b4f2faf09c3a39bcda924", Name: "resync", Level: LevelNotice,
		Message: "compared everything with the kernel",
		Fields:  "reason routes differences",
		Cause:   "The kernel's tables were read in full and differences written, because notifications were lost, an outcome was unknown, or an operator asked.",
		Next:    "Nothing, unless it is frequent: then the machine is short of CPU, or another program changes routes at a high rate.",
	}
	Failover = Event{
		ID: "464f36bb506b464abc9b29bae070cf0e", Name: "failover", Level: slog.LevelWarn,
		Message: "moved traffic away from a lost next hop",
		Fields:  "signal groups prefixes microseconds (peer)",
		Cause:   "A peer or a next hop was lost, and all groups that held it were rewritten to the ways that remain.",
		Next:    "See the session-down or nexthop-lost record next to this one for what was lost. Until it is back there may be no redundancy: `nexthopctl status`.",
	}
	NextHopLost = Event{
		ID: "baf77303213f4ac9b25b66ca7052afbe", Name: "nexthop-lost", Level: slog.LevelWarn,
		Message: "next hop became unreachable",
		Fields:  "nexthop reason",
		Cause:   "The host's own routes, links and addresses no longer lead to this next hop (REASON), so it carries no traffic.",
		Next:    "`ip route get NEXTHOP` and `ip link` show the host's side. The next hop is used again by itself as soon as it is reachable.",
	}
	NextHopFound = Event{
		ID: "92301c43cb7c44f8a9dc9e9366779cd8", Name: "nexthop-found", Level: LevelNotice,
		Message: "next hop became reachable",
		Fields:  "nexthop",
		Cause:   "A change of a route, link or address made this next hop reachable.",
		Next:    "Nothing.",
	}
	BlastRadius = Event{
		ID: "7c1d0b9e5a2f4d36b8e04f6c93a1d2e7", Name: "blast-radius", Level: slog.LevelError,
		Message: "configuration would remove too many routes and is held back",
		Fields:  "file routes installed changes",
		Cause: "Applying the changed file would remove ROUTES of the INSTALLED routes at once, more than `fib.blast-radius` allows. Nothing was changed. " +
			"Sessions that would be reset count too: their routes are gone until they are back.",
		Next: "`nexthopctl resume` shows what would happen, `nexthopctl resume --yes` does it. If it is a mistake, mend the file and reload.",
	}
	ConfigApplied = Event{
		ID: "5105f087af6148baaaba78df35cb675c", Name: "config-applied", Level: LevelNotice,
		Message: "configuration is applied",
		Fields:  "file changes (needs_restart)",
		Cause:   "The configuration file was read, is valid, and is in use.",
		Next:    "Nothing.",
	}
	ConfigRefused = Event{
		ID: "e4f63cdcfec64b3eabeeae477b77c927", Name: "config-refused", Level: slog.LevelError,
		Message: "configuration is refused",
		Fields:  "file err",
		Cause:   "The configuration file has mistakes (ERR lists them with their places). A daemon that runs keeps the configuration it has; one that starts ends with status 78.",
		Next:    "Mend the file, try it with `nexthopd check FILE`, then reload or start again.",
	}
	ConfigIncomplete = Event{
		ID: "3943d22094e14d92ae90c51a8241c0be", Name: "config-incomplete", Level: slog.LevelError,
		Message: "configuration is applied in part",
		Fields:  "file changes err",
		Cause:   "The configuration file is valid, and some of its changes could not be carried out; ERR says which and why. The others are in force.",
		Next:    "Mend what ERR names, such as a secret that the daemon's user cannot read, and reload again: that tries the rest.",
	}
	OperatorAction = Event{
		ID: "6dbbfe9a075a40748bcc5a3965be33d2", Name: "operator-action", Level: slog.LevelWarn,
		Message: "an operator changed something",
		Fields:  "action (peer) (name) (reason) (routes)",
		Cause: "Somebody used nexthopctl: ACTION is disable, enable, reset or refresh of the peer, drain, undrain, flush, or resume (of routes that were kept). What is disabled, drained " +
			"or flushed stays so until it is taken back, or the daemon restarts.",
		Next: "Nothing, if it was intended. `nexthopctl status` shows what is still in force, and the command that takes it back.",
	}
	Swept = Event{
		ID: "7c440aa4f2fd44a3af217c5d1305bd03", Name: "swept", Level: LevelNotice,
		Message: "removing routes that no peer announced again",
		Fields:  "routes all_peers_heard",
		Cause:   "Routes of an earlier run were still in the kernel, and no peer has announced them since: they are removed. ALL_PEERS_HEARD=false: not every peer has told everything within `fib.sweep-after`.",
		Next:    "Nothing, if the peers are as expected. If one was not heard: `nexthopctl peers` shows why it is not up.",
	}
	SweepHeld = Event{
		ID: "67e00585f07d491f89aad6b124a2f52b", Name: "sweep-held", Level: slog.LevelWarn,
		Message: "keeping the routes of an earlier run, for no session is up",
		Fields:  "routes of share",
		Cause:   "It is time to remove what no peer announced again, but not a single session is up and ROUTES of OF routes would go, more than `fib.sweep-share` allows: it is probably this host that is cut off.",
		Next:    "Find out why no session comes up: `nexthopctl doctor`, `nexthopctl peers`. The routes stay until a peer is back.",
	}
	RoutesKept = Event{
		ID: "c3ec304dda3c4e6c927edfe98f8ee270", Name: "routes-kept", Level: slog.LevelError,
		Message: "too many routes should go at once, and are kept",
		Fields:  "reason routes installed",
		Cause: "ROUTES of the INSTALLED routes should be removed at once, more than `fib.blast-radius` allows, and not because a peer is lost or withdrew them. REASON=sweep: a start with a configuration that refuses them, or lacks their peer. " +
			"Else a comparison with the kernel, begun for REASON, found routes marked as ours that no peer announces. They forward as before; each is taken over as soon as a peer announces its prefix.",
		Next: "`nexthopctl resume` says what would happen, `nexthopctl resume --yes` removes them. If the configuration is wrong, mend it and reload. `nexthopctl explain PREFIX` tells of a single route.",
	}
	Contested = Event{
		ID: "bc873509b9824053bfd454eaa1351baa", Name: "contested", Level: slog.LevelWarn,
		Message: "another program keeps changing a route of ours",
		Fields:  "prefix again_in",
		Cause:   "The route was put back several times in some seconds and is changed again and again. It is put back less often now, so that two programs do not load the machine.",
		Next:    "Find who does it: `ip monitor route` shows the changes, `nexthopctl doctor` who uses our protocol number or metric.",
	}
	FaultyMessage = Event{
		ID: "37a5300cc24d4544acc5e87b527f8e75", Name: "faulty-message", Level: slog.LevelWarn,
		Message: "the peer sent a faulty message",
		Fields:  "peer reaction err (prefixes)",
		Cause:   "A message of the peer breaks the protocol as ERR says. REACTION is what was done about it, the least that RFC 7606 allows.",
		Next:    "Report ERR to the vendor of the appliance. `nexthopctl peer PEER` shows the session.",
	}
	Unhealthy = Event{
		ID: "78afe0108c004a1f9f33f2a9002f574d", Name: "unhealthy", Level: slog.LevelError,
		Message: "not healthy, systemd's watchdog will restart the daemon",
		Fields:  "err after",
		Cause:   "The main loop does not go round (ERR). systemd is not told any more that all is well, and ends the daemon with SIGABRT after the time of WatchdogSec=; the goroutines are written to the journal, the routes stay, and the next start adopts them.",
		Next:    "Keep the trace that follows in the journal, and report it: it shows where the daemon hangs.",
	}
)

// Events lists the whole catalogue, in the order in which it is documented.
func Events() []Event {
	return []Event{
		Started, Stopping, Failed, Unhealthy, ConfigApplied, ConfigRefused, ConfigIncomplete, BlastRadius, OperatorAction,
		SessionUp, SessionDown, RestartExpired, LongLivedStart, LongLivedEnd, PersistStart, PersistEnd, BFDUp, BFDDown, FaultyMessage, PrefixLimitWarning, PrefixLimitReached, DynamicRefused, ConnectionRefused,
		Failover, NextHopLost, NextHopFound,
		FIBRefused, ForeignConflict, Contested, Repair, Resync, Swept, SweepHeld, RoutesKept,
	}
}

// Field is an attribute of records of events, and what it says. In the journal its name is
// upper case, to filter by.
type Field struct{ Name, Means string }

// Fields lists the attributes that records of events have.
func Fields() []Field {
	return []Field{
		{"message_id", "the event's id"},
		{"event", "the event's name"},
		{"suppressed", "how many records like this one were held back before it"},
		{"peer", "the peer's address"},
		{"name", "the peer's name"},
		{"local", "our address of the session"},
		{"cause", "why a session ended, in a word"},
		{"reason", "why, in a word or as the other side put it"},
		{"graceful", "true: the peer keeps forwarding while it restarts (RFC 4724)"},
		{"back", "true: the peer's session is up again"},
		{"remote", "the state that the other side last told"},
		{"failed", "true: the path is dead, and its traffic was moved"},
		{"milliseconds", "how long nothing had been heard"},
		{"family", "ipv4 or ipv6"},
		{"received", "how many distinct prefixes the peer announces"},
		{"limit", "how many it may; of a range of dynamic peers: how many there may be"},
		{"address", "who connected"},
		{"prefix", "the route"},
		{"nexthop", "the next hop"},
		{"err", "what failed and why; the kernel's own words where it refused something"},
		{"op", "what was asked of the kernel"},
		{"table", "the routing table"},
		{"protocol", "the route protocol of the other program, by name where it has one"},
		{"by", "the port id of the netlink socket that did it: the process id, mostly"},
		{"routes", "how many routes; of stopping: what becomes of them"},
		{"until", "how long they are kept"},
		{"outcome", "how it ended, in a word"},
		{"installed", "how many routes are installed"},
		{"differences", "how many of them were not as they should be"},
		{"all_peers_heard", "false: they are removed because fib.sweep-after is over"},
		{"of", "how many there are in all"},
		{"share", "fib.sweep-share, in percent"},
		{"again_in", "when the route is put back once more"},
		{"reaction", "what was done about it"},
		{"after", "WatchdogSec= of the unit"},
		{"signal", "what told of the loss, and whose: session 10.1.0.4"},
		{"groups", "how many next-hop groups were rewritten"},
		{"prefixes", "how many prefixes that concerns"},
		{"microseconds", "from the signal to the kernel's confirmation"},
		{"action", "what the operator asked for"},
		{"file", "the configuration file"},
		{"changes", "what changed, as `nexthopctl reload --dry-run` prints it"},
		{"needs_restart", "changed keys that keep their old values until a restart"},
		{"asn", "our AS number"},
		{"router_id", "our BGP identifier"},
		{"peers", "how many peers are configured"},
		{"mode", "fib.mode"},
		{"nexthop_objects", "true: this kernel has next-hop objects"},
	}
}

// Attribute keys that this package gives a meaning to; they are the same everywhere.
const (
	keyEvent      = "event"
	keyMessageID  = "message_id"
	keySuppressed = "suppressed" // records like this one that were held back before it
	keyPeer       = "peer"
	keyPrefix     = "prefix"
	keyNextHop    = "nexthop"
)

// Log writes a record of the event, at the event's level and with its message.
func Log(logger *slog.Logger, ev Event, attrs ...slog.Attr) {
	all := make([]slog.Attr, 0, len(attrs)+2)
	all = append(all, slog.String(keyEvent, ev.Name), slog.String(keyMessageID, ev.ID))
	logger.LogAttrs(context.Background(), ev.Level, ev.Message, append(all, attrs...)...)
}
