package proxytest

import (
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// The matrix: every source, frontend and policy, on nodes that can and cannot tell pods apart, with
// and without masquerading everything.

// column is a Service of the matrix.
type column struct {
	clusterIP, vip, externalIP string
	nodePort                   int
	externalLocal              bool
	internalLocal              bool
}

var columns = []column{
	{clusterIP: "10.96.0.10", vip: "198.51.100.10", externalIP: "203.0.113.10", nodePort: 30080},
	{clusterIP: "10.96.0.11", vip: "198.51.100.11", externalIP: "203.0.113.11", nodePort: 30081, externalLocal: true},
	{clusterIP: "10.96.0.12", vip: "198.51.100.12", externalIP: "203.0.113.12", nodePort: 30082, internalLocal: true},
}

func matrixScenarios() []Scenario {
	var scenarios []Scenario
	for _, detected := range []bool{true, false} {
		for _, all := range []bool{false, true} {
			node := Node{MasqueradeAll: all}
			rules := []string{"R20", "R36", "R52", "R61", "R70", "R80", "R81", "R82", "R84", "R120", "R124", "R125", "R127"}
			name := "matrix of sources, frontends and policies"
			switch {
			case detected:
				rules = append(rules, "R85", "R86", "R122", "R128", "R129")
			default:
				node.Detect = Undetected
				name += ", pods unknown"
				rules = append(rules, "R87", "R123", "R128")
			}
			if all {
				name += ", everything masqueraded"
				rules = append(rules, "R121")
			}
			scenarios = append(scenarios, matrixOf(name, rules, node, proxy.TCP))
			if detected && !all {
				scenarios = append(scenarios,
					matrixOf(name+", UDP", append(rules, "R181"), node, proxy.UDP),
					matrixOf(name+", SCTP", append(rules, "R180"), node, proxy.SCTP))
			}
		}
	}
	return scenarios
}

func matrixOf(name string, rules []string, node Node, p proxy.Protocol) Scenario {
	step := Step{}
	var packets strings.Builder
	for i, c := range columns {
		s := service(fmt.Sprintf("web-%d", i), c.clusterIP, port("", p, 80, int32(c.nodePort)), loadBalancer(c.vip), externalIPs(c.externalIP))
		if c.externalLocal {
			externalLocal(s)
		}
		if c.internalLocal {
			internalLocal(s)
		}
		step.Set = append(step.Set, s, sliceOf(s.Name, s.Name, []slicePort{{"", p, defaultTargetPort}}, ready("pod-a"), ready("remote-a")))
		c.packets(&packets, node, p)
	}
	step.Packets = packets.String()
	return Scenario{Name: name, Rules: rules, Node: node, Steps: []Step{step}}
}

// packets writes a line for each source and frontend.
func (c column) packets(b *strings.Builder, n Node, p proxy.Protocol) {
	for _, source := range []string{"pod-b", "node", "client"} {
		fmt.Fprintf(b, "%s -> %s:80/%v: %s\n", source, c.clusterIP, p, c.internal(n, source))
		for _, vip := range []string{c.vip, c.externalIP} {
			fmt.Fprintf(b, "%s -> %s:80/%v: %s\n", source, vip, p, c.external(n, source))
		}
		fmt.Fprintf(b, "%s -> 192.168.50.2:%d/%v: %s\n", source, c.nodePort, p, c.external(n, source))
	}
}

// internal is what becomes of ClusterIP traffic.
func (c column) internal(n Node, source string) string {
	backends := "pod-a remote-a"
	if c.internalLocal {
		backends = "pod-a"
	}
	if n.MasqueradeAll || n.Detect != Undetected && source != "pod-b" {
		return backends + ", masq"
	}
	return backends
}

// external is what becomes of traffic to any other frontend.
func (c column) external(n Node, source string) string {
	switch {
	case !c.externalLocal, source == "node":
		return "pod-a remote-a, masq"
	case source == "pod-b" && n.Detect != Undetected:
		return "pod-a remote-a"
	}
	return "pod-a"
}
