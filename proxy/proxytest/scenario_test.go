package proxytest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestScenariosHaveDistinctNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scenarios() {
		if seen[s.Name] {
			t.Errorf("two scenarios are called %q", s.Name)
		}
		if strings.ContainsAny(s.Name, ";|/") {
			t.Errorf("the name %q does not fit the table of rules", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestPacketsOfScenariosMakeSense(t *testing.T) {
	for _, s := range Scenarios() {
		sent := false
		for _, f := range proxy.Families {
			var open []string
			for _, step := range s.Steps {
				packets, err := parsePackets(f, step.Packets)
				if err != nil {
					t.Errorf("%s: %s: %v", s.Name, step.Name, err)
				}
				sent = sent || len(packets) > 0
				for _, p := range packets {
					if p.name != "" {
						open = append(open, p.name)
					}
					for _, used := range []string{p.again, p.want.like} {
						if used != "" && !slices.Contains(open, used) {
							t.Errorf("%s: %s: there is no connection %q", s.Name, p.text, used)
						}
					}
				}
			}
		}
		if !sent {
			t.Errorf("%s sends nothing", s.Name)
		}
	}
}

func TestMistakesInPacketsAreFound(t *testing.T) {
	for _, line := range []string{
		"client 10.96.0.10:80: pod-a",
		"client -> 10.96.0.10:80",
		"client -> 10.96.0.10:80/dccp: refused",
		"client -> 10.96.0.300:80: refused",
		"client@nowhere -> 10.96.0.10:80: refused",
		"stranger -> 10.96.0.10:80: refused",
		"client -> 10.96.0.10:80: stranger",
		"client -> 10.96.0.10:80: pod-a:99999",
		"client -> 10.96.0.10:80: , masq",
		"client -> 10.96.0.10:80: refused, masq",
	} {
		if p, err := parsePackets(proxy.IPv4, line); err == nil {
			t.Errorf("%q is taken for %+v", line, p)
		}
	}
}

func TestAddressesHaveTwins(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.10":                "fd00::a01:a",
		"fd00::a01:a":              "10.1.0.10",
		"10.1.0.0/16":              "fd00::a01:0/112",
		"fd00::a01:0/112":          "10.1.0.0/16",
		"0.0.0.0/0":                "::/0",
		"::/0":                     "0.0.0.0/0",
		"127.0.0.0/8":              "::1/128",
		" 10.1.0.10 ":              " fd00::a01:a ",
		"2001:db8::1":              "2001:db8::1",
		"nonsense":                 "nonsense",
		"":                         "",
		"fd00::192.168.50.0/120":   "192.168.50.0/24",
		"198.51.100.10/32":         "fd00::c633:640a/128",
		"not an address 10.1.0.10": "not an address 10.1.0.10",
	} {
		if got := twinText(text); got != want {
			t.Errorf("the twin of %q is %q, want %q", text, got, want)
		}
	}
}

func TestObjectsAreTranslatedBetweenFamilies(t *testing.T) {
	s := dualStack(service("web", "10.96.0.10", externalIPs("203.0.113.10"), loadBalancer("198.51.100.10"), sourceRanges("10.0.0.0/8")))
	six := serviceIn(proxy.IPv6, s)
	if six.Spec.ClusterIP != "fd00::a60:a" || !slices.Equal(six.Spec.ClusterIPs, []string{"fd00::a60:a", "10.96.0.10"}) ||
		!slices.Equal(six.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}) ||
		six.Spec.ExternalIPs[0] != "fd00::cb00:710a" || six.Status.LoadBalancer.Ingress[0].IP != "fd00::c633:640a" ||
		six.Spec.LoadBalancerSourceRanges[0] != "fd00::a00:0/104" {
		t.Errorf("twin: %+v", six.Spec)
	}
	if s.Spec.ClusterIP != "10.96.0.10" || s.Status.LoadBalancer.Ingress[0].IP != "198.51.100.10" {
		t.Error("the original has changed")
	}
	slice := endpointSliceIn(proxy.IPv6, slice("web", ready("pod-a")))
	if a, err := netip.ParseAddr(slice.Endpoints[0].Addresses[0]); err != nil || !a.Is6() || slice.AddressType != "IPv6" {
		t.Errorf("twin: %+v", slice)
	}
}
