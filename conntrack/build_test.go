package conntrack

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// translated is a flow from a client to a frontend that a backend answers.
func translated(client, frontend, backend string) Flow {
	c := netip.MustParseAddrPort(client)
	return Flow{
		Original: Tuple{Src: c, Dst: netip.MustParseAddrPort(frontend)},
		Reply:    Tuple{Src: netip.MustParseAddrPort(backend), Dst: c},
	}
}

// untranslated is a flow that was made when no rule was there.
func untranslated(client, dst string) Flow { return translated(client, dst, dst) }

// node is a node with NodePorts on its two addresses.
func node(change ...func(*proxy.Node)) *proxy.Node {
	n := &proxy.Node{
		Addrs:        addrs("127.0.0.1", "172.16.0.1", "192.168.0.1"),
		NodePorts:    proxy.NodePortAddrs{All: true},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func addrs(s ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(s))
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func addrPortsOf(s ...string) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(s))
	for _, a := range s {
		out = append(out, netip.MustParseAddrPort(a))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// port is a ServicePort with the given frontends; one on an unspecified address is a NodePort.
func port(protocol proxy.Protocol, name string, frontends []string, keep ...string) *proxy.ServicePort {
	sp := &proxy.ServicePort{
		Name: proxy.ServicePortName{Namespace: "ns", Name: name, Protocol: protocol},
		Keep: addrPortsOf(keep...),
	}
	for _, a := range addrPortsOf(frontends...) {
		f := proxy.Frontend{Kind: proxy.ExternalIP, Addr: a}
		if a.Addr().IsUnspecified() {
			f.Kind = proxy.NodePort
		}
		sp.Frontends = append(sp.Frontends, f)
	}
	return sp
}

func snapshot(n *proxy.Node, ports ...*proxy.ServicePort) *proxy.Snapshot {
	m := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, p := range ports {
		m[p.Name] = p
	}
	return proxy.NewSnapshot(n, m)
}
