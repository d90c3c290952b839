package desired_test

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/track"
)

var trackConfig = track.Config{ExternalIPs: true, Logger: funcr.New(func(_, _ string) {}, funcr.Options{})}

// world is a cluster whose events arrive at a Tracker and two Builders in arbitrary batches.
type world struct {
	services map[string]*corev1.Service
	slices   map[string]*discoveryv1.EndpointSlice
	tracker  *track.Tracker
	families [2]*observed
}

// observed is one family's Builder and the last snapshot that it gave.
type observed struct {
	node    *proxy.Node
	builder *desired.Builder
	last    *proxy.Snapshot
}

func newWorld() *world {
	w := &world{
		services: map[string]*corev1.Service{},
		slices:   map[string]*discoveryv1.EndpointSlice{},
		tracker:  track.New(trackConfig),
	}
	for _, f := range proxy.Families {
		n := node(func(n *proxy.Node) { n.Family = f })
		w.families[f] = &observed{node: n, builder: desired.NewBuilder(n)}
	}
	return w
}

// TestAnyHistoryEndsLikeAFreshStart is what incremental work must not break: whatever the order, the
// batching and the repetition of events, the snapshot is that of a rebuild from the present objects,
// what did not change keeps its pointer, and both ways to find the changes agree.
func TestAnyHistoryEndsLikeAFreshStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		t.Repeat(map[string]func(*rapid.T){
			"set service":    w.setService,
			"delete service": w.deleteService,
			"set slice":      w.setSlice,
			"delete slice":   w.deleteSlice,
			"resend":         w.resend,
			"take":           w.take,
			"set node":       w.setNode,
			"snapshot":       w.check,
		})
		w.check(t)
		w.checkNothingIsLeft(t)
	})
}

var (
	serviceNames = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	sliceNames   = rapid.SampledFrom([]string{"w", "x", "y", "z"})
)

func (w *world) setService(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "services") {
		s := drawService(t)
		w.services[s.Name] = s
		w.tracker.SetService(s)
	}
}

func (w *world) deleteService(t *rapid.T) {
	name := serviceNames.Draw(t, "service")
	delete(w.services, name)
	w.tracker.DeleteService(proxy.ServiceName{Namespace: "ns", Name: name})
}

func (w *world) setSlice(t *rapid.T) {
	s := drawSlice(t)
	w.slices[s.Name] = s
	w.tracker.SetEndpointSlice(s)
}

func (w *world) deleteSlice(t *rapid.T) {
	name := sliceNames.Draw(t, "slice")
	delete(w.slices, name)
	w.tracker.DeleteEndpointSlice("ns", name)
}

func (w *world) resend(*rapid.T) {
	for _, s := range w.services {
		w.tracker.SetService(s.DeepCopy())
	}
	for _, s := range w.slices {
		w.tracker.SetEndpointSlice(s.DeepCopy())
	}
}

func (w *world) take(*rapid.T) {
	batch := w.tracker.Take()
	for _, f := range w.families {
		f.builder.Update(batch.Inputs)
	}
}

func (w *world) setNode(t *rapid.T) {
	f := w.families[rapid.IntRange(0, 1).Draw(t, "family")]
	n := *f.node
	n.Name = rapid.SampledFrom([]string{"here", "there"}).Draw(t, "name")
	n.Zone = rapid.SampledFrom([]string{"", "zone-a"}).Draw(t, "zone")
	n.MasqueradeAll = rapid.Bool().Draw(t, "masquerade all")
	n.MasqueradeMark = rapid.Uint32Range(1, 2).Draw(t, "mark")
	f.node = &n
	f.builder.SetNode(&n)
}

func (w *world) check(t *rapid.T) {
	w.take(t)
	inputs := w.rebuiltInputs()
	for _, f := range w.families {
		got := f.builder.Snapshot()
		rebuilt := desired.NewBuilder(f.node)
		rebuilt.Update(inputs)
		want := rebuilt.Snapshot()
		checkEqual(t, want, got)
		checkOwners(t, got)
		if d := cmp.Diff(rebuilt.Conflicts(), f.builder.Conflicts(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Fatalf("conflicts (-rebuilt +incremental):\n%s", d)
		}
		checkPointers(t, f.last, got)
		f.last = got
	}
}

// checkNothingIsLeft removes all objects. Whatever was contested before, nothing may stay behind.
func (w *world) checkNothingIsLeft(t *rapid.T) {
	for name := range w.services {
		w.tracker.DeleteService(proxy.ServiceName{Namespace: "ns", Name: name})
	}
	w.take(t)
	for _, f := range w.families {
		if s := f.builder.Snapshot(); s.Len() != 0 || f.builder.Remembered() != 0 {
			t.Fatalf("%d ServicePorts and %d records are left", s.Len(), f.builder.Remembered())
		}
	}
}

// rebuiltInputs is what a Tracker says that sees only the present objects.
func (w *world) rebuiltInputs() []policy.Input {
	var services []*corev1.Service
	for _, s := range w.services {
		services = append(services, s)
	}
	var slices []*discoveryv1.EndpointSlice
	for _, s := range w.slices {
		slices = append(slices, s)
	}
	return track.Inputs(trackConfig, services, slices)
}

func checkEqual(t *rapid.T, want, got *proxy.Snapshot) {
	if !got.Node().Equal(want.Node()) {
		t.Fatalf("the node is %v, want %v", got.Node(), want.Node())
	}
	for name, port := range want.All() {
		if !port.Equal(got.Get(name)) {
			t.Fatalf("%v is %+v, want %+v", name, got.Get(name), port)
		}
	}
	if got.Len() != want.Len() {
		t.Fatalf("%d ServicePorts, want %d", got.Len(), want.Len())
	}
}

// checkOwners holds that each frontend has one owner, and that nobody takes another's ClusterIP.
func checkOwners(t *rapid.T, s *proxy.Snapshot) {
	found := map[proxy.FrontendKey]proxy.ServicePortName{}
	for name, port := range s.All() {
		if len(port.Frontends) == 0 {
			t.Fatalf("%v has no frontend", name)
		}
		for _, f := range port.Frontends {
			key := proxy.FrontendKey{Addr: f.Addr, Protocol: name.Protocol}
			if other, taken := found[key]; taken {
				t.Fatalf("%v belongs to %v and %v", key, other, name)
			}
			found[key] = name
		}
	}
}

func checkPointers(t *rapid.T, old, next *proxy.Snapshot) {
	changes := maps.Collect(next.Changes(old))
	for name, c := range changes {
		if c.Old.Equal(c.New) {
			t.Fatalf("%v did not change, but its pointer did", name)
		}
	}
	if old == nil {
		return
	}
	if next != old && len(changes) == 0 && next.Node().Equal(old.Node()) {
		t.Fatalf("a new snapshot without a change")
	}
	stranger := proxy.NewSnapshot(old.Node(), maps.Collect(old.All()))
	if compared := maps.Collect(next.Changes(stranger)); !maps.Equal(changes, compared) {
		t.Fatalf("changes are %v; by full comparison they are %v", changes, compared)
	}
}

func drawService(t *rapid.T) *corev1.Service {
	ips := rapid.SliceOfN(rapid.SampledFrom([]string{"172.30.0.1", "172.30.0.2", "198.51.100.1", "198.51.100.2", "2001:db8::1"}), 0, 2)
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         "ns",
			Name:              serviceNames.Draw(t, "service"),
			CreationTimestamp: metav1.NewTime(noon.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "created")) * time.Hour)),
		},
		Spec: corev1.ServiceSpec{
			Type:        corev1.ServiceTypeLoadBalancer,
			ClusterIP:   rapid.SampledFrom([]string{"172.30.0.1", "172.30.0.2", "172.30.0.3", "fd00:30::1", corev1.ClusterIPNone}).Draw(t, "cluster IP"),
			ExternalIPs: ips.Draw(t, "external IPs"),
		},
	}
	if rapid.Bool().Draw(t, "dual stack") && s.Spec.ClusterIP[0] == '1' {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP, "fd00:30::1"}
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}
	for _, ip := range ips.Draw(t, "load-balancer IPs") {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	if rapid.Bool().Draw(t, "external Local") {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.HealthCheckNodePort = 32000
	}
	for i, protocol := range rapid.SliceOfN(rapid.SampledFrom([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}), 1, 2).Draw(t, "ports") {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: fmt.Sprintf("p%d", i), Protocol: protocol, Port: 80,
			NodePort: rapid.SampledFrom([]int32{0, 30080, 30081}).Draw(t, "node port"),
		})
	}
	return s
}

func drawSlice(t *rapid.T) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: sliceNames.Draw(t, "slice"),
			Labels: map[string]string{discoveryv1.LabelServiceName: serviceNames.Draw(t, "service")},
		},
		AddressType: rapid.SampledFrom([]discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN}).Draw(t, "type"),
	}
	for i, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		name, number := fmt.Sprintf("p%d", i), rapid.Int32Range(8080, 8081).Draw(t, "number")
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol})
	}
	for range rapid.IntRange(0, 3).Draw(t, "endpoints") {
		s.Endpoints = append(s.Endpoints, drawEndpoint(t, s.AddressType))
	}
	return s
}

func drawEndpoint(t *rapid.T, kind discoveryv1.AddressType) discoveryv1.Endpoint {
	prefix := "10.0.0."
	if kind == discoveryv1.AddressTypeIPv6 {
		prefix = "fd00:1::"
	}
	conditions := rapid.Ptr(rapid.Bool(), true)
	e := discoveryv1.Endpoint{
		Addresses: []string{prefix + rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "address")},
		NodeName:  rapid.Ptr(rapid.SampledFrom([]string{"here", "there"}), true).Draw(t, "node"),
		Conditions: discoveryv1.EndpointConditions{
			Ready: conditions.Draw(t, "ready"), Serving: conditions.Draw(t, "serving"), Terminating: conditions.Draw(t, "terminating"),
		},
	}
	if zone := rapid.SampledFrom([]string{"", "zone-a", "zone-b"}).Draw(t, "zone"); zone != "" {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
	}
	return e
}
