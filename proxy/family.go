package proxy

import (
	"fmt"
	"net/netip"
)

// Family is an IP family. Everything in a Snapshot belongs to one.
type Family uint8

// The two families. The zero value is IPv4.
const (
	IPv4 Family = iota
	IPv6
)

// Families lists both, in the order in which they are started.
var Families = [...]Family{IPv4, IPv6}

// String is "IPv4" or "IPv6", as in the label ip_family of the metrics.
func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Bits is the length of an address in bits: 32 or 128.
func (f Family) Bits() int {
	if f == IPv6 {
		return 128
	}
	return 32
}

// Any is the unspecified address of the family, the address of every NodePort frontend.
func (f Family) Any() netip.Addr {
	if f == IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// Loopback is the prefix that the family keeps for the host itself.
func (f Family) Loopback() netip.Prefix {
	if f == IPv6 {
		return netip.PrefixFrom(netip.IPv6Loopback(), 128)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
}

// Localhost is the loopback address that the family's hosts use.
func (f Family) Localhost() netip.Addr {
	if f == IPv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// Has tells whether a is a valid address of the family. An IPv4 address in IPv6 notation
// (::ffff:192.0.2.1) belongs to neither: callers unmap it first.
func (f Family) Has(a netip.Addr) bool {
	if f == IPv6 {
		return a.Is6() && !a.Is4In6()
	}
	return a.Is4()
}

// FamilyOf is the family of a valid address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Protocol is an IP protocol number (IANA) that a Service may carry.
type Protocol uint8

// The protocols of Services.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the lower-case name that iptables, nft and IPVS tools use.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}
