package ipvs

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// ledger is the part of the table that says which virtual servers are ours: IPVS does not tell.
type ledger struct{ places map[nft.Place]*nft.Content }

// ledgerOf reads the elements of a table. A nil table has none.
func ledgerOf(found *nft.State) ledger {
	if found == nil {
		found = &nft.State{}
	}
	return ledger{schema.Contents(found)}
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
