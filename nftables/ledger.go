package nftables

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// ledger is the elements that were found in the kernel and that nobody has claimed yet.
type ledger struct{ places map[nft.Place]*nft.Content }

func newLedger(found *nft.State) *ledger { return &ledger{schema.Contents(found)} }

// claim takes what is where want should be, and notes the edit that makes it so, if it takes one.
func (l *ledger) claim(to *nft.Edits, p nft.Place, want nft.Content) {
	was := l.places[p]
	delete(l.places, p)
	if was == nil || *was != want {
		written := want
		to.Add(nft.Edit{Place: p, Old: was, New: &written})
	}
}

// changes are those from what was found to target, one for each ServicePort, and counts who wants which shared element.
func (l *ledger) changes(h *held, target *proxy.Snapshot) (all []*change, refused []shelf.Offence) {
	pods := h.writer.tellsPods()
	before := make(map[proxy.ServicePortName]*port, target.Len())
	for name, sp := range target.All() {
		before[name] = l.recover(&h.numbers, sp)
	}
	for name, sp := range target.All() {
		p, err := h.numbers.successor(before[name], sp, pods)
		if err != nil {
			refused = append(refused, shelf.Offence{Port: sp, Err: err})
			continue
		}
		want := render(p)
		c := &change{ports: []portChange{{new: p, wasShared: want.shared, isShared: want.shared, lead: want.targets()}}}
		for _, e := range want.own {
			l.claim(&c.edits, e.Place, e.Content)
		}
		comment := portComment(name)
		for _, s := range want.slots {
			for i := range s.order {
				e := s.element(i, comment)
				l.claim(&c.edits, e.Place, e.Content)
			}
		}
		h.owners.change(nil, name.Service(), nil, want.shared)
		all = append(all, c)
	}
	return all, refused
}

// rest is what is left when every ServicePort has had its own: edits of shared elements that are wanted, and those that
// remove what nobody wants, backends last.
func (l *ledger) rest(o owners) (common nft.Edits, obsolete []nft.Edit) {
	for s := range o {
		l.claim(&common, s, *o.content(s))
	}
	for p, c := range l.places {
		obsolete = append(obsolete, nft.Edit{Place: p, Old: c})
	}
	slices.SortFunc(obsolete, func(a, b nft.Edit) int {
		rank := func(e nft.Edit) int {
			if holdsBackends[e.Set] {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Set.Name, b.Set.Name), strings.Compare(a.Key, b.Key))
	})
	return common, obsolete
}

// recover is as much of a ServicePort's state as was found: slots and numbers.
func (l *ledger) recover(n *numbers, sp *proxy.ServicePort) *port {
	p := &port{ServicePort: sp}
	for _, f := range sp.Frontends {
		key, sets := frontendKeyOf(sp.Name.Protocol, f), familyOf(f)
		for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
			if p.orders[pool] == nil {
				p.orders[pool] = l.order(sets.slots, key, pool, len(sp.Backends(pool)))
			}
		}
		if sp.Affinity > 0 && p.sticky == nil {
			p.sticky = l.sticky(n, sets.sticky, key, sp)
		}
	}
	return p
}

// order reads the slots of a frontend: at least as many as there should be, for one in between may be gone. Such a hole has no
// address. It is nil if there are no slots.
func (l *ledger) order(in *nft.Set, key string, pool proxy.Pool, wanted int) order {
	var o order
	found := false
	for i := 0; ; i++ {
		e := l.places[nft.Place{Set: in, Key: key + " . " + slot(pool, i)}]
		if e == nil && i >= wanted {
			break
		}
		var addr netip.AddrPort
		if e != nil {
			addr, found = parseBackend(e.Value), true
		}
		o = append(o, addr)
	}
	if !found {
		return nil
	}
	return o
}

// sticky reads the numbers of a ServicePort and its backends, nil if there are none.
func (l *ledger) sticky(n *numbers, in *nft.Set, key string, sp *proxy.ServicePort) *sticky {
	e := l.places[nft.Place{Set: in, Key: key}]
	if e == nil {
		return nil
	}
	number, _, ok := parseClass(e.Value)
	if !ok || !n.claim(number) {
		return nil
	}
	s := &sticky{number: number, next: 1, ids: map[netip.AddrPort]uint16{}}
	taken := map[uint16]bool{0: true}
	for _, b := range slices.Concat(sp.Cluster, sp.Local) {
		e := l.places[nft.Place{Set: stickyIDs, Key: s.class(0) + " . " + backendText(b.Addr)}]
		if e == nil || s.ids[b.Addr] != 0 {
			continue
		}
		if of, id, ok := parseClass(e.Value); ok && of == number && !taken[id] {
			s.ids[b.Addr], taken[id] = id, true
			s.next = max(s.next, id+1)
		}
	}
	return s
}

// parseBackend is the zero AddrPort for what is none.
func parseBackend(value string) netip.AddrPort {
	addr, port, _ := strings.Cut(value, " . ")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(p))
}

// parseClass reads the two halves of a classid.
func parseClass(value string) (high, low uint16, ok bool) {
	first, second, _ := strings.Cut(value, ":")
	h, err := strconv.ParseUint(first, 16, 16)
	if err != nil {
		return 0, 0, false
	}
	l, err := strconv.ParseUint(second, 16, 16)
	return uint16(h), uint16(l), err == nil
}
