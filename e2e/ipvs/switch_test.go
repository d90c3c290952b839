package ipvs_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// sinkPort is where pods take datagrams that they do not answer.
const sinkPort = 9000

// TestKernelOneWayFlowsGoOnBesideAnotherMode lets another mode serve: to connection tracking, each datagram of a flow that nobody
// answers looks like the first one, but IPVS has the flow until it ends.
func TestKernelOneWayFlowsGoOnBesideAnotherMode(t *testing.T) {
	others := map[string]proxy.Mode{
		"nftables":        nftables.NewMode(nftables.Config{DropInvalid: true}),
		"iptables-nft":    iptables.NewMode(iptables.Config{Backend: xtables.NFT, DropInvalid: true}),
		"iptables-legacy": iptables.NewMode(iptables.Config{Backend: xtables.Legacy, DropInvalid: true}),
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *site) {
				arrived := make(chan string, 100)
				var backends []proxy.Backend
				for _, pod := range s.Pods {
					backends = append(backends, proxy.Backend{Addr: netip.AddrPortFrom(pod.Addr(s.family), sinkPort), Local: true})
					sink(s, pod, arrived)
				}
				web := s.web(proxy.UDP, backends, s.nodePort())
				s.serve(web)
				flows := map[string]func() string{}
				for _, from := range []*lab.Host{s.Client, s.Node} {
					flows[from.Name+" to the ClusterIP"] = oneWay(s, from, s.in(vip, 80), arrived)
				}
				flows["client to the NodePort"] = oneWay(s, s.Client, netip.AddrPortFrom(s.Node.Addr(s.family), 30080), arrived)
				was := map[string]string{}
				for flow, send := range flows {
					if was[flow] = send(); was[flow] == "" {
						t.Errorf("%s: nothing arrived", flow)
					}
				}

				s.must(s.Node.Do(func() error { return s.mode.(proxy.Yielder).Yield(t.Context()) }))
				s.must(s.Node.Do(func() error {
					d, err := other.New(s.family)
					if err != nil {
						return err
					}
					_, err = d.Apply(context.Background(), proxy.NewSnapshot(s.node, s.ports))
					return err
				}))
				for range 3 { // leave new connections alone, let virtual servers dwindle
					s.must(s.Node.Do(func() error {
						_, err := s.mode.(proxy.Retirer).Retire(t.Context(), time.Now())
						return err
					}))
					for flow, send := range flows {
						if now := send(); now != was[flow] {
							t.Errorf("%s: a datagram arrived at %q, those before at %s", flow, now, was[flow])
						}
					}
				}
				if oneWay(s, s.Client, s.in(vip, 80), arrived)() == "" {
					t.Error("a new flow: nothing arrived")
				}
			})
		})
	}
}

// sink tells the pod's name for each datagram that it gets.
func sink(s *site, pod *lab.Host, arrived chan<- string) {
	s.t.Helper()
	var conn *net.UDPConn
	s.must(pod.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(pod.Addr(s.family), sinkPort)))
		return err
	}))
	s.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for b := make([]byte, 64); ; {
			if _, err := conn.Read(b); err != nil {
				return
			}
			arrived <- pod.Name
		}
	}()
}

// oneWay gives what sends a datagram from one port, and tells the name of the pod at which it arrives, or none.
func oneWay(s *site, from *lab.Host, to netip.AddrPort, arrived <-chan string) (send func() string) {
	s.t.Helper()
	var conn net.Conn
	s.must(from.Do(func() (err error) {
		conn, err = net.Dial("udp", to.String())
		return err
	}))
	s.t.Cleanup(func() { _ = conn.Close() })
	return func() string {
		_, _ = conn.Write([]byte("?")) // an error would be about an earlier one
		select {
		case pod := <-arrived:
			return pod
		case <-time.After(patience):
			return ""
		}
	}
}
