package proxytest

import "github.com/sluice-proxy/sluice/proxy"

// flowScenarios are about UDP flows, whose packets the kernel treats as it treated the first.
func flowScenarios() []Scenario {
	dns := service("dns", "10.96.0.53", port("", proxy.UDP, 53, 30053), externalIPs("203.0.113.53"))
	to := func(endpoints ...endpoint) Step {
		return Step{Set: set(sliceOf("dns", "dns", []slicePort{{"", proxy.UDP, 8080}}, endpoints...))}
	}
	step := func(name, packets string, s Step) Step {
		s.Name, s.Packets = name, packets
		return s
	}
	const flows = `
		client -> 203.0.113.53:53/udp as external: pod-a, masq
		client -> 192.168.50.1:30053/udp as nodeport: pod-a, masq
		pod-b  -> 10.96.0.53:53/udp as pod: pod-a
		node   -> 10.96.0.53:53/udp as node: pod-a, masq
	`
	return []Scenario{
		{
			Name:  "UDP flows leave an endpoint that is gone",
			Rules: []string{"R181"},
			Steps: []Step{
				step("flows are made", flows, Step{Set: append(set(dns), to(ready("pod-a")).Set...)}),
				step("a second endpoint", `
					external again: same
					nodeport again: same
					pod again: same
					node again: same
				`, to(ready("pod-a"), ready("remote-a"))),
				step("the first one drains", `
					external again: same
					pod again: same
				`, to(draining("pod-a"), ready("remote-a"))),
				step("the first one ends", `
					external again: remote-a, masq
					nodeport again: remote-a, masq
					pod again: remote-a
					node again: remote-a, masq
				`, to(ended("pod-a"), ready("remote-a"))),
				step("none is left", `
					external again: refused
					nodeport again: refused
					pod again: refused
					node again: refused
				`, to()),
				step("one comes back", `
					external again: pod-a, masq
					nodeport again: pod-a, masq
					pod again: pod-a
					node again: pod-a, masq
				`, to(ready("pod-a"))),
				step("a new process", `
					external again: same
					pod again: same
				`, Step{Restart: true}),
				step("the Service goes", `
					external again: unhandled
					nodeport again: unhandled
					pod again: dropped
				`, Step{Delete: set(dns)}),
			},
		},
		{
			Name:  "UDP flows that were not translated are when there is a Service",
			Rules: []string{"R181"},
			Steps: []Step{
				step("nobody claims the address", `
					client -> 203.0.113.53:53/udp as external: unhandled
					client -> 192.168.50.1:30053/udp as nodeport: unhandled
				`, Step{Set: set(service("other", "10.96.0.54", port("", proxy.UDP, 53, 30054)), service("more", "10.96.0.55", port("", proxy.UDP, 30053, 0)))}),
				step("the Service comes", `
					external again: pod-a, masq
					nodeport again: pod-a, masq
				`, Step{Set: append(set(dns), to(ready("pod-a")).Set...)}),
			},
		},
		{
			Name:  "connections outlive changes of others, and of the node",
			Rules: []string{"R111", "R148"},
			Steps: []Step{
				step("connections are made", `
					client -> 203.0.113.53:53/udp as udp: pod-a, masq
					client -> 192.168.50.1:30080 as tcp: pod-a, masq
					pod-b  -> 10.96.0.10:80 as pod: pod-a
				`, Step{Set: append(set(dns, service("web", "10.96.0.10", tcp80At(30080)), slice("web", ready("pod-a"))), to(ready("pod-a")).Set...)}),
				step("other Services come", `
					udp again: same
					tcp again: same
					pod again: same
				`, Step{Set: set(service("more", "10.96.0.54", port("", proxy.UDP, 53, 0)), service("web-2", "10.96.0.11", tcp80At(30081)), slice("web-2", ready("pod-b")))}),
				step("and go", `
					udp again: same
					tcp again: same
					pod again: same
				`, Step{Delete: set(service("more", ""), service("web-2", ""), slice("web-2"))}),
				step("the node changes", `
					udp again: same
					tcp again: same
					pod again: same
				`, Step{Node: &Node{MasqueradeAll: true, NodePortAddresses: []string{"primary"}}}),
				step("a new process", `
					udp again: same
					tcp again: same
					pod again: same
				`, Step{Restart: true}),
			},
		},
	}
}
