package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	headerLen   = 16 // struct nlmsghdr
	nfHeaderLen = 4  // struct nfgenmsg
)

// statusDNAT is IPS_DST_NAT of the kernel's linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

var errMalformed = errors.New("malformed conntrack message")

// message is one netlink message.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

// nextMessage splits the first message off a datagram.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < headerLen {
		return m, nil, errMalformed
	}
	length := int(binary.NativeEndian.Uint32(b))
	if length < headerLen || length > len(b) {
		return m, nil, errMalformed
	}
	m = message{
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		body:  b[headerLen:length],
	}
	return m, b[min(align(length), len(b)):], nil
}

// result is what an error, acknowledgement or done message says; nil is success.
func (m message) result() error {
	if len(m.body) < 4 {
		return errMalformed
	}
	if code := int32(binary.NativeEndian.Uint32(m.body)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// decodeFlow reads the body of a conntrack message. It is false for a flow that is not UDP or not
// of the family.
func decodeFlow(body []byte, family proxy.Family) (f Flow, ok bool, err error) {
	if len(body) < nfHeaderLen {
		return f, false, errMalformed
	}
	if body[0] != netlinkFamily(family) {
		return f, false, nil
	}
	var original, reply tuple
	err = eachAttr(body[nfHeaderLen:], func(typ uint16, value []byte) (err error) {
		switch typ {
		case attrTupleOriginal:
			original, err = decodeTuple(value)
		case attrTupleReply:
			reply, err = decodeTuple(value)
		case attrStatus:
			var status uint32
			status, err = uint32Of(value)
			f.DNAT = status&statusDNAT != 0
		case attrID:
			f.ID, err = uint32Of(value)
		case attrZone:
			f.Zone, err = uint16Of(value)
		}
		return err
	})
	if err != nil {
		return Flow{}, false, err
	}
	f.Original, f.OriginalZone = original.ends(), original.zone
	f.Reply, f.ReplyZone = reply.ends(), reply.zone
	return f, original.isUDP(family) && reply.isUDP(family), nil
}

// tuple is a tuple of any protocol, as far as it was present.
type tuple struct {
	src, dst     netip.Addr
	protocol     proxy.Protocol
	sport, dport uint16
	zone         uint16
}

func (t tuple) isUDP(family proxy.Family) bool {
	return t.protocol == proxy.UDP && family.Has(t.src) && family.Has(t.dst)
}

func (t tuple) ends() Tuple {
	return Tuple{netip.AddrPortFrom(t.src, t.sport), netip.AddrPortFrom(t.dst, t.dport)}
}

func decodeTuple(b []byte) (t tuple, err error) {
	err = eachAttr(b, func(typ uint16, value []byte) (err error) {
		switch typ {
		case attrTupleIP:
			return eachAttr(value, t.decodeAddr)
		case attrTupleProto:
			return eachAttr(value, t.decodeProto)
		case attrTupleZone:
			t.zone, err = uint16Of(value)
		}
		return err
	})
	return t, err
}

func (t *tuple) decodeAddr(typ uint16, value []byte) error {
	addr, ok := netip.AddrFromSlice(value)
	if !ok {
		return errMalformed
	}
	switch typ {
	case attrIPv4Src, attrIPv6Src:
		t.src = addr
	case attrIPv4Dst, attrIPv6Dst:
		t.dst = addr
	}
	return nil
}

func (t *tuple) decodeProto(typ uint16, value []byte) (err error) {
	switch typ {
	case attrProtoNum:
		if len(value) < 1 {
			return errMalformed
		}
		t.protocol = proxy.Protocol(value[0])
	case attrSrcPort:
		t.sport, err = uint16Of(value)
	case attrDstPort:
		t.dport, err = uint16Of(value)
	}
	return err
}

// eachAttr visits the attributes of a list until one is refused.
func eachAttr(b []byte, visit func(typ uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errMalformed
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return errMalformed
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := visit(typ, b[4:length]); err != nil {
			return err
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

func uint16Of(b []byte) (uint16, error) {
	if len(b) < 2 {
		return 0, errMalformed
	}
	return binary.BigEndian.Uint16(b), nil
}

func uint32Of(b []byte) (uint32, error) {
	if len(b) < 4 {
		return 0, errMalformed
	}
	return binary.BigEndian.Uint32(b), nil
}

// align rounds up to the alignment of netlink, 4 bytes.
func align(n int) int { return (n + 3) &^ 3 }
