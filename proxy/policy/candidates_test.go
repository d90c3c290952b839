package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func TestCandidatesSayWhy(t *testing.T) {
	tests := []struct {
		name      string
		endpoints []policy.Endpoint
		node      *proxy.Node
		cluster   []string // a reason for each endpoint, with a + if it is used
		local     []string
	}{
		{"ready here and there", []policy.Endpoint{ep("10.0.0.1", local), ep("10.0.0.2")}, node(),
			[]string{"+ready", "+ready"}, []string{"+ready", "on node there"}},
		{"on no known node", []policy.Endpoint{ep("10.0.0.1", nowhere)}, node(),
			[]string{"+ready"}, []string{"not known to be on this node"}},
		{"not ready", []policy.Endpoint{ep("10.0.0.1", local, unready), ep("10.0.0.2", local, unreadyServing)}, node(),
			[]string{"not ready", "not ready"}, []string{"not ready", "not ready"}},
		{"terminating beside one that is ready elsewhere", []policy.Endpoint{ep("10.0.0.1", local, draining), ep("10.0.0.2")}, node(),
			[]string{"terminating, and others are ready", "+ready"}, []string{"+terminating, but serving, and none is ready", "on node there"}},
		{"dead", []policy.Endpoint{ep("10.0.0.1", local, dead)}, node(),
			[]string{"terminating, and no longer serving"}, []string{"terminating, and no longer serving"}},
		{"zones", []policy.Endpoint{ep("10.0.0.1", zones("zone-a")), ep("10.0.0.2", local, zones("zone-b", "zone-c"))}, node(),
			[]string{"+ready", "ready, but hints reserve it for zones zone-b, zone-c"}, []string{"on node there", "+ready"}},
		{"nodes", []policy.Endpoint{ep("10.0.0.1", nodes(here)), ep("10.0.0.2", nodes(there), zones("zone-a"))}, node(),
			[]string{"+ready", "ready, but hints reserve it for nodes there, zones zone-a"}, []string{"on node there", "on node there"}},
		{"twice", []policy.Endpoint{ep("10.0.0.1", local), ep("10.0.0.1", draining)}, node(),
			[]string{"+ready", "another slice names the same address, and that one counts"},
			[]string{"+ready", "another slice names the same address, and that one counts"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := policy.Candidates(input(service(), slice(tt.endpoints...)), "http", proxy.TCP, tt.node)
			for pool, want := range [][]string{proxy.ClusterPool: tt.cluster, proxy.LocalPool: tt.local} {
				var reasons []string
				for _, c := range got {
					reason := c.Pools[pool].Why
					if c.Pools[pool].Used {
						reason = "+" + reason
					}
					reasons = append(reasons, reason)
				}
				if diff := cmp.Diff(want, reasons); diff != "" {
					t.Errorf("%v (-want +got):\n%s", proxy.Pool(pool), diff)
				}
			}
		})
	}
}

func TestCandidatesOfAnotherPort(t *testing.T) {
	got := policy.Candidates(input(service(), slice(ep("10.0.0.1"))), "dns", proxy.TCP, node())
	if len(got) != 1 || got[0].Pools[proxy.ClusterPool].Why != "its slice has no such port" || got[0].Addr.Port() != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestCandidatesAgreeWithResolve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(drawService(t))
		for range rapid.IntRange(0, 4).Draw(t, "slices") {
			in.Slices = append(in.Slices, drawSlice(t))
		}
		n := drawNode(t)
		for _, sp := range policy.Resolve(in, n) {
			got := policy.Candidates(in, sp.Name.Port, sp.Name.Protocol, n)
			for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
				if !used(sp, pool) {
					continue
				}
				var said, want []netip.AddrPort
				for _, c := range got {
					if c.Pools[pool].Used {
						said = append(said, c.Addr)
					}
				}
				for _, b := range sp.Backends(pool) {
					want = append(want, b.Addr)
				}
				slices.SortFunc(said, netip.AddrPort.Compare)
				if !slices.Equal(said, want) {
					t.Fatalf("%v, %v: candidates %v are called used, backends are %v", sp.Name, pool, said, want)
				}
			}
		}
	})
}

func used(sp *proxy.ServicePort, pool proxy.Pool) bool {
	return slices.ContainsFunc(sp.Frontends, func(f proxy.Frontend) bool { return f.Routes.Uses(pool) })
}
