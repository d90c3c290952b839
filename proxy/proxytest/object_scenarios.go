package proxytest

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

func objectScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "headless and ExternalName Services are nothing",
			Rules: []string{"R3", "R16"},
			Steps: []Step{
				{
					Set: set(
						service("headless", corev1.ClusterIPNone, tcp80At(30080), externalIPs("203.0.113.10")), slice("headless", ready("pod-a")),
						service("pending", "", tcp80At(30081), externalIPs("203.0.113.11")), slice("pending", ready("pod-a")),
						service("name", "10.96.0.12", tcp80At(30082), externalIPs("203.0.113.12"), externalName), slice("name", ready("pod-a"))),
					Packets: `
						client -> 203.0.113.10:80: unhandled
						client -> 203.0.113.11:80: unhandled
						client -> 203.0.113.12:80: unhandled
						client -> 192.168.50.1:30080: unhandled
						client -> 192.168.50.1:30081: unhandled
						client -> 192.168.50.1:30082: unhandled
						pod-b  -> 10.96.0.12:80: dropped
					`,
				},
				{
					Name: "they become ClusterIP Services",
					Set: set(
						service("headless", "10.96.0.10", tcp80At(30080)), service("pending", "10.96.0.11", tcp80At(30081)),
						service("name", "10.96.0.12", tcp80, externalIPs("203.0.113.12"))),
					Packets: `
						client -> 192.168.50.1:30080: pod-a, masq
						client -> 192.168.50.1:30081: pod-a, masq
						client -> 203.0.113.12:80: pod-a, masq
						pod-b  -> 10.96.0.12:80: pod-a
					`,
				},
				{
					Name:    "and back",
					Set:     set(service("name", "10.96.0.12", tcp80, externalIPs("203.0.113.12"), externalName)),
					Packets: `client -> 203.0.113.12:80: unhandled`,
				},
			},
		},
		{
			Name:  "annotations and unknown labels mean nothing",
			Rules: []string{"R4", "R9"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10"), func(s *corev1.Service) {
					s.Annotations = map[string]string{
						corev1.AnnotationLoadBalancerSourceRangesKey: "203.0.113.0/24",
						"service.kubernetes.io/topology-mode":        "Auto",
					}
					s.Labels = map[string]string{"app": "web"}
					distribution := "PreferClose"
					s.Spec.TrafficDistribution = &distribution
				}), both("web")),
				Packets: `client -> 198.51.100.10:80: pod-a remote-a, masq`,
			}},
		},
		{
			Name:  "malformed objects spoil nobody else",
			Rules: []string{"R8", "R50", "R140", "R141", "R172"},
			Steps: []Step{
				{
					Set: set(
						service("good", "10.96.0.10", tcp80At(30080)), both("good"),
						service("odd", "10.96.0.11", tcp80At(30081), externalIPs("", "999.1.1.1", "nonsense", "203.0.113.11"), loadBalancer("", "nonsense"),
							sourceRanges("nonsense", "10.0.0.0/99")),
						sliceOf("odd-1", "odd", nil, ready("pod-a")),
						oddSlice("odd-2", "odd"),
						sliceOf("odd-3", "odd", []slicePort{{"", proxy.TCP, 0}}, ready("pod-a")),
						sliceOf("odd-4", "odd", []slicePort{{"", proxy.TCP, 8080}}, endpointAt("nonsense"), endpoint{}, ready("pod-c")),
						ofType(sliceOf("odd-5", "odd", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a")), discoveryv1.AddressTypeFQDN),
						ofType(sliceOf("odd-6", "odd", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a")), "Nonsense"),
						service("ill", "not-an-address", tcp80At(30082)), slice("ill", ready("pod-a")),
						service("bare", "10.96.0.13")),
					Packets: `
						pod-b  -> 10.96.0.10:80: pod-a remote-a
						client -> 192.168.50.1:30080: pod-a remote-a, masq
						pod-b  -> 10.96.0.11:80: pod-c
						client -> 203.0.113.11:80: pod-c, masq
						client -> 192.168.50.1:30081: pod-c, masq
						client -> 192.168.50.1:30082: unhandled
					`,
				},
				{
					Name: "the good one changes meanwhile",
					Set:  set(slice("good", ready("pod-b"))),
					Packets: `
						pod-c -> 10.96.0.10:80: pod-b
						pod-b -> 10.96.0.11:80: pod-c
					`,
				},
			},
		},
		{
			Name:     "leading zeros are decimal",
			Rules:    []string{"R95", "R96", "R98"},
			Families: []proxy.Family{proxy.IPv4},
			Steps: []Step{{
				Set: set(
					service("web", "10.096.000.010", tcp80, externalIPs("203.0.113.010"), loadBalancer("198.051.100.010"), sourceRanges("192.168.050.100/032", "10.1.0.255/024")),
					slice("web", endpointAt("10.01.000.010").on(nodeName))),
				Packets: `
					pod-b  -> 10.96.0.10:80: pod-a
					client -> 203.0.113.10:80: pod-a, masq
					client -> 198.51.100.10:80: pod-a, masq
					pod-b  -> 198.51.100.10:80: pod-a, masq
					client@192.168.50.101 -> 198.51.100.10:80: dropped
				`,
			}},
		},
		{
			Name:     "IPv4 in IPv6 is IPv4",
			Rules:    []string{"R97"},
			Families: []proxy.Family{proxy.IPv4},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", tcp80, externalIPs("::ffff:203.0.113.10"), loadBalancer("198.51.100.10"), sourceRanges("::ffff:192.168.50.100/128")),
					slice("web", ready("pod-a"))),
				Packets: `
					client -> 203.0.113.10:80: pod-a, masq
					client -> 198.51.100.10:80: pod-a, masq
					client@192.168.50.101 -> 198.51.100.10:80: dropped
				`,
			}},
		},
		{
			Name:  "an address that two Services claim has one owner",
			Rules: []string{"R17"},
			Steps: []Step{
				{
					Set: set(
						service("younger", "10.96.0.10", tcp80, externalIPs("203.0.113.10", "203.0.113.11"), created(2)), slice("younger", ready("pod-a")),
						service("older", "10.96.0.11", tcp80, externalIPs("203.0.113.10", "10.96.0.10"), created(1)), slice("older", ready("pod-b"))),
					Packets: `
						client -> 203.0.113.10:80: pod-b, masq
						client -> 203.0.113.11:80: pod-a, masq
						pod-c  -> 10.96.0.10:80: pod-a   # a ClusterIP is its Service's
						pod-c  -> 10.96.0.11:80: pod-b
					`,
				},
				{
					Name:   "the owner goes",
					Delete: set(service("older", "10.96.0.11")),
					Packets: `
						client -> 203.0.113.10:80: pod-a, masq
						pod-c  -> 10.96.0.10:80: pod-a
					`,
				},
				{
					Name: "it comes back and has no endpoints",
					Set:  set(service("older", "10.96.0.11", tcp80, externalIPs("203.0.113.10"), created(1)), slice("older")),
					Packets: `
						client -> 203.0.113.10:80: refused
						client -> 203.0.113.11:80: pod-a, masq
					`,
				},
			},
		},
		{
			Name:  "an address that a Service names twice",
			Rules: []string{"R17", "R67"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, externalIPs("198.51.100.10", "203.0.113.10", "203.0.113.10"), loadBalancer("198.51.100.10", "198.51.100.10"),
					sourceRanges("192.168.50.101/32")), both("web")),
				Packets: `
					client@192.168.50.101 -> 198.51.100.10:80: pod-a remote-a, masq
					client -> 198.51.100.10:80: dropped   # its source ranges hold
					client -> 203.0.113.10:80: pod-a remote-a, masq
				`,
			}},
		},
		{
			Name:  "names may be as long as they may be",
			Rules: []string{"R5", "R16"},
			Steps: []Step{{
				Set: set(
					longNamed(service(longName, "10.96.0.10", port(longPort, proxy.TCP, 80, 30080), affinity(600))),
					longNamed(sliceOf(longName, longName, []slicePort{{longPort, proxy.TCP, 8080}}, ready("pod-a"))),
					longNamed(service(longName[1:]+"y", "10.96.0.11", port(longPort, proxy.TCP, 80, 30081), loadBalancer("198.51.100.11"), sourceRanges("192.168.50.0/24")))),
				Packets: `
					pod-b  -> 10.96.0.10:80: pod-a
					client -> 192.168.50.1:30080: pod-a, masq
					client -> 198.51.100.11:80: refused
					client -> 192.168.50.1:30081: refused
				`,
			}},
		},
	}
}

func externalName(s *corev1.Service) {
	s.Spec.Type = corev1.ServiceTypeExternalName
	s.Spec.ExternalName = "example.com"
}

func ofType(s *discoveryv1.EndpointSlice, t discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	s.AddressType = t
	return s
}

// oddSlice has ports without a number, and without anything.
func oddSlice(name, of string) *discoveryv1.EndpointSlice {
	s := sliceOf(name, of, []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a"))
	s.Ports[0].Port = nil
	s.Ports = append(s.Ports, discoveryv1.EndpointPort{})
	return s
}

// The longest names that the API allows.
var (
	longName      = strings.Repeat("x", 63)
	longPort      = strings.Repeat("p", 63)
	longNamespace = strings.Repeat("n", 63)
)

func longNamed(o runtime.Object) runtime.Object {
	switch o := o.(type) {
	case *corev1.Service:
		o.Namespace = longNamespace
	case *discoveryv1.EndpointSlice:
		o.Namespace = longNamespace
	}
	return o
}
