package proxytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Random chooses packets.
type Random struct {
	Seed    uint64
	Packets int
}

// RandomScenarios are scenarios in which nobody has thought: Services that come, change and go as the seed has it, and packets of
// which is wanted what package explain says.
func RandomScenarios(seeds ...uint64) []Scenario {
	var all []Scenario
	for _, seed := range seeds {
		r := dice{rand.New(rand.NewPCG(seed, 0))}
		s := Scenario{Name: fmt.Sprintf("random Services %d", seed), Node: r.node()}
		for range 4 {
			step := Step{Random: &Random{Seed: r.Uint64(), Packets: 24}}
			for i := range 6 {
				set, gone := r.service(i)
				step.Set, step.Delete = append(step.Set, set...), append(step.Delete, gone...)
			}
			s.Steps = append(s.Steps, step)
		}
		all = append(all, s)
	}
	return all
}

// dice make choices.
type dice struct{ *rand.Rand }

// onceIn is true once in n times.
func (r dice) onceIn(n int) bool { return r.IntN(n) == 0 }

func pick[T any](r dice, all ...T) T { return all[r.IntN(len(all))] }

func (r dice) node() Node {
	n := Node{Detect: pick(r, ByClusterCIDR, ByNodeCIDR, ByBridge, ByInterfacePrefix, Undetected), MasqueradeAll: r.onceIn(4)}
	if r.onceIn(3) {
		n.NodePortAddresses = []string{pick(r, "primary", "192.168.50.2/32", "192.168.50.0/24")}
	}
	return n
}

// What the i-th Service has, if it has it.
func clusterIPOf(i int) string  { return fmt.Sprintf("10.96.0.%d", 10+i) }
func externalIPOf(i int) string { return fmt.Sprintf("203.0.113.%d", 10+i) }
func balancerIPOf(i int) string { return fmt.Sprintf("198.51.100.%d", 10+i) }

const firstNodePort = 30080

// service is what becomes of the i-th Service: it is set, left as it is, or deleted.
func (r dice) service(i int) (set, gone []runtime.Object) {
	name := fmt.Sprintf("random-%d", i)
	switch r.IntN(6) {
	case 0:
		return nil, nil
	case 1:
		return nil, []runtime.Object{service(name, clusterIPOf(i)), slice(name)}
	}
	parts := []func(*corev1.Service){port("web", proxy.TCP, 80, r.nodePort(i))}
	if r.onceIn(2) {
		parts = append(parts, port("dns", proxy.UDP, 53, 0))
	}
	if r.onceIn(3) {
		parts = append(parts, externalIPs(externalIPOf(i)))
	}
	if r.onceIn(3) {
		parts = append(parts, loadBalancer(balancerIPOf(i)))
		if r.onceIn(2) {
			parts = append(parts, sourceRanges(pick(r, "192.168.50.100/32", "192.168.50.0/24", "10.1.0.0/24", "172.16.0.0/12")))
		}
	}
	svc := service(name, clusterIPOf(i), parts...)
	if svc.Spec.Type != corev1.ServiceTypeClusterIP && r.onceIn(2) {
		externalLocal(svc)
	}
	if r.onceIn(4) {
		internalLocal(svc)
	}
	if r.onceIn(5) {
		affinity(600)(svc)
	}
	return []runtime.Object{svc, sliceOf(name, name, []slicePort{{"web", proxy.TCP, defaultTargetPort}, {"dns", proxy.UDP, defaultTargetPort}}, r.endpoints()...)}, nil
}

func (r dice) nodePort(i int) int32 {
	if r.onceIn(2) {
		return 0
	}
	return firstNodePort + int32(i)
}

func (r dice) endpoints() []endpoint {
	none := func(string) endpoint { return endpoint{} }
	var list []endpoint
	for _, pod := range []string{"pod-a", "pod-b", "pod-c", "remote-a", "remote-b"} {
		if e := pick(r, none, none, none, ready, ready, ready, draining, ended, unready)(pod); e.Addresses != nil {
			list = append(list, e)
		}
	}
	return list
}

// random are packets from everywhere to all that is there, and to some that is not.
func (s *stage) random(chosen *Random) []packet {
	r := dice{rand.New(rand.NewPCG(chosen.Seed, uint64(s.family)))}
	var list []packet
	for len(list) < chosen.Packets {
		p := packet{from: pick(r, "pod-a", "pod-b", "client", "client", "node"), protocol: proxy.TCP}
		to := netip.AddrPortFrom(s.randomAddr(r, p.from), 80)
		switch {
		case r.onceIn(4):
			p.protocol, to = proxy.UDP, netip.AddrPortFrom(to.Addr(), 53)
		case slices.Contains(s.lab.Node.Addrs(s.family), to.Addr()) || to.Addr().IsLoopback():
			to = netip.AddrPortFrom(to.Addr(), uint16(firstNodePort+r.IntN(7)))
		case r.onceIn(10):
			to = netip.AddrPortFrom(to.Addr(), 81) // which nobody has
		}
		p.to = to
		p.want = s.wantOf(s.explain(p))
		p.text = fmt.Sprintf("%s -> %v/%v (%v)", p.from, p.to, p.protocol, p.want)
		list = append(list, p)
	}
	return list
}

// randomAddr is an address that a Service may have, or the node.
func (s *stage) randomAddr(r dice, from string) netip.Addr {
	i := r.IntN(7) // of one Service more than there can be
	texts := []string{clusterIPOf(i), clusterIPOf(i), externalIPOf(i), balancerIPOf(i), lab.NodeIP.String(), lab.NodeIP2.String()}
	if from == "node" && !s.Relayed { // a relay refuses by not listening
		texts = append(texts, "127.0.0.1")
	}
	return lab.In(s.family, netip.MustParseAddr(pick(r, texts...)))
}

// wantOf is what an answer promises.
func (s *stage) wantOf(a explain.Answer) want {
	switch a.Fate {
	case explain.Rejected:
		return want{fate: refused}
	case explain.Dropped:
		return want{fate: dropped}
	case explain.Ignored:
		return want{fate: ignored}
	}
	w := want{fate: served}
	if a.Affinity > 0 {
		w.fate = stuck
	}
	for _, b := range a.Backends {
		w.targets = append(w.targets, target{s.hostOf(b.Addr.Addr()), b.Addr.Port(), b.Masquerade})
	}
	return w
}

// hostOf is the name of the host that has an address.
func (s *stage) hostOf(a netip.Addr) string {
	for _, name := range hostNames {
		if h := host(s.lab, name); h != nil && slices.Contains(h.Addrs(s.family), a) {
			return name
		}
	}
	return a.String()
}
