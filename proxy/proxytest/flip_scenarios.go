package proxytest

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

// flipScenarios are about the settings of a Service that change under its connections.
func flipScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "policies change under connections",
			Rules: []string{"R81", "R84", "R111", "R181"},
			Steps: []Step{
				{
					Set: append(flippedPair(), sliceOf("web", "web", []slicePort{{"t", proxy.TCP, 8080}, {"u", proxy.UDP, 8080}}, ready("remote-a")),
						sliceOf("both", "both", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a"), ready("remote-a"))),
					Packets: `
						client -> 198.51.100.10:80 as tcp: remote-a, masq
						client -> 198.51.100.10:80/udp as udp: remote-a, masq
						pod-b  -> 10.96.0.10:80 as pod: remote-a
						client -> 198.51.100.11:80: pod-a remote-a, masq
						pod-b  -> 10.96.0.11:80: pod-a remote-a
					`,
				},
				{
					Name: "both policies become Local",
					Set:  flippedPair(externalLocal, internalLocal),
					Packets: `
						tcp again: same
						udp again: same
						pod again: same
						client -> 198.51.100.10:80: dropped
						pod-b  -> 10.96.0.10:80: dropped
						client -> 198.51.100.11:80: pod-a
						pod-b  -> 198.51.100.11:80: pod-a remote-a
						pod-b  -> 10.96.0.11:80: pod-a
						node   -> 198.51.100.11:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "the external one becomes Cluster",
					Set:  flippedPair(internalLocal),
					Packets: `
						tcp again: same
						udp again: same
						pod again: same
						client -> 198.51.100.10:80: remote-a, masq
						pod-b  -> 10.96.0.10:80: dropped
						client -> 198.51.100.11:80: pod-a remote-a, masq
						pod-b  -> 10.96.0.11:80: pod-a
					`,
				},
				{
					Name: "the other way round",
					Set:  flippedPair(externalLocal),
					Packets: `
						tcp again: same
						pod again: same
						client -> 198.51.100.10:80: dropped
						pod-b  -> 10.96.0.10:80: remote-a
						client -> 198.51.100.11:80: pod-a
						pod-b  -> 10.96.0.11:80: pod-a remote-a
					`,
				},
			},
		},
		{
			Name:  "affinity comes and goes under connections",
			Rules: []string{"R100", "R107", "R111", "R181"},
			Steps: []Step{
				{
					Set: set(stickyPair(), sliceOf("sticky", "sticky", []slicePort{{"t", proxy.TCP, 8080}, {"u", proxy.UDP, 8080}}, ready("pod-a"))),
					Packets: `
						client -> 203.0.113.10:80 as tcp: pod-a, masq
						client -> 203.0.113.10:80/udp as udp: pod-a, masq
					`,
				},
				{
					Name: "it comes, with more endpoints",
					Set: set(stickyPair(affinity(600)), sliceOf("sticky", "sticky", []slicePort{{"t", proxy.TCP, 8080}, {"u", proxy.UDP, 8080}},
						ready("pod-a"), ready("pod-b"), ready("remote-a"))),
					Packets: `
						tcp again: same
						udp again: same
						client@192.168.50.101 -> 203.0.113.10:80 as t: one of pod-a pod-b remote-a, masq
						client@192.168.50.101 -> 203.0.113.10:80: like t
						client@192.168.50.101 -> 203.0.113.10:80/udp as u: one of pod-a pod-b remote-a, masq
						client@192.168.50.101 -> 203.0.113.10:80/udp: like u
					`,
				},
				{
					Name: "it goes",
					Set:  set(stickyPair()),
					Packets: `
						tcp again: same
						udp again: same
						t again: same
						u again: same
						client@192.168.50.101 -> 203.0.113.10:80: pod-a pod-b remote-a, masq
						client@192.168.50.101 -> 203.0.113.10:80/udp: pod-a pod-b remote-a, masq
					`,
				},
				{
					Name: "and comes back",
					Set:  set(stickyPair(affinity(60))),
					Packets: `
						tcp again: same
						u again: same
						client@192.168.50.102 -> 203.0.113.10:80 as t2: one of pod-a pod-b remote-a, masq
						client@192.168.50.102 -> 203.0.113.10:80: like t2
					`,
				},
			},
		},
	}
}

// flippedPair is a Service of TCP and UDP, and one of TCP, both with that setting.
func flippedPair(parts ...func(*corev1.Service)) []runtime.Object {
	with := func(more ...func(*corev1.Service)) []func(*corev1.Service) { return append(more, parts...) }
	return set(
		service("web", "10.96.0.10", with(port("t", proxy.TCP, 80, 0), port("u", proxy.UDP, 80, 0), loadBalancer("198.51.100.10"))...),
		service("both", "10.96.0.11", with(tcp80, loadBalancer("198.51.100.11"))...))
}

// stickyPair is a Service of TCP and UDP.
func stickyPair(parts ...func(*corev1.Service)) runtime.Object {
	all := []func(*corev1.Service){port("t", proxy.TCP, 80, 30080), port("u", proxy.UDP, 80, 30080), externalIPs("203.0.113.10")}
	return service("sticky", "10.96.0.10", append(all, parts...)...)
}
