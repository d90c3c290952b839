package ipvs

import (
	"context"
	"net/netip"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// Recall implements proxy.Recaller. IPVS keeps a client's backend as a connection without a port of the client, among all others: to
// find none costs as much as there are connections. Virtual servers for marked packets choose by hashing, and keep nothing.
func (d *dataplane) Recall(_ context.Context, port *proxy.ServicePort, frontend proxy.Frontend, client netip.Addr) (netip.AddrPort, bool, error) {
	if port.Affinity <= 0 {
		return netip.AddrPort{}, false, nil
	}
	for c, err := range kernel.Connections() {
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		if c.Client == netip.AddrPortFrom(client, 0) && c.Protocol == port.Name.Protocol && isAt(frontend, c.Virtual) {
			return c.Backend, true, nil
		}
	}
	return netip.AddrPort{}, false, nil
}

// isAt tells whether a frontend is served at an address: a NodePort at any with its port.
func isAt(f proxy.Frontend, at netip.AddrPort) bool {
	return f.Addr == at || f.Kind == proxy.NodePort && f.Addr.Port() == at.Port()
}
