package iptables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// index names one of the trees that find what concerns a packet.
type index uint8

// The trees. Addresses that users choose have one of their own, so that crafted ones cannot deepen the
// way to a ClusterIP.
const (
	byClusterIP   index = iota // nat: served ClusterIPs
	byExternal                 // nat: served external and load-balancer addresses
	byNodePort                 // nat: served NodePorts
	byRefused                  // filter: frontends that refuse somebody, but for NodePorts
	byKnown                    // filter: all ClusterIPs
	byRefusedPort              // filter: NodePorts that refuse somebody
	byHealthPort               // filter: health check node ports
	numIndexes
)

// trees is a tree for each index. It is immutable, but for whom makes it.
type trees [numIndexes]tree

// letters are part of chain names.
var letters = [numIndexes]byte{'C', 'X', 'N', 'R', 'K', 'Q', 'H'}

var tableOf = [numIndexes]string{nat, nat, nat, filter, filter, filter, filter}

// In a key come first the address, then the protocol, then the port, as far as the index has them.
var (
	hasAddr = [numIndexes]bool{byClusterIP: true, byExternal: true, byRefused: true, byKnown: true}
	hasPort = [numIndexes]bool{
		byClusterIP: true, byExternal: true, byRefused: true,
		byNodePort: true, byRefusedPort: true, byHealthPort: true,
	}
)

// protocols are the nibbles that stand for them in keys.
var protocols = [...]proxy.Protocol{1: proxy.TCP, 2: proxy.UDP, 3: proxy.SCTP}

const portNibbles = 4

func addrNibbles(f proxy.Family) int { return f.Bits() / 4 }

// key is the key of an address, protocol and port in an index, which ignores what it has not.
func key(in index, addr netip.Addr, protocol proxy.Protocol, port uint16) string {
	k := make([]byte, 0, 40)
	if hasAddr[in] {
		for _, b := range addr.AsSlice() {
			k = append(k, b>>4, b&15)
		}
	}
	if hasPort[in] {
		k = append(k, byte(slices.Index(protocols[:], protocol)))
		k = append(k, byte(port>>12), byte(port>>8&15), byte(port>>4&15), byte(port&15))
	}
	return string(k)
}

// drawer renders nodes of one tree as chains.
type drawer struct {
	family proxy.Family
	index  index
}

// name is the chain of the keys that start with prefix.
func (d drawer) name(prefix string) string {
	const digits = "0123456789abcdef"
	start := xtables.DefaultPrefix + string(letters[d.index])
	if prefix == "" {
		return start
	}
	if len(start)+1+len(prefix) > maxChainName {
		// Capital letters cannot be mistaken for digits.
		return start + "-X" + hash(prefix)
	}
	name := []byte(start + "-")
	for i := range len(prefix) {
		name = append(name, digits[prefix[i]])
	}
	return string(name)
}

// match is the match for all packets whose key starts with prefix.
func (d drawer) match(prefix string) string {
	addr := ""
	if hasAddr[d.index] {
		n := min(len(prefix), addrNibbles(d.family))
		addr = d.addrMatch(prefix[:n])
		prefix = prefix[n:]
	}
	if prefix == "" {
		return addr
	}
	return join(addr, portMatch(prefix))
}

func (d drawer) addrMatch(nibbles string) string {
	if nibbles == "" {
		return ""
	}
	var b [16]byte
	for i := range len(nibbles) {
		b[i/2] |= nibbles[i] << (4 * (1 - i%2))
	}
	addr := netip.AddrFrom16(b)
	if d.family == proxy.IPv4 {
		addr = netip.AddrFrom4([4]byte(b[:4]))
	}
	return "-d " + netip.PrefixFrom(addr, 4*len(nibbles)).String()
}

// portMatch matches a protocol and the range of ports that start with the nibbles after it.
func portMatch(nibbles string) string {
	protocol := protocols[nibbles[0]].String()
	match := "-p " + protocol
	if len(nibbles) == 1 {
		return match
	}
	var ports [2]byte
	for i := range len(nibbles) - 1 {
		ports[i/2] |= nibbles[i+1] << (4 * (1 - i%2))
	}
	low := binary.BigEndian.Uint16(ports[:])
	high := low | uint16(1<<(4*(1+portNibbles-len(nibbles)))-1)
	match += " -m " + protocol + " --dport " + strconv.Itoa(int(low))
	if high != low {
		match += fmt.Sprintf(":%d", high)
	}
	return match
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}
