package record

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// inputLine is all that is known of a Service.
type inputLine struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Service   *serviceLine `json:"service"`
	Slices    []sliceLine  `json:"slices"`
}

type serviceLine struct {
	Created             time.Time         `json:"created"`
	Priority            bool              `json:"priority,omitempty"`
	Ports               []servicePortLine `json:"ports"`
	ClusterIPs          [2]netip.Addr     `json:"clusterIPs"` // of IPv4 and IPv6
	ExternalIPs         []netip.Addr      `json:"externalIPs"`
	LoadBalancerIPs     []netip.Addr      `json:"loadBalancerIPs"`
	SourceRanges        []netip.Prefix    `json:"sourceRanges"`
	ExternalLocal       bool              `json:"externalLocal,omitempty"`
	InternalLocal       bool              `json:"internalLocal,omitempty"`
	Affinity            time.Duration     `json:"affinityNanoseconds,omitempty"`
	Scheduler           string            `json:"scheduler,omitempty"`
	HealthCheckNodePort uint16            `json:"healthCheckNodePort,omitempty"`
}

type servicePortLine struct {
	slicePortLine
	NodePort uint16 `json:"nodePort,omitempty"`
}

type sliceLine struct {
	Family    string          `json:"family"`
	Ports     []slicePortLine `json:"ports"`
	Endpoints []endpointLine  `json:"endpoints"`
}

type slicePortLine struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

type endpointLine struct {
	Addr        netip.Addr `json:"address"`
	NodeName    string     `json:"node,omitempty"`
	Ready       bool       `json:"ready"`
	Serving     bool       `json:"serving"`
	Terminating bool       `json:"terminating,omitempty"`
	Zones       []string   `json:"zones"`
	Nodes       []string   `json:"nodes"`
}

func inputLineOf(in policy.Input) *inputLine {
	l := &inputLine{Namespace: in.Name.Namespace, Name: in.Name.Name, Slices: each(in.Slices, sliceLineOf)}
	if s := in.Service; s != nil {
		l.Service = &serviceLine{
			Created: s.Created, Priority: s.Priority, ClusterIPs: s.ClusterIPs, ExternalIPs: s.ExternalIPs, LoadBalancerIPs: s.LoadBalancerIPs,
			SourceRanges: s.SourceRanges, ExternalLocal: s.ExternalLocal, InternalLocal: s.InternalLocal,
			Affinity: s.Affinity, Scheduler: s.Scheduler, HealthCheckNodePort: s.HealthCheckNodePort,
			Ports: each(s.Ports, func(p policy.Port) servicePortLine {
				return servicePortLine{slicePortLine{p.Name, p.Protocol.String(), p.Port}, p.NodePort}
			}),
		}
	}
	return l
}

func sliceLineOf(s *policy.Slice) sliceLine {
	return sliceLine{
		Family:    s.Family.String(),
		Ports:     each(s.Ports, func(p policy.SlicePort) slicePortLine { return slicePortLine{p.Name, p.Protocol.String(), p.Port} }),
		Endpoints: each(s.Endpoints, func(e policy.Endpoint) endpointLine { return endpointLine(e) }),
	}
}

func (l *inputLine) input() (policy.Input, error) {
	in := policy.Input{Name: proxy.ServiceName{Namespace: l.Namespace, Name: l.Name}}
	var err error
	note := func(wrong error) {
		if wrong != nil {
			err = wrong
		}
	}
	in.Slices = each(l.Slices, func(s sliceLine) *policy.Slice {
		slice, wrong := s.slice()
		note(wrong)
		return slice
	})
	if s := l.Service; s != nil {
		in.Service = &policy.Service{
			Created: s.Created, Priority: s.Priority, ClusterIPs: s.ClusterIPs, ExternalIPs: s.ExternalIPs, LoadBalancerIPs: s.LoadBalancerIPs,
			SourceRanges: s.SourceRanges, ExternalLocal: s.ExternalLocal, InternalLocal: s.InternalLocal,
			Affinity: s.Affinity, Scheduler: s.Scheduler, HealthCheckNodePort: s.HealthCheckNodePort,
			Ports: each(s.Ports, func(p servicePortLine) policy.Port {
				protocol, wrong := parse(protocols, p.Protocol)
				note(wrong)
				return policy.Port{Name: p.Name, Protocol: protocol, Port: p.Port, NodePort: p.NodePort}
			}),
		}
	}
	return in, err
}

func (l sliceLine) slice() (*policy.Slice, error) {
	family, err := parse(proxy.Families[:], l.Family)
	return &policy.Slice{
		Family: family,
		Ports: each(l.Ports, func(p slicePortLine) policy.SlicePort {
			protocol, wrong := parse(protocols, p.Protocol)
			if wrong != nil {
				err = wrong
			}
			return policy.SlicePort{Name: p.Name, Protocol: protocol, Port: p.Port}
		}),
		Endpoints: each(l.Endpoints, func(e endpointLine) policy.Endpoint { return policy.Endpoint(e) }),
	}, err
}
