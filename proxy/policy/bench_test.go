package policy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// crowd is a Service with many ports and endpoints, in slices of 100.
func crowd(ports, endpoints int) policy.Input {
	svc := service(clusterIPOnly)
	svc.Ports = nil
	var slicePorts []policy.SlicePort
	for i := range ports {
		name := fmt.Sprintf("port-%d", i)
		svc.Ports = append(svc.Ports, policy.Port{Name: name, Protocol: proxy.TCP, Port: uint16(80 + i)})
		slicePorts = append(slicePorts, policy.SlicePort{Name: name, Protocol: proxy.TCP, Port: uint16(8080 + i)})
	}
	in := input(svc)
	for i := range endpoints {
		if i%100 == 0 {
			in.Slices = append(in.Slices, &policy.Slice{Ports: slicePorts})
		}
		last := in.Slices[len(in.Slices)-1]
		e := ep("10.0.0.1")
		e.Addr = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		last.Endpoints = append(last.Endpoints, e)
	}
	return in
}

func BenchmarkResolve(b *testing.B) {
	for _, c := range []struct{ ports, endpoints int }{{1, 10}, {1, 1000}, {100, 5000}} {
		b.Run(fmt.Sprintf("ports=%d/endpoints=%d", c.ports, c.endpoints), func(b *testing.B) {
			in, n := crowd(c.ports, c.endpoints), node()
			b.ReportAllocs()
			for b.Loop() {
				policy.Resolve(in, n)
			}
		})
	}
}

func TestManyPortsAndEndpoints(t *testing.T) {
	ports := policy.Resolve(crowd(100, 5000), node())
	if len(ports) != 100 {
		t.Fatalf("%d ServicePorts, want 100", len(ports))
	}
	for _, sp := range ports {
		if len(sp.Cluster) != 5000 {
			t.Fatalf("%v has %d backends, want 5000", sp.Name, len(sp.Cluster))
		}
	}
}
