package track

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func ptr[T any](v T) *T { return &v }

func addrs(list ...string) []netip.Addr {
	var result []netip.Addr
	for _, s := range list {
		result = append(result, netip.MustParseAddr(s))
	}
	return result
}

func serviceName(name string) proxy.ServiceName {
	return proxy.ServiceName{Namespace: "ns", Name: name}
}

// newService is a ClusterIP Service with one TCP port.
func newService(name string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{
			Type:      corev1.ServiceTypeClusterIP,
			ClusterIP: "172.30.0.1",
			Ports:     []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// newSlice has one ready endpoint per address, all on node-1.
func newSlice(name, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name,
			Labels:      map[string]string{discoveryv1.LabelServiceName: service},
			Annotations: map[string]string{},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: ptr("node-1")})
	}
	return s
}

// silent is a logger that writes nothing; the zero value would be the global one.
var silent = funcr.New(func(_, _ string) {}, funcr.Options{})

// logs collects the lines that a Tracker writes.
type logs struct{ lines []string }

func (l *logs) logger() logr.Logger {
	return funcr.New(func(_, args string) { l.lines = append(l.lines, args) }, funcr.Options{})
}

// expect tells whether there is one line for each text that holds it, and forgets them.
func (l *logs) expect(t *testing.T, texts ...string) {
	t.Helper()
	if len(l.lines) != len(texts) {
		t.Errorf("%d lines of log, want %d: %v", len(l.lines), len(texts), l.lines)
	}
	for i, text := range texts {
		if i < len(l.lines) && !strings.Contains(l.lines[i], text) {
			t.Errorf("log line %q does not say %q", l.lines[i], text)
		}
	}
	l.lines = nil
}

// read is what a Tracker that honours external IPs makes of one Service; nil if it leaves it out.
func read(s *corev1.Service) *policy.Service {
	for _, in := range Inputs(Config{ExternalIPs: true, Logger: silent}, []*corev1.Service{s}, nil) {
		return in.Service
	}
	return nil
}

// readSlice is what a Tracker makes of one EndpointSlice; nil if it leaves it out.
func readSlice(s *discoveryv1.EndpointSlice) *policy.Slice {
	owner := newService(s.Labels[discoveryv1.LabelServiceName], func(o *corev1.Service) { o.Namespace = s.Namespace })
	if owner.Name == "" {
		owner.Name = "other"
	}
	in := Inputs(Config{Logger: silent}, []*corev1.Service{owner}, []*discoveryv1.EndpointSlice{s})
	if len(in) != 1 || len(in[0].Slices) == 0 {
		return nil
	}
	return in[0].Slices[0]
}

// changed are the names of the Services that a Take hands out.
func changed(b Batch) []string {
	var names []string
	for _, in := range b.Inputs {
		names = append(names, in.Name.Name)
	}
	return names
}

func pending(t *Tracker) bool {
	select {
	case <-t.Pending():
		return true
	default:
		return false
	}
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	compare := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}
