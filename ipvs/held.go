package ipvs

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
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
	shared  map[place]int          // how many want it
	servers map[kernel.ID]*server  // ours
	foreign map[kernel.ID]bool     // of others, when the kernel was read
	marks   marks                  //
	found   map[place]content      // elements that nobody has claimed yet; nil but while the kernel is read

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
	weight uint32
	since  time.Time // when it lost its weight
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
const markBase = 0x51000000

func (m *marks) of(n uint32) uint32 { return markBase | n&0xffffff | m.route }

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
