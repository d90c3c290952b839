package ipvs_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelPortsAreUsedAgain has a client use a few ports again and again while backends are replaced. None of its
// connections may reach a backend that is gone, and none may wait for a second packet, which clients send after a second.
func TestKernelPortsAreUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const ports, rounds = 5, 12
		tried, slow := 0, 0
		for round := range rounds {
			backend := s.Pods[round%2]
			s.serve(s.web(proxy.TCP, s.pods(backend)))
			for port := range uint16(ports) {
				from := netip.AddrPortFrom(s.Client.Addr(s.family), 20000+port)
				for range 4 {
					began := time.Now()
					o := s.Client.Probe(lab.Probe{To: s.in(vip, 80), Protocol: proxy.TCP, From: from, Timeout: patience})
					if o.Result == lab.Broken {
						continue // the client itself has closed first, and keeps the port
					}
					tried++
					if o.Result != lab.Answered || o.Server != backend.Name {
						t.Fatalf("round %d, port %d: %v, want %s", round, from.Port(), o, backend.Name)
					}
					if time.Since(began) > 900*time.Millisecond {
						slow++
					}
				}
			}
		}
		if tried < ports*rounds {
			t.Errorf("only %d connections could be tried", tried)
		}
		// The machine itself is slow now and then; if ports that are used again had to wait, most of them would.
		if slow > tried/10 {
			t.Errorf("%d of %d connections took a second", slow, tried)
		}
	})
}

// TestKernelTimeoutsAreSet sets timeouts, and leaves one.
func TestKernelTimeoutsAreSet(t *testing.T) {
	eachWith(t, ipvs.Config{Timeouts: kernel.Timeouts{TCP: 20 * time.Minute, UDP: 30 * time.Second}}, func(t *testing.T, s *site) {
		s.apply()
		if got := s.run("ipvsadm -L --timeout"); !strings.Contains(got, "1200 120 30") {
			t.Errorf("got %s", got)
		}
	})
}

// TestKernelCompatInterface makes the interface by which Calico knows IPVS.
func TestKernelCompatInterface(t *testing.T) {
	for name, calico := range map[string]bool{"with Calico": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *site) {
				if calico {
					s.run("ip link add cali1234 type dummy")
				}
				s.apply()
				found := s.run("ip addr show")
				wanted := calico && s.family == proxy.IPv4 // once for both
				if got := strings.Contains(found, "kube-ipvs0"); got != wanted {
					t.Fatalf("there is an interface: %v, want %v:\n%s", got, wanted, found)
				}
				if !wanted {
					return
				}
				if found := s.run("ip addr show dev kube-ipvs0"); strings.Contains(found, "inet") || !strings.Contains(found, "UP") {
					t.Errorf("it has an address, or is not up:\n%s", found)
				}
				s.must(s.Node.Do(func() error { return s.mode.Cleanup(t.Context()) }))
				if found := s.run("ip link"); strings.Contains(found, "kube-ipvs0") {
					t.Errorf("it is left:\n%s", found)
				}
			})
		})
	}
}
