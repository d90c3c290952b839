package proxy_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/sluice-proxy/sluice/proxy"
)

// fullPort has a value in every field.
func fullPort() *proxy.ServicePort {
	return &proxy.ServicePort{
		Name:     proxy.ServicePortName{Namespace: "ns", Name: "svc", Port: "dns", Protocol: proxy.UDP},
		Priority: true,
		Frontends: []proxy.Frontend{{
			Kind:    proxy.LoadBalancerIP,
			Addr:    netip.MustParseAddrPort("203.0.113.1:53"),
			Routes:  proxy.Every(proxy.Route{Verdict: proxy.Forward, Pool: proxy.LocalPool, Masquerade: true}),
			Allowed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}},
		Cluster:             []proxy.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:53"), Local: true}},
		Local:               []proxy.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:53"), Local: true}},
		Affinity:            time.Hour,
		Scheduler:           "mh",
		Keep:                []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")},
		HealthCheckNodePort: 32000,
		LocalReady:          []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
}

// fullNode has a value in every field.
func fullNode() *proxy.Node {
	return &proxy.Node{
		Family:         proxy.IPv6,
		Name:           "node",
		Zone:           "zone",
		IP:             netip.MustParseAddr("fd00::1"),
		Addrs:          []netip.Addr{netip.MustParseAddr("fd00::1")},
		NodePorts:      proxy.NodePortAddrs{All: true, Addrs: []netip.Addr{netip.MustParseAddr("fd00::1")}, Localhost: true, Relayed: true},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix("fd01::/64"), Interface: "cni0"},
		MasqueradeAll:  true,
		MasqueradeMark: 0x4000,
		ServiceCIDRs:   []netip.Prefix{netip.MustParsePrefix("fd02::/108")},
	}
}

// A field that Equal forgets would leave the kernel with an old value.
func TestEqualSeesEveryField(t *testing.T) {
	if !fullPort().Equal(fullPort()) || !fullNode().Equal(fullNode()) {
		t.Fatal("equal values are told apart")
	}
	for name, zero := range everyField[proxy.ServicePort](t, reflect.ValueOf(*fullPort())) {
		p := fullPort()
		zero(reflect.ValueOf(p).Elem())
		if p.Equal(fullPort()) || fullPort().Equal(p) {
			t.Errorf("ServicePort.%s makes no difference", name)
		}
	}
	for name, zero := range everyField[proxy.Frontend](t, reflect.ValueOf(fullPort().Frontends[0])) {
		p := fullPort()
		zero(reflect.ValueOf(&p.Frontends[0]).Elem())
		if p.Equal(fullPort()) {
			t.Errorf("Frontend.%s makes no difference", name)
		}
	}
	for name, zero := range everyField[proxy.Node](t, reflect.ValueOf(*fullNode())) {
		n := fullNode()
		zero(reflect.ValueOf(n).Elem())
		if n.Equal(fullNode()) || fullNode().Equal(n) {
			t.Errorf("Node.%s makes no difference", name)
		}
	}
	for name, zero := range everyField[proxy.NodePortAddrs](t, reflect.ValueOf(fullNode().NodePorts)) {
		n := fullNode()
		zero(reflect.ValueOf(&n.NodePorts).Elem())
		if n.Equal(fullNode()) {
			t.Errorf("NodePortAddrs.%s makes no difference", name)
		}
	}
}

// everyField maps the name of each field of T to a function that empties it. The fixture must not be
// empty there, or nothing would be tested.
func everyField[T any](t *testing.T, fixture reflect.Value) map[string]func(reflect.Value) {
	fields := map[string]func(reflect.Value){}
	for i := range reflect.TypeFor[T]().NumField() {
		name := reflect.TypeFor[T]().Field(i).Name
		if fixture.Field(i).IsZero() {
			t.Errorf("the fixture has no %s", name)
		}
		fields[name] = func(v reflect.Value) { v.Field(i).SetZero() }
	}
	return fields
}

func TestEqualOfNil(t *testing.T) {
	var noPort *proxy.ServicePort
	var noNode *proxy.Node
	if noPort.Equal(fullPort()) || fullPort().Equal(nil) || noNode.Equal(fullNode()) || fullNode().Equal(nil) {
		t.Error("nil equals a value")
	}
	if !noPort.Equal(nil) || !noNode.Equal(nil) {
		t.Error("nil does not equal nil")
	}
}

func TestServicePortNames(t *testing.T) {
	sorted := []proxy.ServicePortName{
		{Namespace: "a", Name: "z", Port: "z", Protocol: proxy.SCTP},
		{Namespace: "b", Name: "a", Port: "z", Protocol: proxy.SCTP},
		{Namespace: "b", Name: "b", Port: "", Protocol: proxy.SCTP},
		{Namespace: "b", Name: "b", Port: "a", Protocol: proxy.TCP},
		{Namespace: "b", Name: "b", Port: "a", Protocol: proxy.UDP},
	}
	shown := []string{"a/z:z", "b/a:z", "b/b", "b/b:a", "b/b:a"}
	for i, n := range sorted {
		if n.String() != shown[i] {
			t.Errorf("%#v is shown as %q, want %q", n, n, shown[i])
		}
		if want := (proxy.ServiceName{Namespace: n.Namespace, Name: n.Name}); n.Service() != want {
			t.Errorf("%v belongs to %v", n, n.Service())
		}
	}
	if reversed := slices.Backward(sorted); !slices.Equal(slices.SortedFunc(values(reversed), proxy.ServicePortName.Compare), sorted) {
		t.Errorf("names sort differently than %v", sorted)
	}
}

func values[K, V any](seq func(func(K, V) bool)) func(func(V) bool) {
	return func(yield func(V) bool) {
		seq(func(_ K, v V) bool { return yield(v) })
	}
}

func TestRoutes(t *testing.T) {
	forward := func(p proxy.Pool) proxy.Route { return proxy.Route{Verdict: proxy.Forward, Pool: p} }
	drop := proxy.Route{Verdict: proxy.Drop}
	for _, c := range []struct {
		name                            string
		routes                          proxy.Routes
		serves, refuses, cluster, local bool
	}{
		{"rejected", proxy.Every(proxy.Route{}), false, true, false, false},
		{"dropped", proxy.Every(drop), false, true, false, false},
		{"cluster", proxy.Every(forward(proxy.ClusterPool)), true, false, true, false},
		{"local", proxy.Every(forward(proxy.LocalPool)), true, false, false, true},
		{"mixed", proxy.Routes{forward(proxy.ClusterPool), forward(proxy.ClusterPool), drop}, true, true, true, false},
		{"both", proxy.Routes{forward(proxy.ClusterPool), forward(proxy.ClusterPool), forward(proxy.LocalPool)}, true, false, true, true},
	} {
		r := c.routes
		got := []bool{r.Serves(), r.Refuses(), r.Uses(proxy.ClusterPool), r.Uses(proxy.LocalPool)}
		if want := []bool{c.serves, c.refuses, c.cluster, c.local}; !slices.Equal(got, want) {
			t.Errorf("%s: serves, refuses, cluster, local: %v, want %v", c.name, got, want)
		}
	}
}

func TestBackendsOfPool(t *testing.T) {
	p := fullPort()
	p.Local = nil
	if got := p.Backends(proxy.ClusterPool); len(got) != 1 {
		t.Errorf("cluster pool: %v", got)
	}
	if got := p.Backends(proxy.LocalPool); got != nil {
		t.Errorf("local pool: %v", got)
	}
}

// Of 300,000 endpoints every byte counts.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(proxy.Backend{}); got > 40 {
		t.Errorf("a Backend takes %d bytes, more than 40", got)
	}
	if got := unsafe.Sizeof(proxy.Frontend{}); got > 80 {
		t.Errorf("a Frontend takes %d bytes, more than 80", got)
	}
}
