package proxy_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		addr     string
		v4, v6   bool
		familyOf proxy.Family
	}{
		{"192.0.2.1", true, false, proxy.IPv4},
		{"2001:db8::1", false, true, proxy.IPv6},
		{"::ffff:192.0.2.1", false, false, proxy.IPv4},
		{"::", false, true, proxy.IPv6},
	} {
		a := netip.MustParseAddr(c.addr)
		if proxy.IPv4.Has(a) != c.v4 || proxy.IPv6.Has(a) != c.v6 || proxy.FamilyOf(a) != c.familyOf {
			t.Errorf("%v: IPv4 %t, IPv6 %t, family %v", a, proxy.IPv4.Has(a), proxy.IPv6.Has(a), proxy.FamilyOf(a))
		}
	}
	if proxy.IPv4.Has(netip.Addr{}) || proxy.IPv6.Has(netip.Addr{}) {
		t.Error("an invalid address has a family")
	}
	for _, f := range proxy.Families {
		if a := f.Any(); !f.Has(a) || !a.IsUnspecified() || a.BitLen() != f.Bits() {
			t.Errorf("%v: any address is %v of %d bits", f, a, f.Bits())
		}
		if l := f.Loopback(); !f.Has(l.Addr()) || !l.Addr().IsLoopback() {
			t.Errorf("%v: loopback is %v", f, l)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		proxy.IPv4.String():           "IPv4",
		proxy.IPv6.String():           "IPv6",
		proxy.TCP.String():            "tcp",
		proxy.UDP.String():            "udp",
		proxy.SCTP.String():           "sctp",
		proxy.Protocol(1).String():    "protocol-1",
		proxy.ClusterIP.String():      "cluster IP",
		proxy.LoadBalancerIP.String(): "load balancer IP",
		proxy.ExternalIP.String():     "external IP",
		proxy.NodePort.String():       "node port",
		proxy.FromPod.String():        "pod",
		proxy.FromNode.String():       "node",
		proxy.FromOutside.String():    "outside",
		proxy.Reject.String():         "reject",
		proxy.Drop.String():           "drop",
		proxy.Forward.String():        "forward",
		proxy.ClusterPool.String():    "cluster",
		proxy.LocalPool.String():      "local",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
