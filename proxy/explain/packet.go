package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Packet is the first of a new connection.
type Packet struct {
	From netip.Addr

	// Interface is where it comes in; empty: unknown, or the node itself sends it.
	Interface string

	// To has a port of 0 if the protocol has none.
	To       netip.AddrPort
	Protocol proxy.Protocol
}

// String is "10.1.0.10 -> 10.96.0.10:80/tcp".
func (p Packet) String() string {
	from := p.From.String()
	if p.Interface != "" {
		from += "%" + p.Interface
	}
	return fmt.Sprintf("%s -> %v/%v", from, p.To, p.Protocol)
}

// class is the packet's class of sources on a node, and why.
func (p Packet) class(node *proxy.Node) (proxy.Source, string) {
	if why := p.fromPod(node.PodSource); why != "" {
		return proxy.FromPod, why
	}
	if p.fromNode(node) {
		return proxy.FromNode, "the node has the address " + p.From.String()
	}
	return proxy.FromOutside, notAPod(p, node.PodSource) + ", and the node does not have the address"
}

// fromNode tells whether the packet's source is an address of the node.
func (p Packet) fromNode(node *proxy.Node) bool {
	return p.From.IsLoopback() || slices.Contains(node.Addrs, p.From)
}

// fromPod says why a packet is a pod's; empty if it is not.
func (p Packet) fromPod(s proxy.PodSource) string {
	switch s.Kind {
	case proxy.PodSourcePrefix:
		if s.Prefix.Contains(p.From) {
			return fmt.Sprintf("%v is in the range of pods, %v", p.From, s.Prefix)
		}
	case proxy.PodSourceInterface:
		if p.Interface == s.Interface {
			return "it comes in through " + s.Interface + ", the interface of pods"
		}
	case proxy.PodSourceInterfacePrefix:
		if p.Interface != "" && strings.HasPrefix(p.Interface, s.Interface) {
			return fmt.Sprintf("it comes in through %s, and the interfaces of pods are %s*", p.Interface, s.Interface)
		}
	}
	return ""
}

func notAPod(p Packet, s proxy.PodSource) string {
	through := "through no interface that was named"
	if p.Interface != "" {
		through = "through " + p.Interface
	}
	switch s.Kind {
	case proxy.PodSourcePrefix:
		return fmt.Sprintf("%v is not in the range of pods, %v", p.From, s.Prefix)
	case proxy.PodSourceInterface:
		return fmt.Sprintf("it comes in %s, not through %s, the interface of pods", through, s.Interface)
	case proxy.PodSourceInterfacePrefix:
		return fmt.Sprintf("it comes in %s, and the interfaces of pods are %s*", through, s.Interface)
	}
	return "this node cannot tell pods from others"
}
