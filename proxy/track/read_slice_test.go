package track

import (
	"net/netip"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func TestSlicesThatNoServiceCanUse(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		used   bool
	}{
		{"plain", func(*discoveryv1.EndpointSlice) {}, true},
		{"headless", func(s *discoveryv1.EndpointSlice) { s.Labels[corev1.IsHeadlessService] = "" }, false},
		{"no Service", func(s *discoveryv1.EndpointSlice) { delete(s.Labels, discoveryv1.LabelServiceName) }, false},
		{"Service name that is not one", func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "A_b" }, false},
		{"name that is not one", func(s *discoveryv1.EndpointSlice) { s.Name = "a b" }, false},
		{"FQDN", func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, false},
		{"no type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "" }, false},
		{"dotted name", func(s *discoveryv1.EndpointSlice) { s.Name = "a.b-c" }, true},
	} {
		s := newSlice("slice", "svc", "10.0.0.1")
		c.change(s)
		if got := readSlice(s) != nil; got != c.used {
			t.Errorf("%s: used: %t", c.name, got)
		}
	}
}

func TestSlicePorts(t *testing.T) {
	s := newSlice("slice", "svc")
	tcp, udp, icmp := corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.Protocol("ICMP")
	s.Ports = []discoveryv1.EndpointPort{
		{Name: ptr("b"), Port: ptr(int32(8080)), Protocol: &tcp},
		{Name: ptr(""), Port: ptr(int32(8080))},
		{Name: ptr("b"), Port: ptr(int32(8080)), Protocol: &udp},
		{Name: ptr("b"), Port: ptr(int32(8080)), Protocol: &tcp},
		{Name: nil, Port: ptr(int32(8080)), Protocol: &tcp},
		{Name: ptr("no number"), Protocol: &tcp},
		{Name: ptr("zero"), Port: ptr(int32(0)), Protocol: &tcp},
		{Name: ptr("negative"), Port: ptr(int32(-1)), Protocol: &tcp},
		{Name: ptr("huge"), Port: ptr(int32(1 << 30)), Protocol: &tcp},
		{Name: ptr("icmp"), Port: ptr(int32(8080)), Protocol: &icmp},
	}
	diff(t, "ports", []policy.SlicePort{
		{Name: "", Protocol: proxy.TCP, Port: 8080},
		{Name: "b", Protocol: proxy.TCP, Port: 8080},
		{Name: "b", Protocol: proxy.UDP, Port: 8080},
	}, readSlice(s).Ports)
}

func TestEndpoints(t *testing.T) {
	s := newSlice("slice", "svc")
	no, yes := ptr(false), ptr(true)
	s.Endpoints = []discoveryv1.Endpoint{
		{Addresses: []string{"10.0.0.9", "10.0.0.10"}},
		{Addresses: []string{"10.0.0.08"}, NodeName: ptr("node-1")},
		{Addresses: []string{"::ffff:10.0.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: no}},
		{Addresses: []string{"10.0.0.6"}, Conditions: discoveryv1.EndpointConditions{Ready: no, Serving: no, Terminating: yes}},
		{Addresses: []string{"10.0.0.5"}, Hints: &discoveryv1.EndpointHints{}},
		{Addresses: []string{"10.0.0.4"}, Hints: &discoveryv1.EndpointHints{
			ForZones: []discoveryv1.ForZone{{Name: "b"}, {Name: "a"}, {Name: "b"}},
			ForNodes: []discoveryv1.ForNode{{Name: "node-2"}},
		}},
		{},
		{Addresses: []string{""}}, {Addresses: []string{"x"}}, {Addresses: []string{"fd00::1"}},
		{Addresses: []string{"127.0.0.1"}}, {Addresses: []string{"0.0.0.0"}}, {Addresses: []string{"169.254.169.254"}}, {Addresses: []string{"224.0.0.1"}},
	}
	a := netip.MustParseAddr
	diff(t, "endpoints", []policy.Endpoint{
		{Addr: a("10.0.0.4"), Ready: true, Serving: true, Zones: []string{"a", "b"}, Nodes: []string{"node-2"}},
		{Addr: a("10.0.0.5"), Ready: true, Serving: true},
		{Addr: a("10.0.0.6"), Terminating: true},
		{Addr: a("10.0.0.7"), Serving: true},
		{Addr: a("10.0.0.8"), NodeName: "node-1", Ready: true, Serving: true},
		{Addr: a("10.0.0.9"), Ready: true, Serving: true},
	}, readSlice(s).Endpoints)
}

func TestIPv6Slice(t *testing.T) {
	s := newSlice("slice", "svc", "10.0.0.1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "fd00::2%eth0")
	s.AddressType = discoveryv1.AddressTypeIPv6
	got := readSlice(s)
	if got.Family != proxy.IPv6 || len(got.Endpoints) != 1 || got.Endpoints[0].Addr != netip.MustParseAddr("fd00::1") {
		t.Errorf("slice is %+v", got)
	}
}

// The names of nodes and zones repeat hundreds of thousands of times.
func TestNamesShareTheirMemory(t *testing.T) {
	endpoint := func(node string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{
			Addresses: []string{"10.0.0.1"}, NodeName: ptr(string([]byte(node))),
			Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: string([]byte("zone"))}}},
		}
	}
	first, second := newSlice("a", "svc"), newSlice("b", "svc")
	first.Endpoints, second.Endpoints = []discoveryv1.Endpoint{endpoint("node-1")}, []discoveryv1.Endpoint{endpoint("node-1")}
	in := Inputs(Config{}, nil, nil)
	if in != nil {
		t.Errorf("inputs of nothing: %v", in)
	}
	r := newReader(Config{})
	x, _ := r.slice(first)
	y, _ := r.slice(second)
	a, b := x.Endpoints[0], y.Endpoints[0]
	if unsafe.StringData(a.NodeName) != unsafe.StringData(b.NodeName) || &a.Zones[0] != &b.Zones[0] {
		t.Error("equal names are stored twice")
	}
	if unsafe.StringData(a.NodeName) == unsafe.StringData(*first.Endpoints[0].NodeName) {
		t.Error("the name still belongs to the API object")
	}
}

func TestInternedNamesAreBounded(t *testing.T) {
	n := newInterner()
	for i := range 3*maxInterned + 10 {
		name := string(rune('a'+i%26)) + string([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		if got := n.string(name); got != name {
			t.Fatalf("%q became %q", name, got)
		}
		if got := n.set([]string{name}); len(got) != 1 || got[0] != name {
			t.Fatalf("%q became %q", name, got)
		}
	}
	if len(n.strings) > maxInterned || len(n.lists) > maxInterned {
		t.Errorf("%d names and %d lists are kept, more than %d", len(n.strings), len(n.lists), maxInterned)
	}
}
