package proxytest

import "github.com/sluice-proxy/sluice/proxy"

func refusalScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "without endpoints everybody is rejected everywhere",
			Rules: []string{"R110", "R112", "R116", "R117"},
			Steps: []Step{
				{
					Set:     set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10"))),
					Packets: everybody("refused", "tcp"),
				},
				{
					Name: "the first endpoint",
					Set:  set(slice("web", ready("pod-a"))),
					Packets: everybody("pod-a, masq", "tcp") + `
						pod-b -> 10.96.0.10:80: pod-a
					`,
				},
				{Name: "the endpoint is not ready", Set: set(slice("web", unready("pod-a"))), Packets: everybody("refused", "tcp")},
				{
					Name:   "the Service is deleted",
					Delete: set(service("web", "10.96.0.10")),
					Packets: `
						client -> 198.51.100.10:80: unhandled
						node   -> 203.0.113.10:80: unhandled
						client -> 192.168.50.1:30080: unhandled
						pod-b  -> 10.96.0.10:80: dropped
					`,
				},
			},
		},
		{
			Name:  "UDP and SCTP without endpoints are rejected too",
			Rules: []string{"R110", "R112", "R180", "R181"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", port("u", proxy.UDP, 80, 30080), port("s", proxy.SCTP, 80, 30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10"))),
				Packets: everybody("refused", "udp") + everybody("refused", "sctp") + `
					pod-b -> 10.96.0.10:80/udp: refused
					pod-b -> 10.96.0.10:80/sctp: refused
				`,
			}},
		},
		{
			Name:  "a load-balancer IP of the node without endpoints is rejected",
			Rules: []string{"R110", "R112"},
			Local: []string{"198.51.100.10"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10"))),
				Packets: `
					client -> 198.51.100.10:80: refused
					pod-b  -> 198.51.100.10:80: refused
					node   -> 198.51.100.10:80: refused
					node@192.168.50.1 -> 198.51.100.10:80: refused
				`,
			}},
		},
		{
			Name:  "established connections outlive what serves them",
			Rules: []string{"R111"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10")), slice("web", ready("pod-a"))),
					Packets: `
						client -> 198.51.100.10:80 as vip: pod-a, masq
						client -> 192.168.50.1:30080 as nodeport: pod-a, masq
						pod-b  -> 10.96.0.10:80 as pod: pod-a
						node   -> 10.96.0.10:80 as node: pod-a, masq
					`,
				},
				{
					Name: "the endpoint drains beside a new one",
					Set:  set(slice("web", draining("pod-a"), ready("remote-a"))),
					Packets: `
						vip again: same
						nodeport again: same
						pod again: same
						node again: same
						client -> 198.51.100.10:80: remote-a, masq
					`,
				},
				{
					Name: "the endpoint ends",
					Set:  set(slice("web", ended("pod-a"))),
					Packets: `
						vip again: same
						nodeport again: same
						pod again: same
						node again: same
						client -> 198.51.100.10:80: refused
					`,
				},
				{
					Name: "the policy drops new ones",
					Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalLocal, internalLocal),
						slice("web", ready("remote-a"))),
					Packets: `
						vip again: same
						pod again: same
						node again: same
						client -> 198.51.100.10:80: dropped
						pod-b  -> 10.96.0.10:80: dropped
					`,
				},
				{
					Name: "the process restarts", Restart: true,
					Packets: `
						vip again: same
						pod again: same
					`,
				},
				{
					Name: "source ranges shut the client out",
					Set:  set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), sourceRanges("203.0.113.0/24"))),
					Packets: `
						vip again: same
						client -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "the Service is deleted", Delete: set(service("web", "10.96.0.10"), slice("web")),
					Packets: `
						vip again: same
						nodeport again: same
						pod again: same
						node again: same
					`,
				},
			},
		},
	}
}

// everybody is a packet from everywhere to each kind of frontend, but for pods to the ClusterIP.
func everybody(want, protocol string) string {
	var lines string
	for _, from := range []string{"pod-b", "node", "client", "remote"} {
		for _, to := range []string{"198.51.100.10:80", "203.0.113.10:80", "192.168.50.2:30080", "10.96.0.10:80"} {
			if from != "pod-b" || to != "10.96.0.10:80" {
				lines += from + " -> " + to + "/" + protocol + ": " + want + "\n"
			}
		}
	}
	return lines
}
