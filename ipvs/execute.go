package ipvs

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// change is what happens to one ServicePort. Old and new are nil for none.
type change struct{ old, new *port }

func (c change) name() proxy.ServicePortName {
	if c.new != nil {
		return c.new.Name
	}
	return c.old.Name
}

// changes are those that take what is held to target, priority services first.
func (d *dataplane) changes(target *proxy.Snapshot) []change {
	h := d.held
	var all []change
	consider := func(name proxy.ServicePortName, sp *proxy.ServicePort) {
		c := change{old: h.ports[name]}
		if sp != nil {
			c.new = d.portOf(sp, c.old)
		}
		if c.old != nil || c.new != nil {
			all = append(all, c)
		}
	}
	if h.applied != nil {
		for name, c := range target.Changes(h.applied) {
			consider(name, c.New)
		}
	} else {
		for name, sp := range target.All() {
			consider(name, sp)
		}
		for name := range h.ports {
			if target.Get(name) == nil {
				consider(name, nil)
			}
		}
	}
	return inOrder(all)
}

// portOf works out what a ServicePort needs. It keeps the mark of its other virtual server.
func (d *dataplane) portOf(sp *proxy.ServicePort, old *port) *port {
	h := d.held
	return drawer{d.cfg, h.writer.node, h.writer.tellsPods()}.port(sp, func() uint32 {
		if old != nil && old.mark != 0 {
			return old.mark
		}
		if mark := h.recoverMark(sp, h.writer.node); mark != 0 {
			return mark
		}
		return h.marks.take()
	})
}

func inOrder(all []change) []change {
	rank := func(c change) int {
		if c.new != nil && c.new.Priority {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b change) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.name().Compare(b.name()))
	})
	return all
}

// execute brings changes that were taken to the kernel, and gives the ServicePorts that it refuses.
func (d *dataplane) execute(ctx context.Context, all []change) ([]shelf.Offence, error) {
	var refused []shelf.Offence
	for len(all) > 0 {
		w := &work{}
		n := 0
		first := rankOf(all[0])
		for n < len(all) && (n == 0 || w.size() < d.batch && rankOf(all[n]) == first) {
			d.plan(w, all[n])
			n++
		}
		all = all[n:]
		found, err := d.do(ctx, w)
		refused = append(refused, found...)
		if err != nil || len(found) > 0 && !d.fresh {
			return refused, err
		}
	}
	return refused, nil
}

// rankOf keeps priority services apart: they do not wait for others.
func rankOf(c change) bool { return c.new != nil && c.new.Priority }

// work is a step: what is done in it, in this order.
type work struct {
	own     nft.Edits        // say that virtual servers are ours, and which backends may be their own clients
	create  []kernel.Command // virtual servers that come
	add     []kernel.Command // backends that come; what changes
	policy  nft.Edits        // what becomes of new connections; packets are led to new virtual servers
	retire  []kernel.ID      // virtual servers that nobody wants
	remove  []kernel.Command // backends that go
	unlist  nft.Edits        // no more packets are led to virtual servers
	destroy []kernel.Command // virtual servers that go
	disown  nft.Edits        // the opposite of own

	refused []shelf.Offence // found while it was planned: nothing of it is done then
}

func (w *work) size() int { return len(w.own.List) + len(w.policy.List) }

// plan adds a change to a step.
func (d *dataplane) plan(w *work, c change) {
	h := d.held
	ids := map[kernel.ID]bool{}
	for _, p := range []*port{c.new, c.old} {
		if p == nil {
			continue
		}
		for _, f := range p.fronts {
			if !ids[f.id] {
				ids[f.id] = true
				d.assign(w, f.id)
			}
		}
	}
	for _, s := range c.new.shared() {
		d.count(w, s, 1)
	}
	for _, s := range c.old.shared() {
		d.count(w, s, -1)
	}
	if c.new != nil && c.new.mark != 0 {
		d.reconcile(w, kernel.ID{Mark: c.new.mark}, c.new.Name, c.new.other)
	}
	if c.old != nil && c.old.mark != 0 && (c.new == nil || c.new.mark != c.old.mark) {
		d.dismiss(w, h.servers[kernel.ID{Mark: c.old.mark}], nil)
	}
}

// assign gives an address to whose it is.
func (d *dataplane) assign(w *work, id kernel.ID) {
	h := d.held
	was, now := h.fronts[id], h.winner(id)
	d.replace(&w.policy, was.elements(), now.elements())
	if now == nil {
		delete(h.fronts, id)
	} else {
		h.fronts[id] = now
	}
	switch {
	case now != nil && now.serves != nil:
		d.reconcile(w, id, now.name, now.serves)
	case now != nil:
		d.dismiss(w, h.servers[id], now.keep)
	default:
		d.dismiss(w, h.servers[id], nil)
	}
}

// replace notes what turns one list of elements into another. While the kernel is read, what was is what was found.
func (d *dataplane) replace(to *nft.Edits, was, now []element) {
	had := make(map[nft.Place]*nft.Content, len(was))
	for _, e := range was {
		had[e.Place] = &e.Content
	}
	for _, e := range now {
		x := nft.Edit{Place: e.Place, Old: had[e.Place], New: &e.Content}
		if x.Old == nil {
			x.Old = d.held.found[e.Place]
			delete(d.held.found, e.Place)
		}
		delete(had, e.Place)
		if x.Old == nil || *x.Old != *x.New {
			to.Add(x)
		}
	}
	for _, e := range was {
		if old := had[e.Place]; old != nil {
			to.Add(nft.Edit{Place: e.Place, Old: old})
		}
	}
}

// count notes that so many more want a shared element.
func (d *dataplane) count(w *work, p nft.Place, by int) {
	h := d.held
	before := h.shared[p]
	h.shared[p] = before + by
	switch {
	case before == 0:
		if _, there := h.found[p]; there {
			delete(h.found, p)
			return
		}
		w.share(added(p, ""))
	case before+by == 0:
		delete(h.shared, p)
		w.share(removed(p))
	}
}

// share adds an edit of a shared element. What a backend needs that may be its own client comes before the backend, and goes after.
func (w *work) share(x nft.Edit) {
	early, late := &w.own, &w.disown
	switch {
	case x.Set != sets[hairpin]:
		w.policy.Add(x)
	case early.Has(x.Place) || x.New != nil && !late.Has(x.Place):
		early.Add(x)
	default:
		late.Add(x)
	}
}

// reconcile makes a virtual server what it should be.
func (d *dataplane) reconcile(w *work, id kernel.ID, owner proxy.ServicePortName, want *spec) {
	h := d.held
	s := h.servers[id]
	if s == nil {
		if p := h.ports[owner]; h.foreign[id] && p != nil {
			w.refused = append(w.refused, shelf.Offence{Port: p.ServicePort, Err: fmt.Errorf("virtual server %v is somebody else's", id)})
			return
		}
		s = &server{Server: want.server(id), dests: map[netip.AddrPort]dest{}}
		h.servers[id] = s
		w.create = append(w.create, kernel.Command{Op: kernel.AddServer, Server: s.Server})
		h.objects++
	} else if s.Server != want.server(id) {
		s.Server = want.server(id)
		w.add = append(w.add, kernel.Command{Op: kernel.SetServer, Server: s.Server})
	}
	s.owner, s.wanted = owner, true
	if !s.owned {
		s.owned = true
		d.note(&w.own, ownPlace(id), owner)
	}
	if !s.listed && id.Mark == 0 {
		s.listed = true
		d.note(&w.policy, frontends.at(frontendKey(id)), owner)
	}
	want.balance(d, w, s)
}

// note adds an element that belongs to a virtual server, if it was not found.
func (d *dataplane) note(to *nft.Edits, p nft.Place, owner proxy.ServicePortName) {
	if _, there := d.held.found[p]; there {
		delete(d.held.found, p)
		return
	}
	comment := "sentinel"
	if owner != (proxy.ServicePortName{}) {
		comment = portComment(owner)
	}
	to.Add(added(p, comment))
}

// balance brings a virtual server's backends to what the spec says.
func (want *spec) balance(d *dataplane, w *work, s *server) {
	serving := make(map[netip.AddrPort]bool, len(want.backends))
	for _, b := range want.backends {
		serving[b.Addr] = true
		was, there := s.dests[b.Addr]
		op := kernel.SetDest
		if !there {
			op = kernel.AddDest
			d.held.objects++
		} else if was == (dest{weight: 1}) {
			continue
		}
		s.dests[b.Addr] = dest{weight: 1}
		w.add = append(w.add, kernel.Command{Op: op, Server: s.Server, Dest: kernel.Dest{Addr: b.Addr, Weight: 1}})
	}
	for addr := range s.dests {
		if !serving[addr] {
			d.quiesce(w, s, addr, want.keep)
		}
	}
}

// ownPlace is where the table says that a virtual server is ours.
func ownPlace(id kernel.ID) nft.Place {
	if id.Mark != 0 {
		return ownMarks.at(markText(id.Mark))
	}
	return ownServers.at(frontendKey(id))
}

// do does a step.
func (d *dataplane) do(ctx context.Context, w *work) ([]shelf.Offence, error) {
	if len(w.refused) > 0 {
		return w.refused, nil
	}
	if err := d.send(ctx, w.own); err != nil {
		return nil, err
	}
	refused, err := d.run(ctx, w.create)
	if err != nil {
		return nil, err
	}
	if len(refused) > 0 {
		// It may be somebody else's: no backend is added to it, and it is not ours.
		var not nft.Edits
		for _, r := range refused {
			not.Add(removed(ownPlace(r.Command.Server.ID)))
		}
		if err := d.send(ctx, not); err != nil {
			return nil, err
		}
		return d.blame(refused)
	}
	for _, c := range w.create {
		d.known[c.Server.ID] = true
	}
	if refused, err = d.run(ctx, w.add); err != nil {
		return nil, err
	}
	if len(refused) > 0 {
		return d.blame(refused)
	}
	if err := d.send(ctx, w.policy); err != nil {
		return nil, err
	}
	return nil, d.finish(ctx, w)
}

// finish does what comes last: things go.
func (d *dataplane) finish(ctx context.Context, w *work) error {
	if err := d.retire(ctx, w); err != nil {
		return err
	}
	if err := d.gone(ctx, w.remove); err != nil {
		return err
	}
	if err := d.send(ctx, w.unlist); err != nil {
		return err
	}
	if err := d.gone(ctx, w.destroy); err != nil {
		return err
	}
	for _, c := range w.destroy {
		delete(d.known, c.Server.ID)
	}
	return d.send(ctx, w.disown)
}

// gone runs commands that remove things. That they are gone already is no trouble.
func (d *dataplane) gone(ctx context.Context, commands []kernel.Command) error {
	refused, err := d.run(ctx, commands)
	if err != nil {
		return err
	}
	for _, r := range refused {
		if !r.Missing() {
			return r
		}
	}
	return nil
}

// blame finds the ServicePorts that the kernel refuses, each with the first thing that it said.
func (d *dataplane) blame(refused []*kernel.Error) ([]shelf.Offence, error) {
	var found []shelf.Offence
	seen := map[proxy.ServicePortName]bool{}
	for _, r := range refused {
		s := d.held.servers[r.Command.Server.ID]
		if r.Resource() || s == nil || d.held.ports[s.owner] == nil {
			return nil, r
		}
		if !seen[s.owner] {
			seen[s.owner] = true
			found = append(found, shelf.Offence{Port: d.held.ports[s.owner].ServicePort, Err: r})
		}
	}
	return found, nil
}
