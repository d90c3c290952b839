package nftables

import (
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
)

var (
	byFrontend = []nft.Field{nft.Addr, nft.Protocol, nft.Port}
	byNodePort = []nft.Field{nft.Protocol, nft.Port}
	backend    = []nft.Field{nft.Addr, nft.Port}
	class      = []nft.Field{nft.Class}
)

// The sets and maps. A frontend is found by address, protocol and port, a NodePort by protocol and port.
var (
	// Frontend → jump to what serves it, or to byClass; the same for NodePorts.
	services  = &nft.Set{Name: "services", Key: byFrontend, Verdict: true}
	nodePorts = &nft.Set{Name: "node-ports", Key: byNodePort, Verdict: true}

	// Frontends whose classes of sources differ: what serves each class; the same for NodePorts.
	podServices      = &nft.Set{Name: "services-from-pods", Key: byFrontend, Verdict: true}
	nodeServices     = &nft.Set{Name: "services-from-node", Key: byFrontend, Verdict: true}
	outsideServices  = &nft.Set{Name: "services-from-outside", Key: byFrontend, Verdict: true}
	podNodePorts     = &nft.Set{Name: "node-ports-from-pods", Key: byNodePort, Verdict: true}
	nodeNodePorts    = &nft.Set{Name: "node-ports-from-node", Key: byNodePort, Verdict: true}
	outsideNodePorts = &nft.Set{Name: "node-ports-from-outside", Key: byNodePort, Verdict: true}

	// Frontend and slot → backend; the same for NodePorts.
	endpoints         = &nft.Set{Name: "endpoints", Key: append(byFrontend[:3:3], nft.Class), Value: backend}
	nodePortEndpoints = &nft.Set{Name: "node-port-endpoints", Key: append(byNodePort[:2:2], nft.Class), Value: backend}

	// All frontends → what becomes of packets that were not translated: drop or reject; the same for NodePorts.
	frontends     = &nft.Set{Name: "frontends", Key: byFrontend, Verdict: true}
	frontendPorts = &nft.Set{Name: "frontend-node-ports", Key: byNodePort, Verdict: true}

	// All ClusterIPs.
	clusterIPs = &nft.Set{Name: "cluster-ips", Key: []nft.Field{nft.Addr}}

	// Frontends with source ranges; frontend and source prefix.
	restricted = &nft.Set{Name: "restricted", Key: byFrontend}
	allowed    = &nft.Set{Name: "allowed", Key: append(byFrontend[:3:3], nft.Addr), Interval: true}

	// Backends that may be their own client: address twice.
	hairpin = &nft.Set{Name: "hairpin", Key: []nft.Field{nft.Addr, nft.Addr}}

	// Frontends with affinity → number of the ServicePort; the same for NodePorts.
	stickyServices  = &nft.Set{Name: "sticky-services", Key: byFrontend, Value: class}
	stickyNodePorts = &nft.Set{Name: "sticky-node-ports", Key: byNodePort, Value: class}

	// Number of the ServicePort and backend → number of both; that → jump to a chain that remembers clients.
	stickyIDs      = &nft.Set{Name: "sticky-ids", Key: []nft.Field{nft.Class, nft.Addr, nft.Port}, Value: class}
	stickyTimeouts = &nft.Set{Name: "sticky-timeouts", Key: class, Verdict: true}

	// Number of both → backend, in the pool of all backends; in that of local ones.
	stickyBackends      = &nft.Set{Name: "sticky-backends", Key: class, Value: backend}
	stickyLocalBackends = &nft.Set{Name: "sticky-local-backends", Key: class, Value: backend}

	// Number of the ServicePort and client → number of both, written by packets.
	affinity = &nft.Set{Name: "affinity", Key: []nft.Field{nft.Class, nft.Addr}, Value: class, Packets: true, Size: maxClients}
)

// maxClients is how many clients affinity can remember in all. Without a size the kernel stops at 65,535.
const maxClients = 1 << 20

// holdsBackends are the sets in which no packet finds a backend unless something leads it there.
var holdsBackends = map[*nft.Set]bool{
	endpoints: true, nodePortEndpoints: true, stickyIDs: true, stickyTimeouts: true, stickyBackends: true, stickyLocalBackends: true,
}

// The base chains.
const (
	sourcesPrerouting = "sources-prerouting"
	sourcesOutput     = "sources-output"
	natPrerouting     = "nat-prerouting"
	natOutput         = "nat-output"
	learnPrerouting   = "learn-prerouting"
	learnOutput       = "learn-output"
	natPostrouting    = "nat-postrouting"
	filterInput       = "filter-input"
	filterForward     = "filter-forward"
	filterOutput      = "filter-output"
)

// Priorities. At equal priority of two NAT chains the one that was registered last wins, so ours differ from those of
// everybody else: they come before dstnat (-100) and srcnat (100).
const (
	sourcesPriority = -110
	natPriority     = -105
	learnPriority   = -99
	filterPriority  = 0
	masqPriority    = 95
)

// Table is the name of the mode's table, in both families.
const Table = "sluice"

// schema is the same for every node and configuration.
var schema = &nft.Schema{
	Table: Table,
	Sets: []*nft.Set{
		services, nodePorts, podServices, nodeServices, outsideServices, podNodePorts, nodeNodePorts, outsideNodePorts,
		endpoints, nodePortEndpoints, frontends, frontendPorts, clusterIPs, restricted, allowed, hairpin,
		stickyServices, stickyNodePorts, stickyIDs, stickyTimeouts, stickyBackends, stickyLocalBackends, affinity,
	},
	Chains: []nft.BaseChain{
		{Name: sourcesPrerouting, Type: knftables.FilterType, Hook: knftables.PreroutingHook, Priority: sourcesPriority},
		{Name: sourcesOutput, Type: knftables.FilterType, Hook: knftables.OutputHook, Priority: sourcesPriority},
		{Name: natPrerouting, Type: knftables.NATType, Hook: knftables.PreroutingHook, Priority: natPriority},
		{Name: natOutput, Type: knftables.NATType, Hook: knftables.OutputHook, Priority: natPriority},
		{Name: learnPrerouting, Type: knftables.FilterType, Hook: knftables.PreroutingHook, Priority: learnPriority},
		{Name: learnOutput, Type: knftables.FilterType, Hook: knftables.OutputHook, Priority: learnPriority},
		{Name: natPostrouting, Type: knftables.NATType, Hook: knftables.PostroutingHook, Priority: masqPriority},
		{Name: filterInput, Type: knftables.FilterType, Hook: knftables.InputHook, Priority: filterPriority},
		{Name: filterForward, Type: knftables.FilterType, Hook: knftables.ForwardHook, Priority: filterPriority},
		{Name: filterOutput, Type: knftables.FilterType, Hook: knftables.OutputHook, Priority: filterPriority},
	},
}
