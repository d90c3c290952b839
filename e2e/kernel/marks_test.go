package kernel_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// How long to wait for packets that must arrive, and for those that must not.
var (
	patience = lab.Patient(10 * time.Second)
	moment   = lab.Patient(300 * time.Millisecond)
)

// each runs a test for both backends and both families, in a lab of its own.
func each(t *testing.T, f func(t *testing.T, l *lab.Lab, backend xtables.Backend, family proxy.Family)) {
	for _, backend := range backends {
		for _, family := range proxy.Families {
			t.Run(string(backend)+"/"+family.String(), func(t *testing.T) {
				f(t, lab.Start(t, lab.Config{Pods: 1}), backend, family)
			})
		}
	}
}

// serveNodePort makes the first pod the backend of node port 30080, and applies that.
func serveNodePort(t *testing.T, l *lab.Lab, family proxy.Family, cfg iptables.Config) {
	t.Helper()
	pod := l.Pods[0]
	if err := pod.Serve(proxy.TCP, 8080); err != nil {
		t.Fatal(err)
	}
	node := &proxy.Node{
		Family:         family,
		Name:           "node",
		IP:             l.Node.Addr(family),
		Addrs:          l.Node.Addrs(family),
		NodePorts:      proxy.NodePortAddrs{All: true, Localhost: family == proxy.IPv4},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: lab.PrefixIn(family, lab.ClusterCIDR)},
		MasqueradeMark: 1 << 14,
	}
	port := &proxy.ServicePort{
		Name: proxy.ServicePortName{Namespace: "testing", Name: "web", Protocol: proxy.TCP},
		Frontends: []proxy.Frontend{{
			Kind:   proxy.NodePort,
			Addr:   netip.AddrPortFrom(family.Any(), 30080),
			Routes: proxy.Every(proxy.Route{Verdict: proxy.Forward, Masquerade: true}),
		}},
		Cluster: []proxy.Backend{{Addr: netip.AddrPortFrom(pod.Addr(family), 8080), Local: true}},
	}
	want := proxy.NewSnapshot(node, map[proxy.ServicePortName]*proxy.ServicePort{port.Name: port})
	err := l.Node.Do(func() error {
		dataplane, err := prepared{iptables.NewMode(cfg)}.New(family)
		if err != nil {
			return err
		}
		_, err = dataplane.Apply(context.Background(), want)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a command line on the node.
func run(t *testing.T, l *lab.Lab, line ...string) string {
	t.Helper()
	out, err := l.Node.Run(line[0], line[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// throughNodePort connects from outside and wants the pod to see the node.
func throughNodePort(t *testing.T, l *lab.Lab, family proxy.Family) {
	t.Helper()
	to := netip.AddrPortFrom(l.Node.Addr(family), 30080)
	got := l.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: patience})
	if got.Server != l.Pods[0].Name || got.Source.Addr() == l.Client.Addr(family) {
		t.Fatalf("through the node port: %v, want the pod to see the node", got)
	}
}

// TestKernelMarksOfOthersSurvive marks packets before they are translated and looks at them when they leave.
func TestKernelMarksOfOthersSurvive(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, backend xtables.Backend, family proxy.Family) {
		serveNodePort(t, l, family, iptables.Config{Backend: backend})
		for _, rule := range []string{
			"add table inet look",
			"add chain inet look in { type filter hook prerouting priority -150; }",
			"add rule inet look in meta mark set 0x00a00010",
			"add chain inet look out { type filter hook postrouting priority 300; }",
			"add rule inet look out tcp dport 8080 meta mark 0x00a00010 counter",
			"add rule inet look out tcp dport 8080 meta mark != 0x00a00010 counter",
		} {
			run(t, l, "nft", rule)
		}
		throughNodePort(t, l, family)
		seen := run(t, l, "nft", "list", "chain", "inet", "look", "out")
		// The first counter, but not the second, has seen packets.
		if strings.Count(seen, "packets 0 bytes 0") != 1 || !strings.Contains(seen, "!= 0x00a00010 counter packets 0 bytes 0") {
			t.Errorf("packets left with another mark than 0x00a00010:\n%s", seen)
		}
	})
}

// TestKernelMarkChainServesOthers lets a rule of somebody else jump to KUBE-MARK-MASQ.
func TestKernelMarkChainServesOthers(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, backend xtables.Backend, family proxy.Family) {
		serveNodePort(t, l, family, iptables.Config{Backend: backend})
		pod, client := l.Pods[0].Addr(family), l.Client.Addr(family)
		direct := lab.Probe{To: netip.AddrPortFrom(pod, 8080), Protocol: proxy.TCP, Timeout: patience}
		if got := l.Client.Probe(direct); got.Source.Addr() != client {
			t.Fatalf("without that rule: %v, want the client's address", got)
		}
		run(t, l, program(backend, family, ""), "-w", "-t", "nat", "-I", "PREROUTING",
			"-s", client.String(), "-d", pod.String(), "-j", "KUBE-MARK-MASQ")
		if got := l.Client.Probe(direct); got.Server != l.Pods[0].Name || got.Source.Addr() == client {
			t.Errorf("with that rule: %v, want the pod to see the node", got)
		}
		throughNodePort(t, l, family)
	})
}

// TestKernelInvalidPacketsPassIfTheyMay shows both settings of DropInvalid.
func TestKernelInvalidPacketsPassIfTheyMay(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, backend xtables.Backend, family proxy.Family) {
		invalid := lab.Probe{To: netip.AddrPortFrom(l.Pods[0].Addr(family), 9), Protocol: lab.InvalidTCP, Timeout: patience}
		serveNodePort(t, l, family, iptables.Config{Backend: backend})
		if got := l.Client.Probe(invalid); got.Result != lab.Reset {
			t.Errorf("not dropped: %v, want the pod's reset", got)
		}
		serveNodePort(t, l, family, iptables.Config{Backend: backend, DropInvalid: true})
		invalid.Timeout = moment
		if got := l.Client.Probe(invalid); got.Result != lab.Silence {
			t.Errorf("dropped: %v, want silence", got)
		}
		throughNodePort(t, l, family)
	})
}

// TestKernelPacketsAreCounted counts what two metrics tell, and finds nothing of it after the clean-up.
func TestKernelPacketsAreCounted(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, backend xtables.Backend, family proxy.Family) {
		cfg := iptables.Config{Backend: backend, DropInvalid: true}
		serveNodePort(t, l, family, cfg)
		count := func(what string, read func() (uint64, error)) (n uint64) {
			t.Helper()
			err := l.Node.Do(func() (err error) {
				n, err = read()
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			return n
		}
		throughNodePort(t, l, family)
		if n := count("invalid packets", iptables.InvalidDropped) + count("connections to localhost", iptables.LocalhostNodePorts); n > 0 {
			t.Errorf("counted %d of what did not come", n)
		}
		invalid := lab.Probe{To: netip.AddrPortFrom(l.Pods[0].Addr(family), 9), Protocol: lab.InvalidTCP, Timeout: moment}
		if got := l.Client.Probe(invalid); got.Result != lab.Silence {
			t.Errorf("an invalid packet: %v, want silence", got)
		}
		if n := count("invalid packets", iptables.InvalidDropped); n != 1 {
			t.Errorf("counted %d invalid packets, want 1", n)
		}
		if family == proxy.IPv4 {
			if err := l.Node.Do(func() error { return (sysctl.Tree{}).RouteLocalnet() }); err != nil {
				t.Fatal(err)
			}
			local := lab.Probe{To: netip.MustParseAddrPort("127.0.0.1:30080"), Protocol: proxy.TCP, Timeout: patience}
			for range 3 {
				if got := l.Node.Probe(local); got.Server != l.Pods[0].Name {
					t.Errorf("through the node port of localhost: %v", got)
				}
			}
			if n := count("connections to localhost", iptables.LocalhostNodePorts); n != 3 {
				t.Errorf("counted %d connections to localhost, want 3", n)
			}
		}
		serveNodePort(t, l, family, cfg) // as another start does
		if n := count("invalid packets", iptables.InvalidDropped); n != 1 {
			t.Errorf("counted %d invalid packets after another start, want 1", n)
		}
		err := l.Node.Do(func() error {
			mode := iptables.NewMode(cfg)
			before, err := mode.Traces(t.Context())
			if err != nil || !slices.Contains(before, "accounting object sluice-invalid-dropped") {
				t.Errorf("the object is not to be removed: %q, %v", before, err)
			}
			if err := mode.Cleanup(t.Context()); err != nil {
				return err
			}
			after, err := mode.Traces(t.Context())
			if len(after) > 0 {
				t.Errorf("left: %q", after)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
