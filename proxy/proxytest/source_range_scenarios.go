package proxytest

import corev1 "k8s.io/api/core/v1"

func sourceRangeScenarios() []Scenario {
	// The client's second address is allowed, the first is not.
	restricted := func(more ...func(*corev1.Service)) *corev1.Service {
		parts := append([]func(*corev1.Service){tcp80At(30080), loadBalancer("198.51.100.10", "198.51.100.11"), externalIPs("203.0.113.10")}, more...)
		return service("web", "10.96.0.10", parts...)
	}
	const (
		open = `
			client -> 198.51.100.10:80: pod-a remote-a, masq
			pod-b  -> 198.51.100.11:80: pod-a remote-a, masq
			node   -> 198.51.100.10:80: pod-a remote-a, masq
		`
		others = `
			client -> 10.96.0.10:80: pod-a remote-a, masq
			client -> 192.168.50.1:30080: pod-a remote-a, masq
			client -> 203.0.113.10:80: pod-a remote-a, masq
			pod-b  -> 203.0.113.10:80: pod-a remote-a, masq
		`
	)
	ranged := func(cidrs ...string) *corev1.Service {
		return service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10"), sourceRanges(cidrs...))
	}
	return []Scenario{
		{
			Name:  "source ranges drop all others, on load-balancer IPs only",
			Rules: []string{"R34", "R64", "R65", "R67", "R69", "R72", "R96"},
			Steps: []Step{
				{
					Set: set(restricted(sourceRanges(" 192.168.50.101/32 ", "10.1.0.11/32", "fd00::10.0.0.0/104")), both("web")),
					Packets: others + `
						client@192.168.50.101 -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.101 -> 198.51.100.11:80: pod-a remote-a, masq
						client -> 198.51.100.10:80: dropped
						client -> 198.51.100.11:80: dropped
						client -> 198.51.100.10:79: reset   # by the world
						pod-b  -> 198.51.100.10:80: pod-a remote-a, masq
						pod-c  -> 198.51.100.10:80: dropped
						node   -> 198.51.100.11:80: dropped
						remote -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "other ranges, one with host bits",
					Set:  set(restricted(sourceRanges("192.168.50.100/32", "192.168.70.1/24"))),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.101 -> 198.51.100.10:80: dropped
						node@192.168.70.1 -> 198.51.100.10:80: pod-a remote-a, masq
						node@192.168.50.1 -> 198.51.100.10:80: dropped
					`,
				},
				{Name: "none", Set: set(restricted()), Packets: open},
			},
		},
		{
			Name:  "source ranges that say nothing allow everybody",
			Rules: []string{"R64", "R172"},
			Steps: []Step{
				{Name: "only the other family", Set: set(restricted(sourceRanges("fd00:1234::/32")), both("web")), Packets: open},
				{Name: "only nonsense", Set: set(restricted(sourceRanges("", "nonsense"))), Packets: open},
				{Name: "the zero range", Set: set(restricted(sourceRanges("192.168.50.101/32", "0.0.0.0/0"))), Packets: open},
				{
					Name:    "the zero range of the other family does not count",
					Set:     set(restricted(sourceRanges("192.168.50.101/32", "::/0"))),
					Packets: `client -> 198.51.100.10:80: dropped`,
				},
			},
		},
		{
			Name:  "a load-balancer IP of the node is one of its sources",
			Rules: []string{"R66", "R86"},
			Local: []string{"198.51.100.10"},
			Steps: []Step{
				{
					Name: "the node's IP is in a range",
					Set:  set(restricted(sourceRanges("192.168.50.1/32")), both("web")),
					Packets: `
						node@198.51.100.10 -> 198.51.100.10:80: pod-a remote-a, masq
						node@198.51.100.10 -> 198.51.100.11:80: pod-a remote-a, masq
						node@192.168.50.1  -> 198.51.100.10:80: pod-a remote-a, masq
						node@192.168.50.2  -> 198.51.100.10:80: dropped
						client -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "it is not",
					Set:  set(restricted(sourceRanges("192.168.50.101/32"))),
					Packets: `
						node@198.51.100.10 -> 198.51.100.10:80: dropped
						node@198.51.100.10 -> 198.51.100.11:80: dropped
						client@192.168.50.101 -> 198.51.100.10:80: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:  "source ranges hold without endpoints and with local policies",
			Rules: []string{"R68", "R84", "R88", "R110"},
			Steps: []Step{
				{
					Name: "no endpoints",
					Set:  set(restricted(sourceRanges("192.168.50.101/32", "10.1.0.11/32", "192.168.50.2/32")), slice("web")),
					Packets: `
						client@192.168.50.101 -> 198.51.100.10:80: refused
						pod-b  -> 198.51.100.11:80: refused
						node@192.168.50.2 -> 198.51.100.10:80: refused
						client -> 198.51.100.10:80: dropped
						pod-c  -> 198.51.100.11:80: dropped
						node@192.168.50.1 -> 198.51.100.10:80: dropped
						client -> 203.0.113.10:80: refused
						client -> 192.168.50.1:30080: refused
					`,
				},
				{
					Name: "local policy",
					Set:  set(restricted(sourceRanges("192.168.50.101/32", "10.1.0.11/32", "192.168.50.2/32"), externalLocal), both("web")),
					Packets: `
						client@192.168.50.101 -> 198.51.100.10:80: pod-a
						pod-b  -> 198.51.100.11:80: pod-a remote-a
						node@192.168.50.2 -> 198.51.100.10:80: pod-a remote-a, masq
						client -> 198.51.100.10:80: dropped
						pod-c  -> 198.51.100.11:80: dropped
						node@192.168.50.1 -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "local policy without local endpoints",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						client@192.168.50.101 -> 198.51.100.10:80: dropped
						pod-b  -> 198.51.100.11:80: remote-a
						node@192.168.50.2 -> 198.51.100.10:80: remote-a, masq
						client -> 198.51.100.10:80: dropped
						pod-c  -> 198.51.100.11:80: dropped
					`,
				},
			},
		},
		{
			Name:  "source ranges may touch, overlap and repeat",
			Rules: []string{"R64", "R65", "R96"},
			Steps: []Step{
				{
					Set: set(ranged("192.168.50.100/31", "192.168.50.102/32", "192.168.50.100/32", "192.168.50.100/31", "192.168.50.101/30",
						"10.1.0.0/25", "10.1.0.0/24", "10.1.0.128/25", "0.0.0.0/32", "255.255.255.255/32", "192.168.56.0/21", "224.0.0.0/3"), both("web")),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.101 -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.102 -> 198.51.100.10:80: pod-a remote-a, masq
						pod-b  -> 198.51.100.10:80: pod-a remote-a, masq
						remote -> 198.51.100.10:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "a narrower one takes the place of a wider one",
					Set:  set(ranged("192.168.50.101/32", "192.168.50.102/31", "10.1.0.0/25")),
					Packets: `
						client -> 198.51.100.10:80: dropped
						client@192.168.50.101 -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.103 -> 198.51.100.10:80: pod-a remote-a, masq
						pod-b  -> 198.51.100.10:80: pod-a remote-a, masq
						remote -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "a wider one takes the place of narrower ones",
					Set:  set(ranged("192.168.50.0/24")),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client@192.168.50.103 -> 198.51.100.10:80: pod-a remote-a, masq
						pod-b  -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "wide ones, with the last address there is",
					Set:  set(ranged("8.0.0.0/5", "128.0.0.0/1")),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						pod-b  -> 198.51.100.10:80: pod-a remote-a, masq
						node   -> 198.51.100.10:80: pod-a remote-a, masq
					`,
				},
			},
		},
	}
}
