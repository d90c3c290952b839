package policy

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// portKey joins the ports of a Service to those of its slices: by name, never by number.
type portKey struct {
	name     string
	protocol proxy.Protocol
}

// index holds a Service's endpoints of one family, sorted once for all ports.
type index struct {
	members []member
	numbers map[portKey][]uint16 // by slice; 0: the slice does not have the port
}

// member is an endpoint and the number of its slice.
type member struct {
	endpoint *Endpoint
	slice    int
}

func newIndex(list []*Slice, family proxy.Family) *index {
	x := &index{numbers: map[portKey][]uint16{}}
	for i, s := range list {
		if s.Family != family {
			continue
		}
		for j := range s.Endpoints {
			if family.Has(s.Endpoints[j].Addr) {
				x.members = append(x.members, member{&s.Endpoints[j], i})
			}
		}
		for _, p := range s.Ports {
			x.addPort(p, i, len(list))
		}
	}
	slices.SortFunc(x.members, func(a, b member) int { return a.endpoint.Compare(b.endpoint) })
	return x
}

// addPort notes a port of slice i. Of two that share a name the lower number wins.
func (x *index) addPort(p SlicePort, i, numSlices int) {
	key := portKey{p.Name, p.Protocol}
	numbers := x.numbers[key]
	if numbers == nil {
		numbers = make([]uint16, numSlices)
		x.numbers[key] = numbers
	}
	if numbers[i] == 0 || p.Port < numbers[i] {
		numbers[i] = p.Port
	}
}

// candidate is an endpoint at one port.
type candidate struct {
	*Endpoint
	addr netip.AddrPort
}

// at lists the endpoints of a Service's port by address. Of those that several slices name at the
// same address and port it has the one that Endpoint.Compare puts first.
func (x *index) at(port Port) []candidate {
	numbers := x.numbers[portKey{port.Name, port.Protocol}]
	if numbers == nil {
		return nil
	}
	list := make([]candidate, 0, len(x.members))
	for _, m := range x.members {
		if number := numbers[m.slice]; number != 0 {
			list = append(list, candidate{m.endpoint, netip.AddrPortFrom(m.endpoint.Addr, number)})
		}
	}
	// Members are in order of address; only slices with different numbers for the port disturb it.
	if !slices.IsSortedFunc(list, candidate.compareAddr) {
		slices.SortStableFunc(list, candidate.compareAddr)
	}
	return slices.CompactFunc(list, func(a, b candidate) bool { return a.addr == b.addr })
}

func (c candidate) compareAddr(o candidate) int { return c.addr.Compare(o.addr) }

// choice is what the endpoints of a port come down to on a node.
type choice struct {
	all     []candidate
	cluster []candidate
	local   []candidate
	node    *proxy.Node
}

// choose picks the backends: ready endpoints, else those that still serve while they terminate. The two
// pools are decided independently, and topology narrows only ready endpoints of the whole cluster.
func choose(all []candidate, node *proxy.Node) choice {
	ready := only(all, (*Endpoint).ready)
	draining := only(all, (*Endpoint).draining)
	here := func(e *Endpoint) bool { return e.on(node) }
	c := choice{all: all, node: node}
	if c.cluster = nearest(ready, node); len(c.cluster) == 0 {
		c.cluster = draining
	}
	if c.local = only(ready, here); len(c.local) == 0 {
		c.local = only(draining, here)
	}
	return c
}

// usable tells whether the port has a backend anywhere in the cluster.
func (c choice) usable() bool { return len(c.cluster) > 0 }

// keep lists the addresses to which flows may go on: what serves, and what is a backend because its
// Service publishes addresses that are not ready.
func (c choice) keep() []netip.AddrPort {
	var list []netip.AddrPort
	for _, e := range c.all {
		if e.Serving || e.Ready {
			list = append(list, e.addr)
		}
	}
	return list
}

func (c choice) appendLocalReady(addrs []netip.Addr) []netip.Addr {
	for _, e := range c.all {
		if e.Ready && e.on(c.node) {
			addrs = append(addrs, e.Addr)
		}
	}
	return addrs
}

func backends(chosen []candidate, node *proxy.Node) []proxy.Backend {
	if len(chosen) == 0 {
		return nil
	}
	list := make([]proxy.Backend, len(chosen))
	for i, e := range chosen {
		list[i] = proxy.Backend{Addr: e.addr, Local: e.NodeName == "" || e.on(node)}
	}
	return list
}

// only is the part of list that keep approves; list itself if that is all of it.
func only(list []candidate, keep func(*Endpoint) bool) []candidate {
	refused := slices.IndexFunc(list, func(c candidate) bool { return !keep(c.Endpoint) })
	if refused < 0 {
		return list
	}
	part := slices.Clone(list[:refused])
	for _, c := range list[refused+1:] {
		if keep(c.Endpoint) {
			part = append(part, c)
		}
	}
	return part
}
