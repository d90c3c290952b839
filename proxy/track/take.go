package track

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// Batch is what changed between two Takes.
type Batch struct {
	// Inputs has every Service that changed, sorted by name.
	Inputs []policy.Input

	// Triggers are the moments at which the endpoints changed in the cluster, one for each changed
	// EndpointSlice whose controller noted it; sorted.
	Triggers []time.Time
}

// Take hands out what changed since the last Take.
func (t *Tracker) Take() Batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	var batch Batch
	for name := range t.changed() {
		batch.Inputs = append(batch.Inputs, t.input(name))
		batch.Triggers = append(batch.Triggers, t.triggers[name]...)
	}
	slices.SortFunc(batch.Inputs, func(a, b policy.Input) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(batch.Triggers, time.Time.Compare)
	clear(t.servicesBefore)
	clear(t.slicesBefore)
	clear(t.triggers)
	return batch
}

// Input is all that is known of a Service now. It may be newer than what Take handed out.
func (t *Tracker) Input(name proxy.ServiceName) policy.Input {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.input(name)
}

// changed is the set of the Services whose input differs from the last Take.
func (t *Tracker) changed() map[proxy.ServiceName]bool {
	names := make(map[proxy.ServiceName]bool, len(t.servicesBefore))
	for name := range t.servicesBefore {
		names[name] = true
	}
	for key, before := range t.slicesBefore {
		for _, name := range []proxy.ServiceName{before.service, t.stateOf(key).service} {
			if t.served(name) {
				names[name] = true
			}
		}
	}
	return names
}

// input is all that is known of a Service. Nothing is said of the slices of a Service that is not there.
func (t *Tracker) input(name proxy.ServiceName) policy.Input {
	in := policy.Input{Name: name}
	s := t.services[name]
	if s == nil || s.value == nil {
		return in
	}
	in.Service = s.value
	in.Slices = make([]*policy.Slice, len(s.slices))
	for i, sl := range s.slices {
		in.Slices[i] = sl.value
	}
	return in
}

func compareNames(a, b proxy.ServiceName) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
