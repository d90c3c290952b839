package proxytest

import "github.com/sluice-proxy/sluice/proxy"

func policyScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "internal policy Local keeps ClusterIP traffic on the node",
			Rules: []string{"R21", "R81", "R82", "R83", "R113", "R114"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), externalIPs("203.0.113.10"), internalLocal),
						slice("web", ready("pod-a"), ready("pod-b"), ready("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a pod-b
						node   -> 10.96.0.10:80: pod-a pod-b, masq
						client -> 10.96.0.10:80: pod-a pod-b, masq
						client -> 192.168.50.1:30080: pod-a pod-b remote-a, masq
						client -> 203.0.113.10:80: pod-a pod-b remote-a, masq
						pod-c  -> 203.0.113.10:80: pod-a pod-b remote-a, masq
					`,
				},
				{
					Name: "no local endpoint",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: dropped
						node   -> 10.96.0.10:80: dropped
						client -> 10.96.0.10:80: dropped
						client -> 192.168.50.1:30080: remote-a, masq
						pod-c  -> 203.0.113.10:80: remote-a, masq
					`,
				},
				{
					Name: "no endpoint at all",
					Set:  set(slice("web")),
					Packets: `
						pod-c  -> 10.96.0.10:80: refused
						node   -> 10.96.0.10:80: refused
						client -> 192.168.50.1:30080: refused
					`,
				},
				{
					Name: "local again",
					Set:  set(slice("web", ready("pod-a"), ready("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a
						client -> 203.0.113.10:80: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:  "internal policy Local of a Service that is not exposed",
			Rules: []string{"R14", "R83", "R154"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, internalLocal), slice("web", ready("remote-a")),
					service("near", "10.96.0.11", tcp80, internalLocal), slice("near", ready("remote-a"), ready("pod-b"))),
				Packets: `
					pod-c -> 10.96.0.10:80: dropped
					node  -> 10.96.0.10:80: dropped
					pod-c -> 10.96.0.11:80: pod-b
					pod-b -> 10.96.0.11:80: pod-b, masq
				`,
			}},
		},
		{
			Name:  "external policy Local keeps the client's address",
			Rules: []string{"R84", "R85", "R86", "R88", "R89", "R113", "R124"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10"), externalLocal),
						slice("web", ready("pod-a"), ready("pod-b"), ready("remote-a"))),
					Packets: `
						client -> 198.51.100.10:80: pod-a pod-b
						client -> 203.0.113.10:80: pod-a pod-b
						client -> 192.168.50.1:30080: pod-a pod-b
						remote -> 192.168.60.1:30080: pod-a pod-b
						pod-c  -> 198.51.100.10:80: pod-a pod-b remote-a
						pod-c  -> 203.0.113.10:80: pod-a pod-b remote-a
						pod-c  -> 192.168.50.1:30080: pod-a pod-b remote-a
						pod-a  -> 198.51.100.10:80: pod-a(masq) pod-b remote-a
						node   -> 198.51.100.10:80: pod-a pod-b remote-a, masq
						node   -> 203.0.113.10:80: pod-a pod-b remote-a, masq
						node   -> 192.168.50.2:30080: pod-a pod-b remote-a, masq
						client -> 10.96.0.10:80: pod-a pod-b remote-a, masq
					`,
				},
				{
					Name: "no local endpoint",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						client -> 198.51.100.10:80: dropped
						client -> 203.0.113.10:80: dropped
						client -> 192.168.50.1:30080: dropped
						pod-c  -> 198.51.100.10:80: remote-a
						pod-c  -> 192.168.50.1:30080: remote-a
						node   -> 203.0.113.10:80: remote-a, masq
						node   -> 192.168.50.1:30080: remote-a, masq
					`,
				},
				{
					Name: "no endpoint at all",
					Set:  set(slice("web")),
					Packets: `
						client -> 198.51.100.10:80: refused
						client -> 192.168.50.1:30080: refused
						pod-c  -> 203.0.113.10:80: refused
						node   -> 192.168.50.1:30080: refused
						node   -> 203.0.113.10:80: refused
					`,
				},
				{
					Name: "policy Cluster",
					Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10")),
						slice("web", ready("pod-a"), ready("remote-a"))),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client -> 192.168.50.1:30080: pod-a remote-a, masq
						pod-c  -> 203.0.113.10:80: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:     "external policy Local counts loopback as the node",
			Rules:    []string{"R38", "R86", "R89"},
			Families: []proxy.Family{proxy.IPv4},
			Steps: []Step{
				{
					Set:     set(service("web", "10.96.0.10", tcp80At(30080), externalLocal), slice("web", ready("pod-a"), ready("remote-a"))),
					Packets: `node -> 127.0.0.1:30080: pod-a remote-a, masq`,
				},
				{
					Name: "no local endpoint",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						node   -> 127.0.0.1:30080: remote-a, masq
						client -> 192.168.50.1:30080: dropped
					`,
				},
			},
		},
		{
			Name:  "both policies Local",
			Rules: []string{"R82", "R84", "R114", "R156"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), externalLocal, internalLocal), both("web")),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a
						client -> 192.168.50.1:30080: pod-a
						pod-c  -> 192.168.50.1:30080: pod-a remote-a
						node   -> 192.168.50.1:30080: pod-a remote-a, masq
					`,
				},
				{
					Name: "no local endpoint",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: dropped
						client -> 192.168.50.1:30080: dropped
						pod-c  -> 192.168.50.1:30080: remote-a
						node   -> 192.168.50.1:30080: remote-a, masq
					`,
				},
			},
		},
		{
			Name:  "a packet of the node from the pod range is a pod's",
			Rules: []string{"R90"},
			Local: []string{"10.1.0.250"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10"), externalLocal), both("web")),
				Packets: `
					node@10.1.0.250   -> 198.51.100.10:80: pod-a remote-a
					node@10.1.0.250   -> 10.96.0.10:80: pod-a remote-a
					node@192.168.50.1 -> 198.51.100.10:80: pod-a remote-a, masq
				`,
			}},
		},
		{
			Name:  "external policy Local means nothing where nothing is external",
			Rules: []string{"R11", "R155"},
			Steps: []Step{
				{
					Name: "ClusterIP Service without external IPs",
					Set:  set(service("web", "10.96.0.10", tcp80, externalLocal), both("web")),
					Packets: `
						client -> 10.96.0.10:80: pod-a remote-a, masq
						pod-c  -> 10.96.0.10:80: pod-a remote-a
					`,
				},
				{
					Name: "ClusterIP Service with external IPs",
					Set:  set(service("web", "10.96.0.10", tcp80, externalLocal, externalIPs("203.0.113.10"))),
					Packets: `
						client -> 10.96.0.10:80: pod-a remote-a, masq
						client -> 203.0.113.10:80: pod-a
					`,
				},
			},
		},
	}
}
