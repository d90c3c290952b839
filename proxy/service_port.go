package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ServiceName identifies a Service object.
type ServiceName struct {
	Namespace, Name string
}

// String is "namespace/name".
func (n ServiceName) String() string { return n.Namespace + "/" + n.Name }

// ServicePortName identifies one port of one Service. Two ports of a Service that differ only in
// protocol are different ServicePorts.
type ServicePortName struct {
	Namespace, Name string
	Port            string // the port's name; empty when the Service has a single unnamed port
	Protocol        Protocol
}

// Service is the name of the Service that the port belongs to.
func (n ServicePortName) Service() ServiceName { return ServiceName{n.Namespace, n.Name} }

// String is "namespace/name:port", or "namespace/name" for an unnamed port. The protocol is not
// part of it, as in kube-proxy's rule comments.
func (n ServicePortName) String() string {
	if n.Port == "" {
		return n.Namespace + "/" + n.Name
	}
	return n.Namespace + "/" + n.Name + ":" + n.Port
}

// Compare orders names by namespace, name, port, protocol.
func (n ServicePortName) Compare(o ServicePortName) int {
	return cmp.Or(
		strings.Compare(n.Namespace, o.Namespace),
		strings.Compare(n.Name, o.Name),
		strings.Compare(n.Port, o.Port),
		cmp.Compare(n.Protocol, o.Protocol),
	)
}

// ServicePort is all that this node does for one port of one Service in one IP family.
// It is immutable once a Snapshot holds it.
type ServicePort struct {
	Name ServicePortName

	// Priority marks the services without which nothing else can start (the API server, DNS):
	// a cold start serves them first.
	Priority bool

	// Frontends is sorted by Kind, then Addr, and names no (address, port) twice.
	Frontends []Frontend

	// Cluster and Local are the pools that Routes name: sorted by Addr, without duplicates,
	// nil when no Route uses the pool.
	Cluster []Backend
	Local   []Backend

	// Affinity is how long a client keeps its backend after its latest new connection
	// (ClientIP session affinity); 0 is no affinity.
	Affinity time.Duration

	// Scheduler is how a backend is chosen, in the words of IPVS, for a mode that has a choice; empty is as the mode does.
	Scheduler string

	// Keep lists, sorted, the serving endpoints of a UDP port, whatever the pools are: flows to
	// them live on, flows from a frontend to anything else are stale. Nil for other protocols.
	Keep []netip.AddrPort

	// HealthCheckNodePort, when not 0, is where load balancers ask whether this node has
	// local endpoints; LocalReady are the distinct addresses of local ready endpoints, sorted.
	HealthCheckNodePort uint16
	LocalReady          []netip.Addr
}

// Equal tells whether two ServicePorts mean the same.
func (s *ServicePort) Equal(o *ServicePort) bool {
	if s == o {
		return true
	}
	return s != nil && o != nil &&
		s.Name == o.Name &&
		s.Priority == o.Priority &&
		s.Affinity == o.Affinity &&
		s.Scheduler == o.Scheduler &&
		s.HealthCheckNodePort == o.HealthCheckNodePort &&
		slices.EqualFunc(s.Frontends, o.Frontends, Frontend.Equal) &&
		slices.Equal(s.Cluster, o.Cluster) &&
		slices.Equal(s.Local, o.Local) &&
		slices.Equal(s.Keep, o.Keep) &&
		slices.Equal(s.LocalReady, o.LocalReady)
}

// Backends is the pool that p names.
func (s *ServicePort) Backends(p Pool) []Backend {
	if p == LocalPool {
		return s.Local
	}
	return s.Cluster
}

// FrontendKind says where a frontend's address comes from.
type FrontendKind uint8

// The kinds of frontends, in the order in which they claim an address within one Service: a
// load-balancer address carries source ranges, so it wins over an equal external IP.
const (
	ClusterIP FrontendKind = iota
	LoadBalancerIP
	ExternalIP
	NodePort
)

// String is the kind's name as it appears in comments and logs.
func (k FrontendKind) String() string {
	return [...]string{"cluster IP", "load balancer IP", "external IP", "node port"}[k]
}

// Frontend is an address and port that the node answers on for a ServicePort.
type Frontend struct {
	Kind FrontendKind

	// Addr is what clients send to. A NodePort's address is Family.Any; Node.NodePorts says
	// which of the node's addresses serve it.
	Addr netip.AddrPort

	// Routes says what becomes of a new connection, by class of its source.
	Routes Routes

	// Allowed are the sources that may use the frontend (loadBalancerSourceRanges), sorted, masked
	// and none within another; all others are dropped, whatever Routes says. Nil is everyone.
	Allowed []netip.Prefix
}

// Equal tells whether two frontends mean the same.
func (f Frontend) Equal(o Frontend) bool {
	return f.Kind == o.Kind && f.Addr == o.Addr && f.Routes == o.Routes && slices.Equal(f.Allowed, o.Allowed)
}

// FrontendKey is what only one ServicePort of a family can own.
type FrontendKey struct {
	Addr     netip.AddrPort
	Protocol Protocol
}

// Source is a class of packet sources. A packet belongs to the first class that fits: a process
// in the host network whose address lies in the pod range counts as a pod.
type Source uint8

// The classes of sources. When a node cannot tell pods apart (PodSource None), nothing is
// FromPod, and a policy gives FromPod the same Route as FromOutside.
const (
	FromPod     Source = iota // Node.PodSource says so
	FromNode                  // the source address is one of the node's own
	FromOutside               // everything else
	NumSources
)

// String is "pod", "node" or "outside".
func (s Source) String() string { return [...]string{"pod", "node", "outside"}[s] }

// Routes is indexed by Source.
type Routes [NumSources]Route

// Every is a table that treats all sources alike.
func Every(r Route) Routes { return Routes{r, r, r} }

// Serves tells whether any source is forwarded.
func (r Routes) Serves() bool {
	return slices.ContainsFunc(r[:], func(x Route) bool { return x.Verdict == Forward })
}

// Refuses tells whether any source is rejected or dropped.
func (r Routes) Refuses() bool {
	return slices.ContainsFunc(r[:], func(x Route) bool { return x.Verdict != Forward })
}

// Uses tells whether any source is forwarded to the pool.
func (r Routes) Uses(p Pool) bool {
	return slices.ContainsFunc(r[:], func(x Route) bool { return x.Verdict == Forward && x.Pool == p })
}

// Route is what becomes of a new connection. Pool and Masquerade are zero unless Verdict is Forward.
// A connection of a backend to itself (hairpin) is masqueraded whatever Masquerade says.
type Route struct {
	Verdict    Verdict
	Pool       Pool
	Masquerade bool // the backend sees an address of this node as the client
}

// Verdict is the fate of a new connection. Established ones are never refused.
type Verdict uint8

// The verdicts. The zero value refuses.
const (
	Reject  Verdict = iota // ICMP port unreachable: nobody serves this anywhere
	Drop                   // silence: others may serve it, this node must not
	Forward                // to a backend of the Route's pool
)

// String is "reject", "drop" or "forward".
func (v Verdict) String() string { return [...]string{"reject", "drop", "forward"}[v] }

// Pool names one of a ServicePort's two lists of backends.
type Pool uint8

// The pools.
const (
	ClusterPool Pool = iota // all usable backends, as topology hints select them
	LocalPool               // those on this node
)

// String is "cluster" or "local".
func (p Pool) String() string { return [...]string{"cluster", "local"}[p] }

// Backend is an endpoint chosen for this node.
type Backend struct {
	Addr netip.AddrPort

	// Local says that the endpoint runs on this node, or may (its slice names no node), so that it
	// may be its own client. The pools do not depend on it.
	Local bool
}

// Compare orders backends by address, then port.
func (b Backend) Compare(o Backend) int { return b.Addr.Compare(o.Addr) }
