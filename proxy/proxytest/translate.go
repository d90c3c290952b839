package proxytest

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Objects are written in IPv4. In IPv6 each address is replaced by its twin, and the other way
// round: an object that has both families keeps having both. What is no address stays as it is.

// twin is an address in the other family.
func twin(a netip.Addr) netip.Addr {
	if a.Is4() {
		return lab.In(proxy.IPv6, a)
	}
	bytes := a.As16()
	four := netip.AddrFrom4([4]byte(bytes[12:]))
	if lab.In(proxy.IPv6, four) != a {
		return a
	}
	return four
}

func twinPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return lab.PrefixIn(proxy.IPv6, p)
	}
	if p.Bits() == 0 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(twin(p.Addr()), max(p.Bits()-96, 0))
}

// twinText translates an address or prefix, and keeps the blanks around it.
func twinText(text string) string {
	if bare := strings.TrimSpace(text); bare != text {
		return strings.Replace(text, bare, twinText(bare), 1)
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return twin(a).String()
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return twinPrefix(p).String()
	}
	return text
}

func twinTexts(texts []string) []string {
	var twins []string
	for _, text := range texts {
		twins = append(twins, twinText(text))
	}
	return twins
}

// textsIn translates addresses and prefixes to a family.
func textsIn(f proxy.Family, texts []string) []string {
	if f == proxy.IPv4 {
		return texts
	}
	return twinTexts(texts)
}

var twinFamily = map[corev1.IPFamily]corev1.IPFamily{
	corev1.IPv4Protocol: corev1.IPv6Protocol, corev1.IPv6Protocol: corev1.IPv4Protocol,
}

var twinAddressType = map[discoveryv1.AddressType]discoveryv1.AddressType{
	discoveryv1.AddressTypeIPv4: discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeIPv6: discoveryv1.AddressTypeIPv4,
	discoveryv1.AddressTypeFQDN: discoveryv1.AddressTypeFQDN,
}

func serviceIn(f proxy.Family, s *corev1.Service) *corev1.Service {
	if f == proxy.IPv4 {
		return s
	}
	s = s.DeepCopy()
	s.Spec.ClusterIP = twinText(s.Spec.ClusterIP)
	s.Spec.ClusterIPs = twinTexts(s.Spec.ClusterIPs)
	for i, family := range s.Spec.IPFamilies {
		s.Spec.IPFamilies[i] = twinFamily[family]
	}
	s.Spec.ExternalIPs = twinTexts(s.Spec.ExternalIPs)
	s.Spec.LoadBalancerSourceRanges = twinTexts(s.Spec.LoadBalancerSourceRanges)
	for i := range s.Status.LoadBalancer.Ingress {
		s.Status.LoadBalancer.Ingress[i].IP = twinText(s.Status.LoadBalancer.Ingress[i].IP)
	}
	return s
}

func endpointSliceIn(f proxy.Family, s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	if f == proxy.IPv4 {
		return s
	}
	s = s.DeepCopy()
	if t, ok := twinAddressType[s.AddressType]; ok {
		s.AddressType = t
	}
	for i := range s.Endpoints {
		s.Endpoints[i].Addresses = twinTexts(s.Endpoints[i].Addresses)
	}
	return s
}
