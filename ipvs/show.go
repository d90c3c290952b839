package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Show implements proxy.Shower. It looks up single elements and virtual servers, and reads all rules and routes, of which
// there are few.
func (d *dataplane) Show(ctx context.Context, want *proxy.Snapshot, port *proxy.ServicePort, frontends []proxy.Frontend) ([]proxy.Object, error) {
	table := nft.NewRunner(d.family, schema)
	frame, err := table.Frame(ctx)
	if err != nil {
		return nil, err
	}
	see, done, err := d.see(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	only := *port
	only.Frontends = frontends
	s := &showing{
		held: d.holdNothing(want.Node()), cfg: d.cfg, port: &only,
		get: func(places []nft.Place) (map[nft.Place]*nft.Content, error) { return table.Get(ctx, places) },
		see: func(id kernel.ID) (*kernel.Sight, error) { return see.See(ctx, id) },
	}
	s.frame(frame)
	if frame != nil && frame.Fits {
		if err := s.frontends(want); err != nil {
			return nil, err
		}
	}
	if routes := d.routes.Load(); routes != nil {
		differences, err := d.router.Compare(*routes)
		if err != nil {
			return nil, err
		}
		s.wrong.List = append(s.wrong.List, differences...)
	}
	return s.objects(), nil
}

// showing compares a part of what the kernel holds.
type showing struct {
	held *held // knows nothing
	cfg  Config
	port *proxy.ServicePort
	get  func([]nft.Place) (map[nft.Place]*nft.Content, error)
	see  func(kernel.ID) (*kernel.Sight, error)

	found map[nft.Place]*nft.Content
	good  []proxy.Object
	wrong nft.Damage
	rest  []proxy.Object // good, too, and of all Services
}

// objects are those that are good, and those that are not.
func (s *showing) objects() []proxy.Object {
	all := s.good
	for _, x := range s.wrong.List {
		all = append(all, proxy.Object{Name: x.Object, Differs: &x})
	}
	return append(all, s.rest...)
}

// frame compares what is there for all Services.
func (s *showing) frame(found *nft.State) {
	if found == nil {
		s.wrong.Add(proxy.Missing, "table "+Table, "", "")
		return
	}
	chains := s.held.writer.fixed(true)
	before := len(s.wrong.List)
	s.wrong.List = append(s.wrong.List, found.Unlike...)
	if found.Asleep {
		s.wrong.Add(proxy.Altered, "table "+Table, "it is dormant", "")
	}
	s.wrong.Chains(found, slices.DeleteFunc(slices.Clone(chains), func(c nft.Chain) bool {
		return slices.ContainsFunc(found.Unlike, func(x proxy.Difference) bool { return x.Object == "chain "+c.Name })
	}))
	if len(s.wrong.List) == before {
		s.rest = append(s.rest, proxy.Object{Name: "chains " + leadPrerouting + ", " + leadOutput + " and others", Holds: fmt.Sprintf("%d chains of all Services", len(chains))})
	}
}

// frontends compares virtual servers and elements.
func (s *showing) frontends(want *proxy.Snapshot) error {
	draw := drawer{s.cfg, want.Node(), s.held.writer.tellsPods()}
	mark, err := s.mark(draw)
	if err != nil {
		return err
	}
	p := draw.port(s.port, func() uint32 { return mark })
	p.fronts = slices.DeleteFunc(p.fronts, func(f *front) bool { return f.yields && claimed(want, f) })
	if err := s.look(places(p)); err != nil {
		return err
	}
	for _, f := range p.fronts {
		if f.serves != nil {
			if err := s.server(f.id, f.serves); err != nil {
				return err
			}
			s.present(ownPlace(f.id))
			s.present(frontends.at(frontendKey(f.id)))
		}
		for _, e := range f.elements() {
			s.element(e)
		}
	}
	if p.mark != 0 {
		id := kernel.ID{Mark: p.mark}
		if err := s.server(id, p.other); err != nil {
			return err
		}
		s.present(ownPlace(id))
	}
	for _, place := range p.shared() {
		s.present(place)
	}
	return nil
}

// mark is that of the ServicePort's other virtual server, 0 if it has none.
func (s *showing) mark(draw drawer) (uint32, error) {
	var maps, own []nft.Place
	for _, f := range s.port.Frontends {
		for _, addr := range draw.addrs(f) {
			key := frontendKey(kernel.ID{Addr: netip.AddrPortFrom(addr, f.Addr.Port()), Protocol: s.port.Name.Protocol})
			maps = append(maps, outsideServers.at(key), podServers.at(key))
		}
	}
	if err := s.look(maps); err != nil {
		return 0, err
	}
	for _, c := range s.found {
		if mark, ok := parseMark(c.Value); ok {
			own = append(own, ownPlace(kernel.ID{Mark: mark}))
		}
	}
	if err := s.look(own); err != nil {
		return 0, err
	}
	s.held.found = s.found
	return s.held.recoverMark(s.port, draw.node), nil
}

// look looks up elements.
func (s *showing) look(places []nft.Place) error {
	found, err := s.get(places)
	if s.found == nil {
		s.found = map[nft.Place]*nft.Content{}
	}
	for place, content := range found {
		s.found[place] = content
	}
	return err
}

// places are those of all elements that a ServicePort should have.
func places(p *port) []nft.Place {
	all := p.shared()
	for _, f := range p.fronts {
		all = append(all, ownPlace(f.id), frontends.at(frontendKey(f.id)))
		for _, e := range f.elements() {
			all = append(all, e.Place)
		}
	}
	return all
}

// claimed tells whether a frontend that names the address has it, for which a NodePort makes room.
func claimed(want *proxy.Snapshot, f *front) bool {
	for _, sp := range want.All() {
		if sp.Name.Protocol == f.id.Protocol && slices.ContainsFunc(sp.Frontends, func(x proxy.Frontend) bool { return x.Addr == f.id.Addr }) {
			return true
		}
	}
	return false
}

// element compares an element.
func (s *showing) element(want element) {
	is := s.found[want.Place]
	if is != nil && *is == want.Content {
		s.good = append(s.good, proxy.Object{Name: want.Name(), Holds: want.Value})
		return
	}
	s.wrong.Edits([]nft.Edit{{Place: want.Place, Old: is, New: &want.Content}})
}

// present wants an element to be there, whatever its comment.
func (s *showing) present(place nft.Place) {
	if s.found[place] == nil {
		s.wrong.Add(proxy.Missing, place.Name(), "", "")
		return
	}
	s.good = append(s.good, proxy.Object{Name: place.Name()})
}

// server compares a virtual server with its backends. One without weight drains.
func (s *showing) server(id kernel.ID, want *spec) error {
	sight, err := s.see(id)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("virtual server %v", id)
	if sight == nil {
		s.wrong.Add(proxy.Missing, name, "", s.port.Name.String())
		return nil
	}
	if sight.Server != want.server(id) {
		s.wrong.Add(proxy.Altered, name, unlike(sight.Server, want.server(id)), s.port.Name.String())
	} else {
		s.good = append(s.good, proxy.Object{Name: name, Holds: fmt.Sprintf("scheduler %s, %d backends", sight.Scheduler, len(sight.Backends))})
	}
	lacking := map[netip.AddrPort]bool{}
	for _, b := range want.backends {
		lacking[b.Addr] = true
	}
	for _, b := range sight.Backends {
		s.backend(fmt.Sprintf("%s backend %v", name, b.Addr), b, lacking[b.Addr])
		delete(lacking, b.Addr)
	}
	for addr := range lacking {
		s.wrong.Add(proxy.Missing, fmt.Sprintf("%s backend %v", name, addr), "", s.port.Name.String())
	}
	return nil
}

func (s *showing) backend(name string, is kernel.Load, wanted bool) {
	switch {
	case wanted && is.Weight != 1:
		s.wrong.Add(proxy.Altered, name, fmt.Sprintf("weight %d instead of 1", is.Weight), s.port.Name.String())
	case wanted && is.Altered:
		s.wrong.Add(proxy.Altered, name, otherSettings, s.port.Name.String())
	case !wanted && is.Weight > 0:
		s.wrong.Add(proxy.Foreign, name, newConnections, s.port.Name.String())
	default:
		holds := "weight 1"
		if !wanted {
			holds = "weight 0: it drains"
		}
		s.good = append(s.good, proxy.Object{Name: name, Holds: holds, Count: &proxy.Count{Active: is.Active, Inactive: is.Inactive}})
	}
}
