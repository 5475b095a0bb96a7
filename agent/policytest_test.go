package agent

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/agent/policy"
	"github.com/nexthopd/nexthopd/agent/status"
	"github.com/nexthopd/nexthopd/fib/fibtest"
)

func TestPolicyTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *config.Config, _ *fibtest.Machine) {
			ours, err := policy.ParseCommunity("65147:*")
			if err != nil {
				t.Fatal(err)
			}
			c.Peers[0].Import = filterOf(t, policy.Accept,
				policy.Rule{Name: "ours", Match: policy.Match{Communities: []policy.Community{ours}, ASPaths: []policy.Pattern{{Ends: 65001}}}, Action: policy.Accept},
				policy.Rule{Name: "few", Match: within(t, "20.0.0.0/22 le 24"), Action: policy.Reject})
		})
		l.up(quagga)
		l.announce(quagga, many(10)...)
		l.settle()
		for _, tt := range []struct {
			r    status.PolicyRequest
			want string
		}{
			{status.PolicyRequest{Peer: "quagga", Prefix: "20.0.1.0/24"}, `false rule "few" (prefix 20.0.0.0/22 le 24)`},
			{status.PolicyRequest{Peer: "10.1.0.4", Prefix: "20.0.1.0/24", ASPath: "65147 65001", Communities: []string{"65147:1"}},
				`true rule "ours" (community 65147:*, as-path {ends: 65001})`},
			{status.PolicyRequest{Peer: "quagga", Prefix: "21.0.0.0/8"}, "true no rule matches, and the default is accept"},
			{status.PolicyRequest{Peer: "bird", Prefix: "21.0.0.0/8"}, "true there is no filter"},
			{status.PolicyRequest{Peer: "nobody", Prefix: "21.0.0.0/8"}, "no peer has the name or address nobody"},
			{status.PolicyRequest{Peer: "quagga", Prefix: "x"}, `"x" is not a prefix such as 10.0.0.0/8`},
			{status.PolicyRequest{Peer: "quagga", Prefix: "21.0.0.0/8", Communities: []string{"1:*"}}, `"1:*" is not a community such as 65147:100, 65147:1:2 or no-export`},
		} {
			got, err := l.a.testPolicy(t.Context(), tt.r)
			text := fmt.Sprintf("%v %s", got.Accepted, got.Rule)
			if err != nil {
				text = err.Error()
			}
			if text != tt.want {
				t.Errorf("%+v: %s, want %s", tt.r, text, tt.want)
			}
		}
		r := status.PolicyRequest{Peer: "quagga", Learned: true, File: "new.yaml",
			Config: "peers: [{name: quagga, address: 10.1.0.4, asn: 65147, import: {rules: [{name: one, match: {prefix: 20.0.7.0/24}, action: reject}]}}]\n"}
		if _, err := l.a.testPolicy(t.Context(), r); err == nil {
			t.Error("who may not change may have files looked at")
		}
		ctx := context.WithValue(t.Context(), callerKey{}, caller{uid: uint32(os.Geteuid())})
		got, err := l.a.testPolicy(ctx, r)
		if err != nil || got.Paths != 10 || got.Changed != 5 || len(got.Changes) != 5 || got.Changes[4] != (status.PolicyChange{Prefix: "20.0.7.0/24", Rule: `rule "one" (prefix 20.0.7.0/24)`}) {
			t.Errorf("against what is learned: %+v, %v", got, err)
		}
		l.expect("nothing is changed", many(10)[0])
	})
}
