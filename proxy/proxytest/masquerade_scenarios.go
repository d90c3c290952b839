package proxytest

import "github.com/sluice-proxy/sluice/proxy"

// detectors are the ways to tell pods apart, and who counts as a pod for each.
var detectors = []struct {
	name   string
	detect Detect

	// podsOf says whether the pods of this node, and those of other nodes, are recognised.
	ours, others bool
}{
	{"cluster CIDR", ByClusterCIDR, true, true},
	{"node CIDR", ByNodeCIDR, true, false},
	{"bridge", ByBridge, true, false},
	{"interface prefix", ByInterfacePrefix, true, false},
	{"nothing", Undetected, false, false},
}

func masqueradeScenarios() []Scenario {
	scenarios := []Scenario{
		{
			Name:  "a pod reaches itself through every frontend",
			Rules: []string{"R126", "R124"},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10")), slice("web", ready("pod-a")),
					service("local", "10.96.0.11", tcp80At(30081), loadBalancer("198.51.100.11"), externalLocal, internalLocal), slice("local", ready("pod-a")),
					service("dns", "10.96.0.53", port("u", proxy.UDP, 53, 0), port("s", proxy.SCTP, 53, 0)),
					sliceOf("dns", "dns", []slicePort{{"u", proxy.UDP, 8053}, {"s", proxy.SCTP, 8053}}, ready("pod-a")),
					service("sticky", "10.96.0.12", tcp80, affinity(600)), slice("sticky", ready("pod-a")),
					service("unknown", "10.96.0.13", tcp80), slice("unknown", endpointAt("10.1.0.10"))),
				Packets: `
					pod-a -> 10.96.0.10:80: pod-a, masq
					pod-a -> 198.51.100.10:80: pod-a, masq
					pod-a -> 203.0.113.10:80: pod-a, masq
					pod-a -> 192.168.50.1:30080: pod-a, masq
					pod-a -> 10.96.0.11:80: pod-a, masq
					pod-a -> 198.51.100.11:80: pod-a, masq
					pod-a -> 192.168.50.1:30081: pod-a, masq
					pod-a -> 10.96.0.53:53/udp: pod-a:8053, masq
					pod-a -> 10.96.0.53:53/sctp: pod-a:8053, masq
					pod-a -> 10.96.0.12:80: pod-a, masq
					pod-a -> 10.96.0.13:80: pod-a, masq
					pod-b -> 10.96.0.10:80: pod-a
				`,
			}},
		},
		{
			Name:  "ClusterIPs on both sides of a pod leave its own connections alone",
			Rules: []string{"R122", "R128"},
			Node:  Node{NoServiceCIDR: true},
			Steps: []Step{
				{
					Set: set(
						service("below", "10.1.0.9", tcp80), slice("below", ready("pod-b")),
						service("above", "10.1.0.12", tcp80), slice("above", ready("pod-b"))),
					Packets: `
						client -> 10.1.0.9:80: pod-b, masq
						client -> 10.1.0.12:80: pod-b, masq
						client -> 10.1.0.10:8080: pod-a
						node   -> 10.1.0.10:8080: pod-a
					`,
				},
				{
					Name: "with ClusterIPs everywhere",
					Set:  set(service("wide", "10.200.0.1", tcp80), slice("wide", ready("pod-b")), service("first", "1.2.3.4", tcp80), slice("first", ready("pod-b"))),
					Packets: `
						client -> 10.200.0.1:80: pod-b, masq
						client -> 10.1.0.10:8080: pod-a
					`,
				},
			},
		},
		{
			Name:     "forwarded connections are accepted if they are masqueraded",
			Rules:    []string{"R131"},
			Firewall: true,
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10")), slice("web", ready("pod-a"), ready("remote-a"))),
				Packets: `
					client -> 192.168.50.1:30080: pod-a remote-a, masq
					client -> 198.51.100.10:80: pod-a remote-a, masq
					client -> 10.96.0.10:80: pod-a remote-a, masq
					client -> 10.1.0.10:8080: dropped
					pod-b  -> 10.96.0.10:80: dropped   # whoever gives pods their network lets them through
				`,
			}},
		},
		{
			Name:  "packets that connection tracking calls invalid are dropped",
			Rules: []string{"R130"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80), slice("web", ready("pod-a"))),
				Packets: `
					client -> 10.1.0.10:9/invalid: dropped
					pod-b  -> 10.1.0.10:9/invalid: dropped
					client -> 10.1.0.10:9: reset
				`,
			}},
		},
	}
	for _, d := range detectors {
		scenarios = append(scenarios, detection(d.name, d.detect, d.ours, d.others))
	}
	return scenarios
}

// detection shows whom a detector takes for a pod: pods are not masqueraded on the way to ClusterIPs, and
// are spared the external policy.
func detection(name string, detect Detect, ours, others bool) Scenario {
	masq := func(pod bool) string {
		if pod || detect == Undetected {
			return ""
		}
		return ", masq"
	}
	backends := func(pod bool) string {
		if pod {
			return "pod-a remote-a"
		}
		return "pod-a"
	}
	remote := "pod-a, masq"
	if others || detect == Undetected {
		remote = "pod-a"
	}
	return Scenario{
		Name:  "pods are recognised by " + name,
		Rules: []string{"R85", "R87", "R122", "R123", "R126", "R128", "R129"},
		Node:  Node{Detect: detect},
		Steps: []Step{{
			Set: set(
				service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalLocal), both("web"),
				service("near", "10.96.0.11", tcp80At(30081), externalIPs("203.0.113.11")), slice("near", ready("pod-a")),
				service("far", "10.96.0.12", tcp80, loadBalancer("198.51.100.12"), externalLocal), slice("far", ready("remote-a"))),
			Packets: `
				pod-b    -> 10.96.0.10:80: pod-a remote-a` + masq(ours) + `
				pod-a    -> 10.96.0.11:80: pod-a, masq
				node     -> 10.96.0.10:80: pod-a remote-a` + masq(false) + `
				client   -> 10.96.0.10:80: pod-a remote-a` + masq(false) + `
				remote-b -> 10.96.0.11:80: ` + remote + `
				pod-b    -> 198.51.100.10:80: ` + backends(ours) + `
				pod-b    -> 192.168.50.1:30080: ` + backends(ours) + `
				client   -> 198.51.100.10:80: pod-a
				node     -> 198.51.100.10:80: pod-a remote-a, masq
				client   -> 192.168.50.1:30081: pod-a, masq
				pod-b    -> 203.0.113.11:80: pod-a, masq
				pod-b    -> 198.51.100.12:80: ` + map[bool]string{true: "remote-a", false: "dropped"}[ours] + `
				client   -> 198.51.100.12:80: dropped
			`,
		}},
	}
}
