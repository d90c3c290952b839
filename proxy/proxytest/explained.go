package proxytest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// explained is nil if package explain says of a packet what is wanted, which the kernel is asked to do as well.
func (s *stage) explained(p packet) error {
	if p.protocol == lab.InvalidTCP { // no beginning of a connection
		return nil
	}
	if s.scenario.Firewall && p.want.fate == dropped { // by a firewall, of which Sluice knows nothing
		return nil
	}
	a := s.explain(p)
	if !p.want.agrees(s, a) {
		return fmt.Errorf("explained as %v, because %s (%v, because %s): %v", a.Fate, a.Why, a.Source, a.SourceWhy, a.Backends)
	}
	return candidatesAgree(a)
}

// explain says what becomes of a packet.
func (s *stage) explain(p packet) explain.Answer {
	return explain.View{Snapshot: s.applied, Relay: s.Relayed, Input: s.tracker.Input}.Packet(s.asSeen(p))
}

// asSeen is a packet as the node sees it.
func (s *stage) asSeen(p packet) explain.Packet {
	seen := explain.Packet{From: p.source.Addr(), Interface: s.interfaceOf(p.from), To: p.to, Protocol: p.protocol}
	switch {
	case seen.From.IsValid():
	case p.from == s.lab.Node.Name:
		seen.From = s.nodesChoice(p.to.Addr())
	default:
		seen.From = host(s.lab, p.from).Addr(s.family)
	}
	return seen
}

// interfaceOf is where packets of a host come in; empty for the node itself. Pods that are not on a bridge have one each, of
// which only the beginning of the name matters.
func (s *stage) interfaceOf(from string) string {
	switch {
	case from == s.lab.Node.Name:
		return ""
	case !strings.HasPrefix(from, lab.PodPrefix+"-"):
		return "eth0"
	case s.scenario.Node.Detect == ByBridge:
		return lab.BridgeName
	}
	return lab.PodPrefix + "0"
}

// nodesChoice is the address by which the node's own packets leave to an address.
func (s *stage) nodesChoice(to netip.Addr) netip.Addr {
	chosen := lab.In(s.family, lab.NodeIP)
	s.onNode("choose a source address", func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
		if err != nil {
			return nil // nothing can be sent there; the node's address will do
		}
		// A neighbour may give the node addresses that the scenario does not know.
		if local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); s.nodeHas(local) || local.IsLoopback() {
			chosen = local
		}
		return conn.Close()
	})
	return chosen
}

// agrees tells whether an answer is what is wanted of a new connection.
func (w want) agrees(s *stage, a explain.Answer) bool {
	switch w.fate {
	case refused:
		return a.Fate == explain.Rejected
	case dropped:
		return a.Fate == explain.Dropped
	case reset, unhandled, ignored:
		return a.Fate == explain.Ignored
	case alike, crowded:
		return a.Fate == explain.Forwarded
	}
	if a.Fate == explain.Ignored {
		return len(w.targets) == 1 && s.addrOf(w.targets[0]) == a.Packet.To // straight to it, without a Service
	}
	backends := map[netip.AddrPort]bool{} // and whether they are masqueraded
	for _, b := range a.Backends {
		backends[b.Addr] = b.Masquerade
	}
	targets := map[netip.AddrPort]bool{}
	for _, t := range w.targets {
		targets[s.addrOf(t)] = t.masquerade
	}
	if a.Affinity > 0 { // to those that clients came to before
		maps.DeleteFunc(backends, func(b netip.AddrPort, _ bool) bool { _, wanted := targets[b]; return !wanted })
	}
	return maps.Equal(backends, targets)
}

func (s *stage) addrOf(t target) netip.AddrPort {
	return netip.AddrPortFrom(host(s.lab, t.host).Addr(s.family), t.port)
}

// candidatesAgree is nil if the candidates that an answer calls used are its backends.
func candidatesAgree(a explain.Answer) error {
	if a.Fate != explain.Forwarded {
		return nil
	}
	var used, backends []netip.AddrPort
	for _, c := range a.Candidates {
		if c.Pools[a.Pool].Used {
			used = append(used, c.Addr)
		}
	}
	for _, b := range a.Backends {
		backends = append(backends, b.Addr)
	}
	slices.SortFunc(backends, netip.AddrPort.Compare)
	if !slices.Equal(used, backends) {
		return fmt.Errorf("backends are %v, but of the candidates %v are called used", backends, used)
	}
	return nil
}
