// Package desired keeps the snapshot of one IP family up to date with the Services and the node. It
// asks the policy about changed Services only, settles which of several Services owns a frontend
// that they all claim, and keeps the pointer of every value that did not change.
package desired

import (
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// Builder makes the snapshots of one IP family. It is not safe for concurrent use; the snapshots are.
type Builder struct {
	node     *proxy.Node
	services map[proxy.ServiceName]*service
	claims   claims
	changes  map[proxy.ServicePortName]*proxy.ServicePort // since last; nil: gone
	last     *proxy.Snapshot
}

// service is what a Builder remembers of a Service that has ServicePorts or may have them on another
// node.
type service struct {
	input    policy.Input
	created  time.Time            // of the input that the claims were made for
	resolved []*proxy.ServicePort // what policy says, before others took frontends away
}

// NewBuilder makes a Builder for the node's family. Its first snapshot is empty.
func NewBuilder(node *proxy.Node) *Builder {
	return &Builder{
		node:     node,
		services: map[proxy.ServiceName]*service{},
		claims:   newClaims(),
		changes:  map[proxy.ServicePortName]*proxy.ServicePort{},
		last:     proxy.NewSnapshot(node, nil),
	}
}

// Build is the snapshot of the node's family for the given Services, each of which is named once.
func Build(node *proxy.Node, inputs []policy.Input) *proxy.Snapshot {
	b := NewBuilder(node)
	b.Update(inputs)
	return b.Snapshot()
}

// Update replaces what is known of the Services that inputs name. An input without a Service removes it.
func (b *Builder) Update(inputs []policy.Input) {
	dirty := make(map[*service]bool, len(inputs))
	for _, in := range inputs {
		if s := b.services[in.Name]; s != nil || in.Service != nil {
			b.resolve(b.remember(in), dirty)
		}
	}
	for s := range dirty {
		b.serve(s)
	}
}

// SetNode replaces the facts of the node. All Services are decided anew if a policy depends on what
// changed.
func (b *Builder) SetNode(node *proxy.Node) {
	if node.Equal(b.node) {
		return
	}
	was := b.node
	b.node = node
	if policy.Indifferent(was, node) {
		return
	}
	dirty := make(map[*service]bool, len(b.services))
	for _, s := range b.services {
		b.resolve(s, dirty)
	}
	for s := range dirty {
		b.serve(s)
	}
}

// Snapshot is what the node should do now. It is the same pointer as long as that stays the same.
func (b *Builder) Snapshot() *proxy.Snapshot {
	if b.node.Equal(b.last.Node()) {
		b.node = b.last.Node()
	}
	for name, port := range b.changes {
		if b.last.Get(name) == port {
			delete(b.changes, name)
		}
	}
	if len(b.changes) > 0 || b.last.Node() != b.node {
		b.last = b.last.Next(b.node, b.changes)
		b.changes = map[proxy.ServicePortName]*proxy.ServicePort{}
	}
	return b.last
}

// remember stores the input and returns the record of its Service.
func (b *Builder) remember(in policy.Input) *service {
	s := b.services[in.Name]
	if s == nil {
		s = &service{}
		b.services[in.Name] = s
	}
	s.input = in
	if in.Service == nil {
		delete(b.services, in.Name)
	}
	return s
}

// resolve asks the policy about s, passes its claims on and notes in dirty all services, s included,
// whose ServicePorts may have changed by that.
func (b *Builder) resolve(s *service, dirty map[*service]bool) {
	was, created := s.resolved, s.created
	s.resolved = policy.Resolve(s.input, b.node)
	if s.input.Service != nil {
		s.created = s.input.Service.Created
	}
	dirty[s] = true
	for _, port := range was {
		b.changes[port.Name] = nil
	}
	if created.Equal(s.created) && sameClaims(was, s.resolved) {
		return
	}
	b.claims.release(s, was, dirty)
	b.claims.claim(s, s.resolved, dirty)
}

// serve notes what becomes of the ServicePorts of s, now that all frontends have their owners.
func (b *Builder) serve(s *service) {
	for i, port := range s.resolved {
		owned := b.claims.owned(s, port)
		whole := owned == port
		if last := b.last.Get(port.Name); last != nil && last.Equal(owned) {
			owned = last
		}
		b.changes[port.Name] = owned
		if whole {
			s.resolved[i] = owned // so that equal values are stored once
		}
	}
}
