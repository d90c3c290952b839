package nftables

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// chain is a chain with its rules.
type chain struct {
	name  string
	rules []string
}

// rewrite puts the chains of now that differ from those of was into a transaction, and tells how many rules it writes. A
// chain that is not in was is created; one that is not in now is left alone.
func rewrite(tx *knftables.Transaction, was, now []chain) int {
	had := map[string]chain{}
	for _, c := range was {
		had[c.name] = c
	}
	for _, c := range now {
		if _, ok := had[c.name]; !ok {
			tx.Add(&knftables.Chain{Name: c.name})
		}
	}
	rules := 0
	for _, c := range now {
		if old, ok := had[c.name]; !ok || !slices.Equal(old.rules, c.rules) {
			c.write(tx)
			rules += len(c.rules)
		}
	}
	return rules
}

// write puts a chain that is already declared into a transaction.
func (c chain) write(tx *knftables.Transaction) {
	tx.Flush(&knftables.Chain{Name: c.name})
	for _, rule := range c.rules {
		tx.Add(&knftables.Rule{Chain: c.name, Rule: rule, Comment: knftables.PtrTo(digest(rule))})
	}
}

// digests are the comments of the rules.
func (c chain) digests() []string {
	var all []string
	for _, rule := range c.rules {
		all = append(all, digest(rule))
	}
	return all
}

// digest is the comment by which a rule is known again. The kernel's form of a rule says the same, but in words
// that differ between releases of nft.
func digest(rule string) string {
	h := fnv.New32a()
	h.Write([]byte(rule))
	return fmt.Sprintf("%08x", h.Sum32())
}

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
	w := writer{cfg: cfg, node: n, ip: "ip"}
	if n.Family == proxy.IPv6 {
		w.ip = "ip6"
	}
	w.frontend = w.ip + " daddr . " + nodePortKey
	w.pod = w.podMatch("")
	return w
}

// tellsPods tells whether the node can tell pods apart.
func (w writer) tellsPods() bool { return w.pod != "" }

// nodePortKey is the key of a packet's NodePort.
const nodePortKey = "meta l4proto . th dport"

// podMatch matches traffic of pods; with not "!= " all other traffic.
func (w writer) podMatch(not string) string {
	switch p := w.node.PodSource; p.Kind {
	case proxy.PodSourcePrefix:
		return w.ip + " saddr " + not + p.Prefix.String()
	case proxy.PodSourceInterface:
		return fmt.Sprintf("iifname %s%q", not, p.Interface)
	case proxy.PodSourceInterfacePrefix:
		// An interface name of this length has no room for more, so the wildcard would not match it.
		const longestName = 15
		if len(p.Interface) >= longestName {
			return fmt.Sprintf("iifname %s%q", not, p.Interface)
		}
		return fmt.Sprintf("iifname %s%q", not, p.Interface+"*")
	}
	return ""
}

const fromNode = "fib saddr type local"

// all are the fixed chains and those of some specs.
func (w writer) all(refusing bool, specs []spec) []chain {
	chains := w.fixed(refusing)
	for _, s := range specs {
		chains = append(chains, w.chain(s))
	}
	return chains
}

// fixed are the chains of which there is one each, whatever the node. Without refusing they refuse nothing that others may serve.
func (w writer) fixed(refusing bool) []chain {
	chains := []chain{
		{sourcesPrerouting, []string{"ct state new " + w.frontend + " @" + restricted.name() + " jump " + sources}},
		{sourcesOutput, []string{"ct state new " + w.frontend + " @" + restricted.name() + " jump " + sources}},
		{sources, []string{w.frontend + " . " + w.ip + " saddr @" + allowed.name() + " return", "drop"}},
		{natPrerouting, w.dispatch(false)},
		{natOutput, w.dispatch(true)},
		{byClass, w.classes(w.frontend, podServices, nodeServices, outsideServices)},
		{nodePortsByClass, w.classes(nodePortKey, podNodePorts, nodeNodePorts, outsideNodePorts)},
		{learnPrerouting, []string{"ct state new ct status dnat jump " + learn}},
		{learnOutput, []string{"ct state new ct status dnat jump " + learn}},
		{learn, w.learn()},
		{forget, []string{w.forget()}},
		{natPostrouting, w.masquerade()},
		{reject, []string{"reject"}},
	}
	return append(chains, w.filter(refusing)...)
}

// dispatch finds what serves a packet. A look-up may miss while a transaction is committed, or find a chain that finds
// no backend, so each is made twice.
func (w writer) dispatch(loopback bool) []string {
	once := []string{w.frontend + " vmap @" + services.name()}
	for _, match := range w.nodePortMatches(loopback) {
		once = append(once, match+" "+nodePortKey+" vmap @"+nodePorts.name())
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
		return []string{to + "!= " + prefixText(loop) + " " + local}
	}
	var matches []string
	if len(n.NodePorts.Addrs) > 0 {
		matches = append(matches, to+"{ "+join(n.NodePorts.Addrs)+" }")
	}
	if loopback {
		matches = append(matches, to+prefixText(loop)+" "+local)
	}
	return matches
}

// guardsLoopback tells whether NodePorts are served at loopback addresses. The kernel then routes these
// (route_localnet), so that neighbours could reach them as well.
func guardsLoopback(n *proxy.Node) bool { return n.Family == proxy.IPv4 && n.NodePorts.Localhost }

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// classes parts the classes of sources, each with a map of its own.
func (w writer) classes(key string, pods, node, outside set) []string {
	var rules []string
	class := func(match string, in set) {
		rules = append(rules, match+" "+key+" vmap @"+in.name(), match+" return")
	}
	if w.pod != "" {
		class(w.pod, pods)
	}
	class(fromNode, node)
	return append(rules, key+" vmap @"+outside.name())
}

// learn remembers which backend a client of a ServicePort with affinity has got. The backend may be gone already: then it
// has no number, and the ServicePort's own leads nowhere. In the end the packet loses the
// class that it had for the sake of look-ups: traffic control would take it for its own.
func (w writer) learn() []string {
	const port = "meta l4proto . ct original proto-dst"
	return []string{
		noClass,
		transport + "meta priority set ct original " + w.ip + " daddr . " + port + " map @" + stickyServices.name(),
		"meta priority 0:0 " + transport + "meta priority set " + port + " map @" + stickyNodePorts.name(),
		"meta priority set meta priority . " + w.ip + " daddr . th dport map @" + stickyIDs.name(),
		"meta priority vmap @" + stickyTimeouts.name(),
		noClass,
	}
}

func (w writer) masquerade() []string {
	mark := fmt.Sprintf("%#x", w.node.MasqueradeMark)
	return []string{
		// The bit has served its purpose. Left in place it would have the packet masqueraded again should
		// it come by once more, from a tunnel for instance.
		"meta mark & " + mark + " != 0 meta mark set meta mark ^ " + mark + " masquerade fully-random",
		"ct status dnat " + w.ip + " saddr . " + w.ip + " daddr @" + hairpin.name() + " masquerade fully-random",
	}
}

// setMark asks for masquerading.
func (w writer) setMark() string {
	return fmt.Sprintf("meta mark set meta mark | %#x", w.node.MasqueradeMark)
}

func (w writer) filter(refusing bool) []chain {
	input := chain{name: filterInput}
	forward := chain{name: filterForward}
	output := chain{name: filterOutput}
	guarded := chain{guardLoopback, []string{"ct state established,related return", translated, "drop"}}
	chains := []chain{w.refuse(), w.refuseNodePorts(), w.refuseClusterIPs(), guarded}
	if guardsLoopback(w.node) {
		loop := prefixText(w.node.Family.Loopback())
		guard := w.ip + " saddr != " + loop + " " + w.ip + " daddr " + loop + " jump " + guardLoopback
		input.rules = append(input.rules, guard)
		output.rules = append(output.rules, guard)
	}
	if w.cfg.DropInvalid {
		forward.rules = append(forward.rules, "ct state invalid drop")
	}
	if refusing {
		// Only the first packet of a connection is ever refused.
		const fresh = "ct state new jump "
		input.rules = append(input.rules, fresh+refuse, fresh+refuseNodePorts)
		forward.rules = append(forward.rules, fresh+refuse, fresh+refuseClusterIPs)
		// Later than here connection tracking would know the node's own connection as one that is not translated, and the
		// same packet, sent again, would not be either.
		output.rules = append(output.rules, fresh+refuse, fresh+refuseNodePorts, fresh+refuseClusterIPs)
	}
	return append(chains, input, forward, output)
}

// A translated packet may have the address of a frontend: the node's own, for instance.
const translated = "ct status dnat return"

func (w writer) refuse() chain {
	return chain{refuse, []string{translated, w.frontend + " vmap @" + frontends.name()}}
}

func (w writer) refuseNodePorts() chain {
	c := chain{refuseNodePorts, []string{translated}}
	for _, match := range w.nodePortMatches(true) {
		c.rules = append(c.rules, match+" "+nodePortKey+" vmap @"+frontendPorts.name())
	}
	return c
}

func (w writer) refuseClusterIPs() chain {
	c := chain{refuseClusterIPs, []string{
		translated,
		"fib daddr type local return",
		w.ip + " daddr @" + clusterIPs.name() + " goto " + reject,
	}}
	for _, p := range w.node.ServiceCIDRs {
		c.rules = append(c.rules, w.ip+" daddr "+prefixText(p)+" drop")
	}
	return c
}
