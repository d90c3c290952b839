package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// kernel is what stories must know of how a mode programs the kernel.
type kernel struct {
	// table is the mode's own in nf_tables. A mode without has its rules in the tables that iptables shows, among those
	// of others.
	table string

	// lists are commands that list what else it has.
	lists func(proxy.Family) []string

	// breaks are commands of others that take away what serves. After each of them it must come back.
	breaks func(*world, proxy.Family) []string

	// unsettled is a part of what is listed, as long as something of the past waits for its end.
	unsettled string

	// metrics are those that not every mode has, as in kube-proxy.
	metrics []string

	// alone is set if each frontend of a Service remembers its clients by itself.
	alone bool
}

// kernels are those of the modes, as --mode has them.
var kernels = map[string]kernel{
	"iptables": {
		breaks: func(w *world, f proxy.Family) []string {
			return []string{w.tool(f, "") + " -t nat -F", w.tool(f, "") + " -t nat -F PREROUTING"}
		},
		metrics: phases,
	},
	"nftables": {
		table:   "sluice",
		breaks:  func(_ *world, f proxy.Family) []string { return breakTable(f, "sluice", "nat-prerouting") },
		metrics: phases,
	},
	"ipvs": {
		table: "sluice-ipvs",
		lists: func(f proxy.Family) []string {
			ip := map[proxy.Family]string{proxy.IPv4: "ip -4", proxy.IPv6: "ip -6"}[f]
			return []string{ip + " rule", ip + " route show table all", "ipvsadm -Sn"}
		},
		breaks: func(_ *world, f proxy.Family) []string {
			ip := map[proxy.Family]string{proxy.IPv4: "ip -4", proxy.IPv6: "ip -6"}[f]
			return append(breakTable(f, "sluice-ipvs", "lead-prerouting"), "ipvsadm -C", ip+" rule del priority 8", ip+" route flush table 21338")
		},
		unsettled: " -w 0", // a backend that drains
		alone:     true,
	},
}

var phases = []string{"kubeproxy_sync_full_proxy_rules_duration_seconds_count", "kubeproxy_sync_partial_proxy_rules_duration_seconds_count"}

func breakTable(f proxy.Family, table, chain string) []string {
	return []string{
		fmt.Sprintf("nft flush chain %s %s %s", nftFamily(f), table, chain),
		fmt.Sprintf("nft delete table %s %s", nftFamily(f), table),
	}
}

func nftFamily(f proxy.Family) string {
	if f == proxy.IPv6 {
		return "ip6"
	}
	return "ip"
}

// run runs a command line on the node.
func (w *world) run(line string) (string, error) {
	words := strings.Fields(line)
	return w.Node.Run(words[0], words[1:]...)
}

// listTable is the mode's own table, empty if it is not there.
func (w *world) listTable(f proxy.Family) (string, error) {
	tables, err := w.run("nft list tables " + nftFamily(f))
	if err != nil || !slices.Contains(strings.Fields(tables), w.kernel.table) {
		return "", err
	}
	return w.run(fmt.Sprintf("nft -s list table %s %s", nftFamily(f), w.kernel.table))
}
