package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

type serverKey struct {
	host     *Host
	protocol proxy.Protocol
	port     uint16
}

// server is what Serve started.
type server struct {
	closers []io.Closer
	done    sync.WaitGroup
}

// Serve makes the host answer on a port at all its addresses, in both families, until the lab is
// closed. Every line (TCP), datagram (UDP) or INIT chunk (SCTP) is answered with the host's name and
// both ends of the connection. Serving what is served already does nothing.
func (h *Host) Serve(p proxy.Protocol, port uint16) error {
	key := serverKey{h, p, port}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.servers[key] != nil {
		return nil
	}
	s := &server{}
	err := h.Do(func() error {
		for _, a := range h.listenAddrs() {
			if err := s.listen(h, p, netip.AddrPortFrom(a, port)); err != nil {
				return fmt.Errorf("listen on %s %v port %d: %w", h.Name, p, port, err)
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, s.close())
	}
	h.lab.servers[key] = s
	return nil
}

// ListenBeside listens on a port, also if the host is made to answer on it at all its addresses.
func (h *Host) ListenBeside(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() (err error) {
		l, err = (&net.ListenConfig{Control: sharePort}).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// listenAddrs are the addresses to bind: all, unless the host shares its namespace.
func (h *Host) listenAddrs() []netip.Addr {
	if !h.sharesNamespace() {
		return []netip.Addr{proxy.IPv4.Any(), proxy.IPv6.Any()}
	}
	var addrs []netip.Addr
	for _, f := range proxy.Families {
		addrs = append(addrs, h.Addrs(f)...)
	}
	return addrs
}

// sharesNamespace tells whether the host is told from another by its address only. The crowd has
// too many addresses to name them.
func (h *Host) sharesNamespace() bool {
	return h.Namespace == h.lab.Remote.Namespace && h != h.lab.Crowd
}

// owns tells whether the host is the one to answer for an address that reached its namespace.
func (h *Host) owns(a netip.Addr) bool {
	return h != h.lab.Crowd || PrefixIn(proxy.FamilyOf(a), CrowdCIDR).Contains(a)
}

// listen starts one socket. It runs inside the host's namespace.
func (s *server) listen(h *Host, p proxy.Protocol, at netip.AddrPort) error {
	suffix := "4"
	if at.Addr().Is6() {
		suffix = "6"
	}
	config := net.ListenConfig{Control: sharePort}
	config.SetMultipathTCP(false)
	if p == proxy.TCP {
		l, err := config.Listen(context.Background(), "tcp"+suffix, at.String())
		if err != nil {
			return err
		}
		s.closers = append(s.closers, l)
		s.done.Go(func() { s.accept(h.Name, l) })
		return nil
	}
	network, address := "udp"+suffix, at.String()
	answer := answerUDP
	if p == proxy.SCTP {
		network, address = fmt.Sprintf("ip%s:%d", suffix, proxy.SCTP), at.Addr().String()
		answer = answerSCTP
	}
	raw, err := config.ListenPacket(context.Background(), network, address)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, raw)
	c, err := newPacketConn(raw, at.Addr().Is6())
	if err != nil {
		return err
	}
	s.done.Go(func() { h.answerPackets(at.Port(), c, answer) })
	return nil
}

// sharePort lets a socket for one address and a socket for all listen on the same port.
func sharePort(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, set)
}

func (s *server) close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.done.Wait()
	return errors.Join(errs...)
}

// accept answers every line of every connection until the listener is closed.
func (s *server) accept(name string, l net.Listener) {
	conns := &connSet{conns: map[net.Conn]bool{}}
	defer conns.close()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		conns.add(c)
		s.done.Go(func() {
			defer conns.remove(c)
			answerLines(name, c)
		})
	}
}

func answerLines(name string, c net.Conn) {
	backend, source := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if _, err := io.WriteString(c, identity(name, backend, source)); err != nil {
			return
		}
	}
}

// connSet holds the open connections of a listener. It is safe for concurrent use.
type connSet struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (s *connSet) add(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	_ = c.Close()
}

func (s *connSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// packetConn reads packets with their destination address and sends from a chosen address.
type packetConn interface {
	read(b []byte) (n int, dst netip.Addr, src net.Addr, err error)
	write(b []byte, from netip.Addr, to net.Addr) error
}

func newPacketConn(c net.PacketConn, six bool) (packetConn, error) {
	if six {
		p := ipv6.NewPacketConn(c)
		return packetConn6{p}, p.SetControlMessage(ipv6.FlagDst, true)
	}
	p := ipv4.NewPacketConn(c)
	return packetConn4{p}, p.SetControlMessage(ipv4.FlagDst, true)
}

type packetConn4 struct{ *ipv4.PacketConn }

func (c packetConn4) read(b []byte) (int, netip.Addr, net.Addr, error) {
	n, cm, src, err := c.ReadFrom(b)
	if err != nil || cm == nil {
		return n, netip.Addr{}, src, err
	}
	dst, _ := netip.AddrFromSlice(cm.Dst)
	return n, dst.Unmap(), src, nil
}

func (c packetConn4) write(b []byte, from netip.Addr, to net.Addr) error {
	_, err := c.WriteTo(b, &ipv4.ControlMessage{Src: from.AsSlice()}, to)
	return err
}

type packetConn6 struct{ *ipv6.PacketConn }

func (c packetConn6) read(b []byte) (int, netip.Addr, net.Addr, error) {
	n, cm, src, err := c.ReadFrom(b)
	if err != nil || cm == nil {
		return n, netip.Addr{}, src, err
	}
	dst, _ := netip.AddrFromSlice(cm.Dst)
	return n, dst, src, nil
}

func (c packetConn6) write(b []byte, from netip.Addr, to net.Addr) error {
	_, err := c.WriteTo(b, &ipv6.ControlMessage{Src: from.AsSlice()}, to)
	return err
}

// answerer makes the answer to a packet, nil if it deserves none. The addresses' ports are 0 where
// the socket does not know them.
type answerer func(name string, packet []byte, backend, source netip.AddrPort) []byte

func answerUDP(name string, _ []byte, backend, source netip.AddrPort) []byte {
	return []byte(identity(name, backend, source))
}

// answerPackets answers until the socket is closed.
func (h *Host) answerPackets(port uint16, c packetConn, answer answerer) {
	buf := make([]byte, 2048)
	for {
		n, dst, src, err := c.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !dst.IsValid() || !h.owns(dst) {
			continue
		}
		if reply := answer(h.Name, buf[:n], netip.AddrPortFrom(dst, port), addrPort(src)); reply != nil {
			// A client that is gone makes the next write or read fail; that is its own affair.
			_ = c.write(reply, dst, src)
		}
	}
}

// addrPort is the address of a socket, with port 0 for raw sockets.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return plain(a.AddrPort())
	case *net.UDPAddr:
		return plain(a.AddrPort())
	case *net.IPAddr:
		addr, _ := netip.AddrFromSlice(a.IP)
		return plain(netip.AddrPortFrom(addr, 0))
	}
	return netip.AddrPort{}
}
