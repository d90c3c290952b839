package policy

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// Resolve is what the node does for the Service in the node's family, sorted by name and without
// duplicates. It is nil when the node does nothing for it: there is no such Service, or it has no
// ClusterIP in the family. It depends on the content of its arguments only, not on any order in them
// but that of the Service's ports, of which the first wins when two contradict each other.
func Resolve(in Input, node *proxy.Node) []*proxy.ServicePort {
	if in.Service == nil || !node.Family.Has(in.Service.ClusterIPs[node.Family]) {
		return nil
	}
	ports := consistent(in.Service.Ports)
	if len(ports) == 0 {
		return nil
	}
	addrs := addressesOf(in.Service, node)
	index := newIndex(in.Slices, node.Family)
	resolved := make([]*proxy.ServicePort, len(ports))
	var ready []netip.Addr
	for i, port := range ports {
		chosen := choose(index.at(port), node)
		resolved[i] = servicePort(in, port, addrs, chosen, node)
		if in.Service.HealthCheckNodePort != 0 {
			ready = chosen.appendLocalReady(ready)
		}
	}
	setHealthCheck(resolved, in.Service.HealthCheckNodePort, ready)
	slices.SortFunc(resolved, func(a, b *proxy.ServicePort) int { return a.Name.Compare(b.Name) })
	return resolved
}

// Indifferent tells whether Resolve gives the same result for both nodes, whatever the Input.
func Indifferent(a, b *proxy.Node) bool {
	return a.Family == b.Family && a.Name == b.Name && a.Zone == b.Zone && a.IP == b.IP &&
		a.MasqueradeAll == b.MasqueradeAll &&
		(a.PodSource.Kind == proxy.PodSourceNone) == (b.PodSource.Kind == proxy.PodSourceNone)
}

func servicePort(in Input, port Port, addrs []address, chosen choice, node *proxy.Node) *proxy.ServicePort {
	sp := &proxy.ServicePort{
		Name: proxy.ServicePortName{
			Namespace: in.Name.Namespace,
			Name:      in.Name.Name,
			Port:      port.Name,
			Protocol:  port.Protocol,
		},
		Priority:  in.Service.Priority,
		Frontends: frontends(addrs, port, tables(in.Service, chosen, node), node.Family),
		Affinity:  in.Service.Affinity,
		Scheduler: in.Service.Scheduler,
	}
	if used(sp.Frontends, proxy.ClusterPool) {
		sp.Cluster = backends(chosen.cluster, node)
	}
	if used(sp.Frontends, proxy.LocalPool) {
		sp.Local = backends(chosen.local, node)
	}
	if port.Protocol == proxy.UDP {
		sp.Keep = chosen.keep()
	}
	return sp
}

func setHealthCheck(ports []*proxy.ServicePort, port uint16, ready []netip.Addr) {
	if port == 0 {
		return
	}
	slices.SortFunc(ready, netip.Addr.Compare)
	ready = slices.Clip(slices.Compact(ready))
	for _, sp := range ports {
		sp.HealthCheckNodePort, sp.LocalReady = port, ready
	}
}

// consistent leaves out ports that contradict an earlier one: the same name, the same number or the
// same NodePort for the same protocol. The API server refuses such Services; other sources may not.
func consistent(ports []Port) []Port {
	if len(ports) < 2 {
		return ports
	}
	type number struct {
		protocol proxy.Protocol
		node     bool
		port     uint16
	}
	names := make(map[portKey]bool, len(ports))
	numbers := make(map[number]bool, 2*len(ports))
	kept := make([]Port, 0, len(ports))
	for _, p := range ports {
		name, own, onNode := portKey{p.Name, p.Protocol}, number{p.Protocol, false, p.Port}, number{p.Protocol, true, p.NodePort}
		if names[name] || numbers[own] || p.NodePort != 0 && numbers[onNode] {
			continue
		}
		names[name], numbers[own], numbers[onNode] = true, true, true
		kept = append(kept, p)
	}
	return kept
}

func used(frontends []proxy.Frontend, pool proxy.Pool) bool {
	return slices.ContainsFunc(frontends, func(f proxy.Frontend) bool { return f.Routes.Uses(pool) })
}
