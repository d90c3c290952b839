package iptables

import (
	"context"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// Recall implements proxy.Recaller. Each backend has a list of its clients; rules ask them in the order of the backends.
func (d *dataplane) Recall(_ context.Context, port *proxy.ServicePort, frontend proxy.Frontend, client netip.Addr) (netip.AddrPort, bool, error) {
	if port.Affinity <= 0 {
		return netip.AddrPort{}, false, nil
	}
	limit := time.Duration(seconds(port.Affinity)) * time.Second
	for _, b := range port.Backends(poolOf(frontend)) {
		seen, err := xtables.LastSeen(endpointOf(port, b), client)
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		if seen >= 0 && seen <= limit {
			return b.Addr, true, nil
		}
	}
	return netip.AddrPort{}, false, nil
}

// poolOf is the larger of the pools that a frontend's clients have.
func poolOf(f proxy.Frontend) proxy.Pool {
	for _, route := range f.Routes {
		if route.Verdict == proxy.Forward && route.Pool == proxy.ClusterPool {
			return proxy.ClusterPool
		}
	}
	return proxy.LocalPool
}
