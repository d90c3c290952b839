package lab

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// rawPorts gives every raw client of the process a port of its own, as nobody else would.
var rawPorts atomic.Uint32

// rawPort is the port of a raw client that did not ask for one.
func rawPort() uint16 { return uint16(20000 + rawPorts.Add(1)%40000) }

// sctpClient is an SCTP association that never gets further than its first answer.
type sctpClient struct {
	socket *socket
	port   uint16
	to     uint16
	tag    uint32
}

func newSCTPClient(c *Conn) *sctpClient {
	port := c.probe.From.Port()
	if port == 0 {
		port = rawPort()
	}
	return &sctpClient{socket: c.socket, port: port, to: c.probe.To.Port(), tag: rand.Uint32() | 1}
}

func (c *sctpClient) ask(deadline time.Time) Outcome {
	init := sctpPacket{SrcPort: c.port, DstPort: c.to, Type: sctpInit, OwnTag: c.tag}
	if err := c.socket.send(init.marshal()); err != nil {
		return c.socket.failure(err)
	}
	var text string
	o, ok := c.socket.receive(deadline, func(b []byte) bool {
		p, ok := parseSCTP(c.socket.payload(b))
		text = p.Cookie
		return ok && p.Type == sctpInitAck && p.DstPort == c.port && p.SrcPort == c.to && p.Tag == c.tag
	}, c.sent)
	if !ok {
		return o
	}
	return parseIdentity(text)
}

// sent tells whether an error is about a packet of this client: all raw sockets see it.
func (c *sctpClient) sent(e *icmpError) bool {
	return len(e.packet) >= 4 &&
		binary.BigEndian.Uint16(e.packet) == c.port && binary.BigEndian.Uint16(e.packet[2:]) == c.to
}
