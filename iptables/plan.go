package iptables

import (
	"bytes"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// tables is what our chains in both tables should be. It is immutable.
type tables struct {
	snap  *proxy.Snapshot // whose ServicePorts have chains; nil: we have no chain at all
	trees trees

	// partial is set if the trees leave out something of snap.
	partial bool
}

var nothing = &tables{}

// nothingIn is no chain, where trees list so many members.
func nothingIn(leaf int) *tables {
	t := &tables{}
	for in := range numIndexes {
		t.trees[in].leaf = leaf
	}
	return t
}

// empty is no chain, in trees like those of t.
func (t *tables) empty() *tables { return nothingIn(t.trees[0].leaf) }

func (t *tables) node() *proxy.Node {
	if t.snap == nil {
		return nil
	}
	return t.snap.Node()
}

// next is the tables for snap, and, to be in filter while nat changes, what both refuse: no packet may
// find itself neither served nor refused.
func (t *tables) next(snap *proxy.Snapshot) (next, between *tables) {
	if t.partial {
		t = t.empty()
	}
	trees := t.trees
	var had, has, gone []entry
	was, now := rendererOf(t.snap), rendererOf(snap)
	for _, c := range changes(t.snap, snap) {
		had, has = was.entries(had[:0], c.Old), now.entries(has[:0], c.New)
		if slices.Equal(had, has) {
			continue
		}
		for _, e := range has {
			if !slices.Contains(had, e) {
				trees[e.index] = trees[e.index].with(e.key, e.rules)
			}
		}
		for _, e := range had {
			if !slices.Contains(has, e) {
				gone = append(gone, e)
			}
		}
	}
	between = &tables{snap: snap, trees: trees}
	for _, e := range gone {
		trees[e.index] = trees[e.index].without(e.key, e.rules)
	}
	return &tables{snap: snap, trees: trees}, between
}

// first is the part of the tables for snap that a cold start writes first: the services that others wait
// for, and nothing that refuses, for another proxy may still be serving the rest.
func (t *tables) first(snap *proxy.Snapshot) *tables {
	node := *snap.Node()
	node.ServiceCIDRs = nil
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for name, sp := range snap.All() {
		if sp.Priority {
			ports[name] = sp
		}
	}
	first, _ := t.empty().next(proxy.NewSnapshot(&node, ports))
	first.partial = true
	for in := range numIndexes {
		if tableOf[in] == filter {
			first.trees[in].root = nil
		}
	}
	return first
}

// wary is t, to be in filter while nat may hold anything and becomes t: it refuses every frontend that is not
// translated. ClusterIPs are refused then anyway.
func (t *tables) wary() *tables {
	wary := &tables{snap: t.snap, trees: t.trees}
	r := rendererOf(t.snap)
	for _, c := range changes(nil, t.snap) {
		for _, f := range r.frontends(c.New) {
			about := comment(c.New.Name.String() + " " + f.Kind.String())
			if f.Kind == proxy.ClusterIP || r.refusal(c.New, f, about) != "" {
				continue
			}
			_, in := indexesOf(f.Kind)
			frontend := key(in, f.Addr.Addr(), c.New.Name.Protocol, f.Addr.Port())
			wary.trees[in] = wary.trees[in].with(frontend, rules{text: about + " -j DROP"})
		}
	}
	return wary
}

// rendererOf is nil for a snapshot that has nothing to render.
func rendererOf(snap *proxy.Snapshot) *renderer {
	if snap == nil {
		return nil
	}
	return newRenderer(snap.Node())
}

// changes lists the ServicePorts whose chains may differ between two snapshots, by name.
func changes(old, snap *proxy.Snapshot) []proxy.Change {
	var list []proxy.Change
	if old == nil || sameRules(old.Node(), snap.Node()) {
		for _, c := range snap.Changes(old) {
			list = append(list, c)
		}
	} else {
		for name, sp := range snap.All() {
			list = append(list, proxy.Change{Old: old.Get(name), New: sp})
		}
		for name, sp := range old.All() {
			if snap.Get(name) == nil {
				list = append(list, proxy.Change{Old: sp})
			}
		}
	}
	slices.SortFunc(list, func(a, b proxy.Change) int { return nameOf(a).Compare(nameOf(b)) })
	return list
}

func nameOf(c proxy.Change) proxy.ServicePortName {
	if c.New != nil {
		return c.New.Name
	}
	return c.Old.Name
}

// plan is what takes the kernel to a state of tables: what happens to them, in order.
type plan []*section

// first is the first thing that happens to a table.
func (p plan) first(table string) *section {
	return p[slices.IndexFunc(p, func(s *section) bool { return s.table == table })]
}

// plan takes the kernel from any of several states to another. Each of our chains is now as one of them
// says; the first is the one that was last seen complete. Between may be nil.
func (c Config) plan(from []*tables, between, to *tables) plan {
	services := c.section(nat, from, to)
	if services.empty() || between == nil {
		return plan{services, c.section(filter, from, to)}
	}
	return plan{c.section(filter, from, between), services, c.section(filter, []*tables{between}, to)}
}

func (c Config) section(table string, from []*tables, to *tables) *section {
	s := newSection(table)
	for i, f := range from {
		s.recount = i > 0
		c.diff(s, f, to)
	}
	return s
}

func (c Config) diff(s *section, from, to *tables) {
	c.base(&s.old, s.table, from.node(), &from.trees)
	c.base(&s.new, s.table, to.node(), &to.trees)
	s.compare()
	for in := range numIndexes {
		if tableOf[in] == s.table {
			drawer{to.node().Family, in}.diff(s, from.trees[in], to.trees[in])
		}
	}
	if s.table != nat {
		return
	}
	was, now := rendererOf(from.snap), rendererOf(to.snap)
	for _, change := range changes(from.snap, to.snap) {
		if change.Old != nil {
			was.servicePort(&s.old, change.Old)
		}
		if change.New != nil {
			now.servicePort(&s.new, change.New)
		}
		s.compare()
	}
}

// input is the plan as iptables-restore reads it, empty if there is nothing to do.
func (p plan) input(h how) []byte {
	var b bytes.Buffer
	for _, s := range p {
		if !s.empty() {
			s.appendTo(&b, h)
		}
	}
	return b.Bytes()
}
