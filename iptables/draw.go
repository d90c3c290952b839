package iptables

import "strings"

// A node of several members is a chain, and so is a member of several rules. A single rule stands in the chain
// above, so that a packet takes no jump for it.

// reach renders, to the open chain, what leads packets to n: a jump or its only rule.
func (d drawer) reach(out *chains, n *node, extra string) {
	switch {
	case n == nil:
	case n.size == 1:
		d.member(out, n.members[0], extra)
	default:
		out.rule(extra, d.match(n.prefix), "-j", d.name(n.prefix))
	}
}

func (d drawer) member(out *chains, m member, extra string) {
	if m.single() {
		out.rule(extra, d.match(m.key), m.rules)
	} else {
		out.rule(extra, d.match(m.key), "-j", d.name(m.key))
	}
}

func (m member) single() bool { return !strings.Contains(m.rules, "\n") }

// node renders the chain of n itself, if it has one.
func (d drawer) node(out *chains, n *node) {
	if n == nil || n.size == 1 {
		return
	}
	out.begin(d.name(n.prefix))
	for _, m := range n.members {
		d.member(out, m, "")
	}
	for _, c := range n.children {
		d.reach(out, c, "")
	}
}

// rules renders the chain of m itself, if it has one.
func (d drawer) rules(out *chains, m *member) {
	if m == nil || m.single() {
		return
	}
	out.begin(d.name(m.key))
	for rule := range strings.SplitSeq(m.rules, "\n") {
		out.rule(rule)
	}
}

// diff compares the chains of two trees. It costs in proportion to the nodes that they do not share.
func (d drawer) diff(s *section, from, to tree) {
	d.written(s, from, to.root)
	d.deleted(s, from.root, to)
}

func (d drawer) written(s *section, from tree, n *node) {
	if n == nil {
		return
	}
	was := from.find(n.prefix)
	if was == n {
		return
	}
	d.node(&s.old, was)
	d.node(&s.new, n)
	s.compare()
	for i := range n.members {
		if m := &n.members[i]; !m.single() {
			d.rules(&s.old, from.get(m.key))
			d.rules(&s.new, m)
			s.compare()
		}
	}
	for _, c := range n.children {
		d.written(s, from, c)
	}
}

// deleted finds the chains that to has no more: written saw those of the same name.
func (d drawer) deleted(s *section, was *node, to tree) {
	if was == nil {
		return
	}
	n := to.find(was.prefix)
	if n == was {
		return
	}
	if n == nil {
		d.node(&s.old, was)
	}
	for i := range was.members {
		m := &was.members[i]
		if m.single() {
			continue
		}
		if now := to.get(m.key); now == nil || now.single() {
			d.rules(&s.old, m)
		}
	}
	s.compare()
	for _, c := range was.children {
		d.deleted(s, c, to)
	}
}
