package faults

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	servicePort = 80
	targetPort  = 8080 // of servers that answer
	sinkPort    = 9000 // of receivers that do not
)

// services are those of a world, all of them with both families.
type services struct {
	web    *corev1.Service // TCP and UDP, with NodePorts; four backends
	sticky *corev1.Service // TCP with client affinity; four backends
	stream *corev1.Service // UDP without answers; two backends
	moving *corev1.Service // TCP; one backend, that stories move
}

func (w *world) visitor() *lab.Host { return w.Pods[0] }
func (w *world) local() *lab.Host   { return w.Pods[1] }
func (w *world) remote() *lab.Host  { return w.RemotePods[0] }

func (w *world) backends() []*lab.Host {
	return []*lab.Host{w.Pods[1], w.Pods[2], w.RemotePods[0], w.RemotePods[1]}
}

func (w *world) createServices(t *testing.T) {
	for _, h := range w.backends() {
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
			if err := h.Serve(p, targetPort); err != nil {
				t.Fatal(err)
			}
		}
	}
	tcp := corev1.ServicePort{Name: "tcp", Port: servicePort, Protocol: corev1.ProtocolTCP}
	udp := corev1.ServicePort{Name: "udp", Port: servicePort, Protocol: corev1.ProtocolUDP}
	w.web = w.service(t, "web", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{tcp, udp}})
	w.sticky = w.service(t, "sticky", corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityClientIP, Ports: []corev1.ServicePort{tcp}})
	w.stream = w.service(t, "stream", corev1.ServiceSpec{Ports: []corev1.ServicePort{udp}})
	w.moving = w.service(t, "moving", corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp}})
	w.endpoints(t, w.web, targetPort, w.backends()...)
	w.endpoints(t, w.sticky, targetPort, w.backends()...)
	w.endpoints(t, w.stream, sinkPort, w.local(), w.remote())
	w.endpoints(t, w.moving, targetPort, w.local())
}

func (w *world) service(t *testing.T, name string, spec corev1.ServiceSpec) *corev1.Service {
	t.Helper()
	spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	svc, err := w.api.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// endpoints makes these hosts the endpoints of a Service, in both families. An API server that has just come back may
// need more than one try.
func (w *world) endpoints(t *testing.T, svc *corev1.Service, port int32, hosts ...*lab.Host) {
	t.Helper()
	for _, f := range proxy.Families {
		eventually(t, "write EndpointSlice", func() error { return w.writeSlice(t.Context(), w.slice(svc, f, port, hosts)) })
	}
}

func (w *world) slice(svc *corev1.Service, f proxy.Family, port int32, hosts []*lab.Host) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   svc.Name + "-" + strings.ToLower(f.String()),
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		},
		AddressType: discoveryv1.AddressType(f.String()),
	}
	for _, p := range svc.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol), Port: new(port)})
	}
	for _, h := range hosts {
		on := "remote"
		if h.Namespace != w.Remote.Namespace {
			on = nodeName
		}
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{h.Addr(f).String()}, NodeName: &on,
		})
	}
	return slice
}

func (w *world) writeSlice(ctx context.Context, slice *discoveryv1.EndpointSlice) error {
	api := w.api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	old, err := api.Get(ctx, slice.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, slice, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	slice.ResourceVersion = old.ResourceVersion
	_, err = api.Update(ctx, slice, metav1.UpdateOptions{})
	return err
}

// clusterIP is where a Service's ClusterIP answers in a family.
func clusterIP(svc *corev1.Service, f proxy.Family) netip.AddrPort {
	for _, ip := range svc.Spec.ClusterIPs {
		if a := netip.MustParseAddr(ip); proxy.FamilyOf(a) == f {
			return netip.AddrPortFrom(a, servicePort)
		}
	}
	panic(fmt.Sprintf("%s has no ClusterIP in %v", svc.Name, f))
}

// nodePort is where the NodePort of web answers.
func (w *world) nodePort(f proxy.Family, p proxy.Protocol) netip.AddrPort {
	i := map[proxy.Protocol]int{proxy.TCP: 0, proxy.UDP: 1}[p]
	return netip.AddrPortFrom(lab.In(f, lab.NodeIP), uint16(w.web.Spec.Ports[i].NodePort))
}

// moves makes a host the only endpoint of moving and waits until it is served so.
func (w *world) moves(t *testing.T, to *lab.Host) {
	t.Helper()
	w.endpoints(t, w.moving, targetPort, to)
	w.awaitMoved(t, to)
}

func (w *world) awaitMoved(t *testing.T, to *lab.Host) {
	t.Helper()
	for _, f := range proxy.Families {
		eventually(t, fmt.Sprintf("%s serves moving over %v", to.Name, f), func() error {
			o := w.Client.Probe(lab.Probe{To: clusterIP(w.moving, f), Protocol: proxy.TCP, Timeout: answerLimit})
			if o.Result != lab.Answered || o.Server != to.Name {
				return fmt.Errorf("%v", o)
			}
			return nil
		})
	}
}
