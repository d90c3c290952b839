package policy

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// address is one that all ports of a Service answer on.
type address struct {
	kind    proxy.FrontendKind
	addr    netip.Addr
	allowed []netip.Prefix
}

// addressesOf lists the Service's addresses in the node's family, sorted by kind and address. One that
// has several kinds keeps the first of them.
func addressesOf(svc *Service, node *proxy.Node) []address {
	clusterIP := svc.ClusterIPs[node.Family]
	vips := distinct(svc.LoadBalancerIPs, node.Family)
	allowed := allowedSources(svc.SourceRanges, vips, node)
	addrs := make([]address, 0, 1+len(vips)+len(svc.ExternalIPs))
	addrs = append(addrs, address{kind: proxy.ClusterIP, addr: clusterIP})
	for _, vip := range vips {
		if vip != clusterIP {
			addrs = append(addrs, address{proxy.LoadBalancerIP, vip, allowed})
		}
	}
	for _, ip := range distinct(svc.ExternalIPs, node.Family) {
		_, isVIP := slices.BinarySearchFunc(vips, ip, netip.Addr.Compare)
		if ip != clusterIP && !isVIP {
			addrs = append(addrs, address{kind: proxy.ExternalIP, addr: ip})
		}
	}
	return addrs
}

// distinct is the sorted set of the addresses that belong to the family. The unspecified address is
// left out: it stands for NodePorts.
func distinct(addrs []netip.Addr, family proxy.Family) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	kept := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if family.Has(a) && !a.IsUnspecified() {
			kept = append(kept, a)
		}
	}
	slices.SortFunc(kept, netip.Addr.Compare)
	return slices.Compact(kept)
}

// allowedSources is who may use the VIPs; nil is everyone. Ranges of the other family limit nobody,
// nor does a list with a range of length 0.
func allowedSources(ranges []netip.Prefix, vips []netip.Addr, node *proxy.Node) []netip.Prefix {
	var allowed []netip.Prefix
	for _, r := range ranges {
		if !node.Family.Has(r.Addr()) {
			continue
		}
		if r.Bits() == 0 {
			return nil
		}
		allowed = append(allowed, r.Masked())
	}
	// A load balancer may send a packet of this node back to it with the VIP as its source.
	if slices.ContainsFunc(allowed, func(r netip.Prefix) bool { return r.Contains(node.IP) }) {
		for _, vip := range vips {
			allowed = append(allowed, netip.PrefixFrom(vip, vip.BitLen()))
		}
	}
	return disjoint(allowed)
}

// disjoint sorts prefixes and leaves out those that lie within another, because the kernel's
// interval sets refuse an overlap.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	kept := prefixes[:0]
	for _, p := range prefixes {
		// In this order only the last one kept can hold p.
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return slices.Clip(kept)
}

// frontends is the port's answer on each address and, if it has one, on its NodePort; sorted.
func frontends(addrs []address, port Port, tables routeTables, family proxy.Family) []proxy.Frontend {
	list := make([]proxy.Frontend, 0, len(addrs)+1)
	for _, a := range addrs {
		routes := tables.external
		if a.kind == proxy.ClusterIP {
			routes = tables.clusterIP
		}
		list = append(list, proxy.Frontend{
			Kind:    a.kind,
			Addr:    netip.AddrPortFrom(a.addr, port.Port),
			Routes:  routes,
			Allowed: a.allowed,
		})
	}
	if port.NodePort != 0 {
		list = append(list, proxy.Frontend{
			Kind:   proxy.NodePort,
			Addr:   netip.AddrPortFrom(family.Any(), port.NodePort),
			Routes: tables.external,
		})
	}
	return slices.Clip(list)
}
