package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// Step is a rule that a packet met, or the end of a chain.
type Step struct {
	Packet uint32 // a number that the packet has as long as it is on its way through the namespace

	Family       string // of the table, in the words of nft
	Table, Chain string
	Rule         uint64 // its handle; 0: the end of the chain
	Verdict      string // in the words of nft

	In, Out int     // indexes of interfaces, 0: none yet
	Header  *Header // told once for each hook
}

// Header is what matters of a packet's headers. Ports are 0 if the packet is of a protocol without, or a later fragment.
type Header struct {
	Protocol proxy.Protocol
	From, To netip.AddrPort
	TCPFlags uint8
}

// parseStep gives false for what is no message of a trace.
func parseStep(raw netlink.Message) (Step, bool) {
	m, ok := nfwatch.ParseMessage(raw)
	if !ok || m.Kind != unix.NFT_MSG_TRACE {
		return Step{}, false
	}
	s := Step{
		Packet:  m.Number(unix.NFTA_TRACE_ID),
		Family:  familyText(m.Family),
		Table:   m.Text(unix.NFTA_TRACE_TABLE),
		Chain:   m.Text(unix.NFTA_TRACE_CHAIN),
		Verdict: stepVerdict(m),
		In:      int(m.Number(unix.NFTA_TRACE_IIF)),
		Out:     int(m.Number(unix.NFTA_TRACE_OIF)),
		Header:  parseHeader(m.Attr(unix.NFTA_TRACE_NETWORK_HEADER), m.Attr(unix.NFTA_TRACE_TRANSPORT_HEADER)),
	}
	if handle := m.Attr(unix.NFTA_TRACE_RULE_HANDLE); len(handle) == 8 {
		s.Rule = binary.BigEndian.Uint64(handle)
	}
	return s, true
}

func familyText(number uint8) string {
	switch number {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return "arp"
}

// Of linux/netfilter.h, and not in package unix.
const (
	verdictDrop = iota
	verdictAccept
	verdictStolen
	verdictQueue
)

// stepVerdict is what a rule decided, or the policy of a base chain.
func stepVerdict(m nfwatch.Message) string {
	if m.Number(unix.NFTA_TRACE_TYPE) == unix.NFT_TRACETYPE_POLICY {
		if m.Number(unix.NFTA_TRACE_POLICY) == verdictDrop {
			return "policy drop"
		}
		return "policy accept"
	}
	to := nfwatch.AttrText(nfwatch.Nested(m.Attr(unix.NFTA_TRACE_VERDICT), unix.NFTA_VERDICT_CHAIN))
	switch code := int32(number(nfwatch.Nested(m.Attr(unix.NFTA_TRACE_VERDICT), unix.NFTA_VERDICT_CODE))); code {
	case verdictDrop:
		return "drop"
	case verdictAccept:
		return "accept"
	case verdictStolen:
		return "stolen"
	case unix.NFT_JUMP:
		return "jump " + to
	case unix.NFT_GOTO:
		return "goto " + to
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_CONTINUE:
		return "continue"
	default:
		if code&0xff == verdictQueue {
			return "queue"
		}
		return "break"
	}
}

// parseHeader reads what the kernel copied of both headers, nil if there is nothing of use.
func parseHeader(network, transport []byte) *Header {
	h := &Header{}
	var from, to netip.Addr
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		h.Protocol = proxy.Protocol(network[9])
		from, to = netip.AddrFrom4([4]byte(network[12:16])), netip.AddrFrom4([4]byte(network[16:20]))
	case len(network) >= 40 && network[0]>>4 == 6:
		h.Protocol = proxy.Protocol(network[6]) // extension headers are rare, and then it is one of those
		from, to = netip.AddrFrom16([16]byte(network[8:24])), netip.AddrFrom16([16]byte(network[24:40]))
	default:
		return nil
	}
	var source, destination uint16
	switch h.Protocol {
	case proxy.TCP, proxy.UDP, proxy.SCTP:
		if len(transport) >= 4 {
			source, destination = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
		}
		if h.Protocol == proxy.TCP && len(transport) >= 14 {
			h.TCPFlags = transport[13]
		}
	}
	h.From, h.To = netip.AddrPortFrom(from, source), netip.AddrPortFrom(to, destination)
	return h
}
