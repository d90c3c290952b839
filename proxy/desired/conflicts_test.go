package desired_test

import (
	"maps"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

const shared = "198.51.100.1"

func gone(name string) policy.Input {
	return policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: name}}
}

func TestOwnerOfAContestedFrontend(t *testing.T) {
	vip := func(s *policy.Service) { s.LoadBalancerIPs = addrs(shared) }
	for _, c := range []struct {
		name string
		a, b policy.Input
		want string
	}{
		{"the first by name", input("a", "172.30.0.1", external(shared)), input("b", "172.30.0.2", external(shared)), "a"},
		{"the older one", input("a", "172.30.0.1", external(shared)), input("b", "172.30.0.2", external(shared), olderBy(time.Second)), "b"},
		{"the older one, whatever the kind", input("a", "172.30.0.1", vip), input("b", "172.30.0.2", external(shared), olderBy(time.Second)), "b"},
		{"the cluster IP before older ones", input("a", "172.30.0.1", external(shared), olderBy(time.Hour)), input("b", shared), "b"},
		{"the older cluster IP", input("a", shared), input("b", shared, olderBy(time.Hour)), "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			together := desired.NewBuilder(node())
			together.Update([]policy.Input{c.a, c.b})
			forth, back := desired.NewBuilder(node()), desired.NewBuilder(node())
			forth.Update([]policy.Input{c.a})
			forth.Update([]policy.Input{c.b})
			back.Update([]policy.Input{c.b})
			back.Snapshot()
			back.Update([]policy.Input{c.a})
			for how, b := range map[string]*desired.Builder{"together": together, "a first": forth, "b first": back} {
				if got := owners(t, b.Snapshot())[shared+":80"]; got != c.want {
					t.Errorf("%s: the owner is %q, want %q", how, got, c.want)
				}
				conflicts := b.Conflicts()
				if len(conflicts) != 1 || conflicts[0].Owner != portName(c.want) || len(conflicts[0].Losers) != 1 {
					t.Errorf("%s: conflicts are %v", how, conflicts)
				}
			}
		})
	}
}

func TestLosersLoseNothingElse(t *testing.T) {
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{
		input("a", "172.30.0.1", external(shared), olderBy(time.Hour)),
		input("b", "172.30.0.2", external(shared, "198.51.100.2")),
	})
	diff(t, "owners", map[string]string{
		"172.30.0.1:80": "a", shared + ":80": "a", "172.30.0.2:80": "b", "198.51.100.2:80": "b",
	}, owners(t, b.Snapshot()))
}

func TestOtherPortsAndProtocolsAreNotContested(t *testing.T) {
	udp := func(s *policy.Service) { s.Ports[0].Protocol = proxy.UDP }
	port81 := func(s *policy.Service) { s.Ports[0].Port = 81 }
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{
		input("a", "172.30.0.1", external(shared)), input("b", "172.30.0.2", external(shared), udp), input("c", "172.30.0.3", external(shared), port81),
	})
	if got := b.Conflicts(); len(got) != 0 {
		t.Errorf("conflicts: %v", got)
	}
}

func TestReleasedFrontendMovesOnInTheSameSnapshot(t *testing.T) {
	releases := map[string]policy.Input{
		"the Service goes":         gone("a"),
		"the external IP goes":     input("a", "172.30.0.1", olderBy(time.Hour)),
		"the Service is made anew": input("a", "172.30.0.1", external(shared), olderBy(-time.Hour)),
	}
	for name, release := range releases {
		t.Run(name, func(t *testing.T) {
			b := desired.NewBuilder(node())
			b.Update([]policy.Input{
				input("a", "172.30.0.1", external(shared), olderBy(time.Hour)),
				input("c", "172.30.0.3", external(shared)),
				input("b", "172.30.0.2", external(shared)),
			})
			first := b.Snapshot()
			diff(t, "owner", "a", owners(t, first)[shared+":80"])
			b.Update([]policy.Input{release})
			second := b.Snapshot()
			diff(t, "owner", "b", owners(t, second)[shared+":80"])
			changes := maps.Collect(second.Changes(first))
			if len(changes) != 2 || changes[portName("a")].Old == nil || changes[portName("b")].New == nil {
				t.Errorf("changes are %v, want those of a and b", changes)
			}
		})
	}
}

func TestTwoOwnersSwapInOneUpdate(t *testing.T) {
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{input("a", "172.30.0.1", external("198.51.100.1")), input("b", "172.30.0.2", external("198.51.100.2"))})
	b.Snapshot()
	b.Update([]policy.Input{input("a", "172.30.0.1", external("198.51.100.2")), input("b", "172.30.0.2", external("198.51.100.1"))})
	got := owners(t, b.Snapshot())
	diff(t, "owners", map[string]string{
		"172.30.0.1:80": "a", "198.51.100.2:80": "a", "172.30.0.2:80": "b", "198.51.100.1:80": "b",
	}, got)
	if conflicts := b.Conflicts(); len(conflicts) != 0 {
		t.Errorf("conflicts: %v", conflicts)
	}
}

// A pool that only a lost frontend used must not stay behind, nor may a port that lost everything.
func TestWhatALostFrontendLeaves(t *testing.T) {
	local := func(s *policy.Service) { s.InternalLocal = true }
	b := desired.NewBuilder(node(func(n *proxy.Node) { n.Name = "there" }))
	b.Update([]policy.Input{
		input("a", "172.30.0.1", external(shared), olderBy(time.Hour)),
		input("b", "172.30.0.2", external(shared), local),
		input("c", "172.30.0.1"), // the cluster IP of a, that is older
		input("d", "172.30.0.4", external(shared), func(s *policy.Service) { s.ExternalLocal = true }),
	})
	s := b.Snapshot()
	if p := s.Get(portName("b")); p.Cluster != nil || len(p.Local) != 1 {
		t.Errorf("b has the pools %v and %v", p.Cluster, p.Local)
	}
	if p := s.Get(portName("c")); p != nil {
		t.Errorf("c is served: %v", p)
	}
	if p := s.Get(portName("d")); len(p.Cluster) != 1 || p.Local != nil {
		t.Errorf("d has the pools %v and %v", p.Cluster, p.Local)
	}
	b.Update([]policy.Input{gone("a")})
	s = b.Snapshot()
	if p := s.Get(portName("b")); len(p.Cluster) != 1 || len(p.Local) != 1 {
		t.Errorf("b has the pools %v and %v", p.Cluster, p.Local)
	}
	if p := s.Get(portName("c")); p == nil {
		t.Error("c is not served")
	}
}

func TestConflictsAreSorted(t *testing.T) {
	b := desired.NewBuilder(node())
	all := external("198.51.100.2", "198.51.100.1")
	b.Update([]policy.Input{
		input("d", "172.30.0.4", all), input("c", "172.30.0.3", all, olderBy(time.Second)), input("b", "172.30.0.2", all), input("a", "172.30.0.1"),
	})
	losers := []proxy.ServicePortName{portName("b"), portName("d")}
	diff(t, "conflicts", []desired.Conflict{
		{Frontend: key("198.51.100.1:80"), Owner: portName("c"), Losers: losers},
		{Frontend: key("198.51.100.2:80"), Owner: portName("c"), Losers: losers},
	}, b.Conflicts())
	b.Update([]policy.Input{gone("c"), gone("b")})
	diff(t, "conflicts", []desired.Conflict{}, b.Conflicts())
}

// Endpoints that change under a loser must not bring its lost frontend back.
func TestLoserStaysALoserWhenItsEndpointsChange(t *testing.T) {
	b := desired.NewBuilder(node())
	loser := input("b", "172.30.0.2", external(shared))
	b.Update([]policy.Input{input("a", "172.30.0.1", external(shared)), loser})
	before := b.Snapshot().Get(portName("b"))
	b.Update([]policy.Input{loser})
	if b.Snapshot().Get(portName("b")) != before {
		t.Error("equal content made a new pointer")
	}
	loser.Slices = slicesOf("10.0.0.7")
	b.Update([]policy.Input{loser})
	diff(t, "owner", "a", owners(t, b.Snapshot())[shared+":80"])
	diff(t, "backends", 1, len(b.Snapshot().Get(portName("b")).Cluster))
	diff(t, "backend", "10.0.0.7:8080", b.Snapshot().Get(portName("b")).Cluster[0].Addr.String())
}
