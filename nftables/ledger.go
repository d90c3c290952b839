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
type ledger struct{ elements map[place]*element }

func newLedger(found *nft.State) *ledger {
	n := 0
	for _, list := range found.Elements {
		n += len(list)
	}
	l := &ledger{make(map[place]*element, n)}
	for in := range numSets {
		for _, e := range found.Elements[in.name()] {
			l.elements[place{in, e.Key}] = &element{in: in, key: e.Key, value: e.Value, comment: e.Comment}
		}
	}
	return l
}

// claim takes what is where want should be, and notes the edit that makes it so, if it takes one.
func (l *ledger) claim(to *edits, want element) {
	p := want.place()
	was := l.elements[p]
	delete(l.elements, p)
	if was == nil || was.value != want.value || was.comment != want.comment {
		to.add(edit{was, &want})
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
			l.claim(&c.edits, e)
		}
		comment := portComment(name)
		for _, s := range want.slots {
			for i := range s.order {
				l.claim(&c.edits, s.element(i, comment))
			}
		}
		h.owners.change(nil, name.Service(), nil, want.shared)
		all = append(all, c)
	}
	return all, refused
}

// rest is what is left when every ServicePort has had its own: edits of shared elements that are wanted, and those that
// remove what nobody wants, backends last.
func (l *ledger) rest(o owners) (common edits, obsolete []edit) {
	for s := range o {
		l.claim(&common, *o.element(s))
	}
	for _, e := range l.elements {
		obsolete = append(obsolete, edit{old: e})
	}
	slices.SortFunc(obsolete, func(a, b edit) int {
		rank := func(e edit) int {
			if holdsBackends[e.old.in] {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.old.in, b.old.in), strings.Compare(a.old.key, b.old.key))
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
				p.orders[pool] = l.order(sets.slots, key, pool)
			}
		}
		if sp.Affinity > 0 && p.sticky == nil {
			p.sticky = l.sticky(n, sets.sticky, key, sp)
		}
	}
	return p
}

// order reads the slots of a frontend.
func (l *ledger) order(in set, key string, pool proxy.Pool) order {
	var o order
	for {
		e := l.elements[place{in, key + " . " + slot(pool, len(o))}]
		if e == nil {
			return o
		}
		addr, ok := parseBackend(e.value)
		if !ok {
			return o
		}
		o = append(o, addr)
	}
}

// sticky reads the numbers of a ServicePort and its backends, nil if there are none.
func (l *ledger) sticky(n *numbers, in set, key string, sp *proxy.ServicePort) *sticky {
	e := l.elements[place{in, key}]
	if e == nil {
		return nil
	}
	number, _, ok := parseClass(e.value)
	if !ok || !n.claim(number) {
		return nil
	}
	s := &sticky{number: number, next: 1, ids: map[netip.AddrPort]uint16{}}
	taken := map[uint16]bool{0: true}
	for _, b := range slices.Concat(sp.Cluster, sp.Local) {
		e := l.elements[place{stickyIDs, s.class(0) + " . " + backendText(b.Addr)}]
		if e == nil || s.ids[b.Addr] != 0 {
			continue
		}
		if of, id, ok := parseClass(e.value); ok && of == number && !taken[id] {
			s.ids[b.Addr], taken[id] = id, true
			s.next = max(s.next, id+1)
		}
	}
	return s
}

func parseBackend(value string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(value, " . ")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err == nil
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
