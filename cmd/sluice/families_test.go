package main

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

func TestClusterCIDRsMustFitTheNode(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/48")
	for name, c := range map[string]struct {
		mode     nodeinfo.DetectMode
		families []proxy.Family
		cidrs    []netip.Prefix
		fits     bool
	}{
		"none":                  {nodeinfo.ClusterCIDR, proxy.Families[:], nil, true},
		"one of two":            {nodeinfo.ClusterCIDR, proxy.Families[:], []netip.Prefix{v6}, true},
		"wrong family":          {nodeinfo.ClusterCIDR, []proxy.Family{proxy.IPv4}, []netip.Prefix{v6}, false},
		"right family":          {nodeinfo.ClusterCIDR, []proxy.Family{proxy.IPv4}, []netip.Prefix{v6, v4}, true},
		"wrong in another mode": {nodeinfo.NodeCIDR, []proxy.Family{proxy.IPv4}, []netip.Prefix{v6}, true},
	} {
		err := checkClusterCIDRs(t.Context(), nodeinfo.Config{Families: c.families, PodDetector: nodeinfo.PodDetector{Mode: c.mode, ClusterCIDRs: c.cidrs}})
		if (err == nil) != c.fits {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
