package track

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// slice is what the policy reads of the object; nil if it belongs to no Service that could use it.
func (r *reader) slice(obj *discoveryv1.EndpointSlice) (*policy.Slice, complaints) {
	found := complaints{logger: r.logger}
	if _, headless := obj.Labels[corev1.IsHeadlessService]; headless {
		return nil, found
	}
	owner := obj.Labels[discoveryv1.LabelServiceName]
	if owner == "" {
		found.add("it has no label %s", discoveryv1.LabelServiceName)
		return nil, found
	}
	if !isLabel(obj.Namespace) || !isLabel(owner) || len(validation.IsDNS1123Subdomain(obj.Name)) > 0 {
		found.add("its name or that of its Service is not valid")
		return nil, found
	}
	family, ok := familyOf(obj.AddressType)
	if !ok {
		found.add("its addresses are of type %.64q", obj.AddressType)
		return nil, found
	}
	return &policy.Slice{
		Family:    family,
		Ports:     r.slicePorts(obj.Ports, &found),
		Endpoints: r.endpoints(obj.Endpoints, family, &found),
	}, found
}

func familyOf(t discoveryv1.AddressType) (proxy.Family, bool) {
	switch t {
	case discoveryv1.AddressTypeIPv4:
		return proxy.IPv4, true
	case discoveryv1.AddressTypeIPv6:
		return proxy.IPv6, true
	}
	return 0, false
}

// slicePorts is sorted, so that the order in the object does not matter.
func (r *reader) slicePorts(ports []discoveryv1.EndpointPort, found *complaints) []policy.SlicePort {
	list := make([]policy.SlicePort, 0, len(ports))
	for i := range ports {
		p := &ports[i]
		if p.Name == nil || p.Port == nil {
			found.add("a port has no name or no number")
			continue
		}
		protocol, known := protocolOf(deref(p.Protocol, ""))
		if !known || !isPort(*p.Port) {
			found.add("port %.64q has the number %d and the protocol %.64q", *p.Name, *p.Port, deref(p.Protocol, ""))
			continue
		}
		list = append(list, policy.SlicePort{Name: r.names.string(*p.Name), Protocol: protocol, Port: uint16(*p.Port)})
	}
	slices.SortFunc(list, func(a, b policy.SlicePort) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return slices.Clip(slices.Compact(list))
}

// endpoints is sorted, so that the order in the object does not matter.
func (r *reader) endpoints(endpoints []discoveryv1.Endpoint, family proxy.Family, found *complaints) []policy.Endpoint {
	list := make([]policy.Endpoint, 0, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		if len(e.Addresses) == 0 {
			found.add("an endpoint has no address")
			continue
		}
		addr, ok := found.address("endpoint", e.Addresses[0], func(a netip.Addr) bool {
			return isEndpointAddr(a) && family.Has(a)
		})
		if ok {
			list = append(list, r.endpoint(e, addr))
		}
	}
	slices.SortFunc(list, func(a, b policy.Endpoint) int { return a.Compare(&b) })
	return slices.Clip(list)
}

// isEndpointAddr tells whether traffic may be sent to a: not if it would arrive at the node's own
// loopback or link-local services.
func isEndpointAddr(a netip.Addr) bool {
	return isServiceAddr(a) && !a.IsLinkLocalUnicast()
}

func (r *reader) endpoint(e *discoveryv1.Endpoint, addr netip.Addr) policy.Endpoint {
	endpoint := policy.Endpoint{
		Addr:        addr,
		NodeName:    r.names.string(deref(e.NodeName, "")),
		Ready:       deref(e.Conditions.Ready, true),
		Serving:     deref(e.Conditions.Serving, true),
		Terminating: deref(e.Conditions.Terminating, false),
	}
	if e.Hints != nil {
		endpoint.Zones = r.names.set(names(e.Hints.ForZones, func(z discoveryv1.ForZone) string { return z.Name }))
		endpoint.Nodes = r.names.set(names(e.Hints.ForNodes, func(n discoveryv1.ForNode) string { return n.Name }))
	}
	return endpoint
}

func names[T any](list []T, name func(T) string) []string {
	result := make([]string, len(list))
	for i, item := range list {
		result[i] = name(item)
	}
	return result
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
