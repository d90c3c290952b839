package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Equal tells whether two Services mean the same. Lists must be in the same order.
func (s *Service) Equal(o *Service) bool {
	if s == o {
		return true
	}
	return s != nil && o != nil &&
		s.Created.Equal(o.Created) &&
		s.Priority == o.Priority &&
		slices.Equal(s.Ports, o.Ports) &&
		s.ClusterIPs == o.ClusterIPs &&
		slices.Equal(s.ExternalIPs, o.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, o.LoadBalancerIPs) &&
		slices.Equal(s.SourceRanges, o.SourceRanges) &&
		s.ExternalLocal == o.ExternalLocal &&
		s.InternalLocal == o.InternalLocal &&
		s.Affinity == o.Affinity &&
		s.Scheduler == o.Scheduler &&
		s.HealthCheckNodePort == o.HealthCheckNodePort
}

// Equal tells whether two slices mean the same. Lists must be in the same order.
func (s *Slice) Equal(o *Slice) bool {
	if s == o {
		return true
	}
	return s != nil && o != nil &&
		s.Family == o.Family &&
		slices.Equal(s.Ports, o.Ports) &&
		slices.EqualFunc(s.Endpoints, o.Endpoints, func(a, b Endpoint) bool { return a.Compare(&b) == 0 })
}

// Compare orders endpoints by address, and those of one address by whom to believe when they
// contradict each other: an endpoint that terminates gives way to one that does not, since its
// address may belong to a new pod already; then a ready one comes first, then a serving one. What
// remains is an arbitrary but stable order of the content.
func (e *Endpoint) Compare(o *Endpoint) int {
	if c := e.Addr.Compare(o.Addr); c != 0 {
		return c
	}
	return cmp.Or(
		first(!e.Terminating, !o.Terminating),
		first(e.Ready, o.Ready),
		first(e.Serving, o.Serving),
		-strings.Compare(e.NodeName, o.NodeName),
		slices.Compare(e.Zones, o.Zones),
		slices.Compare(e.Nodes, o.Nodes),
	)
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (e *Endpoint) ready() bool { return e.Ready }

// draining tells whether the endpoint, though it is on its way out, may serve where nothing is ready.
func (e *Endpoint) draining() bool { return e.Serving && e.Terminating }

// on tells whether the endpoint is known to run on the node.
func (e *Endpoint) on(node *proxy.Node) bool { return e.NodeName != "" && e.NodeName == node.Name }
