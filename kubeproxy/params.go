package kubeproxy

import (
	"fmt"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
)

// Parameter is a kernel parameter that kube-proxy sets. What it was before nobody knows, and others may need it by now, so it stays.
type Parameter struct {
	name  string // below /proc/sys
	value int    // to which it is set, or asConfigured
	usual int    // where value is asConfigured: what kernels start with, if that is always the same
}

// asConfigured is a value that flags decide.
const asConfigured = -1

// TrackingParameters are set in every mode.
var TrackingParameters = []Parameter{
	{name: "net/netfilter/nf_conntrack_max", value: asConfigured},
	{name: "net/netfilter/nf_conntrack_tcp_timeout_established", value: asConfigured, usual: 432000},
	{name: "net/netfilter/nf_conntrack_tcp_timeout_close_wait", value: asConfigured, usual: 60},
}

// RulesParameters are set in mode iptables.
var RulesParameters = []Parameter{{name: "net/ipv4/conf/all/route_localnet", value: 1}}

// VirtualParameters are set in mode ipvs, the last two for strictARP.
var VirtualParameters = []Parameter{
	{name: "net/ipv4/vs/conntrack", value: 1},
	{name: "net/ipv4/vs/conn_reuse_mode", value: 0},
	{name: "net/ipv4/vs/expire_nodest_conn", value: 1},
	{name: "net/ipv4/vs/expire_quiescent_template", value: 1},
	{name: "net/ipv4/ip_forward", value: 1},
	{name: "net/ipv4/conf/all/arp_ignore", value: 1},
	{name: "net/ipv4/conf/all/arp_announce", value: 2},
}

// Stays says that a parameter keeps its value. It says nothing of one that is not there, or has a value that is certainly not kube-proxy's.
func (p Parameter) Stays(tree sysctl.Tree) (line string, stays bool) {
	file := "proc/sys/" + p.name
	value, err := tree.Get(file)
	if err != nil || p.value == asConfigured && value == p.usual || p.value != asConfigured && value != p.value {
		return "", false
	}
	return fmt.Sprintf("stays: value %d of kernel parameter /%s, which kube-proxy sets", value, file), true
}
