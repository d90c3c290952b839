package proxytest

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// serve makes every pod answer on the ports of a slice, whichever the slice names, so that a packet that
// goes astray is seen; the node, too, if it is an endpoint; and the node and the world on the ports of a Service, so that one that
// is not translated is.
func (s *stage) serve(o runtime.Object) error {
	switch o := o.(type) {
	case *corev1.Service:
		for _, p := range o.Spec.Ports {
			for _, number := range []int32{p.Port, p.NodePort, o.Spec.HealthCheckNodePort} {
				if err := serveOn(protocolOf(p.Protocol), number, s.lab.Node, s.lab.World); err != nil {
					return err
				}
			}
		}
	case *discoveryv1.EndpointSlice:
		pods := slices.Concat(s.lab.Pods, s.lab.RemotePods, []*lab.Host{s.lab.Crowd})
		if slices.ContainsFunc(o.Endpoints, isNode) {
			pods = append(pods, s.lab.Node)
		}
		for _, p := range o.Ports {
			if p.Port != nil && p.Protocol != nil {
				if err := serveOn(protocolOf(*p.Protocol), *p.Port, pods...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func isNode(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, lab.NodeIP.String()) }

func protocolOf(p corev1.Protocol) proxy.Protocol {
	for protocol, api := range apiProtocols {
		if api == p {
			return protocol
		}
	}
	return proxy.TCP
}

func serveOn(p proxy.Protocol, number int32, hosts ...*lab.Host) error {
	if number == 0 {
		return nil
	}
	for _, h := range hosts {
		if err := h.Serve(p, uint16(number)); err != nil {
			return err
		}
	}
	return nil
}
