package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// View is what is asked.
type View struct {
	Snapshot *proxy.Snapshot

	// SetAside are the ServicePorts that the kernel refused.
	SetAside []proxy.SetAside

	// Relay says that a process serves TCP NodePorts on the loopback address where the node asks for that and rules do not.
	Relay bool

	// Input is what is known of a Service; nil: nothing, and answers have no candidates.
	Input func(proxy.ServiceName) policy.Input
}

// Packet says what becomes of a packet. Its addresses are of the snapshot's family.
func (v View) Packet(p Packet) Answer {
	a := Answer{Packet: p}
	a.Source, a.SourceWhy = p.class(v.Snapshot.Node())
	if p.To.Addr().IsLoopback() && !p.fromNode(v.Snapshot.Node()) {
		a.Fate, a.Why = Dropped, fmt.Sprintf("%v is a host's own, and nobody else gets there", p.To.Addr())
		return a
	}
	port, frontend := v.frontend(p)
	if frontend == nil {
		a.Fate, a.Why = v.without(p)
		return a
	}
	a.Port, a.Frontend = port, frontend
	v.decide(&a)
	return a
}

// frontend finds what the packet is sent to. An address of its own counts before a NodePort of the same number.
func (v View) frontend(p Packet) (port *proxy.ServicePort, frontend *proxy.Frontend) {
	return v.find(p, v.servesNodePorts(p))
}

// find is frontend, given whether the address serves NodePorts.
func (v View) find(p Packet, onNode bool) (port *proxy.ServicePort, frontend *proxy.Frontend) {
	for _, sp := range v.Snapshot.All() {
		if sp.Name.Protocol != p.Protocol {
			continue
		}
		for i := range sp.Frontends {
			f := &sp.Frontends[i]
			if f.Addr == p.To {
				return sp, f
			}
			if onNode && f.Kind == proxy.NodePort && f.Addr.Port() == p.To.Port() {
				port, frontend = sp, f
			}
		}
	}
	return port, frontend
}

// servesNodePorts tells whether the address that the packet is sent to serves NodePorts.
func (v View) servesNodePorts(p Packet) bool {
	node, to := v.Snapshot.Node(), p.To.Addr()
	switch n := node.NodePorts; {
	case to.IsLoopback() && n.Localhost:
		return true
	case to.IsLoopback():
		return v.Relay && n.Relayed && to == node.Family.Localhost() && p.Protocol == proxy.TCP
	case n.All:
		return slices.Contains(node.Addrs, to)
	default:
		return slices.Contains(n.Addrs, to) && slices.Contains(node.Addrs, to)
	}
}

// without decides about a packet that no frontend waits for.
func (v View) without(p Packet) (Fate, string) {
	to := p.To.Addr()
	for _, sp := range v.Snapshot.All() {
		if slices.ContainsFunc(sp.Frontends, func(f proxy.Frontend) bool { return f.Kind == proxy.ClusterIP && f.Addr.Addr() == to }) {
			return Rejected, fmt.Sprintf("%v is the cluster IP of %v, which has no such port", to, sp.Name.Service())
		}
	}
	if i := slices.IndexFunc(v.Snapshot.Node().ServiceCIDRs, func(c netip.Prefix) bool { return c.Contains(to) }); i >= 0 {
		return Dropped, fmt.Sprintf("no Service has %v, which is in the range of cluster IPs, %v", to, v.Snapshot.Node().ServiceCIDRs[i])
	}
	if slices.Contains(v.Snapshot.Node().Addrs, to) || to.IsLoopback() {
		if sp, _ := v.find(p, true); sp != nil {
			return Ignored, fmt.Sprintf("port %d is a node port of %v, but %v serves no node ports (--nodeport-addresses)", p.To.Port(), sp.Name, to)
		}
	}
	return Ignored, "no Service has such an address and port"
}

// Refusal is why the kernel refused a ServicePort, nil if it did not.
func (v View) Refusal(name proxy.ServicePortName) error {
	if i := slices.IndexFunc(v.SetAside, func(s proxy.SetAside) bool { return s.Name == name }); i >= 0 {
		return v.SetAside[i].Err
	}
	return nil
}

// candidates are the endpoints of a ServicePort's Service, nil if they are not known.
func (v View) candidates(name proxy.ServicePortName) []policy.Candidate {
	if v.Input == nil {
		return nil
	}
	return policy.Candidates(v.Input(name.Service()), name.Port, name.Protocol, v.Snapshot.Node())
}

// decide fills in what becomes of a packet to a frontend.
func (v View) decide(a *Answer) {
	if err := v.Refusal(a.Port.Name); err != nil {
		a.Why = fmt.Sprintf("the kernel refused %v, which is not served: %v", a.Port.Name, err)
		return
	}
	if a.Frontend.Allowed != nil && !slices.ContainsFunc(a.Frontend.Allowed, func(r netip.Prefix) bool { return r.Contains(a.Packet.From) }) {
		a.Fate, a.Why = Dropped, fmt.Sprintf("%v is in none of loadBalancerSourceRanges, %v", a.Packet.From, a.Frontend.Allowed)
		return
	}
	v.route(a)
}

// route fills in what the policy makes of a packet that may use the frontend.
func (v View) route(a *Answer) {
	node, route := v.Snapshot.Node(), a.Frontend.Routes[a.Source]
	switch route.Verdict {
	case proxy.Reject:
		a.Fate, a.Why = Rejected, "no endpoint of the Service is usable, on any node"
	case proxy.Drop:
		a.Fate, a.Pool, a.Why = Dropped, proxy.LocalPool, "the traffic policy is Local, and this node has no usable endpoint"
	case proxy.Forward:
		a.Fate, a.Pool, a.Affinity = Forwarded, route.Pool, a.Port.Affinity
		a.Why, a.MasqueradeWhy = poolWhy(a), masqueradeWhy(a, route, node)
		a.Backends = backends(a, route, node)
	}
	a.Candidates = v.candidates(a.Port.Name)
}

func backends(a *Answer, route proxy.Route, node *proxy.Node) []Backend {
	pool := a.Port.Backends(route.Pool)
	list := make([]Backend, len(pool))
	for i, b := range pool {
		hairpin := b.Local && b.Addr.Addr() == a.Packet.From
		stays := a.Source != proxy.FromNode && slices.Contains(node.Addrs, b.Addr.Addr())
		list[i] = Backend{Addr: b.Addr, Masquerade: route.Masquerade && !stays || hairpin, Hairpin: hairpin, Stays: stays}
	}
	return list
}

func poolWhy(a *Answer) string {
	outside := a.Frontend.Routes[proxy.FromOutside]
	switch {
	case a.Pool == proxy.LocalPool:
		return "the traffic policy is Local: to the endpoints on this node"
	case outside.Verdict == proxy.Drop || outside.Pool == proxy.LocalPool:
		return "to all endpoints: externalTrafficPolicy Local does not concern pods and the node itself"
	}
	return "to all endpoints"
}

// masqueradeWhy says why backends see the client's address or one of the node.
func masqueradeWhy(a *Answer, route proxy.Route, node *proxy.Node) string {
	tellsPods := node.PodSource.Kind != proxy.PodSourceNone
	external := a.Frontend.Kind != proxy.ClusterIP
	switch {
	case route.Masquerade && !external && node.MasqueradeAll:
		return "all traffic to cluster IPs is masqueraded (--masquerade-all)"
	case route.Masquerade && !external:
		return "traffic to a cluster IP that is not a pod's is masqueraded, so that answers come back through this node"
	case route.Masquerade && a.Source == proxy.FromNode:
		return "the node's own address may not be one that the backend answers to"
	case route.Masquerade:
		return "the backend may be on another node, and its answers must come back through this one"
	case external && a.Pool == proxy.LocalPool:
		return "the traffic policy is Local, so the client's address is kept"
	case !external && !tellsPods:
		return "this node cannot tell pods from others, and masquerading would hide pods too"
	}
	return "it comes from a pod, and answers to pods find their way"
}
