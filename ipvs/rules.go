package ipvs

import (
	"fmt"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// The chains beside the base chains. Elements of the maps by class of sources lead to the first five.
const (
	lead     = "lead"      // to IPVS
	leadMasq = "lead-masq" // the same, and masqueraded
	reject   = "reject-all"
	drop     = "drop-all"

	arrive     = "arrive"      // a new connection from elsewhere
	known      = "known"       // packets of connections that are known
	unknown    = "unknown"     // a new connection to what is no frontend
	sources    = "sources"     // a frontend with source ranges
	returned   = "returned"    // what IPVS has translated
	setMark    = "choose-mark" // for the virtual servers that are known by a mark
	keepMark   = "keep-mark"   // the mark of others goes to the priority
	returnMark = "return-mark" // and comes back
)

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
	w.frontend = w.ip + " daddr . meta l4proto . th dport"
	w.pod = nft.MatchPods(n.Family, n.PodSource, false)
	return w
}

// tellsPods tells whether the node can tell pods apart.
func (w writer) tellsPods() bool { return w.pod != "" }

// isNode matches packets that come from an address of the node.
const isNode = "fib saddr type local"

// fixed are all chains. Without refusing they refuse nothing that others may serve.
func (w writer) fixed(refusing bool) []nft.Chain {
	return append([]nft.Chain{
		w.leadPrerouting(), w.leadOutput(), w.arrive(), w.known(), w.sources(), w.returned(),
		{Name: lead, Rules: []string{w.mark(w.cfg.RouteMark)}},
		{Name: leadMasq, Rules: []string{w.mark(w.cfg.RouteMark | w.node.MasqueradeMark)}},
		{Name: natPrerouting, Rules: []string{w.marked() + w.stay()}},
		{Name: natOutput, Rules: []string{w.marked() + w.stay()}},
		w.yieldPrerouting(),
		w.chooseInput(), w.setMark(), w.keepMark(), w.returnMark(), w.guardInput(), w.guardOutput(), w.natPostrouting(), w.filterForward(),
	}, w.refusing(refusing)...)
}

// refusing are the chains that refuse.
func (w writer) refusing(on bool) []nft.Chain {
	chains := []nft.Chain{{Name: reject}, {Name: drop}, {Name: unknown}}
	if on {
		chains[0].Rules = w.refuse()
		chains[1].Rules = []string{"drop"}
		chains[2] = w.unknown()
	}
	return chains
}

// refuses tells whether a table has the rules that refuse.
func (w writer) refuses(state *nft.State) bool {
	for _, c := range w.refusing(true) {
		if !c.Is(state) {
			return false
		}
	}
	return true
}

// mark sets bits of the mark.
func (w writer) mark(bits uint32) string { return fmt.Sprintf("meta mark set meta mark | %#08x", bits) }

// unmark clears the bit that leads to IPVS. What is routed with it would come back to this machine.
func (w writer) unmark() string {
	return fmt.Sprintf("meta mark set meta mark & %#08x", ^w.cfg.RouteMark)
}

// marked matches what was led to IPVS.
func (w writer) marked() string { return fmt.Sprintf("meta mark & %#08x != 0 ", w.cfg.RouteMark) }

// stay translates a new connection to where it goes anyway: no translation of others follows.
func (w writer) stay() string { return "dnat " + w.ip + " to " + w.ip + " daddr" }

// yieldPrerouting routes a connection to its backend that another mode has translated although it was marked, which it can
// once the rules that keep others from it are gone. For the node's own connections guardOutput does that.
func (w writer) yieldPrerouting() nft.Chain {
	return nft.Chain{Name: yieldPrerouting, Rules: []string{w.marked() + "ct status dnat " + w.unmark()}}
}

// leadPrerouting marks what is for IPVS, so that it is delivered to this machine, or refuses it.
func (w writer) leadPrerouting() nft.Chain {
	return nft.Chain{Name: leadPrerouting, Rules: []string{
		"ct direction reply return",
		"ct status confirmed goto " + known,
		w.frontend + " @" + restricted.name() + " jump " + sources,
		"goto " + arrive,
	}}
}

// leadOutput does the same with what the node itself sends. What comes from IPVS passes here a second time.
func (w writer) leadOutput() nft.Chain {
	c := nft.Chain{Name: leadOutput, Rules: []string{
		w.marked() + "goto " + returned,
		"ct direction reply return",
		"ct status confirmed goto " + known,
		w.frontend + " @" + restricted.name() + " jump " + sources,
	}}
	if w.node.PodSource.Kind == proxy.PodSourcePrefix {
		c.Rules = append(c.Rules, w.class(w.pod, fromPods)...)
	}
	c.Rules = append(c.Rules, w.frontend+" vmap @"+fromNode.name(), "jump "+unknown)
	c.Rules = append(c.Rules, w.noRoute()...)
	return c
}

// inLo matches, in IPv4, what only the last of our routes takes. IPv6 looks after that by itself.
const inLo = "oifname lo fib daddr type != local "

// noRoute refuses what that route takes and what is no frontend: it would go round in lo.
func (w writer) noRoute() []string {
	if w.node.Family == proxy.IPv6 {
		return nil
	}
	return []string{inLo + "ip daddr @" + outerIPs.name() + " goto " + reject}
}

// refuse refuses a packet. For one that the last of our routes took the kernel sends no ICMP error: it would come from an
// address that the node does not have.
func (w writer) refuse() []string {
	if w.node.Family == proxy.IPv6 {
		return []string{"reject"}
	}
	return []string{inLo + "meta l4proto tcp reject with tcp reset", "reject"}
}

// arrive parts the classes of sources.
func (w writer) arrive() nft.Chain {
	c := nft.Chain{Name: arrive}
	if w.tellsPods() {
		c.Rules = w.class(w.pod, fromPods)
	}
	c.Rules = append(c.Rules, w.class(isNode, fromNode)...)
	c.Rules = append(c.Rules, w.frontend+" vmap @"+fromOutside.name(), "goto "+unknown)
	return c
}

func (w writer) class(match string, in set) []string {
	return []string{match + " " + w.frontend + " vmap @" + in.name(), match + " goto " + unknown}
}

// known leads packets of a connection to IPVS as long as there is a virtual server, whatever the policy is by now. A
// connection that was translated otherwise, before IPVS was in charge, goes on as it began.
func (w writer) known() nft.Chain {
	icmp := "icmp"
	if w.node.Family == proxy.IPv6 {
		icmp = "ipv6-icmp"
	}
	return nft.Chain{Name: known, Rules: []string{
		"ct status dnat return",
		w.frontend + " @" + frontends.name() + " " + w.mark(w.cfg.RouteMark),
		// What somebody on the way tells about a connection, such as that packets are too long.
		"meta l4proto " + icmp + " ct state related fib daddr type != local " + w.mark(w.cfg.RouteMark),
	}}
}

func (w writer) unknown() nft.Chain {
	c := nft.Chain{Name: unknown, Rules: []string{
		"fib daddr type local return",
		w.ip + " daddr @" + clusterIPs.name() + " goto " + reject,
	}}
	for _, p := range w.node.ServiceCIDRs {
		c.Rules = append(c.Rules, w.ip+" daddr "+nft.PrefixText(p)+" drop")
	}
	return c
}

func (w writer) sources() nft.Chain {
	return nft.Chain{Name: sources, Rules: []string{w.frontend + " . " + w.ip + " saddr @" + allowed.name() + " return", "drop"}}
}

// returned is for packets that IPVS has translated, and that leave.
func (w writer) returned() nft.Chain {
	return nft.Chain{Name: returned, Rules: []string{
		"fib saddr type != local meta priority & " + w.bit() + " != 0 jump " + returnMark,
		w.unmark(),
		firstOfTCP + fitTheWay,
	}}
}

// A packet that is too long for the way to the backend cannot be answered with an ICMP error: no interface has the address that
// it was sent to. So both ends are told at the beginning how long packets may be.
const (
	firstOfTCP = "tcp flags & (syn|rst) == syn "
	fitTheWay  = "tcp option maxseg size set rt mtu"
)

// answeredMSS does so in a backend's first packet, which IPVS translates later.
func (w writer) answeredMSS() string {
	return "ct direction reply meta l4proto tcp " + firstOfTCP +
		"ct original " + w.ip + " daddr . meta l4proto . ct original proto-dst @" + frontends.name() + " " + fitTheWay
}

func (w writer) bit() string { return fmt.Sprintf("%#08x", w.cfg.RouteMark) }

// chooseInput gives packets the mark of a virtual server where one class of sources has backends of its own.
func (w writer) chooseInput() nft.Chain {
	return nft.Chain{Name: chooseInput, Rules: []string{
		fmt.Sprintf("meta mark & %s == 0 return", w.bit()),
		noPriority,
		"ct status confirmed return",
		w.frontend + " @" + byMark.name() + " jump " + setMark,
	}}
}

// setMark replaces the whole mark, for IPVS compares all of it.
func (w writer) setMark() nft.Chain {
	c := nft.Chain{Name: setMark, Rules: []string{"jump " + keepMark}}
	replace := "meta mark set " + w.frontend + " map @"
	if w.tellsPods() {
		c.Rules = append(c.Rules, w.pod+" "+replace+podServers.name(), w.pod+" return")
	}
	c.Rules = append(c.Rules, isNode+" return", replace+outsideServers.name())
	return c
}

// The priority is the only other register of a packet. It has a type of its own, and nft does not assign one to the
// other, so they are copied bit by bit.
const (
	noPriority = "meta priority set 0:0"
	markBits   = 32
)

func (w writer) keepMark() nft.Chain {
	c := nft.Chain{Name: keepMark}
	for i := range markBits {
		c.Rules = append(c.Rules, fmt.Sprintf("meta mark & %#08x != 0 meta priority set meta priority | %#08x", uint32(1)<<i, uint32(1)<<i))
	}
	return c
}

func (w writer) returnMark() nft.Chain {
	c := nft.Chain{Name: returnMark, Rules: []string{"meta mark set 0"}}
	for i := range markBits {
		c.Rules = append(c.Rules, fmt.Sprintf("meta priority & %#08x != 0 meta mark set meta mark | %#08x", uint32(1)<<i, uint32(1)<<i))
	}
	c.Rules = append(c.Rules, noPriority)
	return c
}

// guardInput drops what should have gone to a backend. Without its virtual server, a frontend's packets would reach a
// process of this machine. What passes is for a backend on the machine itself.
func (w writer) guardInput() nft.Chain {
	c := nft.Chain{Name: guardInput}
	if w.node.Family == proxy.IPv4 && w.node.NodePorts.Relayed {
		// If the kernel routes loopback addresses, as for another mode before (route_localnet), neighbours could reach the relay.
		c.Rules = append(c.Rules, "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state new ct status & dnat == 0 drop")
	}
	c.Rules = append(c.Rules,
		"ct direction original "+w.frontend+" @"+frontends.name()+" drop",
		fmt.Sprintf("meta mark & %s == 0 return", w.bit()),
		"meta priority & "+w.bit()+" != 0 jump "+returnMark,
		w.unmark(),
	)
	return c
}

// guardOutput does the same with what the node itself sends. As the mark changes, packets to a backend on the node are
// routed anew: so far they were on their way to a frontend elsewhere.
func (w writer) guardOutput() nft.Chain {
	return nft.Chain{Name: guardOutput, Rules: []string{
		fmt.Sprintf("meta mark & %s == 0 return", w.bit()),
		w.frontend + " @" + frontends.name() + " drop",
		w.unmark(),
	}}
}

func (w writer) natPostrouting() nft.Chain {
	bit := fmt.Sprintf("%#08x", w.node.MasqueradeMark)
	return nft.Chain{Name: natPostrouting, Rules: []string{
		// The bit has served its purpose. Left in place it would have the packet masqueraded again should
		// it come by once more, from a tunnel for instance.
		"meta mark & " + bit + " != 0 meta mark set meta mark ^ " + bit + " masquerade fully-random",
		w.ip + " saddr . " + w.ip + " daddr @" + hairpin.name() + " masquerade fully-random",
	}}
}

func (w writer) filterForward() nft.Chain {
	c := nft.Chain{Name: filterForward, Rules: append(w.noRoute(), w.answeredMSS())}
	if w.cfg.DropInvalid {
		c.Rules = append(c.Rules, "ct state invalid drop")
	}
	return c
}
