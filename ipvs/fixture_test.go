package ipvs

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// These tests have real nf_tables and a strict fake of IPVS, which not every kernel has; package e2e/ipvs has both real.

// node is a machine in a network namespace, in one family.
type node struct {
	t       *testing.T
	family  proxy.Family
	servers *kernel.Fake
	routes  kernel.Routes
	facts   *proxy.Node
	clock   time.Time
}

// inKernels runs a test in both families, each in a namespace of its own.
func inKernels(t *testing.T, test func(n *node)) {
	for _, f := range proxy.Families {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			ns, err := lab.NewNamespace()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			n := &node{t: t, family: f, servers: kernel.NewFake(), clock: time.Unix(1e9, 0)}
			n.facts = &proxy.Node{
				Family: f, Name: "here", IP: n.addr("192.168.0.1"), Addrs: []netip.Addr{n.addr("192.168.0.1"), n.addr("192.168.0.2")},
				NodePorts:      proxy.NodePortAddrs{All: true},
				PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: lab.PrefixIn(f, netip.MustParsePrefix("10.1.0.0/16"))},
				MasqueradeMark: 0x4000,
				ServiceCIDRs:   []netip.Prefix{lab.PrefixIn(f, netip.MustParsePrefix("10.96.0.0/16"))},
			}
			if err := ns.Do(func() error { test(n); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (n *node) addr(s string) netip.Addr { return lab.In(n.family, netip.MustParseAddr(s)) }

// Apply implements router.
func (n *node) Apply(want kernel.Routes) (int, error) {
	if n.routes.Equal(want) {
		return 0, nil
	}
	n.routes = want
	return 1, nil
}

// Change implements router.
func (n *node) Change(was, want kernel.Routes) (int, error) {
	if !n.routes.Equal(was) {
		n.t.Errorf("there is %v, and not %v", n.routes, was)
	}
	return n.Apply(want)
}

// dataplane is a new process.
func (n *node) dataplane() *dataplane {
	d := newDataplane(Config{}.withDefaults(), n.family, nft.NewRunner(n.family, schema), n.servers, n)
	d.settings = func(context.Context) error { return nil }
	d.now = func() time.Time { return n.clock }
	return d
}

// service is a ServicePort in few words.
type service struct {
	name     string
	protocol proxy.Protocol
	ip       string
	external string
	nodePort uint16
	local    bool // external traffic policy
	affinity time.Duration
	backends []int // numbers; those that divide by 3 are on this node
}

func (n *node) backend(i int) proxy.Backend {
	addr := n.addr(fmt.Sprintf("10.1.%d.%d", i/200, 1+i%200))
	return proxy.Backend{Addr: netip.AddrPortFrom(addr, 8080), Local: i%3 == 0}
}

func (n *node) port(s service) *proxy.ServicePort {
	if s.protocol == 0 {
		s.protocol = proxy.TCP
	}
	p := &proxy.ServicePort{
		Name:     proxy.ServicePortName{Namespace: "ns", Name: s.name, Protocol: s.protocol},
		Affinity: s.affinity,
	}
	for _, i := range s.backends {
		b := n.backend(i)
		p.Cluster = append(p.Cluster, b)
		if b.Local {
			p.Local = append(p.Local, b)
		}
		if s.protocol == proxy.UDP {
			p.Keep = append(p.Keep, b.Addr)
		}
	}
	forward := proxy.Route{Verdict: proxy.Forward}
	masq := proxy.Route{Verdict: proxy.Forward, Masquerade: true}
	outside := masq
	if s.local {
		outside = proxy.Route{Verdict: proxy.Forward, Pool: proxy.LocalPool}
		if len(p.Local) == 0 {
			outside = proxy.Route{Verdict: proxy.Drop}
		}
	} else {
		p.Local = nil
	}
	p.Frontends = []proxy.Frontend{{Kind: proxy.ClusterIP, Addr: netip.AddrPortFrom(n.addr(s.ip), 80), Routes: proxy.Routes{forward, masq, masq}}}
	if s.external != "" {
		p.Frontends = append(p.Frontends, proxy.Frontend{
			Kind: proxy.LoadBalancerIP, Addr: netip.AddrPortFrom(n.addr(s.external), 80), Routes: proxy.Routes{masq, masq, outside},
			Allowed: []netip.Prefix{n.facts.ServiceCIDRs[0], netip.PrefixFrom(n.addr("10.96.1.0"), n.family.Bits()-8)},
		})
	}
	if s.nodePort != 0 {
		p.Frontends = append(p.Frontends, proxy.Frontend{
			Kind: proxy.NodePort, Addr: netip.AddrPortFrom(n.family.Any(), s.nodePort), Routes: proxy.Routes{masq, masq, outside},
		})
	}
	return p
}

func (n *node) snapshot(services ...service) *proxy.Snapshot {
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, s := range services {
		p := n.port(s)
		ports[p.Name] = p
	}
	return proxy.NewSnapshot(n.facts, ports)
}

func (n *node) apply(d *dataplane, want *proxy.Snapshot) proxy.Report {
	n.t.Helper()
	report, err := d.Apply(context.Background(), want)
	if err != nil {
		n.t.Fatal(err)
	}
	if len(report.SetAside) > 0 {
		n.t.Fatalf("set aside: %v", report.SetAside)
	}
	return report
}

func writes(r proxy.Report) (n int) {
	for _, t := range r.Tables {
		n += t.Writes
	}
	return n
}

// holdings is all that the kernel holds, comparable. Comments of shared places and numbers of marks may differ.
type holdings struct {
	Table   map[string][]string
	Chains  map[string][]string
	Servers map[kernel.ID]kernel.Server
	Backing map[kernel.ID]map[netip.AddrPort]kernel.Load
}

func (n *node) holdings() holdings {
	n.t.Helper()
	state, err := nft.NewRunner(n.family, schema).Read(n.t.Context())
	if err != nil || state == nil {
		n.t.Fatalf("read table: %v", err)
	}
	h := holdings{Table: map[string][]string{}, Chains: state.Chains, Servers: maps.Clone(n.servers.Servers), Backing: maps.Clone(n.servers.Backing)}
	for name, elements := range state.Elements {
		for _, e := range elements {
			h.Table[name] = append(h.Table[name], e.Key+" : "+e.Value)
		}
	}
	return h
}

func (n *node) nft(args ...string) string {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), "nft", args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
