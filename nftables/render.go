package nftables

import (
	"net/netip"
	"strconv"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// slots are the backends of a pool at one frontend.
type slots struct {
	in   *nft.Set
	key  string
	pool proxy.Pool
	order
}

// element is that of the i-th slot.
func (s slots) element(i int, comment string) element {
	return element{
		Place:   nft.Place{Set: s.in, Key: s.key + " . " + slot(s.pool, i)},
		Content: nft.Content{Value: backendText(s.order[i]), Comment: comment},
	}
}

func backendText(a netip.AddrPort) string {
	return a.Addr().String() + " . " + strconv.Itoa(int(a.Port()))
}

// shared is where an element is that several ServicePorts may want.
type shared = nft.Place

// rendered is all that a ServicePort has in the table.
type rendered struct {
	own    []element // but for slots
	slots  []slots
	shared []shared
}

// render gives nothing for a nil port.
func render(p *port) rendered {
	var out rendered
	if p == nil {
		return out
	}
	d := drawer{port: p, comment: portComment(p.Name), rendered: &out}
	for _, f := range p.Frontends {
		d.frontend(f)
	}
	if p.sticky != nil {
		d.sticky()
	}
	d.hairpins()
	return out
}

// drawer renders one ServicePort.
type drawer struct {
	*port
	comment string
	*rendered
	used [2]bool // pools
}

func (d *drawer) add(in *nft.Set, key, value string) { d.lead(in, key, value, spec{}) }

// jump adds a jump to a chain of which there are several.
func (d *drawer) jump(in *nft.Set, key string, to spec) { d.lead(in, key, "jump "+to.name(), to) }

func (d *drawer) lead(in *nft.Set, key, value string, to spec) {
	d.own = append(d.own, element{nft.Place{Set: in, Key: key}, nft.Content{Value: value, Comment: d.comment}, to})
}

// family is the sets that frontends of a kind use.
type family struct {
	dispatch, known, slots, sticky *nft.Set
	classes                        [proxy.NumSources]*nft.Set
	byClass                        string
}

var (
	addressed = family{
		services, frontends, endpoints, stickyServices,
		[...]*nft.Set{proxy.FromPod: podServices, proxy.FromNode: nodeServices, proxy.FromOutside: outsideServices}, byClass,
	}
	numbered = family{
		nodePorts, frontendPorts, nodePortEndpoints, stickyNodePorts,
		[...]*nft.Set{proxy.FromPod: podNodePorts, proxy.FromNode: nodeNodePorts, proxy.FromOutside: outsideNodePorts}, nodePortsByClass,
	}
)

func familyOf(f proxy.Frontend) *family {
	if f.Kind == proxy.NodePort {
		return &numbered
	}
	return &addressed
}

func (d *drawer) key(f proxy.Frontend) string { return frontendKeyOf(d.Name.Protocol, f) }

func frontendKeyOf(protocol proxy.Protocol, f proxy.Frontend) string {
	key := protocol.String() + " . " + strconv.Itoa(int(f.Addr.Port()))
	if f.Kind != proxy.NodePort {
		key = f.Addr.Addr().String() + " . " + key
	}
	return key
}

func (d *drawer) frontend(f proxy.Frontend) {
	sets, key := familyOf(f), d.key(f)
	routes := d.routes(f)
	refused := "drop"
	if routes == proxy.Every(proxy.Route{Verdict: proxy.Reject}) {
		refused = "goto " + reject
	}
	d.add(sets.known, key, refused)
	if f.Kind == proxy.ClusterIP {
		d.shared = append(d.shared, shared{Set: clusterIPs, Key: f.Addr.Addr().String()})
	}
	if f.Allowed != nil {
		d.sources(key, f.Allowed)
	}
	if !routes.Serves() {
		return
	}
	d.dispatch(sets, key, routes)
	for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		if routes.Uses(pool) {
			d.used[pool] = true
			d.slots = append(d.slots, slots{sets.slots, key, pool, d.orders[pool]})
		}
	}
	if d.port.sticky != nil {
		d.add(sets.sticky, key, d.port.sticky.class(0))
	}
}

// routes are the frontend's, with what makes no difference made equal.
func (p *port) routes(f proxy.Frontend) proxy.Routes {
	routes := f.Routes
	if !p.pods {
		routes[proxy.FromPod] = routes[proxy.FromOutside]
	}
	for i, route := range routes {
		if route.Verdict == proxy.Forward && len(p.Backends(route.Pool)) == 0 {
			routes[i] = proxy.Route{Verdict: proxy.Reject}
		}
	}
	return routes
}

// dispatch leads packets to a chain for the number of backends: at once, if classes of sources differ at most in
// that pods are not masqueraded, else by class.
func (d *drawer) dispatch(sets *family, key string, routes proxy.Routes) {
	if to, ok := d.uniform(sets, routes); ok {
		d.jump(sets.dispatch, key, to)
		return
	}
	d.add(sets.dispatch, key, "jump "+sets.byClass)
	for source, route := range routes {
		if route.Verdict != proxy.Forward || proxy.Source(source) == proxy.FromPod && !d.pods {
			continue
		}
		masq := nobody
		if route.Masquerade {
			masq = everybody
		}
		d.jump(sets.classes[source], key, d.spec(sets, route.Pool, masq))
	}
}

func (d *drawer) spec(sets *family, pool proxy.Pool, masq masquerade) spec {
	return spec{
		backends: len(d.orders[pool]),
		nodePort: sets == &numbered,
		sticky:   d.port.sticky != nil,
		pool:     pool,
		masq:     masq,
	}
}

func (d *drawer) uniform(sets *family, routes proxy.Routes) (spec, bool) {
	pod, node, outside := routes[proxy.FromPod], routes[proxy.FromNode], routes[proxy.FromOutside]
	if node != outside || node.Verdict != proxy.Forward {
		return spec{}, false
	}
	masq := nobody
	switch {
	case pod == node && node.Masquerade:
		masq = everybody
	case pod == node:
	case pod.Verdict == proxy.Forward && pod.Pool == node.Pool && node.Masquerade:
		masq = allButPods
	default:
		return spec{}, false
	}
	return d.spec(sets, node.Pool, masq), true
}

// sources lets only some sources in.
func (d *drawer) sources(key string, ranges []netip.Prefix) {
	d.add(restricted, key, "")
	for _, p := range ranges {
		d.add(allowed, key+" . "+nft.PrefixText(p), "")
	}
}

// sticky renders what remembers clients. The numbers of the ServicePort lead to its backends.
func (d *drawer) sticky() {
	if !d.used[proxy.ClusterPool] && !d.used[proxy.LocalPool] {
		return
	}
	s := d.port.sticky
	self := s.class(0)
	numbered := map[netip.AddrPort]bool{}
	for pool, in := range map[proxy.Pool]*nft.Set{proxy.ClusterPool: stickyBackends, proxy.LocalPool: stickyLocalBackends} {
		if !d.used[pool] {
			continue
		}
		for _, addr := range d.orders[pool] {
			id := s.ids[addr]
			if id == 0 {
				continue
			}
			d.add(in, s.class(id), backendText(addr))
			if !numbered[addr] {
				numbered[addr] = true
				d.add(stickyIDs, self+" . "+backendText(addr), s.class(id))
				d.jump(stickyTimeouts, s.class(id), specOfTimeout(d.Affinity))
			}
		}
	}
}

// hairpins renders the backends that may be their own client.
func (d *drawer) hairpins() {
	seen := map[netip.Addr]bool{}
	for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		if !d.used[pool] {
			continue
		}
		for _, b := range d.Backends(pool) {
			if addr := b.Addr.Addr(); b.Local && !seen[addr] {
				seen[addr] = true
				d.shared = append(d.shared, shared{Set: hairpin, Key: addr.String() + " . " + addr.String()})
			}
		}
	}
}

// difference notes what turns the elements of one ServicePort's state into those of another, but for shared ones.
func difference(to *nft.Edits, was, now rendered, comment string) {
	differ(to, was.own, now.own)
	had := make(map[slotsKey]slots, len(was.slots))
	for _, s := range was.slots {
		had[slotsKey{s.in, s.key, s.pool}] = s
	}
	for _, s := range now.slots {
		k := slotsKey{s.in, s.key, s.pool}
		s.differ(to, had[k], comment)
		delete(had, k)
	}
	for _, s := range was.slots {
		if _, gone := had[slotsKey{s.in, s.key, s.pool}]; gone {
			slots{s.in, s.key, s.pool, nil}.differ(to, s, comment)
		}
	}
}

type slotsKey struct {
	in   *nft.Set
	key  string
	pool proxy.Pool
}

func (s slots) differ(to *nft.Edits, was slots, comment string) {
	for i := range max(len(s.order), len(was.order)) {
		if i < len(was.order) && i < len(s.order) && was.order[i] == s.order[i] {
			continue
		}
		var x nft.Edit
		if i < len(was.order) {
			e := was.element(i, comment)
			x.Place, x.Old = e.Place, &e.Content
		}
		if i < len(s.order) {
			e := s.element(i, comment)
			x.Place, x.New = e.Place, &e.Content
		}
		to.Add(x)
	}
}
