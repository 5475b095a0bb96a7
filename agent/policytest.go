package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/rib"
	"github.com/nexthopd/nexthopd/agent/status"
)

// maxPolicyChanges bounds the paths that an answer lists one by one.
const maxPolicyChanges = 1000

// testPolicy says what the filter of a peer does, or would do: with one path, or with
// all that the peer announces. Nothing is changed.
func (a *Agent) testPolicy(ctx context.Context, r status.PolicyRequest) (status.PolicyTest, error) {
	cfg := a.config()
	candidate := cfg
	if r.Config != "" {
		// To read a configuration is to look at the files that it names.
		if who, ok := ctx.Value(callerKey{}).(caller); !ok || !who.mayChange(os.Geteuid(), os.Getegid()) {
			return status.PolicyTest{}, &refusal{
				http.StatusForbidden, "to try another configuration takes root or a member of the daemon's group (nexthopd)", "sudo nexthopctl",
			}
		}
		var err error
		if candidate, err = config.Parse(r.File, []byte(r.Config)); err != nil {
			return status.PolicyTest{}, err
		}
		candidate = candidate.With(cfg.Dynamic())
	}
	now, then := findPeer(cfg, r.Peer), findPeer(candidate, r.Peer)
	switch {
	case then == nil:
		return status.PolicyTest{}, &refusal{http.StatusNotFound, "no peer has the name or address " + r.Peer, "nexthopctl peers"}
	case r.Learned && r.Export:
		return status.PolicyTest{}, conflict("nexthopctl policy test --help", "what a peer announces is imported, not exported")
	case r.Learned:
		return a.testLearned(now, then), nil
	}
	attrs, prefix, err := pathOf(r, then, candidate.ASN)
	if err != nil {
		return status.PolicyTest{}, &refusal{http.StatusBadRequest, err.Error(), "nexthopctl policy test --help"}
	}
	f := then.Import
	if r.Export {
		f = then.Export
	}
	v := apply(f, prefix, attrs)
	return status.PolicyTest{Peer: then.Name, Prefix: prefix.String(), Accepted: v.Accepted, Rule: v.Text}, nil
}

func findPeer(c *config.Config, name string) *config.Peer {
	i := slices.IndexFunc(c.Peers, func(p config.Peer) bool { return p.Name == name || p.Address.String() == name })
	if i < 0 {
		return nil
	}
	return &c.Peers[i]
}

// apply is what a filter says; nil accepts everything.
func apply(f *policy.Filter, p netip.Prefix, a *rib.Attrs) policy.Verdict {
	if f == nil {
		return policy.Verdict{Accepted: true, Attrs: a, Rule: -1, Text: "there is no filter"}
	}
	v := f.Apply(p, a)
	if v.Text == "" {
		v.Text = "no rule matches, and the default is accept"
	}
	return v
}

// pathOf makes the path that a request describes. What it leaves out is as the peer would
// announce a path of its own.
func pathOf(r status.PolicyRequest, peer *config.Peer, asn uint32) (*rib.Attrs, netip.Prefix, error) {
	prefix, addr, err := parseQuery(r.Prefix)
	if err != nil || addr.IsValid() {
		return nil, prefix, fmt.Errorf("%q is not a prefix such as 10.0.0.0/8", r.Prefix)
	}
	at := &rib.Attrs{NextHop: peer.Address, HasMED: r.MED != nil}
	if r.MED != nil {
		at.MED = *r.MED
	}
	if r.NextHop != "" {
		if at.NextHop, err = netip.ParseAddr(r.NextHop); err != nil {
			return nil, prefix, fmt.Errorf("%q is not a next hop such as 10.1.0.4", r.NextHop)
		}
	}
	asns := []uint32{peer.ASN}
	if r.ASPath != "" {
		asns = nil
		for _, word := range strings.FieldsFunc(r.ASPath, func(c rune) bool { return c == ' ' || c == '-' || c == ',' }) {
			n, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				return nil, prefix, fmt.Errorf("%q is not an AS path such as \"65147 65001\"", r.ASPath)
			}
			asns = append(asns, uint32(n))
		}
	}
	if r.Export {
		asns = append([]uint32{asn}, asns...) // as it is announced
	}
	at.ASPath = rib.ASPath{{Type: rib.ASSequence, ASNs: asns}}
	for _, text := range r.Communities {
		if c, err := policy.ParseCommunity(text); err == nil {
			if v, one := c.Value(); one {
				at.Communities = append(at.Communities, v)
				continue
			}
		} else if c, err := policy.ParseLargeCommunity(text); err == nil {
			if v, one := c.Value(); one {
				at.LargeCommunities = append(at.LargeCommunities, v)
				continue
			}
		}
		return nil, prefix, fmt.Errorf("%q is not a community such as 65147:100, 65147:1:2 or no-export", text)
	}
	return at, prefix, nil
}

// testLearned compares what the filter of a peer says of all its paths with what it would
// say. now is nil for a peer that is not configured yet.
func (a *Agent) testLearned(now, then *config.Peer) status.PolicyTest {
	t := status.PolicyTest{Peer: then.Name, Rules: []status.PolicyCount{}, Changes: []status.PolicyChange{}}
	counts := map[string]*status.PolicyCount{}
	var current *policy.Filter
	if now != nil {
		current = now.Import
	}
	a.mu.Lock()
	p := a.peers.byAddr[then.Address]
	prefixes := a.rib.Prefixes()
	a.mu.Unlock()
	if p == nil {
		return t
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for chunk := range slices.Chunk(prefixes, viewChunk) {
		a.mu.Lock()
		for _, prefix := range chunk {
			i := slices.IndexFunc(a.rib.Paths(prefix), func(x rib.Path) bool { return x.Source == p.source })
			if i < 0 {
				continue
			}
			at := a.rib.Paths(prefix)[i].Attrs
			before, after := apply(current, prefix, at), apply(then.Import, prefix, at)
			t.Paths++
			c := counts[after.Text]
			if c == nil {
				c = &status.PolicyCount{Rule: after.Text, Accepted: after.Accepted}
				counts[after.Text] = c
			}
			c.Paths++
			if before.Accepted == after.Accepted {
				continue
			}
			t.Changed++
			if len(t.Changes) < maxPolicyChanges {
				t.Changes = append(t.Changes, status.PolicyChange{Prefix: prefix.String(), Accepted: after.Accepted, Rule: after.Text})
			}
		}
		a.mu.Unlock()
	}
	for _, c := range counts {
		t.Rules = append(t.Rules, *c)
	}
	slices.SortFunc(t.Rules, func(x, y status.PolicyCount) int { return strings.Compare(x.Rule, y.Rule) })
	return t
}
