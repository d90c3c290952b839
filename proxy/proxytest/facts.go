package proxytest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// masqueradeMark is the default of --iptables-masquerade-bit.
const masqueradeMark = 1 << 14

// nodeFacts is what the program would find out about the node, with its addresses as they are.
func (s *stage) nodeFacts(n Node) *proxy.Node {
	s.t.Helper()
	selection, err := nodeinfo.ParseNodePortSelection(textsIn(s.family, n.NodePortAddresses))
	s.must("read nodePortAddresses", err)
	cfg := nodeinfo.Config{
		Name:               nodeName,
		Families:           proxy.Families[:],
		NodePorts:          selection,
		PodDetector:        n.detector(),
		LocalhostNodePorts: !n.NoLocalhost,
		RelayLocalhost:     s.Relayed,
		MasqueradeAll:      n.MasqueradeAll,
		MasqueradeMark:     masqueradeMark,
	}
	if !n.NoServiceCIDR {
		cfg.ServiceCIDRs = bothFamilies(lab.ServiceCIDR)
	}
	info := nodeinfo.New(cfg)
	info.SetNode(n.object(s.family))
	s.onNode("read the node's addresses", func() error {
		addrs, err := nodeinfo.Addrs()
		info.SetAddrs(addrs)
		return err
	})
	facts := info.Node(s.family)
	if facts.NodePorts.Localhost {
		s.onNode("route localhost", sysctl.Tree{}.RouteLocalnet)
	}
	return facts
}

func (n Node) detector() nodeinfo.PodDetector {
	switch n.Detect {
	case ByClusterCIDR:
		return nodeinfo.PodDetector{Mode: nodeinfo.ClusterCIDR, ClusterCIDRs: bothFamilies(lab.ClusterCIDR)}
	case ByNodeCIDR:
		return nodeinfo.PodDetector{Mode: nodeinfo.NodeCIDR}
	case ByBridge:
		return nodeinfo.PodDetector{Mode: nodeinfo.BridgeInterface, Interface: lab.BridgeName}
	case ByInterfacePrefix:
		return nodeinfo.PodDetector{Mode: nodeinfo.InterfaceNamePrefix, Interface: lab.PodPrefix}
	}
	return nodeinfo.PodDetector{}
}

// object is the node's Node object.
func (n Node) object(f proxy.Family) *corev1.Node {
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelTopologyZone: n.Zone}}}
	for _, p := range bothFamilies(lab.NodeCIDR) {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.String())
	}
	for _, each := range proxy.Families {
		if each != f || !n.NoAddress {
			ip := lab.In(each, lab.NodeIP).String()
			o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
	}
	return o
}

func bothFamilies(p netip.Prefix) []netip.Prefix {
	return []netip.Prefix{p, lab.PrefixIn(proxy.IPv6, p)}
}
