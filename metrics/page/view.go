package page

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nexthopd/nexthopd/agent/session"
	"github.com/nexthopd/nexthopd/agent/status"
)

// What a page shows at most of each kind; the rest is summed up in a line.
const (
	mostProblems  = 12
	mostPeers     = 32
	mostGroups    = 12
	mostFailovers = 8
)

// level is how good or bad something is, and the class it is painted by.
type level string

const (
	good level = "good"
	warn level = "warn"
	bad  level = "bad"
	off  level = "off" // on purpose
)

// view is the page's content, in the words it is shown in.
type view struct {
	Level         level
	Headline      string
	Host          string
	About         []string
	Time          string
	Problems      []status.Problem
	MoreProblems  int
	Facts         []fact
	Wide, Narrow  diagram
	Peers         []peerRow
	MorePeers     string
	Groups        []groupRow
	MoreGroups    string
	Rejected      []reasonRow
	Failovers     []failoverRow
	MoreFailovers int

	restGroups, restPrefixes int
}

type fact struct {
	Name, Value, Note string
	Level             level
}

type peerRow struct {
	Name, Address, ASN, State, For, Why string
	BFD                                 string
	Received, Accepted, Advertised      string
	Flaps                               string
	Level                               level
}

type groupRow struct {
	Label               string // A, B, C: it is found in the diagram by it
	Prefixes, Installed string
	Level               level
	State               string
	Ways                []status.Way

	n, installed int
}

type reasonRow struct{ Reason, Prefixes string }

type failoverRow struct{ At, Ago, Signal, Prefixes, Groups, Took string }

// newView turns an overview into what the page shows.
func newView(o status.Overview, now time.Time) view {
	v := view{
		Host: o.Host, Time: now.UTC().Format("2006-01-02 15:04:05 UTC"),
		About: []string{"nexthopd " + o.Version, fmt.Sprintf("AS %d", o.ASN), "router ID " + o.RouterID.String(), "up for " + age(now.Sub(o.StartedAt))},
	}
	v.Problems = o.Degraded
	if !o.Ready {
		v.Problems = append([]status.Problem{{What: "not ready: " + o.NotReady, Next: "nexthopctl status"}}, v.Problems...)
	}
	groups := merge(o.Groups)
	lost := 0
	for _, g := range groups {
		if g.Level == bad {
			lost += g.n
		}
	}
	v.judge(o, lost)
	if n := len(v.Problems); n > mostProblems {
		v.Problems, v.MoreProblems = v.Problems[:mostProblems], n-mostProblems
	}
	v.facts(o, now, lost)
	v.peers(o.PeerList, now)
	v.groups(groups, o)
	for _, reason := range slices.Sorted(maps.Keys(o.FIB.Rejected)) {
		v.Rejected = append(v.Rejected, reasonRow{reason, count(o.FIB.Rejected[reason])})
	}
	for i, f := range o.Failovers {
		if i == mostFailovers {
			v.MoreFailovers = len(o.Failovers) - i
			break
		}
		v.Failovers = append(v.Failovers, failoverRow{
			f.At.UTC().Format("2006-01-02 15:04:05"), age(now.Sub(f.At)) + " ago", f.Signal, count(f.Prefixes), count(f.Groups), micros(f.Microseconds),
		})
	}
	v.Wide, v.Narrow = draw(wide, o, v), draw(narrow, o, v)
	return v
}

// judge sums everything up in one line.
func (v *view) judge(o status.Overview, lost int) {
	switch n := len(v.Problems); {
	case o.Peers.Configured > o.Peers.Shutdown && o.Peers.Established == 0:
		v.Level, v.Headline = bad, "No NVA is up"
	case lost > 0:
		v.Level, v.Headline = bad, plural(lost, "prefix has no way", "prefixes have no way")
	case n > 0:
		v.Level, v.Headline = warn, plural(n, "problem", "problems")
	default:
		v.Level, v.Headline = good, "All is well"
	}
}

func (v *view) facts(o status.Overview, now time.Time, lost int) {
	peers := fact{Name: "NVAs up", Value: fmt.Sprintf("%d of %d", o.Peers.Established, o.Peers.Configured-o.Peers.Shutdown), Level: good}
	if o.Peers.Established < o.Peers.Configured-o.Peers.Shutdown {
		peers.Level = bad
	}
	if o.Peers.Shutdown > 0 {
		peers.Note = fmt.Sprintf("and %d shut down", o.Peers.Shutdown)
	}
	f := o.FIB
	installed := fact{Name: "prefixes installed", Value: count(f.Installed), Note: "of " + count(f.Prefixes) + " known", Level: good}
	switch {
	case f.Mode == "observe":
		installed.Note, installed.Level = "observe mode: nothing is written", off
	case f.Installed < f.Desired:
		installed.Note, installed.Level = count(f.Desired-f.Installed)+" are missing in the kernel", bad
	}
	spare := fact{Name: "prefixes with one NVA only", Value: count(f.Single), Level: good}
	if f.Single > 0 {
		spare.Level, spare.Note = warn, "lost if it fails"
	}
	if lost > 0 {
		spare.Note = count(lost) + " have none"
		spare.Level = bad
	}
	failover := fact{Name: "last failover", Value: "none", Note: "since the start", Level: good}
	if last := o.LastFailover; last != nil {
		failover.Value, failover.Note = micros(last.Microseconds), count(last.Prefixes)+" prefixes, "+age(now.Sub(last.At))+" ago"
	}
	v.Facts = []fact{peers, installed, spare, failover}
}

func (v *view) peers(peers []status.Peer, now time.Time) {
	if len(peers) > mostPeers { // those that are down are what somebody looks for
		peers = slices.Clone(peers)
		slices.SortStableFunc(peers, func(a, b status.Peer) int { return rank(peerLevel(a)) - rank(peerLevel(b)) })
	}
	for i, p := range peers {
		if i == mostPeers {
			received := 0
			for _, p := range peers[i:] {
				received += p.Received
			}
			v.MorePeers = fmt.Sprintf("and %s more, with %s prefixes", count(len(peers)-i), count(received))
			break
		}
		row := peerRow{
			Name: p.Name, Address: p.Address.String(), ASN: strconv.FormatUint(uint64(p.ASN), 10), State: p.State, Level: peerLevel(p),
			Received: count(p.Received), Accepted: count(p.Accepted), Advertised: count(p.Advertised), Flaps: strconv.FormatUint(p.Flaps, 10),
		}
		if p.BFD != "" {
			row.BFD = "BFD " + p.BFD
		}
		if f, split := p.Families["ipv4"]; split && f.Advertised == nil {
			row.Advertised = "–" // not counted
		}
		switch {
		case p.Shutdown:
			row.State = "shut down"
		case p.LongLivedUntil != nil:
			row.State, row.Why = "restarting", "its routes are kept as the last choice (long-lived stale)"
		case p.Restarting:
			row.State, row.Why = "restarting", "its routes are kept as stale"
		case row.Level == bad && p.LastDown != "":
			row.Why = p.LastDown
		}
		if p.Warning != "" {
			row.Why = p.Warning
		}
		switch {
		case row.Level == bad && p.LastDownAt != nil:
			row.For = age(now.Sub(*p.LastDownAt))
		case p.Since != nil:
			row.For = age(now.Sub(*p.Since))
		}
		v.Peers = append(v.Peers, row)
	}
}

func peerLevel(p status.Peer) level {
	switch {
	case p.Shutdown, p.Dynamic && p.State != string(session.Established) && !p.Restarting:
		return off
	case p.Restarting:
		return warn
	case p.State != string(session.Established):
		return bad
	case p.Warning != "", p.BFD != "" && p.BFD != "up":
		return warn
	}
	return good
}

func rank(l level) int { return slices.Index([]level{bad, warn, off, good}, l) }

// merge makes one group of those that forward alike at present, and puts first what needs
// a look, then what most prefixes use.
func merge(groups []status.Group) []groupRow {
	var out []groupRow
	found := map[string]int{}
	for _, g := range groups {
		ways := slices.Clone(g.Ways)
		slices.SortStableFunc(ways, func(a, b status.Way) int { return strings.Compare(a.Peer, b.Peer) })
		key := fmt.Sprint(ways)
		i, ok := found[key]
		if !ok {
			i = len(out)
			found[key] = i
			row := groupRow{Ways: ways}
			row.Level, row.State = judgeWays(ways)
			out = append(out, row)
		}
		out[i].n += g.Prefixes
		out[i].installed += g.Installed
	}
	slices.SortStableFunc(out, func(a, b groupRow) int {
		if c := rank(a.Level) - rank(b.Level); c != 0 {
			return c
		}
		return b.n - a.n
	})
	return out
}

// judgeWays says how a group with these ways is.
func judgeWays(ways []status.Way) (level, string) {
	n := map[status.Use]int{}
	for _, w := range ways {
		n[w.Use]++
	}
	text := fmt.Sprintf("%d in use", n[status.InUse])
	if n[status.Standby] > 0 {
		text += fmt.Sprintf(", %d standby", n[status.Standby])
	}
	if n[status.Dead] > 0 {
		text += fmt.Sprintf(", %d dead", n[status.Dead])
	}
	switch {
	case len(ways) == 0:
		return warn, "from an earlier run"
	case n[status.InUse] == 0:
		return bad, "no way"
	case n[status.Dead] > 0:
		return warn, text
	case len(ways) == 1:
		return warn, text + ", no spare"
	}
	return good, text
}

func (v *view) groups(groups []groupRow, o status.Overview) {
	rest := groupRow{n: o.Rest.Prefixes, installed: o.Rest.Installed}
	more := o.More
	for i, g := range groups {
		if i >= mostGroups {
			more++
			rest.n += g.n
			rest.installed += g.installed
			continue
		}
		g.Label = string(rune('A' + i))
		g.Prefixes, g.Installed = count(g.n), count(g.installed)
		if len(g.Ways) == 0 {
			g.Prefixes = g.Installed
		}
		v.Groups = append(v.Groups, g)
	}
	if more > 0 {
		v.restGroups, v.restPrefixes = more, rest.n
		v.MoreGroups = fmt.Sprintf("and %s with %s, %s of them installed",
			plural(more, "more group", "more groups"), plural(rest.n, "prefix", "prefixes"), count(rest.installed))
	}
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// age writes a duration in its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch days := int(d / (24 * time.Hour)); {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, int(d/time.Hour)%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d/time.Hour), int(d/time.Minute)%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", int(d/time.Minute), int(d/time.Second)%60)
	}
	return fmt.Sprintf("%ds", int(d/time.Second))
}

func micros(us int64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%.2f s", float64(us)/1e6)
	case us >= 1e4:
		return fmt.Sprintf("%.0f ms", float64(us)/1e3)
	case us >= 1e3:
		return fmt.Sprintf("%.1f ms", float64(us)/1e3)
	}
	return fmt.Sprintf("%d µs", us)
}
