package conntrack

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// Reason says why a flow was deleted.
type Reason uint8

// The reasons.
const (
	Gone         Reason = iota // its backend is not, or no longer, a serving endpoint
	Untranslated               // it goes to a frontend but was made when no rule was there, or an answer to such a one has made it
	Released                   // its frontend is no longer ours
	Unassigned                 // no Service has this address of the Service ranges
	NumReasons
)

// String is the reason as it appears in metrics.
func (r Reason) String() string {
	return [...]string{"endpoint_gone", "untranslated", "frontend_released", "unassigned_address"}[r]
}

// judge decides which flows are stale. A NodePort stands in both maps under the unspecified
// address, as in its frontend.
type judge struct {
	owners    map[netip.AddrPort]*proxy.ServicePort
	released  map[netip.AddrPort]struct{}
	nodePorts places // where NodePorts are served
	left      places // where they were served

	unassigned []netip.Prefix // ranges of which all is ours
	answers    answers
}

// idle tells whether no flow at all can be stale.
func (j *judge) idle() bool {
	return len(j.owners) == 0 && len(j.released) == 0 && len(j.unassigned) == 0
}

// stale tells whether a flow must end, and why.
func (j *judge) stale(f Flow) (Reason, bool) {
	if f.zoned() {
		return 0, false
	}
	dst, backend := f.Original.Dst, f.Reply.Src
	if owner := j.owner(dst); owner != nil {
		if _, keep := slices.BinarySearchFunc(owner.Keep, backend, netip.AddrPort.Compare); keep {
			return 0, false
		}
		if backend == dst {
			return Untranslated, true
		}
		return Gone, true
	}
	if f.untranslated() && j.owner(f.Original.Src) != nil && j.answers.has(f) {
		// To this flow the client's packets are replies, which no rule translates.
		return Untranslated, true
	}
	if j.wasOurs(dst) {
		return Released, true
	}
	if slices.ContainsFunc(j.unassigned, func(p netip.Prefix) bool { return p.Contains(dst.Addr()) }) {
		return Unassigned, true
	}
	return 0, false
}

// owner is the ServicePort that answers on an address. An address of its own comes before a
// NodePort, as in the rules.
func (j *judge) owner(dst netip.AddrPort) *proxy.ServicePort {
	if owner := j.owners[dst]; owner != nil {
		return owner
	}
	if owner := j.owners[nodePort(dst)]; owner != nil && j.nodePorts.has(dst.Addr()) {
		return owner
	}
	return nil
}

// wasOurs tells whether an address without owner had one before.
func (j *judge) wasOurs(dst netip.AddrPort) bool {
	if _, was := j.released[dst]; was {
		return true
	}
	port := nodePort(dst)
	if _, was := j.released[port]; was && (j.nodePorts.has(dst.Addr()) || j.left.has(dst.Addr())) {
		return true
	}
	return j.owners[port] != nil && j.left.has(dst.Addr())
}

// nodePort is the frontend of a NodePort that an address may belong to.
func nodePort(dst netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(proxy.FamilyOf(dst.Addr()).Any(), dst.Port())
}

// places are the addresses on which a node serves NodePorts.
type places struct {
	addrs    map[netip.Addr]struct{}
	loopback netip.Prefix // invalid: not there
}

// add adds the places of a node.
func (p *places) add(n *proxy.Node) {
	if p.addrs == nil {
		p.addrs = map[netip.Addr]struct{}{}
	}
	addrs := n.NodePorts.Addrs
	if n.NodePorts.All {
		addrs = n.Addrs
	}
	for _, a := range addrs {
		if !a.IsLoopback() {
			p.addrs[a] = struct{}{}
		}
	}
	if n.NodePorts.Localhost {
		p.loopback = n.Family.Loopback()
	}
}

func (p places) has(a netip.Addr) bool {
	if p.loopback.IsValid() && p.loopback.Contains(a) {
		return true
	}
	_, ok := p.addrs[a]
	return ok
}

// samePlaces tells whether two nodes serve NodePorts on the same addresses.
func samePlaces(a, b *proxy.Node) bool {
	if a == b {
		return true
	}
	return a.NodePorts.Equal(b.NodePorts) && (!a.NodePorts.All || slices.Equal(a.Addrs, b.Addrs))
}
