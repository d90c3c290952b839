package nodeinfo

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/proxy"
)

// DetectMode is a value of --detect-local-mode.
type DetectMode string

// The ways to tell the traffic of pods from other traffic.
const (
	ClusterCIDR         DetectMode = "ClusterCIDR"
	NodeCIDR            DetectMode = "NodeCIDR"
	BridgeInterface     DetectMode = "BridgeInterface"
	InterfaceNamePrefix DetectMode = "InterfaceNamePrefix"
)

// DetectModes lists them all.
var DetectModes = []DetectMode{ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix}

// PodDetector is how the configuration wants pods to be recognised. The zero value is not at all.
type PodDetector struct {
	Mode         DetectMode
	ClusterCIDRs []netip.Prefix // for ClusterCIDR
	Interface    string         // for BridgeInterface its name, for InterfaceNamePrefix the prefix
}

// source is what the detector means in a family on a node with those podCIDRs. Of several ranges of
// a family the first counts; without one, pods cannot be told apart.
func (d PodDetector) source(f proxy.Family, podCIDRs []netip.Prefix) proxy.PodSource {
	switch d.Mode {
	case ClusterCIDR:
		return prefixSource(f, d.ClusterCIDRs)
	case NodeCIDR:
		return prefixSource(f, podCIDRs)
	case BridgeInterface:
		return proxy.PodSource{Kind: proxy.PodSourceInterface, Interface: d.Interface}
	case InterfaceNamePrefix:
		return proxy.PodSource{Kind: proxy.PodSourceInterfacePrefix, Interface: d.Interface}
	}
	return proxy.PodSource{}
}

func prefixSource(f proxy.Family, prefixes []netip.Prefix) proxy.PodSource {
	for _, p := range prefixes {
		if f.Has(p.Addr()) {
			return proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: p.Masked()}
		}
	}
	return proxy.PodSource{}
}
