package lab

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// SCTP here is the first half of its handshake (RFC 9260 §5.1), over raw sockets: an INIT chunk,
// answered by an INIT ACK whose cookie says who answered. The kernel needs no SCTP for it.

const (
	sctpInit      = 1
	sctpInitAck   = 2
	sctpCookie    = 7 // the parameter of an INIT ACK that the client would send back
	sctpHeader    = 12
	sctpInitFixed = 20 // an INIT or INIT ACK chunk without parameters
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpPacket is a packet with a single INIT or INIT ACK chunk.
type sctpPacket struct {
	SrcPort, DstPort uint16
	Tag              uint32 // the receiver's; 0 in an INIT
	Type             byte
	OwnTag           uint32
	Cookie           string
}

// marshal is the packet as it is sent, checksum included.
func (p sctpPacket) marshal() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.SrcPort)
	b = binary.BigEndian.AppendUint16(b, p.DstPort)
	b = binary.BigEndian.AppendUint32(b, p.Tag)
	b = append(b, 0, 0, 0, 0)
	length := sctpInitFixed
	if p.Cookie != "" {
		length += 4 + len(p.Cookie)
	}
	b = append(b, p.Type, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = binary.BigEndian.AppendUint32(b, p.OwnTag)
	b = binary.BigEndian.AppendUint32(b, 65536) // window
	b = binary.BigEndian.AppendUint16(b, 1)     // outbound streams
	b = binary.BigEndian.AppendUint16(b, 1)     // inbound streams
	b = binary.BigEndian.AppendUint32(b, 1)     // initial sequence number
	if p.Cookie != "" {
		b = binary.BigEndian.AppendUint16(b, sctpCookie)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(p.Cookie)))
		b = append(b, p.Cookie...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	// The checksum is little-endian, alone among the fields.
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parseSCTP reads a packet whose checksum is right and whose first chunk is an INIT or INIT ACK.
func parseSCTP(b []byte) (p sctpPacket, ok bool) {
	if len(b) < sctpHeader+sctpInitFixed || !sctpChecksumRight(b) {
		return p, false
	}
	p = sctpPacket{
		SrcPort: binary.BigEndian.Uint16(b),
		DstPort: binary.BigEndian.Uint16(b[2:]),
		Tag:     binary.BigEndian.Uint32(b[4:]),
		Type:    b[sctpHeader],
		OwnTag:  binary.BigEndian.Uint32(b[sctpHeader+4:]),
	}
	if params := b[sctpHeader+sctpInitFixed:]; len(params) >= 4 {
		length := int(binary.BigEndian.Uint16(params[2:]))
		if binary.BigEndian.Uint16(params) == sctpCookie && length >= 4 && length <= len(params) {
			p.Cookie = string(params[4:length])
		}
	}
	return p, p.Type == sctpInit || p.Type == sctpInitAck
}

func sctpChecksumRight(b []byte) bool {
	sum := crc32.Checksum(b[:8], castagnoli)
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return binary.LittleEndian.Uint32(b[8:]) == crc32.Update(sum, castagnoli, b[sctpHeader:])
}

// answerSCTP answers an INIT for its port. All raw sockets of a namespace see all packets.
func answerSCTP(name string, packet []byte, backend, source netip.AddrPort) []byte {
	p, ok := parseSCTP(packet)
	if !ok || p.Type != sctpInit || p.DstPort != backend.Port() {
		return nil
	}
	return sctpPacket{
		SrcPort: p.DstPort,
		DstPort: p.SrcPort,
		Tag:     p.OwnTag,
		Type:    sctpInitAck,
		OwnTag:  p.OwnTag + 1,
		Cookie:  identity(name, backend, netip.AddrPortFrom(source.Addr(), p.SrcPort)),
	}.marshal()
}
