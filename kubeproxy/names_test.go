package kubeproxy

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

func TestChainsOfKubeProxyAreToldFromOthers(t *testing.T) {
	for _, test := range []struct {
		table, chain string
		want         bool
	}{
		{"nat", "KUBE-SERVICES", true},
		{"filter", "KUBE-SERVICES", true},
		{"filter", "KUBE-PROXY-FIREWALL", true},
		{"mangle", "KUBE-PROXY-CANARY", true},
		{"nat", "KUBE-SVC-TCOU7JCQXEZGVUNU", true},
		{"nat", "KUBE-SEP-ZP3FB6NMPNCO4VBJ", true},
		{"filter", "KUBE-SEP-ZP3FB6NMPNCO4VBJ", false},
		{"mangle", "KUBE-SERVICES", false},
		{"mangle", "KUBE-IPTABLES-HINT", false},
		{"nat", "KUBE-KUBELET-CANARY", false},
		{"nat", "KUBE-MARK-DROP", false},
		{"filter", "KUBE-ROUTER-INPUT", false},
		{"nat", "KUBE-NWPLCY-ABCDEFGHIJKLMNOP", false},
		{"filter", "KUBE-POD-FW-ABCDEFGHIJKLMNOP", false},
		{"nat", "KUBE-FW-ABCDEFGHIJKLMNOP", true},
		{"nat", "KUBE-FW-ABCDEFGHIJKLMNOPQ", false},
		{"nat", "KUBE-SVC-mine", false},
		{"nat", "SLUICE-SERVICES", false},
		{"nat", "CNI-HOSTPORT-MASQ", false},
	} {
		if got := theirs(test.table, xtables.Survey{})(test.chain); got != test.want {
			t.Errorf("%s of table %s: got %t", test.chain, test.table, got)
		}
	}
}

func TestChainsThatOthersMakeTooAreRemovedIfNobodyElseNeedsThem(t *testing.T) {
	const mark = xtables.SharedChain
	for name, test := range map[string]struct {
		table, chain string
		survey       xtables.Survey
		want         bool
	}{
		"mark":                     {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1, "KUBE-KUBELET-CANARY": 0}}, true},
		"mark in another table":    {"filter", mark, xtables.Survey{Chains: map[string]int{mark: 1}}, false},
		"mark, Sluice serves":      {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1, "SLUICE-SERVICES": 2}}, false},
		"mark, an old kubelet":     {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1, "KUBE-MARK-DROP": 1}}, false},
		"mark, used by kube-proxy": {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1}, Leads: []xtables.Lead{{Chain: "KUBE-SVC-TCOU7JCQXEZGVUNU", Target: mark}}}, true},
		"mark, used by others":     {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1}, Leads: []xtables.Lead{{Chain: "CNI", Target: mark}}}, false},
		"mark, used by a built-in": {"nat", mark, xtables.Survey{Chains: map[string]int{mark: 1}, Leads: []xtables.Lead{{Chain: "PREROUTING", Target: mark}}}, false},
		"firewall":                 {"filter", firewall, xtables.Survey{Chains: map[string]int{firewall: 1}}, false},
		"firewall without rules":   {"filter", firewall, xtables.Survey{Chains: map[string]int{firewall: 0}}, true},
		"firewall elsewhere":       {"nat", firewall, xtables.Survey{Chains: map[string]int{firewall: 0}}, false},
	} {
		if got := theirs(test.table, test.survey)(test.chain); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestSetNamesFollowTheFamily(t *testing.T) {
	for name, want := range map[string]setName{
		"KUBE-CLUSTER-IP":                 {"KUBE-CLUSTER-IP", proxy.IPv4},
		"KUBE-6-CLUSTER-IP":               {"KUBE-CLUSTER-IP", proxy.IPv6},
		"KUBE-6-LOAD-BALANCER-SOURCE-CID": {"KUBE-LOAD-BALANCER-SOURCE-CIDR", proxy.IPv6}, // cut to what the kernel takes
		"KUBE-6-NODE-PORT-LOCAL-SCTP-HAS": {"KUBE-NODE-PORT-LOCAL-SCTP-HASH", proxy.IPv6},
		"KUBE-ROUTER-SVIP":                {},
		"KUBE-6-":                         {},
	} {
		if got := setNames[name]; got != want || isSet(name) != (want.name != "") {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestVirtualServersAreKubeProxysOnlyWithProof(t *testing.T) {
	addr := netip.MustParseAddr
	p := proofs{
		bound: map[netip.Addr]bool{addr("10.96.0.1"): true},
		local: map[netip.Addr]bool{addr("192.168.50.1"): true, addr("10.96.0.1"): true},
		members: map[kernel.Member]bool{
			{Addr: addr("198.51.100.1"), Port: 80, Protocol: proxy.TCP}: true,
			{Port: 30080, Protocol: proxy.TCP}:                          true,
		},
	}
	for text, want := range map[string]bool{
		"10.96.0.1:443":      true,  // its address is on the interface
		"198.51.100.1:80":    true,  // an ipset has it
		"198.51.100.1:81":    false, // another port: somebody else's
		"192.168.50.1:30080": true,  // a NodePort
		"192.168.50.1:80":    false,
		"192.168.50.9:30080": false, // not an address of the node
	} {
		id := kernel.ID{Addr: netip.MustParseAddrPort(text), Protocol: proxy.TCP}
		if got := p.has(id); got != want {
			t.Errorf("%s: got %t", text, got)
		}
		if id.Protocol = proxy.UDP; text != "10.96.0.1:443" && p.has(id) {
			t.Errorf("%s/udp: there is no proof of it", text)
		}
	}
	if p.has(kernel.ID{Mark: 7}) {
		t.Error("kube-proxy has no virtual server that is known by a mark")
	}
}
