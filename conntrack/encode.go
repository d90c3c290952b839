package conntrack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Message types and attributes of ctnetlink, as in linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	attrTupleOriginal = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoInfo     = 4
	attrTimeout       = 7
	attrID            = 12
	attrZone          = 18
	attrFilter        = 25

	attrTupleIP    = 1 // in a tuple
	attrTupleProto = 2
	attrTupleZone  = 3

	attrIPv4Src = 1 // in attrTupleIP
	attrIPv4Dst = 2
	attrIPv6Src = 3
	attrIPv6Dst = 4

	attrProtoNum = 1 // in attrTupleProto
	attrSrcPort  = 2
	attrDstPort  = 3

	attrInfoTCP  = 1 // in attrProtoInfo
	attrTCPState = 1 // in attrInfoTCP

	attrFilterOriginal = 1 // in attrFilter
	filterProtocol     = 1 << 3
)

// request builds one netlink message.
type request struct{ b []byte }

// begin starts a message at the end of b, which may hold others.
func begin(b []byte, typ, flags uint16, seq uint32, family proxy.Family) (request, int) {
	start := len(b)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, netlinkFamily(family), unix.NFNETLINK_V0, 0, 0)
	return request{b}, start
}

// end closes the message that began at start and returns all messages.
func (r *request) end(start int) []byte {
	binary.NativeEndian.PutUint32(r.b[start:], uint32(len(r.b)-start))
	return r.b
}

func (r *request) attr(typ uint16, value []byte) {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(4+len(value)))
	r.b = binary.NativeEndian.AppendUint16(r.b, typ)
	r.b = append(r.b, value...)
	for len(r.b)%4 != 0 {
		r.b = append(r.b, 0)
	}
}

func (r *request) attr16(typ, value uint16) {
	r.attr(typ, binary.BigEndian.AppendUint16(nil, value))
}

// nest adds an attribute whose value is what fill adds.
func (r *request) nest(typ uint16, fill func()) {
	start := len(r.b)
	r.attr(typ|unix.NLA_F_NESTED, nil)
	fill()
	binary.NativeEndian.PutUint16(r.b[start:], uint16(len(r.b)-start))
}

func (r *request) tuple(typ uint16, protocol proxy.Protocol, t Tuple, zone uint16) {
	src, dst := uint16(attrIPv4Src), uint16(attrIPv4Dst)
	if t.Src.Addr().Is6() {
		src, dst = attrIPv6Src, attrIPv6Dst
	}
	r.nest(typ, func() {
		r.nest(attrTupleIP, func() {
			r.attr(src, t.Src.Addr().AsSlice())
			r.attr(dst, t.Dst.Addr().AsSlice())
		})
		r.nest(attrTupleProto, func() {
			r.attr(attrProtoNum, []byte{byte(protocol)})
			r.attr16(attrSrcPort, t.Src.Port())
			r.attr16(attrDstPort, t.Dst.Port())
		})
		if zone != 0 {
			r.attr16(attrTupleZone, zone)
		}
	})
}

// dumpRequest asks for all flows of a family: only UDP ones if the kernel shall filter. A kernel
// before 5.8 ignores the filter, so the answer may hold other flows all the same.
func dumpRequest(seq uint32, family proxy.Family, filter bool) []byte {
	r, start := begin(nil, msgGet, unix.NLM_F_DUMP, seq, family)
	if filter {
		r.nest(attrTupleOriginal, func() {
			r.nest(attrTupleProto, func() { r.attr(attrProtoNum, []byte{byte(proxy.UDP)}) })
		})
		r.nest(attrFilter, func() {
			r.attr(attrFilterOriginal, binary.NativeEndian.AppendUint32(nil, filterProtocol))
		})
	}
	return r.end(start)
}

// appendDelete appends a request to delete a flow. The flow must have valid addresses of the
// family: a request without them would empty the table.
func appendDelete(b []byte, seq uint32, family proxy.Family, f Flow) []byte {
	r, start := begin(b, msgDelete, unix.NLM_F_ACK, seq, family)
	r.tuple(attrTupleOriginal, proxy.UDP, f.Original, f.OriginalZone)
	if f.Zone != 0 {
		r.attr16(attrZone, f.Zone)
	}
	if f.ID != 0 {
		r.attr(attrID, binary.BigEndian.AppendUint32(nil, f.ID))
	}
	return r.end(start)
}

func netlinkFamily(f proxy.Family) byte {
	if f == proxy.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
