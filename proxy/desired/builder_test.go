package desired_test

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func addrs(list ...string) []netip.Addr {
	var result []netip.Addr
	for _, s := range list {
		result = append(result, netip.MustParseAddr(s))
	}
	return result
}

func node(change ...func(*proxy.Node)) *proxy.Node {
	n := &proxy.Node{Name: "here", IP: netip.MustParseAddr("192.168.0.2"), PodSource: proxy.PodSource{Kind: proxy.PodSourcePrefix}}
	for _, c := range change {
		c(n)
	}
	return n
}

// input is a Service with one TCP port and one endpoint on another node.
func input(name, clusterIP string, change ...func(*policy.Service)) policy.Input {
	in := policy.Input{
		Name: proxy.ServiceName{Namespace: "ns", Name: name},
		Service: &policy.Service{
			Created:    noon,
			Ports:      []policy.Port{{Name: "http", Protocol: proxy.TCP, Port: 80}},
			ClusterIPs: [2]netip.Addr{netip.MustParseAddr(clusterIP)},
		},
		Slices: slicesOf("10.0.0.1"),
	}
	for _, c := range change {
		c(in.Service)
	}
	return in
}

func slicesOf(addresses ...string) []*policy.Slice {
	s := &policy.Slice{Ports: []policy.SlicePort{{Name: "http", Protocol: proxy.TCP, Port: 8080}}}
	for _, a := range addrs(addresses...) {
		s.Endpoints = append(s.Endpoints, policy.Endpoint{Addr: a, NodeName: "there", Ready: true, Serving: true})
	}
	return []*policy.Slice{s}
}

func external(ips ...string) func(*policy.Service) {
	return func(s *policy.Service) { s.ExternalIPs = addrs(ips...) }
}

func olderBy(d time.Duration) func(*policy.Service) {
	return func(s *policy.Service) { s.Created = s.Created.Add(-d) }
}

func portName(service string) proxy.ServicePortName {
	return proxy.ServicePortName{Namespace: "ns", Name: service, Port: "http", Protocol: proxy.TCP}
}

func key(addrPort string) proxy.FrontendKey {
	return proxy.FrontendKey{Addr: netip.MustParseAddrPort(addrPort), Protocol: proxy.TCP}
}

// owners maps each frontend of a snapshot to the Service that answers on it.
func owners(t *testing.T, s *proxy.Snapshot) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, port := range s.All() {
		for _, f := range port.Frontends {
			if other, taken := found[f.Addr.String()]; taken {
				t.Errorf("%v belongs to %s and %s", f.Addr, other, name.Name)
			}
			found[f.Addr.String()] = name.Name
		}
	}
	return found
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	compare := cmp.Options{
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestSnapshotStaysTheSameUntilSomethingChanges(t *testing.T) {
	b := desired.NewBuilder(node())
	empty := b.Snapshot()
	if empty.Len() != 0 || b.Snapshot() != empty {
		t.Errorf("the first snapshot has %d ports", empty.Len())
	}
	b.Update([]policy.Input{input("a", "172.30.0.1"), input("b", "172.30.0.2")})
	first := b.Snapshot()
	if first.Len() != 2 {
		t.Fatalf("%d ports, want 2", first.Len())
	}
	b.Update(nil)
	b.Update([]policy.Input{input("a", "172.30.0.1"), {Name: proxy.ServiceName{Namespace: "ns", Name: "unknown"}}})
	b.SetNode(node())
	if b.Snapshot() != first {
		t.Error("equal content made a new snapshot")
	}
}

func TestOnlyChangedPortsGetANewPointer(t *testing.T) {
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{input("a", "172.30.0.1"), input("b", "172.30.0.2")})
	first := b.Snapshot()
	changed := input("b", "172.30.0.2")
	changed.Slices = slicesOf("10.0.0.2")
	b.Update([]policy.Input{input("a", "172.30.0.1"), changed})
	second := b.Snapshot()
	if second.Get(portName("a")) != first.Get(portName("a")) || second.Get(portName("b")) == first.Get(portName("b")) {
		t.Error("pointers do not tell what has changed")
	}
	diff(t, "changes", map[proxy.ServicePortName]proxy.Change{
		portName("b"): {Old: first.Get(portName("b")), New: second.Get(portName("b"))},
	}, maps.Collect(second.Changes(first)))
}

func TestChangesThatAreUndoneKeepTheSnapshot(t *testing.T) {
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{input("a", "172.30.0.1")})
	first := b.Snapshot()
	b.Update([]policy.Input{{Name: proxy.ServiceName{Namespace: "ns", Name: "a"}}, input("b", "172.30.0.2")})
	b.SetNode(node(func(n *proxy.Node) { n.MasqueradeAll = true }))
	b.Update([]policy.Input{input("a", "172.30.0.1"), {Name: proxy.ServiceName{Namespace: "ns", Name: "b"}}})
	b.SetNode(node())
	if b.Snapshot() != first {
		t.Error("equal content made a new snapshot")
	}
}

func TestServiceThatGoesTakesItsPortsAlong(t *testing.T) {
	two := func(s *policy.Service) {
		s.Ports = append(s.Ports, policy.Port{Name: "dns", Protocol: proxy.UDP, Port: 53})
	}
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{input("a", "172.30.0.1", two)})
	if got := b.Snapshot().Len(); got != 2 {
		t.Fatalf("%d ports, want 2", got)
	}
	b.Update([]policy.Input{input("a", "172.30.0.1")})
	if got := b.Snapshot(); got.Len() != 1 || got.Get(portName("a")) == nil {
		t.Fatalf("%d ports, want 1", got.Len())
	}
	b.Update([]policy.Input{{Name: proxy.ServiceName{Namespace: "ns", Name: "a"}}})
	if got := b.Snapshot().Len(); got != 0 {
		t.Errorf("%d ports, want none", got)
	}
}

func TestNodeChanges(t *testing.T) {
	b := desired.NewBuilder(node())
	in := input("a", "172.30.0.1", external("198.51.100.1"), func(s *policy.Service) { s.ExternalLocal = true })
	b.Update([]policy.Input{in})
	first := b.Snapshot()

	moved := node(func(n *proxy.Node) { n.Addrs = addrs("192.168.0.2") })
	b.SetNode(moved)
	second := b.Snapshot()
	if second == first || second.Node() != moved || second.Get(portName("a")) != first.Get(portName("a")) {
		t.Error("a fact that no policy reads must change the node and nothing else")
	}

	renamed := node(func(n *proxy.Node) { n.Name = "there" })
	b.SetNode(renamed)
	third := b.Snapshot()
	if third.Node() != renamed || third.Get(portName("a")).Local == nil {
		t.Errorf("the endpoint on this node is not local: %+v", third.Get(portName("a")))
	}
}

func TestServiceThatIsNoLongerALoadBalancerLosesAllItsFrontends(t *testing.T) {
	b := desired.NewBuilder(node())
	b.Update([]policy.Input{input("a", "172.30.0.1", external("198.51.100.1"), func(s *policy.Service) {
		s.LoadBalancerIPs, s.Ports[0].NodePort = addrs("203.0.113.1"), 30080
		s.ExternalLocal, s.HealthCheckNodePort = true, 32000
	})})
	diff(t, "frontends", 4, len(b.Snapshot().Get(portName("a")).Frontends))
	b.Update([]policy.Input{input("a", "172.30.0.1")})
	diff(t, "owners", map[string]string{"172.30.0.1:80": "a"}, owners(t, b.Snapshot()))
	diff(t, "health check port", uint16(0), b.Snapshot().Get(portName("a")).HealthCheckNodePort)
}

func TestBuildIsOneUpdate(t *testing.T) {
	inputs := []policy.Input{input("a", "172.30.0.1"), input("b", "172.30.0.2", external("172.30.0.1"))}
	s := desired.Build(node(), inputs)
	diff(t, "owners", map[string]string{"172.30.0.1:80": "a", "172.30.0.2:80": "b"}, owners(t, s))
}
