// Package track turns the events of Services and EndpointSlices into inputs of the policy. However
// many events a Service sees, at most one input for it is pending, and none if they changed nothing
// that the policy reads. It keeps no API object.
package track

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// Config is how a Tracker reads objects. The zero value is usable.
type Config struct {
	// ExternalIPs honours spec.externalIPs (the feature gate AllowServiceExternalIPs).
	ExternalIPs bool

	// Priority names Services that a cold start serves first, besides those that always are.
	Priority []proxy.ServiceName

	// Started is when the process started: triggers from before are not reported, because the time
	// until then is not the proxy's. Zero is the time of New.
	Started time.Time

	// Logger gets a line whenever an object starts to have parts that cannot be used. The zero value
	// is the global logger.
	Logger klog.Logger
}

// Tracker collects what changed since it was last asked. It is safe for concurrent use.
type Tracker struct {
	reader reader
	wake   chan struct{}

	mu       sync.Mutex
	services map[proxy.ServiceName]*service
	slices   map[sliceName]*slice

	// What differs from the last Take, with its value then.
	servicesBefore map[proxy.ServiceName]*policy.Service
	slicesBefore   map[sliceName]sliceState

	triggers                   map[proxy.ServiceName][]time.Time
	serviceEvents, sliceEvents uint64
}

// New makes a Tracker that knows no object.
func New(cfg Config) *Tracker {
	return &Tracker{
		reader:         newReader(cfg),
		wake:           make(chan struct{}, 1),
		services:       map[proxy.ServiceName]*service{},
		slices:         map[sliceName]*slice{},
		servicesBefore: map[proxy.ServiceName]*policy.Service{},
		slicesBefore:   map[sliceName]sliceState{},
		triggers:       map[proxy.ServiceName][]time.Time{},
	}
}

// Inputs is what a Tracker hands out after it has seen the given objects.
func Inputs(cfg Config, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) []policy.Input {
	t := New(cfg)
	for _, s := range services {
		t.SetService(s)
	}
	for _, s := range slices {
		t.SetEndpointSlice(s)
	}
	return t.Take().Inputs
}

// Pending receives when something has changed since the last Take. What it announces may be undone
// again before that Take, which is empty then.
func (t *Tracker) Pending() <-chan struct{} { return t.wake }

// Stats counts events and what is pending.
type Stats struct {
	// ServiceEvents and EndpointSliceEvents count all events since the start, those without effect
	// included, but not those of EndpointSlices of an unknown kind or of no Service.
	ServiceEvents, EndpointSliceEvents uint64

	// ServicesPending and EndpointsPending count the Services and the EndpointSlices that differ from
	// the last Take.
	ServicesPending, EndpointsPending int
}

// Stats is the present state of the counters.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		ServiceEvents:       t.serviceEvents,
		EndpointSliceEvents: t.sliceEvents,
		ServicesPending:     len(t.servicesBefore),
		EndpointsPending:    len(t.slicesBefore),
	}
}

func (t *Tracker) notify() {
	select {
	case t.wake <- struct{}{}:
	default: // the earlier token stands for this change too
	}
}
