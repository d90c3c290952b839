package kernel_test

import (
	"os/exec"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/kernel/neighbour"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// kubeProxysOwn are packets that Sluice leaves alone, and that are kube-proxy's then: both cannot be told the same, or
// kube-proxy does what Sluice deliberately does not.
func kubeProxysOwn(mode neighbour.Mode) []proxytest.Exception {
	all := []proxytest.Exception{
		{
			Scenario: "external IPs can be switched off",
			Packets:  []string{"client -> 203.0.113.10:80: unhandled", "node -> 203.0.113.10:80: unhandled"},
			Why:      "kube-proxy serves them",
		},
		{
			Scenario: "an address that two Services claim has one owner",
			Packets:  []string{"client -> 203.0.113.10:80: refused"},
			Why:      "kube-proxy has another one serve it",
		},
		{
			Scenario: "malformed objects spoil nobody else",
			Why:      "kube-proxy writes nothing as long as they are there",
		},
	}
	noPrimary := proxytest.Exception{
		Scenario: "nodePortAddresses select the addresses of NodePorts",
		Packets: []string{
			"client -> 192.168.50.1:30080: unhandled", "node -> 192.168.50.1:30080: unhandled", "client -> 192.168.50.1:30081: unhandled",
		},
		Why: "kube-proxy serves primary without an address",
	}
	switch mode {
	case neighbour.NFTables:
		return append(all, noPrimary, proxytest.Exception{
			Scenario: "NodePorts follow the addresses of the node",
			Packets:  []string{"client -> 198.51.100.10:30080: unhandled", "client -> 198.51.100.10:30081: unhandled"},
			Why:      "kube-proxy looks at addresses now and then",
		}, proxytest.Exception{
			Scenario: "addresses of a ServiceCIDR that nobody has are dropped",
			Packets:  []string{"pod-b -> 10.96.0.99:80: unhandled", "node -> 10.96.0.99:80: unhandled"},
			Why:      "kube-proxy does not forget a range",
		}, proxytest.Exception{
			Scenario: "names may be as long as they may be",
			Why:      "kube-proxy writes nothing: its names become too long for nft",
		})
	case neighbour.IPVS:
		const itsOwn = "kube-proxy gives the node the addresses of Services, so the node itself answers at all other ports, or kube-proxy refuses them"
		return append(all, proxytest.Exception{
			Scenario: "external IPs are served wherever they are",
			Packets:  []string{"client -> 203.0.113.10:79: reset"},
			Why:      itsOwn,
		}, proxytest.Exception{
			Scenario: "source ranges drop all others, on load-balancer IPs only",
			Packets:  []string{"client -> 198.51.100.10:79: reset"},
			Why:      itsOwn,
		}, proxytest.Exception{
			Scenario: "a Service may have a hundred ports",
			Packets:  []string{"pod-b -> 10.96.0.10:9999: refused", "pod-b -> 10.96.0.10:10100: refused"},
			Why:      itsOwn,
		}, proxytest.Exception{
			Scenario: "internal policy Local keeps ClusterIP traffic on the node",
			Packets:  []string{"node -> 10.96.0.10:80: dropped"},
			Why:      "IPVS takes the node's own packets before they could be dropped, and kube-proxy gives them all endpoints",
		}, proxytest.Exception{
			Scenario: "internal policy Local of a Service that is not exposed",
			Packets:  []string{"node -> 10.96.0.10:80: dropped"},
			Why:      "IPVS takes the node's own packets before they could be dropped, and kube-proxy refuses them",
		}, proxytest.Exception{
			Scenario: "a Service may have thousands of endpoints",
			Why:      "for each endpoint that goes kube-proxy lists all others: one step takes an emulated processor more than twelve minutes",
		}, proxytest.Exception{
			Scenario: "established connections outlive what serves them",
			Packets:  []string{"node again: same"},
			Why:      "a connection of the node comes from the address of the Service, which kube-proxy takes from the node when the Service goes",
		}, noPrimary)
	case neighbour.IPTables:
		const everywhere = "kube-proxy refuses ports without endpoints at all addresses"
		return append(all, proxytest.Exception{
			Scenario: "nodePortAddresses select the addresses of NodePorts",
			Packets: []string{
				"client -> 192.168.50.2:30081: unhandled", "node -> 192.168.50.2:30081: unhandled", "client -> 192.168.50.1:30081: unhandled",
				"client -> 192.168.50.1:30080: unhandled", "node -> 192.168.50.1:30080: unhandled",
			},
			Why: everywhere + ", and serves primary without an address",
		}, proxytest.Exception{
			Scenario: "NodePorts stay off 127.0.0.1 if the node says so",
			Packets:  []string{"node -> 127.0.0.1:30081: unhandled", "client -> 192.168.50.1:30081: unhandled"},
			Why:      everywhere,
		}, proxytest.Exception{
			Scenario: "NodePorts are never on ::1",
			Packets:  []string{"node -> 127.0.0.1:30081: unhandled"},
			Why:      everywhere,
		})
	}
	return all
}

// TestKernelNftablesBesideKubeProxy plays the scenarios while kube-proxy serves the same objects on the same node, by all of
// its modes that this kernel has.
func TestKernelNftablesBesideKubeProxy(t *testing.T) {
	modes := []neighbour.Mode{neighbour.NFTables, neighbour.IPTables}
	if hasIPVS() {
		modes = append(modes, neighbour.IPVS)
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			workers := 0
			if mode == neighbour.IPVS {
				workers = 2 // each kube-proxy starts hundreds of programs
			}
			proxytest.Run(t, proxytest.Harness{
				Workers: workers,
				Mode:    nftables.NewMode(nftables.Config{DropInvalid: true}),
				Dump:    listTable,
				Neighbour: func(t testing.TB, l *lab.Lab) proxytest.Neighbour {
					return neighbour.Start(t, l, "../bin/kube-proxy", mode)
				},
				Except: kubeProxysOwn(mode),
			})
		})
	}
}

// hasIPVS tells whether this kernel has IPVS. A module is loaded.
func hasIPVS() bool { return exec.Command("ipvsadm", "-Ln").Run() == nil }
