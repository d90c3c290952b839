package proxytest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

// Neighbour is another proxy on the node under test that serves the same objects. A mode must pass the scenarios whatever the
// neighbour has in the kernel.
type Neighbour interface {
	// Serve returns when the neighbour's rules are those for a state, and no other.
	Serve(ctx context.Context, s State) error
}

// State is all that a proxy is told. It is in one family, as the scenarios' objects are.
type State struct {
	Family   proxy.Family
	Config   Node
	Node     *corev1.Node
	Services []*corev1.Service
	Slices   []*discoveryv1.EndpointSlice
}

// neighbourFollows has the neighbour serve the objects of the scenario, if there is one.
func (s *stage) neighbourFollows(step string) {
	s.t.Helper()
	if s.neighbour == nil {
		return
	}
	state := State{Family: s.family, Config: s.scenario.Node, Node: s.scenario.Node.object(s.family)}
	state.Config.NodePortAddresses = textsIn(s.family, state.Config.NodePortAddresses)
	for _, o := range s.objects {
		switch o := o.(type) {
		case *corev1.Service:
			state.Services = append(state.Services, serviceIn(s.family, o))
		case *discoveryv1.EndpointSlice:
			state.Slices = append(state.Slices, endpointSliceIn(s.family, o))
		}
	}
	s.must(step+": neighbour", s.neighbour.Serve(s.t.Context(), state))
}
