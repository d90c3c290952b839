package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// These are no protocols of Services. A probe with ICMP is an echo request, in both families. One
// with InvalidTCP is a lone TCP packet that connection tracking calls INVALID; the host that it
// reaches resets it.
const (
	ICMP       proxy.Protocol = 1
	InvalidTCP proxy.Protocol = 255
)

// Probe is a connection to try.
type Probe struct {
	To       netip.AddrPort // for ICMP the port means nothing
	Protocol proxy.Protocol

	// From binds the client's end. An invalid address or a port of 0 leave the choice to the kernel.
	From netip.AddrPort

	// Timeout is how long to wait before the outcome is Silence.
	Timeout time.Duration

	// Resend is how long to wait before a UDP datagram without an answer is sent again from the same socket, as
	// resolvers do and TCP does by itself. Zero is never.
	Resend time.Duration
}

// Result says how a probe ended.
type Result uint8

// The results.
const (
	Silence     Result = iota // nothing came back
	Answered                  // by a server, or for ICMP by whoever echoed
	Refused                   // by an ICMP port unreachable
	Reset                     // by a TCP reset: the packet reached a host where nobody listens
	Unreachable               // by another ICMP error, or for want of a route
	Broken                    // the probe itself could not be made
)

// String is the result in a word.
func (r Result) String() string {
	return [...]string{"silence", "answered", "refused", "reset", "unreachable", "broken"}[r]
}

// Outcome is what became of a probe.
type Outcome struct {
	Result Result

	// What the server said, when Answered: its name, the address that it was reached at, and the
	// client's address as it saw it.
	Server  string
	Backend netip.AddrPort
	Source  netip.AddrPort

	// Client is the client's own idea of its address, when Answered. A Source that differs was
	// translated.
	Client netip.AddrPort

	// Resent says, when a new connection was Answered, that a packet of the client's had to be sent more than once.
	Resent bool

	Err error // the error that the client got, if any
}

// String is the outcome as a test shows it.
func (o Outcome) String() string {
	switch {
	case o.Result == Answered:
		return fmt.Sprintf("answered by %s at %v, which saw %v", o.Server, o.Backend, o.Source)
	case o.Err != nil:
		return fmt.Sprintf("%v (%v)", o.Result, o.Err)
	}
	return o.Result.String()
}

// identity is what a server says about a connection.
func identity(server string, backend, source netip.AddrPort) string {
	return fmt.Sprintf("%s %v %v\n", server, plain(backend), plain(source))
}

// parseIdentity reads what identity wrote.
func parseIdentity(text string) Outcome {
	var server, backend, source string
	if _, err := fmt.Sscan(text, &server, &backend, &source); err != nil {
		return Outcome{Result: Broken, Err: fmt.Errorf("parse identity %q: %w", text, err)}
	}
	o := Outcome{Result: Answered, Server: server}
	var err error
	if o.Backend, err = netip.ParseAddrPort(backend); err != nil {
		return Outcome{Result: Broken, Err: err}
	}
	if o.Source, err = netip.ParseAddrPort(source); err != nil {
		return Outcome{Result: Broken, Err: err}
	}
	return o
}

// plain is an address as the rest of the program writes it: not IPv4 in IPv6, without a zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
