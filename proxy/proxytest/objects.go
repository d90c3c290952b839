package proxytest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

// namespace is where the objects of scenarios are, unless they say something else.
const namespace = "testing"

// nodeName is the name of the node under test, remoteName that of the other one.
const (
	nodeName   = "node"
	remoteName = "remote"
)

// service makes a Service with a ClusterIP, of the type that its parts ask for.
func service(name, clusterIP string, parts ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeClusterIP,
			ClusterIP:  clusterIP,
			ClusterIPs: []string{clusterIP},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		},
	}
	for _, part := range parts {
		part(s)
	}
	return s
}

var apiProtocols = map[proxy.Protocol]corev1.Protocol{
	proxy.TCP: corev1.ProtocolTCP, proxy.UDP: corev1.ProtocolUDP, proxy.SCTP: corev1.ProtocolSCTP,
}

// port adds a port. A nodePort makes a ClusterIP Service a NodePort one.
func port(name string, p proxy.Protocol, number, nodePort int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Protocol: apiProtocols[p], Port: number, NodePort: nodePort})
		if nodePort != 0 && s.Spec.Type == corev1.ServiceTypeClusterIP {
			s.Spec.Type = corev1.ServiceTypeNodePort
		}
	}
}

// tcp80 is an unnamed TCP port 80 without a nodePort; tcp80At has one.
var tcp80 = port("", proxy.TCP, 80, 0)

func tcp80At(nodePort int32) func(*corev1.Service) { return port("", proxy.TCP, 80, nodePort) }

func externalIPs(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, ips...) }
}

// loadBalancer makes a Service of type LoadBalancer whose balancer has these addresses.
func loadBalancer(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
	}
}

// ingress adds an address with an ipMode.
func ingress(ip string, mode corev1.LoadBalancerIPMode) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip, IPMode: &mode})
	}
}

func sourceRanges(cidrs ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, cidrs...)
	}
}

func externalLocal(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func internalLocal(s *corev1.Service) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = &local
}

func healthPort(number int32) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.HealthCheckNodePort = number }
}

// affinity makes clients keep their backend for that many seconds.
func affinity(seconds int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

// created says how many minutes after the first the object was made.
func created(minute int) func(*corev1.Service) {
	return func(s *corev1.Service) { s.CreationTimestamp = metav1.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
}

// slice makes an EndpointSlice of a Service with the same name, whose unnamed TCP port is 8080.
func slice(service string, endpoints ...endpoint) *discoveryv1.EndpointSlice {
	return sliceOf(service, service, []slicePort{{"", proxy.TCP, defaultTargetPort}}, endpoints...)
}

// slicePort is a port of all endpoints of a slice.
type slicePort struct {
	name     string
	protocol proxy.Protocol
	number   int32
}

func (p slicePort) api() discoveryv1.EndpointPort {
	protocol := apiProtocols[p.protocol]
	return discoveryv1.EndpointPort{Name: &p.name, Protocol: &protocol, Port: &p.number}
}

// sliceOf makes an EndpointSlice with any name and ports.
func sliceOf(name, service string, ports []slicePort, endpoints ...endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, p.api())
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint(e))
	}
	return s
}

// endpoint is a pod of the lab in a slice. Its methods return changed copies.
type endpoint discoveryv1.Endpoint

// podAddresses are the addresses of the lab's pods, in IPv4.
var podAddresses = map[string]string{
	"pod-a": "10.1.0.10", "pod-b": "10.1.0.11", "pod-c": "10.1.0.12",
	"remote-a": "10.1.1.10", "remote-b": "10.1.1.11",
}

// ready is a pod that takes traffic.
func ready(pod string) endpoint {
	at, ok := podAddresses[pod]
	if !ok {
		panic(fmt.Sprintf("there is no pod %q", pod))
	}
	on := remoteName
	if pod[:3] == "pod" {
		on = nodeName
	}
	return endpointAt(at).on(on)
}

// endpointAt is a ready endpoint anywhere, on an unknown node.
func endpointAt(address string) endpoint {
	return endpoint{Addresses: []string{address}}.conditions(true, true, false)
}

// draining is a pod that is being deleted and still serves.
func draining(pod string) endpoint { return ready(pod).conditions(false, true, true) }

// ended is a pod that is being deleted and does not serve any more.
func ended(pod string) endpoint { return ready(pod).conditions(false, false, true) }

// unready is a pod that does not serve yet.
func unready(pod string) endpoint { return ready(pod).conditions(false, false, false) }

func (e endpoint) conditions(ready, serving, terminating bool) endpoint {
	e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	return e
}

func (e endpoint) on(node string) endpoint {
	e.NodeName = &node
	return e
}

// forZones adds zone hints, forNodes node hints.
func (e endpoint) forZones(zones ...string) endpoint {
	hints := e.copyHints()
	for _, z := range zones {
		hints.ForZones = append(hints.ForZones, discoveryv1.ForZone{Name: z})
	}
	e.Hints = hints
	return e
}

func (e endpoint) forNodes(nodes ...string) endpoint {
	hints := e.copyHints()
	for _, n := range nodes {
		hints.ForNodes = append(hints.ForNodes, discoveryv1.ForNode{Name: n})
	}
	e.Hints = hints
	return e
}

func (e endpoint) copyHints() *discoveryv1.EndpointHints {
	if e.Hints == nil {
		return &discoveryv1.EndpointHints{}
	}
	return e.Hints.DeepCopy()
}
