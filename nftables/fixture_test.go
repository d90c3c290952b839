package nftables

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// inFamily writes IPv4 addresses as those of a family: in IPv6 they are the end of an fd00:: address.
type inFamily proxy.Family

func (f inFamily) addr(s string) netip.Addr { return lab.In(proxy.Family(f), netip.MustParseAddr(s)) }

func (f inFamily) prefix(s string) netip.Prefix {
	return lab.PrefixIn(proxy.Family(f), netip.MustParsePrefix(s))
}

func (f inFamily) node() *proxy.Node {
	ip := f.addr("192.168.0.1")
	return &proxy.Node{
		Family:         proxy.Family(f),
		Name:           "here",
		IP:             ip,
		Addrs:          []netip.Addr{ip},
		NodePorts:      proxy.NodePortAddrs{All: true},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: f.prefix("10.1.0.0/16")},
		MasqueradeMark: 0x4000,
		ServiceCIDRs:   []netip.Prefix{f.prefix("10.96.0.0/16")},
	}
}

// service is a Service with one port, in few words.
type service struct {
	name          string
	clusterIP     string
	external      string
	ranges        []string // of the external address, which is then a load balancer's
	nodePort      uint16
	externalLocal bool
	affinity      time.Duration
	backends      []netip.AddrPort // every third is on this node
}

func (s service) input(f inFamily) policy.Input {
	svc := &policy.Service{
		Ports:         []policy.Port{{Name: "p", Protocol: proxy.TCP, Port: 80, NodePort: s.nodePort}},
		ExternalLocal: s.externalLocal,
		Affinity:      s.affinity,
	}
	svc.ClusterIPs[f] = f.addr(s.clusterIP)
	switch {
	case s.external == "":
	case s.ranges == nil:
		svc.ExternalIPs = []netip.Addr{f.addr(s.external)}
	default:
		svc.LoadBalancerIPs = []netip.Addr{f.addr(s.external)}
	}
	for _, r := range s.ranges {
		svc.SourceRanges = append(svc.SourceRanges, f.prefix(r))
	}
	in := policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: s.name}, Service: svc}
	for _, b := range s.backends {
		node := "there"
		if b.Addr().As16()[15]%3 == 0 {
			node = "here"
		}
		in.Slices = append(in.Slices, &policy.Slice{
			Family:    proxy.Family(f),
			Ports:     []policy.SlicePort{{Name: "p", Protocol: proxy.TCP, Port: b.Port()}},
			Endpoints: []policy.Endpoint{{Addr: f.addr(b.Addr().String()), NodeName: node, Ready: true, Serving: true}},
		})
	}
	return in
}

// backendsFrom are n backends with numbers from first on.
func backendsFrom(first, n int) []netip.AddrPort {
	var all []netip.AddrPort
	for i := first; i < first+n; i++ {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080))
	}
	return all
}

// snapshot is what policy makes of the services.
func snapshot(n *proxy.Node, services ...service) *proxy.Snapshot {
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, s := range services {
		for _, sp := range resolve(s, n) {
			ports[sp.Name] = sp
		}
	}
	return proxy.NewSnapshot(n, ports)
}

// inKernels runs a test in the real kernel, once for each family, in a network namespace of its own. It takes root and
// nft.
func inKernels(t *testing.T, test func(t *testing.T, f inFamily)) {
	for _, f := range proxy.Families {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			ns, err := lab.NewNamespace()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			if err := ns.Do(func() error { test(t, inFamily(f)); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// runNFT runs nft in the namespace of the calling thread.
func runNFT(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func tableOf(f inFamily) *nft.Runner { return nft.NewRunner(proxy.Family(f), schema) }

func newTestDataplane(f inFamily) *dataplane {
	return newDataplane(Config{DropInvalid: true}, proxy.Family(f), tableOf(f))
}

// mustApply applies a snapshot, all of it.
func mustApply(t *testing.T, d *dataplane, want *proxy.Snapshot) proxy.Report {
	t.Helper()
	report, err := d.Apply(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.SetAside) > 0 {
		t.Fatalf("set aside: %v", report.SetAside)
	}
	return report
}

// read is what the kernel holds.
func read(t *testing.T, f inFamily) *nft.State {
	t.Helper()
	state, err := tableOf(f).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state
}
