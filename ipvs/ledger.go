package ipvs

import (
	"context"
	"maps"
	"math/bits"
	"net/netip"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// ledger is the part of the table that says which virtual servers are ours: IPVS does not tell.
type ledger struct {
	places map[nft.Place]*nft.Content

	// lost says that nobody knows: there is no table, or its own sets are those of another layout.
	lost bool
}

// ledgerOf reads the elements of a table, as far as it has the sets that we know. A nil table has none.
func ledgerOf(found *nft.State) ledger {
	if found == nil {
		return ledger{lost: true}
	}
	_, servers := found.Elements[ownServers.name()]
	_, marks := found.Elements[ownMarks.name()]
	return ledger{places: schema.Contents(found), lost: !servers || !marks}
}

// owners is the part of it about virtual servers.
func (l ledger) owners() ledger {
	l.places = maps.Clone(l.places)
	maps.DeleteFunc(l.places, func(p nft.Place, _ *nft.Content) bool { return p.Set != sets[ownServers] && p.Set != sets[ownMarks] })
	return l
}

// copied are the edits that make an empty table say the same.
func (l ledger) copied() []nft.Edit {
	var edits []nft.Edit
	for p, c := range l.places {
		edits = append(edits, nft.Edit{Place: p, New: c})
	}
	return edits
}

// has tells whether an element is there.
func (l ledger) has(p nft.Place) bool {
	_, there := l.places[p]
	return there
}

// owns tells whether a virtual server is ours.
func (l ledger) owns(id kernel.ID) bool { return l.has(ownPlace(id)) }

// recoverMark is the mark that a ServicePort's other virtual server had before a restart, 0 if it had none.
func (h *held) recoverMark(sp *proxy.ServicePort, n *proxy.Node) uint32 {
	if len(h.found) == 0 {
		return 0
	}
	d := drawer{node: n}
	for _, f := range sp.Frontends {
		for _, addr := range d.addrs(f) {
			key := frontendKey(kernel.ID{Addr: netip.AddrPortFrom(addr, f.Addr.Port()), Protocol: sp.Name.Protocol})
			for _, in := range []set{outsideServers, podServers} {
				found := h.found[in.at(key)]
				if found == nil {
					continue
				}
				if mark, ok := parseMark(found.Value); ok && h.found[ownPlace(kernel.ID{Mark: mark})] != nil {
					return mark
				}
			}
		}
	}
	return 0
}

// ours tells which virtual servers are ours. Where the ledger is lost, those known by a mark are still recognised: their marks
// look like ours, beside a sentinel. All others are nobody's to tell.
func (l ledger) ours(ctx context.Context, servers kernel.Servers, all []kernel.Server) (func(kernel.ID) bool, error) {
	if !l.lost {
		return l.owns, nil
	}
	route, err := findSentinel(ctx, servers, all)
	if err != nil || route == 0 {
		return l.owns, err
	}
	return func(id kernel.ID) bool {
		return l.owns(id) || id.Mark&^route&markTop == markBase && id.Mark&route != 0
	}, nil
}

// findSentinel is the bit that leads packets to IPVS, which our sentinel's mark has, or 0 if there is none. A sentinel has the mark of
// number 0 and no backends.
func findSentinel(ctx context.Context, servers kernel.Servers, all []kernel.Server) (uint32, error) {
	for _, s := range all {
		route := s.ID.Mark &^ markBase
		if s.ID.Mark&markBase != markBase || bits.OnesCount32(route) != 1 || s != (&spec{scheduler: DefaultScheduler}).server(s.ID) {
			continue
		}
		loads, err := servers.Dests(ctx, []kernel.ID{s.ID})
		if err != nil {
			return 0, err
		}
		if len(loads[s.ID]) == 0 {
			return route, nil
		}
	}
	return 0, nil
}
