package nft

import (
	"bytes"
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// message is what nf_tables tells of one object, as far as we look at it.
type message struct {
	kind   uint16 // NFT_MSG_…
	family uint8
	attrs  []netlink.Attribute
}

// nfgenmsg is the length of the header between that of netlink and the attributes.
const nfgenmsg = 4

func parseMessage(m netlink.Message) (message, bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg {
		return message{}, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[nfgenmsg:])
	if err != nil {
		return message{}, false
	}
	return message{kind: uint16(m.Header.Type) & 0xff, family: m.Data[0], attrs: attrs}, true
}

// attr is the value of an attribute, or nil.
func (m message) attr(kind uint16) []byte { return attrOf(m.attrs, kind) }

func (m message) text(kind uint16) string {
	return string(bytes.TrimRight(m.attr(kind), "\x00"))
}

func (m message) number(kind uint16) uint32 { return number(m.attr(kind)) }

func attrOf(attrs []netlink.Attribute, kind uint16) []byte {
	for _, a := range attrs {
		if a.Type&^(netlink.Nested|netlink.NetByteOrder) == kind {
			return a.Data
		}
	}
	return nil
}

// nested follows attributes that hold attributes, and gives the value of the last, or nil.
func nested(data []byte, path ...uint16) []byte {
	for _, kind := range path {
		attrs, err := netlink.UnmarshalAttributes(data)
		if err != nil {
			return nil
		}
		data = attrOf(attrs, kind)
	}
	return data
}

func number(value []byte) uint32 {
	if len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

func nfFamily(f proxy.Family) uint8 {
	if f == proxy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
