package proxytest

import (
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

// changeScenarios are about much that changes at one moment.
func changeScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "addresses and NodePorts move between Services at one moment",
			Rules: []string{"R15", "R16", "R17", "R67"},
			Steps: []Step{
				{
					Set: set(
						service("a", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10"), sourceRanges("192.168.50.100/32")),
						slice("a", ready("pod-a")),
						service("b", "10.96.0.11", tcp80At(30081), loadBalancer("198.51.100.11"), externalIPs("203.0.113.11"), affinity(600)),
						slice("b", ready("pod-b"), ready("remote-b"))),
					Packets: `
						pod-c  -> 10.96.0.10:80: pod-a
						client -> 192.168.50.1:30080: pod-a, masq
						client -> 198.51.100.10:80: pod-a, masq
						client@192.168.50.101 -> 198.51.100.10:80: dropped
						client@192.168.50.101 -> 198.51.100.11:80: one of pod-b remote-b, masq
						client -> 192.168.50.1:30081: one of pod-b remote-b, masq
					`,
				},
				{
					Name: "they swap all that they have",
					Set: set(
						service("a", "10.96.0.11", tcp80At(30081), loadBalancer("198.51.100.11"), externalIPs("203.0.113.11"), sourceRanges("192.168.50.100/32")),
						service("b", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10"), affinity(600))),
					Packets: `
						pod-c  -> 10.96.0.11:80: pod-a
						client -> 192.168.50.1:30081: pod-a, masq
						client -> 203.0.113.11:80: pod-a, masq
						client -> 198.51.100.11:80: pod-a, masq
						client@192.168.50.101 -> 198.51.100.11:80: dropped
						client@192.168.50.101 -> 198.51.100.10:80: one of pod-b remote-b, masq
						client -> 192.168.50.1:30080: one of pod-b remote-b, masq
						pod-c  -> 10.96.0.10:80: one of pod-b remote-b
					`,
				},
				{
					Name:   "one goes, and a new one has all that it had",
					Delete: set(service("a", "10.96.0.11"), slice("a")),
					Set: set(
						service("c", "10.96.0.11", port("web", proxy.TCP, 80, 30081), loadBalancer("198.51.100.11"), externalIPs("203.0.113.11"), sourceRanges("192.168.50.101/32")),
						sliceOf("c", "c", []slicePort{{"web", proxy.TCP, 8081}}, ready("pod-c"))),
					Packets: `
						pod-a  -> 10.96.0.11:80: pod-c:8081
						client -> 192.168.50.1:30081: pod-c:8081, masq
						client -> 203.0.113.11:80: pod-c:8081, masq
						client -> 198.51.100.11:80: dropped
						client@192.168.50.101 -> 198.51.100.11:80: pod-c:8081, masq
					`,
				},
				{
					Name: "a port has another name, and another one takes its number",
					Set: set(
						service("c", "10.96.0.11", port("other", proxy.TCP, 80, 30081), port("web", proxy.TCP, 81, 30082)),
						sliceOf("c", "c", []slicePort{{"web", proxy.TCP, 8081}, {"other", proxy.TCP, 8082}}, ready("pod-c"))),
					Packets: `
						pod-a  -> 10.96.0.11:80: pod-c:8082
						pod-a  -> 10.96.0.11:81: pod-c:8081
						client -> 192.168.50.1:30081: pod-c:8082, masq
						client -> 192.168.50.1:30082: pod-c:8081, masq
						client -> 198.51.100.11:80: unhandled
					`,
				},
				{
					Name: "TCP becomes UDP",
					Set: set(
						service("c", "10.96.0.11", port("other", proxy.UDP, 80, 30081), port("web", proxy.TCP, 81, 30082)),
						sliceOf("c", "c", []slicePort{{"web", proxy.TCP, 8081}, {"other", proxy.UDP, 8082}}, ready("pod-c"))),
					Packets: `
						pod-a  -> 10.96.0.11:80/udp: pod-c:8082
						client -> 192.168.50.1:30081/udp: pod-c:8082, masq
						client -> 192.168.50.1:30081: unhandled
						client -> 192.168.50.1:30082: pod-c:8081, masq
					`,
				},
			},
		},
		{
			Name:  "UDP flows follow an address to another Service",
			Rules: []string{"R17", "R181"},
			Steps: []Step{
				{
					Set: append(udpPair("10.96.0.53", "203.0.113.53", 30053, "10.96.0.54", "203.0.113.54", 30054),
						sliceOf("a", "a", []slicePort{{"", proxy.UDP, 8080}}, ready("pod-a")), sliceOf("b", "b", []slicePort{{"", proxy.UDP, 8080}}, ready("pod-b"))),
					Packets: `
						client -> 203.0.113.53:53/udp as external: pod-a, masq
						client -> 192.168.50.1:30053/udp as nodeport: pod-a, masq
						pod-c  -> 10.96.0.53:53/udp as pod: pod-a
					`,
				},
				{
					Name: "they swap",
					Set:  udpPair("10.96.0.54", "203.0.113.54", 30054, "10.96.0.53", "203.0.113.53", 30053),
					Packets: `
						external again: pod-b, masq
						nodeport again: pod-b, masq
						pod again: pod-b
					`,
				},
				{
					Name: "the endpoint has another port",
					Set:  set(sliceOf("b", "b", []slicePort{{"", proxy.UDP, 8081}}, ready("pod-b"))),
					Packets: `
						external again: pod-b:8081, masq
						nodeport again: pod-b:8081, masq
						pod again: pod-b:8081
					`,
				},
			},
		},
		{
			Name:  "an endpoint may serve several Services",
			Rules: []string{"R16", "R126"},
			Steps: []Step{
				{
					Set: set(
						service("web", "10.96.0.10", tcp80), slice("web", ready("pod-a")),
						service("api", "10.96.0.11", tcp80At(30081), affinity(600)), slice("api", ready("pod-a")),
						service("all", "10.96.0.12", port("x", proxy.TCP, 80, 0), port("y", proxy.TCP, 81, 0)),
						sliceOf("all", "all", []slicePort{{"x", proxy.TCP, 8080}, {"y", proxy.TCP, 8081}}, ready("pod-a"), ready("pod-b"))),
					Packets: `
						pod-a -> 10.96.0.10:80: pod-a, masq
						pod-a -> 10.96.0.11:80: pod-a, masq
						pod-a -> 10.96.0.12:81: pod-a:8081(masq) pod-b:8081
					`,
				},
				{
					Name:   "it leaves two of them",
					Set:    set(sliceOf("all", "all", []slicePort{{"x", proxy.TCP, 8080}, {"y", proxy.TCP, 8081}}, ready("pod-b"))),
					Delete: set(service("web", "10.96.0.10"), slice("web")),
					Packets: `
						pod-a -> 10.96.0.11:80: pod-a, masq
						pod-a -> 192.168.50.1:30081: pod-a, masq
						pod-a -> 10.96.0.12:80: pod-b
						pod-b -> 10.96.0.12:81: pod-b:8081, masq
					`,
				},
				{
					Name: "and serves one again, on another port",
					Set:  set(service("web", "10.96.0.10", tcp80), sliceOf("web", "web", []slicePort{{"", proxy.TCP, 8081}}, ready("pod-a"))),
					Packets: `
						pod-a -> 10.96.0.10:80: pod-a:8081, masq
						pod-a -> 10.96.0.11:80: pod-a, masq
						pod-b -> 10.96.0.10:80: pod-a:8081
					`,
				},
			},
		},
		{
			Name:  "a Service grows from no endpoint to a thousand, and back",
			Rules: []string{"R110", "R156"},
			Steps: []Step{
				{Set: set(service("web", "10.96.0.10", tcp80At(30080), affinity(600)), slice("web")), Packets: `client -> 192.168.50.1:30080: refused`},
				{Name: "one", Set: set(slice("web", ready("pod-a"))), Packets: `
					client -> 192.168.50.1:30080: pod-a, masq
					pod-b  -> 10.96.0.10:80: pod-a
				`},
				{Name: "a thousand", Set: set(slice("web", crowd(1000)...)), Packets: `
					node   -> 10.96.0.10:80: at least 1 of the crowd
					client -> 192.168.50.1:30080: at least 1 of the crowd
				`},
				{Name: "none", Set: set(slice("web")), Packets: `
					client -> 192.168.50.1:30080: refused
					pod-b  -> 10.96.0.10:80: refused
				`},
				{Name: "others", Set: set(slice("web", ready("pod-b"), ready("remote-a"))), Packets: `
					client -> 192.168.50.1:30080: one of pod-b remote-a, masq
					pod-a  -> 10.96.0.10:80: one of pod-b remote-a
				`},
			},
		},
	}
}

// udpPair is two UDP Services.
func udpPair(ipA, externalA string, nodePortA int32, ipB, externalB string, nodePortB int32) []runtime.Object {
	return set(
		service("a", ipA, port("", proxy.UDP, 53, nodePortA), externalIPs(externalA)),
		service("b", ipB, port("", proxy.UDP, 53, nodePortB), externalIPs(externalB)))
}
