package cluster

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// story is one test in a world that other stories use before and after it. What it creates in the
// API lives in a namespace of its own and is deleted at its end.
type story struct {
	*testing.T
	*world
	namespace string
}

func newStory(t *testing.T, w *world) *story {
	path := strings.Split(strings.ToLower(t.Name()), "/")
	s := &story{T: t, world: w, namespace: strings.ReplaceAll(path[len(path)-1], "_", "-")}
	s.namespace = s.namespace[:min(63, len(s.namespace))]
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	if _, err := w.api.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.deleteAll)
	return s
}

// deleteAll does what the namespace controller would.
func (s *story) deleteAll() {
	ctx := context.Background() // the test's own has ended
	services, err := s.api.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for i := range services.Items {
		if err := s.api.CoreV1().Services(s.namespace).Delete(ctx, services.Items[i].Name, metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	}
	err = s.api.DiscoveryV1().EndpointSlices(s.namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		s.Error(err)
	}
}

// The hosts by the part they play. Backends are pods that Services may select; visitor is a pod of
// the node that is none of them.
func (s *story) visitor() *lab.Host     { return s.Pods[0] }
func (s *story) local() *lab.Host       { return s.Pods[1] }
func (s *story) otherLocal() *lab.Host  { return s.Pods[2] }
func (s *story) remote() *lab.Host      { return s.RemotePods[0] }
func (s *story) otherRemote() *lab.Host { return s.RemotePods[1] }

// everyone is a client of each kind: a pod of the node, the node, the outside.
func (s *story) everyone() []*lab.Host { return []*lab.Host{s.visitor(), s.Node, s.Client} }

// outsiders are everyone and a pod elsewhere. Its own node serves it ClusterIPs; here it would have
// its own address as the client's, and replies of backends on its node would miss this node.
func (s *story) outsiders() []*lab.Host { return append(s.everyone(), s.otherRemote()) }

// service creates a dual-stack Service with a TCP port.
func (s *story) service(name string, edits ...func(*corev1.Service)) *corev1.Service {
	s.Helper()
	both := corev1.IPFamilyPolicyRequireDualStack
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			IPFamilyPolicy: &both,
			Ports:          []corev1.ServicePort{{Name: "main", Port: servicePort, Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, edit := range edits {
		edit(svc)
	}
	svc, err := s.api.CoreV1().Services(s.namespace).Create(s.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return svc
}

// update changes the newest version of a Service.
func (s *story) update(svc *corev1.Service, edit func(*corev1.Service)) *corev1.Service {
	s.Helper()
	svc, err := s.api.CoreV1().Services(s.namespace).Get(s.Context(), svc.Name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	edit(svc)
	if svc, err = s.api.CoreV1().Services(s.namespace).Update(s.Context(), svc, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	return svc
}

// delete deletes a Service and leaves its slices.
func (s *story) delete(name string) {
	s.Helper()
	if err := s.api.CoreV1().Services(s.namespace).Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
}

// provide plays the cloud's controller: it reports the load balancer's addresses, in both families.
func (s *story) provide(svc *corev1.Service, mode corev1.LoadBalancerIPMode, addrs ...string) *corev1.Service {
	s.Helper()
	svc = svc.DeepCopy()
	svc.Status.LoadBalancer.Ingress = nil
	for _, a := range addrs {
		for _, f := range proxy.Families {
			ingress := corev1.LoadBalancerIngress{IP: in(f, a).String(), IPMode: &mode}
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, ingress)
		}
	}
	svc, err := s.api.CoreV1().Services(s.namespace).UpdateStatus(s.Context(), svc, metav1.UpdateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return svc
}

// endpoint is a pod as an EndpointSlice describes it.
type endpoint struct {
	host        *lab.Host
	notReady    bool
	terminating bool // still serving
	zone        string
}

func ready(hosts ...*lab.Host) []endpoint {
	eps := make([]endpoint, 0, len(hosts))
	for _, h := range hosts {
		eps = append(eps, endpoint{host: h})
	}
	return eps
}

// endpoints plays the EndpointSlice controller: it makes these the endpoints of a Service, with
// one slice for each of its families.
func (s *story) endpoints(svc *corev1.Service, eps ...endpoint) {
	s.Helper()
	for _, family := range svc.Spec.IPFamilies {
		f := proxy.IPv4
		if family == corev1.IPv6Protocol {
			f = proxy.IPv6
		}
		s.writeSlice(s.slice(svc, f, eps))
	}
}

func (s *story) slice(svc *corev1.Service, f proxy.Family, eps []endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   svc.Name + "-" + strings.ToLower(f.String()),
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		},
		AddressType: discoveryv1.AddressType(f.String()),
		Endpoints:   []discoveryv1.Endpoint{},
	}
	for _, p := range svc.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: new(p.Name), Protocol: new(p.Protocol), Port: new(int32(targetPort)),
		})
	}
	for _, ep := range eps {
		isReady := !ep.notReady && !ep.terminating
		e := discoveryv1.Endpoint{
			Addresses: []string{ep.host.Addr(f).String()},
			NodeName:  new(s.nodeOf(ep.host)),
			Conditions: discoveryv1.EndpointConditions{
				Ready: &isReady, Serving: new(!ep.notReady), Terminating: new(ep.terminating),
			},
		}
		if ep.zone != "" {
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: ep.zone}}}
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	return slice
}

func (s *story) nodeOf(h *lab.Host) string {
	for _, pod := range s.Pods {
		if pod == h {
			return nodeName
		}
	}
	return remoteName
}

func (s *story) writeSlice(slice *discoveryv1.EndpointSlice) {
	s.Helper()
	api := s.api.DiscoveryV1().EndpointSlices(s.namespace)
	old, err := api.Get(s.Context(), slice.Name, metav1.GetOptions{})
	if err != nil {
		_, err = api.Create(s.Context(), slice, metav1.CreateOptions{})
	} else {
		slice.ResourceVersion = old.ResourceVersion
		_, err = api.Update(s.Context(), slice, metav1.UpdateOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
}
