package iptables

import (
	"cmp"
	"slices"
	"strings"
)

const (
	// leafSize is how many members a chain may list one after the other, unless a tree says otherwise. To change one
	// of them, a chain is written anew.
	leafSize = 8

	// longLeaf is leafSize for backend legacy, which writes all of a table for every change: chains cost more there than
	// the way along a list, of which a rule takes some nanoseconds.
	longLeaf = 48

	// treeLevels is how many chains of a tree a packet may descend through. A deeper tree would exceed
	// what the kernel lets chains nest, and members can be crafted to make one: the last level lists
	// whatever is left.
	treeLevels = 6

	// maxNesting is how many of our chains a packet may be in at once: the base chain, a tree, the
	// source ranges, the route, the pool, the group and the endpoint. Backend nft refuses the 16th, and says so
	// only when the rules are loaded.
	maxNesting = 1 + treeLevels + 5
)

// Room for jumps that others put before ours.
const _ = uint(12 - maxNesting)

// tree is an immutable set of members, arranged by the prefixes of their keys. Equal sets are equal
// trees, however they came about, and a tree shares with the one that it was made from all
// that is the same in both. The zero value is empty.
type tree struct {
	root *node
	leaf int // instead of leafSize, if not 0; it never changes
}

// member is a key, a string of nibbles with one nibble a byte, and the rules for packets that match it.
type member struct {
	key    string
	rules  rules
	claims int // how often it was added
}

// rules is what a tree does with the packets of a key.
type rules struct {
	// text has a rule a line, each without the match that the key stands for.
	text string

	// mark is the rule that asks for the masquerading of these packets, before anything else is done with them; empty if
	// there is none. If they are marked where text leads to, it only says so.
	mark   string
	marked bool

	// closed is the length of the shortest prefix of the key whose packets go nowhere unless they are translated: those of a
	// ServiceCIDR are refused. So one of them too many may be marked. 0: there is none.
	closed int
}

// node is a chain of the tree: members or, when children is not nil, smaller nodes.
type node struct {
	prefix   string   // the longest that all members share
	members  []member // by key
	children []*node  // by prefix
	size     int      // members here and below
	levels   int      // chains on the longest path down, this one included
	crowded  bool     // a leaf here or below lists more than it may
}

// with is the tree with rules for key in place of what it had. Adding what is there counts as a second claim.
func (t tree) with(key string, r rules) tree {
	m := member{key: key, rules: r, claims: 1}
	if had := t.get(key); had != nil && had.rules == r {
		m.claims += had.claims
	}
	return tree{t.root.put(m, t.top()), t.leaf}
}

// without is the tree with one claim less. Other rules for the key stay: they have replaced these.
func (t tree) without(key string, r rules) tree {
	had := t.get(key)
	if had == nil || had.rules != r {
		return t
	}
	if had.claims > 1 {
		return tree{t.root.put(member{key, r, had.claims - 1}, t.top()), t.leaf}
	}
	return tree{t.root.drop(key, t.top()), t.leaf}
}

// place is where a node stands, and how many members it may list there.
type place struct{ level, leaf int }

func (t tree) top() place { return place{1, cmp.Or(t.leaf, leafSize)} }

func (p place) below() place { return place{p.level + 1, p.leaf} }

// lists tells whether a node of so many members lists them.
func (p place) lists(members int) bool { return members <= p.leaf || p.level == treeLevels }

// get is the member of that key, nil if there is none.
func (t tree) get(key string) *member {
	n := t.root
	for n != nil && n.children != nil {
		if !strings.HasPrefix(key, n.prefix) {
			return nil
		}
		n = n.child(key)
	}
	if n == nil {
		return nil
	}
	if i, found := slices.BinarySearchFunc(n.members, key, member.compareKey); found {
		return &n.members[i]
	}
	return nil
}

// find is the node of exactly that prefix, nil if there is none.
func (t tree) find(prefix string) *node {
	n := t.root
	for n != nil && len(n.prefix) < len(prefix) && strings.HasPrefix(prefix, n.prefix) {
		n = n.child(prefix)
	}
	if n == nil || n.prefix != prefix {
		return nil
	}
	return n
}

func (m member) compareKey(key string) int { return strings.Compare(m.key, key) }

// child is the one that holds the keys which continue as key does, nil if there is none.
func (n *node) child(key string) *node {
	if i, found := n.search(key); found {
		return n.children[i]
	}
	return nil
}

func (n *node) search(key string) (int, bool) {
	at := len(n.prefix)
	return slices.BinarySearchFunc(n.children, key[at], func(c *node, nibble byte) int {
		return cmp.Compare(c.prefix[at], nibble)
	})
}

// put is n with m, as a node at the given place. A nil node is empty.
func (n *node) put(m member, at place) *node {
	if n == nil {
		return build([]member{m}, at)
	}
	if n.children == nil {
		return build(replaced(n.members, m), at)
	}
	shared := common(n.prefix, m.key)
	if shared < len(n.prefix) {
		pair := []*node{n.moved(at.below()), build([]member{m}, at.below())}
		if m.key[shared] < n.prefix[shared] {
			slices.Reverse(pair)
		}
		return branch(m.key[:shared], pair)
	}
	i, found := n.search(m.key)
	if !found {
		return branch(n.prefix, slices.Insert(slices.Clone(n.children), i, build([]member{m}, at.below())))
	}
	children := slices.Clone(n.children)
	children[i] = children[i].put(m, at.below())
	return branch(n.prefix, children)
}

// drop is n without the member of that key, which it has.
func (n *node) drop(key string, at place) *node {
	if n.children == nil || n.size-1 <= at.leaf {
		left := n.appendMembers(make([]member, 0, n.size))
		return build(slices.DeleteFunc(left, func(m member) bool { return m.key == key }), at)
	}
	i, _ := n.search(key)
	children := slices.Clone(n.children)
	children[i] = children[i].drop(key, at.below())
	if children[i] == nil {
		children = slices.Delete(children, i, i+1)
	}
	if len(children) == 1 {
		return children[0].moved(at)
	}
	return branch(n.prefix, children)
}

// moved is n at another place: the same unless its depth is limited there, or was before.
func (n *node) moved(at place) *node {
	switch {
	case !n.crowded && at.level+n.levels-1 <= treeLevels:
		return n
	case n.children == nil || at.level == treeLevels:
		return build(n.appendMembers(make([]member, 0, n.size)), at)
	}
	children := make([]*node, len(n.children))
	for i, c := range n.children {
		children[i] = c.moved(at.below())
	}
	return branch(n.prefix, children)
}

// build arranges members, which are sorted, as a node at the given place. It is nil for none.
func build(members []member, at place) *node {
	if len(members) == 0 {
		return nil
	}
	first, last := members[0].key, members[len(members)-1].key
	prefix := first[:common(first, last)]
	if at.lists(len(members)) {
		return &node{prefix: prefix, members: members, size: len(members), levels: 1, crowded: len(members) > at.leaf}
	}
	var children []*node
	for from := 0; from < len(members); {
		to := from + 1
		for to < len(members) && members[to].key[len(prefix)] == members[from].key[len(prefix)] {
			to++
		}
		children = append(children, build(members[from:to:to], at.below()))
		from = to
	}
	return branch(prefix, children)
}

func branch(prefix string, children []*node) *node {
	n := &node{prefix: prefix, children: children}
	for _, c := range children {
		n.size += c.size
		n.levels = max(n.levels, c.levels+1)
		n.crowded = n.crowded || c.crowded
	}
	return n
}

func (n *node) appendMembers(to []member) []member {
	to = append(to, n.members...)
	for _, c := range n.children {
		to = c.appendMembers(to)
	}
	return to
}

// replaced is a copy of members with m in its place.
func replaced(members []member, m member) []member {
	i, found := slices.BinarySearchFunc(members, m.key, member.compareKey)
	if found {
		copied := slices.Clone(members)
		copied[i] = m
		return copied
	}
	copied := make([]member, 0, len(members)+1)
	return append(append(append(copied, members[:i]...), m), members[i:]...)
}

// common is the length of the prefix that two strings share.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
