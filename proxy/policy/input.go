// Package policy decides what a node does for one Service: which endpoints are its backends, and
// what becomes of traffic from each class of sources. It is pure: no clock, no other Service, no
// Kubernetes type and no knowledge of modes.
package policy

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// Input is all that is known of one Service. It is immutable, as is what it points to.
type Input struct {
	Name    proxy.ServiceName
	Service *Service // nil: there is no such Service, or it is not ours to serve
	Slices  []*Slice // in no order that means anything
}

// Service is what policy reads of a Service object, both families together. Addresses are unmapped
// and have no zone, prefixes are masked; entries that could not be parsed are left out.
type Service struct {
	Created  time.Time // decides between Services that claim the same frontend: the oldest wins
	Priority bool      // see proxy.ServicePort

	Ports      []Port
	ClusterIPs [2]netip.Addr // by proxy.Family; invalid: none. Without one a family serves nothing.

	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // status.loadBalancer.ingress with ipMode VIP or none
	SourceRanges    []netip.Prefix

	ExternalLocal bool // externalTrafficPolicy Local, where it applies
	InternalLocal bool // internalTrafficPolicy Local

	Affinity            time.Duration // 0: none
	Scheduler           string        // empty: none in particular
	HealthCheckNodePort uint16        // 0: none
}

// Port is one port of a Service.
type Port struct {
	Name     string
	Protocol proxy.Protocol
	Port     uint16
	NodePort uint16 // 0: none
}

// Slice is what policy reads of an EndpointSlice.
type Slice struct {
	Family    proxy.Family
	Ports     []SlicePort
	Endpoints []Endpoint
}

// SlicePort is a port that every endpoint of a slice listens on.
type SlicePort struct {
	Name     string
	Protocol proxy.Protocol
	Port     uint16
}

// Endpoint is one address of a slice with its conditions resolved (a nil ready or serving is true,
// a nil terminating is false).
type Endpoint struct {
	Addr        netip.Addr
	NodeName    string // empty: unknown
	Ready       bool
	Serving     bool
	Terminating bool
	Zones       []string // hints.forZones; empty: no hint
	Nodes       []string // hints.forNodes; empty: no hint
}
