package policy_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func TestPools(t *testing.T) {
	anyZone := func(n *proxy.Node) { n.Zone = "" }
	zoneB := func(n *proxy.Node) { n.Zone = "zone-b" }
	all := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
	byZone := []policy.Endpoint{
		ep("10.0.0.1", local, zones("zone-a")), ep("10.0.0.2", zones("zone-b")),
		ep("10.0.0.3", local, zones("zone-b")), ep("10.0.0.4", zones("zone-a")),
	}
	for _, c := range []struct {
		name      string
		service   *policy.Service
		node      *proxy.Node
		endpoints []policy.Endpoint
		cluster   []string
		local     []string
	}{
		{name: "all hinted for a zone", endpoints: byZone, cluster: []string{"10.0.0.1", "10.0.0.4"}},
		{
			name: "external Local: topology narrows the cluster pool only", service: service(externalLocal),
			endpoints: byZone, cluster: []string{"10.0.0.1", "10.0.0.4"}, local: []string{"10.0.0.1", "10.0.0.3"},
		}, {
			name: "internal Local: topology narrows the cluster pool only", service: service(internalLocal),
			endpoints: byZone, cluster: []string{"10.0.0.1", "10.0.0.4"}, local: []string{"10.0.0.1", "10.0.0.3"},
		},
		{name: "node without a zone", node: node(anyZone), endpoints: byZone, cluster: all},
		{
			name: "an empty hint does not match a node without a zone", node: node(anyZone),
			endpoints: []policy.Endpoint{ep("10.0.0.1", zones("")), ep("10.0.0.2", zones("zone-a"))},
			cluster:   []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "node's zone is not hinted anywhere", node: node(func(n *proxy.Node) { n.Zone = "zone-c" }),
			endpoints: byZone, cluster: all,
		}, {
			name: "unready endpoint in the zone",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a")), ep("10.0.0.2", zones("zone-b")), ep("10.0.0.3", zones("zone-a"), unready),
			},
			cluster: []string{"10.0.0.1"},
		}, {
			name: "only unready endpoints in the zone",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a"), unready), ep("10.0.0.2", zones("zone-b")), ep("10.0.0.3", zones("zone-b")),
			},
			cluster: []string{"10.0.0.2", "10.0.0.3"},
		}, {
			name:      "one ready endpoint without a hint",
			endpoints: []policy.Endpoint{ep("10.0.0.1", zones("zone-a")), ep("10.0.0.2", zones("zone-b")), ep("10.0.0.3")},
			cluster:   []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"},
		}, {
			name:      "an unready endpoint without a hint does not matter",
			endpoints: []policy.Endpoint{ep("10.0.0.1", zones("zone-a")), ep("10.0.0.2", zones("zone-b")), ep("10.0.0.3", unready)},
			cluster:   []string{"10.0.0.1"},
		}, {
			name: "several zones in one hint", node: node(zoneB),
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a")), ep("10.0.0.2", zones("zone-a", "zone-b")), ep("10.0.0.3", zones("zone-b", "zone-c")),
			},
			cluster: []string{"10.0.0.2", "10.0.0.3"},
		}, {
			name: "node hints go before zone hints",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a"), nodes(here)), ep("10.0.0.2", zones("zone-a"), nodes(there)),
			},
			cluster: []string{"10.0.0.1"},
		}, {
			name: "one endpoint without a node hint falls back to zones",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a"), nodes(here)), ep("10.0.0.2", zones("zone-a")), ep("10.0.0.3", zones("zone-b"), nodes(there)),
			},
			cluster: []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "no node hint for this node falls back to zones",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a"), nodes(there)), ep("10.0.0.2", zones("zone-b"), nodes(there)),
			},
			cluster: []string{"10.0.0.1"},
		}, {
			name: "some endpoints have no hints at all",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", zones("zone-a"), nodes(here)), ep("10.0.0.2"),
			},
			cluster: []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "topology and locality disagree", service: service(internalLocal, externalLocal),
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", local, zones("zone-a")), ep("10.0.0.2", zones("zone-a")),
				ep("10.0.0.3", local, zones("zone-b")), ep("10.0.0.4", zones("zone-b")),
			},
			cluster: []string{"10.0.0.1", "10.0.0.2"}, local: []string{"10.0.0.1", "10.0.0.3"},
		}, {
			name: "terminating endpoints know no topology",
			endpoints: []policy.Endpoint{
				ep("10.0.0.1", draining, zones("zone-a")), ep("10.0.0.2", draining, zones("zone-b")), ep("10.0.0.3", dead, zones("zone-a")),
			},
			cluster: []string{"10.0.0.1", "10.0.0.2"},
		},
		{name: "internal Local, no endpoints", service: service(internalLocal, clusterIPOnly)},
		{name: "internal Local, all remote", service: service(internalLocal, clusterIPOnly), endpoints: allRemote},
		{
			name: "internal Local, all local", service: service(internalLocal, clusterIPOnly),
			endpoints: []policy.Endpoint{ep("10.0.0.1", local), ep("10.0.0.2", local)}, local: []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "internal Local, some local", service: service(internalLocal, clusterIPOnly),
			endpoints: []policy.Endpoint{ep("10.0.0.1", local), ep("10.0.0.2")}, local: []string{"10.0.0.1"},
		},
		{name: "none ready", endpoints: []policy.Endpoint{ep("10.0.0.1", unready), ep("10.0.0.2", unready)}},
		{name: "some ready", endpoints: []policy.Endpoint{ep("10.0.0.1"), ep("10.0.0.2", unready)}, cluster: []string{"10.0.0.1"}},
		{
			name:      "all serving and terminating",
			endpoints: []policy.Endpoint{ep("10.0.0.1", draining), ep("10.0.0.2", draining)}, cluster: []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "both Local, all remote", service: service(internalLocal, externalLocal),
			endpoints: allRemote, cluster: []string{"10.0.2.1", "10.0.2.2"},
		}, {
			name: "both Local, all remote and terminating", service: service(internalLocal, externalLocal),
			endpoints: []policy.Endpoint{ep("10.0.0.1", draining), ep("10.0.0.2", draining)}, cluster: []string{"10.0.0.1", "10.0.0.2"},
		}, {
			name: "external Local, ready elsewhere, terminating here", service: service(externalLocal),
			endpoints: []policy.Endpoint{ep("10.0.0.1"), ep("10.0.0.2", draining), ep("10.0.0.3", local, draining), ep("10.0.0.4", local, dead)},
			cluster:   []string{"10.0.0.1"}, local: []string{"10.0.0.3"},
		}, {
			name: "external Local without an external frontend", service: service(externalLocal, clusterIPOnly),
			endpoints: oneLocal, cluster: []string{"10.0.1.1", "10.0.2.1"},
		},
		{name: "not ready, not serving, not terminating", endpoints: []policy.Endpoint{ep("10.0.0.1", unready)}},
		{name: "not ready but serving, not terminating", endpoints: []policy.Endpoint{ep("10.0.0.1", unreadyServing)}},
		{name: "published though not ready", endpoints: []policy.Endpoint{ep("10.0.0.1", published)}, cluster: []string{"10.0.0.1"}},
		{
			name: "an endpoint without a node is never local", service: service(internalLocal),
			node:      node(func(n *proxy.Node) { n.Name = "" }),
			endpoints: []policy.Endpoint{ep("10.0.0.1", nowhere)}, cluster: []string{"10.0.0.1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.service == nil {
				c.service = service()
			}
			if c.node == nil {
				c.node = node()
			}
			sp := resolveOne(t, input(c.service, slice(c.endpoints...)), c.node)
			diff(t, "cluster pool", c.cluster, pool(sp.Cluster))
			diff(t, "local pool", c.local, pool(sp.Local))
		})
	}
}

func TestDuplicatesAcrossSlices(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b policy.Endpoint
		want []string
	}{
		{"equal", ep("10.0.0.1"), ep("10.0.0.1"), []string{"10.0.0.1"}},
		{"the address of a terminating pod serves a new one", ep("10.0.0.1", dead), ep("10.0.0.1"), []string{"10.0.0.1"}},
		{"a new pod that is not ready yet does not serve", ep("10.0.0.1", draining), ep("10.0.0.1", unready), nil},
		{"ready wins over not ready", ep("10.0.0.1", unready), ep("10.0.0.1"), []string{"10.0.0.1"}},
		{"serving wins over not serving", ep("10.0.0.1", dead), ep("10.0.0.1", draining), []string{"10.0.0.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slices := range [][]*policy.Slice{{slice(c.a), slice(c.b)}, {slice(c.b), slice(c.a)}, {slice(c.a, c.b)}} {
				sp := resolveOne(t, input(service(), slices...), node())
				diff(t, "cluster pool", c.want, pool(sp.Cluster))
			}
		})
	}
}

func TestEqualAddressesAtDifferentPortsAreDifferentBackends(t *testing.T) {
	other := slice(ep("10.0.0.1"), ep("10.0.0.0"))
	other.Ports[0].Port = 8079
	sp := resolveOne(t, input(service(), slice(ep("10.0.0.1"), ep("10.0.0.2")), other), node())
	want := []proxy.Backend{
		{Addr: netip.MustParseAddrPort("10.0.0.0:8079")},
		{Addr: netip.MustParseAddrPort("10.0.0.1:8079")},
		{Addr: netip.MustParseAddrPort("10.0.0.1:8080")},
		{Addr: netip.MustParseAddrPort("10.0.0.2:8080")},
	}
	diff(t, "cluster pool", want, sp.Cluster)
}

func TestBackendsThatMayRunHereAreLocal(t *testing.T) {
	sp := resolveOne(t, input(service(), slice(ep("10.0.0.1", local), ep("10.0.0.2", nowhere), ep("10.0.0.3"))), node())
	want := []proxy.Backend{
		{Addr: netip.MustParseAddrPort("10.0.0.1:8080"), Local: true},
		{Addr: netip.MustParseAddrPort("10.0.0.2:8080"), Local: true},
		{Addr: netip.MustParseAddrPort("10.0.0.3:8080")},
	}
	diff(t, "cluster pool", want, sp.Cluster)
}

func TestSlicePortsJoinByNameAndProtocol(t *testing.T) {
	svc := service(clusterIPOnly)
	svc.Ports = []policy.Port{
		{Name: "a", Protocol: proxy.TCP, Port: 80},
		{Name: "a", Protocol: proxy.UDP, Port: 80},
		{Name: "b", Protocol: proxy.TCP, Port: 81},
		{Name: "missing", Protocol: proxy.TCP, Port: 82},
	}
	s := slice(ep("10.0.0.1"))
	s.Ports = []policy.SlicePort{
		{Name: "b", Protocol: proxy.TCP, Port: 80}, // the number of another port of the Service
		{Name: "a", Protocol: proxy.TCP, Port: 1001},
		{Name: "a", Protocol: proxy.TCP, Port: 1000}, // a second of that name: the lower one counts
		{Name: "a", Protocol: proxy.UDP, Port: 1002},
		{Name: "unknown", Protocol: proxy.TCP, Port: 82},
	}
	got := map[string][]proxy.Backend{}
	for _, sp := range policy.Resolve(input(svc, s), node()) {
		got[sp.Name.String()+"/"+sp.Name.Protocol.String()] = sp.Cluster
	}
	at := func(s string) []proxy.Backend { return []proxy.Backend{{Addr: netip.MustParseAddrPort(s)}} }
	diff(t, "backends", map[string][]proxy.Backend{
		"ns/svc:a/tcp": at("10.0.0.1:1000"), "ns/svc:a/udp": at("10.0.0.1:1002"),
		"ns/svc:b/tcp": at("10.0.0.1:80"), "ns/svc:missing/tcp": nil,
	}, got)
}

func TestKeepListsWhatServesWhateverThePolicy(t *testing.T) {
	endpoints := []policy.Endpoint{
		ep("10.0.0.5"), ep("10.0.0.4", draining), ep("10.0.0.3", unreadyServing),
		ep("10.0.0.2", unready), ep("10.0.0.1", dead), ep("10.0.0.6", published),
	}
	want := []netip.AddrPort{
		netip.MustParseAddrPort("10.0.0.3:8080"), netip.MustParseAddrPort("10.0.0.4:8080"),
		netip.MustParseAddrPort("10.0.0.5:8080"), netip.MustParseAddrPort("10.0.0.6:8080"),
	}
	sp := resolveOne(t, input(service(udp, internalLocal, externalLocal), sliceUDP(endpoints...)), node())
	diff(t, "keep", want, sp.Keep)
	sp = resolveOne(t, input(service(internalLocal, externalLocal), slice(endpoints...)), node())
	diff(t, "keep of a TCP port", []netip.AddrPort(nil), sp.Keep)
}

func TestLocalReadyIsOneListForTheService(t *testing.T) {
	svc := service(healthChecked)
	svc.Ports = append(svc.Ports, policy.Port{Name: "metrics", Protocol: proxy.TCP, Port: 9090})
	metrics := slice(ep("10.0.0.7", local), ep("10.0.0.1", local))
	metrics.Ports[0].Name = "metrics"
	foreign := slice(ep("10.0.0.9", local))
	foreign.Ports[0].Name = "of no port of the Service"
	in := input(svc, metrics, foreign, slice(
		ep("10.0.0.2", local), ep("10.0.0.1", local), ep("10.0.0.3"), ep("10.0.0.4", nowhere),
		ep("10.0.0.5", local, unready), ep("10.0.0.6", local, draining),
	))
	ports := policy.Resolve(in, node())
	if len(ports) != 2 {
		t.Fatalf("%d ServicePorts, want 2", len(ports))
	}
	for _, sp := range ports {
		diff(t, "local ready", addrs("10.0.0.1", "10.0.0.2", "10.0.0.7"), sp.LocalReady)
		diff(t, "health check port", uint16(32000), sp.HealthCheckNodePort)
	}
	svc.HealthCheckNodePort = 0
	for _, sp := range policy.Resolve(in, node()) {
		diff(t, "local ready without a health check port", []netip.Addr(nil), sp.LocalReady)
	}
}

// An address counts once, and only if the endpoint that serves it is ready.
func TestLocalReadyIgnoresDuplicatesThatLost(t *testing.T) {
	in := input(service(healthChecked), slice(ep("10.0.0.1", local)), slice(ep("10.0.0.1", local, unready)),
		slice(ep("10.0.0.2", local, dead)), slice(ep("10.0.0.2", local, unready)))
	diff(t, "local ready", addrs("10.0.0.1"), resolveOne(t, in, node()).LocalReady)
}
