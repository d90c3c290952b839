package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// socket is a non-blocking client socket that learns which ICMP error ended a connection.
// The net package hides that: to it a reset and a port unreachable are both "connection refused".
type socket struct {
	fd     int
	family proxy.Family
}

// openSocket opens a socket in the namespace of the calling thread.
func openSocket(f proxy.Family, kind, protocol int) (*socket, error) {
	domain, level, recvErr := unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR
	if f == proxy.IPv6 {
		domain, level, recvErr = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{fd: fd, family: f}
	err = errors.Join(
		unix.SetsockoptInt(fd, level, recvErr, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
	)
	if kind == unix.SOCK_STREAM {
		// Without a linger the end of a probe leaves neither TIME_WAIT nor a tracked connection.
		err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("set socket options: %w", err)
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// sockaddr is the address as the kernel takes it.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// bind binds to what is given of an address.
func (s *socket) bind(a netip.AddrPort) error {
	if !a.Addr().IsValid() {
		if a.Port() == 0 {
			return nil
		}
		a = netip.AddrPortFrom(s.family.Any(), a.Port())
	}
	if err := unix.Bind(s.fd, sockaddr(a)); err != nil {
		return fmt.Errorf("bind to %v: %w", a, err)
	}
	return nil
}

// local is the address that the socket is bound to.
func (s *socket) local() netip.AddrPort {
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// connect starts to connect.
func (s *socket) connect(to netip.AddrPort) error {
	err := unix.Connect(s.fd, sockaddr(to))
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

// send sends a packet. A packet that a firewall of the own namespace took is on its way all the
// same: what the firewall says about it comes later.
func (s *socket) send(b []byte) error {
	err := unix.Send(s.fd, b, unix.MSG_NOSIGNAL)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// wait waits until the socket can be read (or written) or has an error; false when time is up.
func (s *socket) wait(events int16, deadline time.Time) (bool, error) {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: events}}
		n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0, err
	}
}

// resent tells whether TCP had to send something more than once.
func (s *socket) resent() bool {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.Total_retrans > 0
}

// pendingError is the error that the kernel holds for the socket, nil if there is none.
func (s *socket) pendingError() error {
	errno, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// icmpError is an ICMP or ICMPv6 error for a packet that the socket sent.
type icmpError struct {
	family proxy.Family
	kind   byte
	code   byte
	errno  unix.Errno
	packet []byte // the start of that packet, for raw sockets
}

// Error is the message's type and code.
func (e *icmpError) Error() string {
	return fmt.Sprintf("%v ICMP type %d code %d: %v", e.family, e.kind, e.code, e.errno)
}

// portUnreachable tells whether the error is the one that REJECT sends.
func (e *icmpError) portUnreachable() bool {
	if e.family == proxy.IPv6 {
		return e.kind == 1 && e.code == 4
	}
	return e.kind == 3 && e.code == 3
}

// nextICMP is the oldest ICMP error that was not read yet, nil if there is none.
func (s *socket) nextICMP() *icmpError {
	for {
		buf, oob := make([]byte, 2048), make([]byte, 512)
		n, oobn, _, _, err := unix.Recvmsg(s.fd, buf, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return nil
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil
		}
		for _, m := range messages {
			if e := parseICMP(m); e != nil {
				e.packet = buf[:n]
				return e
			}
		}
	}
}

// parseICMP reads a sock_extended_err that stems from an ICMP message.
func parseICMP(m unix.SocketControlMessage) *icmpError {
	e := &icmpError{}
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR:
		e.family = proxy.IPv4
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR:
		e.family = proxy.IPv6
	default:
		return nil
	}
	if len(m.Data) < 16 || (m.Data[4] != unix.SO_EE_ORIGIN_ICMP && m.Data[4] != unix.SO_EE_ORIGIN_ICMP6) {
		return nil
	}
	e.errno = unix.Errno(binary.NativeEndian.Uint32(m.Data))
	e.kind, e.code = m.Data[5], m.Data[6]
	return e
}
