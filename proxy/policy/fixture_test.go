package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// here and there are the node of the tests and another one.
const (
	here  = "here"
	there = "there"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) []netip.Addr {
	var result []netip.Addr
	for _, s := range list {
		result = append(result, addr(s))
	}
	return result
}

func prefixes(list ...string) []netip.Prefix {
	var result []netip.Prefix
	for _, s := range list {
		result = append(result, netip.MustParsePrefix(s))
	}
	return result
}

// node is an IPv4 node in zone-a that recognises pods.
func node(change ...func(*proxy.Node)) *proxy.Node {
	n := &proxy.Node{
		Family:    proxy.IPv4,
		Name:      here,
		Zone:      "zone-a",
		IP:        addr("192.168.0.2"),
		PodSource: proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func noPodSource(n *proxy.Node)   { n.PodSource = proxy.PodSource{} }
func masqueradeAll(n *proxy.Node) { n.MasqueradeAll = true }
func ipv6(n *proxy.Node)          { n.Family, n.IP = proxy.IPv6, addr("fd00::2") }

// service has one TCP port that every kind of frontend serves.
func service(change ...func(*policy.Service)) *policy.Service {
	s := &policy.Service{
		Ports:           []policy.Port{{Name: "http", Protocol: proxy.TCP, Port: 80, NodePort: 30080}},
		ClusterIPs:      [2]netip.Addr{addr("172.30.0.41"), addr("fd00:30::41")},
		ExternalIPs:     addrs("198.51.100.1", "2001:db8:1::1"),
		LoadBalancerIPs: addrs("203.0.113.1", "2001:db8:2::1"),
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func internalLocal(s *policy.Service) { s.InternalLocal = true }
func externalLocal(s *policy.Service) { s.ExternalLocal = true }
func clusterIPOnly(s *policy.Service) {
	s.ExternalIPs, s.LoadBalancerIPs, s.Ports[0].NodePort = nil, nil, 0
}
func udp(s *policy.Service)           { s.Ports[0].Protocol = proxy.UDP }
func healthChecked(s *policy.Service) { s.ExternalLocal, s.HealthCheckNodePort = true, 32000 }
func ranges(r ...string) func(*policy.Service) {
	return func(s *policy.Service) { s.SourceRanges = prefixes(r...) }
}

type option func(*policy.Endpoint)

// ep is a ready endpoint on another node.
func ep(address string, options ...option) policy.Endpoint {
	e := policy.Endpoint{Addr: addr(address), NodeName: there, Ready: true, Serving: true}
	for _, o := range options {
		o(&e)
	}
	return e
}

func local(e *policy.Endpoint)          { e.NodeName = here }
func nowhere(e *policy.Endpoint)        { e.NodeName = "" }
func unready(e *policy.Endpoint)        { e.Ready, e.Serving = false, false }
func unreadyServing(e *policy.Endpoint) { e.Ready = false }
func draining(e *policy.Endpoint)       { e.Ready, e.Terminating = false, true }
func dead(e *policy.Endpoint)           { e.Ready, e.Serving, e.Terminating = false, false, true }
func published(e *policy.Endpoint)      { e.Ready, e.Serving, e.Terminating = true, false, false }
func zones(z ...string) option          { return func(e *policy.Endpoint) { e.Zones = z } }
func nodes(n ...string) option          { return func(e *policy.Endpoint) { e.Nodes = n } }

// slice listens on port 8080 of each endpoint for http, TCP.
func slice(endpoints ...policy.Endpoint) *policy.Slice {
	return &policy.Slice{
		Ports:     []policy.SlicePort{{Name: "http", Protocol: proxy.TCP, Port: 8080}},
		Endpoints: endpoints,
	}
}

func sliceUDP(endpoints ...policy.Endpoint) *policy.Slice {
	s := slice(endpoints...)
	s.Ports[0].Protocol = proxy.UDP
	return s
}

func input(s *policy.Service, slices ...*policy.Slice) policy.Input {
	return policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: "svc"}, Service: s, Slices: slices}
}

// resolveOne is the only ServicePort of the input.
func resolveOne(t *testing.T, in policy.Input, n *proxy.Node) *proxy.ServicePort {
	t.Helper()
	ports := policy.Resolve(in, n)
	if len(ports) != 1 {
		t.Fatalf("Resolve gives %d ServicePorts, want 1", len(ports))
	}
	return ports[0]
}

// frontend is the only frontend of that kind.
func frontend(t *testing.T, sp *proxy.ServicePort, kind proxy.FrontendKind) proxy.Frontend {
	t.Helper()
	var found []proxy.Frontend
	for _, f := range sp.Frontends {
		if f.Kind == kind {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d frontends of kind %v, want 1", len(found), kind)
	}
	return found[0]
}

// show writes a table as "pod, node, outside", each a verdict, or a pool and M if it masquerades.
func show(routes proxy.Routes) string {
	var words []string
	for _, r := range routes {
		word := r.Verdict.String()
		if r.Verdict == proxy.Forward {
			word = map[proxy.Pool]string{proxy.ClusterPool: "all", proxy.LocalPool: "loc"}[r.Pool]
			if r.Masquerade {
				word += " M"
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func pool(list []proxy.Backend) []string {
	var result []string
	for _, b := range list {
		result = append(result, b.Addr.Addr().String())
	}
	return result
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, equateNetip); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

var equateNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
