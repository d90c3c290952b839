package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	tcpFin = 1 << iota
	tcpSyn
	tcpRst
)

// tcpIntruder sends a TCP packet that no TCP would send, with SYN and FIN set.
type tcpIntruder struct {
	socket   *socket
	from, to netip.AddrPort
}

func newTCPIntruder(c *Conn) *tcpIntruder {
	from := netip.AddrPortFrom(c.socket.local().Addr(), rawPort())
	return &tcpIntruder{socket: c.socket, from: from, to: c.probe.To}
}

func (i *tcpIntruder) ask(deadline time.Time) Outcome {
	if err := i.socket.send(i.packet()); err != nil {
		return i.socket.failure(err)
	}
	o, ok := i.socket.receive(deadline, func(b []byte) bool {
		b = i.socket.payload(b)
		return len(b) >= 20 && binary.BigEndian.Uint16(b) == i.to.Port() &&
			binary.BigEndian.Uint16(b[2:]) == i.from.Port() && b[13]&tcpRst != 0
	}, always)
	if !ok {
		return o
	}
	return Outcome{Result: Reset, Err: errors.New("connection reset")}
}

func (i *tcpIntruder) packet() []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, i.from.Port())
	binary.BigEndian.PutUint16(b[2:], i.to.Port())
	b[12] = byte(len(b) / 4 << 4)
	b[13] = tcpSyn | tcpFin
	binary.BigEndian.PutUint16(b[16:], ^sum16(i.pseudoHeader(len(b)), b))
	return b
}

// pseudoHeader is what the checksum covers besides the packet. The IPv6 one has the same sum as its
// IPv4 counterpart: they differ in padding.
func (i *tcpIntruder) pseudoHeader(length int) []byte {
	b := append(i.from.Addr().AsSlice(), i.to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return append(b, 0, byte(proxy.TCP))
}

// sum16 is the ones' complement sum of parts of even length.
func sum16(parts ...[]byte) uint16 {
	var sum uint32
	for _, part := range parts {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
