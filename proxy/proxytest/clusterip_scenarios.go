package proxytest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

// set is a list of objects, for short.
func set(objects ...runtime.Object) []runtime.Object { return objects }

// both is a local and a remote endpoint of a Service: what most scenarios balance between.
func both(service string) runtime.Object { return slice(service, ready("pod-a"), ready("remote-a")) }

func clusterIPScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "ClusterIP reaches every endpoint from everywhere",
			Rules: []string{"R5", "R20", "R21", "R80", "R122", "R128"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80), both("web"), service("near", "10.96.0.11", tcp80), slice("near", ready("pod-a"))),
				Packets: `
					pod-b    -> 10.96.0.10:80: pod-a remote-a
					pod-a    -> 10.96.0.10:80: pod-a(masq) remote-a
					node     -> 10.96.0.10:80: pod-a remote-a, masq
					client   -> 10.96.0.10:80: pod-a remote-a, masq
					remote   -> 10.96.0.11:80: pod-a, masq
					remote-b -> 10.96.0.11:80: pod-a
				`,
			}},
		},
		{
			Name:  "ports that a ClusterIP does not have are rejected",
			Rules: []string{"R23", "R25", "R182"},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", tcp80), slice("web", ready("pod-a")),
					service("db", "10.96.0.11", port("", proxy.TCP, 81, 0)), slice("db", ready("pod-b")),
					service("empty", "10.96.0.12", tcp80)),
				Packets: `
					pod-c  -> 10.96.0.10:80: pod-a
					pod-c  -> 10.96.0.11:81: pod-b
					pod-c  -> 10.96.0.10:81: refused   # the other Service's port
					pod-c  -> 10.96.0.10:80/udp: refused
					pod-c  -> 10.96.0.10:80/sctp: refused
					pod-c  -> 10.96.0.10/icmp: refused
					node   -> 10.96.0.10:81: refused
					node   -> 10.96.0.10:80/udp: refused
					client -> 10.96.0.10:81: refused
					client -> 10.96.0.11/icmp: refused
					remote-b -> 10.96.0.10:81: refused
					pod-c  -> 10.96.0.12:81: refused
					node   -> 10.96.0.12:80/udp: refused
				`,
			}},
		},
		{
			Name:  "addresses of a ServiceCIDR that nobody has are dropped",
			Rules: []string{"R24"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80), slice("web", ready("pod-a"))),
					Packets: `
						pod-b  -> 10.96.0.10:80: pod-a
						pod-b  -> 10.96.0.99:80: dropped
						pod-b  -> 10.96.255.254:80/udp: dropped
						node   -> 10.96.0.99:80: dropped
						client -> 10.96.0.99:80: dropped
						pod-b  -> 10.97.0.99:80: unhandled
					`,
				},
				{
					Name:    "a deleted Service's address too",
					Delete:  set(service("web", "10.96.0.10", tcp80)),
					Packets: `pod-b -> 10.96.0.10:80: dropped`,
				},
				{
					Name: "the range is not known",
					Node: &Node{NoServiceCIDR: true},
					Packets: `
						pod-b -> 10.96.0.99:80: unhandled
						node  -> 10.96.0.99:80: unhandled
					`,
				},
			},
		},
		{
			Name:  "TCP, UDP and SCTP on one port are three",
			Rules: []string{"R5", "R6", "R180", "R181"},
			Steps: []Step{
				{
					Set: set(
						service("dns", "10.96.0.53", port("tcp", proxy.TCP, 53, 30053), port("udp", proxy.UDP, 53, 30053), port("sctp", proxy.SCTP, 53, 30053),
							externalIPs("203.0.113.53"), loadBalancer("198.51.100.53")),
						sliceOf("dns-1", "dns", []slicePort{{"tcp", proxy.TCP, 8053}, {"udp", proxy.UDP, 8054}, {"sctp", proxy.SCTP, 8055}}, ready("pod-a"), ready("remote-a"))),
					Packets: `
						pod-b  -> 10.96.0.53:53: pod-a:8053 remote-a:8053
						pod-b  -> 10.96.0.53:53/udp: pod-a:8054 remote-a:8054
						pod-b  -> 10.96.0.53:53/sctp: pod-a:8055 remote-a:8055
						pod-a  -> 10.96.0.53:53/udp: pod-a:8054(masq) remote-a:8054
						node   -> 10.96.0.53:53/udp: pod-a:8054 remote-a:8054, masq
						client -> 10.96.0.53:53/sctp: pod-a:8055 remote-a:8055, masq
						client -> 192.168.50.1:30053: pod-a:8053 remote-a:8053, masq
						client -> 192.168.50.1:30053/udp: pod-a:8054 remote-a:8054, masq
						client -> 192.168.50.1:30053/sctp: pod-a:8055 remote-a:8055, masq
						client -> 203.0.113.53:53/udp: pod-a:8054 remote-a:8054, masq
						client -> 203.0.113.53:53/sctp: pod-a:8055 remote-a:8055, masq
						pod-b  -> 198.51.100.53:53/udp: pod-a:8054 remote-a:8054, masq
						client -> 198.51.100.53:53/sctp: pod-a:8055 remote-a:8055, masq
						pod-b  -> 198.51.100.53:53: pod-a:8053 remote-a:8053, masq
					`,
				},
				{
					Name: "each loses its endpoints alone",
					Set: set(
						sliceOf("dns-1", "dns", []slicePort{{"tcp", proxy.TCP, 8053}, {"sctp", proxy.SCTP, 8055}}, ready("pod-a"))),
					Packets: `
						pod-b  -> 10.96.0.53:53: pod-a:8053
						pod-b  -> 10.96.0.53:53/udp: refused
						client -> 192.168.50.1:30053/udp: refused
						pod-b  -> 10.96.0.53:53/sctp: pod-a:8055
					`,
				},
			},
		},
		{
			Name:  "endpoints are found by the name of the port",
			Rules: []string{"R6", "R7", "R140"},
			Steps: []Step{
				{
					Name: "the slices come first",
					Set: set(
						sliceOf("web-1", "web", []slicePort{{"http", proxy.TCP, 8080}, {"admin", proxy.TCP, 9090}}, ready("pod-a")),
						sliceOf("web-2", "web", []slicePort{{"http", proxy.TCP, 8081}}, ready("pod-b")),
						sliceOf("web-3", "web", []slicePort{{"http", proxy.UDP, 8080}}, ready("pod-c")),
						sliceOf("stray", "", []slicePort{{"http", proxy.TCP, 8080}}, ready("pod-c"))),
				},
				{
					Set: set(service("web", "10.96.0.10", port("http", proxy.TCP, 80, 0), port("admin", proxy.TCP, 9000, 0), port("metrics", proxy.TCP, 8080, 0))),
					Packets: `
						node -> 10.96.0.10:80: pod-a:8080 pod-b:8081, masq
						node -> 10.96.0.10:9000: pod-a:9090, masq
						node -> 10.96.0.10:8080: refused
					`,
				},
				{
					Name: "the port is renamed",
					Set:  set(service("web", "10.96.0.10", port("renamed", proxy.TCP, 80, 0), port("admin", proxy.TCP, 9000, 0))),
					Packets: `
						node -> 10.96.0.10:80: refused
						node -> 10.96.0.10:9000: pod-a:9090, masq
						node -> 10.96.0.10:8080: refused
					`,
				},
			},
		},
		{
			Name:  "ClusterIP does not care about external policies",
			Rules: []string{"R22", "R84"},
			Node:  Node{NodePortAddresses: []string{"192.168.50.2/32"}},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), sourceRanges("192.168.50.104/32"), externalLocal), both("web")),
				Packets: `
					client -> 10.96.0.10:80: pod-a remote-a, masq
					pod-b  -> 10.96.0.10:80: pod-a remote-a
					node   -> 10.96.0.10:80: pod-a remote-a, masq
				`,
			}},
		},
		{
			Name:  "each family has its own ClusterIP and endpoints",
			Rules: []string{"R8", "R26", "R170", "R171", "R172"},
			Steps: []Step{{
				Set: set(
					dualStack(service("web", "10.96.0.10", tcp80At(30080), externalIPs("203.0.113.10", "fd00::203.0.113.10"))),
					both("web"),
					inOtherFamily(sliceOf("web-other", "web", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-b"))),
					onlyOtherFamily(service("other", "fd00::10.96.0.20", tcp80At(30081), externalIPs("203.0.113.20"))),
					slice("other", ready("pod-b"))),
				Packets: `
					pod-c  -> 10.96.0.10:80: pod-a remote-a
					client -> 192.168.50.1:30080: pod-a remote-a, masq
					client -> 203.0.113.10:80: pod-a remote-a, masq
					client -> 192.168.50.1:30081: unhandled   # no ClusterIP in this family
					client -> 203.0.113.20:80: unhandled
				`,
			}},
		},
		{
			Name:  "a Service may have a hundred ports",
			Rules: []string{"R5", "R20", "R36"},
			Steps: []Step{hundredPorts()},
		},
	}
}

func dualStack(s *corev1.Service) *corev1.Service {
	s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, twinText(s.Spec.ClusterIP))
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	return s
}

func onlyOtherFamily(s *corev1.Service) *corev1.Service {
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	return s
}

// inOtherFamily is the twin of a slice.
func inOtherFamily(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	return endpointSliceIn(proxy.IPv6, s)
}

// hundredPorts has as many ports as a Service may have.
func hundredPorts() Step {
	var parts []func(*corev1.Service)
	var ports []slicePort
	var packets strings.Builder
	for i := range int32(100) {
		name := fmt.Sprintf("p%d", i)
		parts = append(parts, port(name, proxy.TCP, 10000+i, 31000+i))
		ports = append(ports, slicePort{name, proxy.TCP, 8080 + i%4})
		if i%11 == 0 {
			fmt.Fprintf(&packets, "pod-b -> 10.96.0.10:%d: pod-a:%d\n", 10000+i, 8080+i%4)
			fmt.Fprintf(&packets, "client -> 192.168.50.2:%d: pod-a:%d, masq\n", 31000+i, 8080+i%4)
		}
	}
	packets.WriteString("pod-b -> 10.96.0.10:10100: refused\n")
	packets.WriteString("pod-b -> 10.96.0.10:9999: refused\n")
	return Step{
		Set:     set(service("many", "10.96.0.10", parts...), sliceOf("many", "many", ports, ready("pod-a"))),
		Packets: packets.String(),
	}
}
