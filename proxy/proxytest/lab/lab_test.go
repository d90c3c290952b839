package lab_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

var (
	patience = lab.Patient(10 * time.Second)
	moment   = lab.Patient(200 * time.Millisecond)
)

var protocols = []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP}

func serve(t *testing.T, port uint16, hosts ...*lab.Host) {
	t.Helper()
	for _, h := range hosts {
		for _, p := range protocols {
			if err := h.Serve(p, port); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEverybodyReachesEverybodyWithItsOwnAddress(t *testing.T) {
	for _, bridge := range []bool{false, true} {
		t.Run(fmt.Sprintf("bridge=%v", bridge), func(t *testing.T) {
			l := lab.Start(t, lab.Config{Bridge: bridge})
			hosts := append([]*lab.Host{l.Client, l.Remote, l.Crowd}, append(l.Pods, l.RemotePods...)...)
			// The remote node and the crowd listen on all addresses of one namespace.
			serve(t, 7000, append(l.Pods, l.RemotePods...)...)
			serve(t, 7000, l.Client, l.Crowd, l.World)
			for _, f := range proxy.Families {
				for _, p := range protocols {
					for _, from := range hosts {
						for _, to := range append([]*lab.Host{l.Client, l.Crowd}, append(l.Pods, l.RemotePods...)...) {
							checkReach(t, f, p, from, to)
						}
					}
					checkReach(t, f, p, l.Node, l.Pods[0])
				}
			}
		})
	}
}

func checkReach(t *testing.T, f proxy.Family, p proxy.Protocol, from, to *lab.Host) {
	t.Helper()
	at := netip.AddrPortFrom(to.Addr(f), 7000)
	got := from.Probe(lab.Probe{To: at, Protocol: p, Timeout: patience})
	if got.Result != lab.Answered || got.Server != to.Name || got.Backend != at {
		t.Errorf("%s to %s by %v over %v: %v", from.Name, to.Name, p, f, got)
		return
	}
	if from.Name != "node" && got.Source.Addr() != from.Addr(f) || !slices.Contains(from.Addrs(f), got.Source.Addr()) {
		t.Errorf("%s to %s by %v over %v: source %v, want %v", from.Name, to.Name, p, f, got.Source, from.Addr(f))
	}
}

func TestWorldAnswersForEveryOtherAddress(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	serve(t, 7001, l.World)
	for _, f := range proxy.Families {
		at := netip.AddrPortFrom(lab.In(f, netip.MustParseAddr("203.0.113.9")), 7001)
		for _, p := range protocols {
			for _, from := range []*lab.Host{l.Pods[0], l.Client, l.Node, l.RemotePods[0]} {
				got := from.Probe(lab.Probe{To: at, Protocol: p, Timeout: patience})
				if got.Result != lab.Answered || got.Server != "world" || got.Backend != at {
					t.Errorf("%s to %v by %v: %v", from.Name, at, p, got)
				}
			}
		}
	}
}

func TestResultsAreToldApart(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	rules := []string{
		"add table inet refuse",
		"add chain inet refuse f { type filter hook forward priority 0; }",
		"add chain inet refuse o { type filter hook output priority 0; }",
	}
	for _, chain := range []string{"f", "o"} {
		rules = append(rules,
			"add rule inet refuse "+chain+" th dport 1 reject with icmpx type port-unreachable",
			"add rule inet refuse "+chain+" th dport 2 drop",
			"add rule inet refuse "+chain+" th dport 3 reject with icmpx type admin-prohibited")
	}
	for _, rule := range rules {
		if _, err := l.Node.Run("nft", rule); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		port uint16
		want lab.Result
		wait time.Duration
	}{
		{1, lab.Refused, patience},
		{2, lab.Silence, moment},
		{3, lab.Unreachable, patience},
	}
	for _, f := range proxy.Families {
		for _, from := range []*lab.Host{l.Client, l.Node, l.RemotePods[0]} {
			for _, p := range protocols {
				for _, test := range tests {
					at := netip.AddrPortFrom(l.Pods[0].Addr(f), test.port)
					got := from.Probe(lab.Probe{To: at, Protocol: p, Timeout: test.wait})
					if got.Result != test.want {
						t.Errorf("%s to port %d by %v over %v: %v, want %v", from.Name, test.port, p, f, got, test.want)
					}
				}
			}
		}
		at := netip.AddrPortFrom(l.Pods[0].Addr(f), 4)
		if got := l.Client.Probe(lab.Probe{To: at, Protocol: proxy.TCP, Timeout: patience}); got.Result != lab.Reset {
			t.Errorf("port where nobody listens: %v, want a reset", got)
		}
		if got := l.Client.Probe(lab.Probe{To: at, Protocol: lab.ICMP, Timeout: patience}); got.Result != lab.Answered {
			t.Errorf("echo over %v: %v", f, got)
		}
	}
}

func TestInvalidPacketsAreInvalid(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	for _, f := range proxy.Families {
		probe := lab.Probe{To: netip.AddrPortFrom(l.Pods[0].Addr(f), 9), Protocol: lab.InvalidTCP, Timeout: patience}
		if got := l.Client.Probe(probe); got.Result != lab.Reset {
			t.Errorf("over %v: %v, want a reset", f, got)
		}
	}
	for _, rule := range []string{
		"add table inet strict",
		"add chain inet strict f { type filter hook forward priority 0; }",
		"add rule inet strict f ct state invalid drop",
	} {
		if _, err := l.Node.Run("nft", rule); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range proxy.Families {
		probe := lab.Probe{To: netip.AddrPortFrom(l.Pods[0].Addr(f), 9), Protocol: lab.InvalidTCP, Timeout: moment}
		if got := l.Client.Probe(probe); got.Result != lab.Silence {
			t.Errorf("over %v: %v, want silence", f, got)
		}
	}
}

func TestClientReachesTheNodesLoopback(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	serve(t, 7004, l.Node)
	probe := lab.Probe{To: netip.MustParseAddrPort("127.0.0.1:7004"), Protocol: proxy.TCP, Timeout: moment}
	if got := l.Client.Probe(probe); got.Result != lab.Silence {
		t.Errorf("without route_localnet: %v, want silence", got)
	}
	if err := l.Node.Sysctl(map[string]string{"net/ipv4/conf/all/route_localnet": "1"}); err != nil {
		t.Fatal(err)
	}
	probe.Timeout = patience
	if got := l.Client.Probe(probe); got.Server != "node" {
		t.Errorf("with route_localnet: %v, want the node", got)
	}
}

func TestConnectionsStayOpenAndKeepTheirSource(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	serve(t, 7002, l.Pods[0])
	for _, f := range proxy.Families {
		for i, p := range protocols {
			from := netip.AddrPortFrom(l.Client.Addrs(f)[3], uint16(30000+i))
			probe := lab.Probe{To: netip.AddrPortFrom(l.Pods[0].Addr(f), 7002), Protocol: p, From: from, Timeout: patience}
			c, got := l.Client.Connect(probe)
			if c == nil {
				t.Errorf("%v: %v", p, got)
				continue
			}
			if got.Source != from || got.Client != from {
				t.Errorf("%v: source %v, client %v, want %v", p, got.Source, got.Client, from)
			}
			if again := c.Again(patience); again != got {
				t.Errorf("%v: %v, first %v", p, again, got)
			}
			c.Close()
		}
	}
}

func TestProgramsRunInsideANamespace(t *testing.T) {
	l := lab.Start(t, lab.Config{Bridge: true})
	if _, err := l.Node.Run("ip", "link", "show", lab.BridgeName); err != nil {
		t.Error(err)
	}
	if err := exec.Command("nsenter", "--net="+l.Node.Path(), "ip", "link", "show", lab.BridgeName).Run(); err != nil {
		t.Errorf("nsenter --net=%s: %v", l.Node.Path(), err)
	}
	listener, err := l.Pods[0].Listen(t.Context(), "tcp", ":7003")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	c, err := l.Node.DialContext(t.Context(), "tcp", netip.AddrPortFrom(l.Pods[0].Addr(proxy.IPv6), 7003).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := exec.Command("ip", "link", "show", lab.BridgeName).Run(); err == nil {
		t.Errorf("the test's own namespace has an interface %s", lab.BridgeName)
	}
}
