package proxy_test

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
)

func port(name string) *proxy.ServicePort {
	return &proxy.ServicePort{Name: proxy.ServicePortName{Namespace: "ns", Name: name, Protocol: proxy.TCP}}
}

func snapshotOf(ports ...*proxy.ServicePort) *proxy.Snapshot {
	all := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, p := range ports {
		all[p.Name] = p
	}
	return proxy.NewSnapshot(&proxy.Node{}, all)
}

func TestNilSnapshotIsEmpty(t *testing.T) {
	var none *proxy.Snapshot
	if none.Len() != 0 || none.Get(port("a").Name) != nil || len(maps.Collect(none.All())) != 0 {
		t.Error("a nil snapshot holds something")
	}
	a := port("a")
	changes := maps.Collect(snapshotOf(a).Changes(nil))
	if len(changes) != 1 || changes[a.Name] != (proxy.Change{New: a}) {
		t.Errorf("changes from a nil snapshot: %v", changes)
	}
}

func TestNextLeavesItsPredecessorAlone(t *testing.T) {
	a, b, b2, c := port("a"), port("b"), port("b"), port("c")
	old := snapshotOf(a, b)
	node := &proxy.Node{Name: "other"}
	next := old.Next(node, map[proxy.ServicePortName]*proxy.ServicePort{a.Name: nil, b.Name: b2, c.Name: c})
	if old.Len() != 2 || old.Get(a.Name) != a || old.Get(b.Name) != b || old.Get(c.Name) != nil {
		t.Errorf("the old snapshot has changed: %v", maps.Collect(old.All()))
	}
	if next.Len() != 2 || next.Get(a.Name) != nil || next.Get(b.Name) != b2 || next.Get(c.Name) != c || next.Node() != node {
		t.Errorf("the new snapshot is %v", maps.Collect(next.All()))
	}
}

func TestChangesThatChangeNothingAreDropped(t *testing.T) {
	a := port("a")
	old := snapshotOf(a)
	next := old.Next(old.Node(), map[proxy.ServicePortName]*proxy.ServicePort{a.Name: a, port("gone").Name: nil})
	if changes := maps.Collect(next.Changes(old)); len(changes) != 0 {
		t.Errorf("changes: %v", changes)
	}
}

func TestChangesCanBeAbandoned(t *testing.T) {
	old := snapshotOf(port("a"), port("b"), port("c"))
	next := old.Next(old.Node(), map[proxy.ServicePortName]*proxy.ServicePort{port("a").Name: nil, port("b").Name: port("b")})
	for _, s := range []struct{ from, to *proxy.Snapshot }{{old, next}, {snapshotOf(), next}, {next, snapshotOf()}} {
		seen := 0
		for range s.to.Changes(s.from) {
			seen++
			break
		}
		if seen != 1 {
			t.Errorf("%d changes seen", seen)
		}
	}
}

// Whichever way the difference is found, it leads from one snapshot to the other.
func TestChangesLeadFromAnySnapshotToAnyOther(t *testing.T) {
	names := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	rapid.Check(t, func(t *rapid.T) {
		history := []*proxy.Snapshot{snapshotOf()}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			changes := map[proxy.ServicePortName]*proxy.ServicePort{}
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				p := port(names.Draw(t, "name"))
				changes[p.Name] = p
				if rapid.Bool().Draw(t, "remove") {
					changes[p.Name] = nil
				}
			}
			base := rapid.SampledFrom(history).Draw(t, "base")
			history = append(history, base.Next(base.Node(), changes))
		}
		for _, from := range append(history, nil) {
			for _, to := range history {
				checkChanges(t, from, to)
			}
		}
	})
}

func checkChanges(t *rapid.T, from, to *proxy.Snapshot) {
	walked := maps.Collect(from.All())
	for name, c := range to.Changes(from) {
		if c.Old == c.New || c.Old != from.Get(name) || c.New != to.Get(name) {
			t.Fatalf("change of %v is %v", name, c)
		}
		if c.New == nil {
			delete(walked, name)
		} else {
			walked[name] = c.New
		}
	}
	if !maps.Equal(walked, maps.Collect(to.All())) {
		t.Fatalf("changes lead to %v, want %v", walked, maps.Collect(to.All()))
	}
}
