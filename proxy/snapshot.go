package proxy

import (
	"iter"
	"maps"
)

// Snapshot is what one node should do in one IP family. It is immutable, as is all that it
// points to, so it may be read by any number of goroutines. Equal ServicePorts keep their pointer
// from one snapshot to the next, so a difference is a difference of pointers.
type Snapshot struct {
	node    *Node
	ports   map[ServicePortName]*ServicePort
	base    *mark // the snapshot that changed was counted from
	self    *mark
	changed []ServicePortName
}

// mark is the identity of a snapshot; it keeps no snapshot alive.
type mark struct{ _ byte }

// NewSnapshot makes a snapshot that has no predecessor. It takes ownership of ports, whose values
// must not be nil.
func NewSnapshot(node *Node, ports map[ServicePortName]*ServicePort) *Snapshot {
	if ports == nil {
		ports = map[ServicePortName]*ServicePort{}
	}
	return &Snapshot{node: node, ports: ports, self: new(mark)}
}

// Next is a snapshot that differs from s by the given changes: a nil value removes a name.
// Changes that change nothing are dropped.
func (s *Snapshot) Next(node *Node, changes map[ServicePortName]*ServicePort) *Snapshot {
	next := &Snapshot{node: node, ports: s.ports, base: s.self, self: new(mark)}
	for name, port := range changes {
		if s.ports[name] == port {
			continue
		}
		if len(next.changed) == 0 {
			next.ports = maps.Clone(s.ports)
		}
		next.changed = append(next.changed, name)
		if port == nil {
			delete(next.ports, name)
		} else {
			next.ports[name] = port
		}
	}
	return next
}

// Node is the node that the snapshot was made for.
func (s *Snapshot) Node() *Node { return s.node }

// Family is the snapshot's IP family.
func (s *Snapshot) Family() Family { return s.node.Family }

// Len is the number of ServicePorts. A nil snapshot is empty.
func (s *Snapshot) Len() int {
	if s == nil {
		return 0
	}
	return len(s.ports)
}

// Get is the ServicePort of that name, nil if there is none. A nil snapshot is empty.
func (s *Snapshot) Get(name ServicePortName) *ServicePort {
	if s == nil {
		return nil
	}
	return s.ports[name]
}

// All yields every ServicePort, in no order. A nil snapshot is empty.
func (s *Snapshot) All() iter.Seq2[ServicePortName, *ServicePort] {
	if s == nil {
		return func(func(ServicePortName, *ServicePort) bool) {}
	}
	return maps.All(s.ports)
}

// Change is the difference in one name between two snapshots: Old is nil for an added name, New for
// a removed one.
type Change struct {
	Old, New *ServicePort
}

// Changes yields every name whose value differs between old and s, in no order. A nil old is the
// empty snapshot. It costs in proportion to the changes if old is the predecessor of s, and in
// proportion to both snapshots otherwise; the result is the same.
func (s *Snapshot) Changes(old *Snapshot) iter.Seq2[ServicePortName, Change] {
	return func(yield func(ServicePortName, Change) bool) {
		if old != nil && s.base == old.self && s.base != nil {
			for _, name := range s.changed {
				if !yield(name, Change{old.ports[name], s.ports[name]}) {
					return
				}
			}
			return
		}
		for name, port := range s.ports {
			if was := old.Get(name); was != port && !yield(name, Change{was, port}) {
				return
			}
		}
		for name, was := range old.All() {
			if _, kept := s.ports[name]; !kept && !yield(name, Change{was, nil}) {
				return
			}
		}
	}
}
