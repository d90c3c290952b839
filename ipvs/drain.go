package ipvs

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// lookAgain is how often those that drain are looked at.
const lookAgain = 5 * time.Second

// udp tells whether the server is one of UDP, which knows no end of a connection.
func (s *server) udp() bool {
	if s.ID.Mark != 0 {
		return s.owner.Protocol == proxy.UDP
	}
	return s.ID.Protocol == proxy.UDP
}

// quiesce ends new connections to a backend. One of UDP that is not to be kept goes at once. All others stay until their
// connections have ended.
func (d *dataplane) quiesce(w *work, s *server, addr netip.AddrPort, keep []netip.AddrPort) {
	if s.udp() {
		if _, kept := slices.BinarySearchFunc(keep, addr, netip.AddrPort.Compare); !kept {
			d.deleteDest(w, s, addr)
			return
		}
	} else {
		d.drainLater(s.ID)
	}
	if s.dests[addr].weight == 0 {
		return // since some time
	}
	s.dests[addr] = dest{since: d.now()}
	w.remove = append(w.remove, kernel.Command{Op: kernel.SetDest, Server: s.Server, Dest: kernel.Dest{Addr: addr}})
}

func (d *dataplane) deleteDest(w *work, s *server, addr netip.AddrPort) {
	delete(s.dests, addr)
	d.held.objects--
	w.remove = append(w.remove, kernel.Command{Op: kernel.DeleteDest, Server: s.Server, Dest: kernel.Dest{Addr: addr}})
}

// dismiss lets a virtual server go that nobody wants. One of UDP stays for the backends that are kept.
func (d *dataplane) dismiss(w *work, s *server, keep []netip.AddrPort) {
	switch {
	case s == nil:
		return
	case s.udp():
		for addr := range s.dests {
			d.quiesce(w, s, addr, keep)
		}
	case !s.wanted && d.held.draining[s.ID]:
		return
	}
	if s.wanted {
		s.wanted, s.since = false, d.now()
	}
	w.retire = append(w.retire, s.ID)
}

// retire ends virtual servers that nobody wants, but for those with connections: what is new does not reach them any more.
func (d *dataplane) retire(ctx context.Context, w *work) error {
	h := d.held
	var ids []kernel.ID
	for _, id := range w.retire {
		switch s := h.servers[id]; {
		case s == nil || s.wanted:
		case s.udp() && len(s.dests) == 0:
			d.end(w, s)
		case !s.udp():
			ids = append(ids, id)
		}
	}
	loads, err := d.servers.Dests(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		s := h.servers[id]
		if s == nil {
			continue
		}
		if active(loads[id]) == 0 {
			d.end(w, s)
			continue
		}
		d.drainLater(id)
		for addr := range s.dests {
			d.quiesce(w, s, addr, nil)
		}
	}
	return nil
}

// active is the number of connections that have not ended.
func active(loads []kernel.Load) (n uint32) {
	for _, l := range loads {
		n += l.Active
	}
	return n
}

// end removes a virtual server, after what leads to it and before what says that it is ours.
func (d *dataplane) end(w *work, s *server) {
	h := d.held
	if s.listed {
		w.unlist.Add(removed(frontends.at(frontendKey(s.ID))))
	}
	w.destroy = append(w.destroy, kernel.Command{Op: kernel.DeleteServer, Server: s.Server})
	if s.owned {
		w.disown.Add(removed(ownPlace(s.ID)))
	}
	h.objects -= 1 + len(s.dests)
	delete(h.servers, s.ID)
	delete(h.draining, s.ID)
	delete(h.marks.used, s.ID.Mark)
}

// drainLater has a virtual server looked at.
func (d *dataplane) drainLater(id kernel.ID) {
	h := d.held
	if len(h.draining) == 0 {
		h.look = d.now().Add(lookAgain)
	}
	h.draining[id] = true
}

// drain removes backends whose connections have ended, or have had their time, and virtual servers that nobody wants and
// that have no more of them.
func (d *dataplane) drain(ctx context.Context) error {
	h, now := d.held, d.now()
	if len(h.draining) == 0 || now.Before(h.look) {
		return nil
	}
	h.look = now.Add(lookAgain)
	var ids []kernel.ID
	for id := range h.draining {
		ids = append(ids, id)
	}
	loads, err := d.servers.Dests(ctx, ids)
	if err != nil {
		return err
	}
	w := &work{}
	for _, id := range ids {
		s := h.servers[id]
		switch {
		case s == nil:
			delete(h.draining, id)
		case s.wanted:
			d.drainDests(w, s, loads[id])
		case active(loads[id]) == 0 || now.Sub(s.since) >= d.cfg.DrainLimit:
			d.end(w, s)
		}
	}
	return d.finish(ctx, w)
}

// drainDests removes backends without weight that have no connections.
func (d *dataplane) drainDests(w *work, s *server, loads []kernel.Load) {
	count := make(map[netip.AddrPort]uint32, len(loads))
	for _, l := range loads {
		count[l.Addr] = l.Active + l.Inactive
	}
	busy := false
	for addr, x := range s.dests {
		switch {
		case x.weight > 0:
		case count[addr] == 0 || d.now().Sub(x.since) >= d.cfg.DrainLimit:
			d.deleteDest(w, s, addr)
		default:
			busy = true
		}
	}
	if !busy {
		delete(d.held.draining, s.ID)
	}
}
