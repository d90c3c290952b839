package ipvs_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// scanned are ports that a scan tries: those of programs that nodes have, and some of all others.
func scanned() []uint16 {
	ports := []uint16{80, 2379, 2380, 6443, 9100, 10248, 10249, 10250, 10256, 30080}
	for p := range uint16(128) {
		ports = append(ports, p+1, 1+p*509)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// scan gives the ports of an address at which somebody answers or that hosts refuse themselves, by how each ended.
func (s *site) scan(from *lab.Host, to netip.Addr, p proxy.Protocol, quiet lab.Result) map[uint16]string {
	s.t.Helper()
	timeout := patience
	if quiet == lab.Silence {
		timeout = moment
	}
	var lock sync.Mutex
	found := map[uint16]string{}
	ports := make(chan uint16)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for port := range ports {
				o := from.Probe(lab.Probe{To: s.in(to, port), Protocol: p, Timeout: timeout})
				if o.Result != quiet {
					lock.Lock()
					found[port] = o.String()
					lock.Unlock()
				}
			}
		})
	}
	for _, port := range scanned() {
		ports <- port
	}
	close(ports)
	workers.Wait()
	return found
}

// TestKernelScanFindsOnlyTheService scans the address of a Service on a node where many programs listen at all addresses, while
// its virtual servers are there and while somebody has removed them.
func TestKernelScanFindsOnlyTheService(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		// Kernels send a client one ICMP error a second.
		for _, limit := range []string{"net/ipv4/icmp_ratemask", "net/ipv6/icmp/ratelimit"} {
			s.must(s.Node.Sysctl(map[string]string{limit: "0"}))
		}
		for _, port := range []uint16{22, 80, 2379, 6443, 9100, 10250, 10256, 30080} {
			s.must(s.Node.Serve(proxy.TCP, port))
			s.must(s.Node.Serve(proxy.UDP, port))
		}
		s.serve(s.web(proxy.TCP, s.pods(s.Pods...), s.nodePort()))
		for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Node} {
			if got := s.scan(from, vip, proxy.TCP, lab.Refused); len(got) != 1 || !strings.Contains(got[80], "answered by pod") {
				t.Errorf("a scan of TCP from %s found %v, want a backend at port 80", from.Name, got)
			}
			if got := s.scan(from, vip, proxy.UDP, lab.Refused); len(got) != 0 {
				t.Errorf("a scan of UDP from %s found %v, want nothing", from.Name, got)
			}
		}
		s.run("ipvsadm -C")
		for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Node} {
			if got := s.scan(from, vip, proxy.TCP, lab.Refused); len(got) != 1 || got[80] != lab.Silence.String() {
				t.Errorf("without virtual servers a scan from %s found %v, want silence at port 80", from.Name, got)
			}
		}
	})
}

// TestKernelManyServicesHaveNoAddress looks at the node's addresses and links with two thousand Services.
func TestKernelManyServicesHaveNoAddress(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		look := func() string { return s.run("ip -o addr") + s.run("ip -o link") + s.ip("route show table local") }
		before := look()
		var all []*proxy.ServicePort
		for i := range 2000 {
			addr := netip.AddrFrom4([4]byte{10, 96, byte(1 + i/250), byte(1 + i%250)})
			all = append(all, &proxy.ServicePort{
				Name:      proxy.ServicePortName{Namespace: "testing", Name: fmt.Sprint("s", i), Protocol: proxy.TCP},
				Frontends: []proxy.Frontend{{Kind: proxy.ClusterIP, Addr: s.in(addr, 80), Routes: cluster}},
				Cluster:   s.pods(s.Pods[i%2]),
			})
		}
		s.serve(all...)
		if after := look(); after != before {
			t.Errorf("addresses, links and local routes were\n%s\nand are\n%s", before, after)
		}
		for _, from := range []*lab.Host{s.Client, s.Node} {
			s.reach(from, all[1999].Frontends[0].Addr, proxy.TCP, s.Pods[1])
		}
	})
}
