package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	fromNode    = "-m addrtype --src-type LOCAL"
	notFromNode = "-m addrtype ! --src-type LOCAL"
)

// renderer turns ServicePorts into chains of the nat table, for one node.
type renderer struct {
	family proxy.Family

	pod, notPod string // matches; empty if the node cannot tell pods apart
	mark        string // the target that asks for masquerading
	nodePorts   bool   // some address serves NodePorts

	serviceCIDRs []netip.Prefix
}

func newRenderer(n *proxy.Node) *renderer {
	r := &renderer{
		family:    n.Family,
		pod:       podMatch(n.PodSource),
		mark:      setMark(n.MasqueradeMark),
		nodePorts: servesNodePorts(n),

		serviceCIDRs: n.ServiceCIDRs,
	}
	if r.pod != "" {
		r.notPod = "! " + r.pod
	}
	return r
}

// sameRules tells whether both nodes have the same chains for every ServicePort.
func sameRules(a, b *proxy.Node) bool {
	return a.Family == b.Family && a.PodSource == b.PodSource && a.MasqueradeMark == b.MasqueradeMark &&
		servesNodePorts(a) == servesNodePorts(b) && slices.Equal(a.ServiceCIDRs, b.ServiceCIDRs)
}

func servesNodePorts(n *proxy.Node) bool {
	return n.NodePorts.All || len(n.NodePorts.Addrs) > 0 || guardsLoopback(n)
}

// frontends are those of sp at which the node can be reached.
func (r *renderer) frontends(sp *proxy.ServicePort) []proxy.Frontend {
	if r.nodePorts {
		return sp.Frontends
	}
	at := slices.IndexFunc(sp.Frontends, func(f proxy.Frontend) bool { return f.Kind == proxy.NodePort })
	if at < 0 {
		return sp.Frontends
	}
	return sp.Frontends[:at]
}

func podMatch(p proxy.PodSource) string {
	// An interface name of this length has no room for the wildcard, and needs none.
	const longestName = 15
	switch {
	case p.Kind == proxy.PodSourcePrefix:
		return "-s " + p.Prefix.String()
	case p.Kind == proxy.PodSourceInterface, p.Kind == proxy.PodSourceInterfacePrefix && len(p.Interface) >= longestName:
		return "-i " + p.Interface
	case p.Kind == proxy.PodSourceInterfacePrefix:
		return "-i " + p.Interface + "+"
	}
	return ""
}

func setMark(mark uint32) string { return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", mark, mark) }

// servicePort renders all chains of sp.
func (r *renderer) servicePort(out *chains, sp *proxy.ServicePort) {
	l := r.layout(sp)
	for _, g := range l.groups {
		if !g.direct {
			r.route(out, sp, g, l.inline)
		}
		for _, s := range g.sources {
			out.begin(s.chain)
			for _, p := range s.allowed {
				out.rule("-s", p.String(), "-j", g.chain)
			}
		}
	}
	for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		if !l.needs(pool) {
			continue
		}
		b := newBalancer(sp, pool)
		if !l.inline {
			out.begin(poolChain(sp, pool))
			b.rules(out)
		}
		b.groups(out)
	}
	for _, b := range l.backends(sp) {
		if ownsChain(sp, b) {
			r.endpoint(out, sp, b)
		}
	}
}

// route renders the chain in which classes of sources part. If it is inline, it goes on as the chain of
// the only pool.
func (r *renderer) route(out *chains, sp *proxy.ServicePort, g group, inline bool) {
	out.begin(g.chain)
	for _, s := range g.steps {
		switch {
		case s.action == masquerade:
			out.rule(s.match, r.mark)
		case s.action == refuse:
			out.rule(s.match, "-j RETURN")
		case inline:
			b := newBalancer(sp, s.pool)
			b.rules(out)
		default:
			out.rule(s.match, "-j", poolChain(sp, s.pool))
		}
	}
}

// endpoint renders the chain of a backend that may be its own client, or that remembers its clients.
func (r *renderer) endpoint(out *chains, sp *proxy.ServicePort, b proxy.Backend) {
	name := endpointOf(sp, b)
	out.begin(name)
	if b.Local {
		out.rule("-s", netip.PrefixFrom(b.Addr.Addr(), b.Addr.Addr().BitLen()).String(), r.mark)
	}
	remember := ""
	if sp.Affinity > 0 {
		remember = "-m recent --name " + name + " --set"
	}
	out.rule(remember, protocolMatch(sp), translate(b))
}

// protocolMatch is what a rule with a port in its target must match.
func protocolMatch(sp *proxy.ServicePort) string { return "-p " + sp.Name.Protocol.String() }

// translate is the target that sends a packet to b.
func translate(b proxy.Backend) string { return "-j DNAT --to-destination " + b.Addr.String() }

func ownsChain(sp *proxy.ServicePort, b proxy.Backend) bool { return b.Local || sp.Affinity > 0 }

func endpointOf(sp *proxy.ServicePort, b proxy.Backend) string {
	return chainOf(endpointChain, sp.Name, b.Addr.String())
}

func poolChain(sp *proxy.ServicePort, pool proxy.Pool) string {
	if pool == proxy.LocalPool {
		return chainOf(localChain, sp.Name)
	}
	return chainOf(clusterChain, sp.Name)
}

// seconds rounds up: a client must not lose its backend early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// layout says which chains a ServicePort has and where its frontends enter them.
type layout struct {
	groups []group
	entry  []string // by frontend: the chain it leads to; empty if nat does not serve it
	inline bool     // the only group's chain is that of the only pool too
}

// group is the frontends of a ServicePort that treat their clients alike.
type group struct {
	chain   string
	routes  proxy.Routes
	steps   []step
	sources []sources

	// direct groups have no chain: their few rules stand in the tree.
	direct bool
}

// sources is a chain that only allowed sources pass.
type sources struct {
	chain   string
	allowed []netip.Prefix
}

func (r *renderer) layout(sp *proxy.ServicePort) layout {
	frontends := r.frontends(sp)
	l := layout{entry: make([]string, len(frontends))}
	member := make([]int, len(frontends))
	var kinds [len(routeChains)]int
	for i, f := range frontends {
		routes := r.routes(sp, f)
		if member[i] = -1; !routes.Serves() || f.Allowed != nil && len(f.Allowed) == 0 {
			continue
		}
		at := slices.IndexFunc(l.groups, func(g group) bool { return g.routes == routes })
		if at < 0 {
			at = len(l.groups)
			chain := chainOf(routeChains[f.Kind], sp.Name, ordinal(kinds[f.Kind])...)
			kinds[f.Kind]++
			l.groups = append(l.groups, group{chain: chain, routes: routes, steps: r.steps(routes)})
		}
		member[i] = at
	}
	if len(l.groups) == 1 && endsInOnlyPool(l.groups[0].steps) {
		l.inline = true
		l.groups[0].chain = chainOf(serviceChain, sp.Name)
	}
	walls := 0
	for i, f := range frontends {
		if member[i] < 0 {
			continue
		}
		g := &l.groups[member[i]]
		l.entry[i] = g.chain
		if f.Allowed != nil {
			l.entry[i] = g.guard(sp, f.Allowed, &walls)
		}
	}
	for i := range l.groups {
		l.groups[i].direct = l.groups[i].isDirect(sp)
	}
	return l
}

// isDirect tells whether all that the group does is to send everybody to one of a few backends.
func (g *group) isDirect(sp *proxy.ServicePort) bool {
	if sp.Affinity > 0 || len(g.sources) > 0 || !endsInOnlyPool(g.steps) {
		return false
	}
	refuses := slices.ContainsFunc(g.steps, func(s step) bool { return s.action == refuse })
	return !refuses && len(sp.Backends(g.pool())) <= fewRules
}

// groupOf is the group that the i-th frontend enters at once, nil if there is none.
func (l *layout) groupOf(i int) *group {
	at := slices.IndexFunc(l.groups, func(g group) bool { return g.chain == l.entry[i] })
	if at < 0 {
		return nil
	}
	return &l.groups[at]
}

// pool is where the last step forwards to.
func (g *group) pool() proxy.Pool { return g.steps[len(g.steps)-1].pool }

// guard is the chain that lets only allowed sources into the group.
func (g *group) guard(sp *proxy.ServicePort, allowed []netip.Prefix, count *int) string {
	for _, s := range g.sources {
		if slices.Equal(s.allowed, allowed) {
			return s.chain
		}
	}
	s := sources{chainOf(sourcesChain, sp.Name, ordinal(*count)...), allowed}
	*count++
	g.sources = append(g.sources, s)
	return s.chain
}

// routes are the frontend's, with what makes no difference to rules made equal.
func (r *renderer) routes(sp *proxy.ServicePort, f proxy.Frontend) proxy.Routes {
	routes := f.Routes
	if r.pod == "" {
		routes[proxy.FromPod] = routes[proxy.FromOutside]
	}
	for i, route := range routes {
		if route.Verdict == proxy.Forward && len(sp.Backends(route.Pool)) == 0 {
			routes[i] = proxy.Route{Verdict: proxy.Reject}
		}
	}
	return routes
}

func (l *layout) uses(pool proxy.Pool) bool {
	return slices.ContainsFunc(l.groups, func(g group) bool { return g.routes.Uses(pool) })
}

// needs tells whether rules of chains, not only of trees, choose from the pool.
func (l *layout) needs(pool proxy.Pool) bool {
	return slices.ContainsFunc(l.groups, func(g group) bool { return !g.direct && g.routes.Uses(pool) })
}

// backends are those of all pools in use, each once.
func (l *layout) backends(sp *proxy.ServicePort) []proxy.Backend {
	switch cluster, local := l.uses(proxy.ClusterPool), l.uses(proxy.LocalPool); {
	case cluster && local:
		both := slices.Concat(sp.Cluster, sp.Local)
		slices.SortFunc(both, proxy.Backend.Compare)
		return slices.CompactFunc(both, func(a, b proxy.Backend) bool { return a.Addr == b.Addr })
	case local:
		return sp.Local
	case cluster:
		return sp.Cluster
	}
	return nil
}

// step is a rule of a route chain. Packets that a refuse or forward step matches go no further.
type step struct {
	match  string
	action action
	pool   proxy.Pool // of forward
}

type action uint8

const (
	masquerade action = iota
	refuse
	forward
)

// steps makes rules of a table of routes: a step sees only packets that no earlier refuse or forward
// step took.
func (r *renderer) steps(routes proxy.Routes) []step {
	classes := r.classes(routes)
	if len(classes) == 2 {
		// The typical ClusterIP: one pool, and a masquerade that depends on the source.
		first, rest := classes[0], classes[1]
		if first.Verdict == proxy.Forward && rest.Verdict == proxy.Forward && first.Pool == rest.Pool {
			match := first.not
			if first.Masquerade {
				match = first.match
			}
			return []step{{match, masquerade, 0}, {"", forward, first.Pool}}
		}
	}
	var steps []step
	for _, c := range classes {
		switch {
		case c.Verdict == proxy.Forward && c.Masquerade:
			steps = append(steps, step{c.match, masquerade, 0}, step{c.match, forward, c.Pool})
		case c.Verdict == proxy.Forward:
			steps = append(steps, step{c.match, forward, c.Pool})
		case c.match != "":
			steps = append(steps, step{c.match, refuse, 0})
		}
	}
	return steps
}

// class is a route, for packets that match and belong to no class before.
type class struct {
	proxy.Route
	match, not string
}

// classes are the classes of sources in order, the last of which matches all that is left. It takes in
// those before it that have the same route.
func (r *renderer) classes(routes proxy.Routes) []class {
	classes := make([]class, 0, proxy.NumSources)
	if r.pod != "" {
		classes = append(classes, class{routes[proxy.FromPod], r.pod, r.notPod})
	}
	classes = append(classes, class{routes[proxy.FromNode], fromNode, notFromNode})
	rest := class{Route: routes[proxy.FromOutside]}
	for len(classes) > 0 && classes[len(classes)-1].Route == rest.Route {
		classes = classes[:len(classes)-1]
	}
	return append(classes, rest)
}

// endsInOnlyPool tells whether the last step forwards all that is left, and no other step forwards.
func endsInOnlyPool(steps []step) bool {
	first := slices.IndexFunc(steps, func(s step) bool { return s.action == forward })
	return first == len(steps)-1 && steps[first].match == ""
}
