package iptables

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func TestSmokeKernel(t *testing.T) {
	for _, b := range xtables.Backends {
		t.Run(string(b), func(t *testing.T) {
			l := lab.Start(t, lab.Config{Pods: 2})
			l.Pods[0].Serve(proxy.TCP, 8080)
			l.Pods[1].Serve(proxy.TCP, 8080)
			err := l.Node.Do(func() error {
				dp, err := NewMode(Config{Backend: b}).New(proxy.IPv4)
				if err != nil {
					return err
				}
				node := &proxy.Node{Family: proxy.IPv4, MasqueradeMark: 0x4000, NodePorts: proxy.NodePortAddrs{All: true},
					PodSource: proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix("10.1.0.0/16")}}
				m := proxy.Route{Verdict: proxy.Forward, Masquerade: true}
				sp := &proxy.ServicePort{Name: proxy.ServicePortName{Namespace: "ns", Name: "svc", Protocol: proxy.TCP},
					Frontends: []proxy.Frontend{{Addr: netip.MustParseAddrPort("10.96.0.1:80"), Routes: proxy.Routes{{Verdict: proxy.Forward}, m, m}}},
				}
				for _, p := range l.Pods {
					sp.Cluster = append(sp.Cluster, proxy.Backend{Addr: netip.AddrPortFrom(p.Addr(proxy.IPv4), 8080), Local: true})
				}
				rep, err := dp.Apply(context.Background(), proxy.NewSnapshot(node, map[proxy.ServicePortName]*proxy.ServicePort{sp.Name: sp}))
				t.Logf("%+v %v", rep, err)
				return err
			})
			out, _ := l.Node.Run("iptables-"+string(b)+"-save")
			t.Log(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, from := range []*lab.Host{l.Client, l.Pods[0], l.Node, l.Remote} {
				o := from.Probe(lab.Probe{To: netip.MustParseAddrPort("10.96.0.1:80"), Protocol: proxy.TCP, Timeout: time.Second})
				t.Log(from.Name, o)
			}
		})
	}
}
