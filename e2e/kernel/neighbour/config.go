package neighbour

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// fields are those of a KubeProxyConfiguration.
type fields map[string]any

// configuration is what kube-proxy needs to understand the node as the scenario does. It writes without waiting for more.
func (k *KubeProxy) configuration(c proxytest.Node) fields {
	rules := func(more fields) fields {
		all := fields{"minSyncPeriod": "1ms", "syncPeriod": "30s", "masqueradeAll": c.MasqueradeAll}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	f := fields{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             k.mode.name(),
		"hostnameOverride": "node",
		"enableProfiling":  true, // for what it did when it took too long
		"clientConnection": fields{"kubeconfig": filepath.Join(k.dir, "kubeconfig"), "contentType": "application/json"},
		// A flow outlives a step of a scenario, however long kube-proxy takes for it.
		"conntrack": fields{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
			"udpTimeout": "10m", "udpStreamTimeout": "10m"},
		// Zero would ask for the masquerade bit 0, not for the default.
		"iptables":          rules(fields{"localhostNodePorts": !c.NoLocalhost, "masqueradeBit": masqueradeBit}),
		"nftables":          rules(fields{"masqueradeBit": masqueradeBit}),
		"ipvs":              fields{"minSyncPeriod": "1ms", "syncPeriod": "1h"}, // a whole sync would take an emulated processor most of 30 s
		"nodePortAddresses": nodePortAddresses(c.NodePortAddresses),
	}
	switch c.Detect {
	case proxytest.ByClusterCIDR:
		f["detectLocalMode"], f["clusterCIDR"] = "ClusterCIDR", bothFamilies(lab.ClusterCIDR)
	case proxytest.ByNodeCIDR:
		f["detectLocalMode"] = "NodeCIDR"
	case proxytest.ByBridge:
		f["detectLocalMode"], f["detectLocal"] = "BridgeInterface", fields{"bridgeInterface": lab.BridgeName}
	case proxytest.ByInterfacePrefix:
		f["detectLocalMode"], f["detectLocal"] = "InterfaceNamePrefix", fields{"interfaceNamePrefix": lab.PodPrefix}
	}
	return f
}

const masqueradeBit = 14

func bothFamilies(p netip.Prefix) string {
	return p.String() + "," + lab.PrefixIn(proxy.IPv6, p).String()
}

// nodePortAddresses leaves out the keywords that kube-proxy does not know: primary alone it does.
func nodePortAddresses(values []string) []string {
	var known []string
	for _, v := range values {
		if strings.Contains(v, "/") || len(values) == 1 && v == "primary" {
			known = append(known, v)
		}
	}
	return known
}
