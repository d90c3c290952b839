package nftables

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// port is a ServicePort and what its elements depend on besides. It is immutable.
type port struct {
	*proxy.ServicePort
	pods   bool     // the node can tell pods apart
	orders [2]order // by pool
	sticky *sticky  // nil without affinity
}

// sticky is the numbers of a ServicePort with affinity, and of its backends.
type sticky struct {
	number uint16 // never 0
	next   uint16 // where to look for a free number of a backend
	ids    map[netip.AddrPort]uint16
}

// class is the number of the ServicePort and one of its backends, or of the former alone, as nft writes it.
func (s *sticky) class(id uint16) string {
	return string(nft.AppendClass(nil, uint32(s.number)<<16|uint32(id)))
}

// successor is the state of sp after before, which may be nil.
func (n *numbers) successor(before *port, sp *proxy.ServicePort, pods bool) (*port, error) {
	if sp == nil {
		return nil, nil
	}
	p := &port{ServicePort: sp, pods: pods}
	var was *sticky
	if before != nil {
		p.orders, was = before.orders, before.sticky
	}
	for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		p.orders[pool] = arrange(p.orders[pool], sp.Backends(pool))
	}
	if sp.Affinity <= 0 {
		return p, nil
	}
	if was == nil {
		number, err := n.take()
		if err != nil {
			return nil, err
		}
		was = &sticky{number: number, next: 1}
	}
	p.sticky = was.successor(p.orders)
	return p, nil
}

// successor keeps the numbers of backends that stay. A number that becomes free is the last to be used again: clients
// may be remembered with it.
func (s *sticky) successor(orders [2]order) *sticky {
	after := &sticky{number: s.number, next: s.next, ids: map[netip.AddrPort]uint16{}}
	used := map[uint16]bool{0: true}
	var fresh []netip.AddrPort
	for _, o := range orders {
		for _, addr := range o {
			if _, done := after.ids[addr]; done {
				continue
			}
			id := s.ids[addr]
			if id == 0 {
				fresh = append(fresh, addr)
			}
			after.ids[addr] = id
			used[id] = true
		}
	}
	for _, addr := range fresh {
		if len(used) > maxNumber {
			delete(after.ids, addr) // more backends than numbers: this one is not remembered
			continue
		}
		for used[after.next] {
			after.next++
		}
		after.ids[addr] = after.next
		used[after.next] = true
		after.next++
	}
	if maps.Equal(after.ids, s.ids) {
		return s
	}
	return after
}

// maxNumber is the greatest number of 16 bits. Zero is no number.
const maxNumber = 1<<16 - 1

// numbers are those of ServicePorts with affinity.
type numbers struct {
	used map[uint16]bool
	next uint16
}

var errNumbers = errors.New("no more than 65535 ports of Services can have session affinity")

// take finds a free number, those that became free last after all others.
func (n *numbers) take() (uint16, error) {
	if len(n.used) == maxNumber {
		return 0, errNumbers
	}
	for n.next == 0 || n.used[n.next] {
		n.next++
	}
	n.used[n.next] = true
	n.next++
	return n.next - 1, nil
}

// claim takes a certain number, if it is free.
func (n *numbers) claim(number uint16) bool {
	if number == 0 || n.used[number] {
		return false
	}
	n.used[number] = true
	n.next = max(n.next, number+1)
	return true
}

// keep takes the number that p has. A transaction that failed may have freed it.
func (n *numbers) keep(p *port) {
	if p != nil && p.sticky != nil {
		n.used[p.sticky.number] = true
	}
}

// drop frees what p has and kept has not.
func (n *numbers) drop(p, kept *port) {
	if p != nil && p.sticky != nil && (kept == nil || kept.sticky == nil || kept.sticky.number != p.sticky.number) {
		delete(n.used, p.sticky.number)
	}
}
