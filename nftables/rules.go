package nftables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// The chains beside the base chains of which there is one each.
const (
	byClass          = "by-class"
	nodePortsByClass = "node-ports-by-class"
	sources          = "sources"
	learn            = "learn"
	forget           = "forget"
	refuse           = "refuse"
	refuseNodePorts  = "refuse-node-ports"
	refuseClusterIPs = "refuse-cluster-ips"
	reject           = "reject-all"
	guardLoopback    = "guard-loopback"
)

// A class of 0 is that of no slot of a second pool and of no ServicePort with affinity.
const noClass = "meta priority set 0:0"

// transport is what nft wants to see before it takes ports from maps or from connection tracking.
const transport = "meta l4proto { tcp, udp, sctp } "

// writer renders rules for one node.
type writer struct {
	cfg  Config
	node *proxy.Node
	ip   string // ip or ip6
	pod  string // match; empty if the node cannot tell pods apart

	frontend string // key of a packet's frontend
}

func newWriter(cfg Config, n *proxy.Node) writer {
	w := writer{cfg: cfg, node: n, ip: string(nft.Family(n.Family))}
	w.frontend = w.ip + " daddr . " + nodePortKey
	w.pod = nft.MatchPods(n.Family, n.PodSource, false)
	return w
}

// tellsPods tells whether the node can tell pods apart.
func (w writer) tellsPods() bool { return w.pod != "" }

// nodePortKey is the key of a packet's NodePort.
const nodePortKey = "meta l4proto . th dport"

const fromNode = "fib saddr type local"

// all are the fixed chains and those of some specs.
func (w writer) all(refusing bool, specs []spec) []nft.Chain {
	chains := w.fixed(refusing)
	for _, s := range specs {
		chains = append(chains, w.chain(s))
	}
	return chains
}

// fixed are the chains of which there is one each, whatever the node. Without refusing they refuse nothing that others may serve.
func (w writer) fixed(refusing bool) []nft.Chain {
	chains := []nft.Chain{
		{Name: sourcesPrerouting, Rules: []string{"ct state new " + w.frontend + " @" + restricted.Name + " jump " + sources}},
		{Name: sourcesOutput, Rules: []string{"ct state new " + w.frontend + " @" + restricted.Name + " jump " + sources}},
		{Name: sources, Rules: []string{w.frontend + " . " + w.ip + " saddr @" + allowed.Name + " return", "drop"}},
		{Name: natPrerouting, Rules: w.dispatch(false)},
		{Name: natOutput, Rules: w.dispatch(true)},
		{Name: byClass, Rules: w.classes(w.frontend, podServices, nodeServices, outsideServices)},
		{Name: nodePortsByClass, Rules: w.classes(nodePortKey, podNodePorts, nodeNodePorts, outsideNodePorts)},
		{Name: learnPrerouting, Rules: []string{"ct state new ct status dnat jump " + learn}},
		{Name: learnOutput, Rules: []string{"ct state new ct status dnat jump " + learn}},
		{Name: learn, Rules: w.learn()},
		{Name: forget, Rules: []string{w.forget()}},
		{Name: natPostrouting, Rules: w.masquerade()},
		{Name: reject, Rules: []string{"reject"}},
	}
	return append(chains, w.filter(refusing)...)
}

// dispatch finds what serves a packet. A look-up may miss while a transaction is committed, or find a chain that finds
// no backend, so each is made twice.
func (w writer) dispatch(loopback bool) []string {
	once := []string{w.frontend + " vmap @" + services.Name}
	for _, match := range w.nodePortMatches(loopback) {
		once = append(once, match+" "+nodePortKey+" vmap @"+nodePorts.Name)
	}
	return append(once, once...)
}

// nodePortMatches match packets to the addresses that serve NodePorts, loopback ones only if asked for: nobody else may
// reach these.
func (w writer) nodePortMatches(loopback bool) []string {
	n := w.node
	const local = "fib daddr type local"
	to := w.ip + " daddr "
	loop := n.Family.Loopback()
	loopback = loopback && guardsLoopback(n)
	switch {
	case n.NodePorts.All && loopback:
		return []string{local}
	case n.NodePorts.All:
		// The kernel does not route replies from loopback addresses.
		return []string{to + "!= " + nft.PrefixText(loop) + " " + local}
	}
	var matches []string
	if len(n.NodePorts.Addrs) > 0 {
		matches = append(matches, to+"{ "+join(n.NodePorts.Addrs)+" }")
	}
	if loopback {
		matches = append(matches, to+nft.PrefixText(loop)+" "+local)
	}
	return matches
}

// guardsLoopback tells whether NodePorts are served at loopback addresses. The kernel then routes these
// (route_localnet), so that neighbours could reach them as well.
func guardsLoopback(n *proxy.Node) bool { return n.Family == proxy.IPv4 && n.NodePorts.Localhost }

func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// classes parts the classes of sources, each with a map of its own.
func (w writer) classes(key string, pods, node, outside *nft.Set) []string {
	var rules []string
	class := func(match string, in *nft.Set) {
		rules = append(rules, match+" "+key+" vmap @"+in.Name, match+" return")
	}
	if w.pod != "" {
		class(w.pod, pods)
	}
	class(fromNode, node)
	return append(rules, key+" vmap @"+outside.Name)
}

// learn remembers which backend a client of a ServicePort with affinity has got. The backend may be gone already: then it
// has no number, and the ServicePort's own leads nowhere. In the end the packet loses the
// class that it had for the sake of look-ups: traffic control would take it for its own.
func (w writer) learn() []string {
	const port = "meta l4proto . ct original proto-dst"
	return []string{
		noClass,
		transport + "meta priority set ct original " + w.ip + " daddr . " + port + " map @" + stickyServices.Name,
		"meta priority 0:0 " + transport + "meta priority set " + port + " map @" + stickyNodePorts.Name,
		"meta priority set meta priority . " + w.ip + " daddr . th dport map @" + stickyIDs.Name,
		"meta priority vmap @" + stickyTimeouts.Name,
		noClass,
	}
}

func (w writer) masquerade() []string {
	mark := fmt.Sprintf("%#x", w.node.MasqueradeMark)
	return []string{
		// The bit has served its purpose. Left in place it would have the packet masqueraded again should
		// it come by once more, from a tunnel for instance.
		"meta mark & " + mark + " != 0 meta mark set meta mark ^ " + mark + " masquerade fully-random",
		"ct status dnat " + w.ip + " saddr . " + w.ip + " daddr @" + hairpin.Name + " masquerade fully-random",
	}
}

// setMark asks for masquerading.
func (w writer) setMark() string {
	return fmt.Sprintf("meta mark set meta mark | %#x", w.node.MasqueradeMark)
}

func (w writer) filter(refusing bool) []nft.Chain {
	input := nft.Chain{Name: filterInput}
	forward := nft.Chain{Name: filterForward}
	output := nft.Chain{Name: filterOutput}
	guarded := nft.Chain{Name: guardLoopback, Rules: []string{"ct state established,related return", translated, "drop"}}
	chains := []nft.Chain{w.refuse(), w.refuseNodePorts(), w.refuseClusterIPs(), guarded}
	if guardsLoopback(w.node) {
		loop := nft.PrefixText(w.node.Family.Loopback())
		guard := w.ip + " saddr != " + loop + " " + w.ip + " daddr " + loop + " jump " + guardLoopback
		input.Rules = append(input.Rules, guard)
		output.Rules = append(output.Rules, guard)
	}
	if w.cfg.DropInvalid {
		forward.Rules = append(forward.Rules, "ct state invalid drop")
	}
	if refusing {
		// Only the first packet of a connection is ever refused.
		const fresh = "ct state new jump "
		input.Rules = append(input.Rules, knownToIPVS, fresh+refuse, fresh+refuseNodePorts)
		forward.Rules = append(forward.Rules, fresh+refuse, fresh+refuseClusterIPs)
		// Later than here connection tracking would know the node's own connection as one that is not translated, and the
		// same packet, sent again, would not be either.
		output.Rules = append(output.Rules, fresh+refuse, fresh+refuseNodePorts, fresh+refuseClusterIPs)
	}
	return append(chains, input, forward, output)
}

// A flow of UDP that nobody answers is new for ever, but what is to be refused never gets beyond its first packet. Later ones that arrive
// here are IPVS's, to which an earlier start or another proxy has led them. Else the flow is from a time without rules, and its end is
// near: package conntrack looks for those.
const knownToIPVS = "meta l4proto udp ct status confirmed return"

// A translated packet may have the address of a frontend: the node's own, for instance.
const translated = "ct status dnat return"

func (w writer) refuse() nft.Chain {
	return nft.Chain{Name: refuse, Rules: []string{translated, w.frontend + " vmap @" + frontends.Name}}
}

func (w writer) refuseNodePorts() nft.Chain {
	c := nft.Chain{Name: refuseNodePorts, Rules: []string{translated}}
	for _, match := range w.nodePortMatches(true) {
		c.Rules = append(c.Rules, match+" "+nodePortKey+" vmap @"+frontendPorts.Name)
	}
	return c
}

func (w writer) refuseClusterIPs() nft.Chain {
	c := nft.Chain{Name: refuseClusterIPs, Rules: []string{
		translated,
		"fib daddr type local return",
		w.ip + " daddr @" + clusterIPs.Name + " goto " + reject,
	}}
	for _, p := range w.node.ServiceCIDRs {
		c.Rules = append(c.Rules, w.ip+" daddr "+nft.PrefixText(p)+" drop")
	}
	return c
}
