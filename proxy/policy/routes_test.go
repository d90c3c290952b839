package policy_test

import (
	"fmt"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

var (
	oneLocal  = []policy.Endpoint{ep("10.0.1.1", local), ep("10.0.2.1")}
	allRemote = []policy.Endpoint{ep("10.0.2.1"), ep("10.0.2.2")}
	unusable  = []policy.Endpoint{ep("10.0.1.1", local, dead), ep("10.0.2.1", unready), ep("10.0.2.2", unreadyServing)}
)

// Every row of the table of policies, on every kind of node.
func TestRoutes(t *testing.T) {
	const rejected = "reject, reject, reject"
	const dropped = "drop, drop, drop"
	nodes := []struct {
		name string
		node *proxy.Node
	}{
		{"pods known", node()},
		{"pods unknown", node(noPodSource)},
		{"masquerade all", node(masqueradeAll)},
		{"masquerade all, pods unknown", node(masqueradeAll, noPodSource)},
	}
	for _, row := range []struct {
		name      string
		change    func(*policy.Service)
		endpoints []policy.Endpoint
		clusterIP [4]string // by node
		external  [4]string
	}{
		{
			name:      "both Cluster",
			change:    func(*policy.Service) {},
			endpoints: oneLocal,
			clusterIP: [4]string{"all, all M, all M", "all, all, all", "all M, all M, all M", "all M, all M, all M"},
			external:  [4]string{"all M, all M, all M", "all M, all M, all M", "all M, all M, all M", "all M, all M, all M"},
		}, {
			name:      "external Local",
			change:    externalLocal,
			endpoints: oneLocal,
			clusterIP: [4]string{"all, all M, all M", "all, all, all", "all M, all M, all M", "all M, all M, all M"},
			external:  [4]string{"all, all M, loc", "loc, all M, loc", "all, all M, loc", "loc, all M, loc"},
		}, {
			name:      "internal Local",
			change:    internalLocal,
			endpoints: oneLocal,
			clusterIP: [4]string{"loc, loc M, loc M", "loc, loc, loc", "loc M, loc M, loc M", "loc M, loc M, loc M"},
			external:  [4]string{"all M, all M, all M", "all M, all M, all M", "all M, all M, all M", "all M, all M, all M"},
		}, {
			name:      "both Local",
			change:    func(s *policy.Service) { internalLocal(s); externalLocal(s) },
			endpoints: oneLocal,
			clusterIP: [4]string{"loc, loc M, loc M", "loc, loc, loc", "loc M, loc M, loc M", "loc M, loc M, loc M"},
			external:  [4]string{"all, all M, loc", "loc, all M, loc", "all, all M, loc", "loc, all M, loc"},
		}, {
			name:      "both Cluster, none local",
			change:    func(*policy.Service) {},
			endpoints: allRemote,
			clusterIP: [4]string{"all, all M, all M", "all, all, all", "all M, all M, all M", "all M, all M, all M"},
			external:  [4]string{"all M, all M, all M", "all M, all M, all M", "all M, all M, all M", "all M, all M, all M"},
		}, {
			name:      "external Local, none local",
			change:    externalLocal,
			endpoints: allRemote,
			clusterIP: [4]string{"all, all M, all M", "all, all, all", "all M, all M, all M", "all M, all M, all M"},
			external:  [4]string{"all, all M, drop", "drop, all M, drop", "all, all M, drop", "drop, all M, drop"},
		}, {
			name:      "internal Local, none local",
			change:    internalLocal,
			endpoints: allRemote,
			clusterIP: [4]string{dropped, dropped, dropped, dropped},
			external:  [4]string{"all M, all M, all M", "all M, all M, all M", "all M, all M, all M", "all M, all M, all M"},
		}, {
			name:      "both Cluster, nothing usable",
			change:    func(*policy.Service) {},
			endpoints: unusable,
			clusterIP: [4]string{rejected, rejected, rejected, rejected},
			external:  [4]string{rejected, rejected, rejected, rejected},
		}, {
			name:      "both Local, nothing usable",
			change:    func(s *policy.Service) { internalLocal(s); externalLocal(s) },
			endpoints: unusable,
			clusterIP: [4]string{rejected, rejected, rejected, rejected},
			external:  [4]string{rejected, rejected, rejected, rejected},
		}, {
			name:      "both Local, no endpoint",
			change:    func(s *policy.Service) { internalLocal(s); externalLocal(s) },
			clusterIP: [4]string{rejected, rejected, rejected, rejected},
			external:  [4]string{rejected, rejected, rejected, rejected},
		},
	} {
		for i, n := range nodes {
			t.Run(fmt.Sprintf("%s/%s", row.name, n.name), func(t *testing.T) {
				sp := resolveOne(t, input(service(row.change), slice(row.endpoints...)), n.node)
				for _, f := range sp.Frontends {
					want := row.external[i]
					if f.Kind == proxy.ClusterIP {
						want = row.clusterIP[i]
					}
					if got := show(f.Routes); got != want {
						t.Errorf("%v: %s; want %s", f.Kind, got, want)
					}
				}
				if len(sp.Frontends) != 4 {
					t.Errorf("%d frontends, want one of each kind", len(sp.Frontends))
				}
			})
		}
	}
}

// The same rules hold while the only usable endpoints are on their way out.
func TestRoutesOfTerminatingEndpoints(t *testing.T) {
	for _, c := range []struct {
		name      string
		endpoints []policy.Endpoint
		external  string
		cluster   []string
		local     []string
	}{
		{
			name:      "ready ones exist",
			endpoints: []policy.Endpoint{ep("10.0.1.1", local), ep("10.0.1.2", local, draining), ep("10.0.2.1"), ep("10.0.2.2", draining)},
			external:  "all, all M, loc",
			cluster:   []string{"10.0.1.1", "10.0.2.1"},
			local:     []string{"10.0.1.1"},
		}, {
			name:      "only terminating ones exist",
			endpoints: []policy.Endpoint{ep("10.0.1.1", local, draining), ep("10.0.1.2", local, dead), ep("10.0.2.1", draining)},
			external:  "all, all M, loc",
			cluster:   []string{"10.0.1.1", "10.0.2.1"},
			local:     []string{"10.0.1.1"},
		}, {
			name:      "terminating here, ready elsewhere",
			endpoints: []policy.Endpoint{ep("10.0.1.1", local, draining), ep("10.0.2.1")},
			external:  "all, all M, loc",
			cluster:   []string{"10.0.2.1"},
			local:     []string{"10.0.1.1"},
		}, {
			name:      "terminating elsewhere only",
			endpoints: []policy.Endpoint{ep("10.0.1.1", local, dead), ep("10.0.2.1", draining)},
			external:  "all, all M, drop",
			cluster:   []string{"10.0.2.1"},
		}, {
			name:      "terminating and not serving",
			endpoints: []policy.Endpoint{ep("10.0.1.1", local, dead), ep("10.0.2.1", dead)},
			external:  "reject, reject, reject",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			sp := resolveOne(t, input(service(externalLocal), slice(c.endpoints...)), node())
			diff(t, "load-balancer IP", c.external, show(frontend(t, sp, proxy.LoadBalancerIP).Routes))
			diff(t, "cluster pool", c.cluster, pool(sp.Cluster))
			diff(t, "local pool", c.local, pool(sp.Local))
		})
	}
}

func TestPoolsThatNoRouteUsesAreNil(t *testing.T) {
	for _, c := range []struct {
		name           string
		service        *policy.Service
		node           *proxy.Node
		cluster, local bool
	}{
		{"both Cluster", service(), node(), true, false},
		{"internal Local and external frontends", service(internalLocal), node(), true, true},
		{"internal Local and no other frontend", service(internalLocal, clusterIPOnly), node(), false, true},
		{"external Local but no external frontend", service(externalLocal, clusterIPOnly), node(), true, false},
		{"both Local", service(internalLocal, externalLocal), node(), true, true},
		{"external Local where pods are unknown", service(externalLocal), node(noPodSource), true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			sp := resolveOne(t, input(c.service, slice(oneLocal...)), c.node)
			if got := sp.Cluster != nil; got != c.cluster {
				t.Errorf("cluster pool %v, want it to be there: %t", sp.Cluster, c.cluster)
			}
			if got := sp.Local != nil; got != c.local {
				t.Errorf("local pool %v, want it to be there: %t", sp.Local, c.local)
			}
		})
	}
}
