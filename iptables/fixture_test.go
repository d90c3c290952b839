package iptables

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// family writes IPv4 addresses as those of a family: in IPv6 they are the end of an fd00:: address.
type family proxy.Family

func (f family) addr(s string) netip.Addr {
	a := netip.MustParseAddr(s)
	if proxy.Family(f) == proxy.IPv4 || a.Is6() {
		return a
	}
	v6 := [16]byte{0: 0xfd}
	copy(v6[12:], a.AsSlice())
	return netip.AddrFrom16(v6)
}

func (f family) addrs(all []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range all {
		out = append(out, f.addr(s))
	}
	return out
}

func (f family) prefix(s string) netip.Prefix {
	p := netip.MustParsePrefix(s)
	if proxy.Family(f) == proxy.IPv4 {
		return p
	}
	return netip.PrefixFrom(f.addr(p.Addr().String()), p.Bits()+96)
}

func (f family) port(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(f.addr(addr), port)
}

// The node of most tests, and who talks to it.
const (
	nodeIP    = "192.168.0.1"
	podIP     = "10.1.0.9"
	outsideIP = "203.0.113.7"
	podIface  = "cali0"
)

func (f family) node() *proxy.Node {
	return &proxy.Node{
		Family:         proxy.Family(f),
		Name:           "here",
		IP:             f.addr(nodeIP),
		Addrs:          []netip.Addr{f.addr(nodeIP)},
		NodePorts:      proxy.NodePortAddrs{All: true},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: f.prefix("10.1.0.0/16")},
		MasqueradeMark: 0x4000,
		ServiceCIDRs:   []netip.Prefix{f.prefix("10.96.0.0/16")},
	}
}

// service is a Service with one port, in few words.
type service struct {
	name          string
	protocol      proxy.Protocol // 0: TCP
	port          uint16         // 0: 80
	clusterIP     string
	external, lbs []string
	ranges        []string
	nodePort      uint16
	externalLocal bool
	internalLocal bool
	affinity      time.Duration
	health        uint16
	priority      bool
	local, remote []string // addresses of ready endpoints, which listen on 8080
}

func (s service) input(f family) policy.Input {
	if s.protocol == 0 {
		s.protocol = proxy.TCP
	}
	if s.port == 0 {
		s.port = 80
	}
	svc := &policy.Service{
		Priority:            s.priority,
		Ports:               []policy.Port{{Name: "p", Protocol: s.protocol, Port: s.port, NodePort: s.nodePort}},
		ExternalIPs:         f.addrs(s.external),
		LoadBalancerIPs:     f.addrs(s.lbs),
		ExternalLocal:       s.externalLocal,
		InternalLocal:       s.internalLocal,
		Affinity:            s.affinity,
		HealthCheckNodePort: s.health,
	}
	svc.ClusterIPs[f] = f.addr(s.clusterIP)
	for _, r := range s.ranges {
		svc.SourceRanges = append(svc.SourceRanges, f.prefix(r))
	}
	slice := &policy.Slice{
		Family: proxy.Family(f),
		Ports:  []policy.SlicePort{{Name: "p", Protocol: s.protocol, Port: 8080}},
	}
	add := func(addrs []string, node string) {
		for _, a := range addrs {
			slice.Endpoints = append(slice.Endpoints, policy.Endpoint{Addr: f.addr(a), NodeName: node, Ready: true, Serving: true})
		}
	}
	add(s.local, "here")
	add(s.remote, "there")
	return policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: s.name}, Service: svc, Slices: []*policy.Slice{slice}}
}

// snapshot is what policy makes of the services.
func snapshot(n *proxy.Node, services ...service) *proxy.Snapshot {
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, s := range services {
		for _, sp := range policy.Resolve(s.input(family(n.Family)), n) {
			ports[sp.Name] = sp
		}
	}
	return proxy.NewSnapshot(n, ports)
}

// kernel is a Fake that records what it is asked for.
type kernel struct {
	*xtables.Fake
	calls  []string                   // methods, in order
	inputs []string                   // of Restore
	each   func()                     // called after each commit of a table, unless nil
	fail   func(section string) error // asked before each commit of a table, unless nil
}

func newKernel(f proxy.Family) *kernel { return &kernel{Fake: xtables.NewFake(f, 1)} }

func (k *kernel) Restore(ctx context.Context, input []byte) error {
	k.calls = append(k.calls, "restore")
	k.inputs = append(k.inputs, string(input))
	if k.each == nil && k.fail == nil {
		return k.Fake.Restore(ctx, input)
	}
	for section := range strings.SplitAfterSeq(string(input), "COMMIT\n") {
		if section == "" {
			continue
		}
		if k.fail != nil {
			if err := k.fail(section); err != nil {
				return err
			}
		}
		if err := k.Fake.Restore(ctx, []byte(section)); err != nil {
			return err
		}
		if k.each != nil {
			k.each()
		}
	}
	return nil
}

func (k *kernel) Chains(ctx context.Context, table, prefix string) (map[string]int, error) {
	k.calls = append(k.calls, "chains")
	return k.Fake.Chains(ctx, table, prefix)
}

func (k *kernel) EnsureJumps(ctx context.Context, jumps []xtables.Jump) error {
	k.calls = append(k.calls, "jumps")
	return k.Fake.EnsureJumps(ctx, jumps)
}

func (k *kernel) RemoveJumps(ctx context.Context, prefix string) error {
	k.calls = append(k.calls, "unjump")
	return k.Fake.RemoveJumps(ctx, prefix)
}

// sections are the tables that the i-th restore wrote, in order.
func (k *kernel) sections(i int) []string {
	var tables []string
	for line := range strings.Lines(k.inputs[i]) {
		if table, ok := strings.CutPrefix(line, "*"); ok {
			tables = append(tables, strings.TrimSpace(table))
		}
	}
	return tables
}

// forget drops what was recorded.
func (k *kernel) forget() { k.calls, k.inputs = nil, nil }

// applied is a kernel that serves snap, and the dataplane that made it so.
func applied(t *testing.T, snap *proxy.Snapshot) (*dataplane, *kernel) {
	t.Helper()
	k := newKernel(snap.Family())
	d := newDataplane(Config{}, k)
	mustApply(t, d, snap)
	return d, k
}

func mustApply(t *testing.T, d *dataplane, snap *proxy.Snapshot) proxy.Report {
	t.Helper()
	report, err := d.Apply(t.Context(), snap)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return report
}

// fresh is the content of a kernel that was given nothing but snap.
func fresh(t *testing.T, snap *proxy.Snapshot) string {
	t.Helper()
	_, k := applied(t, snap)
	return k.Dump()
}

func (k *kernel) tracer(t *testing.T, n *proxy.Node) *tracer {
	return &tracer{t: t, fake: k.Fake, node: n, local: n.Addrs}
}

// from is a packet from "pod", "node", "loopback" or "outside" to a frontend.
func (f family) from(who string, to netip.AddrPort) packet {
	p := packet{dst: to, protocol: proxy.TCP}
	switch who {
	case "pod":
		p.src, p.in = f.addr(podIP), podIface
	case "node":
		p.src = f.addr(nodeIP)
	case "loopback":
		p.src = proxy.Family(f).Loopback().Addr().Next()
		if proxy.Family(f) == proxy.IPv6 {
			p.src = netip.IPv6Loopback()
		}
	case "outside":
		p.src, p.in = f.addr(outsideIP), "eth0"
	default:
		panic(who)
	}
	return p
}

// bothFamilies runs a test for each.
func bothFamilies(t *testing.T, test func(t *testing.T, f family)) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) { test(t, family(f)) })
	}
}

// many are addresses that start with a prefix like "10.1.3.", n of them.
func many(prefix string, n int) []string {
	var all []string
	base := netip.MustParseAddr(prefix + "0")
	for range n {
		base = base.Next()
		all = append(all, base.String())
	}
	return slices.Clip(all)
}
