package proxytest

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// crowd is that many remote endpoints.
func crowd(n int) []endpoint {
	endpoints := make([]endpoint, 0, n)
	for a := lab.CrowdCIDR.Addr().Next(); len(endpoints) < n; a = a.Next() {
		endpoints = append(endpoints, endpointAt(a.String()).on(remoteName))
	}
	return endpoints
}

func sizeScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "a Service may have thousands of endpoints",
			Rules: []string{"R20", "R156"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), externalLocal), slice("web", crowd(5000)...)),
					Packets: `
						pod-b  -> 10.96.0.10:80: at least 60 of the crowd
						node   -> 192.168.50.1:30080: at least 60 of the crowd
						client -> 192.168.50.1:30080: dropped
					`,
				},
				{
					Name:    "one more",
					Set:     set(slice("web", append(crowd(5000), ready("pod-a"))...)),
					Packets: `client -> 192.168.50.1:30080: pod-a`,
				},
				{
					Name:    "a few less",
					Set:     set(slice("web", crowd(4990)...)),
					Packets: `pod-b -> 10.96.0.10:80: at least 60 of the crowd`,
				},
				{
					Name:    "one",
					Set:     set(slice("web", ready("pod-a"))),
					Packets: `pod-b -> 10.96.0.10:80: pod-a`,
				},
			},
		},
		{
			Name:  "each of many endpoints is found",
			Rules: []string{"R20"},
			Steps: []Step{
				{
					Set:     set(service("web", "10.96.0.10", tcp80), slice("web", crowd(70)...)),
					Packets: `node -> 10.96.0.10:80: at least 70 of the crowd`,
				},
			},
		},
		{
			Name:  "hundreds of Services",
			Rules: []string{"R5", "R16"},
			Steps: []Step{
				{Set: manyServices(300, "pod-a"), Packets: toMany(300, "pod-a")},
				{Name: "one changes", Set: set(slice("web-7", ready("remote-a"))), Packets: toMany(7, "pod-a") + "pod-b -> 10.96.1.7:80: remote-a\n"},
				{Name: "half of them go", Delete: manyServices(150, "pod-a"), Packets: `
					pod-b  -> 10.96.1.7:80: dropped
					client -> 192.168.50.1:30007: unhandled
					pod-b  -> 10.96.1.151:80: pod-a
					client -> 192.168.50.1:30151: pod-a, masq
				`},
			},
		},
		{
			Name:     "addresses may be chosen to be hard to find",
			Rules:    []string{"R50", "R110"},
			Families: []proxy.Family{proxy.IPv6},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80, externalIPs(crafted()...)), slice("web", ready("pod-a")),
						service("victim", "10.96.0.11", tcp80), slice("victim", ready("pod-a"))),
					Packets: toCrafted("pod-a, masq") + `
						pod-b -> 10.96.0.11:80: pod-a
					`,
				},
				{Name: "and to be refused", Set: set(slice("web")), Packets: toCrafted("refused") + `
					pod-b -> 10.96.0.11:80: pod-a
				`},
			},
		},
	}
}

func manyServices(n int, pod string) []runtime.Object {
	var objects []runtime.Object
	for i := range n {
		name := fmt.Sprintf("web-%d", i)
		objects = append(objects, service(name, manyAddress(i), tcp80At(int32(30000+i))), slice(name, ready(pod)))
	}
	return objects
}

func manyAddress(i int) string { return fmt.Sprintf("10.96.%d.%d", 1+i/256, i%256) }

// toMany goes to every twentieth Service, which is enough to pass through most branches of a tree.
func toMany(n int, want string) string {
	var lines strings.Builder
	for i := 0; i < n; i += 20 {
		fmt.Fprintf(&lines, "pod-b -> %s:80: %s\n", manyAddress(i), want)
		fmt.Fprintf(&lines, "client -> 192.168.50.1:%d: %s, masq\n", 30000+i, want)
	}
	return lines.String()
}

// crafted are 32 IPv6 addresses each of which shares one digit more with the last than the one before
// did: a tree by digits degenerates to a list.
func crafted() []string {
	last := netip.MustParseAddr("2001:db8::").As16()
	texts := []string{netip.AddrFrom16(last).String()}
	for digit := 8; len(texts) < 32 && digit < 32; digit++ {
		bytes := last
		bytes[digit/2] |= 1 << (4 * (1 - digit%2))
		texts = append(texts, netip.AddrFrom16(bytes).String())
	}
	for n := byte(2); len(texts) < 32; n++ {
		bytes := last
		bytes[15] = n
		texts = append(texts, netip.AddrFrom16(bytes).String())
	}
	return texts
}

func toCrafted(want string) string {
	var lines strings.Builder
	for _, address := range crafted() {
		fmt.Fprintf(&lines, "client -> [%s]:80: %s\n", address, want)
	}
	return lines.String()
}
