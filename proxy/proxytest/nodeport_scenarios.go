package proxytest

import (
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

// nodePortWeb is a NodePort Service with a local and a remote endpoint, and one without endpoints.
func nodePortWeb() []runtime.Object {
	return set(service("web", "10.96.0.10", tcp80At(30080)), both("web"), service("empty", "10.96.0.11", tcp80At(30081)))
}

func nodePortScenarios() []Scenario {
	return append(nodePortSelections(), []Scenario{
		{
			Name:  "NodePort hides a host process on the same port",
			Rules: []string{"R35", "R36", "R124"},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", port("http", proxy.TCP, 80, 30080), port("dns", proxy.UDP, 53, 30080)),
					sliceOf("web-1", "web", []slicePort{{"http", proxy.TCP, 8080}, {"dns", proxy.UDP, 8053}}, ready("pod-a"), ready("remote-a"))),
				Packets: `
					client   -> 192.168.50.1:30080: pod-a remote-a, masq
					client   -> 192.168.50.1:30080/udp: pod-a:8053 remote-a:8053, masq
					client   -> 192.168.50.1:80: unhandled
					pod-b    -> 192.168.50.1:30080: pod-a remote-a, masq
					pod-a    -> 192.168.50.2:30080: pod-a remote-a, masq
					node     -> 192.168.50.1:30080: pod-a remote-a, masq
					remote   -> 192.168.60.1:30080: pod-a remote-a, masq
					remote-b -> 192.168.60.1:30080/udp: pod-a:8053 remote-a:8053, masq
					client   -> 192.168.70.1:30080: pod-a remote-a, masq
				`,
			}},
		},
		{
			Name:  "NodePorts of all addresses answer on any address that is local",
			Rules: []string{"R33"},
			Local: []string{"198.51.100.10"},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10")), both("web")),
				Packets: `
					client -> 198.51.100.10:30080: pod-a remote-a, masq
					client -> 198.51.100.10:80: pod-a remote-a, masq
					node   -> 198.51.100.10:30080: pod-a remote-a, masq
					client -> 203.0.113.10:30080: unhandled
				`,
			}},
		},
		{
			Name:  "NodePorts follow the addresses of the node",
			Rules: []string{"R30", "R32"},
			Node:  Node{NodePortAddresses: []string{"198.51.100.0/24"}},
			Local: []string{"198.51.100.10"},
			Steps: []Step{
				{
					Set: nodePortWeb(),
					Packets: `
						client -> 198.51.100.10:30080: pod-a remote-a, masq
						client -> 198.51.100.10:30081: refused
						client -> 198.51.100.11:30080: unhandled
					`,
				},
				{
					Name:  "another address",
					Local: []string{"198.51.100.11"},
					Packets: `
						client -> 198.51.100.11:30080: pod-a remote-a, masq
						client -> 198.51.100.11:30081: refused
						client -> 198.51.100.10:30080: unhandled
						client -> 198.51.100.10:30081: unhandled
					`,
				},
				{
					Name:  "none",
					Local: []string{},
					Packets: `
						client -> 198.51.100.11:30080: unhandled
						client -> 192.168.50.1:30080: unhandled
					`,
				},
			},
		},
		{
			Name:  "NodePort appears, moves and disappears",
			Rules: []string{"R15", "R36"},
			Steps: []Step{
				{Set: nodePortWeb(), Packets: `client -> 192.168.50.1:30080: pod-a remote-a, masq`},
				{
					Name: "another number",
					Set:  set(service("web", "10.96.0.10", tcp80At(30090))),
					Packets: `
						client -> 192.168.50.1:30080: unhandled
						client -> 192.168.50.1:30090: pod-a remote-a, masq
					`,
				},
				{
					Name: "none",
					Set:  set(service("web", "10.96.0.10", tcp80)),
					Packets: `
						client -> 192.168.50.1:30090: unhandled
						client -> 10.96.0.10:80: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:     "loopback addresses are not reachable from the network",
			Rules:    []string{"R38", "R39", "R132"},
			Families: []proxy.Family{proxy.IPv4},
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80At(30080)), both("web")),
				Packets: `
					node   -> 127.0.0.1:30080: pod-a remote-a, masq
					node   -> 127.0.0.2:30080: pod-a remote-a, masq
					node@127.0.0.1 -> 192.168.50.1:30080: pod-a remote-a, masq
					node   -> 127.0.0.1:80: unhandled
					client -> 127.0.0.1:80: dropped
				`,
			}},
		},
		{
			Name:     "NodePorts stay off 127.0.0.1 if the node says so",
			Rules:    []string{"R40"},
			Families: []proxy.Family{proxy.IPv4},
			Node:     Node{NoLocalhost: true, NodePortAddresses: []string{"127.0.0.0/8", "192.168.50.2/32"}},
			Steps: []Step{
				{
					Set: nodePortWeb(),
					Packets: `
						node   -> 127.0.0.1:30080: unhandled
						node   -> 127.0.0.1:30081: unhandled
						client -> 192.168.50.2:30080: pod-a remote-a, masq
						client -> 192.168.50.1:30080: unhandled
					`,
				},
				{
					Name: "all other addresses",
					Node: &Node{NoLocalhost: true},
					Packets: `
						node   -> 127.0.0.1:30080: unhandled
						node   -> 127.0.0.1:30081: unhandled
						client -> 192.168.50.1:30080: pod-a remote-a, masq
					`,
				},
				{
					Name: "allowed and listed",
					Node: &Node{NodePortAddresses: []string{"127.0.0.0/8"}},
					Packets: `
						node   -> 127.0.0.1:30080: pod-a remote-a, masq
						node   -> 127.0.0.1:30081: refused
						client -> 192.168.50.1:30080: unhandled
						node   -> 192.168.50.1:30080: unhandled
						client -> 192.168.50.1:30081: unhandled
					`,
				},
				{
					Name: "allowed and not listed",
					Node: &Node{NodePortAddresses: []string{"192.168.50.2/32"}},
					Packets: `
						node   -> 127.0.0.1:30080: unhandled
						node   -> 192.168.50.2:30080: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:     "NodePorts are never on ::1",
			Rules:    []string{"R40"},
			Families: []proxy.Family{proxy.IPv6},
			Steps: []Step{
				{
					Set: nodePortWeb(),
					Packets: `
						node   -> 127.0.0.1:30080: unhandled
						node   -> 127.0.0.1:30081: unhandled
						client -> 192.168.50.1:30080: pod-a remote-a, masq
					`,
				},
				{
					Name: "even if it is listed",
					Node: &Node{NodePortAddresses: []string{"127.0.0.0/8"}},
					Packets: `
						node   -> 127.0.0.1:30080: unhandled
						client -> 192.168.50.1:30080: unhandled
					`,
				},
			},
		},
	}...)
}

// nodePortSelections shows which addresses each form of nodePortAddresses stands for, in one story so
// that changes of the node are seen too.
func nodePortSelections() []Scenario {
	const (
		allOfThem = `
			client -> 192.168.50.1:30080: pod-a remote-a, masq
			client -> 192.168.50.2:30080: pod-a remote-a, masq
			remote -> 192.168.60.1:30080: pod-a remote-a, masq
			node   -> 192.168.50.2:30080: pod-a remote-a, masq
			client -> 192.168.50.1:30081: refused
			client -> 192.168.50.2:30081: refused
			node   -> 192.168.50.2:30081: refused
		`
		primaryOnly = `
			client -> 192.168.50.1:30080: pod-a remote-a, masq
			client -> 192.168.50.2:30080: unhandled
			remote -> 192.168.60.1:30080: unhandled
			node   -> 192.168.50.1:30080: pod-a remote-a, masq
			node   -> 192.168.50.2:30080: unhandled
			pod-b  -> 192.168.50.2:30080: unhandled
			client -> 192.168.50.1:30081: refused
			node   -> 192.168.50.1:30081: refused
			client -> 192.168.50.2:30081: unhandled   # a host process there is left alone
			node   -> 192.168.50.2:30081: unhandled
		`
		noneAtAll = `
			client -> 192.168.50.1:30080: unhandled
			client -> 192.168.50.2:30080: unhandled
			remote -> 192.168.60.1:30080: unhandled
			client -> 192.168.50.1:30081: unhandled
			node   -> 192.168.50.1:30080: unhandled
			pod-b  -> 10.96.0.10:80: pod-a remote-a
		`
	)
	return []Scenario{{
		Name:  "nodePortAddresses select the addresses of NodePorts",
		Rules: []string{"R30", "R31", "R32", "R37", "R110"},
		Steps: []Step{
			{Name: "unset", Set: nodePortWeb(), Packets: allOfThem},
			{Name: "primary", Node: &Node{NodePortAddresses: []string{"primary"}}, Packets: primaryOnly},
			{Name: "primary without an address", Node: &Node{NodePortAddresses: []string{"primary"}, NoAddress: true}, Packets: noneAtAll},
			{Name: "the zero CIDR", Node: &Node{NodePortAddresses: []string{"192.168.50.1/32", "0.0.0.0/0"}}, Packets: allOfThem},
			{Name: "one CIDR", Node: &Node{NodePortAddresses: []string{"192.168.50.1/32"}}, Packets: primaryOnly},
			{Name: "only the other family", Node: &Node{NodePortAddresses: []string{"fd00::192.168.50.0/120"}}, Packets: allOfThem},
			{Name: "CIDR without any address", Node: &Node{NodePortAddresses: []string{"203.0.113.0/24"}}, Packets: noneAtAll},
			{Name: "several CIDRs", Node: &Node{NodePortAddresses: []string{"192.168.50.0/24", "192.168.60.0/24", "fd00::192.168.70.0/120"}}, Packets: allOfThem},
		},
	}}
}
