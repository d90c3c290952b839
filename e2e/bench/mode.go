package main

import (
	"net/netip"
)

// mode is one that both proxies have.
type mode struct {
	name     string
	backends []string // what it may run on; with a single one there is nothing to choose

	// loads that both, or only Sluice, are measured with, if nobody says otherwise.
	loads, alone string
	// asked are those that the answers to questions are measured with.
	asked string

	// sharedPorts is how many ports the load-balancer IP has by default.
	sharedPorts int

	// slow says that kube-proxy needs many seconds for a change: many in a row are not measured, but what it needs
	// when nothing happens.
	slow bool

	flags func(backend string) []string // of Sluice
	// order lists the addresses of one-port Services in the order in which kube-proxy compares a packet with them.
	order func(n *node, backend string, services []service) ([]netip.Addr, error)
	// lose takes away all rules that translate addresses, as another program might, and gives what puts them back.
	lose func(n *node, backend, file string) (restore func() error, err error)
	// loss is how an operator would do that.
	loss string
	// asking is a sentence about how questions are answered here, or empty.
	asking string
	// note is a sentence about how kube-proxy runs.
	note string
}

// modes are all that can be measured.
var modes = []mode{
	{
		name:        "iptables",
		backends:    []string{"nft", "legacy"},
		loads:       "1000 5000 10000",
		asked:       "10000",
		sharedPorts: 1000,
		flags:       func(backend string) []string { return []string{"--iptables-backend", backend} },
		order:       chainOrder,
		lose:        flushNAT,
		loss:        "iptables -t nat -F",
		asking:      "To look at a rule of backend legacy means to read its whole table: the kernel gives nothing less.",
		note:        "kube-proxy finds the backend as the first `iptables` in PATH.",
	},
	{
		name:        "nftables",
		backends:    []string{"nftables"},
		loads:       "1000 5000 10000",
		alone:       "30000 5000x50",
		asked:       "10000",
		sharedPorts: 1000,
		flags:       func(string) []string { return nil },
		order:       addressOrder, // an address is looked up: none comes first
		lose:        flushRuleset,
		loss:        "nft flush ruleset",
		note:        "The base line's rule is one of iptables-nft.",
	},
	{
		name:        "ipvs",
		backends:    []string{"ipvs"},
		loads:       "500 1000",
		alone:       "2000",
		asked:       "2000",
		sharedPorts: 10, // to kube-proxy each port is a Service more, and it starts programs for each
		slow:        true,
		flags:       func(string) []string { return nil },
		order:       addressOrder, // an address is looked up here, too
		lose:        clearServers,
		loss:        "ipvsadm -C",
		asking:      "All of this ran in a virtual machine whose processor is emulated: only ratios mean something.",
		note:        "The base line's rule is one of iptables-nft. All of this ran in a virtual machine whose processor is emulated: only ratios mean something.",
	},
}

// findMode is nil for a name that no mode has.
func findMode(name string) *mode {
	for i := range modes {
		if modes[i].name == name {
			return &modes[i]
		}
	}
	return nil
}

// tools is the backend of the iptables programs that go with a backend of any mode.
func tools(backend string) string {
	if backend == "legacy" {
		return backend
	}
	return "nft"
}
