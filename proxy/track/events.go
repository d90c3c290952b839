package track

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// service is what is known under a Service's name. It exists as long as any of its fields says
// something.
type service struct {
	name       proxy.ServiceName
	value      *policy.Service // nil: no such Service, or not ours to serve
	complaints string          // as logged last
	slices     []*slice        // sorted by name
}

// slice is an EndpointSlice that can be used, or that has been complained of.
type slice struct {
	name       sliceName
	service    *service // nil if value is
	value      *policy.Slice
	complaints string // as logged last
}

type sliceName struct {
	namespace, name string
}

// sliceState is what an input depends on. The zero value is a slice that does not exist.
type sliceState struct {
	service proxy.ServiceName
	value   *policy.Slice
}

// SetService notes that the Service was added or updated.
func (t *Tracker) SetService(obj *corev1.Service) {
	if obj == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serviceEvents++
	name := proxy.ServiceName{Namespace: obj.Namespace, Name: obj.Name}
	value, found := t.reader.service(obj)
	t.setService(name, value, found.log("Service", obj, t.complaintsOf(name)))
}

// DeleteService notes that the Service is gone.
func (t *Tracker) DeleteService(name proxy.ServiceName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serviceEvents++
	t.setService(name, nil, "")
}

// SetEndpointSlice notes that the EndpointSlice was added or updated.
func (t *Tracker) SetEndpointSlice(obj *discoveryv1.EndpointSlice) {
	if obj == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := sliceName{obj.Namespace, obj.Name}
	value, found := t.reader.slice(obj)
	logged := found.log("EndpointSlice", obj, t.sliceComplaintsOf(key))
	if value == nil {
		t.dropSlice(key, logged)
		return
	}
	t.sliceEvents++
	owner := proxy.ServiceName{Namespace: obj.Namespace, Name: obj.Labels[discoveryv1.LabelServiceName]}
	if t.setSlice(key, owner, value, logged) {
		t.addTrigger(owner, t.reader.trigger(obj))
	}
}

// DeleteEndpointSlice notes that the EndpointSlice is gone.
func (t *Tracker) DeleteEndpointSlice(namespace, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := sliceName{namespace, name}
	if s := t.slices[key]; s != nil && s.value != nil {
		t.sliceEvents++
	}
	t.dropSlice(key, "")
}

func (t *Tracker) setService(name proxy.ServiceName, value *policy.Service, complaints string) {
	s := t.serviceOf(name)
	s.complaints = complaints
	defer t.forgetEmpty(s)
	if value.Equal(s.value) {
		return
	}
	before, marked := t.servicesBefore[name]
	switch {
	case !marked:
		t.servicesBefore[name] = s.value
	case value.Equal(before):
		value = before
		delete(t.servicesBefore, name)
	}
	s.value = value
	t.notify()
}

// setSlice tells whether the slice has changed.
func (t *Tracker) setSlice(key sliceName, owner proxy.ServiceName, value *policy.Slice, complaints string) bool {
	was := t.slices[key]
	if was != nil && was.service != nil && was.service.name == owner && was.value.Equal(value) {
		was.complaints = complaints
		return false
	}
	before := t.stateOf(key)
	t.unlink(key)
	s := &slice{name: key, service: t.serviceOf(owner), value: value, complaints: complaints}
	t.slices[key] = s
	i, _ := s.service.find(key)
	s.service.slices = slices.Insert(s.service.slices, i, s)
	t.noteSlice(s, before)
	return true
}

// dropSlice forgets the slice, but for what has been complained of.
func (t *Tracker) dropSlice(key sliceName, complaints string) {
	before := t.stateOf(key)
	t.unlink(key)
	if complaints != "" {
		t.slices[key] = &slice{name: key, complaints: complaints}
	}
	if before.value != nil {
		delete(t.triggers, before.service)
		t.noteSlice(&slice{name: key}, before)
	}
}

// noteSlice makes the new state of a slice pending, unless it is that of the last Take again or
// concerns no Service.
func (t *Tracker) noteSlice(now *slice, was sliceState) {
	state := now.state()
	if !t.matters(state.service) && !t.matters(was.service) {
		return
	}
	before, marked := t.slicesBefore[now.name]
	switch {
	case !marked:
		t.slicesBefore[now.name] = was
	case before.service == state.service && before.value.Equal(state.value):
		now.value = before.value
		delete(t.slicesBefore, now.name)
	}
	t.notify()
}

// unlink removes the slice and, if nothing else is known of its Service, that too.
func (t *Tracker) unlink(key sliceName) {
	s := t.slices[key]
	delete(t.slices, key)
	if s == nil || s.service == nil {
		return
	}
	if i, found := s.service.find(key); found {
		s.service.slices = slices.Delete(s.service.slices, i, i+1)
	}
	t.forgetEmpty(s.service)
}

func (t *Tracker) addTrigger(owner proxy.ServiceName, at time.Time) {
	if !at.IsZero() && t.matters(owner) {
		t.triggers[owner] = append(t.triggers[owner], at)
	}
}

// served tells whether there is a Service of that name.
func (t *Tracker) served(name proxy.ServiceName) bool {
	s := t.services[name]
	return s != nil && s.value != nil
}

// matters tells whether there is a Service of that name, or was at the last Take. Whatever happens to
// the slices of another is part of its input when it appears.
func (t *Tracker) matters(name proxy.ServiceName) bool {
	return t.served(name) || t.servicesBefore[name] != nil
}

// serviceOf is the record of that name, a new one if there is none.
func (t *Tracker) serviceOf(name proxy.ServiceName) *service {
	s := t.services[name]
	if s == nil {
		s = &service{name: name}
		t.services[name] = s
	}
	return s
}

func (t *Tracker) forgetEmpty(s *service) {
	if s.value == nil && s.complaints == "" && len(s.slices) == 0 {
		delete(t.services, s.name)
	}
}

func (t *Tracker) complaintsOf(name proxy.ServiceName) string {
	if s := t.services[name]; s != nil {
		return s.complaints
	}
	return ""
}

func (t *Tracker) sliceComplaintsOf(key sliceName) string {
	if s := t.slices[key]; s != nil {
		return s.complaints
	}
	return ""
}

func (t *Tracker) stateOf(key sliceName) sliceState {
	if s := t.slices[key]; s != nil {
		return s.state()
	}
	return sliceState{}
}

func (s *slice) state() sliceState {
	if s.service == nil {
		return sliceState{}
	}
	return sliceState{s.service.name, s.value}
}

func (s *service) find(key sliceName) (int, bool) {
	return slices.BinarySearchFunc(s.slices, key.name, func(sl *slice, name string) int {
		return strings.Compare(sl.name.name, name)
	})
}
