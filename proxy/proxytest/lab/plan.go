package lab

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/proxy"
)

// The address plan, in IPv4. In gives the IPv6 twins.
var (
	NodeIP      = netip.MustParseAddr("192.168.50.1") // the node's primary address, on the client's link
	NodeIP2     = netip.MustParseAddr("192.168.50.2") // a secondary address on the same link
	nodeRemote  = netip.MustParseAddr("192.168.60.1")
	nodeWorld   = netip.MustParseAddr("192.168.70.1")
	worldIP     = netip.MustParseAddr("192.168.70.2")
	remoteIP    = netip.MustParseAddr("192.168.60.2")
	bridgeIP    = netip.MustParseAddr("10.1.0.1")
	firstPod    = netip.MustParseAddr("10.1.0.10")
	firstRemote = netip.MustParseAddr("10.1.1.10")
	firstClient = netip.MustParseAddr("192.168.50.100")

	ClusterCIDR = netip.MustParsePrefix("10.1.0.0/16")     // all pods
	NodeCIDR    = netip.MustParsePrefix("10.1.0.0/24")     // the pods of the node
	RemoteCIDR  = netip.MustParsePrefix("10.1.1.0/24")     // the pods of the remote node
	CrowdCIDR   = netip.MustParsePrefix("10.1.128.0/17")   // 32768 more pods of the remote node, see Lab.Crowd
	ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")    // nothing in the lab has such an address
	ClientCIDR  = netip.MustParsePrefix("192.168.50.0/24") // the client's link; the node is in it
	linkRemote  = netip.MustParsePrefix("192.168.60.0/24")
	linkWorld   = netip.MustParsePrefix("192.168.70.0/24")
)

// The names of the node's interfaces. Pods on a bridge sit behind BridgeName, the others behind an
// interface each, whose name starts with PodPrefix.
const (
	BridgeName = "cni0"
	PodPrefix  = "pod"
)

// embedding is where the IPv6 twins of IPv4 addresses live; its last four bytes are the address.
var embedding = netip.MustParseAddr("fd00::").As16()

// In is the twin of an IPv4 address in a family: itself, or fd00:: with its bytes at the end. The
// twin of a loopback address is ::1, that of 0.0.0.0 is ::. Other addresses are returned as they are.
func In(f proxy.Family, a netip.Addr) netip.Addr {
	switch {
	case f == proxy.IPv4 || !a.Is4():
		return a
	case a.IsLoopback():
		return netip.IPv6Loopback()
	case a.IsUnspecified():
		return netip.IPv6Unspecified()
	}
	twin := embedding
	four := a.As4()
	copy(twin[12:], four[:])
	return netip.AddrFrom16(twin)
}

// PrefixIn is the twin of an IPv4 prefix in a family; that of 0.0.0.0/0 is ::/0.
func PrefixIn(f proxy.Family, p netip.Prefix) netip.Prefix {
	switch {
	case f == proxy.IPv4 || !p.Addr().Is4():
		return p
	case p.Bits() == 0:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	case p.Addr().IsLoopback():
		return f.Loopback()
	}
	return netip.PrefixFrom(In(f, p.Addr()), 96+p.Bits())
}

// plus is the n-th address after a.
func plus(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}
