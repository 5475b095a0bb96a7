package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// kernelRoute is what "ip -j route" and "ip -j nexthop" say of a route or next hop;
// with next-hop objects a route may name nothing but an id.
type kernelRoute struct {
	NHID     uint32     `json:"nhid"`
	Gateway  netip.Addr `json:"gateway"`
	Via      *via       `json:"via"` // a gateway of the other family
	Nexthops []struct {
		Gateway netip.Addr `json:"gateway"`
		Via     *via       `json:"via"`
		Flags   []string   `json:"flags"`
	} `json:"nexthops"`
	Group []struct {
		ID uint32 `json:"id"`
	} `json:"group"`
}

type via struct {
	Host netip.Addr `json:"host"`
}

// Gateways reads the next hops that the kernel's main table has for exactly that
// prefix, in order of address; none when there is no route. Next-hop objects are
// followed, because with nexthop_compat_mode=0 the route itself does not list them.
func (n *Node) Gateways(ctx context.Context, prefix netip.Prefix) ([]netip.Addr, error) {
	family := "-4"
	if prefix.Addr().Is6() {
		family = "-6"
	}
	var routes []kernelRoute
	if err := n.ipJSON(ctx, &routes, family, "route", "show", "exact", prefix.String()); err != nil {
		return nil, err
	}
	var gws []netip.Addr
	for _, r := range routes {
		more, err := n.gatewaysOf(ctx, r)
		if err != nil {
			return nil, err
		}
		gws = append(gws, more...)
	}
	slices.SortFunc(gws, netip.Addr.Compare)
	return gws, nil
}

func (n *Node) gatewaysOf(ctx context.Context, r kernelRoute) ([]netip.Addr, error) {
	var gws []netip.Addr
	if r.NHID != 0 {
		return n.objectGateways(ctx, r.NHID)
	}
	add := func(gw netip.Addr, other *via) {
		if other != nil {
			gw = other.Host
		}
		if gw.IsValid() {
			gws = append(gws, gw)
		}
	}
	add(r.Gateway, r.Via)
	for _, nh := range r.Nexthops {
		add(nh.Gateway, nh.Via)
	}
	return gws, nil
}

// objectGateways follows a next-hop object, which may be a group.
func (n *Node) objectGateways(ctx context.Context, id uint32) ([]netip.Addr, error) {
	var objects []kernelRoute
	if err := n.ipJSON(ctx, &objects, "nexthop", "show", "id", fmt.Sprint(id)); err != nil {
		return nil, err
	}
	var gws []netip.Addr
	for _, o := range objects {
		if o.Gateway.IsValid() {
			gws = append(gws, o.Gateway)
		}
		for _, member := range o.Group {
			more, err := n.objectGateways(ctx, member.ID)
			if err != nil {
				return nil, err
			}
			gws = append(gws, more...)
		}
	}
	return gws, nil
}

func (n *Node) ipJSON(ctx context.Context, v any, args ...string) error {
	out, err := n.Run(ctx, "ip", append([]string{"-j"}, args...)...)
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) == "" { // ip prints nothing at all for some empty lists
		return nil
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("%s: ip %v: %w", n.Name, args, err)
	}
	return nil
}

// WaitGateways waits until the prefix has exactly these next hops; none means that
// the route is gone.
func (n *Node) WaitGateways(ctx context.Context, prefix netip.Prefix, want ...netip.Addr) error {
	want = slices.SortedFunc(slices.Values(want), netip.Addr.Compare)
	return Eventually(ctx, fmt.Sprintf("next hops %v of %s", want, prefix), func() error {
		got, err := n.Gateways(ctx, prefix)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s: next hops of %s are %v", n.Name, prefix, got)
		}
		return err
	})
}
