package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// world draws snapshots, each made from the one before.
type world struct {
	f    family
	snap *proxy.Snapshot
}

func newWorld(t *rapid.T) *world {
	w := &world{f: family(rapid.SampledFrom(proxy.Families[:]).Draw(t, "family"))}
	w.snap = proxy.NewSnapshot(w.f.node(), nil)
	return w
}

// change draws the next snapshot.
func (w *world) change(t *rapid.T) {
	changes := map[proxy.ServicePortName]*proxy.ServicePort{}
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		i := rapid.IntRange(0, 11).Draw(t, "which")
		sp := w.servicePort(t, i)
		changes[sp.Name] = sp
		if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
			changes[sp.Name] = nil
		}
	}
	w.snap = w.snap.Next(w.node(t), changes)
}

func (w *world) node(t *rapid.T) *proxy.Node {
	n := *w.snap.Node()
	if rapid.IntRange(0, 4).Draw(t, "same node") > 0 {
		return &n
	}
	n.PodSource = rapid.SampledFrom(variants()).Draw(t, "pods").source(w.f)
	n.NodePorts = proxy.NodePortAddrs{
		All:       rapid.Bool().Draw(t, "all"),
		Localhost: rapid.Bool().Draw(t, "localhost"),
		Addrs:     w.f.addrs(rapid.SampledFrom([][]string{nil, {nodeIP}, {nodeIP, "192.168.0.2"}}).Draw(t, "addresses")),
	}
	n.ServiceCIDRs = rapid.SampledFrom([][]netip.Prefix{nil, {w.f.prefix("10.96.0.0/16")}}).Draw(t, "cidrs")
	n.MasqueradeMark = rapid.SampledFrom([]uint32{0x4000, 0x8}).Draw(t, "mark")
	return &n
}

// servicePort draws the i-th ServicePort. No two of different number claim one frontend, but their
// addresses overlap as those of Services do.
func (w *world) servicePort(t *rapid.T, i int) *proxy.ServicePort {
	protocol := []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP}[i%3]
	sp := &proxy.ServicePort{
		Name:     proxy.ServicePortName{Namespace: "ns", Name: fmt.Sprint("s", i/2), Port: fmt.Sprint("p", i), Protocol: protocol},
		Priority: i == 0,
		Affinity: rapid.SampledFrom([]time.Duration{0, 0, 3 * time.Hour}).Draw(t, "affinity"),
	}
	sp.Cluster = w.backends(t, "cluster")
	sp.Local = w.backends(t, "local")
	port := uint16(80 + i)
	add := func(kind proxy.FrontendKind, at netip.AddrPort, allowed []netip.Prefix) {
		f := proxy.Frontend{Kind: kind, Addr: at, Allowed: allowed}
		for s := range f.Routes {
			f.Routes[s] = route(t)
		}
		if rapid.Bool().Draw(t, "alike") {
			f.Routes = proxy.Every(f.Routes[0])
		}
		sp.Frontends = append(sp.Frontends, f)
	}
	add(proxy.ClusterIP, w.f.port(fmt.Sprintf("10.96.%d.%d", i%2*17, i/2*9), port), nil)
	if rapid.Bool().Draw(t, "lb") {
		ranges := [][]netip.Prefix{nil, {w.f.prefix("192.0.2.0/24"), w.f.prefix("203.0.113.7/32")}, {w.f.prefix("192.0.2.0/24")}, {}}
		for j := range rapid.IntRange(1, 2).Draw(t, "lbs") {
			add(proxy.LoadBalancerIP, w.f.port(fmt.Sprint("198.51.100.", j), port), rapid.SampledFrom(ranges).Draw(t, "ranges"))
		}
	}
	for j := range rapid.SampledFrom([]int{0, 1, 2, 10}).Draw(t, "externals") {
		add(proxy.ExternalIP, w.f.port(fmt.Sprint("198.51.100.", 100+j), port), nil)
	}
	if rapid.Bool().Draw(t, "node port") {
		add(proxy.NodePort, netip.AddrPortFrom(proxy.Family(w.f).Any(), 30000+port*7), nil)
	}
	sp.HealthCheckNodePort = rapid.SampledFrom([]uint16{0, uint16(32000 + i/2)}).Draw(t, "health")
	return sp
}

func route(t *rapid.T) proxy.Route {
	r := proxy.Route{Verdict: rapid.SampledFrom([]proxy.Verdict{proxy.Reject, proxy.Drop, proxy.Forward, proxy.Forward}).Draw(t, "verdict")}
	if r.Verdict == proxy.Forward {
		r.Pool = rapid.SampledFrom([]proxy.Pool{proxy.ClusterPool, proxy.LocalPool}).Draw(t, "pool")
		r.Masquerade = rapid.Bool().Draw(t, "masquerade")
	}
	return r
}

func (w *world) backends(t *rapid.T, pool string) []proxy.Backend {
	var all []proxy.Backend
	n := rapid.SampledFrom([]int{0, 1, 2, 5, 40, 70}).Draw(t, pool)
	for _, i := range slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.IntRange(1, 99), n, n, rapid.ID[int]).Draw(t, "backends"))) {
		all = append(all, proxy.Backend{Addr: w.f.port(fmt.Sprint("10.1.0.", i), 8080), Local: i%2 == 0})
	}
	return all
}

// content is a kernel that was given nothing but snap.
func content(t *rapid.T, snap *proxy.Snapshot) *kernel {
	k := newKernel(snap.Family())
	if _, err := newDataplane(Config{}, k).Apply(context.Background(), snap); err != nil {
		t.Fatalf("fresh start: %v", err)
	}
	return k
}

func checkSame(t *rapid.T, k *kernel, snap *proxy.Snapshot) {
	t.Helper()
	if diff := cmp.Diff(ours(content(t, snap)), ours(k)); diff != "" {
		t.Fatalf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

// ours is the content of a kernel, the chain for marking left out: it may be older than we are.
func ours(k *kernel) string {
	var lines []string
	for line := range strings.Lines(k.Dump()) {
		if !strings.HasPrefix(line, "-A "+markChain) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestDifferencesAddUpToAFreshStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		k := newKernel(w.snap.Family())
		d := newDataplane(Config{}, k)
		d.batch = rapid.IntRange(0, 3).Draw(t, "batch")
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			for range rapid.IntRange(1, 2).Draw(t, "snapshots") {
				w.change(t)
			}
			report, err := d.Apply(context.Background(), w.snap)
			if err != nil {
				t.Fatal(err)
			}
			checkSame(t, k, w.snap)
			checkCounts(t, k, report)
		}
	})
}

// checkCounts compares the report with the kernel.
func checkCounts(t *rapid.T, k *kernel, report proxy.Report) {
	for _, table := range report.Tables {
		chains, err := k.Fake.Chains(context.Background(), table.Table, xtables.DefaultPrefix)
		if err != nil {
			t.Fatal(err)
		}
		rules := 0
		for _, n := range chains {
			rules += n
		}
		if rules != table.Objects {
			t.Fatalf("table %s has %d rules of ours, the report says %d", table.Table, rules, table.Objects)
		}
	}
}

func TestEveryRuleIsReachedAndEveryChainUsed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		for range 5 {
			w.change(rt)
		}
		k := content(rt, w.snap)
		checkGraph(t, k)
		if t.Failed() {
			rt.Fatalf("rules:\n%s", k.Dump())
		}
	})
}

// TestFailuresConverge lets calls fail, restarts, and lets others interfere, on a kernel that starts with
// remains of an earlier release.
func TestFailuresConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		k := newKernel(w.snap.Family())
		dirty(t, k)
		k.FailRate = 0.1
		d := newDataplane(Config{}, k)
		d.batch = rapid.IntRange(0, 3).Draw(t, "batch")
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			w.change(t)
			disturb(t, k, &d)
			// Whether this succeeds does not matter.
			_, _ = d.Apply(context.Background(), w.snap)
		}
		k.FailRate = 0
		report := settle(t, d, w.snap)
		checkSame(t, k, w.snap)
		checkCounts(t, k, report)
	})
}

// dirty leaves remains in a kernel, among them a chain with a jump and a chain of ours with other rules.
func dirty(t *rapid.T, k *kernel) {
	input := "*nat\n:SLUICE-OLD - [0:0]\n:SLUICE-SERVICES - [0:0]\n-A SLUICE-SERVICES -j SLUICE-OLD\n-A PREROUTING -j SLUICE-OLD\nCOMMIT\n" +
		"*filter\n:SLUICE-K-0a6 - [0:0]\n-A SLUICE-K-0a6 -j DROP\nCOMMIT\n"
	if err := k.Fake.Restore(context.Background(), []byte(input)); err != nil {
		t.Fatal(err)
	}
}

// disturb restarts us, or has somebody else change our tables, which the watcher would tell.
func disturb(t *rapid.T, k *kernel, d **dataplane) {
	input := ""
	switch rapid.IntRange(0, 9).Draw(t, "disturbance") {
	case 0:
		*d = newDataplane(Config{}, k)
		return
	case 1:
		input = "*nat\n-F\nCOMMIT\n"
	case 2:
		input = "*filter\n-F\n-X\nCOMMIT\n"
	default:
		return
	}
	_ = k.Fake.Restore(context.Background(), []byte(input))
	(*d).Resync("disturbed")
}

// settle applies snap as the loop would: again after errors, and when the report asks for it.
func settle(t *rapid.T, d *dataplane, snap *proxy.Snapshot) proxy.Report {
	passed := time.Duration(0)
	d.now = func() time.Time { return time.Now().Add(passed) }
	for range 10 {
		report, err := d.Apply(context.Background(), snap)
		if err == nil && report.Again == 0 {
			return report
		}
		passed += report.Again
	}
	t.Fatal("did not settle")
	return proxy.Report{}
}

// TestBlamelessFailuresConverge makes rules fail without a reason that anybody could find.
func TestBlamelessFailuresConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		k := newKernel(w.snap.Family())
		d := newDataplane(Config{}, k)
		d.batch = rapid.IntRange(0, 3).Draw(t, "batch")
		seen := 0
		every := rapid.IntRange(1, 400).Draw(t, "every")
		k.Blind = rapid.Bool().Draw(t, "blind")
		k.Refuse = func(string, string, string) string {
			if seen++; seen%every == 0 {
				return "no reason"
			}
			return ""
		}
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			w.change(t)
			_, _ = d.Apply(context.Background(), w.snap)
		}
		k.Refuse = nil
		report := settle(t, d, w.snap)
		checkSame(t, k, w.snap)
		checkCounts(t, k, report)
	})
}
