package proxytest

import (
	"k8s.io/apimachinery/pkg/runtime"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

// exposed is a Service with all kinds of frontends whose external policy is Local.
func exposed() runtime.Object {
	return service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalLocal)
}

func endpointScenarios() []Scenario {
	return append(hintScenarios(), []Scenario{
		{
			Name:  "draining endpoints serve only if there is no other",
			Rules: []string{"R88", "R110", "R150", "R151", "R152", "R153"},
			Steps: []Step{
				{
					Name: "ready ones exist",
					Set:  set(exposed(), slice("web", ready("pod-a"), draining("pod-b"), ready("remote-a"), draining("remote-b"), unready("pod-c"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a remote-a
						client -> 198.51.100.10:80: pod-a
						node   -> 198.51.100.10:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "the local ones drain",
					Set:  set(slice("web", draining("pod-a"), ended("pod-b"), ready("remote-a"), unready("pod-c"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: remote-a
						client -> 198.51.100.10:80: pod-a
						client -> 192.168.50.1:30080: pod-a
						pod-c  -> 198.51.100.10:80: remote-a
					`,
				},
				{
					Name: "all drain",
					Set:  set(slice("web", draining("pod-a"), ended("pod-b"), draining("remote-a"), unready("pod-c"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a remote-a
						client -> 198.51.100.10:80: pod-a
						node   -> 198.51.100.10:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "only remote ones drain",
					Set:  set(slice("web", ended("pod-a"), draining("remote-a"), unready("pod-c"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: remote-a
						client -> 198.51.100.10:80: dropped
						node   -> 198.51.100.10:80: remote-a, masq
					`,
				},
				{
					Name: "none serves",
					Set:  set(slice("web", ended("pod-a"), ended("remote-a"), unready("pod-c"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: refused
						client -> 198.51.100.10:80: refused
						client -> 192.168.50.1:30080: refused
						node   -> 198.51.100.10:80: refused
					`,
				},
				{
					Name: "a ready one takes over",
					Set:  set(slice("web", draining("pod-a"), ready("pod-b"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-b
						client -> 198.51.100.10:80: pod-b
					`,
				},
			},
		},
		{
			Name:  "draining endpoints serve Services of policy Cluster too",
			Rules: []string{"R150", "R152"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10")),
						slice("web", ready("pod-a"), draining("pod-b"), draining("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a
						client -> 198.51.100.10:80: pod-a, masq
					`,
				},
				{
					Name: "all drain",
					Set:  set(slice("web", ended("pod-a"), draining("pod-b"), draining("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-b remote-a
						client -> 198.51.100.10:80: pod-b remote-a, masq
					`,
				},
				{
					Name:    "the slice is deleted",
					Delete:  set(slice("web")),
					Packets: `client -> 198.51.100.10:80: refused`,
				},
			},
		},
		{
			Name:  "conditions that are not set have their defaults",
			Rules: []string{"R142", "R149"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80), slice("web", withoutConditions(ready("pod-a")), unready("pod-b"))),
					Packets: `
						pod-c -> 10.96.0.10:80: pod-a
					`,
				},
				{
					Name: "a ready endpoint need not serve",
					Set:  set(slice("web", ready("pod-a").conditions(true, false, true), ready("pod-b").conditions(true, false, false))),
					Packets: `
						pod-c -> 10.96.0.10:80: pod-a pod-b
					`,
				},
			},
		},
		{
			Name:  "an endpoint is local if its node is this one",
			Rules: []string{"R143"},
			Steps: []Step{{
				Set: set(exposed(), slice("web", ready("pod-a"), endpointAt("10.1.0.11"), ready("pod-c").on("other"))),
				Packets: `
					client -> 198.51.100.10:80: pod-a
					pod-a  -> 198.51.100.10:80: pod-a(masq) pod-b pod-c
					node   -> 10.96.0.10:80: pod-a pod-b pod-c, masq
					pod-b  -> 10.96.0.10:80: pod-a pod-b(masq) pod-c
				`,
			}},
		},
		{
			Name:  "slices of a Service add up",
			Rules: []string{"R10", "R16", "R141", "R144", "R145", "R148"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80),
						sliceOf("web-1", "web", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a"), ready("pod-b")),
						sliceOf("web-2", "web", []slicePort{{"", proxy.TCP, 8081}}, ready("pod-a")),
						sliceOf("web-3", "web", []slicePort{{"", proxy.TCP, 8080}}, draining("pod-b"), ready("remote-a"))),
					Packets: `
						node -> 10.96.0.10:80: pod-a:8080 pod-a:8081 pod-b:8080 remote-a:8080, masq
					`,
				},
				{
					Name: "an endpoint moves to another slice",
					Set: set(
						sliceOf("web-1", "web", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-b")),
						sliceOf("web-3", "web", []slicePort{{"", proxy.TCP, 8080}}, ready("pod-a"), ready("remote-a"))),
					Packets: `
						node -> 10.96.0.10:80: pod-a:8080 pod-a:8081 pod-b:8080 remote-a:8080, masq
					`,
				},
				{
					Name:   "slices go one by one",
					Delete: set(sliceOf("web-2", "web", nil), sliceOf("web-3", "web", nil), sliceOf("unknown", "web", nil)),
					Packets: `
						node -> 10.96.0.10:80: pod-b, masq
					`,
				},
				{
					Name:   "the last one goes",
					Delete: set(sliceOf("web-1", "web", nil)),
					Packets: `
						node -> 10.96.0.10:80: refused
					`,
				},
			},
		},
		{
			Name:  "endpoints in the node's own network",
			Rules: []string{"R20", "R84", "R126", "R128"},
			Steps: []Step{
				{
					Set: set(
						service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10")), slice("web", endpointAt("192.168.50.1").on(nodeName)),
						service("local", "10.96.0.11", tcp80At(30081), loadBalancer("198.51.100.11"), externalLocal, internalLocal),
						slice("local", endpointAt("192.168.50.1").on(nodeName), ready("remote-a"))),
					Packets: `
						pod-b  -> 10.96.0.10:80: node
						client -> 192.168.50.1:30080: node   # what does not leave the node is not masqueraded
						client -> 198.51.100.10:80: node
						node   -> 10.96.0.10:80: node, masq
						node   -> 192.168.50.1:30080: node, masq
						client -> 198.51.100.11:80: node
						client -> 192.168.50.2:30081: node
						pod-b  -> 10.96.0.11:80: node
						pod-b  -> 198.51.100.11:80: node remote-a
					`,
				},
				{
					Name: "they leave the node",
					Set:  set(slice("web", ready("pod-a")), slice("local", ready("remote-a"))),
					Packets: `
						client -> 192.168.50.1:30080: pod-a, masq
						client -> 192.168.50.1:30081: dropped
						node   -> 10.96.0.10:80: pod-a, masq
					`,
				},
			},
		},
	}...)
}

func withoutConditions(e endpoint) endpoint {
	e.Conditions = discoveryv1.EndpointConditions{}
	return e
}

func hintScenarios() []Scenario {
	zoned := []endpoint{
		ready("pod-a").forZones("a"), ready("pod-b").forZones("a", "b"), ready("remote-a").forZones("b"), ready("remote-b").forZones("c"),
	}
	unhinted := append([]endpoint{ready("pod-c")}, zoned...)
	return []Scenario{
		{
			Name:  "hints keep traffic in the zone",
			Rules: []string{"R147", "R160", "R161", "R162", "R163", "R164", "R165"},
			Node:  Node{Zone: "b"},
			Steps: []Step{
				{
					Set: set(exposed(), slice("web", zoned...), service("free", "10.96.0.11", tcp80, loadBalancer("198.51.100.11")), slice("free", zoned...)),
					Packets: `
						node   -> 10.96.0.10:80: pod-b remote-a, masq
						pod-c  -> 198.51.100.10:80: pod-b remote-a
						client -> 198.51.100.10:80: pod-a pod-b          # hints do not choose among local endpoints
						client -> 198.51.100.11:80: pod-b remote-a, masq
					`,
				},
				{Name: "the node moves", Node: &Node{Zone: "c"}, Packets: `node -> 10.96.0.10:80: remote-b, masq`},
				{Name: "nobody is meant for this zone", Node: &Node{Zone: "d"}, Packets: `node -> 10.96.0.10:80: pod-a pod-b remote-a remote-b, masq`},
				{Name: "the zone is not known", Node: &Node{}, Packets: `node -> 10.96.0.10:80: pod-a pod-b remote-a remote-b, masq`},
				{
					Name: "an endpoint without a hint",
					Node: &Node{Zone: "b"}, Set: set(slice("web", unhinted...)),
					Packets: `node -> 10.96.0.10:80: pod-a pod-b pod-c remote-a remote-b, masq`,
				},
				{
					Name: "only an endpoint that is not ready has no hint",
					Set:  set(slice("web", append([]endpoint{unready("pod-c"), draining("pod-c")}, zoned...)...)),
					Packets: `
						node -> 10.96.0.10:80: pod-b remote-a, masq
					`,
				},
				{
					Name: "only endpoints that are not ready are meant for the zone",
					Set:  set(slice("web", unready("pod-b").forZones("b"), ready("pod-a").forZones("a"), ready("remote-a").forZones("c"))),
					Packets: `
						node -> 10.96.0.10:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "draining endpoints are not chosen by hints",
					Set:  set(slice("web", draining("pod-b").forZones("b"), draining("remote-a").forZones("c"))),
					Packets: `
						node -> 10.96.0.10:80: pod-b remote-a, masq
					`,
				},
			},
		},
		{
			Name:  "hints keep traffic on the node",
			Rules: []string{"R160", "R161", "R166"},
			Node:  Node{Zone: "b"},
			Steps: []Step{
				{
					Set: set(exposed(), slice("web",
						ready("pod-a").forNodes(nodeName).forZones("b"), ready("pod-b").forNodes(remoteName).forZones("b"),
						ready("remote-a").forNodes(remoteName, nodeName).forZones("c"), ready("remote-b").forNodes(remoteName).forZones("c"))),
					Packets: `
						node   -> 10.96.0.10:80: pod-a remote-a, masq
						client -> 198.51.100.10:80: pod-a pod-b
					`,
				},
				{
					Name: "none is meant for this node",
					Set: set(slice("web", ready("pod-a").forNodes(remoteName).forZones("b"), ready("pod-b").forNodes(remoteName).forZones("b"),
						ready("remote-a").forNodes(remoteName).forZones("c"))),
					Packets: `node -> 10.96.0.10:80: pod-a pod-b, masq`,
				},
				{
					Name: "one has no node hint",
					Set:  set(slice("web", ready("pod-a").forNodes(nodeName).forZones("c"), ready("pod-b").forZones("b"), ready("remote-a").forZones("b"))),
					Packets: `
						node -> 10.96.0.10:80: pod-b remote-a, masq
					`,
				},
			},
		},
	}
}
