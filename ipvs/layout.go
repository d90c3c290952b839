package ipvs

import (
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
)

// Table is the name of the mode's table, in both families.
const Table = "sluice-ipvs"

// set names a set or map of the table.
type set uint8

// The sets and maps. A frontend is an address, a protocol and a port; a NodePort is one for each address that serves it.
const (
	ownServers     set = iota // addresses of virtual servers that are ours, from before they exist until after
	ownMarks                  // the same for those that are known by a mark
	frontends                 // frontends whose virtual server exists
	fromPods                  // frontend → what becomes of a new connection of a pod
	fromNode                  // … of the node
	fromOutside               // … of everybody else
	byMark                    // frontends with other virtual servers for some
	podServers                // frontend → mark of another virtual server, for pods
	outsideServers            // … for everybody else
	clusterIPs                // all ClusterIPs
	outerIPs                  // all external and load-balancer IPs
	restricted                // frontends with source ranges
	allowed                   // frontend and source prefix
	hairpin                   // backends that may be their own client: address twice
	numSets
)

var (
	byFrontend = []nft.Field{nft.Addr, nft.Protocol, nft.Port}
	mark       = []nft.Field{nft.Mark}
)

var sets = [numSets]*nft.Set{
	ownServers:     {Name: "own-servers", Key: byFrontend},
	ownMarks:       {Name: "own-marks", Key: mark},
	frontends:      {Name: "frontends", Key: byFrontend},
	fromPods:       {Name: "from-pods", Key: byFrontend, Verdict: true},
	fromNode:       {Name: "from-node", Key: byFrontend, Verdict: true},
	fromOutside:    {Name: "from-outside", Key: byFrontend, Verdict: true},
	byMark:         {Name: "by-mark", Key: byFrontend},
	podServers:     {Name: "pod-servers", Key: byFrontend, Value: mark},
	outsideServers: {Name: "outside-servers", Key: byFrontend, Value: mark},
	clusterIPs:     {Name: "cluster-ips", Key: []nft.Field{nft.Addr}},
	outerIPs:       {Name: "outer-ips", Key: []nft.Field{nft.Addr}},
	restricted:     {Name: "restricted", Key: byFrontend},
	allowed:        {Name: "allowed", Key: append(byFrontend[:3:3], nft.Addr), Interval: true},
	hairpin:        {Name: "hairpin", Key: []nft.Field{nft.Addr, nft.Addr}},
}

// name is the set as rules refer to it.
func (s set) name() string { return sets[s].Name }

// The base chains.
const (
	leadPrerouting  = "lead-prerouting"
	leadOutput      = "lead-output"
	natPrerouting   = "nat-prerouting"
	natOutput       = "nat-output"
	yieldPrerouting = "yield-prerouting"
	chooseInput     = "choose-input"
	guardInput      = "guard-input"
	guardOutput     = "guard-output"
	natPostrouting  = "nat-postrouting"
	filterForward   = "filter-forward"
)

// Priorities. IPVS looks at packets for this machine at 98 and 99, and at packets of this machine at -99 and -98.
const (
	prepareOutput = -160 // after connection tracking, before everybody who might route a packet anew
	prepare       = -110 // after rules that replace the whole mark
	nat           = -106 // before the NAT of others, at -100, and of our other modes, at -105
	afterNAT      = -95  // after all NAT
	choose        = 97
	guard         = 101
	guardLocal    = -97
	masq          = 95
)

var baseChains = []nft.BaseChain{
	{Name: leadPrerouting, Type: knftables.FilterType, Hook: knftables.PreroutingHook, Priority: prepare},
	{Name: leadOutput, Type: knftables.FilterType, Hook: knftables.OutputHook, Priority: prepareOutput},
	{Name: natPrerouting, Type: knftables.NATType, Hook: knftables.PreroutingHook, Priority: nat},
	{Name: natOutput, Type: knftables.NATType, Hook: knftables.OutputHook, Priority: nat},
	{Name: yieldPrerouting, Type: knftables.FilterType, Hook: knftables.PreroutingHook, Priority: afterNAT},
	{Name: chooseInput, Type: knftables.FilterType, Hook: knftables.InputHook, Priority: choose},
	{Name: guardInput, Type: knftables.FilterType, Hook: knftables.InputHook, Priority: guard},
	{Name: guardOutput, Type: knftables.RouteType, Hook: knftables.OutputHook, Priority: guardLocal},
	{Name: natPostrouting, Type: knftables.NATType, Hook: knftables.PostroutingHook, Priority: masq},
	{Name: filterForward, Type: knftables.FilterType, Hook: knftables.ForwardHook, Priority: 0},
}

// schema is the same for every node and configuration.
var schema = &nft.Schema{Table: Table, Sets: sets[:], Chains: baseChains}
