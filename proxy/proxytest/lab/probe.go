package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Probe tries a connection from the host and closes it.
func (h *Host) Probe(p Probe) Outcome {
	c, o := h.Connect(p)
	if c != nil {
		c.Close()
	}
	return o
}

// Conn is a connection that a probe made. It is not safe for concurrent use.
type Conn struct {
	socket *socket
	probe  Probe
	port   uint16 // the client's, where the socket has none
	ask    func(deadline time.Time) Outcome
}

// Connect is like Probe, but leaves the connection open. The Conn is nil unless it was answered.
func (h *Host) Connect(p Probe) (*Conn, Outcome) {
	c := &Conn{probe: p}
	if err := h.Do(func() error { return c.open(h) }); err != nil {
		return nil, Outcome{Result: Broken, Err: err}
	}
	o := c.start()
	if o.Result != Answered {
		c.Close()
		return nil, o
	}
	o.Client = c.client()
	return c, o
}

// Again asks the server once more, over the same connection.
func (c *Conn) Again(timeout time.Duration) Outcome {
	o := c.ask(time.Now().Add(timeout))
	if o.Result == Answered {
		o.Client = c.client()
	}
	return o
}

// client is the client's end of the connection.
func (c *Conn) client() netip.AddrPort {
	local := c.socket.local()
	if c.port != 0 {
		local = netip.AddrPortFrom(local.Addr(), c.port)
	}
	return local
}

// Close resets the connection. It may be called once.
func (c *Conn) Close() { c.socket.close() }

// Finish ends a connection of TCP in order, the client first: it waits for the server to end it as well. Close must follow.
func (c *Conn) Finish(timeout time.Duration) error {
	if err := unix.Shutdown(c.socket.fd, unix.SHUT_WR); err != nil {
		return err
	}
	_, ended := c.socket.receive(time.Now().Add(timeout), func(b []byte) bool { return len(b) == 0 }, always)
	if !ended {
		return errors.New("the server does not end the connection")
	}
	return nil
}

// kinds are the socket types and protocols of a probe, by its protocol.
var kinds = map[proxy.Protocol][2]int{
	proxy.TCP:  {unix.SOCK_STREAM, unix.IPPROTO_TCP},
	proxy.UDP:  {unix.SOCK_DGRAM, unix.IPPROTO_UDP},
	proxy.SCTP: {unix.SOCK_RAW, unix.IPPROTO_SCTP},
	ICMP:       {unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
	InvalidTCP: {unix.SOCK_RAW, unix.IPPROTO_TCP},
}

// open opens and binds the socket. It runs inside the host's namespace.
func (c *Conn) open(h *Host) error {
	family := proxy.FamilyOf(c.probe.To.Addr())
	kind := kinds[c.probe.Protocol]
	if c.probe.Protocol == ICMP && family == proxy.IPv6 {
		kind[1] = unix.IPPROTO_ICMPV6
	}
	var err error
	if c.socket, err = openSocket(family, kind[0], kind[1]); err != nil {
		return err
	}
	from := c.probe.From
	if !from.Addr().IsValid() && h.Namespace == h.lab.Remote.Namespace {
		from = netip.AddrPortFrom(h.Addr(family), from.Port())
	}
	if kind[0] == unix.SOCK_RAW {
		from = netip.AddrPortFrom(from.Addr(), 0) // a raw socket has no port
	}
	if err := c.socket.bind(from); err != nil {
		c.socket.close()
		return err
	}
	return nil
}

// start connects and asks for the first time.
func (c *Conn) start() Outcome {
	to := c.probe.To
	if c.probe.Protocol != proxy.TCP && c.probe.Protocol != proxy.UDP {
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	deadline := time.Now().Add(c.probe.Timeout)
	if err := c.socket.connect(to); err != nil {
		return c.socket.failure(err)
	}
	switch c.probe.Protocol {
	case proxy.TCP:
		if ready, err := c.socket.wait(unix.POLLOUT, deadline); err != nil || !ready {
			return Outcome{Err: err}
		}
		if err := c.socket.pendingError(); err != nil {
			return c.socket.failure(err)
		}
		c.ask = c.askLine
	case proxy.UDP:
		c.ask = c.askDatagram
		if c.probe.Resend > 0 {
			c.ask = c.insist
		}
	case proxy.SCTP:
		client := newSCTPClient(c)
		c.port = client.port
		c.ask = client.ask
	case ICMP:
		c.ask = c.askEcho
	case InvalidTCP:
		c.ask = newTCPIntruder(c).ask
	default:
		return Outcome{Result: Broken, Err: fmt.Errorf("probe with %v", c.probe.Protocol)}
	}
	o := c.ask(deadline)
	if c.probe.Protocol == proxy.TCP && o.Result == Answered {
		o.Resent = c.socket.resent()
	}
	return o
}

// insist sends a datagram again and again until something comes back.
func (c *Conn) insist(deadline time.Time) Outcome {
	for again := false; ; again = true {
		next := time.Now().Add(c.probe.Resend)
		last := next.After(deadline)
		if last {
			next = deadline
		}
		if o := c.askDatagram(next); last || o.Result != Silence || o.Err != nil {
			o.Resent = again && o.Result == Answered
			return o
		}
	}
}

// failure is the outcome that an error of the socket means.
func (s *socket) failure(err error) Outcome {
	if icmp := s.nextICMP(); icmp != nil {
		return icmp.outcome()
	}
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Outcome{Result: Reset, Err: err}
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES):
		return Outcome{Result: Unreachable, Err: err}
	}
	return Outcome{Result: Broken, Err: err}
}

func (e *icmpError) outcome() Outcome {
	if e.portUnreachable() {
		return Outcome{Result: Refused, Err: e}
	}
	return Outcome{Result: Unreachable, Err: e}
}

// receive reads packets until want takes one, an error comes, or time is up. The first result is
// only valid if want took a packet.
func (s *socket) receive(deadline time.Time, want func(packet []byte) bool, mine func(*icmpError) bool) (Outcome, bool) {
	buf := make([]byte, 4096)
	for {
		ready, err := s.wait(unix.POLLIN, deadline)
		if err != nil {
			return Outcome{Result: Broken, Err: err}, false
		}
		if !ready {
			return Outcome{}, false
		}
		for e := s.nextICMP(); e != nil; e = s.nextICMP() {
			if mine(e) {
				return e.outcome(), false
			}
		}
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EPROTO):
			// The ICMP message itself is, or will be, in the error queue.
		case err != nil:
			return s.failure(err), false
		case want(buf[:n]):
			return Outcome{}, true
		}
	}
}

func always(*icmpError) bool { return true }

func (c *Conn) askLine(deadline time.Time) Outcome {
	if err := c.socket.send([]byte("?\n")); err != nil {
		return c.socket.failure(err)
	}
	var text strings.Builder
	closed := false
	o, ok := c.socket.receive(deadline, func(b []byte) bool {
		closed = len(b) == 0
		text.Write(b)
		return closed || strings.HasSuffix(text.String(), "\n")
	}, always)
	switch {
	case !ok:
		return o
	case closed:
		return Outcome{Result: Reset, Err: errors.New("connection closed by the server")}
	}
	return parseIdentity(text.String())
}

func (c *Conn) askDatagram(deadline time.Time) Outcome {
	if err := c.socket.send([]byte("?")); err != nil {
		return c.socket.failure(err)
	}
	var text string
	o, ok := c.socket.receive(deadline, func(b []byte) bool { text = string(b); return true }, always)
	if !ok {
		return o
	}
	return parseIdentity(text)
}

// askEcho sends an echo request. Whoever answers has no name.
func (c *Conn) askEcho(deadline time.Time) Outcome {
	request := []byte{8, 0, 0, 0, 0, 0, 0, 1} // the kernel fills in checksum and identifier
	if c.socket.family == proxy.IPv6 {
		request[0] = 128
	}
	if err := c.socket.send(request); err != nil {
		return c.socket.failure(err)
	}
	o, ok := c.socket.receive(deadline, func([]byte) bool { return true }, always)
	if !ok {
		return o
	}
	return Outcome{Result: Answered, Backend: c.probe.To}
}

// payload is what a raw socket received, without the IPv4 header that it shows.
func (s *socket) payload(b []byte) []byte {
	if s.family == proxy.IPv4 && len(b) > 0 {
		if header := int(b[0]&0xf) * 4; header <= len(b) {
			return b[header:]
		}
	}
	return b
}
