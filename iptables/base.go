package iptables

import (
	"fmt"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// jumps are the rules of built-in chains that lead to our chains, in order.
func jumps(n *proxy.Node) []xtables.Jump {
	// Only the first packet of a connection is ever refused.
	fresh := []string{"-m", "conntrack", "--ctstate", "NEW"}
	away := []string{"-m", "conntrack", "--ctstate", "NEW", "-m", "addrtype", "!", "--dst-type", "LOCAL"}
	var all []xtables.Jump
	add := func(table, chain, target, about string, match ...string) {
		all = append(all, xtables.Jump{Table: table, Chain: chain, Match: match, Target: target, Comment: "sluice: " + about})
	}
	add(nat, "PREROUTING", servicesChain, "services")
	add(nat, "OUTPUT", servicesChain, "services")
	add(nat, "POSTROUTING", postroutingChain, "masquerade")
	if guardsLoopback(n) {
		loopback := n.Family.Loopback().String()
		foreign := []string{"!", "-s", loopback, "-d", loopback}
		add(filter, "INPUT", firewallChain, "loopback addresses", foreign...)
		add(filter, "OUTPUT", firewallChain, "loopback addresses", foreign...)
	}
	add(filter, "INPUT", refuseChain, "refused services", fresh...)
	add(filter, "INPUT", nodePortsChain, "refused node ports", fresh...)
	add(filter, "INPUT", healthChain, "health check node ports", "-p", "tcp")
	add(filter, "FORWARD", refuseChain, "refused services", fresh...)
	add(filter, "FORWARD", clusterIPsChain, "unserved cluster IPs", away...)
	add(filter, "FORWARD", forwardChain, "forwarded services")
	add(filter, "OUTPUT", refuseChain, "refused services", fresh...)
	add(filter, "OUTPUT", clusterIPsChain, "unserved cluster IPs", away...)
	return all
}

// guardsLoopback tells whether NodePorts are served at loopback addresses. The kernel then routes these
// (route_localnet), so that neighbours could reach them as well.
func guardsLoopback(n *proxy.Node) bool { return n.Family == proxy.IPv4 && n.NodePorts.Localhost }

// base renders the chains of a table that exist once. A nil node has none.
func (c Config) base(out *chains, table string, n *proxy.Node, t *trees) {
	switch {
	case n == nil:
	case table == nat:
		c.natBase(out, n, t)
	default:
		c.filterBase(out, n, t)
	}
}

func (c Config) natBase(out *chains, n *proxy.Node, t *trees) {
	out.begin(servicesChain)
	reach(out, n, t, byClusterIP, "")
	reach(out, n, t, byExternal, "")
	reachNodePorts(out, n, t, byNodePort)

	out.begin(postroutingChain)
	out.rule("-m mark ! --mark", markOf(n), "-j RETURN")
	if c.counts && guardsLoopback(n) {
		out.rule("-m conntrack --ctstate DNAT --ctorigdst "+n.Family.Loopback().String(), countedBy(localhostObject))
	}
	// The bit has served its purpose. Left in place it would have the packet masqueraded again should
	// it come by once more, from a tunnel for instance.
	out.rule(fmt.Sprintf("-j MARK --xor-mark %#x", n.MasqueradeMark))
	out.rule("-j MASQUERADE --random-fully")
}

func (c Config) filterBase(out *chains, n *proxy.Node, t *trees) {
	// A translated packet may have the address of a refused frontend: the node's own, for instance.
	const translated = "-m conntrack --ctstate DNAT"

	out.begin(refuseChain)
	out.rule(translated, "-j RETURN")
	reach(out, n, t, byRefused, "")

	out.begin(clusterIPsChain)
	out.rule(translated, "-j RETURN")
	reach(out, n, t, byKnown, "")
	for _, p := range n.ServiceCIDRs {
		out.rule("-d", p.String(), comment("not allocated"), "-j DROP")
	}

	out.begin(nodePortsChain)
	out.rule(translated, "-j RETURN")
	reachNodePorts(out, n, t, byRefusedPort)

	out.begin(healthChain)
	reach(out, n, t, byHealthPort, "")

	out.begin(forwardChain)
	switch {
	case c.DropInvalid && c.counts:
		out.rule("-m conntrack --ctstate INVALID", countedBy(invalidObject), "-j DROP")
	case c.DropInvalid:
		out.rule("-m conntrack --ctstate INVALID -j DROP")
	}
	out.rule("-m mark --mark", markOf(n), "-j ACCEPT")
	out.rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")

	if guardsLoopback(n) {
		out.begin(firewallChain)
		out.rule("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP")
	}
}

func reach(out *chains, n *proxy.Node, t *trees, in index, extra string) {
	drawer{n.Family, in}.reach(out, t[in].root, extra)
}

// reachNodePorts renders what leads to a tree of NodePorts from the addresses that serve them.
func reachNodePorts(out *chains, n *proxy.Node, t *trees, in index) {
	const local = "-m addrtype --dst-type LOCAL"
	loopback := n.Family.Loopback().String()
	switch {
	case n.NodePorts.All && guardsLoopback(n):
		reach(out, n, t, in, local)
	case n.NodePorts.All:
		// The kernel does not route replies from loopback addresses.
		reach(out, n, t, in, "! -d "+loopback+" "+local)
	default:
		for _, a := range n.NodePorts.Addrs {
			reach(out, n, t, in, "-d "+a.String())
		}
		if guardsLoopback(n) {
			reach(out, n, t, in, "-d "+loopback+" "+local)
		}
	}
}

func markOf(n *proxy.Node) string { return fmt.Sprintf("%#x/%#x", n.MasqueradeMark, n.MasqueradeMark) }

// markBase writes the chain that other programs use too. It belongs into a section only if the kernel has no
// rules in it.
func (s *section) markBase(n *proxy.Node) {
	s.new.begin(markChain)
	s.new.rule(setMark(n.MasqueradeMark))
	s.recount = true // it is not ours to count
	s.compare()
}
