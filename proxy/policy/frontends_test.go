package policy_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

type answer struct {
	Kind proxy.FrontendKind
	Addr string
}

func answers(sp *proxy.ServicePort) []answer {
	var list []answer
	for _, f := range sp.Frontends {
		list = append(list, answer{f.Kind, f.Addr.String()})
	}
	return list
}

func TestFrontendsOfEachFamily(t *testing.T) {
	v4 := resolveOne(t, input(service()), node())
	diff(t, "IPv4", []answer{
		{proxy.ClusterIP, "172.30.0.41:80"}, {proxy.LoadBalancerIP, "203.0.113.1:80"},
		{proxy.ExternalIP, "198.51.100.1:80"}, {proxy.NodePort, "0.0.0.0:30080"},
	}, answers(v4))
	v6 := resolveOne(t, input(service()), node(ipv6))
	diff(t, "IPv6", []answer{
		{proxy.ClusterIP, "[fd00:30::41]:80"}, {proxy.LoadBalancerIP, "[2001:db8:2::1]:80"},
		{proxy.ExternalIP, "[2001:db8:1::1]:80"}, {proxy.NodePort, "[::]:30080"},
	}, answers(v6))
}

func TestEachFamilyHasItsOwnEndpoints(t *testing.T) {
	six := slice(ep("fd00:1::1"))
	six.Family = proxy.IPv6
	in := input(service(), slice(ep("10.0.0.1"), ep("fd00:1::9")), six)
	diff(t, "IPv4", []string{"10.0.0.1"}, pool(resolveOne(t, in, node()).Cluster))
	diff(t, "IPv6", []string{"fd00:1::1"}, pool(resolveOne(t, in, node(ipv6)).Cluster))
}

func TestNothingIsServedWithoutServiceOrClusterIP(t *testing.T) {
	single := service(func(s *policy.Service) { s.ClusterIPs[proxy.IPv6] = netip.Addr{} })
	portless := service(func(s *policy.Service) { s.Ports = nil })
	for name, got := range map[string][]*proxy.ServicePort{
		"no Service":             policy.Resolve(input(nil, slice(ep("10.0.0.1"))), node()),
		"no ClusterIP of family": policy.Resolve(input(single), node(ipv6)),
		"no port":                policy.Resolve(input(portless), node()),
	} {
		if got != nil {
			t.Errorf("%s: %v, want nil", name, got)
		}
	}
	if policy.Resolve(input(single), node()) == nil {
		t.Error("the other family is not served")
	}
}

func TestAddressOfSeveralKindsIsOneFrontend(t *testing.T) {
	svc := service(ranges("192.0.2.0/24"))
	svc.LoadBalancerIPs = addrs("203.0.113.2", "203.0.113.1", "172.30.0.41", "203.0.113.2")
	svc.ExternalIPs = addrs("203.0.113.1", "172.30.0.41", "198.51.100.1", "198.51.100.1", "0.0.0.0")
	sp := resolveOne(t, input(svc, slice(ep("10.0.0.1"))), node())
	diff(t, "frontends", []answer{
		{proxy.ClusterIP, "172.30.0.41:80"}, {proxy.LoadBalancerIP, "203.0.113.1:80"}, {proxy.LoadBalancerIP, "203.0.113.2:80"},
		{proxy.ExternalIP, "198.51.100.1:80"}, {proxy.NodePort, "0.0.0.0:30080"},
	}, answers(sp))
}

func TestContradictoryPortsLoseToTheFirst(t *testing.T) {
	svc := service()
	svc.Ports = []policy.Port{
		{Name: "b", Protocol: proxy.TCP, Port: 80, NodePort: 30080},
		{Name: "b", Protocol: proxy.TCP, Port: 81},
		{Name: "same-number", Protocol: proxy.TCP, Port: 80},
		{Name: "same-node-port", Protocol: proxy.TCP, Port: 82, NodePort: 30080},
		{Name: "a", Protocol: proxy.TCP, Port: 30080}, // a NodePort's number is no port's
		{Name: "b", Protocol: proxy.UDP, Port: 80, NodePort: 30080},
	}
	var got []string
	for _, sp := range policy.Resolve(input(svc), node()) {
		got = append(got, sp.Name.String()+"/"+sp.Name.Protocol.String())
	}
	diff(t, "ServicePorts", []string{"ns/svc:a/tcp", "ns/svc:b/tcp", "ns/svc:b/udp"}, got)
}

func TestAllowedSources(t *testing.T) {
	for _, c := range []struct {
		name   string
		ranges []string
		vips   []string
		want   []netip.Prefix
	}{
		{name: "none"},
		{name: "other family only", ranges: []string{"2001:db8::/32"}},
		{name: "everyone", ranges: []string{"192.0.2.0/24", "0.0.0.0/0"}},
		{name: "everyone of the other family", ranges: []string{"192.0.2.0/24", "::/0"}, want: prefixes("192.0.2.0/24")},
		{
			name:   "sorted, masked and disjoint",
			ranges: []string{"198.51.100.7/24", "192.0.2.200/32", "192.0.2.5/24", "192.0.2.9/32", "198.51.100.0/24", "10.0.0.0/8"},
			want:   prefixes("10.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"),
		}, {
			name:   "the node is in a range: so are the VIPs",
			ranges: []string{"192.168.0.0/24"},
			vips:   []string{"203.0.113.1", "203.0.113.2"},
			want:   prefixes("192.168.0.0/24", "203.0.113.1/32", "203.0.113.2/32"),
		}, {
			name:   "the node is in a range that holds the VIP",
			ranges: []string{"192.0.0.0/6"},
			want:   prefixes("192.0.0.0/6", "203.0.113.1/32"),
		}, {
			name:   "the node is in a range and a VIP in another",
			ranges: []string{"192.168.0.2/32", "203.0.113.0/24"},
			want:   prefixes("192.168.0.2/32", "203.0.113.0/24"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := service(ranges(c.ranges...))
			if c.vips != nil {
				svc.LoadBalancerIPs = addrs(c.vips...)
			}
			for _, endpoints := range [][]policy.Endpoint{nil, {ep("10.0.0.1")}} {
				for _, f := range resolveOne(t, input(svc, slice(endpoints...)), node()).Frontends {
					var want []netip.Prefix
					if f.Kind == proxy.LoadBalancerIP {
						want = c.want
					}
					diff(t, f.Kind.String(), want, f.Allowed)
				}
			}
		})
	}
}

func TestUnknownNodeAddressIsInNoRange(t *testing.T) {
	n := node(func(n *proxy.Node) { n.IP = netip.Addr{} })
	sp := resolveOne(t, input(service(ranges("192.168.0.0/24"))), n)
	diff(t, "allowed", prefixes("192.168.0.0/24"), frontend(t, sp, proxy.LoadBalancerIP).Allowed)
}
