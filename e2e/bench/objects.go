package main

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	namespace   = metav1.NamespaceDefault
	nodeName    = "node"
	remoteName  = "remote" // where all endpoints are
	servicePort = 80
	targetPort  = 8080

	sharedName      = "shared"
	firstSharedPort = 10000
	maxSharedPorts  = 10000

	// Of so many services one has no endpoints: neither the first nor the last one.
	emptyEvery = 10
)

var (
	sharedIP = netip.MustParseAddr("203.0.113.80")
	// straight is a pod that is no endpoint.
	straight = lab.CrowdCIDR.Addr().Next()
)

// service is a Service of the cluster with its endpoints, as the API server has them.
type service struct {
	name     string
	vip      netip.Addr
	ports    []corev1.ServicePort
	backends []netip.Addr // may be none
}

func serviceName(i int) string { return fmt.Sprintf("service-%05d", i) }

// hasEndpoints tells whether the i-th service has endpoints.
func hasEndpoints(i int) bool { return i%emptyEvery != emptyEvery/2 }

// onePort is what all Services but the shared one have.
func onePort() []corev1.ServicePort {
	return []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: servicePort}}
}

// manyPorts are the ports of the shared Service.
func manyPorts(n int) []corev1.ServicePort {
	ports := make([]corev1.ServicePort, n)
	for i := range ports {
		port := int32(firstSharedPort + i)
		ports[i] = corev1.ServicePort{Name: fmt.Sprintf("p-%d", port), Protocol: corev1.ProtocolTCP, Port: port}
	}
	return ports
}

// object is the Service as it is created: the API server chooses its ClusterIP.
func (s service) object() *corev1.Service {
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name},
		Spec:       corev1.ServiceSpec{Ports: s.ports},
	}
	if s.name == sharedName {
		noNodePorts := false
		object.Spec.Type = corev1.ServiceTypeLoadBalancer
		object.Spec.AllocateLoadBalancerNodePorts = &noNodePorts
	}
	return object
}

// slice is the Service's only EndpointSlice.
func (s service) slice() *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      s.name,
			Labels:    map[string]string{discoveryv1.LabelServiceName: s.name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range s.ports {
		port := int32(targetPort)
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &port})
	}
	ready, node := true, remoteName
	for _, b := range s.backends {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{b.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			NodeName:   &node,
		})
	}
	return slice
}

// nodeObject is the Node that the proxies run on.
func nodeObject() *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	node.Spec.PodCIDR = lab.NodeCIDR.String()
	node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: lab.NodeIP.String()}}
	return node
}

// addresses hands out the crowd's addresses, the longest unused first. A new endpoint thus never has
// the address that another one just lost. If there are not enough, a pod is an endpoint of several Services.
type addresses struct {
	free []netip.Addr
}

func newAddresses() *addresses {
	a := &addresses{}
	a.refill()
	return a
}

// refill adds each address once more.
func (a *addresses) refill() {
	for addr := straight.Next(); lab.CrowdCIDR.Contains(addr.Next()); addr = addr.Next() { // without the broadcast address
		a.free = append(a.free, addr)
	}
}

// lowWater is when there are more addresses to be made, so that one that was given back rests a while.
const lowWater = 1000

// take is an address that is not one of others.
func (a *addresses) take(others []netip.Addr) netip.Addr {
	if len(a.free) < lowWater {
		a.refill()
	}
	i := slices.IndexFunc(a.free, func(addr netip.Addr) bool { return !slices.Contains(others, addr) })
	a.free[0], a.free[i] = a.free[i], a.free[0]
	addr := a.free[0]
	a.free = a.free[1:]
	return addr
}

func (a *addresses) give(addr netip.Addr) { a.free = append(a.free, addr) }
