package ipvs_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// TestKernelIPVS plays the scenarios in both families. Nothing in a table of one's own can accept a packet on behalf of
// another, so there is no firewall to open.
func TestKernelIPVS(t *testing.T) {
	h := harness()
	h.Except = exceptions
	proxytest.Run(t, h)
}

// TestKernelIsAsExplained sends random packets to random Services: what package explain says must be what the kernel does.
func TestKernelIsAsExplained(t *testing.T) {
	h := harness()
	h.Scenarios = proxytest.RandomScenarios(1, 2)
	proxytest.Run(t, h)
}

func harness() proxytest.Harness {
	return proxytest.Harness{
		Mode: ipvs.NewMode(ipvs.Config{DropInvalid: true}),
		Dump: dump,
		// IPVS tells answers to two frontends apart by the client's port, and may mix them up if that is the same.
		OwnPorts: true,
		Relayed:  true,
		// What an earlier scenario left open would keep its virtual servers.
		Forget: func() error { return exec.Command("ipvsadm", "-C").Run() },
	}
}

const (
	relayed    = "a relay serves 127.0.0.1; without endpoints it does not listen, so that the kernel refuses by itself"
	noLoopback = "IPVS sends no packets from a loopback address to another machine, and the relay has 127.0.0.1 alone"
	relayed6   = "where ::1 is named, the relay serves it"
	eachAlone  = "affinity is the persistence of one virtual server: a client keeps its backend at each address and port by itself"
)

// exceptions are all packets of the scenarios that this mode treats otherwise. No policy, masquerade, refusal or hairpin is among
// them that is not about a loopback address.
var exceptions = []proxytest.Exception{
	{
		Scenario: "loopback addresses are not reachable from the network", Why: noLoopback,
		Packets: []string{
			"node -> 127.0.0.2:30080: pod-a remote-a, masq",
			"node@127.0.0.1 -> 192.168.50.1:30080: pod-a remote-a, masq",
		},
	},
	{
		Scenario: "NodePorts stay off 127.0.0.1 if the node says so", Why: relayed,
		Packets: []string{"node -> 127.0.0.1:30081: refused"},
	},
	{
		Scenario: "NodePorts are never on ::1", Why: relayed6,
		Packets: []string{"node -> 127.0.0.1:30080: unhandled"},
	},
	{
		Scenario: "a client keeps its backend across frontends and changes", Why: eachAlone,
		Packets: []string{
			"client -> 198.51.100.10:80: like c0",
			"client -> 203.0.113.10:80: like c0",
			"client -> 192.168.50.1:30080: like c0",
			"client@192.168.50.101 -> 10.96.0.10:80: like c1",
			"client@192.168.50.101 -> 198.51.100.10:80: like c1",
			"pod-c -> 198.51.100.10:80: like p",
			"client -> 203.0.113.10:80: pod-c, masq",
		},
	},
	{
		Scenario: "UDP and SCTP clients keep their backends", Why: eachAlone,
		Packets: []string{
			"client -> 192.168.50.1:30053/udp: like u",
			"client -> 192.168.50.1:30053/sctp: like s",
		},
	},
	{
		Scenario: "affinity is on for as many endpoints as there are", Why: eachAlone,
		Packets: []string{
			"client -> 203.0.113.10:80: like c",
			"pod-c -> 192.168.50.1:30080: like p",
		},
	},
}

// dump is what the mode has in the calling thread's namespace.
func dump(f proxy.Family) string {
	ip := "-4"
	if f == proxy.IPv6 {
		ip = "-6"
	}
	var b strings.Builder
	for _, line := range [][]string{
		{"nft", "list", "table", string(nft.Family(f)), ipvs.Table},
		{"ipvsadm", "-Ln"},
		{"ipvsadm", "-Lnc"},
		{"ip", ip, "rule"},
		{"ip", ip, "route", "show", "table", "all"},
	} {
		out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
		b.WriteString(strings.Join(line, " ") + "\n" + string(out))
		if err != nil {
			b.WriteString(err.Error() + "\n")
		}
	}
	return b.String()
}
