package ipvs

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// front is a frontend at one address. It is immutable.
type front struct {
	id      kernel.ID
	name    proxy.ServicePortName
	yields  bool // a NodePort makes room for a frontend that names the address
	cluster bool // it is a ClusterIP

	verdicts [proxy.NumSources]string // chains that new connections go to; empty for a class that does not occur
	serves   *spec                    // nil: nobody is served
	keep     []netip.AddrPort         // backends that keep what they have even then, see spec
	apart    [proxy.NumSources]bool   // classes that have the ServicePort's other virtual server
	mark     uint32                   // of that
	allowed  []netip.Prefix
}

// spec is what a virtual server should be.
type spec struct {
	scheduler string
	fallback  bool
	timeout   uint32
	backends  []proxy.Backend

	// keep are backends that keep what they have, beside those of backends: of UDP, which knows no end of a connection.
	keep []netip.AddrPort
}

// server is the virtual server of the spec without its backends.
func (s *spec) server(id kernel.ID) kernel.Server {
	return kernel.Server{ID: id, Scheduler: s.scheduler, Fallback: s.fallback, Timeout: s.timeout}
}

// port is a ServicePort and what it needs. It is immutable.
type port struct {
	*proxy.ServicePort
	fronts   []*front
	mark     uint32 // of the virtual server for other; 0 if there is none
	other    *spec
	hairpins []netip.Addr
}

// drawer works out what ServicePorts need.
type drawer struct {
	cfg  Config
	node *proxy.Node
	pods bool // the node can tell pods apart
}

// port works out what a ServicePort needs. Take gives the mark of its other virtual server, if it needs one.
func (d drawer) port(sp *proxy.ServicePort, take func() uint32) *port {
	p := &port{ServicePort: sp}
	var used [2]bool
	for _, f := range sp.Frontends {
		routes := d.routes(sp, f)
		main, serves := mainPool(routes)
		x := front{name: sp.Name, yields: f.Kind == proxy.NodePort, cluster: f.Kind == proxy.ClusterIP, allowed: f.Allowed, keep: sp.Keep}
		if serves {
			used[main] = true
			x.serves = d.spec(sp, main)
		}
		for source, r := range routes {
			if !d.pods && proxy.Source(source) == proxy.FromPod {
				continue
			}
			x.verdicts[source] = verdict(r)
			if r.Verdict == proxy.Forward && r.Pool != main {
				used[r.Pool] = true
				x.apart[source] = true
				if p.other == nil {
					p.mark, p.other = take(), d.marked(sp, r.Pool)
				}
				x.mark = p.mark
			}
		}
		for _, addr := range d.addrs(f) {
			at := x
			at.id = kernel.ID{Addr: netip.AddrPortFrom(addr, f.Addr.Port()), Protocol: sp.Name.Protocol}
			p.fronts = append(p.fronts, &at)
		}
	}
	p.hairpins = hairpins(sp, used)
	return p
}

// addrs are the addresses of a frontend.
func (d drawer) addrs(f proxy.Frontend) []netip.Addr {
	if f.Kind != proxy.NodePort {
		return []netip.Addr{f.Addr.Addr()}
	}
	all := d.node.NodePorts.Addrs
	if d.node.NodePorts.All {
		all = d.node.Addrs
	}
	return slices.DeleteFunc(slices.Clone(all), netip.Addr.IsLoopback)
}

// routes are the frontend's, with what makes no difference made equal.
func (d drawer) routes(sp *proxy.ServicePort, f proxy.Frontend) proxy.Routes {
	routes := f.Routes
	if !d.pods {
		routes[proxy.FromPod] = routes[proxy.FromOutside]
	}
	for i, route := range routes {
		if route.Verdict == proxy.Forward && len(sp.Backends(route.Pool)) == 0 {
			routes[i] = proxy.Route{Verdict: proxy.Reject}
		}
	}
	return routes
}

// mainPool is the pool of the virtual server that has the frontend's address: the node's if it is served, for packets of
// the node pass where only addresses count.
func mainPool(routes proxy.Routes) (pool proxy.Pool, serves bool) {
	for _, source := range []proxy.Source{proxy.FromNode, proxy.FromPod, proxy.FromOutside} {
		if r := routes[source]; r.Verdict == proxy.Forward {
			return r.Pool, true
		}
	}
	return 0, false
}

func verdict(r proxy.Route) string {
	switch {
	case r.Verdict == proxy.Reject:
		return reject
	case r.Verdict == proxy.Drop:
		return drop
	case r.Masquerade:
		return leadMasq
	}
	return lead
}

// spec is the virtual server for a pool.
func (d drawer) spec(sp *proxy.ServicePort, pool proxy.Pool) *spec {
	scheduler := d.cfg.Scheduler
	if sp.Scheduler != "" {
		scheduler = sp.Scheduler
	}
	return &spec{
		scheduler: scheduler,
		fallback:  scheduler == "sh" || scheduler == "mh",
		timeout:   uint32((sp.Affinity + time.Second - 1) / time.Second),
		backends:  sp.Backends(pool),
		keep:      sp.Keep,
	}
}

// marked is a virtual server that is known by a mark. With persistence it would send clients to the frontend's port
// instead of the backend's, so clients stick to their backends by a hash of their address.
func (d drawer) marked(sp *proxy.ServicePort, pool proxy.Pool) *spec {
	s := d.spec(sp, pool)
	if s.timeout > 0 {
		s.scheduler, s.fallback, s.timeout = "sh", true, 0
	}
	return s
}

// hairpins are the backends that may be their own client.
func hairpins(sp *proxy.ServicePort, used [2]bool) []netip.Addr {
	var addrs []netip.Addr
	for pool, in := range used {
		if !in {
			continue
		}
		for _, b := range sp.Backends(proxy.Pool(pool)) {
			if b.Local {
				addrs = append(addrs, b.Addr.Addr())
			}
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// frontendKey is a frontend in the words of nft.
func frontendKey(id kernel.ID) string {
	return id.Addr.Addr().String() + " . " + id.Protocol.String() + " . " + strconv.Itoa(int(id.Addr.Port()))
}

func markText(mark uint32) string { return string(nft.AppendMark(nil, mark)) }

// elements are those that say what becomes of new connections. A nil front has none.
func (f *front) elements() []element {
	if f == nil {
		return nil
	}
	key, comment := frontendKey(f.id), portComment(f.name)
	var all []element
	add := func(in set, key, value string) {
		all = append(all, element{in.at(key), nft.Content{Value: value, Comment: comment}})
	}
	byClass := [...]set{proxy.FromPod: fromPods, proxy.FromNode: fromNode, proxy.FromOutside: fromOutside}
	for source, chain := range f.verdicts {
		if chain != "" {
			add(byClass[source], key, "goto "+chain)
		}
	}
	if f.mark != 0 {
		add(byMark, key, "")
	}
	if f.apart[proxy.FromPod] {
		add(podServers, key, markText(f.mark))
	}
	if f.apart[proxy.FromOutside] {
		add(outsideServers, key, markText(f.mark))
	}
	if f.allowed != nil {
		add(restricted, key, "")
		for _, p := range widest(f.allowed) {
			add(allowed, key+" . "+string(nft.AppendPrefixLength([]byte(p.Addr().String()), p)), "")
		}
	}
	return all
}

// widest leaves out ranges that lie inside others: the kernel refuses elements that overlap.
func widest(ranges []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for i, p := range ranges {
		inside := false
		for j, o := range ranges {
			inside = inside || i != j && o.Bits() <= p.Bits() && o.Contains(p.Addr()) && (o != p || j < i)
		}
		if !inside {
			all = append(all, p)
		}
	}
	return all
}

// shared are the elements that other ServicePorts may want as well.
func (p *port) shared() []nft.Place {
	if p == nil {
		return nil
	}
	var all []nft.Place
	for _, f := range p.fronts {
		switch addr := f.id.Addr.Addr().String(); {
		case f.cluster:
			all = append(all, clusterIPs.at(addr))
		case !f.yields:
			all = append(all, outerIPs.at(addr))
		}
	}
	for _, a := range p.hairpins {
		all = append(all, hairpin.at(a.String()+" . "+a.String()))
	}
	return all
}
