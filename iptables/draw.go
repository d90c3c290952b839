package iptables

import (
	"bytes"
	"strings"
)

// A node of several members is a chain, and so is a member of many rules. A few rules stand in the chain above: that
// costs less than a chain, in the kernel's memory and in the time of each commit, which grows with all rules and chains.

// fewRules is how many rules of a member may stand in the chain above.
const fewRules = 4

// reach renders, to the open chain, what leads packets to n: a jump or its only member's rules.
func (d drawer) reach(out *chains, n *node, extra string) {
	switch {
	case n == nil:
	case n.size == 1:
		d.member(out, n.members[0], extra)
	default:
		out.rule(extra, d.match(n.prefix), "-j", d.name(n.prefix))
	}
}

// member renders what becomes of packets to m.
func (d drawer) member(out *chains, m member, extra string) {
	match := d.match(m.key)
	if m.rules.mark != "" && !m.rules.marked {
		out.rule(extra, match, m.rules.mark)
	}
	d.body(out, m, extra, match)
}

func (d drawer) body(out *chains, m member, extra, match string) {
	if !m.inline() {
		out.rule(extra, match, "-j", d.name(m.key))
		return
	}
	for rule := range strings.SplitSeq(m.rules.text, "\n") {
		out.rule(extra, match, rule)
	}
}

// renders tells whether the line of restore input is a rule of e in the chain above.
func (d drawer) renders(e entry, line string) bool {
	var own chains
	own.begin("")
	d.member(&own, member{key: e.key, rules: e.rules}, "")
	for rule := range bytes.Lines(own.text) {
		if strings.HasSuffix(line, string(bytes.TrimPrefix(bytes.TrimSpace(rule), []byte("-A ")))) {
			return true
		}
	}
	return false
}

// inline tells whether the rules stand in the chain above.
func (m member) inline() bool { return strings.Count(m.rules.text, "\n") < fewRules }

// listed are the members whose rules stand in the chain of n, if there are no others below.
func (n *node) listed() []member {
	if n.children == nil {
		return n.members
	}
	if n.size > len(n.children) {
		return nil
	}
	return n.appendMembers(nil)
}

// commonMark is the mark of all members, if it may be set for all packets of n's prefix at once.
func (n *node) commonMark(members []member) string {
	if len(members) == 0 {
		return ""
	}
	first := members[0].rules.mark
	for _, m := range members {
		if r := m.rules; r.mark != first || r.closed == 0 || r.closed > len(n.prefix) {
			return ""
		}
	}
	return first
}

// node renders the chain of n itself, if it has one.
func (d drawer) node(out *chains, n *node) {
	if n == nil || n.size == 1 {
		return
	}
	out.begin(d.name(n.prefix))
	if members := n.listed(); members != nil {
		d.list(out, n, members)
		return
	}
	for _, c := range n.children {
		d.reach(out, c, "")
	}
}

func (d drawer) list(out *chains, n *node, members []member) {
	mark := n.commonMark(members)
	if mark != "" {
		out.rule(mark)
	}
	for _, m := range members {
		if mark != "" {
			d.body(out, m, "", d.match(m.key))
		} else {
			d.member(out, m, "")
		}
	}
}

// rules renders the chain of m itself, if it has one.
func (d drawer) rules(out *chains, m *member) {
	if m == nil || m.inline() {
		return
	}
	out.begin(d.name(m.key))
	for rule := range strings.SplitSeq(m.rules.text, "\n") {
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
		if m := &n.members[i]; !m.inline() {
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
		if m.inline() {
			continue
		}
		if now := to.get(m.key); now == nil || now.inline() {
			d.rules(&s.old, m)
		}
	}
	s.compare()
	for _, c := range was.children {
		d.deleted(s, c, to)
	}
}
