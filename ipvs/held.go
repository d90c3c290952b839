package ipvs

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// held is what the kernel holds, as far as it is ours to know. It is changed while a step is planned, and thrown
// away if the step fails.
type held struct {
	writer   writer // of the rules
	refusing bool   // the rules that refuse are there

	ports   map[proxy.ServicePortName]*port
	applied *proxy.Snapshot        // has exactly these ports, if it is not nil
	claims  map[kernel.ID][]*front // everybody who wants an address
	fronts  map[kernel.ID]*front   // those that have it
	shared  map[nft.Place]int      // how many want it
	servers map[kernel.ID]*server  // ours
	foreign map[kernel.ID]bool     // of others, when the kernel was read
	marks   marks
	found   map[nft.Place]*nft.Content // elements that nobody has claimed yet; nil but while the kernel is read

	outer   map[netip.Addr]int  // addresses that are no ClusterIPs and none of the node, and how many frontends have each
	reached map[netip.Addr]bool // the same for others, which is never changed; nil: to be made anew

	elements, objects int

	draining map[kernel.ID]bool // servers that have something to drain
	look     time.Time          // when to look at those
}

// server is a virtual server that is ours.
type server struct {
	kernel.Server
	owner  proxy.ServicePortName
	dests  map[netip.AddrPort]dest
	wanted bool
	since  time.Time // when it was found to be wanted no more

	owned, listed bool // the table says that it is ours; and leads packets to it
}

// dest is a backend. One without weight gets no new connections.
type dest struct {
	weight  uint32
	since   time.Time // when it lost its weight
	altered bool      // it has settings that are not ours
}

// winner is whose an address is: a NodePort makes room for a frontend that names it.
func (h *held) winner(id kernel.ID) *front {
	list := h.claims[id]
	i := slices.IndexFunc(list, func(f *front) bool { return !f.yields })
	if i >= 0 {
		return list[i]
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}

// take takes over what ServicePorts want.
func (h *held) take(all []change) {
	for _, c := range all {
		h.claim(c.old, c.new)
		h.countOuter(c.old, -1)
		h.countOuter(c.new, 1)
		if c.new == nil {
			delete(h.ports, c.name())
		} else {
			h.ports[c.name()] = c.new
		}
	}
}

// countOuter notes that so many more have the addresses of a ServicePort.
func (h *held) countOuter(p *port, by int) {
	if p == nil {
		return
	}
	for _, f := range p.fronts {
		if f.cluster || f.yields {
			continue
		}
		a := f.id.Addr.Addr()
		if h.outer[a] == 0 || h.outer[a]+by == 0 {
			h.reached = nil
		}
		if h.outer[a] += by; h.outer[a] == 0 {
			delete(h.outer, a)
		}
	}
}

// outerAddrs are the addresses that only a route of our own reaches, if the node has no default route.
func (h *held) outerAddrs() map[netip.Addr]bool {
	if h.reached == nil {
		h.reached = make(map[netip.Addr]bool, len(h.outer))
		for a := range h.outer {
			h.reached[a] = true
		}
	}
	return h.reached
}

// claim replaces what a ServicePort wants.
func (h *held) claim(was, now *port) {
	if was != nil {
		for _, f := range was.fronts {
			list := slices.DeleteFunc(slices.Clone(h.claims[f.id]), func(x *front) bool { return x == f })
			if len(list) == 0 {
				delete(h.claims, f.id)
			} else {
				h.claims[f.id] = list
			}
		}
	}
	if now != nil {
		for _, f := range now.fronts {
			h.claims[f.id] = append(slices.Clip(h.claims[f.id]), f)
		}
	}
}

// marks gives marks to virtual servers.
type marks struct {
	used  map[uint32]bool
	next  uint32
	route uint32
}

// Marks of virtual servers look like this, plus a number, plus the bit that leads packets to IPVS. That of number 0 is
// the sentinel's.
const (
	markBase = 0x51000000
	markTop  = 0xff000000
)

func (m *marks) of(n uint32) uint32 { return markBase | n&^markTop | m.route }

// take finds a free mark.
func (m *marks) take() uint32 {
	for {
		m.next++
		if mark := m.of(m.next); !m.used[mark] && mark != m.of(0) {
			m.used[mark] = true
			return mark
		}
	}
}

func sentinelID(cfg Config) kernel.ID {
	m := marks{route: cfg.RouteMark}
	return kernel.ID{Mark: m.of(0)}
}
