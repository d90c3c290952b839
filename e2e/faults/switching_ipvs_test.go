package faults

import "testing"

// ipvsCircuits go every way from mode ipvs and to it, and between kube-proxy's mode ipvs and modes of Sluice, but for one: when
// kube-proxy starts in mode nftables it removes all virtual servers, whoever has made them. Mode nftables of Sluice comes in between.
var ipvsCircuits = []circuit{
	{"nftables", []string{"ipvs", "nftables", "ipvs"}},
	{"iptables", []string{"ipvs", "iptables-nft", "ipvs", "iptables-legacy", "ipvs"}},
	{"kube-proxy", []string{"nftables", "kube-proxy-nftables", "ipvs", "kube-proxy-iptables-nft", "ipvs"}},
	{"kube-proxy-legacy", []string{"ipvs", "kube-proxy-iptables-legacy", "ipvs"}},
	{"kube-proxy-ipvs", []string{"ipvs", "kube-proxy-ipvs", "nftables", "kube-proxy-ipvs", "iptables-nft", "kube-proxy-ipvs", "ipvs"}},
	{"kube-proxy-ipvs-legacy", []string{"iptables-legacy", "kube-proxy-ipvs", "iptables-legacy"}},
}

// TestSwitchingIPVS is TestSwitching for a kernel with IPVS.
func TestSwitchingIPVS(t *testing.T) { goRound(t, ipvsCircuits) }
