package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// treeOf is a tree built at once.
func treeOf(members map[string]string) tree { return tree{}.of(members) }

// of is a tree like t of these members.
func (t tree) of(members map[string]string) tree {
	var sorted []member
	for _, key := range slices.Sorted(maps.Keys(members)) {
		sorted = append(sorted, member{key, rules{text: members[key]}, 1})
	}
	return tree{build(sorted, t.top()), t.leaf}
}

// deepKeys are keys of which each row parts from those of later rows at another nibble: together they make a tree
// deeper than it may be.
func deepKeys() [][]string {
	var rows [][]string
	for same := range 12 {
		var row []string
		for i := range 15 {
			key := make([]byte, 12)
			key[same] = byte(1 + i%3)
			if same < 11 {
				key[same+1] = byte(i)
			}
			row = append(row, string(key))
		}
		slices.Sort(row)
		rows = append(rows, slices.Compact(row))
	}
	return rows
}

func TestTreeDependsOnItsMembersOnly(t *testing.T) {
	rows := deepKeys()
	rapid.Check(t, func(t *rapid.T) {
		grown := tree{leaf: rapid.SampledFrom([]int{0, 3, longLeaf}).Draw(t, "leaf")}
		members := map[string]string{}
		set := func(key, text string) {
			if had, ok := members[key]; ok {
				delete(members, key)
				grown = grown.without(key, rules{text: had})
			}
			if text != "" {
				members[key] = text
				grown = grown.with(key, rules{text: text})
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			// Whole rows come and go, so that nodes move between levels.
			row := rapid.SampledFrom(rows).Draw(t, "row")
			if rapid.Bool().Draw(t, "one") {
				row = []string{rapid.SampledFrom(row).Draw(t, "key")}
			}
			text := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "rules")
			for _, key := range row {
				set(key, text)
			}
			want := grown.of(members)
			if diff := cmp.Diff(want, grown, cmp.AllowUnexported(tree{}, node{}, member{}, rules{})); diff != "" {
				t.Fatalf("unlike a tree built at once (-want +got):\n%s", diff)
			}
			checkTree(t, grown, members)
		}
	})
}

func checkTree(t *rapid.T, grown tree, members map[string]string) {
	for key, text := range members {
		if m := grown.get(key); m == nil || m.rules.text != text {
			t.Fatalf("get %x: %v, want %q", key, m, text)
		}
	}
	var walk func(n *node, level int)
	walk = func(n *node, level int) {
		switch {
		case n == nil:
			return
		case level > treeLevels:
			t.Fatalf("%x is a node of level %d", n.prefix, level)
		case n.children == nil && len(n.members) > grown.top().leaf && level < treeLevels:
			t.Fatalf("%x lists %d members at level %d", n.prefix, len(n.members), level)
		case grown.find(n.prefix) != n:
			t.Fatalf("%x is not found", n.prefix)
		}
		for _, c := range n.children {
			if !strings.HasPrefix(c.prefix, n.prefix) || len(c.prefix) == len(n.prefix) {
				t.Fatalf("%x is below %x", c.prefix, n.prefix)
			}
			walk(c, level+1)
		}
	}
	walk(grown.root, 1)
}

func TestTreeSharesWhatIsTheSame(t *testing.T) {
	members := map[string]string{}
	for i := range 4096 {
		members[nibbles(i)] = "x"
	}
	before := treeOf(members)
	after := before.with(nibbles(777), rules{text: "y"})
	if got := unshared(before, after.root); got > treeLevels {
		t.Errorf("%d nodes are new after one change", got)
	}
	if before.get(nibbles(777)).rules.text != "x" {
		t.Error("the change shows in the tree that it was made from")
	}
}

func nibbles(i int) string {
	key := []byte(fmt.Sprintf("%06x", i))
	for j, c := range key {
		key[j] = byte(strings.IndexByte("0123456789abcdef", c))
	}
	return string(key)
}

func unshared(old tree, n *node) int {
	if n == nil || old.find(n.prefix) == n {
		return 0
	}
	count := 1
	for _, c := range n.children {
		count += unshared(old, c)
	}
	return count
}

func TestTreeCountsClaims(t *testing.T) {
	a, b := rules{text: "a"}, rules{text: "b"}
	tr := tree{}.with("\x01", a).with("\x01", a)
	if tr = tr.without("\x01", a); tr.get("\x01") == nil {
		t.Fatal("one of two claims is gone, and so is the member")
	}
	if tr = tr.without("\x01", b); tr.get("\x01") == nil {
		t.Fatal("a claim to other rules removed these")
	}
	if tr = tr.without("\x01", a); tr.root != nil {
		t.Fatal("the last claim is gone, the member is not")
	}
	tr = tr.with("\x01", a).with("\x01", b).without("\x01", a)
	if m := tr.get("\x01"); m == nil || m.rules != b {
		t.Fatalf("what took another's place is %v", m)
	}
}
