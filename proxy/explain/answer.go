package explain

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// Fate is what becomes of a packet.
type Fate uint8

// The fates. The zero value is that of a packet that is no Service's business: it goes on as if there were no proxy.
const (
	Ignored Fate = iota
	Rejected
	Dropped
	Forwarded
)

// String is one word.
func (f Fate) String() string { return [...]string{"ignored", "rejected", "dropped", "forwarded"}[f] }

// Answer is what becomes of a packet, and why.
type Answer struct {
	Packet Packet

	Source    proxy.Source
	SourceWhy string

	// Frontend is what the packet is sent to, of Port; both are nil if it is no frontend.
	Frontend *proxy.Frontend
	Port     *proxy.ServicePort

	Fate Fate
	Why  string // of the fate

	// Pool is where backends are looked for. Candidates are all endpoints of the Service, if the endpoints decide and are known,
	// whether they are backends or not.
	Pool       proxy.Pool
	Candidates []policy.Candidate

	// What follows is set if Fate is Forwarded.

	MasqueradeWhy string // of all backends but those that are the client itself
	Backends      []Backend
	Affinity      time.Duration // how long a client keeps its backend; 0: for one connection only

	// Kernel is what implements that in the kernel, nil if nobody looked.
	Kernel *Kernel
}

// Backend is where a packet may go.
type Backend struct {
	Addr       netip.AddrPort
	Masquerade bool // it sees an address of the node as the client
	Hairpin    bool // it is the client itself
	Stays      bool // the packet does not leave the node, and is not masqueraded: the backend has an address of the node
}
