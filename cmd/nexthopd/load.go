package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nexthopd/nexthopd/agent/config"
	"github.com/nexthopd/nexthopd/fib/kernel"
)

// reloader reads the configuration file again, for a reload of what was started as first.
// It is to be made before first gets its router id.
func reloader(path string, first *config.Config, k *kernel.Handle) func() (*config.Config, error) {
	chosen := !first.RouterID.IsValid()
	return func() (*config.Config, error) {
		c, err := config.Load(path)
		if err != nil || c.RouterID.IsValid() {
			return c, err
		}
		if chosen {
			// What was chosen at the start holds, whatever addresses came since: else a reload
			// would ask for a restart that nobody needs.
			c.RouterID = first.RouterID
			return c, nil
		}
		c.RouterID, err = routerID(c, k)
		return c, err
	}
}

// routerID is the configured one, or the lowest global IPv4 address of the host.
func routerID(cfg *config.Config, k *kernel.Handle) (netip.Addr, error) {
	if cfg.RouterID.IsValid() {
		return cfg.RouterID, nil
	}
	host, err := k.Host()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find a router id: %w", err)
	}
	var ids []netip.Addr
	for _, a := range host.Addrs {
		if ip := a.Prefix.Addr(); ip.Is4() && ip.IsGlobalUnicast() {
			ids = append(ids, ip)
		}
	}
	if len(ids) == 0 {
		return netip.Addr{}, errors.New("find a router id: the host has no global IPv4 address; set router-id in the configuration")
	}
	return slices.MinFunc(ids, netip.Addr.Compare), nil
}
