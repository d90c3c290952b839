package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Of the kernel's linux/ip_vs.h.
const (
	genlName    = "IPVS"
	genlVersion = 1

	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdGetService = 4
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdGetDest    = 8

	attrService = 1
	attrDest    = 2

	svcFamily    = 1
	svcProtocol  = 2
	svcAddr      = 3
	svcPort      = 4
	svcMark      = 5
	svcScheduler = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9

	destAddr     = 1
	destPort     = 2
	destForward  = 3
	destWeight   = 4
	destUpper    = 5
	destLower    = 6
	destActive   = 7
	destInactive = 8
	destFamily   = 11

	flagPersistent = 0x1
	flagHashed     = 0x2 // the kernel's own
	flagFallback   = 0x8 // IP_VS_SVC_F_SCHED1, which sh and mh read so

	forwardNAT   = 0
	forwardLocal = 1 // old kernels make this of it for a backend on the node
)

// settable are the flags of a virtual server that are not the kernel's own.
const settable = ^uint32(flagHashed)

// everyClient is the netmask of persistence that has each client stick to a backend of its own.
func everyClient(f proxy.Family) uint32 {
	if f == proxy.IPv6 {
		return 128
	}
	return ^uint32(0)
}

func addressFamily(f proxy.Family) uint16 {
	if f == proxy.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// address is an address as IPVS wants it: 16 bytes in either family.
func address(a netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, a.AsSlice())
	return b
}

func bigEndian16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// encodeID writes what tells a server from others.
func encodeID(ae *netlink.AttributeEncoder, f proxy.Family, id ID) {
	ae.Uint16(svcFamily, addressFamily(f))
	if id.Mark != 0 {
		ae.Uint32(svcMark, id.Mark)
		return
	}
	ae.Uint16(svcProtocol, uint16(id.Protocol))
	ae.Bytes(svcAddr, address(id.Addr.Addr()))
	ae.Bytes(svcPort, bigEndian16(id.Addr.Port()))
}

// encodeServer writes all of a server.
func encodeServer(ae *netlink.AttributeEncoder, f proxy.Family, s Server) {
	encodeID(ae, f, s.ID)
	flags := uint32(0)
	if s.Timeout > 0 {
		flags |= flagPersistent
	}
	if s.Fallback {
		flags |= flagFallback
	}
	ae.String(svcScheduler, s.Scheduler)
	ae.Bytes(svcFlags, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, flags), settable))
	ae.Uint32(svcTimeout, s.Timeout)
	ae.Uint32(svcNetmask, everyClient(f))
}

// encodeDest writes a backend: all of it, or what tells it from others.
func encodeDest(ae *netlink.AttributeEncoder, f proxy.Family, d Dest, all bool) {
	ae.Bytes(destAddr, address(d.Addr.Addr()))
	ae.Bytes(destPort, bigEndian16(d.Addr.Port()))
	ae.Uint16(destFamily, addressFamily(f))
	if all {
		ae.Uint32(destForward, forwardNAT)
		ae.Uint32(destWeight, d.Weight)
		ae.Uint32(destUpper, 0)
		ae.Uint32(destLower, 0)
	}
}

// encode is the body of the message that a command is.
func (c Command) encode(f proxy.Family) ([]byte, error) {
	cmd := [...]uint8{cmdNewService, cmdSetService, cmdDelService, cmdNewDest, cmdSetDest, cmdDelDest}[c.Op]
	return request(cmd, func(ae *netlink.AttributeEncoder) {
		ae.Nested(attrService, func(ae *netlink.AttributeEncoder) error {
			if c.Op == AddServer || c.Op == SetServer {
				encodeServer(ae, f, c.Server)
			} else {
				encodeID(ae, f, c.Server.ID)
			}
			return nil
		})
		if c.Op >= AddDest {
			ae.Nested(attrDest, func(ae *netlink.AttributeEncoder) error {
				encodeDest(ae, f, c.Dest, c.Op != DeleteDest)
				return nil
			})
		}
	})
}

// request is the header of generic netlink and attributes.
func request(cmd uint8, attrs func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	attrs(ae)
	body, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return append([]byte{cmd, genlVersion, 0, 0}, body...), nil
}

var errMalformed = errors.New("malformed message of IPVS")

// nested decodes the one attribute of an answer.
func nested(m netlink.Message, kind uint16) (*netlink.AttributeDecoder, error) {
	if len(m.Data) < genlHeader {
		return nil, errMalformed
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[genlHeader:])
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		if ad.Type() == kind {
			return netlink.NewAttributeDecoder(ad.Bytes())
		}
	}
	return nil, errors.Join(errMalformed, ad.Err())
}

// addrOf reads an address of a family.
func addrOf(f proxy.Family, b []byte) netip.Addr {
	n := f.Bits() / 8
	if len(b) < n {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(b[:n])
	return a
}

func portOf(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// decodeServer reads a server; ok is false for one of another family.
func decodeServer(m netlink.Message, f proxy.Family) (s Server, ok bool, err error) {
	ad, err := nested(m, attrService)
	if err != nil {
		return s, false, err
	}
	var addr netip.Addr
	var port uint16
	persistent, grouped := false, false
	for ad.Next() {
		switch ad.Type() {
		case svcFamily:
			ok = ad.Uint16() == addressFamily(f)
		case svcProtocol:
			s.ID.Protocol = proxy.Protocol(ad.Uint16())
		case svcAddr:
			addr = addrOf(f, ad.Bytes())
		case svcPort:
			port = portOf(ad.Bytes())
		case svcMark:
			s.ID.Mark = ad.Uint32()
		case svcScheduler:
			s.Scheduler = ad.String()
		case svcFlags:
			if b := ad.Bytes(); len(b) >= 4 {
				flags := binary.NativeEndian.Uint32(b)
				s.Fallback, persistent = flags&flagFallback != 0, flags&flagPersistent != 0
				s.Altered = flags&^(flagPersistent|flagHashed|flagFallback) != 0
			}
		case svcTimeout:
			s.Timeout = ad.Uint32()
		case svcNetmask:
			grouped = ad.Uint32() != everyClient(f)
		}
	}
	if persistent {
		s.Altered = s.Altered || grouped
	} else {
		s.Timeout = 0 // the kernel keeps one, and nobody reads it
	}
	if s.ID.Mark != 0 {
		s.ID = ID{Mark: s.ID.Mark}
	} else {
		s.ID.Addr = netip.AddrPortFrom(addr, port)
	}
	return s, ok, ad.Err()
}

func decodeDest(m netlink.Message, f proxy.Family) (Load, error) {
	ad, err := nested(m, attrDest)
	if err != nil {
		return Load{}, err
	}
	var l Load
	var addr netip.Addr
	var port uint16
	for ad.Next() {
		switch ad.Type() {
		case destAddr:
			addr = addrOf(f, ad.Bytes())
		case destPort:
			port = portOf(ad.Bytes())
		case destForward:
			method := ad.Uint32()
			l.Altered = l.Altered || method != forwardNAT && method != forwardLocal
		case destUpper, destLower:
			l.Altered = l.Altered || ad.Uint32() != 0
		case destWeight:
			l.Weight = ad.Uint32()
		case destActive:
			l.Active = ad.Uint32()
		case destInactive:
			l.Inactive = ad.Uint32()
		}
	}
	l.Addr = netip.AddrPortFrom(addr, port)
	return l, ad.Err()
}
