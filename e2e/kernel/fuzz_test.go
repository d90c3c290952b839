package kernel_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// FuzzKernelObjects brings any Service and EndpointSlice to the kernel, with both backends and in both families, and
// takes them away again. Whatever an API server lets through, the kernel must accept, and nothing of it may stay.
func FuzzKernelObjects(f *testing.F) {
	for _, seed := range append(keptSeeds(f), scenarioSeeds(f)...) {
		f.Add(seed[0], seed[1])
	}
	kernels := newKernels(f)
	f.Fuzz(func(t *testing.T, service, slice []byte) {
		var svc corev1.Service
		var eps discoveryv1.EndpointSlice
		if json.Unmarshal(service, &svc) != nil || json.Unmarshal(slice, &eps) != nil {
			return
		}
		tracker := track.New(track.Config{ExternalIPs: true})
		tracker.SetEndpointSlice(&eps)
		tracker.SetService(&svc)
		inputs := tracker.Take().Inputs
		for _, family := range proxy.Families {
			b := desired.NewBuilder(fuzzNode(family))
			empty := b.Snapshot()
			b.Update(inputs)
			if snap := b.Snapshot(); snap != empty {
				for _, k := range kernels {
					k.holds(t, empty, snap)
				}
			}
		}
	})
}

// keptSeeds are the pairs of files NAME.service.json and NAME.slice.json.
func keptSeeds(f *testing.F) [][2][]byte {
	files, err := filepath.Glob(filepath.Join("..", "..", "proxy", "desired", "testdata", "objects", "*.service.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	var pairs [][2][]byte
	for _, file := range files {
		var pair [2][]byte
		for i, name := range []string{file, strings.TrimSuffix(file, "service.json") + "slice.json"} {
			if pair[i], err = os.ReadFile(name); err != nil {
				f.Fatal(err)
			}
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// maxSeed keeps the scenarios about great sizes out: they are no good to mutate.
const maxSeed = 8 << 10

// scenarioSeeds are a Service and an EndpointSlice from the first step of every scenario that has both.
func scenarioSeeds(f *testing.F) [][2][]byte {
	var pairs [][2][]byte
	for _, s := range proxytest.Scenarios() {
		var pair [2][]byte
		for _, o := range s.Steps[0].Set {
			text, err := json.Marshal(o)
			if err != nil {
				f.Fatal(err)
			}
			switch o.(type) {
			case *corev1.Service:
				pair[0] = text
			case *discoveryv1.EndpointSlice:
				pair[1] = text
			}
		}
		if n := len(pair[0]) + len(pair[1]); pair[0] != nil && pair[1] != nil && n < maxSeed {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// fuzzNode is the node of the scenarios.
func fuzzNode(f proxy.Family) *proxy.Node {
	ip := lab.In(f, lab.NodeIP)
	return &proxy.Node{
		Family:         f,
		Name:           "node",
		IP:             ip,
		Addrs:          []netip.Addr{ip},
		NodePorts:      proxy.NodePortAddrs{All: true, Localhost: f == proxy.IPv4},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: lab.PrefixIn(f, lab.ClusterCIDR)},
		MasqueradeMark: 1 << 14,
		ServiceCIDRs:   []netip.Prefix{lab.PrefixIn(f, lab.ServiceCIDR)},
	}
}

// kernel is a network namespace of which a dataplane for each family has the tables of one backend.
type kernel struct {
	*lab.Namespace
	backend    xtables.Backend
	dataplanes [len(proxy.Families)]proxy.Dataplane
}

func newKernels(f *testing.F) []*kernel {
	var all []*kernel
	for _, backend := range backends {
		ns, err := lab.NewNamespace()
		if err != nil {
			f.Fatalf("this test needs root and network namespaces: %v", err)
		}
		f.Cleanup(func() { _ = ns.Close() })
		k := &kernel{Namespace: ns, backend: backend}
		for _, family := range proxy.Families {
			if k.dataplanes[family], err = iptables.NewMode(iptables.Config{Backend: backend}).New(family); err != nil {
				f.Fatal(err)
			}
		}
		all = append(all, k)
	}
	return all
}

// holds brings snap to the kernel and takes it away again.
func (k *kernel) holds(t *testing.T, empty, snap *proxy.Snapshot) {
	k.apply(t, empty)
	before := k.rules(snap.Family())
	k.apply(t, snap)
	k.apply(t, empty)
	if diff := cmp.Diff(before, k.rules(snap.Family())); diff != "" {
		t.Errorf("%s: what is left (-before +after):\n%s", k.backend, diff)
	}
}

func (k *kernel) apply(t *testing.T, snap *proxy.Snapshot) {
	var report proxy.Report
	err := k.Do(func() (err error) {
		report, err = k.dataplanes[snap.Family()].Apply(t.Context(), snap)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", k.backend, err)
	}
	for _, aside := range report.SetAside {
		t.Errorf("%s: %v is set aside: %v", k.backend, aside.Name, aside.Err)
	}
}

var unstable = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\] ?`)

// rules are all of a family, without counters.
func (k *kernel) rules(f proxy.Family) string {
	var text string
	_ = k.Do(func() error { text = save(k.backend, f); return nil }) // an error is text too
	return unstable.ReplaceAllString(text, "")
}
