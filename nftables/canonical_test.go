package nftables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// wantFresh compares the kernel with what a first start makes of an empty one. Which backend has which slot, and which
// numbers ServicePorts with affinity and their backends have, may differ.
func wantFresh(t *testing.T, f inFamily, want *proxy.Snapshot) {
	t.Helper()
	got := canonical(t, read(t, f))
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Do(func() error {
		mustApply(t, newTestDataplane(f), want)
		if diff := cmp.Diff(canonical(t, read(t, f)), got); diff != "" {
			t.Errorf("unlike a first start (-fresh +got):\n%s", diff)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// canonical writes a state without slots and numbers, after it has checked them.
func canonical(t *testing.T, state *nft.State) map[string][]string {
	t.Helper()
	if !state.Fits || state.Asleep {
		t.Errorf("the table is unlike ours: %v, asleep: %v", state.Unlike, state.Asleep)
	}
	all := map[string][]string{}
	for chain, rules := range state.Chains {
		all["chain "+chain] = rules
	}
	slots := map[string][]string{}    // frontend and pool → slots
	backends := map[string][]string{} // number of ServicePort and backend → backends
	for name, list := range state.Elements {
		for _, e := range list {
			key, value := e.Key, e.Value
			switch name {
			case endpoints.Name, nodePortEndpoints.Name:
				frontend, class, _ := cutLast(e.Key)
				pool := fmt.Sprint(name, " ", frontend, " ", strings.HasPrefix(class, "4000:"))
				slots[pool] = append(slots[pool], class)
				key = frontend + pool[len(pool)-4:]
			case stickyServices.Name, stickyNodePorts.Name:
				value = "number"
			case stickyIDs.Name:
				_, backend, _ := strings.Cut(e.Key, " . ")
				backends[e.Value] = append(backends[e.Value], backend)
				key, value = backend, "number"
			case stickyBackends.Name, stickyLocalBackends.Name:
				backends[e.Key] = append(backends[e.Key], e.Value)
				key = "number"
			case stickyTimeouts.Name:
				key = "number"
			}
			all[name] = append(all[name], fmt.Sprintf("%s : %s %q", key, value, e.Comment))
		}
		slices.Sort(all[name])
	}
	for pool, classes := range slots {
		for i := range classes {
			of := proxy.ClusterPool
			if strings.HasSuffix(pool, "true") {
				of = proxy.LocalPool
			}
			if !slices.Contains(classes, slot(of, i)) {
				t.Errorf("%s: %d backends, and none in slot %d", pool, len(classes), i)
			}
		}
	}
	for number, list := range backends {
		if slices.Sort(list); len(slices.Compact(list)) != 1 {
			t.Errorf("number %s stands for %v", number, list)
		}
	}
	return all
}

func cutLast(key string) (before, last string, ok bool) {
	i := strings.LastIndex(key, " . ")
	if i < 0 {
		return key, "", false
	}
	return key[:i], key[i+len(" . "):], true
}

// mutate adds, removes or replaces an endpoint.
func mutate(random *rand.Rand, before []netip.AddrPort) []netip.AddrPort {
	const most = 60
	after := slices.Clone(before)
	fresh := func() netip.AddrPort { return backendsFrom(random.IntN(20_000), 1)[0] }
	what := random.IntN(3)
	switch {
	case len(after) == 0 || what == 0 && len(after) < most:
		return append(after, fresh())
	case what == 1:
		after[random.IntN(len(after))] = fresh()
		return after
	}
	i := random.IntN(len(after))
	return slices.Delete(after, i, i+1)
}

func resolve(s service, n *proxy.Node) []*proxy.ServicePort {
	return policy.Resolve(s.input(inFamily(n.Family)), n)
}
