package proxy

import (
	"net/netip"
	"slices"
)

// Node holds the facts of this node, in one IP family, that policies and rules depend on.
// It is immutable and replaced as a whole.
type Node struct {
	Family Family
	Name   string // equals EndpointSlice nodeName for endpoints on this node
	Zone   string // topology.kubernetes.io/zone; empty when unknown

	// IP is the node's primary address, from its Node object; invalid when unknown.
	IP netip.Addr

	// Addrs are all addresses on the node's interfaces, sorted, without link-local ones.
	Addrs []netip.Addr

	// NodePorts says which of the node's addresses serve NodePorts.
	NodePorts NodePortAddrs

	// PodSource tells traffic of this node's (or the cluster's) pods from other traffic.
	PodSource PodSource

	// MasqueradeAll masquerades all traffic to ClusterIPs; policy has already applied it to Routes.
	MasqueradeAll bool

	// MasqueradeMark is the packet mark bit that asks for masquerading; one bit is set.
	MasqueradeMark uint32

	// ServiceCIDRs are the ranges that ClusterIPs are allocated from, sorted; nil when unknown.
	ServiceCIDRs []netip.Prefix
}

// Equal tells whether two nodes are the same in all that rules depend on.
func (n *Node) Equal(o *Node) bool {
	if n == o {
		return true
	}
	return n != nil && o != nil &&
		n.Family == o.Family && n.Name == o.Name && n.Zone == o.Zone && n.IP == o.IP &&
		slices.Equal(n.Addrs, o.Addrs) &&
		n.NodePorts.Equal(o.NodePorts) &&
		n.PodSource == o.PodSource &&
		n.MasqueradeAll == o.MasqueradeAll && n.MasqueradeMark == o.MasqueradeMark &&
		slices.Equal(n.ServiceCIDRs, o.ServiceCIDRs)
}

// NodePortAddrs selects the node's addresses that serve NodePorts. The zero value is none.
type NodePortAddrs struct {
	// All serves every local address that is not a loopback one, those that appear later included.
	All bool

	// Addrs are the addresses to serve when All is false: sorted, none of them a loopback address.
	Addrs []netip.Addr

	// Localhost also serves the family's loopback range, to the node itself.
	Localhost bool

	// Relayed says that the family's loopback address is asked for by name, and Localhost does not serve it: a process may. It
	// concerns no rule of a mode.
	Relayed bool
}

// Equal tells whether two selections are the same.
func (a NodePortAddrs) Equal(o NodePortAddrs) bool {
	return a.All == o.All && a.Localhost == o.Localhost && a.Relayed == o.Relayed && slices.Equal(a.Addrs, o.Addrs)
}

// PodSourceKind is a way to recognise the traffic of pods.
type PodSourceKind uint8

// The ways to recognise pods. None cannot tell them from the outside.
const (
	PodSourceNone            PodSourceKind = iota
	PodSourcePrefix                        // the source address lies in Prefix
	PodSourceInterface                     // the packet came in through Interface
	PodSourceInterfacePrefix               // the packet came in through an interface whose name starts so
)

// PodSource recognises the traffic of pods; each mode renders it in its own words.
type PodSource struct {
	Kind      PodSourceKind
	Prefix    netip.Prefix // for PodSourcePrefix
	Interface string       // for the two interface kinds
}
