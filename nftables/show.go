package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Show implements proxy.Shower. It looks up single elements, and reads all rules, of which there are few. The kernel counts
// nothing here.
func (d *dataplane) Show(ctx context.Context, want *proxy.Snapshot, port *proxy.ServicePort, frontends []proxy.Frontend) ([]proxy.Object, error) {
	table := nft.NewRunner(d.family, schema)
	frame, err := table.Frame(ctx)
	if err != nil {
		return nil, err
	}
	if frame == nil {
		return []proxy.Object{differing(proxy.Difference{Kind: proxy.Missing, Object: "table " + Table})}, nil
	}
	only := *port
	only.Frontends = frontends
	s := &showing{
		dataplane: newDataplane(d.cfg, d.family, table),
		get:       func(places []nft.Place) (map[nft.Place]*nft.Content, error) { return table.Get(ctx, places) },
		port:      &only, frame: frame,
	}
	s.held = s.holdNothing(want.Node())
	return s.objects()
}

// showing compares a part of what the kernel holds, as load compares all.
type showing struct {
	*dataplane // of its own, which applies nothing
	get        func([]nft.Place) (map[nft.Place]*nft.Content, error)
	port       *proxy.ServicePort
	frame      *nft.State

	ledger ledger
}

func (s *showing) objects() ([]proxy.Object, error) {
	if !s.frame.Fits {
		return s.chains(rendered{}), nil // what is wrong says more than elements
	}
	if err := s.read(); err != nil {
		return nil, err
	}
	h := s.held
	before := s.ledger.recover(&h.numbers, s.port)
	p, err := h.numbers.successor(before, s.port, h.writer.tellsPods())
	if err != nil {
		return nil, err
	}
	r := render(p)
	if before.sticky == nil && p.sticky != nil {
		r.own = withoutNumbers(r.own) // it has none, and others may have those that it was given
	}
	if err := s.look(r.places()); err != nil {
		return nil, err
	}
	var all, refusals []proxy.Object
	for _, e := range r.own {
		if o := s.element(e.Place, e.Content); e.Set == frontends || e.Set == frontendPorts {
			refusals = append(refusals, o)
		} else {
			all = append(all, o)
		}
	}
	for _, x := range r.slots {
		all = append(all, s.slots(x)...)
	}
	all = append(all, refusals...)
	for _, place := range r.shared {
		all = append(all, s.element(place, nft.Content{}))
	}
	return append(all, s.chains(r)...), nil
}

// read looks up what depends on history: slots, and numbers for affinity.
func (s *showing) read() error {
	s.ledger = ledger{places: map[nft.Place]*nft.Content{}}
	var places, ids []nft.Place
	for _, f := range s.port.Frontends {
		key, sets := frontendKeyOf(s.port.Name.Protocol, f), familyOf(f)
		for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
			for i := range len(s.port.Backends(pool)) + 1 { // one more may have been left behind
				places = append(places, nft.Place{Set: sets.slots, Key: key + " . " + slot(pool, i)})
			}
		}
		if s.port.Affinity > 0 {
			places = append(places, nft.Place{Set: sets.sticky, Key: key})
		}
	}
	if err := s.look(places); err != nil || s.port.Affinity <= 0 {
		return err
	}
	for _, f := range s.port.Frontends {
		number := s.ledger.places[nft.Place{Set: familyOf(f).sticky, Key: frontendKeyOf(s.port.Name.Protocol, f)}]
		if number == nil {
			continue
		}
		for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
			for _, b := range s.port.Backends(pool) {
				ids = append(ids, nft.Place{Set: stickyIDs, Key: number.Value + " . " + backendText(b.Addr)})
			}
		}
	}
	return s.look(ids)
}

// look looks up elements.
func (s *showing) look(places []nft.Place) error {
	found, err := s.get(places)
	for place, content := range found {
		s.ledger.places[place] = content
	}
	return err
}

// withoutNumbers leaves out elements whose key is a number.
func withoutNumbers(list []element) []element {
	var left []element
	for _, e := range list {
		if e.Set.Key[0] != nft.Class {
			left = append(left, e)
		}
	}
	return left
}

// places are those of all elements that a ServicePort should have.
func (r rendered) places() []nft.Place {
	var all []nft.Place
	for _, e := range r.own {
		all = append(all, e.Place)
	}
	for _, x := range r.slots {
		for i := range x.order {
			all = append(all, x.element(i, "").Place)
		}
	}
	return append(all, r.shared...)
}

// element compares one element. Several Services may have a shared one, whose comment is not compared.
func (s *showing) element(place nft.Place, want nft.Content) proxy.Object {
	is := s.ledger.places[place]
	if is != nil && want.Comment == "" {
		want.Comment = is.Comment
	}
	x := nft.Edit{Place: place, Old: is, New: &want}
	if is != nil && *is == want {
		return proxy.Object{Name: x.Name(), Holds: want.Value}
	}
	var list nft.Damage
	list.Edits([]nft.Edit{x})
	return differing(list.List[0])
}

// slots compares the backends of a pool: those that are as they should be are one object.
func (s *showing) slots(x slots) []proxy.Object {
	var wrong []proxy.Object
	good := 0
	comment := portComment(s.port.Name)
	for i := range x.order {
		e := x.element(i, comment)
		if o := s.element(e.Place, e.Content); o.Differs != nil {
			wrong = append(wrong, o)
		} else {
			good++
		}
	}
	last := nft.Place{Set: x.in, Key: x.key + " . " + slot(x.pool, len(x.order))}
	if left := s.ledger.places[last]; left != nil {
		var list nft.Damage
		list.Edits([]nft.Edit{{Place: last, Old: left}})
		wrong = append(wrong, differing(list.List[0]))
	}
	if good == 0 {
		return wrong
	}
	name := fmt.Sprintf("map %s { %s . %s", x.in.Name, x.key, slot(x.pool, 0))
	if n := len(x.order); n > 1 {
		name += " to " + slot(x.pool, n-1)
	}
	var backends []string
	for i := range x.order[:min(len(x.order), shownBackends)] {
		backends = append(backends, x.order[i].String())
	}
	holds := strings.Join(backends, ", ")
	if more := len(x.order) - len(backends); more > 0 {
		holds += fmt.Sprintf(" and %d more", more)
	}
	return append([]proxy.Object{{Name: name + " }", Holds: holds}}, wrong...)
}

// shownBackends is how many backends an object names.
const shownBackends = 3

// chains compares the chains: those that the elements lead to one by one, and those of all Services together, but for what is wrong.
func (s *showing) chains(r rendered) []proxy.Object {
	var all []proxy.Object
	seen := map[spec]bool{}
	for _, to := range r.targets() {
		if !seen[to] {
			seen[to] = true
			all = append(all, s.chain(s.held.writer.chain(to)))
		}
	}
	fixed := s.held.writer.fixed(true)
	var wrong []proxy.Object
	for _, x := range s.frame.Unlike {
		wrong = append(wrong, differing(x))
	}
	for _, c := range fixed {
		if o := s.chain(c); o.Differs != nil && !named(s.frame.Unlike, o.Name) {
			wrong = append(wrong, o)
		}
	}
	if s.frame.Asleep {
		wrong = append(wrong, differing(proxy.Difference{Kind: proxy.Altered, Object: "table " + Table, Detail: "it is dormant"}))
	}
	if len(wrong) > 0 {
		return append(all, wrong...)
	}
	return append(all, proxy.Object{Name: "chains " + natPrerouting + ", " + natOutput + " and others", Holds: fmt.Sprintf("%d chains of all Services", len(fixed))})
}

func (s *showing) chain(c nft.Chain) proxy.Object {
	var list nft.Damage
	list.Chains(s.frame, []nft.Chain{c})
	if len(list.List) > 0 {
		return differing(list.List[0])
	}
	return proxy.Object{Name: "chain " + c.Name, Holds: fmt.Sprintf("%d rules", len(c.Rules))}
}

func differing(x proxy.Difference) proxy.Object { return proxy.Object{Name: x.Object, Differs: &x} }
