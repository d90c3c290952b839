package nftables

import (
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// set names a set or map of the table.
type set uint8

// The sets and maps. A frontend is found by address, protocol and port, a NodePort by protocol and port.
const (
	services            set = iota // frontend → jump to what serves it, or to byClass
	nodePorts                      // the same for NodePorts
	podServices                    // frontends whose classes of sources differ: what serves pods
	nodeServices                   // … what serves the node
	outsideServices                // … what serves everybody else
	podNodePorts                   //
	nodeNodePorts                  //
	outsideNodePorts               //
	endpoints                      // frontend and slot → backend
	nodePortEndpoints              // the same for NodePorts
	frontends                      // all frontends → what becomes of packets that were not translated: drop or reject
	frontendPorts                  // the same for NodePorts
	clusterIPs                     // all ClusterIPs
	restricted                     // frontends with source ranges
	allowed                        // frontend and source prefix
	hairpin                        // backends that may be their own client: address twice
	stickyServices                 // frontends with affinity → number of the ServicePort
	stickyNodePorts                // the same for NodePorts
	stickyIDs                      // number of the ServicePort and backend → number of both
	stickyTimeouts                 // number of both → jump to a chain that remembers clients
	stickyBackends                 // number of both → backend, in the pool of all backends
	stickyLocalBackends            // number of both → backend, in the pool of local ones
	affinity                       // number of the ServicePort and client → number of both, written by packets
	numSets
)

// maxClients is how many clients affinity can remember in all. Without a size the kernel stops at 65,535.
const maxClients = 1 << 20

var (
	byFrontend = []nft.Field{nft.Addr, nft.Protocol, nft.Port}
	byNodePort = []nft.Field{nft.Protocol, nft.Port}
	backend    = []nft.Field{nft.Addr, nft.Port}
	class      = []nft.Field{nft.Class}
)

var sets = [numSets]*nft.Set{
	services:            {Name: "services", Key: byFrontend, Verdict: true},
	nodePorts:           {Name: "node-ports", Key: byNodePort, Verdict: true},
	podServices:         {Name: "services-from-pods", Key: byFrontend, Verdict: true},
	nodeServices:        {Name: "services-from-node", Key: byFrontend, Verdict: true},
	outsideServices:     {Name: "services-from-outside", Key: byFrontend, Verdict: true},
	podNodePorts:        {Name: "node-ports-from-pods", Key: byNodePort, Verdict: true},
	nodeNodePorts:       {Name: "node-ports-from-node", Key: byNodePort, Verdict: true},
	outsideNodePorts:    {Name: "node-ports-from-outside", Key: byNodePort, Verdict: true},
	endpoints:           {Name: "endpoints", Key: append(byFrontend[:3:3], nft.Class), Value: backend},
	nodePortEndpoints:   {Name: "node-port-endpoints", Key: append(byNodePort[:2:2], nft.Class), Value: backend},
	frontends:           {Name: "frontends", Key: byFrontend, Verdict: true},
	frontendPorts:       {Name: "frontend-node-ports", Key: byNodePort, Verdict: true},
	clusterIPs:          {Name: "cluster-ips", Key: []nft.Field{nft.Addr}},
	restricted:          {Name: "restricted", Key: byFrontend},
	allowed:             {Name: "allowed", Key: append(byFrontend[:3:3], nft.Addr), Interval: true},
	hairpin:             {Name: "hairpin", Key: []nft.Field{nft.Addr, nft.Addr}},
	stickyServices:      {Name: "sticky-services", Key: byFrontend, Value: class},
	stickyNodePorts:     {Name: "sticky-node-ports", Key: byNodePort, Value: class},
	stickyTimeouts:      {Name: "sticky-timeouts", Key: class, Verdict: true},
	stickyIDs:           {Name: "sticky-ids", Key: []nft.Field{nft.Class, nft.Addr, nft.Port}, Value: class},
	stickyBackends:      {Name: "sticky-backends", Key: class, Value: backend},
	stickyLocalBackends: {Name: "sticky-local-backends", Key: class, Value: backend},
	affinity:            {Name: "affinity", Key: []nft.Field{nft.Class, nft.Addr}, Value: class, Packets: true, Size: maxClients},
}

// name is the set as rules refer to it.
func (s set) name() string { return sets[s].Name }

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

var baseChains = []nft.BaseChain{
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
}

// Table is the name of the mode's table, in both families.
const Table = "sluice"

// schema is the same for every node and configuration.
var schema = &nft.Schema{Table: Table, Sets: sets[:], Chains: baseChains}

// declare adds the table with its sets and base chains, without rules, to a transaction.
func declare(tx *knftables.Transaction, f proxy.Family, flags ...knftables.TableFlag) {
	tx.Add(&knftables.Table{Flags: flags})
	for _, s := range sets {
		tx.Add(s.Object(f))
	}
	for _, c := range baseChains {
		tx.Add(c.Object())
	}
}
